"""Inner products of Gram matrices, of which linear CKA and its like are made.

⟨K, L⟩ = ‖XcᵀYc‖²_F costs 2 n p q through the cross product of features, pair by pair; through the upper halves of Gram
matrices it costs n² p per layer and next to nothing per pair. Many rows want the first, many layers the second. Products
are made in the grid's precision and summed over no more than SUM_LENGTH terms before float64 takes over.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from contrasim_cli import distributed
from contrasim_cli.arrays import DType, Tensor, native, xp
from contrasim_cli.grid.grid import Grid, Layer, Rows
from contrasim_cli.grid.moments import LEAF, passes, side_by_side
from contrasim_cli.grid.row_lengths import RowLengths
from contrasim_cli.measures.protocol import Energies
from contrasim_cli.store.blocks import spans

log = logging.getLogger(__name__)

TILE_SIDE = (
    640  # rows of a tile of a Gram matrix, at most: products of smaller matrices are slow, larger ones take memory
)
READ_SIDE = 1280  # of one whose rows are read from disk for it
LEAF_SIDE = 160  # of a tile on the diagonal, at most: its lower half is work for nothing
TILE_BYTES = 512 << 20  # at most, of the tiles of all layers together
READING = 100  # operations in the time of reading a byte again
SUM_LENGTH = 4096
SUM_ROWS = 512  # that are widened at once
EXACT, ROUNDED = 1e-12, 0.3  # a difference of energies below this part of them is lost, in float64 and in less
Pair = tuple[Layer, Layer]


@dataclass
class KernelEnergies:
    """⟨K, L⟩ of pairs of layers, inner products of the diagonals, and traces."""

    n_rows: int
    rounding: float
    products: dict[Pair, Tensor]
    diagonals: dict[Pair, Tensor]
    traces: dict[Layer, Tensor]

    def of(self, one: Layer, other: Layer) -> Energies:
        """The sums that belong to one pair of layers."""
        pairs = ((one, other), (one, one), (other, other))
        cross, first, second = (self.products[pair].double() for pair in pairs)
        diagonal_cross, diagonal_first, diagonal_second = (self.diagonals[pair] for pair in pairs)
        return Energies(
            n=self.n_rows,
            cross=cross,
            first=first,
            second=second,
            diagonal_cross=diagonal_cross,
            diagonal_first=diagonal_first,
            diagonal_second=diagonal_second,
            trace_first=self.traces[one],
            trace_second=self.traces[other],
            rounding=self.rounding,
        )


def compute(grid: Grid, members: list[int]) -> None:
    """Inner products of Gram matrices, by whichever way costs less, make every measure of the family.

    Rows in memory are taken over: the reader keeps none afterwards.
    """
    for precision in dict.fromkeys(native(kind, grid.device) for kind in (grid.precision, "float64")):
        if members:
            energies = [grid.scorers[s].measure.energy for s in members]
            diagonals = any(energy.diagonals for energy in energies if energy)
            found = kernel_energies(grid, precision, diagonals)
            members = [s for s in members if not _resolved(grid, s, found)]


def _resolved(grid: Grid, s: int, found: KernelEnergies) -> bool:
    """Score all pairs of layers; whether the energies are fine enough wherever both sides vary."""
    energy, enough = grid.scorers[s].measure.energy, True
    assert energy is not None
    for one, other in grid.plan.cells():
        given = found.of(one, other)
        score = float(energy.score(given))
        grid.scores[s, one, other] = score
        if grid.levels:
            mean, spread = energy.shuffled(given)
            grid.shuffled[s, one, other] = float(mean), float(spread)
        enough &= not math.isnan(score) or not bool(given.first > 0) or not bool(given.second > 0)
    return enough


def kernel_energies(grid: Grid, precision: DType, diagonals: bool) -> KernelEnergies:
    """The energies of all pairs of layers of a grid, of products in the given precision.

    Diagonals of pairs of layers are 0 unless asked for; traces, and the diagonals of layers with themselves, unless shuffled rows
    are looked at, too.
    """
    rounding = EXACT if precision == xp.float64 else ROUNDED
    gram = gram_is_cheaper(grid)
    if grid.reader.in_memory and not (gram and distributed.world() > 1):
        centred, offset = _centred_layers(grid, precision, not gram), grid.reader.span[0]
        rows: Rows = lambda layer, start, stop: centred[layer][start - offset : stop - offset]  # noqa: E731
        if gram:
            return KernelEnergies(grid.plan.n_rows, rounding, *_gram_products(grid, rows, precision))
        products = _feature_products(grid, centred)
    elif gram:
        return KernelEnergies(
            grid.plan.n_rows, rounding, *_gram_products(grid, _streamed(grid, precision, scaled=True), precision)
        )
    else:
        rows = _streamed(grid, native("float64", grid.device), scaled=False) if diagonals else _nothing
        lengths = RowLengths(grid) if grid.levels and not diagonals else None
        products = _streamed_products(grid, precision, lengths)
        if lengths:
            return KernelEnergies(grid.plan.n_rows, rounding, products, *lengths.found(products))
    if diagonals or grid.levels:
        return KernelEnergies(grid.plan.n_rows, rounding, products, *_diagonals(grid, rows))
    zero = xp.zeros((), dtype=xp.float64, device=grid.device)
    return KernelEnergies(
        grid.plan.n_rows, rounding, products, dict.fromkeys(products, zero), dict.fromkeys(grid.plan.layers, zero)
    )


def gram_is_cheaper(grid: Grid) -> bool:
    """Count the operations of both ways, and what Gram tiles have to read again."""
    n, plan = grid.plan.n_rows, grid.plan
    features = sum(2 * n * plan.width(one) * plan.width(other) for one, other in plan.cells())
    features += sum(n * plan.width(layer) ** 2 for layer in plan.layers)
    gram = sum(n * n * plan.width(layer) for layer in plan.layers) + n * n * len(plan.layers) ** 2
    if not _all_in_memory(grid):
        gram += READING * grid.reader.size * n // _tile_side(grid)
    cheaper = "Gram matrices" if gram < features else "features"
    log.debug("cka: through %s (%.3g operations through features, %.3g through Gram matrices)", cheaper, features, gram)
    return gram < features


def _all_in_memory(grid: Grid) -> bool:
    """Whether this process holds all rows, and not those of its blocks alone."""
    return grid.reader.in_memory and distributed.world() == 1


def _nothing(layer: Layer, start: int, stop: int) -> Tensor:
    raise AssertionError("rows are read where Gram matrices or their diagonals are needed")


def _streamed(grid: Grid, precision: DType, scaled: bool) -> Rows:
    """Centred rows, with values near 1 where they are scaled, read from disk when asked for; their means take a pass."""
    layers, plan, reader = grid.plan.layers, grid.plan, grid.reader
    totals = {la: xp.zeros(plan.width(la), dtype=xp.float64, device=grid.device) for la in layers}
    largest = dict.fromkeys(layers, 0.0)
    for start, stop in reader.blocks:
        for layer in layers:
            rows = reader.shifted(layer, start, stop, double=True)
            totals[layer] += rows.sum(dim=0)
            largest[layer] = max(largest[layer], float(rows.abs().amax()))
    distributed.total(*totals.values())
    means = {layer: total / plan.n_rows for layer, total in totals.items()}
    widest = distributed.largest(xp.tensor([*largest.values()], dtype=xp.float64, device=grid.device)).tolist()
    factors = {
        la: _power_of_two(value, precise=True) if scaled else 1.0 for la, value in zip(layers, widest, strict=True)
    }

    def centred(layer: Layer, start: int, stop: int) -> Tensor:
        rows = reader.shifted(layer, start, stop, double=True) - means[layer]
        return rows.mul_(factors[layer]).to(precision)

    return centred


def _diagonals(grid: Grid, rows: Rows) -> tuple[dict[Pair, Tensor], dict[Layer, Tensor]]:
    """Σ_r K_rr L_rr for every pair of layers, and the traces."""
    layers = grid.plan.layers
    products = xp.zeros(len(layers), len(layers), dtype=xp.float64, device=grid.device)
    traces = xp.zeros(len(layers), dtype=xp.float64, device=grid.device)
    for start, stop in grid.reader.blocks:
        lengths = [xp.linalg.vector_norm(rows(layer, start, stop), dim=1) for layer in layers]
        squares = xp.stack(lengths).double().square()
        products += squares @ squares.T
        traces += squares.sum(dim=1)
    distributed.total(products, traces)
    return _by_pair(layers, products), dict(zip(layers, traces, strict=True))


def _centred_layers(grid: Grid, precision: DType, side_by_side: bool) -> dict[Layer, Tensor]:
    """Centred rows of every layer with values near 1, of this rank's blocks; those of one view in one matrix if asked for."""
    centred: dict[Layer, Tensor] = {}
    rows = grid.reader.span[1] - grid.reader.span[0]
    for view in dict.fromkeys(view for view, _ in grid.plan.layers):
        layers = [layer for layer in grid.plan.layers if layer[0] == view]
        widths = [grid.plan.width(layer) for layer in layers]
        shapes = [(rows, sum(widths))] if side_by_side else [(rows, width) for width in widths]
        matrices = [xp.empty(shape, dtype=precision, device=grid.device) for shape in shapes]
        parts = xp.split(matrices[0], widths, dim=1) if side_by_side else matrices
        for layer, part in zip(layers, parts, strict=True):
            _centre_into(part, grid, layer)
            grid.reader.release(layer)
            centred[layer] = part
    return centred


