"""Nearest rows of a matrix by a product of matrices and a selection, in the rows' own precision and on their device.

‖q - r‖² = ‖q‖² + ‖r‖² - 2 q·r takes no longer than a product of matrices and cancels where rows are close: what is found in
float32 is a proposal. `all_beyond` says how near a row may be that was not proposed, so that whoever takes exact distances of the
proposed rows knows whether they settle the matter.
"""

import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed
from contrasim_cli.arrays import Device, Tensor, as_tensor, on_numpy, xp
from contrasim_cli.store.blocks import spans

TABLE = {"cpu": 1 << 22, "cuda": 1 << 27}  # distances held at once: what a cache holds, and what keeps a device busy
SIDE = {"numpy": 640, "cpu": 2048, "cuda": 1 << 13}  # of a square of distances between rows of one matrix
WIDE = 512  # width from which products take so long that half of them are worth more selections
WORTH_GROUPS = 3  # values per group from which a selection by groups is faster

Squares = TypeVar("Squares", Tensor, npt.NDArray[np.float64])


class Nearest(NamedTuple):
    """Rows that are nearest to each query, nearest first; equally near ones in any order."""

    squared: Tensor  # squared distances [queries, count], as rounded
    positions: Tensor  # [queries, count]

    @classmethod
    def none(cls, queries: Tensor, count: int) -> "Nearest":
        """No rows yet; in their places are some at position -1 that are infinitely far."""
        far = queries.new_full((len(queries), count), xp.inf)
        return cls(far, xp.full_like(far, -1, dtype=xp.int64))

    def merged(self, other: "Nearest", count: int, in_order: bool = True) -> "Nearest":
        """The nearest of both, `count` at most, `in_order` or not."""
        squared = xp.cat([self.squared, other.squared], dim=1)
        squared, kept = squared.topk(min(count, squared.shape[1]), dim=1, largest=False, sorted=in_order)
        return Nearest(squared, xp.cat([self.positions, other.positions], dim=1).gather(1, kept))

    def of_all_ranks(self, count: int) -> "Nearest":
        """The nearest of what every rank found for the same queries; the same on all."""
        if distributed.world() == 1:
            return self
        sides = (distributed.gathered_arrays(part.cpu().numpy()) for part in self)
        found = Nearest(*(as_tensor(np.concatenate(parts, axis=1), self.squared.device) for parts in sides))
        return Nearest.none(found.squared, 0).merged(found, count)


def side_on(device: Device) -> int:
    """The side of a square of distances on a device: torch selects from wide tables in less time, NumPy from those in a cache."""
    return SIDE["numpy" if on_numpy(device) else device.type]


