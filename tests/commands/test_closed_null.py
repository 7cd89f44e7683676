"""`baseline` beside what shuffled rows score: columns, marks, warnings."""

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import run

from contrasim_cli.measures.load import similarity
from contrasim_cli.seeds import CONFIDENCE_SHUFFLE as SHUFFLE


def rows_of(*arguments: Any) -> list[dict[str, str]]:
    done = run("baseline", *arguments)
    assert done.code == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))


@pytest.fixture
def unrelated(tmp_path: Path) -> list[Path]:
    """Two stores of noise, with fewer rows than neurons: CKA calls them similar."""
    rng = np.random.default_rng(0)
    return [made.store(tmp_path / f"noise_{name}.h5", {"l": rng.normal(size=(32, 200))}) for name in "ab"]


@pytest.fixture
def alike(tmp_path: Path) -> list[Path]:
    layers = made.related(2, 2, 60, (6,), noise=0.1)
    return [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers, strict=True)]


def test_closed_levels_are_shown_unasked_and_left_out_on_request(alike: list[Path]) -> None:
    (first, *_) = rows_of(*alike, "--measure", "cka", "--measure", "procrustes")
    assert list(first)[6:] == ["null_z", "null"]
    by_measure = {row["measure"]: row for row in rows_of(*alike, "--measure", "cka", "--measure", "procrustes")}
    assert by_measure["procrustes"]["null"] == by_measure["procrustes"]["null_z"] == ""
    assert list(rows_of(*alike, "--null", "0")[0])[-1] == "score"
    assert list(rows_of(*alike, "--measure", "procrustes")[0])[-1] == "score"


@pytest.mark.parametrize("measure", ["procrustes", "jaccard_knn", "dot", "cca"])
def test_shuffles_give_the_level_of_every_measure(alike: list[Path], measure: str) -> None:
    row = rows_of(*alike, "--measure", measure, "--null", 50, "--seed", 3, "--layers", "0")[0]
    x, y = (made.related(2, 2, 60, (6,), noise=0.1)[k]["layer_0"].astype(np.float64) for k in (0, 1))
    orders = [np.random.default_rng([3, SHUFFLE, k]).permutation(60) for k in range(50)]
    shuffled = np.array([similarity(measure, x, y[order]) for order in orders])
    level = x.mean(0) @ y.mean(0) if measure == "dot" else shuffled.mean()
    sign = -1 if measure == "procrustes" else 1
    score = float(row["score"])
    assert float(row["null"]) == pytest.approx(level, rel=1e-5, abs=1e-7)
    assert float(row["null_z"]) == pytest.approx(sign * (score - level) / shuffled.std(ddof=1), rel=1e-4)
    assert float(row["null_p"]) == pytest.approx((1 + (sign * shuffled >= sign * score).sum()) / 51)


def test_what_does_not_clear_its_null_is_marked_and_said(unrelated: list[Path], alike: list[Path]) -> None:
    noise = run("baseline", *unrelated, "--format", "table")
    assert "~" in noise.stdout.splitlines()[4]
    assert "shuffled rows score 0.8" in noise.stdout
    assert "~ less than 3 standard deviations from shuffled rows\n" in noise.stdout
    assert (
        f"contrasim: warning: cka: no layer of {unrelated[0]} is more similar to one of {unrelated[1]} than with rows shuffled, by "
        "3 standard deviations; are these the same examples?"
    ) in noise.stderr.splitlines()
    related = run("baseline", *alike, "--format", "table")
    assert "~" not in related.stdout.splitlines()[4].split("│")[2]
    assert related.stderr == ""


def test_the_floor_of_p_is_said_and_z_stands_beside_it(alike: list[Path]) -> None:
    done = run("baseline", *alike, "--permutations", 9, "--layers", "0", "--format", "table")
    assert "contrasim: note: p-values from 9 shuffles (1/10 at least), 60 rows of Y (cka)" in done.stderr.splitlines()
    assert " p 0.1 z " in done.stdout


def test_ties_of_the_best_match_are_marked(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    stores = [
        made.store(tmp_path / "a.h5", {"l": x}),
        made.store(tmp_path / "b.h5", {"same": x, "twice": 2 * x, "other": x[:, :1]}),
    ]
    line = run("baseline", *stores, "--format", "table").stdout.splitlines()[4]
    same, twice, other = line.split("│")[2:5]
    assert same.strip() == twice.strip() == "1.0000="
    assert not other.strip().endswith("=")


@pytest.mark.parametrize("rows_and_width", [(6, 3), (6, 8)])
@pytest.mark.parametrize("measure", ["dot", "cosine", "cca_yanai", "linear_regression"])
def test_the_exact_mean_over_all_shuffles_is_shown_unasked(
    tmp_path: Path, measure: str, rows_and_width: tuple[int, int]
) -> None:
    """The control: the mean over every one of the 720 orders of six rows."""
    rows, width = rows_and_width
    x, y = (np.random.default_rng(k).normal(size=(rows, width)) + 0.5 for k in (0, 1))
    y[:, -1] = y[:, 0]  # of lower rank
    paths = [made.store(tmp_path / f"{name}.h5", {"l": side}) for name, side in (("a", x), ("b", y))]
    (row,) = rows_of(*paths, "--measure", measure)
    every = [similarity(measure, x, y[list(order)]) for order in itertools.permutations(range(rows))]
    assert float(row["null"]) == pytest.approx(np.mean(every), rel=1e-5, abs=1e-6)
    assert "null_z" not in row
    assert "null" not in rows_of(*paths, "--measure", measure, "--null", "0")[0]
    told = run("baseline", *paths, "--measure", measure, "--format", "table").stdout
    assert f"shuffled rows score {float(row['null']):.4f}" in told
    assert ("~" in told) == (width > rows and measure in ("cca_yanai", "linear_regression"))  # every score is 1


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        (65, (), False),  # another warning
        (66, (), True),
        (66, ("--null", "9"), False),
        (66, ("--null", "0"), False),
        (66, ("--permutations", "9"), False),
        (255, (), True),
        (256, (), False),
    ],
)
def test_few_rows_are_told_where_no_null_is_shown(
    rows: int, options: tuple[str, ...], told: bool, tmp_path: Path
) -> None:
    """Of pwcca, which has no null in closed form, and not of cka beside it, which has."""
    rng = np.random.default_rng(0)
    stores = [made.store(tmp_path / f"{name}.h5", {"one": rng.normal(size=(rows, 64))}) for name in "ab"]
    result = run("baseline", *stores, "--measure", "cka", "--measure", "pwcca", *options)
    text = (
        f"pwcca: {rows} rows are few for the 64 neurons of layer one of {stores[0]}, where unrelated rows may look alike too; "
        "--null 99 tells\n"
    )
    assert (text in result.stderr) == told
