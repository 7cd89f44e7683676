"""Results as text, to the letter."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrasim_cli.errors import OutputExistsError, UsageError
from contrasim_cli.report import score_tables
from contrasim_cli.report import text as report
from contrasim_cli.report.results import BenchRow, InspectRow, Results, SanityRow, ScoreRow

GRID = Results(
    "baseline",
    ScoreRow,
    [
        ScoreRow("cka", "a", "x", "b", "y", 0.1 + 0.2),
        ScoreRow("cka", "a", "x", "b", "z", None),
        ScoreRow("cka", "a", "w", "b", "y", 1e-20),
        ScoreRow("cka", "a", "w", "b", "z", -12345.678),
    ],
    {"inputs": ["a.h5", "b.h5"], "rows": 7, "seed": 0},
)


def bench_row(measure: str, negatives: str, layer: str, accuracy: float | None, **more: Any) -> BenchRow:
    values = {"pair": "all", "std": 0.0125, "ci_low": 0.25, "ci_high": 1.0, "chance": 1 / 11, "trials": 79}
    values |= {"mrr": 0.8, "margin": 2.5} | more
    return BenchRow("multilingual", measure, negatives, layer=layer, accuracy=accuracy, **values)


BENCH = Results(
    "bench",
    BenchRow,
    [
        bench_row("cka", "random", "l1", 0.5),
        bench_row("cka", "random", "all", 0.5, pair="en-ar"),
        bench_row("cka", "random", "all", 0.75),
        bench_row("cca", "random", "l1", None, std=None, ci_low=None, ci_high=None, trials=0, mrr=None, margin=None),
        bench_row("cca", "random", "all", None, std=None, ci_low=None, ci_high=None, trials=0, mrr=None, margin=None),
        bench_row("cka", "faiss", "l1", 1.0, std=None, ci_low=None, ci_high=None),
        bench_row("cka", "faiss", "all", 1.0),
    ],
)


def text(results: Results, form: str, **options: Any) -> str:
    return report.render(results, form, color=False, width=options.pop("width", 100), **options)


def test_tsv() -> None:
    assert text(GRID, "tsv") == (
        "measure\tstore_a\tlayer_a\tstore_b\tlayer_b\tscore\n"
        "cka\ta\tx\tb\ty\t0.30000000000000004\n"
        "cka\ta\tx\tb\tz\t\n"
        "cka\ta\tw\tb\ty\t1e-20\n"
        "cka\ta\tw\tb\tz\t-12345.678\n"
    )


def test_csv_of_a_benchmark() -> None:
    assert text(BENCH, "csv").splitlines()[:5] == [
        "benchmark,measure,negatives,pair,layer,accuracy,std,ci_low,ci_high,chance,trials,mrr,margin",
        "multilingual,cka,random,all,l1,0.5,0.0125,0.25,1.0,0.09090909090909091,79,0.8,2.5",
        "multilingual,cka,random,en-ar,all,0.5,0.0125,0.25,1.0,0.09090909090909091,79,0.8,2.5",
        "multilingual,cka,random,all,all,0.75,0.0125,0.25,1.0,0.09090909090909091,79,0.8,2.5",
        "multilingual,cca,random,all,l1,,,,,0.09090909090909091,0,,",
    ]


def test_json() -> None:
    assert text(GRID, "json").endswith("}\n")
    content = json.loads(text(GRID, "json"), parse_constant=pytest.fail)
    assert list(content) == ["schema_version", "command", "inputs", "rows", "seed", "results"]
    assert (content["schema_version"], content["command"], content["inputs"]) == (1, "baseline", ["a.h5", "b.h5"])
    assert content["results"][0] == {
        "measure": "cka",
        "store_a": "a",
        "layer_a": "x",
        "store_b": "b",
        "layer_b": "y",
        "score": 0.30000000000000004,
    }
    assert content["results"][1]["score"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_empty_in_text_and_null_in_json(value: float) -> None:
    odd = Results("baseline", ScoreRow, [ScoreRow("cka", "a", "x", "b", "y", value)])
    assert text(odd, "tsv").splitlines()[1] == "cka\ta\tx\tb\ty\t"
    assert json.loads(text(odd, "json"), parse_constant=pytest.fail)["results"][0]["score"] is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_as_they_were(value: float) -> None:
    one = Results("baseline", ScoreRow, [ScoreRow("cka", "a", "x", "b", "y", value)])
    assert float(text(one, "tsv").splitlines()[1].split("\t")[-1]) == value
    assert json.loads(text(one, "json"))["results"][0]["score"] == value
    assert float(text(one, "value")) == value


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(min_size=1).map(report.quoted))
def test_names_come_back_as_they_were_but_for_formulas(name: str) -> None:
    one = Results("baseline", ScoreRow, [ScoreRow("cka", name, "x", "b", name, 1.0)])
    for form, delimiter in (("tsv", "\t"), ("csv", ",")):
        _, row = csv.reader(io.StringIO(text(one, form)), delimiter=delimiter)
        assert (row[1], row[4]) == (report.cell(name), report.cell(name))
    assert json.loads(text(one, "json"))["results"][0]["layer_b"] == name


def test_value() -> None:
    (first, undefined, *_) = GRID.rows
    assert text(Results("score", ScoreRow, [first]), "value") == "0.30000000000000004\n"
    assert text(Results("score", ScoreRow, [undefined]), "value") == "\n"
    for results in (GRID, Results("score", ScoreRow, []), BENCH):
        with pytest.raises(UsageError, match=f"--format value prints one score, {len(results.rows)} were asked for"):
            text(results, "value")


def test_the_grid_as_a_table() -> None:
    assert text(GRID, "table") == (
        "cka: a (rows) against b (columns)\n"
        "┏━━━┳━━━━━━━━┳━━━━━━━━━━━━┓\n"
        "┃   ┃      y ┃          z ┃\n"
        "┡━━━╇━━━━━━━━╇━━━━━━━━━━━━┩\n"
        "│ x │ 0.3000 │            │\n"
        "│ w │ 0.0000 │ -1.235e+04 │\n"
        "└───┴────────┴────────────┘\n"
    )


def test_a_grid_too_wide_to_read_is_listed() -> None:
    wide = [ScoreRow("cka", "a", "x", "b", f"layer_{k}", 0.5) for k in range(30)]
    lines = text(Results("baseline", ScoreRow, wide), "table", width=80).splitlines()
    assert len(lines) == 1 + 2 + 30 + 1  # all tie
    assert lines[0] == "cka: layers of a and of b"
    assert lines[-2].split() == ["x", "layer_29", "0.5000="]


def square(size: int, measure: str = "cka", sign: int = 1, **more: float) -> Results:
    """A grid whose layer i of a is most like layer i + 1 of b, then like layer i."""
    rows = [
        ScoreRow(measure, "a", f"hidden_{i}", "b", f"hidden_{j}", sign * (1 - abs(i + 0.9 - j) / size), **more)
        for i in range(size)
        for j in range(size)
    ]
    return Results("baseline", ScoreRow, rows, optional=list(more))


def test_twelve_layers_fit_a_hundred_columns() -> None:
    lines = text(square(12), "table").splitlines()
    assert len(lines) == 12 + 3
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("; columns 0 to 11 are hidden_0 to hidden_11")
    assert lines[1].split() == [str(k) for k in range(12)]
    assert lines[3].split()[:4] == ["hidden_0", "0.93", "0.99", "0.91"]
    assert lines[-1].split()[0] == "hidden_11"


STANDING = {"calibrated": 0.25, "null_z": 123.4, "null_p": 0.01}


def test_calibrated_scores_stay_at_eighty_columns() -> None:
    five = text(square(5, "enc.pt", **STANDING), "table", width=80).splitlines()
    assert five[0].endswith("; → calibrated; columns 0 to 4 are hidden_0 to hidden_4")
    assert five[3].split() == ["hidden_0", "0.82→0.25", "0.98→0.25?", "0.78→0.25", "0.58→0.25", "0.38→0.25"]
    eight = text(square(8, "enc.pt", **STANDING), "table", width=80).splitlines()
    sides = "a (rows) against b (columns); columns 0 to 7 are hidden_0 to hidden_7"
    assert eight[0] == f"enc.pt, calibrated: {sides}"
    assert eight[3].split() == ["hidden_0", *["0.25="] * 8]  # what is shown ties
    assert eight[-1] == "0: unrelated rows, 1: a layer with itself; raw scores, by which layers match: --format tsv"
    for lines in (five, eight):
        assert max(map(len, lines)) <= 100
        assert all(len(line) <= 80 for line in lines[1:-1])


def test_intervals_stay_whole_at_eighty_columns() -> None:
    lines = text(square(5, "enc.pt", ci_low=-0.5, ci_high=1234.0, **STANDING), "table", width=80).splitlines()
    assert lines[1].split() == ["layer_a", "layer_b", "score", "ci_low", "ci_high", *STANDING]
    assert lines[3].split() == ["hidden_0", "hidden_0", "0.8200", "-0.5000", "1234", "0.2500", "123.4000", "0.0100"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("measure", "sign"), [("cka", 1), ("procrustes", -1), ("enc.pt", 1)])
def test_many_layers_are_shown_by_their_best_matches(measure: str, sign: int) -> None:
    title, heads, _, *lines = text(square(48, measure, sign), "table").splitlines()
    assert title.startswith(f"{measure}: the layer of b that is most similar to each of a")
    assert title.endswith("lower is more similar") == (sign < 0)
    assert heads.split() == ["layer", "best", "match", "score", "runner-up", "score"]
    assert len(lines) == 48
    score = [f"{sign * value:.4f}" for value in (1 - 0.1 / 48, 1 - 0.9 / 48)]
    assert lines[7].split() == ["hidden_7", "hidden_8", score[0], "hidden_7", score[1]]


def test_best_matches_keep_their_intervals_and_leave_out_what_is_undefined() -> None:
    shown = text(square(12, ci_low=0.25, ci_high=0.75), "table").splitlines()
    assert len(shown) == 12 + 3
    assert shown[3].split() == [
        "hidden_0",
        "hidden_1",
        "0.9917",
        "[0.25,",
        "0.75]",
        "hidden_0",
        "0.9250",
        "[0.25,",
        "0.75]",
    ]
    rows = [
        ScoreRow("cka", "a", f"x{i}", "b", f"y{j}", 0.5 if i == j == 0 else None) for i in range(48) for j in range(48)
    ]
    lines = text(Results("baseline", ScoreRow, rows), "table").splitlines()
    assert [line.split() for line in lines[3:5]] == [["x0", "y0", "0.5000"], ["x1"]]


def test_best_matches_in_rows_of_nearly_identical_scores_are_marked() -> None:
    rows = [
        ScoreRow("cka", "a", f"x{i}", "b", f"y{j}", 0.9 + (i == 0 or 0.1) * 0.1 * (i == j))
        for i in range(48)
        for j in range(48)
    ]
    *lines, legend = text(Results("baseline", ScoreRow, rows), "table").splitlines()
    assert lines[3].split()[:3] == ["x0", "y0", "1.0000"]  # leads by 0.1
    assert lines[4].split()[:3] == ["x1", "y1", "0.9100?"]  # by 0.01
    assert legend == "? no best match in 47 of 48 rows (nearly identical scores; see guide report)"


@pytest.mark.parametrize("width", [200, 42])  # whole cells, and two decimals
def test_grids_mark_rows_without_a_best_match(width: int) -> None:
    """By closeness to the median and, of log odds, to the next score; rows that tie have a mark of their own."""
    raw = [[2.0, 1.95, -3.0], [2.0, 2.5, -3.0], [1.0, 0.0, 3.0], [2.0, 2.0, 0.0]]
    calibrated = [[0.9, 0.5, 0.1], [0.4, 0.9, 0.1], [0.81, 0.8, 0.82], [0.9, 0.9, 0.1]]
    rows = [
        ScoreRow("universal", "a", f"x{i}", "b", f"y{j}", raw[i][j], calibrated=calibrated[i][j], null_z=9.0)
        for i in range(4)
        for j in range(3)
    ]
    results = Results("score", ScoreRow, rows, optional=("calibrated",))
    *lines, legend = text(results, "table", width=width).splitlines()
    cells = [found for line in lines if (found := re.findall(r"-?\d\.\d+ ?→ ?\d\.\d+[?=]?", line))]
    assert [[cell.endswith("?") for cell in row] for row in cells] == [
        [True, False, False],
        [False, False, False],
        [False, False, True],
        [False, False, False],
    ]
    assert (
        legend
        == "? no best match in 2 of 4 rows (nearly identical scores or best two raw scores within 0.2; see guide report)"
    )
    latex = text(results, "tex")
    assert "?" not in latex
    assert "no bold: no best match in 2 of 4 rows" in latex


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["hidden_1", "hidden_2", "hidden_10"], ["1", "2", "10"]),
        (["hidden_10", "hidden_11"], ["10", "11"]),
        (["block.1.out", "block.11.out"], ["1", "11"]),
        (["layer", "layer_1"], ["layer", "layer_1"]),
        (["layer"], ["layer"]),
        (["embeddings", "top"], ["embeddings", "top"]),
    ],
)
def test_what_all_names_share_is_left_out(names: list[str], short: list[str]) -> None:
    assert score_tables.short_names(names) == short


@pytest.mark.parametrize(
    ("score", "shown"),
    [(0.456, "0.46"), (-0.456, "-0.46"), (9.994, "9.99"), (9.996, "10"), (-123.4, "-123"), (9999.4, "9999"), (12345.0, "1e4"),
     (-2.5e11, "-2e11"), (None, ""), (math.nan, "")],
)  # fmt: skip
def test_a_narrow_score_has_five_letters(score: float | None, shown: str) -> None:
    assert score_tables.two_decimals(score) == shown
    assert len(shown) <= 5


def colours(monkeypatch: pytest.MonkeyPatch, results: Results) -> dict[str, str]:
    """Backgrounds of the cells by what they show."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = re.findall(
        r"\x1b\[38;2;[\d;]+;48;2;([\d;]+)m *(-?[\d.]+)", report.render(results, "table", color=True, width=100)
    )
    return {shown: colour for colour, shown in found}


