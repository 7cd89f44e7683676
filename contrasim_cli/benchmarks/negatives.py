"""The wrong candidates of the retrieval benchmarks: for every row ten others, at random or the nearest neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.files import quoted
from contrasim_cli.store import View
from contrasim_cli.store.blocks import RowIndex, block_rows

CANDIDATES = 10
SPARE = 7  # neighbours asked for beyond those needed: the query itself, duplicates, and what settles the order
BLOCK_BYTES = 64 << 20  # of the pool, searched at once
SEARCHED = 1 << 25  # proposed neighbours held at once
COMPARED = 1 << 25  # values of proposed neighbours held at once
HASHED = 4096  # rows hashed at once

EPSILON32, EPSILON64 = 2.0**-23, 2.0**-52

Floats = npt.NDArray[np.floating[Any]]


def batches(n_rows: int, size: int) -> list[RowIndex]:
    """Rows cut into batches in their order; a last partial one counts if it has at least 2 rows."""
    cut = [np.arange(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
    return [batch for batch in cut if len(batch) > 1]


def random_candidates(n_rows: int, cut: list[RowIndex], seed: int) -> RowIndex:
    """[n_rows, 10]: per batch ten batches of distinct rows outside of it.

    Raises:
        InputError: the rows outside of a batch do not make another batch.
    """
    chosen = np.zeros((n_rows, CANDIDATES), dtype=np.int64)
    rng = np.random.default_rng([seed, 10])
    for batch in cut:
        if n_rows - len(batch) < len(batch):
            raise InputError(
                f"random negatives need two batches of rows; there are {n_rows} rows for batches of {len(batch)}"
            )
        for t in range(CANDIDATES):
            drawn = rng.choice(n_rows - len(batch), size=len(batch), replace=False)
            chosen[batch, t] = drawn + len(batch) * (drawn >= batch[0])  # numbers the rows outside of the batch
    return chosen


@dataclass(frozen=True)
class Pool:
    """One layer of the store that nearest neighbours are searched in."""

    view: View
    layer: str

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return block_rows(self.view.store.layer(self.layer), BLOCK_BYTES)

    def blocks(self) -> Iterator[tuple[RowIndex, Floats]]:
        """Positions and raw rows, block by block."""
        for start in range(0, self.view.n_rows, self.block_rows):
            rows = np.arange(start, min(start + self.block_rows, self.view.n_rows))
            yield rows, self.view.read(self.layer, rows)

    @property
    def id_hashes(self) -> npt.NDArray[np.void] | None:
        """Hashes of the rows' ids."""
        ids = self.view.store.ids
        if ids is None:
            return None
        return ids.hashes if self.view.rows is None else ids.hashes[self.view.rows]


def nearest_candidates(queries: Pool, pool: Pool, count: int = CANDIDATES) -> RowIndex:
    """[queries, count] positions in the pool: the nearest rows in L2, nearest first, equally near by position.

    The query itself and rows equal to it are left out by id and by value. FAISS proposes in float32, exact distances
    decide. Where rounding, or more duplicates than were asked for, may hide a nearer row among those that were not
    proposed, the search is repeated in float64, and then for more.

    Raises:
        InputError: fewer than `count` rows are left for some query.
    """
    rows = queries.view.read(queries.layer)
    same = _Same(queries, pool, rows)
    centre = rows.mean(axis=0, dtype=np.float64)
    chosen = np.zeros((len(rows), count), dtype=np.int64)
    open_queries, n_pool = np.arange(len(rows)), pool.view.n_rows
    wanted, precise = min(count + SPARE, n_pool), False
    while len(open_queries):
        unsettled = []
        for part in _parts(open_queries, max(wanted, pool.block_rows if precise else 1), SEARCHED):
            near, beyond = _search(rows[part], pool, wanted, centre, precise)
            for at in _parts(np.arange(len(part)), wanted * rows.shape[1], COMPARED):
                which, kept = part[at], ~same.mask(part[at], near[at])
                best, farthest = _order(rows[which], pool, near[at], kept, count)
                settled = (farthest < beyond[at]) | (wanted == n_pool)
                _check_left(queries, pool, which[settled], kept[settled].sum(axis=1), count)
                chosen[which[settled]] = best[settled]
                unsettled.append(which[~settled])
        open_queries = np.concatenate(unsettled)
        wanted, precise = (min(2 * wanted, n_pool) if precise else wanted), True
    return chosen


