"""Second moments: sums over blocks, what is formed of them, and how whitened products depend on a layer's condition."""

from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch

from contrasim_cli.grid import Grid, layer_grids, moments
from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import alignment
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.protocol import Moments
from contrasim_cli.scoring import closed_form
from contrasim_cli.store import View
from contrasim_cli.transforms import Standardization, Standardizer

CPU = torch.device("cpu")
LARGE = 1 << 40
WHITENED = ["cca", "pwcca", "linear_regression"]
Matrix = np.ndarray[Any, Any]


def grid_of(views: list[View], names: list[str]) -> Grid:
    layers = [list(view.store.layers) for view in views]
    return Grid(Plan(views, [(0, 1)], layers, layers), closed_form(names), CPU, LARGE)


def scores(views: list[View], names: list[str]) -> dict[str, Matrix]:
    found = layer_grids(grid_of(views, names))
    return {name: found[s, 0, 1] for s, name in enumerate(names)}


def conditioned(n: int, width: int, ratio: float, seed: int) -> Matrix:
    """Rows whose largest singular value is so many times their smallest one, around a common mean."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(n, width))
    left = np.linalg.qr(raw - raw.mean(axis=0))[0]
    right = np.linalg.qr(rng.normal(size=(width, width)))[0]
    matrix: Matrix = left * np.geomspace(1, 1 / ratio, width) @ right + rng.normal(size=width)
    return matrix


@pytest.mark.torch_only
@pytest.mark.parametrize("width", [1, 3, 192, 193, 400])
def test_a_scatter_by_halves_is_the_whole_one(width: int) -> None:
    rows = torch.randn(50, width, dtype=torch.float64)
    sums = moments.MomentSums({(0, "a"): width}, [], [(0, "a")], [], torch.float64, CPU)
    sums.add(lambda layer, start, stop: rows[start:stop], 0, 20)
    sums.add(lambda layer, start, stop: rows[start:stop] + 0.0, 20, 50)
    sums.merge()
    whole = rows - rows.mean(dim=0)
    torch.testing.assert_close(sums.scatter[0, "a"], whole.T @ whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sums.squares[0, "a"], whole.square().sum(dim=0), rtol=1e-12, atol=1e-12)


def test_measures_that_look_at_no_scatter_are_given_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that look at one are."""
    given: list[bool] = []

    def noted(*parts: Any) -> Moments:
        given.append(parts[-1] is not None)
        return Moments(*parts)

    monkeypatch.setattr(moments, "Moments", noted)
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate(made.related(2, 2, 60, (7,)))]
    for name, scatters in (
        ("procrustes", False),
        ("soft_match", False),
        ("permutation_procrustes", False),
        ("gulp", True),
    ):
        given.clear()
        scores(both, [name])
        assert given == [scatters] * 4, name


def test_what_measures_share_of_a_pair_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    nuclear_norm = alignment.nuclear_norm

    def counted(*parts: Any) -> Any:
        nonlocal count
        count += 1
        return nuclear_norm(*parts)

    monkeypatch.setattr(alignment, "nuclear_norm", counted)
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate(made.related(2, 2, 60, (7,)))]
    names = ["procrustes", "angular_shape", "procrustes_size_shape"]
    alone = [scores(both, [name])[name] for name in names]
    assert count == 3 * 4
    together = scores(both, [*names, "cca"])
    assert count == 4 * 4
    for name, grid in zip(names, alone, strict=True):
        np.testing.assert_array_equal(together[name], grid)


@pytest.mark.parametrize("ratio", [10.0, 299.0, 301.0, 1e5])
def test_whitened_products_keep_their_digits_at_any_condition(tmp_path: Path, ratio: float) -> None:
    a = {"x": conditioned(400, 12, ratio, 0), "y": conditioned(400, 9, 10.0, 1)}
    mix = np.random.default_rng(2).normal(size=(12, 10))
    b = {"z": a["x"] @ mix + conditioned(400, 10, ratio, 3), "w": conditioned(400, 12, 290.0, 4) + a["x"]}
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate((a, b))]
    for name, found in scores(both, WHITENED).items():
        expected = [[similarity(name, x, y) for y in b.values()] for x in a.values()]
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=name)


def test_both_ways_to_whitened_products_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate(made.related(2, 2, 300, (7, 9)))]
    found = []
    for limit in (0.0, 1e9):
        monkeypatch.setattr(moments, "WELL_CONDITIONED", limit)
        found.append(scores(both, WHITENED))
    for name in WHITENED:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-10)
    assert not all(np.array_equal(found[0][name], found[1][name]) for name in WHITENED)  # which would be one way twice


def test_passes_in_memory_use_one_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["procrustes", "hard_match", "gulp", "cca"]
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate(made.related(2, 3, 60, (7, 5, 9)))]
    whole = scores(both, names)
    monkeypatch.setattr(moments, "SUMS_BYTES", 1)
    for name, found in scores(both, names).items():
        np.testing.assert_allclose(found, whole[name], rtol=1e-12, err_msg=name)


@pytest.mark.torch_only
def test_rows_are_held_as_they_are_stored_unless_a_view_changes_them(tmp_path: Path) -> None:
    sides = [{"layer": side["layer_0"].astype(np.float16)} for side in made.related(2, 1, 60, (7,))]
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate(sides)]
    standardized = Standardizer(both).views(Standardization("zscore"), [["layer"], ["layer"]], LARGE)
    for views, held in ((both, torch.float16), (standardized, torch.float32)):
        grid = grid_of(list(views), ["cosine"])
        grid.reader.load(grid.progress)
        assert grid.reader._held[0, "layer"].held_as == held
        rows = grid.reader.rows((0, "layer"), 0, 60)
        assert rows.dtype == torch.float32
        np.testing.assert_array_equal(rows.numpy(), views[0].read("layer"))


@pytest.mark.torch_only
def test_rows_that_were_taken_over_are_read_again(tmp_path: Path) -> None:
    both = [made.view(tmp_path / f"{k}.h5", side) for k, side in enumerate(made.related(2, 2, 60, (7,)))]
    grid = grid_of(both, ["cka", "dot"])
    layer_grids(grid)
    assert not grid.reader._held
    before = grid.reader.rows((1, "layer_1"), 3, 9)
    grid.reader.load(grid.progress)
    assert len(grid.reader._held) == len(grid.plan.layers)
    assert torch.equal(before, grid.reader.rows((1, "layer_1"), 3, 9))


def test_only_neighbours_in_one_memory_are_joined_without_a_copy() -> None:
    together, apart = torch.arange(12.0).view(2, 6), torch.arange(12.0, 24.0).view(2, 6)
    left, right = together[:, :2], together[:, 2:6]
    joined = moments.side_by_side([left, right])
    assert joined.data_ptr() == together.data_ptr()
    assert torch.equal(joined, together)
    for parts in ([right, left], [left, apart[:, 2:6]], [left, left], [together, apart]):
        assert torch.equal(moments.side_by_side(parts), torch.cat(parts, dim=1))
