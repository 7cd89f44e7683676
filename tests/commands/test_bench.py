"""`contrasim bench` through the real entry point."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles
import pytest
import torch
from helpers import run

CKA = ("--measure", "cka")  # alone: without the encoder of the package beside it
COLUMNS = [
    "benchmark",
    "measure",
    "negatives",
    "pair",
    "layer",
    "accuracy",
    "std",
    "ci_low",
    "ci_high",
    "chance",
    "trials",
    "mrr",
    "margin",
]


def said(stderr: str) -> str:
    """All but that trials are few, as they are here."""
    return "".join(line for line in stderr.splitlines(keepends=True) if " trials: each is worth " not in line)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def noisy(views: int, rows: int, noise: float = 0.4, layers: int = 2) -> list[dict[str, Any]]:
    """The same rows with other noise."""
    (base,) = made.related(1, layers, rows, (7,))
    rng = np.random.default_rng(1)
    return [
        {n: (x + noise * rng.normal(size=x.shape)).astype(np.float32) for n, x in base.items()} for _ in range(views)
    ]


def written(folder: Path, names: list[str], layers: list[dict[str, Any]]) -> list[Path]:
    return [made.store(folder / f"{name}.h5", x) for name, x in zip(names, layers, strict=True)]


@pytest.fixture
def views(tmp_path: Path) -> list[Path]:
    return written(tmp_path, ["en", "ar", "zh"], noisy(3, 35))


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return written(tmp_path, ["m0", "m1", "m2", "m3"], made.related(4, 4, 40, (7,), noise=2.0))


# --- layers -----------------------------------------------------------------------------------------------------------


def test_layers(models: list[Path]) -> None:
    done = run("bench", "layers", *models, "--measure", "cka", "--measure", "dot")
    assert (done.code, said(done.stderr)) == (0, "")
    rows = table(done.stdout)
    assert list(rows[0]) == COLUMNS
    assert [(r["measure"], r["negatives"], r["pair"], r["layer"], r["trials"]) for r in rows] == [
        (measure, "", *row)
        for measure in ("cka", "dot")
        for row in [
            *(("all", f"layer_{k}", "2") for k in range(4)),
            ("m0-m1", "all", "4"),
            ("m2-m3", "all", "4"),
            ("all", "all", "8"),
        ]
    ]
    stores = made.related(4, 4, 40, (7,), noise=2.0)
    by_pair = [
        oracles.layer_prediction([[oracles.cka(x, y) for y in b.values()] for x in a.values()])
        for a, b in (stores[:2], stores[2:])
    ]
    overall = rows[6]
    assert [float(rows[k]["accuracy"]) for k in (4, 5)] == by_pair
    assert float(overall["accuracy"]) == pytest.approx(np.mean(by_pair))
    assert float(overall["std"]) == pytest.approx(np.std(by_pair))
    assert float(overall["chance"]) == 1 / 4
    assert float(overall["ci_low"]) == pytest.approx(min(by_pair))  # two clusters
    assert float(overall["ci_high"]) == pytest.approx(max(by_pair))


def test_one_layer_tells_nothing(models: list[Path]) -> None:
    asked = ["bench", "layers", *models, "--measure", "cka", "--layers"]
    alone, two = run(*asked, "0"), run(*asked, "0-1")
    assert (
        alone.stderr
        == "contrasim: warning: each model has one layer, so that every measure is right; give more layers\n"
    )
    assert "one layer" not in two.stderr


def test_every_ordered_pair_of_models(models: list[Path]) -> None:
    rows = table(run("bench", "layers", *models[:3], "--pairs", "all", "--measure", "cka").stdout)
    assert [r["pair"] for r in rows if r["layer"] == "all"] == [
        "m0-m1", "m0-m2", "m1-m0", "m1-m2", "m2-m0", "m2-m1", "all"
    ]  # fmt: skip
    assert rows[-1]["trials"] == "24"


def test_an_odd_number_of_models_is_refused(models: list[Path]) -> None:
    done = run("bench", "layers", *models[:3])
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "contrasim: error: bench layers makes disjoint pairs of stores, 3 is odd; leave one out or give --pairs all\n"
    )


def test_embeddings_take_part_only_if_asked_for(tmp_path: Path) -> None:
    layers = [{f"hidden_{k}": x for k, x in enumerate(s.values())} for s in made.related(2, 3, 40, (7,))]
    stores = written(tmp_path, ["a", "b"], layers)
    note = "contrasim: note: hidden_0 (the embeddings) is left out; --layers '*' includes it\n"
    plain = run("bench", "layers", *stores, "--measure", "cka")
    assert plain.stderr.count(note) == 1
    rows = table(plain.stdout)
    assert [r["layer"] for r in rows] == ["hidden_1", "hidden_2", "all"]
    assert rows[0]["chance"] == "0.5"
    assert note in run("bench", "multilingual", *stores, "--measure", "cka").stderr
    chosen = run("bench", "layers", *stores, "--layers", "*", "--measure", "cka")
    assert "hidden_0" not in chosen.stderr
    rows = table(chosen.stdout)
    assert [r["layer"] for r in rows] == ["hidden_0", "hidden_1", "hidden_2", "all"]


def test_encoders_of_several_seeds_are_summed_up(models: list[Path], tmp_path: Path) -> None:
    arguments = ["--task", "layers", "--recipe", "paper", "--epochs", "3", "--hidden", "16", "--dim", "8"]
    for seed in range(3):
        path = tmp_path / f"e{seed}.pt"
        assert run("train", *models, *arguments, "--seed", str(seed), "-o", path).code == 0
    encoders = [option for seed in range(3) for option in ("--encoder", tmp_path / f"e{seed}.pt")]
    rows = table(run("bench", "layers", *models, *encoders).stdout)
    assert list(dict.fromkeys(r["measure"] for r in rows)) == [
        "e0.pt", "e1.pt", "e2.pt", "universal", "contrasim (3 encoders)"
    ]  # fmt: skip
    overall = {r["measure"]: r for r in rows if r["pair"] == r["layer"] == "all"}
    means = [float(overall[f"e{seed}.pt"]["accuracy"]) for seed in range(3)]
    assert float(overall["contrasim (3 encoders)"]["accuracy"]) == pytest.approx(np.mean(means))
    assert float(overall["contrasim (3 encoders)"]["std"]) == pytest.approx(np.std(means))
    assert len(set(means)) > 1


# --- retrieval --------------------------------------------------------------------------------------------------------


def test_multilingual(views: list[Path], tmp_path: Path) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=("ar", "en"))
    options = [
        "--measure",
        "cka",
        "--encoder",
        path,
        "--negatives",
        "random",
        "--negatives",
        "faiss",
        "--batch-size",
        "4",
    ]
    done = run("bench", "multilingual", *views, *options)
    assert (done.code, said(done.stderr)) == (0, "")
    rows = table(done.stdout)
    assert list(rows[0]) == COLUMNS
    assert {r["benchmark"] for r in rows} == {"multilingual"}
    assert list(dict.fromkeys((r["measure"], r["negatives"]) for r in rows)) == [
        ("cka", "random"), ("cka", "faiss"), ("e.pt", "random"), ("e.pt", "faiss")
    ]  # fmt: skip
    of_encoder = [r["pair"] for r in rows if (r["measure"], r["negatives"]) == ("e.pt", "faiss")]
    assert of_encoder == ["all", "all", "en-zh", "ar-zh", "zh-en", "zh-ar", "all"]
    overall = {(r["measure"], r["negatives"]): r for r in rows if r["pair"] == r["layer"] == "all"}
    assert overall["cka", "random"]["trials"] == str(6 * 2 * 9)  # 8 batches of 4 and one of 3
    assert overall["e.pt", "faiss"]["trials"] == str(4 * 2 * 9)
    assert float(overall["cka", "random"]["chance"]) == 1 / 11
    for row in overall.values():
        assert float(row["ci_low"]) <= float(row["accuracy"]) <= float(row["ci_high"])
    assert 0.2 < float(overall["e.pt", "random"]["accuracy"]) <= 1
    again = run("bench", "multilingual", *views, *options)
    assert again.stdout == done.stdout
    assert run("bench", "multilingual", *views, *options, "--seed", "1").stdout != done.stdout


def test_image_caption_goes_one_way(tmp_path: Path) -> None:
    stores = written(tmp_path, ["image", "caption"], noisy(2, 200))
    done = run("bench", "image-caption", *stores, "--measure", "norm")
    assert (done.code, said(done.stderr)) == (0, "")
    rows = table(done.stdout)
    assert [(r["pair"], r["layer"], r["trials"], r["std"]) for r in rows] == [
        ("all", "layer_0", "4", ""), ("all", "layer_1", "4", ""), ("all", "all", "8", "")
    ]  # fmt: skip
    assert {(r["benchmark"], r["negatives"]) for r in rows} == {("image-caption", "random")}


def test_layers_of_views_of_unequal_depth_are_zipped(tmp_path: Path) -> None:
    image, caption = noisy(1, 40, layers=3)[0], noisy(1, 40, layers=2)[0]
    stores = written(tmp_path, ["image", "caption"], [image, caption])
    refused = run("bench", "image-caption", *stores, "--batch-size", "8")
    assert (refused.code, refused.stdout) == (4, "")
    assert refused.stderr == (
        f"contrasim: error: {stores[1]}: 2 layers are selected where {stores[0]} has 3; select corresponding layers with "
        "--layers (or --layers-a and --layers-b)\n"
    )
    options = ["--batch-size", "8", "--layers-a", "0", "--layers-a", "2", "--layers-b", "0-1"]
    rows = table(run("bench", "image-caption", *stores, *options).stdout)
    assert [r["layer"] for r in rows] == ["layer_0", "layer_2/layer_1", "all"]


def test_candidates_from_a_larger_store(tmp_path: Path) -> None:
    stores = written(tmp_path, ["image", "caption"], noisy(2, 40))
    pool = made.store(tmp_path / "pool.h5", noisy(1, 400)[0], [f"p{k}" for k in range(400)])
    options = ["--batch-size", "8", "--measure", "dot", "--candidates-from", pool]
    assert run("bench", "image-caption", *stores, *options, "--negatives", "faiss").code == 0
    done = run("bench", "image-caption", *stores, *options)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "contrasim: error: --candidates-from is where nearest neighbours come from; give --negatives faiss with it\n"
    )


def test_the_cca_family_in_small_batches_is_empty_with_one_warning(views: list[Path]) -> None:
    done = run("bench", "multilingual", *views, "--batch-size", "4", "--measure", "pwcca", "--measure", "dot")
    assert done.code == 0
    assert done.stderr == (
        "contrasim: warning: pwcca: batches of 4 rows span every direction, so that each canonical correlation is 1; "
        "left empty in layers layer_0, layer_1\n"
    )
    rows = table(done.stdout)
    assert {(r["accuracy"], r["std"], r["ci_low"], r["trials"]) for r in rows if r["measure"] == "pwcca"} == {
        ("", "", "", "0")
    }
    assert all(r["accuracy"] for r in rows if r["measure"] == "dot")


# --- the contract -----------------------------------------------------------------------------------------------------


def test_json(views: list[Path]) -> None:
    done = run("bench", "multilingual", *views, "--format", "json", "--seed", "3", "--device", "cpu")
    content = json.loads(done.stdout)
    results = content.pop("results")
    assert set(content.pop("versions")) == {"contrasim", "torch", "numpy", "python"}
    for name in ("argv", "date", "digests", "sources"):  # see test_record
        assert content.pop(name)
    assert content == {
        "schema_version": 1,
        "command": "bench",
        "inputs": [str(path) for path in views],
        "rows": 35,
        "widths": [{"layer_0": 7, "layer_1": 7}] * 3,
        "seed": 3,
        "device": "cpu",
        "batch_size": 8,
        "standardize": {"cka": {"kind": "none"}},
    }
    assert list(results[0]) == COLUMNS


@pytest.mark.parametrize("kind", ["layers", "multilingual"])
def test_the_file_holds_what_stdout_shows(views: list[Path], tmp_path: Path, kind: str) -> None:
    for suffix in ("tsv", "json", "txt"):
        out = tmp_path / f"out.{suffix}"
        form = "table" if suffix == "txt" else suffix
        done = run("bench", kind, *views[:2], "-o", out, "--format", form, "--plot", tmp_path / f"{suffix}.svg")
        assert (done.code, said(done.stderr)) == (0, "")
        assert out.read_text() == done.stdout
        assert (tmp_path / f"{suffix}.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["layers", "{a}", "{b}", "--format", "value"], 2, "--format value prints one score; bench has many, give --format tsv"),
        (["layers", "{a}"], 2, "bench layers compares two or more stores, one per model"),
        (["multilingual", "{a}"], 2, "retrieval compares two or more stores, one per view"),
        (["image-caption", "{a}", "{b}", "{a}"], 2, "bench image-caption compares two stores, images and captions, 3 given; "
         "for several, give those of captions with --captions"),
        (["multilingual", "{a}", "{b}", "--measure", "nrom"], 2, "--measure nrom is unknown; did you mean norm?"),
        (["multilingual", "{a}", "{b}", "--batch-size", "35"], 3, "{a}: 35 rows make fewer than two batches of 35"),
        (["multilingual", "{a}", "{b}", "-o", "{a}"], 2, None),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(views: list[Path], arguments: list[str], code: int, message: str | None) -> None:
    names = {"a": views[0], "b": views[1]}
    done = run("bench", *(argument.format(**names) for argument in arguments))
    assert (done.code, done.stdout) == (code, "")
    if message is not None:
        assert done.stderr == f"contrasim: error: {message.format(**names)}\n"


def test_the_only_pair_being_the_trained_one_is_refused(views: list[Path], tmp_path: Path) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=("en", "ar"))
    done = run("bench", "multilingual", *views[:2], "--encoder", path)
    assert (done.code, done.stdout) == (2, "")
    assert "was trained on the only pair of views there is (ar and en)" in done.stderr
    assert run("bench", "image-caption", *views[:2], "--encoder", path, "--batch-size", "8").code == 0


def test_widths_that_do_not_fit_are_told_with_all_problems(views: list[Path], tmp_path: Path) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(5,))
    for kind in ("layers", "multilingual"):
        done = run("bench", kind, *views[:2], "--encoder", path)
        assert (done.code, done.stdout) == (4, "")
        assert done.stderr.splitlines() == [
            f"contrasim: error: {store}: layer layer_{k} has width 7; the encoder {path} takes width 5"
            for store in views[:2]
            for k in range(2)
        ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", ["layers", "multilingual", "image-caption"])
def test_cuda_that_is_not_there_is_never_replaced(views: list[Path], kind: str) -> None:
    done = run("bench", kind, *views[:2], "--device", "cuda")
    assert (done.code, done.stdout) == (6, "")


def test_few_distinct_rows_have_no_neighbours(tmp_path: Path) -> None:
    rows = np.arange(1.0, 11.0)[[0] * 30 + list(range(1, 10)), None] ** np.arange(1, 4)
    stores = written(tmp_path, ["en", "ar"], [{"l": rows}, {"l": rows}])
    done = run("bench", "multilingual", *stores, "--negatives", "faiss", "--batch-size", "4")
    assert (done.code, done.stdout) == (3, "")
    assert "has 9 neighbours that differ from it, 10 are needed; use more rows" in done.stderr


# --- criteria and figures ---------------------------------------------------------------------------------------------


def test_monotonicity_is_a_benchmark_of_its_own(models: list[Path]) -> None:
    both = run("bench", "layers", *models, *CKA, "--criterion", "argmax", "--criterion", "monotonicity")
    assert (both.code, said(both.stderr)) == (0, "")
    rows = table(both.stdout)
    assert list(rows[0]) == COLUMNS
    alone = run("bench", "layers", *models, *CKA, "--criterion", "monotonicity")
    assert table(alone.stdout) == rows[7:]
    assert table(run("bench", "layers", *models, *CKA).stdout) == rows[:7]
    assert {r["benchmark"] for r in rows[7:]} == {"layers-monotonicity"}
    stores = made.related(4, 4, 40, (7,), noise=2.0)
    wanted = [
        oracles.layer_monotonicity([[oracles.cka(x, y) for y in b.values()] for x in a.values()])
        for a, b in (stores[:2], stores[2:])
    ]
    found = [float(r["accuracy"]) for r in rows[7:11]]
    assert found == pytest.approx(np.mean(wanted, axis=0), abs=1e-9)
    assert [float(rows[k]["accuracy"]) for k in (11, 12)] == pytest.approx(np.mean(wanted, axis=1), abs=1e-9)
    assert (rows[13]["chance"], rows[13]["trials"], rows[13]["mrr"], rows[13]["margin"]) == ("0.0", "8", "", "")
    shown = run("bench", "layers", *models, *CKA, "--criterion", "monotonicity", "--format", "table").stdout
    assert "rank correlation of similarity with closeness of layers ± std; chance is 0\n" in shown
    assert f"{found[0]:.3f} ± " in shown


def test_figures_of_the_layers_benchmark(models: list[Path], tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.svg" for name in ("layers", "pairs", "grids")]
    options = ["--plot", files[0], "--plot-pairs", files[1], "--plot-grids", files[2]]
    others = [file.with_suffix(".pdf") for file in files]
    options += ["--plot", others[0], "--plot-pairs", others[1], "--plot-grids", others[2]]
    measures = ["--measure", "cka", "--measure", "procrustes"]
    done = run("bench", "layers", *models, *measures, *options, "--criterion", "monotonicity", "--criterion", "argmax")
    assert (done.code, said(done.stderr)) == (0, "")
    layers, pairs, grids = (file.read_text() for file in files)
    assert all(file.read_bytes().startswith(b"%PDF") for file in others)
    assert all(f">{word}<" in layers for word in ("rank correlation", "accuracy in %", "cka", "procrustes", "layer_3"))
    assert all(f">{word}<" in pairs for word in ("m0-m1", "m2-m3", "rank correlation"))
    assert all(f">{word}<" in grids for word in ("CKA", "Procrustes", "(mean of 2 pairs)"))
    assert "lower is more similar<" in grids
    stores = made.related(4, 4, 40, (7,), noise=2.0)
    scores = [oracles.cka(list(a.values())[1], list(b.values())[2]) for a, b in (stores[:2], stores[2:])]
    assert f">{np.mean(scores):.2f}<" in grids
    again = run("bench", "layers", *models, *options)
    assert (again.code, again.stdout) == (5, "")


def test_figures_of_retrieval(views: list[Path], tmp_path: Path) -> None:
    layers, pairs = tmp_path / "layers.svg", tmp_path / "pairs.svg"
    arguments = ["--batch-size", "5", "--negatives", "random", "--negatives", "faiss", "--plot", layers]
    done = run("bench", "multilingual", *views, *arguments, "--plot-pairs", pairs)
    assert (done.code, said(done.stderr)) == (0, "")
    assert ">multilingual: faiss negatives<" in layers.read_text()
    drawn = pairs.read_text()
    assert all(
        f">{word}<" in drawn for word in ("en-ar", "zh-en", "random negatives", "faiss negatives", "95 % interval")
    )


def test_pairs_of_images_and_captions_are_drawn(views: list[Path], tmp_path: Path) -> None:
    pairs, layers = tmp_path / "pairs.svg", tmp_path / "layers.svg"
    arguments = [
        "--captions",
        views[1],
        "--captions",
        views[2],
        "--batch-size",
        "5",
        "--plot",
        layers,
        "--plot-pairs",
        pairs,
    ]
    done = run("bench", "image-caption", views[0], *arguments)
    assert (done.code, said(done.stderr)) == (0, "")
    assert all(f">{pair}<" in pairs.read_text() for pair in ("en-ar", "en-zh"))
    assert ">image-caption: en-ar, random negatives<" in layers.read_text()


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--plot-pairs", "x.doc"], 2, "--plot-pairs x.doc: the format follows the suffix, which is one of .png, .svg, .pdf"),
        (["--plot-grids", "x"], 2, "--plot-grids x: the format follows the suffix, which is one of .png, .svg, .pdf"),
        (
            ["--trials", "x.json", "--criterion", "monotonicity"], 2,
            "--trials holds right and wrong answers; give --criterion argmax with it",
        ),
    ],
)  # fmt: skip
def test_figures_and_criteria_that_cannot_be(models: list[Path], options: list[str], code: int, line: str) -> None:
    assert run("bench", "layers", *models, *options) == (code, "", f"contrasim: error: {line}\n")


def test_two_outputs_have_two_names(models: list[Path], tmp_path: Path) -> None:
    one = tmp_path / "x.png"
    done = run("bench", "layers", *models, "--plot", one, "--plot-pairs", one)
    assert done == (2, "", f"contrasim: error: {one}: two outputs have the same name\n")
    twice = run("bench", "layers", *models, "--plot", one, "--plot", one)
    assert twice == done


@pytest.mark.parametrize(
    ("count", "options", "end"),
    [
        (2, [], "as one pair of models says nothing of others; give three stores or more"),
        (2, ["--pairs", "all"], "as one pair of models says nothing of others; give three stores or more"),
        (4, [], "compare intervals; give --pairs all, or more stores"),
    ],
)  # fmt: skip
def test_few_trials_are_told_with_what_makes_them_more(
    tmp_path: Path, count: int, options: list[str], end: str
) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", layers) for k, layers in enumerate(made.related(count, 2, 30, (5,)))]
    done = run("bench", "layers", *stores, "--measure", "cka", *options)
    assert done.stderr.splitlines()[-1].endswith(end)
