"""--max-rows takes the same blocks of every store, in their order, and reads no more."""

from pathlib import Path

import numpy as np
import pytest
from helpers import run
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import names, values, write

from contrasim_cli.store import Store, align, open_store
from contrasim_cli.store.sample import BLOCKS, chosen_blocks, sampled


@settings(max_examples=100, deadline=None, derandomize=True)
@given(count=st.integers(5, 3000), share=st.floats(0, 1), chunk=st.integers(1, 200), seed=st.integers(0, 5))
def test_as_many_rows_as_asked_for_are_chosen_in_order(count: int, share: float, chunk: int, seed: int) -> None:
    most = 4 + int(share * (count - 5))
    rows = chosen_blocks(count, most, chunk, seed)
    assert len(rows) == len(set(rows.tolist())) == most
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows[0] <= rows[-1] < count
    size = max(1, min(chunk, most // BLOCKS))
    assert len(set((rows // size).tolist())) <= -(-most // size) + 1


def test_every_row_is_chosen_as_often() -> None:
    """Those at the end of a file too, where the last block is short."""
    times = np.zeros(130)
    for seed in range(400):
        times[chosen_blocks(130, 64, 1, seed)] += 1
    assert abs(times / 400 - 64 / 130).max() < 0.11  # four standard deviations
    parts = np.zeros(1030)
    for seed in range(400):
        parts[chosen_blocks(1030, 512, 64, seed)] += 1
    assert abs(parts.reshape(-1, 10).mean(1) / 400 - 512 / 1030).max() < 0.11


def test_no_more_of_a_file_is_read_than_the_chunks_of_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows, width = 40_000, 4
    whole = values(n_rows, width)
    store = open_store(write(tmp_path / "a.h5", {"a": whole}))
    monkeypatch.setattr("contrasim_cli.store.blocks.GAP_BYTES", 0)
    layer = store.layer("a")
    object.__setattr__(layer, "chunk_rows", 50)
    view = sampled(align([store]), 4000, 0)[0]
    read: list[tuple[int, int]] = []
    plain = Store.read

    def watched(self: Store, name: str, start: int, stop: int) -> np.ndarray:
        read.append((start, stop))
        return plain(self, name, start, stop)

    monkeypatch.setattr(Store, "read", watched)
    rows = view.read("a")
    assert view.rows is not None
    np.testing.assert_array_equal(rows, whole[view.rows])
    assert sum(stop - start for start, stop in read) == 4000


def test_the_same_rows_of_every_store_in_the_order_of_the_first(tmp_path: Path) -> None:
    ids, order = names(500), np.random.default_rng(0).permutation(500)
    matrix = values(500, 3)
    a = open_store(write(tmp_path / "a.h5", {"a": matrix}, ids))
    b = open_store(write(tmp_path / "b.h5", {"a": matrix[order]}, [ids[k] for k in order]))
    first, second = sampled(align([a, b], "ids"), 100, 1)
    np.testing.assert_array_equal(first.read("a"), second.read("a"))


@pytest.mark.parametrize("measure", ["cka", "rsa"])
def test_every_measure_takes_the_sample(tmp_path: Path, measure: str) -> None:
    a, b = values(300, 6), values(300, 6, 1)
    paths = [write(tmp_path / f"{name}.h5", {"l": x}) for name, x in (("a", a), ("b", b))]
    rows = chosen_blocks(300, 128, 300, 3)
    some = [write(tmp_path / f"some_{name}.h5", {"l": x[rows]}) for name, x in (("a", a), ("b", b))]
    done = run("baseline", *paths, "--measure", measure, "--max-rows", 128, "--seed", 3, "--format", "tsv")
    assert "--max-rows: 128 of 300 rows, in blocks chosen at random (--seed 3)" in done.stderr
    alone = run("baseline", *some, "--measure", measure, "--format", "tsv")
    score = [float(one.stdout.splitlines()[1].split("\t")[5]) for one in (done, alone)]
    assert score[0] == pytest.approx(score[1], rel=1e-6)
