"""An inverted file, which searches a large pool approximately, and how often it finds what the exact search finds.

The index proposes, exact distances decide, and the query itself and rows equal to it are left out as in the exact search.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from contrasim_cli import seeds
from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.rows.exact_search import (
    CANDIDATES,
    Floats,
    Pool,
    SameRow,
    Shares,
    Tell,
    centred,
    check_left,
    nearest_of,
    order,
    parts,
    scale_of,
)
from contrasim_cli.store.blocks import RowIndex

log = logging.getLogger(__name__)

SAMPLED = 200  # queries whose exact neighbours are looked up
TRAINED_PER_LIST = 64  # rows that a list's centre is learned from
PROBED = 32  # lists that a query looks into


@dataclass(frozen=True)
class Found:
    """Neighbours [queries, 10], and the part of the exact ones among them, on a sample of queries."""

    neighbours: RowIndex
    recall: float


def lists_of(n_rows: int) -> int:
    """Lists of an inverted file: 4 √n, while there are rows enough to learn them from."""
    return max(1, min(int(4 * math.sqrt(n_rows)), n_rows // TRAINED_PER_LIST))


def index_bytes(n_rows: int, width: int) -> int:
    """What the index and its making take."""
    lists = lists_of(n_rows)
    return n_rows * (4 * width + 8) + 4 * width * (lists * TRAINED_PER_LIST + 2 * lists)


def check_memory(pool: Pool, budget: int) -> None:
    """Refuse an index that does not fit the budget.

    Raises:
        InputError: it does not.
    """
    need = index_bytes(pool.n_rows, pool.width)
    if need > budget:
        raise InputError(
            f"{quoted(pool.view.store.path)}: layer {quoted(pool.layer)}: --index ivf takes {need / 2**30:.2f} GiB for "
            f"{pool.n_rows} rows of width {pool.width}, {budget / 2**30:.2f} GiB of --memory are left for it; raise "
            f"--memory, or give --index exact"
        )


def approximate_candidates(
    queries: Pool,
    pool: Pool,
    *,
    budget: int,
    tell: Tell,
    count: int = CANDIDATES,
    siblings: Sequence[tuple[RowIndex, RowIndex]] = (),
) -> Found:
    """Neighbours as `nearest_candidates` gives them, of those that an index proposes.

    Raises:
        InputError: the index does not fit the budget, or fewer than `count` rows are left for some query.
    """
    check_memory(pool, budget)
    shares = Shares(budget)
    made = _Inverted.of(pool, shares, tell)
    same = SameRow(queries, pool, siblings)
    chosen = np.zeros((queries.n_rows, count), dtype=np.int64)
    wanted = count + same.spare
    for which in parts(np.arange(queries.n_rows), 4 * queries.width + 16 * wanted, shares.queries):
        chosen[which] = _proposed(made, queries, which, pool, min(wanted, pool.n_rows), count, same, shares, tell)
    sample = np.unique(np.linspace(0, queries.n_rows - 1, min(SAMPLED, queries.n_rows)).astype(np.int64))
    exact = nearest_of(queries, sample, pool, count, same, shares, tell)
    recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, chosen[sample], strict=True)]))
    log.info(
        "%s: layer %s: --index ivf finds %.1f %% of the %d exact neighbours of %d sampled rows",
        quoted(pool.view.store.path), quoted(pool.layer), 100 * recall, count, len(sample),
    )  # fmt: skip
    return Found(chosen, recall)


@dataclass(frozen=True)
class _Inverted:
    """An index of a pool, and how rows were centred for it."""

    index: Any
    centre: Floats
    scale: float

    @classmethod
    def of(cls, pool: Pool, shares: Shares, tell: Tell) -> "_Inverted":
        """Train and fill an index."""
        lists = lists_of(pool.n_rows)
        places = np.random.default_rng(seeds.SEARCHED_ROWS).permutation(pool.n_rows)[: lists * TRAINED_PER_LIST]
        sample = pool.read(np.sort(places))
        centre = sample.mean(axis=0, dtype=np.float64).astype(sample.dtype)
        scale = scale_of(sample, centre)
        index = _empty(pool.width, lists)
        tell(f"training an index of {quoted(pool.layer)}")
        if not index.is_trained:
            index.train(centred(sample, centre, scale, np.dtype(np.float32)))
        del sample
        for start, block in pool.blocks(shares.block):
            index.add(centred(block, centre, scale, np.dtype(np.float32)))
            tell(f"indexing {quoted(pool.layer)}: {100 * (start + len(block)) // pool.n_rows} %")
        return cls(index, centre, scale)

    def search(self, rows: Floats, count: int) -> RowIndex:
        """[queries, count] proposed positions; -1 where there are no more."""
        near: RowIndex = self.index.search(centred(rows, self.centre, self.scale, np.dtype(np.float32)), count)[1]
        return near


def _empty(width: int, lists: int) -> Any:
    quantizer = faiss.IndexFlatL2(width)
    index = faiss.IndexIVFFlat(quantizer, width, lists)
    index.cp.min_points_per_centroid = 1
    index.nprobe = PROBED
    return index


def _proposed(
    made: _Inverted,
    queries: Pool,
    which: RowIndex,
    pool: Pool,
    wanted: int,
    count: int,
    same: SameRow,
    shares: Shares,
    tell: Tell,
) -> RowIndex:
    """The nearest of what the index proposes; queries to which it proposes too little are searched exactly."""
    rows = queries.read(which)
    best, _, left = order(queries, which, rows, pool, made.search(rows, wanted), count, same, shares)
    few = left < count
    if few.any():
        best[few] = nearest_of(queries, which[few], pool, count, same, shares, tell)
    check_left(queries, pool, which[~few], left[~few], count)
    return best
