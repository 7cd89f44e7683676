"""Neighbour measures of clamped values, against the steps of the code that Huh et al. 2024 released, written again."""

from pathlib import Path

import made
import numpy as np
import pytest
from helpers import run
from libraries import assert_close, tensor
from oracles import Array

from contrasim_cli.arrays import xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.neighbours import clamped

Q, K = 0.95, 4


def sides() -> tuple[Array, Array]:
    """Rows of which a few entries are wild."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    y = x @ rng.normal(size=(8, 6)) + 0.3 * rng.normal(size=(60, 6))
    for side in (x, y):
        side[rng.integers(60, size=9), rng.integers(6, size=9)] *= 40
    return x, y


def released(x: Array) -> Array:
    """[n, k] neighbours: entries at the quantile of all sizes, rows of unit length, the largest products with other rows."""
    limit = np.sort(np.abs(x).ravel())[int(Q * x.size)]
    x = np.clip(x, -limit, limit)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    products = x @ x.T
    np.fill_diagonal(products, -1e8)
    return np.argsort(-products, axis=1)[:, :K]


def test_mutual_neighbours_are_those_of_the_released_code() -> None:
    x, y = sides()
    shared = [len(set(a) & set(b)) for a, b in zip(released(x).tolist(), released(y).tolist(), strict=True)]
    found = similarity("mutual_knn", x, y, Options(k=K, clamp=Q))
    assert found == pytest.approx(np.mean(shared) / K, rel=1e-12)
    assert found != pytest.approx(similarity("mutual_knn", x, y, Options(k=K)), rel=1e-3)


@pytest.mark.parametrize(
    "name", ["cycle_knn", "lcs_knn", "edit_distance_knn", "cknna", "jaccard_knn", "rank_similarity"]
)
def test_all_neighbour_measures_are_those_of_clamped_values(name: str) -> None:
    x, y = sides()
    wanted = similarity(name, *(clamped(tensor(side), Q) for side in (x, y)), Options(k=K))
    assert similarity(name, x, y, Options(k=K, clamp=Q)) == wanted


@pytest.mark.parametrize(("quantile", "limit"), [(0.5, 6.0), (0.75, 8.0), (0.95, 10.0), (0.99, 10.0), (1.0, 10.0)])
def test_the_limit_is_a_value_of_the_layer(quantile: float, limit: float) -> None:
    x = tensor([[1.0, -2, 3, -4, 5], [-6, 7, -8, 9, -10]])
    np.testing.assert_array_equal(clamped(x, quantile), np.clip(x.numpy(), -limit, limit))
    both = clamped(xp.stack([x, 10 * x]), quantile)
    assert_close(both[1], 10 * both[0])


def test_the_option_reaches_the_measure(tmp_path: Path) -> None:
    x, y = sides()
    stores = [made.store(tmp_path / f"{name}.h5", {"l": side}) for name, side in zip("ab", (x, y), strict=True)]
    done = run("baseline", *stores, "--measure", "mutual_knn", "--k", K, "--clamp", Q, "--format", "value")
    assert float(done.stdout) == similarity("mutual_knn", x, y, Options(k=K, clamp=Q))
