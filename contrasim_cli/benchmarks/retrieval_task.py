"""What a retrieval benchmark compares: views, their rows cut into batches, and wrong batches for each drawn at random."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.benchmarks.items import Labels, Siblings
from contrasim_cli.errors import InputError
from contrasim_cli.rows.exact_search import CANDIDATES
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import View
from contrasim_cli.store.blocks import RowIndex, spans
from contrasim_cli.transforms import Standardizer

SMALL = 100  # multiplications in the time of one of small matrices
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


@dataclass(frozen=True)
class RetrievalTask:
    """What is compared: views with their layers in matching order, ordered pairs of views, the kinds of negatives."""

    views: Sequence[View]
    names: Sequence[str]
    layers: Sequence[Sequence[str]]
    pairs: Sequence[tuple[int, int]]
    negatives: Sequence[str]
    batch_size: int
    seed: int = 0
    candidates_from: View | None = None
    index: str = "exact"  # or ivf, which searches approximately
    standardizer: Standardizer | None = None  # by the views' own statistics unless given
    siblings: Siblings | None = None
    pool_labels: Sequence[Labels] = ()  # of the rows of `candidates_from`, in every way in which siblings are labelled

    @property
    def n_rows(self) -> int:
        """Rows of every view."""
        return self.views[0].n_rows

    @property
    def cut(self) -> list[RowIndex]:
        """Rows of every batch; the last ones may have fewer than the others."""
        return self.siblings.cut(self.batch_size)[0] if self.siblings else batches(self.n_rows, self.batch_size)

    @property
    def blocks(self) -> Labels | None:
        """[batches] which are of the same items, where rows belong to items."""
        return self.siblings.cut(self.batch_size)[1] if self.siblings else None

    @property
    def layer_names(self) -> list[str]:
        """Names of the zipped layers: one where the views agree, both where not."""
        together = zip(*self.layers, strict=True)
        return [names[0] if len(set(names)) == 1 else "/".join(dict.fromkeys(names)) for names in together]

    def multiplications(self, scorers: Sequence[Scorer]) -> float:
        """About as many as searching and comparing take; ∞ where they need torch."""
        if self.index != "exact" or any(scorer.checkpoint for scorer in scorers):
            return math.inf
        pool = (self.candidates_from or self.views[0]).n_rows if "faiss" in self.negatives else 0
        total = 0.0
        for view, names in zip(self.views, self.layers, strict=True):
            for width in (view.store.layer(name).width for name in names):
                batches = (1 + CANDIDATES) * self.n_rows * self.batch_size * len(self.negatives) * len(scorers)
                total += float(width) * (self.n_rows * pool + SMALL * batches)
        return total
