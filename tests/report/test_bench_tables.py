"""Benchmarks laid out as in the paper, to the letter."""

from typing import Any

from contrasim_cli.report import text as report
from contrasim_cli.report.results import SEVERAL, BenchRow, CompareRow, Results

CHANCE = {"layers": 1 / 6}


def row(measure: str, accuracy: float | None, benchmark: str = "multilingual", **more: Any) -> BenchRow:
    values = {"negatives": "", "pair": "all", "layer": "all", "std": 0.02, "ci_low": 0.25, "ci_high": 1.0, "trials": 60}
    values |= {"chance": CHANCE.get(benchmark, 1 / 11), "mrr": 0.8, "margin": 2.5} | more
    return BenchRow(benchmark, measure, accuracy=accuracy, **values)


def text(rows: list[BenchRow], width: int = 100) -> str:
    return report.render(Results("bench", BenchRow, rows, optional=SEVERAL), "table", color=False, width=width)


def test_data_sets_are_rows_and_columns() -> None:
    rows = [
        *(row("cka", 0.7 + k / 10, "layers", test_data=test) for k, test in enumerate(("ptb", "wiki"))),
        *(
            row(
                "contrasim",
                1.0 if train == test else 0.9,
                "layers",
                test_data=test,
                train_data=train,
                encoders=5,
                trials=300,
            )
            for train in ("ptb", "wiki")
            for test in ("ptb", "wiki")
        ),
        row("cka", 0.5, "layers", test_data="ptb", layer="hidden_1"),
    ]
    assert text(rows) == (
        "layers: accuracy in % ± std; chance is 16.7 %; 60 trials (for each of 5 encoders); beneath, the 95 % interval\n"
        "┏━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━━━━━┓\n"
        "┃ measure   ┃ trained on ┃         ptb ┃        wiki ┃\n"
        "┡━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━━━━━┩\n"
        "│ cka       │            │  70.0 ± 2.0 │  80.0 ± 2.0 │\n"
        "│           │            │  25.0–100.0 │  25.0–100.0 │\n"
        "│ contrasim │ ptb        │ 100.0 ± 2.0 │  90.0 ± 2.0 │\n"
        "│           │            │  25.0–100.0 │  25.0–100.0 │\n"
        "│           │ wiki       │  90.0 ± 2.0 │ 100.0 ± 2.0 │\n"
        "│           │            │  25.0–100.0 │  25.0–100.0 │\n"
        "└───────────┴────────────┴─────────────┴─────────────┘\n"
    )


def test_measures_that_are_no_better_than_chance_are_named_beneath() -> None:
    rows = [
        row(measure, 0.1, negatives=kind, ci_low=low, ci_high=high, layer=layer)
        for measure, kind, low, high in (
            ("cka", "random", 0.08, 0.12),
            ("cka", "faiss", 0.095, 0.2),
            ("dot", "random", 0.01, 0.08),
            ("dot", "faiss", 0.02, 0.2),
        )
        for layer in ("all", "hidden_1")
    ]
    assert text(rows).splitlines()[-2:] == [
        "No better than chance, which lies in the 95 % interval: cka (random) and dot (faiss)",
        "Below chance: dot (random)",
    ]
    assert "chance:" not in text([row("cka", 0.5, ci_low=0.2, ci_high=0.7)])


def test_seen_and_unseen_models_are_side_by_side() -> None:
    rows = [
        row(measure, accuracy, "layers", test_data="ptb", models=models, ci_low=None, ci_high=None, trials=trials)
        for measure, found in (("cka", (0.5, 0.4)), ("contrasim", (1.0, 0.2)))
        for models, accuracy, trials in zip(("seen", "unseen"), found, (72, 12), strict=True)
    ]
    assert text(rows) == (
        "layers: accuracy in % ± std; chance is 16.7 %; 12 to 72 trials; beneath, the 95 % interval\n"
        "┏━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━━━━┓\n"
        "┃           ┃         ptb ┃        ptb ┃\n"
        "┃ measure   ┃        seen ┃     unseen ┃\n"
        "┡━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━━━━┩\n"
        "│ cka       │  50.0 ± 2.0 │ 40.0 ± 2.0 │\n"
        "│ contrasim │ 100.0 ± 2.0 │ 20.0 ± 2.0 │\n"
        "└───────────┴─────────────┴────────────┘\n"
    )


