"""Nearest rows against brute force: the very rows, also where float32 distances are worthless."""

from pathlib import Path
from typing import Any

import faiss
import h5py
import made
import numpy as np
import oracles
import pytest

from contrasim_cli.errors import InputError
from contrasim_cli.rows import exact_search as search
from contrasim_cli.rows.exact_search import CANDIDATES, Pool, nearest_candidates
from contrasim_cli.store import View, align, open_store


def pool(path: Path, rows: Any, ids: list[str] | None = None) -> Pool:
    return Pool(made.view(path, {"l": rows}, ids), "l")


def check(found: np.ndarray[Any, Any], queries: Any, rows: Any, own: list[int | None], count: int = CANDIDATES) -> None:
    """The found rows are the oracle's, in its order."""
    assert found.tolist() == oracles.nearest_neighbours(queries, rows, count, own)


def normal(n: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_neighbours_are_the_nearest(tmp_path: Path, dtype: type) -> None:
    rows = normal(120, 6).astype(dtype)
    side = pool(tmp_path / "a.h5", rows)
    check(nearest_candidates(side, side), rows, rows, list(range(120)))


def test_ties_go_by_position_and_equal_rows_are_left_out(tmp_path: Path) -> None:
    """Integers on a small grid: hardly any distance that does not tie, hardly any row without its double."""
    rows = np.random.default_rng(0).integers(0, 4, size=(200, 3)).astype(np.float32)
    side = pool(tmp_path / "a.h5", rows)
    check(nearest_candidates(side, side), rows, rows, list(range(200)))


def test_many_doubles_do_not_take_the_places_of_neighbours(tmp_path: Path) -> None:
    rows = np.concatenate([np.tile(normal(1, 5), (60, 1)), normal(15, 5, seed=1)])
    side = pool(tmp_path / "a.h5", rows)
    check(nearest_candidates(side, side), rows, rows, list(range(75)))


def test_rows_without_ten_others_are_refused_with_their_number(tmp_path: Path) -> None:
    rows = np.concatenate([np.tile(normal(1, 5), (60, 1)), normal(9, 5, seed=1)])
    side = pool(tmp_path / "a.h5", rows)
    with pytest.raises(InputError) as refused:
        nearest_candidates(side, side)
    assert str(refused.value) == (
        f"{tmp_path}/a.h5: layer l: row 0 of {tmp_path}/a.h5 has 9 neighbours that differ from it, 10 are needed; use more rows"
    )
    few = pool(tmp_path / "b.h5", normal(10, 5))
    with pytest.raises(InputError, match="has 9 neighbours that differ from it, 10 are needed"):
        nearest_candidates(few, few)


def test_a_constant_layer_is_refused(tmp_path: Path) -> None:
    side = pool(tmp_path / "a.h5", np.full((300, 4), 0.1))
    with pytest.raises(InputError, match="has 0 neighbours that differ from it"):
        nearest_candidates(side, side)


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    rows = normal(30, 3)
    rows[7] = [0.0, 1.0, 0.0]
    rows[20] = [-0.0, 1.0, 0.0]
    side = pool(tmp_path / "a.h5", rows)
    found = nearest_candidates(side, side)
    assert 20 not in found[7]
    assert 7 not in found[20]
    check(found, rows, rows, list(range(30)))


@pytest.mark.parametrize("offset", [0, 1e4, 1e6])
def test_a_large_common_offset_hides_no_neighbour(tmp_path: Path, offset: float) -> None:
    rows = (normal(150, 20).astype(np.float64) + offset).astype(np.float32)
    side = pool(tmp_path / "a.h5", rows)
    check(nearest_candidates(side, side), rows, rows, list(range(150)))


def test_clusters_of_large_norm_hide_no_neighbour(tmp_path: Path) -> None:
    """Two clusters, far from each other and from their mean: in float32 the distances within are nothing but rounding."""
    wide = normal(2000, 64).astype(np.float64)
    wide[:1000] += 3e4
    wide[1000:] -= 3e4
    rows = wide.astype(np.float32)
    side = pool(tmp_path / "a.h5", rows)
    found = nearest_candidates(side, side)
    for query in (0, 999, 1000):
        check(found[query : query + 1], rows[query : query + 1], rows, [query])
    _, naive = faiss.knn(rows - rows.mean(axis=0), rows - rows.mean(axis=0), 11)
    assert (naive[:, 1:] != found).any(axis=1).mean() > 0.9  # what a search without the care finds


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_hide_no_neighbour(tmp_path: Path, scale: float) -> None:
    rows = (normal(60, 6).astype(np.float64) * scale).astype(np.float32)
    side = pool(tmp_path / "a.h5", rows)
    wide = rows.astype(np.float64) / scale
    check(nearest_candidates(side, side), wide, wide, list(range(60)))


def test_blocks_of_the_pool_and_of_the_queries_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 5, size=(300, 4)).astype(np.float32)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("l", data=rows, chunks=(16, 4))
    side = Pool(View(open_store(path)), "l")
    whole = nearest_candidates(side, side)
    monkeypatch.setattr(search, "COMPARED", 17 * 4 * 7)
    shares = search.Shares(12 * 32 * 4 * 4)
    assert len(list(side.blocks(shares.block))) > 5
    assert shares.queries // (4 * 4 + 16 * 17) < 10  # queries per pass
    np.testing.assert_array_equal(nearest_candidates(side, side, budget=shares.budget), whole)
    check(whole, rows, rows, list(range(300)))


