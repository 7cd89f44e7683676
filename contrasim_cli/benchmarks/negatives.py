"""The rows of a retrieval benchmark cut into batches, and wrong batches for each drawn at random."""

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.errors import InputError
from contrasim_cli.store.blocks import RowIndex, spans

CANDIDATES = 10
DRAWN_ANEW = 4  # where there are this many rows per row to draw, what is drawn twice is drawn anew


def batches(n_rows: int, size: int) -> list[RowIndex]:
    """Rows cut into batches in their order; a last partial one counts if it has at least 2 rows."""
    cut = [np.arange(*span) for span in spans(n_rows, size)]
    return [batch for batch in cut if len(batch) > 1]


def random_candidates(n_rows: int, cut: list[RowIndex], seed: int) -> RowIndex:
    """[n_rows, 10]: per batch ten batches of distinct rows outside of it.

    Raises:
        InputError: the rows outside of a batch do not make another batch.
    """
    chosen = np.zeros((n_rows, CANDIDATES), dtype=np.int64)
    rng = seeds.stream(seed, seeds.WRONG_BATCHES)
    size = len(cut[0])
    whole = [batch for batch in cut if len(batch) == size]
    for alike in filter(None, (whole, cut[len(whole) :])):
        size = len(alike[0])
        if n_rows - size < size:
            raise InputError(
                f"random negatives need two batches of rows; there are {n_rows} rows for batches of {size}"
            )
        rows = np.stack(alike)  # [batches, size]
        drawn = _distinct(rng, len(alike) * CANDIDATES, size, n_rows - size).reshape(len(alike), CANDIDATES, size)
        drawn += size * (drawn >= rows[:, :1, None])  # numbers the rows outside of the batch
        chosen[rows] = drawn.transpose(0, 2, 1)
    return chosen


def _distinct(rng: np.random.Generator, count: int, size: int, n: int) -> RowIndex:
    """[count, size] draws of distinct numbers below n, in random order; each ordered choice is equally likely."""
    if n < DRAWN_ANEW * size:
        return rng.random((count, n)).argsort(axis=1)[:, :size]
    drawn = rng.integers(n, size=(count, size))
    left = np.arange(count)
    while len(left):
        # a number that stands before is drawn anew: what remains is what drawing one by one would have kept
        order = drawn[left].argsort(axis=1, kind="stable")
        ordered = np.take_along_axis(drawn[left], order, axis=1)
        again = np.zeros((len(left), size), dtype=bool)
        np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        drawn[left] = np.where(again, rng.integers(n, size=again.shape), drawn[left])
        left = left[again.any(axis=1)]
    return drawn