def _parts(which: RowIndex, each: int, limit: int) -> Iterator[RowIndex]:
    """Cut so that a part, whose elements take `each`, stays below the limit."""
    step = max(1, limit // each)
    for start in range(0, len(which), step):
        yield which[start : start + step]


def _search(
    queries: Floats, pool: Pool, count: int, centre: npt.NDArray[np.float64], precise: bool
) -> tuple[RowIndex, npt.NDArray[np.float64]]:
    """[queries, count] nearest positions, and [queries] the squared distance that all other rows are beyond.

    Rows are centred and scaled: large norms would drown the differences, and squares overflow.
    """
    centred = queries - centre
    scale = float(np.abs(centred).max()) or 1.0
    dtype = np.dtype(np.float64 if precise else np.float32)
    scaled = (centred / scale).astype(dtype)
    distances = np.full((len(queries), 0), np.inf, dtype=dtype)
    positions = np.zeros((len(queries), 0), dtype=np.int64)
    for where, block in pool.blocks():
        d, i = _nearest(scaled, ((block - centre) / scale).astype(dtype), min(count, len(block)))
        distances = np.concatenate([distances, d], axis=1)
        positions = np.concatenate([positions, where[i]], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        distances = np.take_along_axis(distances, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
    last = distances[:, -1].astype(np.float64)
    # ‖q‖² + ‖p‖² - 2 q·p errs by a few √width ε (‖q‖ + ‖p‖)²; where ‖p‖ > 3 ‖q‖ that is less than 4 times the distance
    norms = np.square(scaled, dtype=np.float64).sum(axis=1)
    rounding = 4 * (EPSILON64 if precise else EPSILON32) * np.sqrt(queries.shape[1]) * (16 * norms + 4 * last)
    return positions, (last - rounding) * scale**2


def _nearest(queries: Floats, block: Floats, count: int) -> tuple[Floats, RowIndex]:
    """Squared distances and positions [queries, count] of the nearest rows of a block, in the type of both."""
    if queries.dtype == np.float32:
        found: tuple[Floats, RowIndex] = faiss.knn(queries, block, count)
        return found
    squared = np.square(queries).sum(axis=1)[:, None] + np.square(block).sum(axis=1) - 2 * queries @ block.T
    near = np.argpartition(squared, count - 1, axis=1)[:, :count]
    return np.take_along_axis(squared, near, axis=1), near


class _Same:
    """Tells which pool rows are the query itself: by value, which it shares with itself at least, and by id."""

    def __init__(self, queries: Pool, pool: Pool, rows: Floats) -> None:
        one_store = queries.view.store is pool.view.store
        self.values = _value_hashes(rows)
        self.pool_values = self.values if one_store else np.concatenate([_value_hashes(b) for _, b in pool.blocks()])
        a, b = queries.id_hashes, pool.id_hashes
        self.ids = None if a is None or b is None or _unrelated(queries, pool) else (a, b)

    def mask(self, queries: RowIndex, near: RowIndex) -> npt.NDArray[np.bool_]:
        """[queries, near] whether each candidate is to be left out."""
        same: npt.NDArray[np.bool_] = np.equal(self.values[queries][:, None], self.pool_values[near])
        if self.ids is not None:
            same |= self.ids[0][queries][:, None] == self.ids[1][near]
        return same


def _unrelated(queries: Pool, pool: Pool) -> bool:
    """Whether equal ids mean nothing: they are positions in different sources."""
    a, b = queries.view.store.ids, pool.view.store.ids
    return bool(a and b and (a.automatic or b.automatic) and a.source != b.source)


def _value_hashes(rows: Floats) -> npt.NDArray[np.uint64]:
    """[n] equal for equal rows, whatever type they are stored in; -0 equals 0."""
    random = np.random.default_rng(0).integers(1, 2**63, size=rows.shape[1], dtype=np.uint64)
    factors = random * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), HASHED):
        block = np.ascontiguousarray(rows[start : start + HASHED], dtype=np.float64) + 0.0
        bits = block.view(np.uint64)
        hashes[start : start + HASHED] = ((bits ^ (bits >> np.uint64(29))) * factors).sum(axis=1, dtype=np.uint64)
    return hashes


def _check_left(queries: Pool, pool: Pool, which: RowIndex, left: npt.NDArray[np.int64], count: int) -> None:
    if len(which) and left.min() < count:
        row = int(which[int(left.argmin())])
        raise InputError(
            f"{quoted(pool.view.store.path)}: layer {quoted(pool.layer)}: row {row} of {quoted(queries.view.store.path)} has "
            f"{int(left.min())} neighbours that differ from it, {count} are needed; use more rows"
        )


def _order(
    queries: Floats, pool: Pool, near: RowIndex, kept: npt.NDArray[np.bool_], count: int
) -> tuple[RowIndex, npt.NDArray[np.float64]]:
    """The `count` nearest of the kept candidates, equally near ones by position, and the last one's distance (squared)."""
    distinct, places = np.unique(near, return_inverse=True)
    rows = pool.view.read(pool.layer, distinct).astype(np.float64)
    squared = np.square(rows[places.reshape(near.shape)] - queries[:, None]).sum(axis=2)
    squared[~kept] = np.inf
    order = np.lexsort((near, squared), axis=1)[:, :count]
    farthest = np.take_along_axis(squared, order, axis=1)[:, -1]
    return np.take_along_axis(near, order, axis=1), farthest
