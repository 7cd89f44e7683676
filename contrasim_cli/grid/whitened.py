"""Factors from moments: the CCA family and regression.

Moments of the rows give whitening maps; moments of the whitened rows, which are nearly orthonormal, the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from contrasim_cli.grid import in_memory as whole
from contrasim_cli.grid.grid import Grid
from contrasim_cli.grid.moments import MomentSums, chunks, doubled, passes
from contrasim_cli.grid.plan import Layer, size, spans
from contrasim_cli.measures.cca import from_whitened
from contrasim_cli.measures.protocol import Moments

NEARLY = 1e-2  # by which whitened rows may be off orthonormal


def compute(grid: Grid, members: list[int]) -> None:
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
            whole.compute(grid, same, left)


def _whitenings(grid: Grid, whiten: Callable[[Moments], Any]) -> tuple[dict[Layer, Tensor], dict[Layer, Any]]:
    """Means of the shifted rows and factors of every layer, as many layers at once as fit."""
    shifted = doubled(grid)
    means: dict[Layer, Tensor] = {}
    maps: dict[Layer, Any] = {}
    widths = {layer: grid.plan.width(layer) for layer in grid.plan.layers}
    for layers in chunks(grid.plan.layers, widths, max(1, grid.reader.free // 16), max(widths.values())):
        sums = MomentSums(widths, layers, [], torch.float64, grid.device)
        for start, stop in spans(grid.plan.n_rows, grid.reader.block_rows(layers, itemsize=8)):
            sums.add({layer: shifted(layer, start, stop) for layer in layers})
        means |= sums.means
        maps |= {layer: whiten(Moments(grid.plan.n_rows, means[layer], sums.scatter[layer])) for layer in layers}
    return means, maps


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
