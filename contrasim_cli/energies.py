"""Inner products of Gram matrices, of which linear CKA and its like are made.

⟨K, L⟩ = ‖XcᵀYc‖²_F costs 2 n p q through the cross product of features, pair by pair; through the upper halves of Gram
matrices it costs n² p per layer and next to nothing per pair. Many rows want the first, many layers the second. Products
are made in the grid's precision and summed over no more than SUM_LENGTH terms before float64 takes over.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contrasim_cli.measures.protocol import Energies
from contrasim_cli.plan import Layer, Rows, spans

if TYPE_CHECKING:
    from contrasim_cli.grid import Grid

log = logging.getLogger(__name__)

TILE_SIDE = 640  # rows of a tile of a Gram matrix: products of smaller matrices are slow, larger ones waste more
TILE_BYTES = 512 << 20  # at most, of the tiles of all layers together
SUM_LENGTH = 4096
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
        """Everything about one pair of layers."""
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


def kernel_energies(grid: "Grid", precision: torch.dtype, diagonals: bool) -> KernelEnergies:
    """The energies of all pairs of layers of a grid, of products in the given precision; diagonals where asked for, else 0."""
    rounding = EXACT if precision == torch.float64 else ROUNDED
    if not grid.reader.in_memory:
        means = _means(grid) if diagonals else {}
        rows = lambda layer, start, stop: _centred(grid, means, layer, start, stop)  # noqa: E731
        products = _streamed_products(grid, precision)
    else:
        centred = _centred_views(grid, precision)
        rows = lambda layer, start, stop: centred[layer][start:stop]  # noqa: E731
        products = _gram_products(grid, centred) if gram_is_cheaper(grid) else _feature_products(grid, centred)
    nothing = torch.zeros((), dtype=torch.float64)
    found = (
        _diagonals(grid, rows)
        if diagonals
        else (dict.fromkeys(products, nothing), dict.fromkeys(grid.plan.layers, nothing))
    )
    return KernelEnergies(grid.plan.n_rows, rounding, products, *found)


def gram_is_cheaper(grid: "Grid") -> bool:
    """Count the operations of both ways."""
    n, plan = grid.plan.n_rows, grid.plan
    features = sum(2 * n * plan.width(one) * plan.width(other) for one, other in plan.cells())
    features += sum(2 * n * plan.width(layer) ** 2 for layer in plan.layers)
    gram = sum(n * n * plan.width(layer) for layer in plan.layers) + n * n * len(plan.layers) ** 2
    cheaper = "Gram matrices" if gram < features else "features"
    log.debug("cka: through %s (%.3g operations through features, %.3g through Gram matrices)", cheaper, features, gram)
    return gram < features


def _means(grid: "Grid") -> dict[Layer, Tensor]:
    """Means [p] of the shifted rows; a pass over rows that are not in memory."""
    layers, plan = grid.plan.layers, grid.plan
    totals = {la: torch.zeros(plan.width(la), dtype=torch.float64, device=grid.device) for la in layers}
    for start, stop in spans(plan.n_rows, grid.reader.block_rows(layers)):
        for layer in layers:
            totals[layer] += grid.reader.shifted(layer, start, stop, torch.float64).sum(dim=0)
    return {layer: total / plan.n_rows for layer, total in totals.items()}


def _diagonals(grid: "Grid", rows: Rows) -> tuple[dict[Pair, Tensor], dict[Layer, Tensor]]:
    """Σ_r K_rr L_rr for every pair of layers, and the traces."""
    layers = grid.plan.layers
    products = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=grid.device)
    traces = torch.zeros(len(layers), dtype=torch.float64, device=grid.device)
    for start, stop in spans(grid.plan.n_rows, grid.reader.block_rows(layers)):
        lengths = [torch.linalg.vector_norm(rows(layer, start, stop), dim=1) for layer in layers]
        squares = torch.stack(lengths).double().square()
        products += squares @ squares.T
        traces += squares.sum(dim=1)
    pairs = {(one, other): products[i, j] for i, one in enumerate(layers) for j, other in enumerate(layers)}
    return pairs, dict(zip(layers, traces, strict=True))


def _centred(grid: "Grid", means: Mapping[Layer, Tensor], layer: Layer, start: int, stop: int) -> Tensor:
    rows = grid.reader.shifted(layer, start, stop, torch.float64)  # whose squares leave float32 sooner
    return rows - means[layer].to(rows.dtype)


def _centred_views(grid: "Grid", precision: torch.dtype) -> dict[Layer, Tensor]:
    """Centred rows of every layer with values near 1, those of one view side by side in one matrix."""
    centred: dict[Layer, Tensor] = {}
    for view in dict.fromkeys(view for view, _ in grid.plan.layers):
        layers = [layer for layer in grid.plan.layers if layer[0] == view]
        widths = [grid.plan.width(layer) for layer in layers]
        together = torch.empty(grid.plan.n_rows, sum(widths), dtype=precision, device=grid.device)
        for layer, part in zip(layers, torch.split(together, widths, dim=1), strict=True):
            rows = grid.reader.shifted(layer, 0, grid.plan.n_rows, _at_least(precision))
            rows -= rows.mean(dim=0, dtype=torch.float64).to(rows.dtype)
            part.copy_(rows.mul_(_towards_one(rows)))
            centred[layer] = part
    return centred


def _at_least(precision: torch.dtype) -> torch.dtype | None:
    """The type that rows are shifted and centred in: their own, or float64 where products are."""
    return torch.float64 if precision == torch.float64 else None


def _towards_one(rows: Tensor) -> float:
    """A power of two that takes the largest value near 1: energies are fourth powers, and leave float32 soon."""
    limit = 1000 if rows.dtype == torch.float64 else 120
    exponent = math.frexp(float(torch.linalg.vector_norm(rows, torch.inf)))[1]
    return 2.0 ** -max(-limit, min(limit, exponent))


def _feature_products(grid: "Grid", centred: Mapping[Layer, Tensor]) -> dict[Pair, Tensor]:
    """‖XᵀY‖²_F: each layer against all layers of the other view in one product."""
    found: dict[Pair, Tensor] = {
        (layer, layer): _cross_energies(rows, rows, [rows.shape[1]])[0] for layer, rows in centred.items()
    }
    plan = grid.plan
    with grid.progress("comparing", sum(len(plan.first[a]) for a, _ in plan.pairs), "layers") as advance:
        for a, b in plan.pairs:
            second = [(b, name) for name in plan.second[b]]
            others = _side_by_side([centred[layer] for layer in second])
            for one in ((a, name) for name in plan.first[a]):
                energies = _cross_energies(centred[one], others, [plan.width(layer) for layer in second])
                found.update(zip(((one, layer) for layer in second), energies, strict=True))
                advance(1)
    return found


def _side_by_side(parts: list[Tensor]) -> Tensor:
    """Matrices as one; without a copy where they are neighbours already."""
    first, width = parts[0], sum(part.shape[1] for part in parts)
    step = first.stride(0)
    at = first.storage_offset()
    for part in parts:
        if part.storage_offset() != at or part.stride(0) != step:
            return torch.cat(parts, dim=1)
        at += part.shape[1]
    return torch.as_strided(first, (first.shape[0], width), (step, 1))


def _cross_energies(x: Tensor, y: Tensor, widths: list[int]) -> list[Tensor]:
    """‖XᵀY_k‖²_F for the parts Y_k of Y."""
    total: Tensor | None = None
    for start, stop in spans(len(x), 2 * SUM_LENGTH):
        cross = x[start:stop].T @ y[start:stop]
        total = cross if total is None else total.double().add_(cross)
    assert total is not None
    columns = torch.linalg.vector_norm(total, dim=0).double().square()
    return [part.sum() for part in torch.split(columns, widths)]


def _streamed_products(grid: "Grid", precision: torch.dtype) -> dict[Pair, Tensor]:
    """‖XᵀY‖²_F of moments that are added up over blocks of rows."""
    widths = {layer: grid.plan.width(layer) for layer in grid.plan.layers}
    found: dict[Pair, Tensor] = {}

    def rows(layer: Layer, start: int, stop: int) -> Tensor:
        return grid.reader.shifted(layer, start, stop, _at_least(precision))

    for sums in grid.passes(widths, precision, rows):
        found.update({(layer, layer): scatter.square().sum() for layer, scatter in sums.scatter.items()})
        found.update({(one, other): cross.square().sum() for one, other, cross in sums.crosses()})
    return found


def _gram_products(grid: "Grid", centred: Mapping[Layer, Tensor]) -> dict[Pair, Tensor]:
    """⟨K, L⟩ over the upper half, tile by tile: the tiles of all layers at once, whose inner products are added up."""
    layers, rows = list(centred), list(centred.values())
    fitting = int((min(TILE_BYTES, grid.reader.free // 4) / (4 * len(layers))) ** 0.5)
    side = _even(grid.plan.n_rows, max(64, min(TILE_SIDE, fitting)))
    room = torch.empty(len(layers) * side * side, dtype=rows[0].dtype, device=grid.device)
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=grid.device)
    blocks = list(spans(grid.plan.n_rows, side))
    with grid.progress("comparing", len(blocks) * (len(blocks) + 1) // 2, "tiles") as advance:
        for i, (top, bottom) in enumerate(blocks):
            for left, right in blocks[i:]:
                height, width = bottom - top, right - left
                tiles = room[: len(layers) * height * width].view(len(layers), height, width)
                for tile, x in zip(tiles, rows, strict=True):
                    torch.mm(x[top:bottom], x[left:right].T, out=tile)
                total += (1 if left == top else 2) * _inner_products(tiles.flatten(1))
                advance(1)
    return {(one, other): total[i, j] for i, one in enumerate(layers) for j, other in enumerate(layers)}


def _even(n_rows: int, most: int) -> int:
    """Rows per block, so that all blocks are of about one size: the lower halves of diagonal tiles are work for nothing."""
    return -(-n_rows // -(-n_rows // most))


def _inner_products(tiles: Tensor) -> Tensor:
    """[layers, layers] inner products of [layers, m]."""
    whole = tiles.shape[1] // SUM_LENGTH * SUM_LENGTH
    pieces = tiles[:, :whole].reshape(len(tiles), -1, SUM_LENGTH).transpose(0, 1)
    rest = tiles[:, whole:]
    return torch.bmm(pieces, pieces.mT).sum(dim=0, dtype=torch.float64) + (rest @ rest.T).double()
