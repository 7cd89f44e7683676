"""`baseline --repeats-distance`: dissimilarities across the last store and its repeats, against their oracle."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles_repeats as oracles
import pytest
from helpers import run
from ranks import run as start_ranks

from contrasim_cli.measures.repeats import ACROSS

ROWS, LAST = 20, "--repeats-distance"


def measurements() -> list[Any]:
    """Three noisy images [20, 6] of the same rows."""
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(ROWS, 6))
    return [(pattern + 0.7 * rng.normal(size=(ROWS, 6))).astype(np.float32) for _ in range(3)]


def models() -> Any:
    """Two layers [20, 5]."""
    return np.random.default_rng(1).normal(size=(2, ROWS, 5)).astype(np.float32) + measurements()[0][:, :5]


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """A model of two layers, and three measurements of two."""
    one, two = models()
    paths = [made.store(tmp_path / "model.h5", {"one": one, "two": two})]
    for k, x in enumerate(measurements()):
        paths.append(made.store(tmp_path / f"brain_{k}.h5", {"v1": x, "it": x[:, ::-1] ** 2}))
    return paths


def given(paths: list[Path], distance: str = "crossnobis", *more: object) -> list[object]:
    repeats = [word for path in paths[2:] for word in ("--repeats", path)]
    return ["baseline", *paths[:2], "--measure", "rsa", "--rsm", "sqeuclidean", *repeats, LAST, distance, *more]


def wanted(distance: str = "crossnobis", compare: str = "spearman", rsm: str = "sqeuclidean") -> dict[Any, float]:
    """By the names of both layers."""
    sides = {"v1": measurements(), "it": [x[:, ::-1] ** 2 for x in measurements()]}
    return {
        (name, layer): oracles.rsa(model, each, distance, rsm, compare)
        for name, model in zip(("one", "two"), models(), strict=True)
        for layer, each in sides.items()
    }


def rows_of(stdout: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(stdout), delimiter="\t"))


@pytest.mark.parametrize("distance", ACROSS)
@pytest.mark.parametrize("compare", ["spearman", "cosine-rdm", "corr-cov", "tau-a"])
def test_scores_equal_the_oracle_and_there_is_no_ceiling(stores: list[Path], distance: str, compare: str) -> None:
    done = run(*given(stores, distance, "--compare", compare))
    assert done.code == 0, done.stderr
    rows, expected = rows_of(done.stdout), wanted(distance, compare)
    assert [(row["layer_a"], row["layer_b"]) for row in rows] == list(expected)
    assert {row["store_b"] for row in rows} == {"brain_0"}
    assert "ceiling_low" not in rows[0]
    assert [float(row["score"]) for row in rows] == pytest.approx(list(expected.values()), abs=1e-6)


def test_a_memory_that_holds_no_rows_changes_nothing(stores: list[Path]) -> None:
    done = run(*given(stores, "crossnobis", "--memory", "100K"))
    assert [float(row["score"]) for row in rows_of(done.stdout)] == pytest.approx(list(wanted().values()), abs=1e-6)


def test_ranks_and_other_measures_beside(stores: list[Path]) -> None:
    more = ["--measure", "cka", "--permutations", "19", "--bootstrap", "20", "--format", "json"]
    one, (two, _) = run(*given(stores, "crossnobis", *more)), start_ranks(2, *given(stores, "crossnobis", *more))
    assert (one.code, two.code) == (0, 0), two.stderr
    rows, others = (json.loads(done.stdout)["results"] for done in (one, two))
    for row, other in zip(rows, others, strict=True):
        assert other["score"] == pytest.approx(row["score"], rel=1e-6)
    plain = run("baseline", *stores[:2], "--measure", "cka", "--format", "json")
    assert [row["score"] for row in rows if row["measure"] == "cka"] == [
        row["score"] for row in json.loads(plain.stdout)["results"]
    ]


def test_confidence_is_of_the_repeats_together(stores: list[Path]) -> None:
    """Rows are shuffled and drawn with all their measurements: the layer that is the model's own clears chance."""
    done = run(*given(stores, "crossnobis", "--permutations", "99", "--bootstrap", "50", "--null", "99"))
    row = rows_of(done.stdout)[0]
    assert float(row["p_value"]) == pytest.approx(0.01)
    assert float(row["ci_low"]) <= float(row["score"]) <= float(row["ci_high"])
    assert float(row["null_z"]) > 3


def test_other_stores_are_compared_as_they_are(stores: list[Path]) -> None:
    alone = run("baseline", *[stores[0], stores[3]], "--measure", "rsa", "--rsm", "sqeuclidean")
    three = [stores[0], stores[3], stores[1], "--repeats", stores[2]]
    done = run("baseline", *three, "--measure", "rsa", "--rsm", "sqeuclidean", LAST, "crossnobis")
    pairs = [row for row in rows_of(done.stdout) if row["store_b"] == "brain_2"]
    scores = [[float(row["score"]) for row in rows] for rows in (pairs, rows_of(alone.stdout))]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_repeats_are_standardised_as_stores_are(stores: list[Path]) -> None:
    done = run(*given(stores, "cv-sqeuclidean", "--standardize", "zscore", "--layers-b", "v1", "--layers-a", "one"))
    assert done.code == 0, done.stderr
    model, *each = ((x - x.mean(axis=0)) / x.std(axis=0) for x in map(np.float64, (models()[0], *measurements())))
    expected = oracles.rsa(model, each, "cv-sqeuclidean", "sqeuclidean", "spearman")
    assert float(rows_of(done.stdout)[0]["score"]) == pytest.approx(expected, abs=1e-3)


def test_what_cannot_be_crossed_is_one_line(stores: list[Path], tmp_path: Path) -> None:
    wide = made.store(tmp_path / "wide.h5", {"v1": measurements()[0][:, :4], "it": measurements()[0]})
    done = run(*given([*stores, wide]))
    assert (done.code, done.stdout) == (4, "")
    assert done.stderr == (
        f"contrasim: error: {wide}: layer v1 has width 4, that of {stores[1]} has 6; --repeats-distance crossnobis takes the same "
        "neurons of each\n"
    )
    alone = run(*given(stores[:2]))
    assert (alone.code, alone.stdout) == (2, "")
    assert alone.stderr == (
        "contrasim: error: --repeats-distance crossnobis needs --repeats FILE, another measurement of the last store's rows\n"
    )
    similar = run(*given(stores, "split-half", "--compare", "cosine"))
    assert (similar.code, similar.stdout) == (2, "")
    assert similar.stderr == (
        "contrasim: error: --repeats-distance split-half gives dissimilarities; give --compare cosine-rdm in place of cosine\n"
    )


def test_repeats_that_are_copies_have_no_noise(stores: list[Path]) -> None:
    copies = [stores[0], stores[1], stores[1]]
    done = run(*given(copies))
    assert {row["score"] for row in rows_of(done.stdout)} == {""}
    assert "(crossnobis) repeats do not differ" in done.stderr
    assert run(*given(copies, "cv-sqeuclidean")).code == 0