@pytest.mark.parametrize(("measure", "brightest"), [("cka", "0.9000"), ("procrustes", "0.1000")])
def test_the_most_similar_cell_is_the_brightest(monkeypatch: pytest.MonkeyPatch, measure: str, brightest: str) -> None:
    rows = [ScoreRow(measure, "a", "x", "b", str(k), value) for k, value in enumerate([0.1, 0.5, 0.9, None])]
    results = Results("baseline", ScoreRow, rows)
    shades = colours(monkeypatch, results)
    assert set(shades) == {"0.1000", "0.5000", "0.9000"}
    assert max(shades, key=lambda shown: sum(map(int, shades[shown].split(";")))) == brightest
    assert colours(monkeypatch, Results("baseline", ScoreRow, rows[:1])) == {}  # nothing to compare it with
    assert len(colours(monkeypatch, square(12))) > 20
    assert "\x1b" not in text(results, "table")


def test_letters_can_be_read_on_every_shade() -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2)."""

    def luminance(colour: Any) -> float:
        parts = [part / 255 for part in colour.get_truecolor()]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])

    for step in range(len(score_tables.SHADES)):
        style = score_tables._style(step)
        dark, light = sorted(map(luminance, (style.color, style.bgcolor)))
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_scores_of_any_size_are_shaded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ScoreRow("dot", "a", "x", "b", str(k), value) for k, value in enumerate([-1.7e308, 0.0, 1.7e308, math.inf])]
    assert len(colours(monkeypatch, Results("baseline", ScoreRow, rows))) == 3


def test_a_benchmark_as_a_table() -> None:
    assert text(BENCH, "table", width=45) == (  # too narrow for both kinds side by side
        "multilingual, random negatives: accuracy in % ± std; chance is 9.1 %\n"
        "┏━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━┓\n"
        "┃ layer         ┃        cka ┃ cca ┃\n"
        "┡━━━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━┩\n"
        "│ l1            │ 50.0 ± 1.2 │     │\n"
        "├───────────────┼────────────┼─────┤\n"
        "│ all           │ 75.0 ± 1.2 │     │\n"
        "│ 95 % interval │ 25.0–100.0 │     │\n"
        "│ trials        │         79 │     │\n"
        "│ MRR           │      0.800 │     │\n"
        "│ margin        │        2.5 │     │\n"
        "└───────────────┴────────────┴─────┘\n"
        "multilingual, faiss negatives: accuracy in % ± std; chance is 9.1 %\n"
        "┏━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━┓\n"
        "┃ layer         ┃         cka ┃\n"
        "┡━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━┩\n"
        "│ l1            │       100.0 │\n"
        "├───────────────┼─────────────┤\n"
        "│ all           │ 100.0 ± 1.2 │\n"
        "│ 95 % interval │  25.0–100.0 │\n"
        "│ trials        │          79 │\n"
        "│ MRR           │       0.800 │\n"
        "│ margin        │         2.5 │\n"
        "└───────────────┴─────────────┘\n"
    )


def test_names_in_tables_are_no_markup() -> None:
    """Rich takes [cls] for a style and :key: for a picture."""
    row = ScoreRow("[bold]m", "a[red]", "h[cls]", "b", ":key:", 0.5)
    for results in (Results("score", ScoreRow, [row]), Results("score", ScoreRow, [row, row])):
        shown = text(results, "table")
        for name in ("[bold]m", "a[red]", "h[cls]", ":key:"):
            assert name in shown


@pytest.mark.parametrize("measures", [9, 14])
def test_many_measures_do_not_break_a_table(measures: int) -> None:
    rows = [
        bench_row(f"encoder_{k}.pt", "random", layer, 0.5) for k in range(measures) for layer in ("hidden_1", "all")
    ]
    shown = text(Results("bench", BenchRow, rows), "table", width=80)
    for k in range(measures):
        assert f"encoder_{k}.pt" in shown
    assert shown.count("50.0 ± 1.2") == 2 * measures
    assert shown.count("accuracy in %") == 1
    assert max(map(len, shown.splitlines())) <= 80
    narrow = text(Results("bench", BenchRow, rows[:2]), "table", width=20)
    assert "50.0 ± 1.2" in narrow


def test_layers_of_a_store_as_a_table() -> None:
    rows = [InspectRow("a.h5", "l", 5, 3, "float16", 0, None, 1, 0.5, None, 2.0)]
    lines = text(Results("inspect", InspectRow, rows), "table").splitlines()
    cells = ["a.h5", "l", "5", "3", "float16", "0", "1", "0.5000", "2.0000"]  # without columns in which nothing stands
    assert [cell.strip() for cell in lines[3].split("│")[1:-1]] == cells


@pytest.mark.parametrize("suffix", [".tsv", ".CSV", ".json", ".txt"])
def test_the_suffix_decides_what_a_file_holds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    report.write_file(GRID, path, force=False)
    form = {".tsv": "tsv", ".csv": "csv", ".json": "json", ".txt": "table"}[suffix.lower()]
    assert path.read_text(encoding="utf-8") == report.render(GRID, form, color=False)
    with pytest.raises(OutputExistsError):
        report.write_file(GRID, path, force=False)


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(UsageError) as refused:
        report.file_format(Path("out.xlsx"))
    assert (
        str(refused.value)
        == "--output out.xlsx: the format follows the suffix, which is one of .tsv, .csv, .json, .parquet, .md, .tex, .txt"
    )


def sanity(measures: list[str]) -> Results:
    """Two checks and a ladder of each measure."""
    rows = []
    for measure in measures:
        rows += [
            SanityRow(measure, "l", "symmetric", None, "unchanged", 0.5, 0.5, "ok"),
            SanityRow(measure, "l", "linear", None, "may change", 0.5, 0.25, ""),
            SanityRow(measure, "l", "noise", 0.1, "falls", 1.0, 1.25, "fails"),
            SanityRow(measure, "l", "noise", 5.0, "falls", 1.25, None, ""),
        ]
    return Results("bench", SanityRow, rows)


def test_checks_are_a_line_each_with_their_verdicts() -> None:
    shown = report.render(sanity(["cka"]), "table", color=False, width=80)
    lines = [line[1:-1].split("│") for line in shown.splitlines() if line.startswith("│")]
    cells = {label.strip(): value.strip() for label, value in lines}
    assert cells == {"before": "0.5000", "symmetric": "= ✓", "linear": "0.2500", "noise 0.1": "1.2500 ✗", "noise 5": ""}
    assert shown.startswith(
        "sanity on l: ✓ as claimed or expected, ✗ not so, no mark: nothing is claimed; =: as before, which is the layer with a "
        "noisy copy of itself\n"
    )


def test_checks_of_many_measures_take_several_tables_that_can_be_read() -> None:
    names = [f"a_rather_long_measure_{k}" for k in range(7)]
    shown = report.render(sanity(names), "table", color=False, width=80)
    *tables, last, beyond = shown.splitlines()[1:]
    assert beyond.endswith("whether a measure finds the same layer in another model, bench layers shows")
    assert max(map(len, tables)) <= 80
    assert shown.count("┃ check") == 4
    assert all("\n".join(tables).count(f" {name} ") == 1 for name in names)
    assert last.startswith("do not use on these rows, fails in brackets: a_rather_long_measure_0 (noise), a_rather")


def test_tables_cut_long_names_in_the_middle_and_files_do_not() -> None:
    layers = [f"transformer.encoder.layers.{k}.attention.output.dense" for k in (1, 10, 11)]
    rows = [ScoreRow("cka", "a" * 90 + "1", a, "b", b, 0.25) for a in layers for b in layers]
    results = Results("baseline", ScoreRow, rows)
    shown = text(results, "table", width=80)
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("…layers.1…", "…layers.10…", "…layers.11…", "aaaaaaaaa…aaaaaaaaa1"):
        assert name in shown
    for form in ("tsv", "csv", "json", "md", "tex"):
        assert report.quoted(layers[1]) in text(results, form)


def test_names_that_cutting_makes_equal_stay_whole() -> None:
    layers = [f"{'a' * 30}{k}{'b' * 30}" for k in range(2)]
    rows = [ScoreRow("cka", "x", a, "y", "z", 0.5) for a in layers]
    shown = text(Results("baseline", ScoreRow, rows), "table", width=100)
    assert all(layer in shown for layer in layers)


def test_scores_that_do_not_clear_their_null_are_counted() -> None:
    rows = [
        ScoreRow("cka", "a", f"x{i}", "b", f"y{j}", 0.5, null_z=z, null_p=0.01 if z > 3 else 0.2, null=-1e-9)
        for (i, j), z in (((0, 0), 9.0), ((0, 1), 2.5), ((1, 0), 4.0), ((1, 1), 1.25))
    ]
    results = Results("baseline", ScoreRow, rows, optional=("null_z", "null_p", "null"))
    for form in ("table", "md", "tex"):
        text = " ".join(report.render(results, form, color=False, width=100).replace("\\", "").split())
        assert "2 of 4 scores clear their null (least null_z 1.25, largest null_p 0.2)" in text
        assert "shuffled rows score 0.0000;" in text
    plain = Results("baseline", ScoreRow, [replace(row, null_z=None, null_p=None) for row in rows])
    assert "clear their null" not in report.render(plain, "table", color=False, width=100)
