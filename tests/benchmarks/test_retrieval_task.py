"""Batches, and wrong batches drawn at random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrasim_cli.benchmarks.retrieval_task import batches, random_candidates
from contrasim_cli.errors import InputError


@pytest.mark.parametrize(("rows", "size", "sizes"), [
    (24, 8, [8, 8, 8]), (26, 8, [8, 8, 8, 2]), (25, 8, [8, 8, 8]), (5, 8, [5]), (1, 8, []), (5000, 64, [64] * 78 + [8])
])  # fmt: skip
def test_a_last_partial_batch_counts_from_two_rows_on(rows: int, size: int, sizes: list[int]) -> None:
    cut = batches(rows, size)
    assert [len(batch) for batch in cut] == sizes
    assert np.concatenate([*cut, np.array([], int)]).tolist() == list(range(sum(sizes)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(n_rows=st.integers(8, 200), size=st.integers(2, 20), seed=st.integers(0, 5))
def test_random_candidates_are_distinct_rows_outside_the_batch(n_rows: int, size: int, seed: int) -> None:
    cut = batches(n_rows, size)
    if n_rows < 2 * len(cut[0]):
        with pytest.raises(InputError, match=f"there are {n_rows} rows for batches of {len(cut[0])}"):
            random_candidates(n_rows, cut, seed)
        return
    chosen = random_candidates(n_rows, cut, seed)
    assert chosen.shape == (n_rows, 10)
    np.testing.assert_array_equal(chosen, random_candidates(n_rows, cut, seed))
    for batch in cut:
        for candidate in chosen[batch].T:
            assert len(set(candidate)) == len(batch)
            assert not set(candidate) & set(batch)
            assert set(candidate) <= set(range(n_rows))


def test_every_row_outside_is_drawn_sooner_or_later() -> None:
    """All of them, and about equally often."""
    cut = batches(18, 2)
    drawn = np.concatenate([random_candidates(18, cut, seed)[4:6].ravel() for seed in range(300)])
    counts = np.bincount(drawn, minlength=18)
    assert counts[[4, 5]].tolist() == [0, 0]
    outside = np.delete(counts, [4, 5])
    assert outside.min() > 0.8 * 6000 / 16
    assert outside.max() < 1.2 * 6000 / 16


def test_batches_do_not_share_their_random_candidates() -> None:
    chosen = random_candidates(80, batches(80, 8), 0)
    assert len({tuple(chosen[start : start + 8].ravel()) for start in range(0, 80, 8)}) == 10
    assert not np.array_equal(chosen, random_candidates(80, batches(80, 8), 1))
