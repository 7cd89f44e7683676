"""Encoding scores through `contrasim baseline`: folds, groups of ids, and what is refused."""

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles_encoding as oracles
import pytest
from helpers import run
from ranks import run as start_ranks

from contrasim_cli.measures import Options
from contrasim_cli.measures.encoding import Folds
from contrasim_cli.measures.load import similarity

RUNS, TRIALS = 12, 5


def sides() -> tuple[Any, Any]:
    """Rows [60, 8] and [60, 3] of which the trials of a run are nearly equal, and runs unrelated."""
    rng = np.random.default_rng(0)
    x, y = (np.repeat(rng.normal(size=(RUNS, p)), TRIALS, axis=0) for p in (8, 3))
    return (x + 0.01 * rng.normal(size=x.shape)).astype(np.float32), y.astype(np.float32)


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    ids = [f"run:{r}:{t}" for r in range(RUNS) for t in range(TRIALS)]
    return [made.store(tmp_path / f"{name}.h5", {"l": x}, ids) for name, x in zip("ab", sides(), strict=True)]


def score(*arguments: object) -> float:
    done = run("baseline", *arguments, "--format", "value")
    assert done.code == 0, done.stderr
    return float(done.stdout)


def test_groups_of_ids_are_held_out_together(stores: list[Path]) -> None:
    x, y = sides()
    leaked = score(*stores, "--measure", "encoding_ridge")
    assert leaked == pytest.approx(similarity("encoding_ridge", x, y), rel=1e-9)
    assert leaked > 0.7
    honest = score(*stores, "--measure", "encoding_ridge", "--groups", ":")
    groups = tuple(np.repeat(np.arange(RUNS), TRIALS).tolist())
    assert honest == pytest.approx(oracles.score(x, y, oracles.ridge, folds=Folds(5, 0, groups)), rel=1e-6, abs=1e-9)
    assert honest < 0.3


def test_ranks_hold_out_the_same_groups(stores: list[Path]) -> None:
    given = ["baseline", *stores, "--measure", "family:encoding", "--groups", ":", "--format", "json"]
    ranks = start_ranks(2, *given)
    assert [one.code for one in ranks] == [0, 0], ranks
    assert json.loads(ranks[0].stdout)["results"] == json.loads(run(*given).stdout)["results"]


def test_groups_follow_rows_that_are_left_out_or_reordered(stores: list[Path], tmp_path: Path) -> None:
    x, y = sides()
    kept = np.delete(np.arange(60), [3, 40])
    order = np.random.default_rng(1).permutation(60)
    ids = [f"run:{r // TRIALS}:{r % TRIALS}" for r in order]
    broken = x.copy()
    broken[[3, 40]] = np.nan
    a = made.store(tmp_path / "c.h5", {"l": broken})
    b = made.store(tmp_path / "d.h5", {"l": y[order]}, ids)
    a = made.store(tmp_path / "e.h5", {"l": broken}, [f"run:{r // TRIALS}:{r % TRIALS}" for r in range(60)])
    found = score(a, b, "--measure", "encoding_ridge", "--groups", ":", "--align", "ids", "--nan", "drop")
    groups = tuple((kept // TRIALS).tolist())
    assert found == pytest.approx(
        oracles.score(x[kept], y[kept], oracles.ridge, folds=Folds(5, 0, groups)), rel=1e-6, abs=1e-9
    )


def test_options_reach_the_measure(stores: list[Path]) -> None:
    x, y = sides()
    more = ["--encoding-score", "correlation", "--neurons", "mean", "--folds", "3", "--components", "2", "--seed", "4"]
    options = Options(encoding_score="correlation", neurons="mean", folds=3, components=2, seed=4)
    for name in ("encoding_ridge", "decoding_ridge", "encoding_pls", "decoding_pls"):
        assert score(*stores, "--measure", name, *more) == pytest.approx(similarity(name, x, y, options), rel=1e-9)


def test_ranks_intervals_and_p_values(stores: list[Path]) -> None:
    options = ["--measure", "family:encoding", "--bootstrap", "6", "--permutations", "19", "--format", "json"]
    one, (two, _) = run("baseline", *stores, *options), start_ranks(2, "baseline", *stores, *options)
    assert (one.code, two.code) == (0, 0), two.stderr
    results = json.loads(one.stdout)["results"]
    assert json.loads(two.stdout)["results"] == results
    assert len(results) == 4
    assert all(row["p_value"] == 0.05 for row in results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--groups", ":"], "--groups goes with an encoding score, such as --measure encoding_ridge"),
        (
            ["--measure", "encoding_pls", "--groups", ":", "--bootstrap", "9"],
            "--groups does not go with --bootstrap and --permutations, which resample rows one by one",
        ),
        (["--measure", "encoding_pls", "--groups", "/"], "--groups /: no id of {a} holds it; the first is run:0:0"),
        (
            ["--measure", "encoding_pls", "--groups", "n"],
            "--groups n: all rows of {a} are of one group, ru; there must be two or more",
        ),
        (
            ["--measure", "encoding_pls", "--groups", ""],
            "--groups: the separator is empty; give what separates the group from the row in ids, such as --groups :",
        ),
    ],
)
def test_groups_that_cannot_be_are_one_line(stores: list[Path], options: list[str], message: str) -> None:
    done = run("baseline", *stores, *options)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"contrasim: error: {message.format(a=stores[0])}\n"


def test_rows_without_ids_have_no_groups(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.npy" for name in "ab"]
    for path, x in zip(paths, sides(), strict=True):
        np.save(path, x)
    done = run("baseline", *paths, "--measure", "encoding_ridge", "--groups", ":", "-q")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"contrasim: error: --groups :: {paths[0]} has no ids that rows could be grouped by\n"


def test_layers_whose_products_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Fifteen matrices of 400 × 400 in 10 MB."""
    rng = np.random.default_rng(0)
    stores = [
        made.store(tmp_path / f"{name}.h5", {"l": rng.normal(size=(400, 400)).astype(np.float32)}) for name in "ab"
    ]
    done = run("baseline", *stores, "--measure", "encoding_ridge", "--memory", "6M")
    assert (done.code, done.stdout) == (3, "")
    assert "at once for encoding_ridge" in done.stderr.splitlines()[-1]
    assert run("baseline", *stores, "--measure", "linear_regression", "--memory", "6M", "-q").code == 0
