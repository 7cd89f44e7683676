"""Measures of second moments: added up over blocks of rows, in tiles of layers that bound memory.

Only what a measure looks at is formed: of a layer itself the squares of its columns, or the upper half of its scatter. The CCA
family and regression take two rounds: scatters give whitening maps, which then turn cross moments into products of whitened
rows. Where a layer's condition would cost those products too many digits, its rows are whitened first.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from contrasim_cli import distributed
from contrasim_cli.arrays import Device, DType, Tensor, xp
from contrasim_cli.grid import prepared
from contrasim_cli.grid.grid import Grid, Layer, Plan, Rows
from contrasim_cli.measures.cca import Whitening, from_whitened
from contrasim_cli.measures.protocol import Moments
from contrasim_cli.rows import size
from contrasim_cli.store.blocks import spans

log = logging.getLogger(__name__)


SUM_LENGTH = 1 << 14  # rows whose products are summed in less than float64
SUMS_BYTES = 24 << 20  # of one pass over rows in memory, for which further passes cost little
LEAF = 192  # columns of a scatter's blocks on the diagonal, at most: their lower halves are work for nothing

NEARLY = 1e-2  # by which whitened rows may be off orthonormal
# Rounding of a cross moment is about 1e-15 of the sizes of both sides, and whitening multiplies it by σ_max / σ_min of both:
# up to this ratio the products are good to 1e-10.
WELL_CONDITIONED = 300.0


def compute(grid: Grid, members: list[int]) -> None:
    """Every layer's own part and every pair of one read of the rows, or of a few where the sums do not fit."""
    forms = {s: form for s in members if (form := grid.scorers[s].measure.moments) is not None}
    widths = {layer: grid.plan.width(layer) for layer in grid.plan.layers}
    own: dict[Any, Any] = {}
    scatters = any(form.scatter for form in forms.values())
    every = grid.plan.layers
    for sums in passes(grid, widths, xp.float64, doubled(grid), squares=every, scatters=every if scatters else ()):
        for layer, squares in sums.squares.items():
            mean = sums.means[layer] + grid.reader.first(layer)[0].double()
            moments = Moments(grid.plan.n_rows, mean, squares, sums.scatter.get(layer))
            for form in forms.values():
                if (form.own, layer) not in own:
                    own[form.own, layer] = form.own(moments)
        for one, other, cross in sums.crosses():
            made: dict[Any, Any] = {}  # of the cross moment, for the measures that share it
            for s, form in forms.items():
                a, b, key = own[form.own, one], own[form.own, other], (form.own, form.of_cross)
                if key not in made:
                    made[key] = cross if form.of_cross is None else form.of_cross(a, b, cross)
                grid.scores[s, one, other] = float(form.pair(a, b, made[key]))


def doubled(grid: Grid) -> Rows:
    """Rows less the first one, in float64."""
    return lambda layer, start, stop: grid.reader.shifted(layer, start, stop, double=True)