@pytest.mark.parametrize("offset", [0, 1e4])
def test_neighbours_from_a_larger_store_leave_the_row_out_by_id_and_by_value(tmp_path: Path, offset: float) -> None:
    """Rows 0-9 are in the pool under their ids with other values, 10-19 under other ids with their values."""
    queries, rows = normal(40, 6) + offset, normal(90, 6, seed=1) + offset
    ids = [f"p{k}" for k in range(90)]
    ids[30:40] = [f"r{k}" for k in range(10)]
    rows[30:40] = queries[:10] + np.float32(1 / 1024)
    rows[50:60] = queries[10:20]
    found = nearest_candidates(pool(tmp_path / "a.h5", queries), pool(tmp_path / "p.h5", rows, ids))
    check(found, queries, rows, [30 + k if k < 10 else None for k in range(40)])
    assert not {(k, 30 + k) for k in range(10)} & {(k, int(p)) for k in range(40) for p in found[k]}


def test_line_numbers_of_different_sources_are_not_the_same_row(tmp_path: Path) -> None:
    """Automatic ids, such as the line numbers of two files, are equal and say nothing."""
    paths = [tmp_path / "a.h5", tmp_path / "p.h5"]
    queries, rows = normal(30, 4), normal(50, 4, seed=1)
    rows[5] = queries[5] + np.float32(1 / 1024)
    sides = []
    for path, matrix, source in zip(paths, (queries, rows), ("one", "two"), strict=True):
        made.store(path, {"l": matrix})
        with h5py.File(path, "a") as file:
            file["ids"].attrs.update({"automatic": True, "source": source})
        sides.append(Pool(View(open_store(path)), "l"))
    found = nearest_candidates(*sides)
    check(found, queries, rows, [None] * 30)
    assert found[5, 0] == 5


def test_rows_of_an_aligned_view_are_numbered_in_the_view(tmp_path: Path) -> None:
    rows = normal(60, 5)
    order = np.random.default_rng(1).permutation(60)
    a = open_store(made.store(tmp_path / "a.h5", {"l": rows[:50]}))
    b = open_store(made.store(tmp_path / "b.h5", {"l": rows[order]}, [f"r{k}" for k in order]))
    first, second = (Pool(view, "l") for view in align([a, b], "ids"))
    expected = nearest_candidates(first, first)
    np.testing.assert_array_equal(nearest_candidates(second, second), expected)
    check(expected, rows[:50], rows[:50], list(range(50)))
