"""What CKA and its like give shuffled rows, in every form of the grid, against every one of the n! orders."""

from itertools import permutations
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch

from contrasim_cli.grid import Grid, gram_products, layer_grids
from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import Options
from contrasim_cli.measures.load import similarity
from contrasim_cli.scoring import closed_form

N = 7
CPU = torch.device("cpu")
FAMILY = ["cka", "rv", "cka_debiased"]


def matrices(seed: int, dtype: type = np.float64) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    heavy = 1e3 + 1e-2 * rng.normal(size=(N, 3)) ** 3
    repeated = rng.normal(size=(N, 2))[[0, 0, 0, 1, 2, 3, 4]]
    return {"heavy": heavy.astype(dtype), "repeated": repeated.astype(dtype)}


def every_order(name: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([similarity(name, x, y[list(order)], Options()) for order in permutations(range(N))])


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str, str], tuple[float, float]]:
    a, b = matrices(0), matrices(1)
    found = {}
    for name in ("cka", "cka_debiased"):
        for one, x in a.items():
            for other, y in b.items():
                scores = every_order(name, x, y)
                found[name, one, other] = float(scores.mean()), float(scores.std())
    return found | {("rv", *key[1:]): value for key, value in found.items() if key[0] == "cka"}


@pytest.mark.parametrize("measures", [FAMILY, ["cka"]])
@pytest.mark.parametrize("budget", [1 << 40, 700])
@pytest.mark.parametrize("gram", [False, True])
def test_mean_and_spread_are_those_of_all_orders(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[tuple[str, str, str], tuple[float, float]],
    measures: list[str],
    budget: int,
    gram: bool,
) -> None:
    monkeypatch.setattr(gram_products, "gram_is_cheaper", lambda grid: gram)
    views = [made.view(tmp_path / f"{k}.h5", matrices(k)) for k in (0, 1)]
    layers = [list(view.store.layers) for view in views]
    grid = Grid(Plan(views, [(0, 1)], layers, layers), closed_form(measures), CPU, budget, levels=True)
    assert grid.reader.in_memory == (budget > 700)
    layer_grids(grid)
    for s, name in enumerate(measures):
        exact = grid.shuffled_of(s, 0, 1)
        assert exact is not None
        for i, one in enumerate(layers[0]):
            for j, other in enumerate(layers[1]):
                mean, spread = expected[name, one, other]
                assert exact[0][i, j] == pytest.approx(mean, rel=1e-5, abs=1e-6)
                assert exact[1][i, j] == pytest.approx(spread, rel=1e-4)


def test_nothing_is_found_where_nobody_asks(tmp_path: Path) -> None:
    views = [made.view(tmp_path / f"{k}.h5", matrices(k)) for k in (0, 1)]
    layers = [list(view.store.layers) for view in views]
    grid = Grid(Plan(views, [(0, 1)], layers, layers), closed_form(["cka"]), CPU, 1 << 40)
    layer_grids(grid)
    assert grid.shuffled_of(0, 0, 1) is None


@pytest.mark.parametrize("rows", [2, 3])
def test_few_rows_have_a_mean_and_no_spread(tmp_path: Path, rows: int) -> None:
    x = np.random.default_rng(2).normal(size=(2, rows, 2))
    views = [made.view(tmp_path / f"{k}.h5", {"l": x[k]}) for k in (0, 1)]
    grid = Grid(Plan(views, [(0, 1)], [["l"]] * 2, [["l"]] * 2), closed_form(["cka"]), CPU, 1 << 40, levels=True)
    layer_grids(grid)
    exact = grid.shuffled_of(0, 0, 1)
    assert exact is not None
    scores = [similarity("cka", x[0], x[1][list(order)]) for order in permutations(range(rows))]
    assert exact[0][0, 0] == pytest.approx(np.mean(scores), rel=1e-6)
    assert np.isnan(exact[1][0, 0])


def test_many_rows_are_as_shuffles_of_them(tmp_path: Path) -> None:
    """Where products of five numbers of rows leave the integers."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 20_000, 3)) ** 3
    views = [made.view(tmp_path / f"{k}.h5", {"l": rows}) for k, rows in enumerate((x, y))]
    grid = Grid(Plan(views, [(0, 1)], [["l"]] * 2, [["l"]] * 2), closed_form(FAMILY), CPU, 1 << 40, levels=True)
    layer_grids(grid)
    for s, name in enumerate(FAMILY):
        exact = grid.shuffled_of(s, 0, 1)
        assert exact is not None
        scores = np.array([similarity(name, x, rng.permutation(y)) for _ in range(200)])
        assert exact[0][0, 0] == pytest.approx(scores.mean(), abs=4 * scores.std() / 200**0.5)
        assert exact[1][0, 0] == pytest.approx(scores.std(), rel=0.3)