def test_kinds_of_negatives_are_side_by_side_where_there_is_room() -> None:
    rows = [
        row(measure, 0.5, negatives=kind, layer=layer)
        for kind in ("random", "faiss")
        for measure in ("cka", "contrasim")
        for layer in ("l1", "all")
    ]
    assert text(rows) == (
        "multilingual: accuracy in % ± std; chance is 9.1 %\n"
        "┏━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━┓\n"
        "┃               ┃     random ┃     random ┃      faiss ┃      faiss ┃\n"
        "┃ layer         ┃        cka ┃  contrasim ┃        cka ┃  contrasim ┃\n"
        "┡━━━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━┩\n"
        "│ l1            │ 50.0 ± 2.0 │ 50.0 ± 2.0 │ 50.0 ± 2.0 │ 50.0 ± 2.0 │\n"
        "├───────────────┼────────────┼────────────┼────────────┼────────────┤\n"
        "│ all           │ 50.0 ± 2.0 │ 50.0 ± 2.0 │ 50.0 ± 2.0 │ 50.0 ± 2.0 │\n"
        "│ 95 % interval │ 25.0–100.0 │ 25.0–100.0 │ 25.0–100.0 │ 25.0–100.0 │\n"
        "│ trials        │         60 │         60 │         60 │         60 │\n"
        "│ MRR           │      0.800 │      0.800 │      0.800 │      0.800 │\n"
        "│ margin        │        2.5 │        2.5 │        2.5 │        2.5 │\n"
        "└───────────────┴────────────┴────────────┴────────────┴────────────┘\n"
    )
    narrow = text(rows, width=60).splitlines()
    assert narrow[0] == "multilingual, random negatives: accuracy in % ± std; chance is 9.1 %"
    assert "multilingual, faiss negatives: accuracy in % ± std; chance is 9.1 %" in narrow
    assert max(map(len, narrow)) <= 70


def test_model_pairs_are_columns() -> None:
    rows = [
        row(measure, 0.5, "image-caption", negatives=kind, pair=pair, layer=layer, std=None)
        for kind in ("random", "faiss")
        for measure in ("dot", "norm")
        for pair in ("vit-bert", "vit-gpt2")
        for layer in ("last", "all")
    ]
    assert text(rows) == (
        "image-caption: accuracy in % ± std; chance is 9.1 %; 60 trials; beneath, the 95 % interval\n"
        "┏━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━┓\n"
        "┃ negatives ┃ measure ┃   vit-bert ┃   vit-gpt2 ┃\n"
        "┡━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━┩\n"
        "│ random    │ dot     │       50.0 │       50.0 │\n"
        "│           │         │ 25.0–100.0 │ 25.0–100.0 │\n"
        "│           │ norm    │       50.0 │       50.0 │\n"
        "│           │         │ 25.0–100.0 │ 25.0–100.0 │\n"
        "├───────────┼─────────┼────────────┼────────────┤\n"
        "│ faiss     │ dot     │       50.0 │       50.0 │\n"
        "│           │         │ 25.0–100.0 │ 25.0–100.0 │\n"
        "│           │ norm    │       50.0 │       50.0 │\n"
        "│           │         │ 25.0–100.0 │ 25.0–100.0 │\n"
        "└───────────┴─────────┴────────────┴────────────┘\n"
    )


def test_one_pair_and_layer_is_a_line_per_measure() -> None:
    rows = [
        row(
            measure,
            0.5 if measure == "cka" else None,
            "image-caption",
            negatives=kind,
            layer=layer,
            ci_low=None,
            std=None,
        )
        for kind in ("random", "faiss")
        for measure in ("cka", "svcca")
        for layer in ("last", "all")
    ]
    assert text(rows).splitlines()[1:] == [
        "┏━━━━━━━━━┳━━━━━━━━┳━━━━━━━┓",
        "┃ measure ┃ random ┃ faiss ┃",
        "┡━━━━━━━━━╇━━━━━━━━╇━━━━━━━┩",
        "│ cka     │   50.0 │  50.0 │",
        "│ svcca   │        │       │",
        "└─────────┴────────┴───────┘",
    ]


def test_comparisons() -> None:
    same = CompareRow("multilingual", "faiss", "all", "", "", "l1", "cka", "dot", 0.5, 0.25, 0.25, -0.1, 0.6, 0.2, 0.4,
                      40, 80, "no difference")  # fmt: skip
    nothing = CompareRow("multilingual", "faiss", "all", "", "", "all", "cka", "dot", *[None] * 7, 0, 0, "undefined")
    shown = report.render(Results("bench compare", CompareRow, [same, nothing]), "table", color=False, width=100)
    assert shown == (
        "multilingual, faiss negatives: cka minus dot, 0 trials in 0 clusters\n"
        "┏━━━━━━━┳━━━━━━┳━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━┳━━━━━━━━━━━━━━━┓\n"
        "┃ layer ┃  cka ┃  dot ┃ difference ┃  95 % interval ┃   p ┃ verdict       ┃\n"
        "┡━━━━━━━╇━━━━━━╇━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━╇━━━━━━━━━━━━━━━┩\n"
        "│ l1    │ 50.0 │ 25.0 │      +25.0 │ [-10.0, +60.0] │ 0.4 │ no difference │\n"
        "├───────┼──────┼──────┼────────────┼────────────────┼─────┼───────────────┤\n"
        "│ all   │      │      │            │                │     │ undefined     │\n"
        "└───────┴──────┴──────┴────────────┴────────────────┴─────┴───────────────┘\n"
    )