def _centre_into(part: Tensor, grid: Grid, layer: Layer) -> None:
    """Write the rows less their mean, times a power of two; in place and in blocks that a cache holds."""
    start, stop = grid.reader.span
    first = grid.reader.first(layer)
    dtype = xp.promote_types(part.dtype, first.dtype)
    work = part if part.dtype == dtype else xp.empty_like(part, dtype=dtype)
    total = xp.zeros(part.shape[1], dtype=xp.float64, device=part.device)
    largest = work.new_zeros(())
    for block in spans(stop - start, SUM_ROWS):
        rows = work[slice(*block)]
        xp.sub(grid.reader.rows(layer, start + block[0], start + block[1]).to(dtype), first, out=rows)
        low, high = xp.aminmax(rows)
        xp.maximum(largest, xp.maximum(-low, high), out=largest)
        total += xp.sum(rows, dim=0, dtype=xp.float64)
    # energies are fourth powers of the values, and leave float32 soon
    factor = _power_of_two(float(distributed.largest(largest)), dtype == xp.float64)
    distributed.total(total)
    mean = -(total / grid.plan.n_rows * factor).to(dtype)
    for block in spans(stop - start, SUM_ROWS):
        rows = work[slice(*block)]
        xp.add(mean, rows, alpha=factor, out=rows)
        if work is not part:
            part[slice(*block)] = rows


