"""Squared distances between rows, whole or in tiles, and what is made of n × n matrices. All in float64."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, as_tensor, pad, xp
from contrasim_cli.measures.protocol import Blocks, centred, centred_in_place
from contrasim_cli.measures.tiles import RowMap, Tiles, between

TILE = 1 << 24  # values of a tile held at once
ONE_DIRECTION = 1e-14  # unit rows that differ by less differ by rounding
TIE = 1e-13  # values closer than this part of the largest differ by rounding
BINS = 1 << 18  # ranks of more values are those of bins of about equally many
# values that pass through several operations at once: what a cache holds, and what keeps a device busy
PASSED = {"cpu": 1 << 17, "cuda": 1 << 28}
COLLECTED = 1 << 24  # values held at once around a median


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Centred rows [..., n, p] over their largest entry, and that entry [..., 1, 1] (1 where all rows are equal).

    Squares of them neither overflow nor vanish.
    """
    rows = centred(x)
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    largest = largest.where(largest != 0, 1.0)
    return rows / largest, largest


def directions(x: Tensor) -> Tensor:
    """The rows of X [..., n, p] at unit length, in float64; NaN for a zero row, which has no direction."""
    each, most = math.prod(x.shape[:-2]) * x.shape[-1], PASSED[x.device.type]
    if each * x.shape[-2] <= most:
        return _directions(x)
    found = xp.empty(x.shape, dtype=xp.float64, device=x.device)
    for at in tiles(x.shape[-2], each, most):
        found[..., at, :] = _directions(x[..., at, :])
    return found


def _directions(x: Tensor) -> Tensor:
    rows = x.double()
    largest = xp.maximum(rows.amax(dim=-1, keepdim=True), -rows.amin(dim=-1, keepdim=True))
    rows = rows / largest.where(largest > 0, xp.nan)
    return unit(rows, dim=-1)


def centred_directions(x: Tensor) -> Tensor:
    """Unit rows [..., n, p] minus their mean; exactly zero where all have one direction, NaN where a row is zero."""
    return centred_units(directions(x))


def centred_units(units: Tensor, in_place: bool = False) -> Tensor:
    """Centre rows of unit length, `in_place` of them; NaN where all of them point the same way."""
    rows = centred_in_place(units) if in_place else centred(units)
    largest = xp.maximum(rows.amax(dim=(-2, -1), keepdim=True), -rows.amin(dim=(-2, -1), keepdim=True))
    defined = (largest > ONE_DIRECTION).where(largest.isfinite(), xp.nan)
    return rows if (defined == 1).all() else rows * defined


def scaled_map(blocks: Blocks) -> RowMap:
    """`scaled` of rows in blocks."""
    centre = _centring(blocks, _double)
    largest = largest_of(centre(rows).abs().amax() for rows in blocks)
    largest = largest.where(largest != 0, 1.0)
    return RowMap(lambda rows: centre(rows) / largest, largest)


def directions_map(blocks: Blocks, before: Callable[[Tensor], Tensor] | None = None) -> RowMap:
    """`centred_directions` of rows in blocks, or of what `before` makes of them."""
    centre = _centring(blocks, lambda rows: directions(before(rows) if before else rows))
    largest = largest_of(centre(rows).abs().amax() for rows in blocks)
    factor = (largest > ONE_DIRECTION).where(largest.isfinite(), xp.nan)
    return RowMap(lambda rows: centre(rows) * factor, xp.ones_like(largest))


def sum_of(values: Iterator[Tensor]) -> Tensor:
    """The sum of one tensor per block, in place: small ones kept from block to block would scatter over the heap."""
    total = next(values).clone()
    for value in values:
        total += value
    return total


def largest_of(values: Iterator[Tensor]) -> Tensor:
    """The largest of one number [] per block, in the same way; NaN where one is."""
    found = next(values).clone()
    for value in values:
        xp.maximum(found, value, out=found)
    return found


