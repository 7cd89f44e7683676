"""Measures of second moments: added up over blocks of rows, in tiles of layers that bound memory.

The CCA family and regression take them twice: moments of the rows give whitening maps, and moments of the whitened rows, which are
nearly orthonormal, the rest.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contrasim_cli import distributed
from contrasim_cli.grid import prepared
from contrasim_cli.grid.grid import Grid, Layer, Plan, Rows
from contrasim_cli.measures.cca import Whitening, from_whitened
from contrasim_cli.measures.protocol import Moments
from contrasim_cli.rows import size
from contrasim_cli.store.blocks import spans

log = logging.getLogger(__name__)


SUM_LENGTH = 1 << 14  # rows whose products are summed in less than float64

NEARLY = 1e-2  # by which whitened rows may be off orthonormal


def compute(grid: Grid, members: list[int]) -> None:
    """Every layer's own part and every pair of one read of the rows, or of a few where the sums do not fit."""
    forms = {s: grid.scorers[s].measure.moments for s in members}
    widths = {layer: grid.plan.width(layer) for layer in grid.plan.layers}
    own: dict[Any, Any] = {}
    for sums in passes(grid, widths, torch.float64, doubled(grid)):
        for layer, scatter in sums.scatter.items():
            moments = Moments(grid.plan.n_rows, sums.means[layer] + grid.reader.first(layer)[0].double(), scatter)
            for form in forms.values():
                assert form is not None
                if (form.own, layer) not in own:
                    own[form.own, layer] = form.own(moments)
        for one, other, cross in sums.crosses():
            for s, form in forms.items():
                assert form is not None
                value = form.pair(own[form.own, one], own[form.own, other], cross)
                grid.scores[s, one, other] = float(value)


def doubled(grid: Grid) -> Rows:
    """Rows less the first one, in float64."""
    return lambda layer, start, stop: grid.reader.shifted(layer, start, stop, torch.float64)


