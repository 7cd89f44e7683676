"""Measures that are sums over batches of consecutive rows, each of which is read once."""

import torch

from contrasim_cli.grid.grid import Grid
from contrasim_cli.grid.plan import spans
from contrasim_cli.measures.protocol import BatchForm


def compute(grid: Grid, members: list[int]) -> None:
    """The kernels of a batch of all layers at once, whose inner products are added up."""
    layers = grid.plan.layers
    place = {layer: k for k, layer in enumerate(layers)}
    for s in members:
        form = grid.scorers[s].measure.batches
        assert form is not None
        total = _sums(grid, form)
        for one, other in grid.plan.cells():
            i, j = place[one], place[other]
            grid.scores[s, one, other] = float(form.score(total[i, j], total[i, i], total[j, j]))


def _sums(grid: Grid, form: BatchForm) -> torch.Tensor:
    """[layers, layers] inner products of kernels, summed over batches."""
    layers, n_rows = grid.plan.layers, grid.plan.n_rows
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=grid.device)
    batches = max(1, grid.reader.block_rows(layers, itemsize=8) // form.rows)  # read at once
    with grid.progress("comparing", n_rows, "rows") as advance:
        for first, last in spans(n_rows, batches * form.rows):
            blocks = [grid.reader.rows(layer, first, last) for layer in layers]
            for start, stop in spans(last - first, form.rows):
                if stop - start >= form.fewest:
                    kernels = torch.stack([form.kernel(rows[start:stop]) for rows in blocks])
                    total += kernels @ kernels.T
            advance(last - first)
    return total