def _centring(blocks: Blocks, mapped: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The map of rows to mapped rows less the mean of all of them, in float64; equal rows become exactly zero."""
    first = mapped(blocks.rows(0, 1))
    mean = sum_of((mapped(rows) - first).sum(dim=0) for rows in blocks) / blocks.n_rows
    return lambda rows: mapped(rows) - first - mean


def _double(rows: Tensor) -> Tensor:
    return rows.double()


def tiles(n: int, each: int, most: int | None = None) -> Iterator[slice]:
    """Slices of n rows, of which each takes `each` values, that hold about `most` values, or TILE."""
    step = max(1, (most or TILE) // max(each, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def squared_distances(rows: Tensor, at: slice) -> Tensor:
    """‖x_r - x_s‖² [..., t, n] of the rows `at` to all rows [..., n, p]."""
    return between(rows[..., at, :], rows)


def all_squared_distances(rows: Tensor) -> Tensor:
    """‖x_r - x_s‖² [..., n, n]."""
    n = rows.shape[-2]
    return xp.cat([squared_distances(rows, at) for at in tiles(n, _each(rows))], dim=-2)


def upper_squared_distances(rows: Tensor) -> Tensor:
    """‖x_r - x_s‖² of the n(n - 1)/2 pairs r < s [..., pairs], row by row."""
    n = rows.shape[-2]
    position = xp.arange(n, device=rows.device)
    found = [
        squared_distances(rows, at)[..., position > position[at, None]]  # [..., pairs of the tile]
        for at in tiles(n, _each(rows))
    ]
    return xp.cat(found, dim=-1)


def above_diagonal(matrix: Tensor) -> Tensor:
    """The values [..., pairs] of the pairs r < s of a matrix [..., n, n], row by row."""
    position = xp.arange(matrix.shape[-1], device=matrix.device)
    return matrix[..., position > position[:, None]]


def _each(rows: Tensor) -> int:
    return math.prod(rows.shape[:-1])


def double_centred(matrix: Tensor) -> Tensor:
    """H M H of a symmetric M [..., n, n], with the centring matrix H = I - 11ᵀ/n."""
    mean = matrix.mean(dim=-1, keepdim=True)
    return matrix - mean - mean.mT + mean.mean(dim=-2, keepdim=True)


def unit(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The values over their Euclidean norm along `dim`; NaN where all are zero."""
    norm: Tensor = xp.linalg.vector_norm(values, dim=dim, keepdim=True)
    return values / norm.where(norm > 0, xp.nan)


def median(values: Tensor) -> Tensor:
    """Median [..., 1] along the last dimension, the mean of the middle two of an even number; NaN of none."""
    count = values.shape[-1]
    if count == 0:
        return values.new_full((*values.shape[:-1], 1), xp.nan)
    middle = [values.kthvalue(place, dim=-1, keepdim=True).values for place in ((count + 1) // 2, count // 2 + 1)]
    return (middle[0] + middle[1]) / 2


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 0 along the last dimension; ties, which are values closer than rounding, share their mean rank.

    NaN where a value is.
    """
    if values.shape[-1] < 2:
        return 0 * values
    ordered, order = in_order(values)
    ranks = xp.empty_like(values).scatter_(-1, order, _ranks_in_order(ordered))
    return ranks.where(~values.isnan(), xp.nan)


def in_order(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values [..., m] in ascending order, NaNs last, and where they were; equal ones in any order."""
    if values.device.type != "cpu":
        ordered, order = values.sort(dim=-1)
        return ordered, order
    # two sorts that may mix up equal values are faster than one that keeps their order
    sides = np.sort(values.numpy(), axis=-1), np.argsort(values.numpy(), axis=-1)
    ordered, order = (as_tensor(side, values.device) for side in sides)
    return ordered, order


def _ranks_in_order(ordered: Tensor) -> Tensor:
    """`average_ranks` of ascending values [..., m], the NaNs last."""
    place = xp.arange(ordered.shape[-1], device=ordered.device, dtype=ordered.dtype)
    ranks = place.expand_as(ordered).flatten()
    largest = xp.maximum(ordered[..., :1].abs(), ordered[..., -1:].abs())
    with_next = ~(ordered.diff(dim=-1) > TIE * largest)
    # few, mostly: those that tie with their next ones
    tied = pad(with_next, (0, 1)).flatten().nonzero().squeeze(-1)
    if len(tied):
        begin = pad(tied.diff() != 1, (1, 0), value=True)  # of runs of ties
        mean = (ranks[tied[begin]] + ranks[tied[begin.roll(-1)] + 1]) / 2
        run = begin.cumsum(0) - 1
        ranks[tied + 1] = mean[run]
        ranks[tied] = mean[run]
    return ranks.reshape(ordered.shape)


def median_of_tiles(tiles: Tiles) -> Tensor:
    """The median [] of the distances (not squared) of two rows r < s, the mean of the middle two; NaN of none.

    A sample brackets it; a pass over the tiles counts what lies below the bracket and holds what lies in it. Where that
    is too much to hold, what is held of it is the sample of another pass.
    """
    places = ((tiles.pairs - 1) // 2, tiles.pairs // 2)
    sample = tiles.sample(BINS)
    found = _Within(-math.inf, math.inf, 0, 0, tiles.pairs, 0, sample)
    margin = 4.0
    while not found.knows(places):
        low, high = _bracket(found, places, margin)
        widest = (low, high) == (found.low, found.high)
        closer = _within(tiles, low, high, found.inside if widest else COLLECTED)
        if closer.below <= places[0] and places[1] < closer.below + closer.up_to_high:
            found, margin = closer, 4.0
        else:
            margin *= 4
    if not tiles.pairs:
        return sample.new_tensor(math.nan)
    return sum_of(found.at(place).sqrt() for place in places) / 2


class _Within(NamedTuple):
    """Where a range of values lies among all, and what is in it."""

    low: float
    high: float
    below: int  # how many values are less than low
    at_low: int  # how many are equal to it: of ties there may be any number
    inside: int  # how many lie between low and high
    at_high: int
    values: Tensor  # those between; where they are too many, an even selection of them

    @property
    def up_to_high(self) -> int:
        """How many are in the range, ends included."""
        return self.at_low + self.inside + self.at_high

    def knows(self, places: Sequence[int]) -> bool:
        """Whether the values at these places of all, in order, can be told."""
        first, last = (place - self.below - self.at_low for place in places)
        return len(self.values) == self.inside or last < 0 or first >= self.inside

    def at(self, place: int) -> Tensor:
        """The value at a place."""
        within = place - self.below - self.at_low
        if 0 <= within < self.inside:
            return self.values.kthvalue(within + 1).values
        return self.values.new_tensor(self.low if within < 0 else self.high)


def _bracket(found: _Within, places: Sequence[int], margin: float) -> tuple[float, float]:
    """Values between which the places lie, by so many standard errors of what the sample says; the old ones at its ends."""
    ordered, count = found.values.sort().values, len(found.values)
    shares = [(place - found.below - found.at_low) / found.inside for place in places]
    low = math.floor((shares[0] - margin / (2 * count**0.5)) * count)
    high = math.ceil((shares[1] + margin / (2 * count**0.5)) * count)
    return (
        float(ordered[min(low, count - 1)]) if low >= 0 else found.low,
        float(ordered[max(high, 0)]) if high < count else found.high,
    )


def _within(tiles: Tiles, low: float, high: float, limit: int) -> _Within:
    """Count and collect the squared distances of two rows r < s."""
    below = at_low = inside = at_high = 0
    held: list[Tensor] = []
    stride = 1
    for tile in tiles:
        values = tile.once()
        found = values[(values > low) & (values < high)]
        below += int((values < low).sum())
        at_low += int((values == low).sum())
        inside += len(found)
        at_high += int(((values == high) & (high > low)).sum())
        held.append(found[::stride])
        if sum(map(len, held)) > limit:
            stride *= 2
            held = [part[::2].clone() for part in held]
    counts = xp.tensor([below, at_low, inside, at_high], device=tiles.scale.device)
    distributed.total(counts)
    widest = max(distributed.gathered(stride))
    own = [tiles.scale.new_empty(0), *(part[:: widest // stride] for part in held)]
    below, at_low, inside, at_high = counts.tolist()
    return _Within(low, high, below, at_low, inside, at_high, distributed.joined_values(xp.cat(own)))


class Ranks(NamedTuple):
    """Average ranks from 0 of all squared distances of two rows r < s; those in a bin between two edges share theirs."""

    edges: Tensor  # [bins - 1]
    ranks: Tensor  # [bins]

    def of(self, values: Tensor) -> Tensor:
        """The ranks of some of the values; NaN of NaN."""
        return self.ranks[xp.bucketize(values, self.edges)].where(~values.isnan(), xp.nan)


def sorted_ranks_of_tiles(tiles: Tiles) -> Tensor:
    """`average_ranks` of the squared distances of all pairs r < s [pairs]: of this rank's, tile by tile."""
    ordered, order = in_order(xp.cat([tiles.scale.new_empty(0), *(tile.once() for tile in tiles.passing())]))
    every = distributed.joined_values(ordered)
    if distributed.world() == 1:
        ranks = _ranks_in_order(every)
    else:
        every = every.sort().values
        ranks = _ranks_in_order(every)[xp.searchsorted(every, ordered).clamp(max=max(len(every) - 1, 0))]
    return xp.empty_like(ranks).scatter_(0, order, ranks.where(~ordered.isnan(), xp.nan))


def ranks_of_tiles(tiles: Tiles) -> Ranks:
    """`average_ranks` of the squared distances of all pairs; up to BINS pairs exactly.

    More are cut into bins of about equally many, between values that are apart by more than rounding, so that ties stay
    together. Within a bin of the share b of all values ranks deviate by no more than b/2, and evenly to both sides: of a
    rank correlation that changes about Σ b³, which is 1e-10.
    """
    ordered = tiles.sample(BINS).sort().values
    apart = ordered.diff() > TIE * ordered[-1:]
    edges = ((ordered[:-1] + ordered[1:]) / 2)[apart]
    counts = xp.zeros(len(edges) + 1, dtype=xp.float64, device=edges.device)
    for tile in tiles:
        counts += xp.bincount(xp.bucketize(tile.once(), edges), minlength=len(counts))
    distributed.total(counts)
    return Ranks(edges, counts.cumsum(0) - (counts + 1) / 2)