def passes(
    grid: Grid,
    widths: Mapping[Layer, int],
    dtype: DType,
    rows: Rows,
    held: int = 0,
    squares: Collection[Layer] = (),
    scatters: Collection[Layer] = (),
) -> "Iterator[MomentSums]":
    """One read of the rows per pass; every layer's own moments are added up in the first pass that reads it.

    Cross moments are those of the pass alone: they lie in memory that the next one uses again.
    """
    limit = max(1, (grid.reader.free - held) // 4)
    found = tile_passes(grid.plan, widths, min(limit, SUMS_BYTES) if grid.reader.in_memory else limit)
    log.debug("second moments: %d pass(es) over the rows, %s products", len(found), str(dtype).removeprefix("torch."))
    most = max(sum(tile.size(widths) for tile in tiles) for tiles in found)
    room = xp.empty(most, dtype=xp.float64, device=grid.device)
    done: set[Layer] = set()
    for tiles in found:
        needed = list(dict.fromkeys(la for tile in tiles for la in (*tile.first, *tile.second)))
        columns, wholes = ([la for la in needed if la in asked and la not in done] for asked in (squares, scatters))
        sums = MomentSums(widths, columns, wholes, tiles, dtype, grid.device, room)
        done.update(needed)
        for block in grid.reader.each_block(grid.progress):
            sums.add(rows, *block)
        sums.merge()
        yield sums


@dataclass(frozen=True)
class Tile:
    """Layers of two views whose cross moments are added up together."""

    first: Sequence[Layer]
    second: Sequence[Layer]

    def shape(self, widths: Mapping[Layer, int]) -> tuple[int, int]:
        """The shape of the cross moments."""
        height, width = (sum(widths[layer] for layer in side) for side in (self.first, self.second))
        return height, width

    def size(self, widths: Mapping[Layer, int]) -> int:
        """How many values they have."""
        height, width = self.shape(widths)
        return height * width


@dataclass
class MomentSums:
    """The sums over blocks of rows that measures look at, each block centred by its own mean.

    Σ x² of the columns of the layers in `of_columns` or `scatters`, Σ XᵀX of the latter, and Σ XᵀY of tiles, in the memory
    `room` if it is given. Products in `dtype`, sums in float64. A block's distance from the mean so far counts as one more
    row of it, of the right weight (Chan et al. 1979).
    """

    widths: Mapping[Layer, int]
    of_columns: Sequence[Layer]
    scatters: Sequence[Layer]
    tiles: Sequence[Tile]
    dtype: DType
    device: Device
    room: Tensor | None = None
    count: int = 0

    def __post_init__(self) -> None:
        self.squares = {layer: self._vector(layer) for layer in dict.fromkeys([*self.of_columns, *self.scatters])}
        self.scatter = {layer: self._zeros(self.widths[layer], self.widths[layer]) for layer in self.scatters}
        self.means = {layer: self._vector(layer) for layer in self.layers}
        # kept from block to block: memory that is asked for anew each time would scatter over the heap, and grow with it
        self._steps = {layer: self._vector(layer) for layer in self.layers}
        self._block: Tensor | None = None
        self._ends = dict(zip(self.layers, accumulate(self.widths[layer] for layer in self.layers), strict=True))
        self.cross, used = [], 0
        for tile in self.tiles:
            shape, size = tile.shape(self.widths), tile.size(self.widths)
            part = self._zeros(*shape) if self.room is None else self.room[used : used + size].reshape(shape).zero_()
            self.cross.append(part)
            used += size

    def _zeros(self, *shape: int) -> Tensor:
        return xp.zeros(shape, dtype=xp.float64, device=self.device)

    def _vector(self, layer: Layer) -> Tensor:
        return self._zeros(self.widths[layer])

    @property
    def layers(self) -> list[Layer]:
        """Every layer that a block must hold."""
        return list(dict.fromkeys([*self.squares, *(la for t in self.tiles for la in (*t.first, *t.second))]))

    def add(self, rows: Rows, start: int, stop: int) -> None:
        """One block of the rows of every layer."""
        size = stop - start
        weight = self.count * size / (self.count + size)
        centred = {layer: self._centred(layer, rows(layer, start, stop), weight) for layer in self.layers}
        for layer, squares in self.squares.items():
            if layer not in self.scatter:
                squares.add_(xp.sum(centred[layer].square(), dim=0, dtype=xp.float64))
        for layer, scatter in self.scatter.items():
            add_scatter(scatter, centred[layer])
        for tile, cross in zip(self.tiles, self.cross, strict=True):
            _add_product(
                cross, *(side_by_side([centred[layer] for layer in side]) for side in (tile.first, tile.second))
            )
        self.count += size

    def _shared(self, layer: Layer, size: int) -> Tensor:
        """Rows [size, p] in float64: of all layers side by side, in memory that the blocks share."""
        if self._block is None or len(self._block) < size:
            self._block = xp.empty(size, self._ends[self.layers[-1]], dtype=xp.float64, device=self.device)
        end = self._ends[layer]
        return self._block[:size, end - self.widths[layer] : end]

    def _centred(self, layer: Layer, block: Tensor, weight: float) -> Tensor:
        """[k + 1, p] the rows [k, p] less their mean, and how far that is from the mean so far as one row more."""
        size = len(block)
        mean = xp.mean(block, dim=0, dtype=xp.float64)
        step = xp.sub(mean, self.means[layer], out=self._steps[layer])
        of_all = block.dtype == xp.float64
        rows = self._shared(layer, size + 1) if of_all else block.new_empty(size + 1, block.shape[1])
        xp.sub(block, mean.to(block.dtype), out=rows[:size])
        rows[size] = step * weight**0.5
        self.means[layer].add_(step, alpha=size / (self.count + size))
        return _with_squares(rows, self.dtype)

    def merge(self) -> None:
        """Finish the sums over the blocks of all ranks: to each rank's is added how far its mean is from that of all."""
        if distributed.world() > 1:
            self._merge()
        for layer, scatter in self.scatter.items():
            scatter.copy_(scatter.triu() + scatter.triu(1).T)
            self.squares[layer] = scatter.diagonal().clone()

    def _merge(self) -> None:
        means = xp.cat([*(self.means[layer] * self.count for layer in self.layers), self._count()])
        distributed.total(means)
        own, self.count = self.count, round(float(means[-1]))
        for layer, mean in zip(self.layers, xp.split(means[:-1], [self.widths[la] for la in self.layers]), strict=True):
            xp.sub(self.means[layer], mean / self.count, out=self._steps[layer])
            self.means[layer] = mean / self.count
        self._add_steps(own)
        distributed.total(*self.squares.values(), *self.scatter.values(), *self.cross)

    def _count(self) -> Tensor:
        return xp.tensor([self.count], dtype=xp.float64, device=self.device)

    def _add_steps(self, weight: float) -> None:
        for layer, squares in self.squares.items():
            squares.add_(self._steps[layer].square(), alpha=weight)
        for layer, scatter in self.scatter.items():
            scatter.addr_(self._steps[layer], self._steps[layer], alpha=weight)
        for tile, cross in zip(self.tiles, self.cross, strict=True):
            a, b = (xp.cat([self._steps[layer] for layer in side]) for side in (tile.first, tile.second))
            cross.addr_(a, b, alpha=weight)

    def crosses(self) -> Iterator[tuple[Layer, Layer, Tensor]]:
        """The cross moment [p, q] of every pair of layers of the tiles."""
        for tile, cross in zip(self.tiles, self.cross, strict=True):
            lines = xp.split(cross, [self.widths[la] for la in tile.first])
            for one, line in zip(tile.first, lines, strict=True):
                for other, part in zip(
                    tile.second, xp.split(line, [self.widths[la] for la in tile.second], dim=1), strict=True
                ):
                    yield one, other, part


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Matrices as one; without a copy where they are neighbours already."""
    first, width = parts[0], sum(part.shape[1] for part in parts)
    step, at = first.stride(0), first.data_ptr()
    for part in parts:
        # rows that overtake each other in memory are of one matrix
        if step < width or (part.stride(0), part.data_ptr()) != (step, at):
            return xp.cat(list(parts), dim=1)
        at += part.shape[1] * part.element_size()
    return xp.as_strided(first, (first.shape[0], width), (step, 1))


def add_scatter(total: Tensor, x: Tensor) -> None:
    """Total [p, p] += XᵀX of X [k, p], in the upper half and some of the lower: in blocks that cost little more than half."""
    width = x.shape[1]
    if width <= LEAF:
        _add_product(total, x, x)
        return
    middle = -(-width // 2)
    add_scatter(total[:middle, :middle], x[:, :middle])
    add_scatter(total[middle:, middle:], x[:, middle:])
    _add_product(total[:middle, middle:], x[:, :middle], x[:, middle:])


def _with_squares(rows: Tensor, dtype: DType) -> Tensor:
    """Rows in the type of the products; in float64 where their squares would leave its range."""
    if dtype == xp.float64:
        return rows.double()
    largest = float(rows.abs().amax()) if rows.numel() else 0.0
    return rows.to(dtype) if largest == 0 or 1e-12 < largest < 1e12 else rows.double()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Total += AᵀB in the finer of both types, without a float64 copy of the product."""
    dtype = xp.promote_types(a.dtype, b.dtype)
    if dtype == total.dtype:
        total.addmm_(a.T.to(dtype), b.to(dtype))
    else:
        for start, stop in spans(len(a), SUM_LENGTH):
            total.add_(a[start:stop].T.to(dtype) @ b[start:stop].to(dtype))


def tile_passes(plan: Plan, widths: Mapping[Layer, int], limit: int) -> list[list[Tile]]:
    """All pairs of layers as tiles, in passes whose sums take no more than `limit` bytes (or a single pair does)."""
    tiles = []
    for a, b in plan.pairs:
        second = [(b, name) for name in plan.second[b]]
        for chunk in chunks(
            [(a, name) for name in plan.first[a]], widths, limit // 8, sum(widths[la] for la in second)
        ):
            for part in chunks(second, widths, limit // 8, sum(widths[la] for la in chunk)):
                tiles.append(Tile(chunk, part))
    passes: list[list[Tile]] = [[]]
    used = 0
    for tile in tiles:
        size = 8 * tile.size(widths)
        if passes[-1] and used + size > limit:
            passes.append([])
            used = 0
        passes[-1].append(tile)
        used += size
    return passes


def chunks(layers: Sequence[Layer], widths: Mapping[Layer, int], limit: int, across: int) -> Iterator[list[Layer]]:
    """Runs of layers whose widths times `across` stay within the limit; at least one layer each."""
    chunk: list[Layer] = []
    for layer in layers:
        if chunk and (sum(widths[la] for la in chunk) + widths[layer]) * across > limit:
            yield chunk
            chunk = []
        chunk.append(layer)
    yield chunk


def compute_whitened(grid: Grid, members: list[int]) -> None:
    """Scatters give whitening maps; what these make of cross moments, or moments of whitened rows, the rest."""
    for whiten in dict.fromkeys(grid.scorers[s].measure.whiten for s in members):
        assert whiten is not None
        same = [s for s in members if grid.scorers[s].measure.whiten == whiten]
        left = []
        means, maps = _whitenings(grid, whiten)
        for one, other, products in _whitened_products(grid, means, maps):
            if products is None:
                left.append((one, other))
                continue
            sides = from_whitened(maps[one], maps[other], products)
            for s in same:
                grid.scores[s, one, other] = float(grid.scorers[s].measure.compare(*sides))
                grid.note_shuffled(s, one, other, sides)
        if left:
            prepared.compute(grid, same, left)


def _whitenings(
    grid: Grid, whiten: Callable[[Moments], Whitening]
) -> tuple[dict[Layer, Tensor], dict[Layer, Whitening]]:
    """Means of the shifted rows and factors of every layer, as many layers at once as fit."""
    shifted = doubled(grid)
    means: dict[Layer, Tensor] = {}
    maps: dict[Layer, Whitening] = {}
    widths = {layer: grid.plan.width(layer) for layer in grid.plan.layers}
    room = xp.empty(sum(width**2 for width in widths.values()), dtype=xp.float64, device=grid.device)
    used = 0
    limit = max(1, grid.reader.free // 16)
    limit = min(limit, SUMS_BYTES // 16) if grid.reader.in_memory else limit
    for layers in chunks(grid.plan.layers, widths, limit, max(widths.values())):
        sums = MomentSums(widths, [], layers, [], xp.float64, grid.device)
        for start, stop in grid.reader.blocks:
            sums.add(shifted, start, stop)
        sums.merge()
        means |= sums.means
        for layer, (sigma, right) in _factored(sums, whiten).items():
            # side by side: what is kept among what is not would scatter over the heap
            kept = room[used : used + right.numel()].reshape(right.shape).copy_(right)
            maps[layer], used = Whitening(sigma, kept), used + right.numel()
        del sums  # before the next ones are made
    return means, maps


def _factored(sums: MomentSums, whiten: Callable[[Moments], Whitening]) -> dict[Layer, Whitening]:
    """Factors of every layer. Each is made by one rank and sent to the others, whose rounding could find another rank of it."""
    made = {
        k: whiten(Moments(sums.count, sums.means[layer], sums.squares[layer], sums.scatter[layer]))
        for k, layer in distributed.dealt(list(enumerate(sums.scatters)))
    }
    parts = distributed.gathered([one.rank for one in made.values()])
    ranks = [parts[k % len(parts)][k // len(parts)] for k in range(len(sums.scatters))]
    for k, (layer, rank) in enumerate(zip(sums.scatters, ranks, strict=True)):
        if k not in made:
            empty = sums.scatter[layer].new_empty
            made[k] = Whitening(empty(rank), empty(rank, sums.widths[layer]))
        distributed.spread(*made[k], source=k % distributed.world())
    return {layer: made[k] for k, layer in enumerate(sums.scatters)}


def _whitened_products(
    grid: Grid, means: Mapping[Layer, Tensor], maps: Mapping[Layer, Whitening]
) -> Iterator[tuple[Layer, Layer, Tensor | None]]:
    """UᵀU' [r, s] for every pair of layers; None where moments did not resolve a layer's directions.

    The map of a well-conditioned layer is applied to cross moments. The rows of another are whitened first; rounding of the
    moments leaves them a little off orthonormal, and their own moments set that right.
    """
    shifted = doubled(grid)
    ill = {layer: factors.map for layer, factors in maps.items() if factors.condition > WELL_CONDITIONED}
    widths = {layer: factors.rank if layer in ill else grid.plan.width(layer) for layer, factors in maps.items()}
    mixes: dict[Layer, Tensor | None] = {layer: factors.right for layer, factors in maps.items() if layer not in ill}
    scales = {layer: factors.sigma.new_ones(()) if layer in ill else factors.sigma for layer, factors in maps.items()}

    def rows(layer: Layer, start: int, stop: int) -> Tensor:
        block = shifted(layer, start, stop)
        return (block - means[layer]) @ ill[layer] if layer in ill else block

    held = sum(map(size, (*maps.values(), *ill.values())))
    for sums in passes(grid, widths, xp.float64, rows, held, scatters=ill):
        mixes |= {layer: _inverse_root(scatter) for layer, scatter in sums.scatter.items()}
        for one, other, cross in sums.crosses():
            first, second = mixes[one], mixes[other]  # from what was summed to U, but for a factor
            if first is None or second is None:
                yield one, other, None
            else:
                products = first @ cross @ second.T
                yield one, other, products.div_(scales[one].unsqueeze(-1)).div_(scales[other])


def _inverse_root(scatter: Tensor) -> Tensor | None:
    """M with M S Mᵀ = I, lower triangular; None where S is not near I, so that what was whitened is mostly rounding."""
    identity = xp.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    if scatter.numel() and float((scatter - identity).abs().amax()) > NEARLY:
        return None
    inverse: Tensor = xp.linalg.solve_triangular(xp.linalg.cholesky(scatter), identity, upper=False)
    return inverse