def passes(
    grid: Grid, widths: Mapping[Layer, int], dtype: torch.dtype, rows: Rows, held: int = 0
) -> "Iterator[MomentSums]":
    """One read of the rows per pass; every layer's own moments are added up in the first pass that reads it."""
    found = tile_passes(grid.plan, widths, max(1, (grid.reader.free - held) // 4))
    log.debug("second moments: %d pass(es) over the rows, %s products", len(found), str(dtype).removeprefix("torch."))
    done: set[Layer] = set()
    for tiles in found:
        needed = list(dict.fromkeys(la for tile in tiles for la in (*tile.first, *tile.second)))
        sums = MomentSums(widths, [la for la in needed if la not in done], tiles, dtype, grid.device)
        done.update(needed)
        for block in grid.reader.each_block(grid.progress):
            sums.add({layer: rows(layer, *block) for layer in needed})
        sums.merge()
        yield sums


@dataclass(frozen=True)
class Tile:
    """Layers of two views whose cross moments are added up together."""

    first: Sequence[Layer]
    second: Sequence[Layer]


@dataclass
class MomentSums:
    """Σ XᵀX of layers and Σ XᵀY of tiles over blocks of rows, each block centred by its own mean.

    Products in `dtype`, sums in float64, to which each block's distance from the mean so far is added (Chan et al. 1979).
    """

    widths: Mapping[Layer, int]
    own: Sequence[Layer]
    tiles: Sequence[Tile]
    dtype: torch.dtype
    device: torch.device
    count: int = 0

    def __post_init__(self) -> None:
        self.means = {layer: self._vector(layer) for layer in self.layers}
        # kept from block to block: memory that is asked for anew each time would scatter over the heap, and grow with it
        self._steps = {layer: self._vector(layer) for layer in self.layers}
        self.scatter = {layer: self._zeros([layer], [layer]) for layer in self.own}
        self.cross = [self._zeros(tile.first, tile.second) for tile in self.tiles]

    def _zeros(self, first: Sequence[Layer], second: Sequence[Layer]) -> Tensor:
        shape = [sum(self.widths[layer] for layer in side) for side in (first, second)]
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def _vector(self, layer: Layer) -> Tensor:
        return torch.zeros(self.widths[layer], dtype=torch.float64, device=self.device)

    @property
    def layers(self) -> list[Layer]:
        """Every layer that a block must hold."""
        return list(dict.fromkeys([*self.own, *(la for t in self.tiles for la in (*t.first, *t.second))]))

    def add(self, rows: Mapping[Layer, Tensor]) -> None:
        """One block: rows [k, p] of every layer."""
        size = len(next(iter(rows.values())))
        centred = {}
        for layer, block in rows.items():
            mean = block.mean(dim=0, dtype=torch.float64)
            centred[layer] = _with_squares(block - mean.to(block.dtype), self.dtype)
            torch.sub(mean, self.means[layer], out=self._steps[layer])
            self.means[layer].add_(self._steps[layer], alpha=size / (self.count + size))
        self._add_products(centred)
        if self.count:
            self._add_steps(self.count * size / (self.count + size))
        self.count += size

    def merge(self) -> None:
        """Make them the sums over the blocks of all ranks: to each rank's is added how far its mean is from that of all."""
        if distributed.world() == 1:
            return
        means = torch.cat([*(self.means[layer] * self.count for layer in self.layers), self._count()])
        distributed.total(means)
        own, self.count = self.count, round(float(means[-1]))
        for layer, mean in zip(
            self.layers, torch.split(means[:-1], [self.widths[la] for la in self.layers]), strict=True
        ):
            torch.sub(self.means[layer], mean / self.count, out=self._steps[layer])
            self.means[layer] = mean / self.count
        self._add_steps(own)
        distributed.total(*self.scatter.values(), *self.cross)

    def _count(self) -> Tensor:
        return torch.tensor([self.count], dtype=torch.float64, device=self.device)

    def _add_products(self, centred: Mapping[Layer, Tensor]) -> None:
        for layer, scatter in self.scatter.items():
            _add_product(scatter, centred[layer], centred[layer])
        for tile, cross in zip(self.tiles, self.cross, strict=True):
            a, b = (torch.cat([centred[layer] for layer in side], dim=1) for side in (tile.first, tile.second))
            _add_product(cross, a, b)

    def _add_steps(self, weight: float) -> None:
        for layer, scatter in self.scatter.items():
            scatter.addr_(self._steps[layer], self._steps[layer], alpha=weight)
        for tile, cross in zip(self.tiles, self.cross, strict=True):
            a, b = (torch.cat([self._steps[layer] for layer in side]) for side in (tile.first, tile.second))
            cross.addr_(a, b, alpha=weight)

    def crosses(self) -> Iterator[tuple[Layer, Layer, Tensor]]:
        """The cross moment [p, q] of every pair of layers of the tiles."""
        for tile, cross in zip(self.tiles, self.cross, strict=True):
            lines = torch.split(cross, [self.widths[la] for la in tile.first])
            for one, line in zip(tile.first, lines, strict=True):
                for other, part in zip(
                    tile.second, torch.split(line, [self.widths[la] for la in tile.second], dim=1), strict=True
                ):
                    yield one, other, part


def _with_squares(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows in the type of the products; in float64 where their squares would leave its range."""
    largest = float(rows.abs().amax()) if rows.numel() else 0.0
    return rows.to(dtype if largest == 0 or 1e-12 < largest < 1e12 else torch.float64)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Total += AᵀB in the finer of both types, without a float64 copy of the product."""
    dtype = torch.promote_types(a.dtype, b.dtype)
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
        size = 8 * sum(widths[la] for la in tile.first) * sum(widths[la] for la in tile.second)
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
    """Moments of the rows give whitening maps; moments of the whitened rows, which are nearly orthonormal, the rest."""
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
    for layers in chunks(grid.plan.layers, widths, max(1, grid.reader.free // 16), max(widths.values())):
        sums = MomentSums(widths, layers, [], torch.float64, grid.device)
        for start, stop in grid.reader.blocks:
            sums.add({layer: shifted(layer, start, stop) for layer in layers})
        sums.merge()
        means |= sums.means
        maps |= _factored(sums, whiten)
    return means, maps


def _factored(sums: MomentSums, whiten: Callable[[Moments], Whitening]) -> dict[Layer, Whitening]:
    """Factors of every layer. Each is made by one rank and sent to the others, whose rounding could find another rank of it."""
    made = {
        k: whiten(Moments(sums.count, sums.means[layer], sums.scatter[layer]))
        for k, layer in distributed.dealt(list(enumerate(sums.own)))
    }
    parts = distributed.gathered([one.rank for one in made.values()])
    ranks = [parts[k % len(parts)][k // len(parts)] for k in range(len(sums.own))]
    for k, (layer, rank) in enumerate(zip(sums.own, ranks, strict=True)):
        if k not in made:
            empty = sums.scatter[layer].new_empty
            made[k] = Whitening(empty(sums.widths[layer], rank), empty(rank), empty(rank, sums.widths[layer]))
        distributed.spread(*made[k], source=k % distributed.world())
    return {layer: made[k] for k, layer in enumerate(sums.own)}


def _whitened_products(
    grid: Grid, means: Mapping[Layer, Tensor], maps: Mapping[Layer, Any]
) -> Iterator[tuple[Layer, Layer, Tensor | None]]:
    """UᵀU' [r, s] for every pair of layers; None where moments did not resolve a layer's directions.

    Rounding of the moments leaves whitened rows a little off orthonormal; their own moments set that right.
    """
    shifted = doubled(grid)

    def rows(layer: Layer, start: int, stop: int) -> Tensor:
        whitened: Tensor = (shifted(layer, start, stop) - means[layer]) @ maps[layer].map
        return whitened

    mends: dict[Layer, Tensor | None] = {}
    ranks = {layer: factors.rank for layer, factors in maps.items()}
    for sums in passes(grid, ranks, torch.float64, rows, held=sum(map(size, maps.values()))):
        mends |= {layer: _inverse_root(scatter) for layer, scatter in sums.scatter.items()}
        for one, other, cross in sums.crosses():
            first, second = mends[one], mends[other]
            yield one, other, None if first is None or second is None else first @ cross @ second.T


def _inverse_root(scatter: Tensor) -> Tensor | None:
    """M with M S Mᵀ = I, lower triangular; None where S is not near I, so that what was whitened is mostly rounding."""
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    if scatter.numel() and float((scatter - identity).abs().amax()) > NEARLY:
        return None
    inverse: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(scatter), identity, upper=False)
    return inverse