def nearest_rows(queries: Tensor, pool: Tensor, count: int, first: int = 0, most: int | None = None) -> Nearest:
    """The `count` nearest rows of a pool [n, p] to each query [q, p]; positions are counted on from that of its first row.

    No more than `most` distances are held at once, but for those of one query.
    """
    count, factor = min(count, len(pool)), _right(pool, _squared_norms(pool)).mT
    table_size = min(TABLE[queries.device.type], most or TABLE[queries.device.type])
    step = max(1, min(len(queries), table_size // max(1, len(pool))))
    table = queries.new_empty(step, len(pool))
    shape = len(queries), count
    found = Nearest(queries.new_empty(shape), xp.empty(shape, dtype=xp.int64, device=queries.device))
    for start, stop in spans(len(queries), step):
        some = queries[start:stop]
        some = xp.mm(_left(some, _squared_norms(some)), factor, out=table[: stop - start])
        found.squared[start:stop], found.positions[start:stop] = _selected(some, count)
    found.positions.add_(first)
    return found


def nearest_within(rows: Tensor, count: int, shared: bool = False) -> Nearest:
    """The `count` nearest rows of a matrix [n, p] to each of its rows, one of which it is itself.

    Of wide rows only half of the distances are computed. With `shared` ranks that have the same rows share the products.
    """
    if rows.shape[1] < WIDE:
        start, stop = distributed.part(len(rows)) if shared else (0, len(rows))
        found = nearest_rows(rows, rows[start:stop], count, start)
        return found.of_all_ranks(count) if shared else found
    n, norms = len(rows), _squared_norms(rows)
    runs = -(-n // side_on(rows.device))
    cuts = [slice(n * k // runs, n * (k + 1) // runs) for k in range(runs)]
    parts = [Nearest.none(rows[cut], count) for cut in cuts]
    squares = [(i, j) for i in range(len(cuts)) for j in range(i, len(cuts))]
    for i, j in distributed.dealt(squares) if shared else squares:
        top, left = cuts[i], cuts[j]
        table = _left(rows[top], norms[top]) @ _right(rows[left], norms[left]).mT
        parts[i] = parts[i].merged(_of_table(table, count, left.start), count, in_order=False)
        if j > i:
            parts[j] = parts[j].merged(_of_table(table.mT, count, top.start), count, in_order=False)
    found = Nearest(*(xp.cat(side) for side in zip(*parts, strict=True)))
    return (found.of_all_ranks(count) if shared else found).merged(Nearest.none(rows, 0), count)


def _left(rows: Tensor, norms: Tensor) -> Tensor:
    """[-2 q, ‖q‖², 1] of rows [q, p] and their squared norms, whose product with [r, 1, ‖r‖²] is the squared distance."""
    return xp.cat([-2 * rows, norms, xp.ones_like(norms)], dim=1)


def _right(rows: Tensor, norms: Tensor) -> Tensor:
    return xp.cat([rows, xp.ones_like(norms), norms], dim=1)


def _squared_norms(rows: Tensor) -> Tensor:
    """[n, 1], rounded once."""
    norms: Tensor = xp.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=xp.float64)
    return norms.square().to(rows.dtype)


def _of_table(table: Tensor, count: int, first: int) -> Nearest:
    squared, at = _selected(table, min(count, table.shape[1]), in_order=False)
    return Nearest(squared, at + first)


def _selected(table: Tensor, count: int, in_order: bool = True) -> tuple[Tensor, Tensor]:
    """The `count` least values of each row of a table [t, n], and their places, in ascending order or in any.

    The least values of a row are in the `count` groups with the least minima, and these groups are a few of all.
    """
    n = table.shape[1]
    size = math.isqrt(n // max(count, 1))  # so that there are about as many minima as values to select from in the end
    if size < WORTH_GROUPS:
        values, places = table.topk(count, dim=1, largest=False, sorted=in_order)
        return values, places
    groups = n // size
    among = _minima(table, size, groups).topk(count, dim=1, largest=False, sorted=False).indices
    member = xp.arange(size, device=table.device)[:, None] * groups
    rest = xp.arange(groups * size, n, device=table.device).expand(len(table), -1)
    places = xp.cat([(among[:, None, :] + member).flatten(1), rest], dim=1)
    values, which = table.gather(1, places).topk(count, dim=1, largest=False, sorted=in_order)
    return values, places.gather(1, which)


def _minima(table: Tensor, size: int, groups: int) -> Tensor:
    """Least values [t, groups] of groups of `size` columns, which are `groups` apart."""
    if table.is_contiguous():
        return table[:, : groups * size].reshape(-1, size, groups).amin(dim=1)
    return table.mT[: groups * size].reshape(size, groups, -1).amin(dim=0).mT.contiguous()


def all_beyond(last: Squares, norms: Squares, largest: float, width: int, dtype: npt.DTypeLike) -> Squares:
    """The squared distances [queries] beyond which all rows are that were not proposed; the last that were are at `last`.

    Of rows of p entries that are rounded to the unit u of a type, a squared distance that is a sum of p + 2 products errs by at
    most (p + 8) u (‖q‖ + ‖r‖)², in whatever order they are added: p + 2 times u of the terms' absolute values, and a few times u
    for what was rounded before; and by as many times what is lost where products vanish. ‖r‖² is at most `largest`, and where
    ‖r‖ > 3 ‖q‖, (‖q‖ + ‖r‖)² is less than 4 times the squared distance. `norms` are the queries' squared norms.
    """
    unit, least = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).tiny)
    error = (width + 8) * unit / (1 - (width + 8) * unit)
    together: Squares = (norms**0.5 + (3 * norms**0.5).clip(max=largest**0.5)) ** 2
    found: Squares = last - error * (together + 4 * last) - (width + 8) * least
    return found
