"""Reading rows in any order and in blocks equals indexing the whole matrix."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import values, write_by_hand

from contrasim_cli.store import Layer, Store, View, blocks, open_store
from contrasim_cli.store.blocks import all_finite, bad_rows, block_rows, iter_blocks, read_rows

MATRIX = values(37, 4)


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """37 rows in chunks of 5, so that the last chunk is short."""
    path = write_by_hand(tmp_path_factory.mktemp("blocks") / "a.h5", {})
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/x", data=MATRIX, chunks=(5, 4), fletcher32=True)
    return open_store(path)


@settings(deadline=None)
@given(st.lists(st.integers(0, 36), max_size=60), st.sampled_from([1, 80, 160, 400, 1 << 20]))
def test_any_rows_are_those_of_fancy_indexing(rows: list[int], block_bytes: int) -> None:
    layer = Layer("x", MATRIX, chunk_rows=5)
    memory = Store(Path("m"), "memory", {"x": layer})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "block_rows", lambda layer, *_: block_rows(layer, block_bytes))
        index = np.array(rows, dtype=np.int64)
        np.testing.assert_array_equal(read_rows(memory, "x", index), MATRIX[index])


@pytest.mark.parametrize("seed", range(5))
def test_permutations_of_a_file(chunked: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_rows", lambda layer, *_: block_rows(layer, 160))
    order = np.random.default_rng(seed).permutation(37)
    np.testing.assert_array_equal(read_rows(chunked, "x", order), MATRIX[order])
    kept = order[:20]
    np.testing.assert_array_equal(View(chunked, kept).read("x", np.array([3, 0, 19])), MATRIX[kept[[3, 0, 19]]])


def test_every_chunk_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    memory = Store(Path("m"), "memory", {"x": Layer("x", MATRIX, chunk_rows=5)})
    monkeypatch.setattr(blocks, "block_rows", lambda layer, *_: 5)
    monkeypatch.setattr(Store, "read", lambda self, name, a, b: read.append((a, b)) or MATRIX[a:b])
    read_rows(memory, "x", np.array([36, 0, 7, 4, 2, 9, 35]))
    assert read == [(0, 5), (7, 10), (35, 37)]


def test_a_run_of_rows_is_read_in_whole_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    memory = Store(Path("m"), "memory", {"x": Layer("x", MATRIX, chunk_rows=5)})
    monkeypatch.setattr(blocks, "block_rows", lambda layer, *_: 5)
    monkeypatch.setattr(Store, "read", lambda self, name, a, b: read.append((a, b)) or MATRIX[a:b])
    np.testing.assert_array_equal(read_rows(memory, "x", np.arange(3, 16)), MATRIX[3:16])
    assert read == [(3, 5), (5, 10), (10, 15), (15, 16)]


def test_blocks_are_whole_chunks_and_cover_every_row(chunked: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert block_rows(chunked.layer("x"), 16 * 12) == 10
    assert block_rows(chunked.layer("x"), 1) == 5
    monkeypatch.setattr(blocks, "block_rows", lambda layer, *_: 10)
    found = list(iter_blocks(chunked, "x"))
    assert [start for start, _ in found] == [0, 10, 20, 30]
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), MATRIX)


def test_half_precision_is_widened() -> None:
    half = Store(Path("m"), "memory", {"x": Layer("x", MATRIX.astype(np.float16))})
    assert read_rows(half, "x", np.arange(3)).dtype == np.float32
    assert next(iter_blocks(half, "x"))[1].dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 36])
def test_a_bad_value_is_seen_wherever_it_is(value: float, row: int) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        matrix = MATRIX.astype(dtype)
        assert all_finite(matrix)
        matrix[row, 3] = value
        assert not all_finite(matrix)
        assert np.flatnonzero(bad_rows(matrix)).tolist() == [row]


def test_infinities_that_cancel_and_sums_that_overflow() -> None:
    assert not all_finite(np.array([[np.inf, -np.inf]], np.float32))
    assert all_finite(np.full((2, 2), np.finfo(np.float64).max))


def test_a_bad_value_in_the_last_block_is_found(
    chunked: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "block_rows", lambda layer, *_: 10)
    matrix = MATRIX.copy()
    matrix[36, 3] = np.nan
    store = open_store(write_by_hand(tmp_path / "a.h5", {"x": matrix}))
    with pytest.raises(Exception, match="row 36 holds nan in column 3"):
        View(store).read("x")
