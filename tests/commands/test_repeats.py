"""`baseline --repeats`: the noise ceiling of `rsa` from repeated measurements, against its oracle."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles_ceiling as oracles
import pytest
import torch
from helpers import run
from ranks import run as start_ranks

from contrasim_cli.measures.ceiling import noise_ceiling
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.matrices import COMPARISONS, RSMS

ROWS = 14


def measurements(count: int = 3, noise: float = 0.6) -> list[Any]:
    """Noisy images [14, 7 to …] of the same rows, as of subjects."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, 5))
    return [
        (rows @ rng.normal(size=(5, 7 + k)) + noise * rng.normal(size=(ROWS, 7 + k))).astype(np.float32)
        for k in range(count)
    ]


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """A model of two layers, and three measurements."""
    model = np.random.default_rng(1).normal(size=(2, ROWS, 6)).astype(np.float32)
    paths = [made.store(tmp_path / "model.h5", {"one": model[0], "two": model[1]})]
    for k, x in enumerate(measurements()):
        paths.append(made.store(tmp_path / f"brain_{k}.h5", {"v1": x, "it": x[::-1].copy()}))
    return paths


def repeated(paths: list[Path]) -> list[object]:
    return [*paths[:2], "--measure", "rsa", *(word for path in paths[2:] for word in ("--repeats", path))]


@pytest.mark.parametrize("rsm", ["pearson", "euclidean", "sqeuclidean"])
@pytest.mark.parametrize("compare", list(oracles.WAYS))
def test_the_ceiling_equals_the_oracle(rsm: str, compare: str) -> None:
    sides = measurements()
    found = noise_ceiling([torch.from_numpy(x) for x in sides], rsm, compare)
    assert found == pytest.approx(oracles.noise_ceiling(sides, rsm, compare), rel=1e-6)


@pytest.mark.parametrize("rsm", RSMS)
@pytest.mark.parametrize("compare", COMPARISONS)
def test_a_ceiling_encloses_what_the_truth_scores_and_closes_without_noise(rsm: str, compare: str) -> None:
    clean = torch.from_numpy(measurements(1, noise=0)[0]).double()
    noisy = [clean + 0.7 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(k)) for k in range(24)]
    low, high = noise_ceiling(noisy, rsm, compare)
    assert low < high < 1
    low, high = noise_ceiling([clean, 3 * clean if rsm != "cosine" else clean, clean], rsm, compare)
    assert (low, high) == pytest.approx((1, 1), abs=1e-9)


def test_every_layer_of_the_last_store_has_its_ceiling(stores: list[Path]) -> None:
    done = run("baseline", *repeated(stores))
    assert done.code == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))
    assert list(rows[0])[-2:] == ["ceiling_low", "ceiling_high"]
    assert [(row["layer_a"], row["layer_b"]) for row in rows] == [(a, b) for a in ("one", "two") for b in ("v1", "it")]
    sides = measurements()
    expected = {
        "v1": oracles.noise_ceiling(sides, "pearson", "spearman"),
        "it": oracles.noise_ceiling([x[::-1] for x in sides], "pearson", "spearman"),
    }
    for row in rows:
        found = float(row["ceiling_low"]), float(row["ceiling_high"])
        assert found == pytest.approx(expected[row["layer_b"]], rel=1e-6)
        assert row["store_b"] == "brain_0"
    alone = run("baseline", *stores[:2], "--measure", "rsa")
    assert "ceiling" not in alone.stdout
    assert [row["score"] for row in rows] == [line.split("\t")[5] for line in alone.stdout.splitlines()[1:]]


def test_ranks_and_other_measures_beside(stores: list[Path]) -> None:
    given = ["baseline", *repeated(stores), "--measure", "cka", "--format", "json"]
    one, (two, _) = run(*given), start_ranks(2, *given)
    assert (one.code, two.code) == (0, 0), two.stderr
    content = json.loads(one.stdout)
    for row, other in zip(content["results"], json.loads(two.stdout)["results"], strict=True):
        assert [row[end] for end in oracles.ENDS] == [other[end] for end in oracles.ENDS]
        assert other["score"] == pytest.approx(row["score"], rel=1e-6)
    assert content["inputs"] == list(map(str, stores))
    assert {row["ceiling_low"] is None for row in content["results"] if row["measure"] == "cka"} == {True}
    assert {row["ceiling_low"] is None for row in content["results"] if row["measure"] == "rsa"} == {False}


def test_layers_of_the_first_side_are_none_of_a_repeat(stores: list[Path]) -> None:
    done = run("baseline", *repeated(stores), "--layers-a", "two", "--layers-b", "v1")
    assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_tables_show_it(stores: list[Path]) -> None:
    low, high = oracles.noise_ceiling(measurements(), "pearson", "spearman")
    shown = run("baseline", *repeated(stores), "--format", "table").stdout
    assert f"of {low:.2f}-{high:.2f}" in shown


def test_rows_that_are_dropped_are_dropped_from_repeats(tmp_path: Path) -> None:
    sides = measurements()
    kept = np.delete(np.arange(ROWS), 4)
    broken = sides[2].copy()
    broken[4, 1] = np.nan
    paths = [made.store(tmp_path / f"{k}.h5", {"l": x}) for k, x in enumerate([sides[0], sides[0], sides[1], broken])]
    done = run("baseline", *repeated(paths), "--nan", "drop", "--format", "json", "-q")
    (row,) = json.loads(done.stdout)["results"]
    expected = oracles.noise_ceiling([x[kept] for x in sides], "pearson", "spearman")
    assert (row["ceiling_low"], row["ceiling_high"]) == pytest.approx(expected, rel=1e-6)
    assert row["score"] == pytest.approx(similarity("rsa", sides[0][kept], sides[0][kept]), rel=1e-6)
    assert run("baseline", *repeated(paths)).code == 3


def test_what_cannot_be_repeated_is_one_line(stores: list[Path], tmp_path: Path) -> None:
    other = made.store(tmp_path / "other.h5", {"v1": measurements()[0]})
    lacking = run("baseline", *repeated([*stores, other]))
    assert (lacking.code, lacking.stdout) == (4, "")
    assert lacking.stderr == (f"contrasim: error: {other}: has no layer it, which it should repeat from {stores[1]}\n")
    cka = run("baseline", *stores[:2], "--measure", "cka", "--repeats", stores[2])
    assert (cka.code, cka.stdout) == (2, "")
    assert cka.stderr == (
        "contrasim: error: --repeats goes with --measure rsa, whose noise ceiling is estimated from repeats\n"
    )
    short = made.store(tmp_path / "short.h5", {"v1": measurements()[0][:9]})
    assert run("baseline", *repeated([*stores, short])).code == 4


def test_repeats_are_standardised_as_stores_are(stores: list[Path]) -> None:
    done = run("baseline", *repeated(stores), "--layers-b", "v1", "--standardize", "zscore", "--format", "json")
    found = json.loads(done.stdout)["results"][0]
    scaled = [(x - x.mean(axis=0)) / x.std(axis=0) for x in map(np.float64, measurements())]
    wanted = oracles.noise_ceiling(scaled, "pearson", "spearman")
    assert (found["ceiling_low"], found["ceiling_high"]) == pytest.approx(wanted, rel=1e-4)
