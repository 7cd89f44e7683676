"""Medians and ranks of the distances in tiles, against all of them at once."""

import numpy as np
import pytest
from libraries import assert_close, tensor

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import distances
from contrasim_cli.measures.distances import (
    average_ranks,
    median,
    median_of_tiles,
    ranks_of_tiles,
    sorted_ranks_of_tiles,
)
from contrasim_cli.measures.tiles import Tiles, between

ROWS = {
    "normal": np.random.default_rng(0).normal(size=(150, 4)),
    "few values": np.random.default_rng(0).integers(0, 2, size=(150, 3)).astype(np.float64),
    "half equal": np.concatenate([np.ones((110, 2)), np.random.default_rng(0).uniform(size=(40, 2))]),
    "all equal": np.ones((20, 2)),
    "two clusters": np.concatenate([np.zeros(70), np.linspace(1, 1.0001, 71)])[:, None],
    "two rows": np.array([[0.0], [3.0]]),
    "far apart": np.logspace(-6, 6, 100)[:, None],
}


def tiles_of(rows: Tensor, side: int = 32, room: int = 0) -> Tiles:
    return Tiles(len(rows), lambda start, stop: rows[start:stop], side, rows.new_ones(()), room)


def once(rows: Tensor) -> Tensor:
    """The squared distances of all pairs r < s."""
    first, second = np.triu_indices(len(rows), 1)
    return (rows[first] - rows[second]).square().sum(dim=1)


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize(("bins", "collected"), [(1 << 18, 1 << 24), (200, 1 << 24), (200, 300), (20, 50), (8, 8)])
def test_the_median(case: str, bins: int, collected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all pairs at once; from a sample and one pass; and from several passes that narrow the bracket down."""
    monkeypatch.setattr(distances, "BINS", bins)
    monkeypatch.setattr(distances, "COLLECTED", collected)
    found = median_of_tiles(tiles_of(tensor(ROWS[case])))
    assert_close(found, median(once(tensor(ROWS[case])).sqrt())[0], rtol=1e-12, atol=1e-12)


def test_the_median_of_no_pairs() -> None:
    assert median_of_tiles(tiles_of(tensor(np.ones((1, 3))))).isnan()


@pytest.mark.parametrize("case", ROWS)
def test_ranks_of_few_pairs_are_exact(case: str) -> None:
    values = once(tensor(ROWS[case]))
    assert_close(ranks_of_tiles(tiles_of(tensor(ROWS[case]))).of(values), average_ranks(values))


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("side", [7, 32, 1000])
def test_sorted_ranks_are_exact(case: str, side: int) -> None:
    """Tile by tile, against a count of the smaller and of the equal values."""
    tiles = tiles_of(tensor(ROWS[case]), side)
    values = xp.cat([tile.once() for tile in tiles])
    expected, order, runs = xp.empty_like(values), values.argsort().tolist(), [[]]
    for before, place in zip([order[0], *order], order, strict=False):
        if values[place] - values[before] > distances.TIE * values.max():
            runs.append([])
        runs[-1].append(place)
    for k, run in enumerate(runs):
        expected[run] = sum(map(len, runs[:k])) + (len(run) - 1) / 2
    assert_close(sorted_ranks_of_tiles(tiles), expected, rtol=0, atol=0)


def test_distances_are_kept_unless_they_are_needed_once() -> None:
    tiles = tiles_of(tensor(ROWS["normal"]), room=1 << 20)
    sorted_ranks_of_tiles(tiles)
    assert tiles.room == 1 << 20
    assert all(tile.squared is again.squared for tile, again in zip(tiles, tiles, strict=True))
    assert tiles.room == (1 << 20) - 8 * sum(tile.squared.numel() for tile in tiles)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=5000),
        1 + 1e-15 * np.random.default_rng(0).permutation(3000),  # that differ in their last bits
        -1 - 1e-15 * np.random.default_rng(0).permutation(3000),
        np.array([0.0, -0.0, np.inf, -np.inf, 5e-324, -5e-324, 1.0]),
        np.array([1.0, np.nan, -np.nan, 0.0]),
        np.array([2.0]),
        np.array([]),
    ],
)
def test_values_are_put_in_order(values: np.ndarray) -> None:
    ordered, order = distances.in_order(tensor(values))
    np.testing.assert_array_equal(ordered, np.sort(values))
    np.testing.assert_array_equal(values[order.numpy()], ordered)
    assert sorted(order.tolist()) == list(range(len(values)))


def test_ties_share_ranks_row_by_row_and_nan_has_none() -> None:
    values = tensor([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0], [1.0, np.nan, 0.0]])
    ranks = average_ranks(values)
    assert ranks[:2].tolist() == [[1.5, 0.0, 1.5], [1.0, 1.0, 1.0]]
    assert ranks[2].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("case", ["normal", "few values", "half equal", "two clusters"])
def test_ranks_of_many_pairs_change_no_correlation(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BINS", 2000)
    values = once(tensor(ROWS[case]))
    found, exact = ranks_of_tiles(tiles_of(tensor(ROWS[case]))).of(values), average_ranks(values)
    assert np.corrcoef(found, exact)[0, 1] == pytest.approx(1, abs=1e-5)
    assert float((found - exact).mean().abs()) < 1e-6 * len(values)
    if case == "few values":  # ties stay together
        assert_close(found, exact)


@pytest.mark.parametrize("side", [1, 7, 150, 1000])
@pytest.mark.parametrize("room", [0, 40_000, 1 << 30])
def test_tiles_are_the_upper_half(side: int, room: int) -> None:
    rows = tensor(ROWS["normal"][:40])
    tiles = tiles_of(rows, side, room)
    expected = between(rows, rows)
    for _ in range(2):  # made, and kept
        seen = np.zeros((40, 40))
        for tile in tiles:
            assert_close(tile.squared, expected[tile.rows, tile.columns])
            seen[tile.rows, tile.columns] += 1
        assert (np.triu(seen) == np.triu(np.ones((40, 40)))).all()
    assert xp.cat([tile.once() for tile in tiles]).sort().values.tolist() == pytest.approx(
        once(rows).sort().values.tolist()
    )


def test_a_sample_is_of_all_tiles() -> None:
    rows = tensor(ROWS["normal"])
    found, values = np.asarray(tiles_of(rows).sample(3000)), np.asarray(once(rows))
    assert len(found) == pytest.approx(3000, rel=0.02)
    assert np.isin(found.round(9), values.round(9)).all()
    assert np.median(found) == pytest.approx(np.median(values), rel=0.1)
