"""The nearest rows of a layer, exactly: products in float32 propose, block by block of the pool, and exact distances decide.

Of several ranks that search together each reads and multiplies its blocks of the pool, and takes exact distances for its queries.
What is found does not depend on who proposed it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed
from contrasim_cli.arrays import NUMPY, Device, Tensor, as_tensor, xp
from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.nearest import Nearest, all_beyond, nearest_rows, nearest_within, side_on
from contrasim_cli.rows.rows import read_ahead
from contrasim_cli.rows.same_ids import SameIds
from contrasim_cli.store import View
from contrasim_cli.store.blocks import RowIndex, row_blocks, spans

CANDIDATES = 10
MOST_SPARE = 64  # of these, for siblings
SPARE = 7  # neighbours asked for beyond those needed: the query itself, duplicates, and what settles the order
BUDGET = 2 << 30
BLOCK_BYTES = 64 << 20  # of the pool, searched at once
COMPARED = 1 << 18  # values of proposed neighbours whose distances are taken at once: what a cache holds
SANE = 1e9  # largest value whose squares need no scaling; as far from the smallest one

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Tell = Callable[[str], None]


def _tell_nobody(note: str) -> None:
    pass


@dataclass(frozen=True)
class Pool:
    """One layer of the store that nearest neighbours are searched in; `held`: its raw rows, where they are in memory."""

    view: View
    layer: str
    held: Floats | None = None

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.view.n_rows

    @property
    def width(self) -> int:
        """How wide they are."""
        return self.view.store.layer(self.layer).width

    def read(self, rows: RowIndex) -> Floats:
        """Raw rows at some positions."""
        return self.view.read(self.layer, rows) if self.held is None else self.held[rows]

    def blocks(self, block_bytes: int, shared: bool = False) -> Iterator[tuple[int, Floats]]:
        """Position of the first and raw rows of every block, the next of which is read while one is in use.

        With `shared` they are this rank's.
        """
        every = list(row_blocks(self.view.store.layer(self.layer), self.n_rows, block_bytes))
        cuts = [np.arange(*block) for block in (distributed.share(every) if shared else every)]
        start = int(cuts[0][0]) if cuts else 0
        for block in read_ahead(self.read, cuts):
            yield start, block
            start += len(block)
            del block  # before the next but one is read


@dataclass(frozen=True)
class Shares:
    """Bytes of a budget that parts of a search may take, and where it multiplies.

    `shared`: whether ranks that search the same share the work.
    """

    budget: int
    device: Device = NUMPY
    shared: bool = False

    @property
    def block(self) -> int:
        """A block of the pool; another is read meanwhile, and each is centred in a copy, of which a product takes another."""
        return min(BLOCK_BYTES, self.budget // 16)

    @property
    def queries(self) -> int:
        """Queries in float32, which a pass over the pool serves."""
        return self.budget // 6

    @property
    def table(self) -> int:
        """A table of distances in float64, beside which there are three more like it."""
        return min(BLOCK_BYTES, self.budget // 24)

    @property
    def proposed(self) -> int:
        """Rows of proposed neighbours, read at once."""
        return self.budget // 6


def nearest_candidates(
    queries: Pool,
    pool: Pool,
    count: int = CANDIDATES,
    *,
    budget: int = BUDGET,
    tell: Tell = _tell_nobody,
    siblings: Sequence[tuple[RowIndex, RowIndex]] = (),
    device: Device = NUMPY,
    shared: bool = False,
) -> RowIndex:
    """[queries, count] positions in the pool: the nearest rows in L2, nearest first, equally near by position.

    The query itself and rows equal to it are left out by id and by value, and so are its siblings: rows that have its label in
    one of several ways to label queries and pool. Products in float32, on `device`, propose; exact distances
    decide. Where rounding, or more duplicates than were asked for, may hide a nearer row among those that were not
    proposed, the search is repeated in float64, and then for more. `tell` hears how far it is. With `shared` all ranks search
    together, and all find the same.

    Raises:
        InputError: fewer than `count` rows are left for some query.
    """
    shares = Shares(budget, device, shared)
    chosen = np.zeros((queries.n_rows, count), dtype=np.int64)
    same = SameRow(queries, pool, siblings)
    for which in parts(np.arange(queries.n_rows), 4 * queries.width + 16 * (count + same.spare), shares.queries):
        chosen[which] = nearest_of(queries, which, pool, count, same, shares, tell)
    return chosen


def nearest_of(
    queries: Pool, which: RowIndex, pool: Pool, count: int, same: "SameRow", shares: Shares, tell: Tell
) -> RowIndex:
    """`nearest_candidates` of some queries."""
    rows = queries.read(which)
    if same.one_layer and len(which) == pool.n_rows:  # all of them, in order
        pool = replace(pool, held=rows)
    centre = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    chosen = np.zeros((len(which), count), dtype=np.int64)
    left, wanted, precise = np.arange(len(which)), min(count + same.spare, pool.n_rows), False
    while len(left):
        unsettled = []
        each = 8 * max(wanted, pool.width) if precise else 1
        for part in parts(left, each, shares.table):
            near, beyond = _search(rows[part], pool, wanted, centre, precise, shares, tell)
            best, farthest, there = _ordered(queries, which[part], rows[part], pool, near, count, same, shares)
            settled = (farthest < beyond) | (wanted == pool.n_rows)
            check_left(queries, pool, which[part][settled], there[settled], count)
            chosen[part[settled]] = best[settled]
            unsettled.append(part[~settled])
        left = np.concatenate(unsettled)
        wanted, precise = (min(2 * wanted, pool.n_rows) if precise else wanted), True
    return chosen


def _ordered(
    queries: Pool,
    which: RowIndex,
    rows: Floats,
    pool: Pool,
    near: RowIndex,
    count: int,
    same: "SameRow",
    shares: Shares,
) -> tuple[RowIndex, Doubles, npt.NDArray[np.int64]]:
    """`order`, of which each rank does its share of the queries where they search together."""
    if not shares.shared:
        return order(queries, which, rows, pool, near, count, same, shares)
    own = slice(*distributed.part(len(which)))
    found = order(queries, which[own], rows[own], pool, near[own], count, same, shares)
    best, farthest, there = (distributed.joined_rows(values) for values in found)
    return best, farthest, there


def parts(which: RowIndex, each: int, limit: int) -> Iterator[RowIndex]:
    """Cut so that a part, whose elements take `each`, stays below the limit."""
    return (which[slice(*span)] for span in spans(len(which), max(1, limit // each)))


def _search(
    rows: Floats, pool: Pool, count: int, centre: Floats, precise: bool, shares: Shares, tell: Tell
) -> tuple[RowIndex, Doubles]:
    """[queries, count] nearest positions, and [queries] the squared distance that all other rows are beyond.

    Rows are centred: large norms would drown the differences.
    """
    dtype: np.dtype[Any] = np.dtype(np.float64 if precise else np.float32)
    scale = scale_of(rows, centre)
    scaled = as_tensor(centred(rows, centre, scale, dtype), shares.device)
    most = max(1, shares.table // dtype.itemsize)
    if pool.held is not None and len(rows) == pool.n_rows and side_on(shares.device) ** 2 <= most:
        found, largest = nearest_within(scaled, count, shares.shared), _largest(scaled)
    else:
        found, largest = Nearest.none(scaled, 0), 0.0
        for start, block in pool.blocks(shares.block, shares.shared):
            there = as_tensor(centred(block, centre, scale, dtype), shares.device)
            found = found.merged(nearest_rows(scaled, there, count, start, most), count)
            largest = max(largest, _largest(there))
            tell(f"searching {quoted(pool.layer)}: {100 * (start + len(block)) // pool.n_rows} %")
        if shares.shared:
            found, largest = found.of_all_ranks(count), max(distributed.gathered(largest))
    norms = scaled.double().square().sum(dim=1)
    beyond = all_beyond(found.squared[:, -1].double(), norms, largest, rows.shape[1], dtype)
    return found.positions.cpu().numpy(), scale**2 * beyond.cpu().numpy()


def _largest(rows: Tensor) -> float:
    """The largest squared norm of rows, if anything rounded up."""
    norms = xp.linalg.vector_norm(rows, dim=1, dtype=xp.float64)
    return float(norms.amax()) ** 2 * (1 + 1e-6)


def scale_of(rows: Floats, centre: Floats) -> float:
    """A power of two by which squares of centred rows neither overflow nor vanish; 1 where they do not anyway."""
    largest = float(max(rows.max(), -rows.min())) + float(np.abs(centre).max())
    return 1.0 if largest == 0 or 1 / SANE < largest < SANE else float(2.0 ** np.floor(np.log2(largest)))


def centred(rows: Floats, centre: Floats, scale: float, dtype: np.dtype[Any]) -> Floats:
    """Rows less the centre, over the scale; the difference, which is all that distances hang on, is rounded once."""
    if scale == 1.0:
        return np.subtract(rows, centre, dtype=np.result_type(rows, centre, dtype)).astype(dtype, copy=False)
    return (np.subtract(rows, centre, dtype=np.float64) / scale).astype(dtype, copy=False)


class SameRow:
    """Tells which pool rows are the query itself by id, or its siblings."""

    def __init__(self, queries: Pool, pool: Pool, siblings: Sequence[tuple[RowIndex, RowIndex]] = ()) -> None:
        self.siblings = siblings
        most = [int(np.bincount(of_pool[of_pool >= 0]).max(initial=0)) for _, of_pool in siblings]
        self.spare = SPARE + min(MOST_SPARE, sum(most))  # neighbours asked for beyond those needed
        self.one_layer = queries.view is pool.view and queries.layer == pool.layer
        apart = self.one_layer or unrelated(queries.view, pool.view)
        self.ids = None if apart else SameIds.between(queries.view, pool.view)

    def mask(self, queries: RowIndex, near: RowIndex) -> npt.NDArray[np.bool_]:
        """[queries, near] whether each candidate is the query or a sibling; positions below 0 are nobody."""
        found = self._itself(queries, near)
        for of_queries, of_pool in self.siblings:
            found = found | (of_queries[queries][:, None] == of_pool[near])
        return found

    def _itself(self, queries: RowIndex, near: RowIndex) -> npt.NDArray[np.bool_]:
        if self.one_layer:
            return np.asarray(queries[:, None] == near)
        if self.ids is None:
            return np.zeros(near.shape, dtype=bool)
        return np.asarray(self.ids.labels[queries][:, None] == self.ids.of(near))


def unrelated(queries: View, pool: View) -> bool:
    """Whether equal ids mean nothing: they are positions in different sources."""
    a, b = queries.store.ids, pool.store.ids
    return bool(a and b and (a.automatic or b.automatic) and a.source != b.source)


def check_left(queries: Pool, pool: Pool, which: RowIndex, left: npt.NDArray[np.int64], count: int) -> None:
    """Refuse queries that have fewer than `count` neighbours left."""
    if len(which) and left.min() < count:
        row = int(which[int(left.argmin())])
        raise InputError(
            f"{quoted(pool.view.store.path)}: layer {quoted(pool.layer)}: row {row} of {quoted(queries.view.store.path)} has "
            f"{int(left.min())} neighbours that differ from it, {count} are needed; use more rows"
        )


def order(
    queries: Pool, which: RowIndex, rows: Floats, pool: Pool, near: RowIndex, count: int, same: SameRow, shares: Shares
) -> tuple[RowIndex, Doubles, npt.NDArray[np.int64]]:
    """Proposed neighbours [queries, near] by their exact distances.

    The `count` nearest that are not the query or equal to it, equally near ones by position; the squared distance of
    the last of them, ∞ where there are not as many; and how many there are.
    """
    squared, left_out = np.empty(near.shape), same.mask(which, near) | (near < 0)
    each = 12 * near.shape[1] * rows.shape[1]  # as they are read, and widened
    once = 12 * pool.n_rows * pool.width <= shares.proposed
    for part in parts(np.arange(len(which)), 1 if once else each, max(1, len(which)) if once else shares.proposed):
        squared[part], equal = _distances(rows[part], pool, near[part])
        left_out[part] |= equal
    squared[left_out] = np.inf
    nearest = np.lexsort((near, squared), axis=1)[:, :count]
    farthest = np.take_along_axis(squared, nearest, axis=1)[:, -1]
    return np.take_along_axis(near, nearest, axis=1), farthest, (~left_out).sum(axis=1)


def _distances(rows: Floats, pool: Pool, near: RowIndex) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """[queries, near] squared distances in float64, and which rows equal the query; -0 equals 0."""
    distinct, places = np.unique(near, return_inverse=True)
    places = places.reshape(near.shape)
    there = pool.read(np.maximum(distinct, 0))
    wide, wide_rows = there.astype(np.float64), rows.astype(np.float64)
    squared = np.empty(near.shape)
    step = max(1, COMPARED // (near.shape[1] * rows.shape[1]))
    gathered = np.empty((min(step, len(rows)), *near.shape[1:], rows.shape[1]))
    for start, stop in spans(len(rows), step):
        difference = gathered[: stop - start]
        np.take(wide, places[start:stop], axis=0, out=difference, mode="clip")  # what checks each place copies first
        difference -= wide_rows[start:stop, None]
        squared[start:stop] = np.einsum("qnp,qnp->qn", difference, difference)
    equal = squared == 0
    query, candidate = np.nonzero(equal)
    for part in parts(np.arange(len(query)), rows.shape[1], COMPARED):  # squares of denormals vanish
        same = (rows[query[part]] == there[places[query[part], candidate[part]]]).all(axis=1)
        equal[query[part], candidate[part]] = same
    return squared, equal
