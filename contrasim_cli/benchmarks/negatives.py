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
SPARE = 6  # neighbours beyond those needed, so that float32 distances cannot lose one; exact distances then order them

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
        outside = np.delete(np.arange(n_rows), batch)
        for t in range(CANDIDATES):
            chosen[batch, t] = rng.choice(outside, size=len(batch), replace=False)
    return chosen


@dataclass(frozen=True)
class Pool:
    """One layer of the store that nearest neighbours are searched in."""

    view: View
    layer: str

    def blocks(self) -> Iterator[tuple[RowIndex, Floats]]:
        """Positions and raw rows, block by block."""
        step = block_rows(self.view.store.layer(self.layer), 256 << 20)
        for start in range(0, self.view.n_rows, step):
            rows = np.arange(start, min(start + step, self.view.n_rows))
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

    The query itself and rows equal to it are left out by id and by value.

    Raises:
        InputError: fewer than `count` rows are left for some query.
    """
    rows = queries.view.read(queries.layer)
    same = _Same(queries, pool, rows)
    chosen = np.zeros((len(rows), count), dtype=np.int64)
    open_queries = np.arange(len(rows))
    wanted = min(count + SPARE + 1, pool.view.n_rows)
    while len(open_queries):
        near = _search(rows[open_queries], pool, wanted)
        kept = ~same.mask(open_queries, near)
        ready = (kept.sum(axis=1) >= min(count + SPARE, pool.view.n_rows)) | (wanted == pool.view.n_rows)
        _check_left(queries, pool, open_queries[ready], kept[ready].sum(axis=1), count)
        chosen[open_queries[ready]] = _order(rows[open_queries[ready]], pool, near[ready], kept[ready], count)
        open_queries = open_queries[~ready]
        wanted = min(2 * wanted, pool.view.n_rows)
    return chosen


def _search(queries: Floats, pool: Pool, count: int) -> RowIndex:
    """[queries, count] nearest positions by float32 distances of centred rows: large norms would drown the differences."""
    centre = queries.mean(axis=0, dtype=np.float64)
    centred = (queries - centre).astype(np.float32)
    distances = np.full((len(queries), 0), np.inf, dtype=np.float32)
    positions = np.zeros((len(queries), 0), dtype=np.int64)
    for where, block in pool.blocks():
        d, i = faiss.knn(centred, (block - centre).astype(np.float32), min(count, len(block)))
        distances = np.concatenate([distances, d], axis=1)
        positions = np.concatenate([positions, where[i]], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        distances = np.take_along_axis(distances, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
    return positions


class _Same:
    """Tells which pool rows are the query itself: by id, by value, and by position within one store."""

    def __init__(self, queries: Pool, pool: Pool, rows: Floats) -> None:
        self.one_store = queries.view.store is pool.view.store
        self.values = _value_hashes(rows)
        self.pool_values = (
            self.values if self.one_store else np.concatenate([_value_hashes(b) for _, b in pool.blocks()])
        )
        a, b = queries.id_hashes, pool.id_hashes
        self.ids = None if a is None or b is None else (a, b)

    def mask(self, queries: RowIndex, near: RowIndex) -> npt.NDArray[np.bool_]:
        """[queries, near] whether each candidate is to be left out."""
        same: npt.NDArray[np.bool_] = np.equal(self.values[queries][:, None], self.pool_values[near])
        if self.ids is not None:
            same |= self.ids[0][queries][:, None] == self.ids[1][near]
        if self.one_store:
            same |= queries[:, None] == near
        return same


def _value_hashes(rows: Floats) -> npt.NDArray[np.uint64]:
    """[n] equal for equal rows, whatever type they are stored in; -0 equals 0."""
    bits = (np.ascontiguousarray(rows, dtype=np.float64) + 0.0).view(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, size=rows.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    mixed = bits ^ (bits >> np.uint64(29))
    hashes: npt.NDArray[np.uint64] = (mixed * factors).sum(axis=1, dtype=np.uint64)
    return hashes


def _check_left(queries: Pool, pool: Pool, which: RowIndex, left: npt.NDArray[np.int64], count: int) -> None:
    if len(which) and left.min() < count:
        row = int(which[int(left.argmin())])
        raise InputError(
            f"{quoted(pool.view.store.path)}: layer {quoted(pool.layer)}: row {row} of {quoted(queries.view.store.path)} has "
            f"{int(left.min())} neighbours that differ from it, {count} are needed; use more rows"
        )


def _order(queries: Floats, pool: Pool, near: RowIndex, kept: npt.NDArray[np.bool_], count: int) -> RowIndex:
    """The `count` nearest of the kept candidates by exact distances, equally near ones by position."""
    chosen = np.zeros((len(queries), count), dtype=np.int64)
    if not len(queries):
        return chosen
    distinct, places = np.unique(near, return_inverse=True)
    rows = pool.view.read(pool.layer, distinct).astype(np.float64)
    places = places.reshape(near.shape)
    for q, query in enumerate(queries.astype(np.float64)):
        squared = np.square(rows[places[q]] - query).sum(axis=1)
        squared[~kept[q]] = np.inf
        chosen[q] = near[q][np.lexsort((near[q], squared))[:count]]
    return chosen