def _power_of_two(largest: float, precise: bool) -> float:
    limit = 1000 if precise else 120
    return 2.0 ** -max(-limit, min(limit, math.frexp(largest)[1]))


def _feature_products(grid: Grid, centred: Mapping[Layer, Tensor]) -> dict[Pair, Tensor]:
    """‖XᵀY‖²_F: each layer against all layers of the other view in one product."""
    found: dict[Pair, Tensor] = {(layer, layer): _own_energy(rows) for layer, rows in centred.items()}
    plan = grid.plan
    with grid.progress("comparing", sum(len(plan.first[a]) for a, _ in plan.pairs), "layers") as advance:
        for a, b in plan.pairs:
            second = [(b, name) for name in plan.second[b]]
            others = side_by_side([centred[layer] for layer in second])
            for one in ((a, name) for name in plan.first[a]):
                energies = _cross_energies(centred[one], others, [plan.width(layer) for layer in second])
                found.update(zip(((one, layer) for layer in second), energies, strict=True))
                advance(1)
    return found


def _own_energy(x: Tensor) -> Tensor:
    """‖XᵀX‖²_F, by little more than the upper half of the product."""
    width = x.shape[1]
    if width <= LEAF:
        return _cross_energies(x, x, [width])[0]
    middle = -(-width // 2)
    left, right = x[:, :middle], x[:, middle:]
    return _own_energy(left) + _own_energy(right) + 2 * _cross_energies(left, right, [width - middle])[0]


def _cross_energies(x: Tensor, y: Tensor, widths: list[int]) -> list[Tensor]:
    """‖XᵀY_k‖²_F for the parts Y_k of Y."""
    total: Tensor | None = None
    for start, stop in spans(len(x), 2 * SUM_LENGTH):
        cross = x[start:stop].T @ y[start:stop]
        total = cross if total is None else total.double().add_(cross)
    if distributed.world() > 1:
        total = (x.T @ y if total is None else total).double()
        distributed.total(total)
    assert total is not None
    columns = xp.linalg.vector_norm(total, dim=0).double().square()
    return [part.sum() for part in xp.split(columns, widths)]


def _streamed_products(grid: Grid, precision: DType, lengths: RowLengths | None = None) -> dict[Pair, Tensor]:
    """‖XᵀY‖²_F of moments that are added up over blocks of rows, of which `lengths` takes what it needs."""
    widths = {layer: grid.plan.width(layer) for layer in grid.plan.layers}
    found: dict[Pair, Tensor] = {}

    def rows(layer: Layer, start: int, stop: int) -> Tensor:
        block = grid.reader.shifted(layer, start, stop, double=precision == xp.float64)
        if lengths:
            lengths.add(layer, start, block)
        return block

    for sums in passes(grid, widths, precision, rows, scatters=grid.plan.layers):
        if lengths:
            lengths.finish(sums)
        found.update({(layer, layer): scatter.square().sum() for layer, scatter in sums.scatter.items()})
        found.update({(one, other): cross.square().sum() for one, other, cross in sums.crosses()})
    return found


def _gram_products(
    grid: Grid, rows: Rows, precision: DType
) -> tuple[dict[Pair, Tensor], dict[Pair, Tensor], dict[Layer, Tensor]]:
    """⟨K, L⟩ over the upper half, tile by tile: the tiles of all layers at once, whose inner products are added up.

    With Σ_r K_rr L_rr, and the traces.
    """
    layers, tiles = grid.plan.layers, distributed.dealt(_gram_tiles(grid))
    pairs = grid.plan.pairs
    cut = len(grid.plan.first[pairs[0][0]]) if len(pairs) == 1 and pairs[0][0] != pairs[0][1] else 0
    largest = max(((bottom - top) * (right - left) for top, bottom, left, right in tiles), default=0)
    room = xp.empty(len(layers) * largest, dtype=precision, device=grid.device)
    total, diagonals = xp.zeros(2, len(layers), len(layers), dtype=xp.float64, device=grid.device)
    traces = xp.zeros(len(layers), dtype=xp.float64, device=grid.device)
    with grid.progress("comparing", len(tiles), "tiles") as advance:
        for top, bottom, left, right in tiles:
            height, width = bottom - top, right - left
            found = room[: len(layers) * height * width].reshape(len(layers), height, width)
            for tile, layer in zip(found, layers, strict=True):
                first = rows(layer, top, bottom)
                xp.mm(first, (first if left == top else rows(layer, left, right)).T, out=tile)
            total += (1 if left == top else 2) * _inner_products(found.flatten(1), cut)
            if left == top:
                squares = found.diagonal(dim1=1, dim2=2).double()
                diagonals += squares @ squares.T
                traces += squares.sum(dim=1)
            advance(1)
    distributed.total(total, diagonals, traces)
    return _by_pair(layers, total), _by_pair(layers, diagonals), dict(zip(layers, traces, strict=True))


def _by_pair(layers: Sequence[Layer], values: Tensor) -> dict[Pair, Tensor]:
    """Values [layers, layers] by pair of layers."""
    return {(one, other): values[i, j] for i, one in enumerate(layers) for j, other in enumerate(layers)}


def _gram_tiles(grid: Grid) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left, right of tiles that cover the upper half of an n × n matrix."""
    side = _tile_side(grid)
    return list(_upper_half(0, grid.plan.n_rows, side, min(LEAF_SIDE, side)))


def _tile_side(grid: Grid) -> int:
    """Rows of the largest tiles, as memory allows."""
    limit = min(TILE_BYTES, grid.reader.free // 4) / (4 * len(grid.plan.layers))
    side = int(limit**0.5)
    if _all_in_memory(grid):
        return max(64, min(TILE_SIDE, side))
    width = max(map(grid.plan.width, grid.plan.layers))  # the rows of a tile are held, too
    return max(64, min(READ_SIDE, int((limit + width**2) ** 0.5 - width)))


def _upper_half(start: int, stop: int, side: int, leaf: int) -> Iterator[tuple[int, int, int, int]]:
    """Both diagonal quarters in turn, down to leaves, and the quarter between them."""
    if stop - start <= leaf:
        yield start, stop, start, stop
        return
    middle = (start + stop) // 2
    yield from _upper_half(start, middle, side, leaf)
    yield from _upper_half(middle, stop, side, leaf)
    for top, bottom in _even_spans(start, middle, side):
        for left, right in _even_spans(middle, stop, side):
            yield top, bottom, left, right


def _even_spans(start: int, stop: int, most: int) -> list[tuple[int, int]]:
    """Runs of about one size."""
    parts = -(-(stop - start) // most)
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def _inner_products(tiles: Tensor, cut: int = 0) -> Tensor:
    """[layers, layers] inner products of [layers, m]; with a cut those before it with those behind it, and own ones, else 0."""
    whole = tiles.shape[1] // SUM_LENGTH * SUM_LENGTH
    total = xp.zeros(len(tiles), len(tiles), dtype=xp.float64, device=tiles.device)
    for pieces in (tiles[:, :whole].reshape(len(tiles), -1, SUM_LENGTH), tiles[:, whole:].unsqueeze(1)):
        batch = pieces.transpose(0, 1)
        if not cut:
            total += xp.sum(xp.bmm(batch, batch.mT), dim=0, dtype=xp.float64)
            continue
        total[:cut, cut:] += xp.sum(xp.bmm(batch[:, :cut], batch[:, cut:].mT), dim=0, dtype=xp.float64)
        total.diagonal().add_(xp.linalg.vector_norm(pieces, dim=2).double().square().sum(dim=1))
    return total
