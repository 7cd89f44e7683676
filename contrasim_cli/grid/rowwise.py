"""Sums over blocks of rows: row-wise measures and learned scores, and measures of batches of consecutive rows."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from contrasim_cli import distributed
from contrasim_cli.grid.grid import Grid, Layer, Plan
from contrasim_cli.measures.protocol import BatchForm
from contrasim_cli.store.blocks import spans


def compute(grid: Grid, members: list[int]) -> None:
    """Σ_r f(x_r, y_r) over blocks, for all pairs of layers of two views in one product."""
    plan, layers = grid.plan, grid.plan.layers
    sums = {
        (s, pair): torch.zeros(len(plan.first[pair[0]]), len(plan.second[pair[1]]), dtype=torch.float64)
        for s in members
        for pair in plan.pairs
    }
    for block in grid.reader.each_block(grid.progress):
        _add(grid, members, {layer: grid.reader.rows(layer, *block) for layer in layers}, sums)
    distributed.total(*sums.values())
    for (s, (a, b)), total in sums.items():
        for i, one in enumerate(plan.first[a]):
            for j, other in enumerate(plan.second[b]):
                grid.scores[s, (a, one), (b, other)] = float(total[i, j]) / plan.n_rows


def _add(grid: Grid, members: list[int], raw: Mapping[Layer, Tensor], sums: dict[Any, Tensor]) -> None:
    by_map: dict[Any, list[int]] = {}
    for s in members:
        form = grid.scorers[s].measure.rowwise
        assert form is not None
        by_map.setdefault((id(grid.scorers[s].checkpoint), form.map), []).append(s)
    for (_, mapping), same in by_map.items():
        scorer = grid.scorers[same[0]]
        mapped = {layer: mapping(grid.encoded(scorer, layer, rows)) for layer, rows in raw.items()}
        for s in same:
            form = grid.scorers[s].measure.rowwise
            assert form is not None
            for pair, values in zip(grid.plan.pairs, by_pair(grid.plan, mapped, mapped, form.sums), strict=True):
                sums[s, pair] += values


def by_pair(
    plan: Plan,
    first: Mapping[Layer, Tensor],
    second: Mapping[Layer, Tensor],
    function: Callable[[Tensor, Tensor], Tensor],
    lead: tuple[int, ...] = (),
) -> Iterator[Tensor]:
    """A row form's function [*lead, layers of a, layers of b] of mapped rows for every pair of views; NaN where widths differ."""
    for a, b in plan.pairs:
        one, other = [first[a, n] for n in plan.first[a]], [second[b, n] for n in plan.second[b]]
        out = torch.full((*lead, len(one), len(other)), torch.nan, dtype=torch.float64)
        for width in {rows.shape[1] for rows in one} & {rows.shape[1] for rows in other}:
            i, j = ([k for k, rows in enumerate(side) if rows.shape[1] == width] for side in (one, other))
            part = function(torch.stack([one[k] for k in i]), torch.stack([other[k] for k in j]))
            out[..., torch.tensor(i).unsqueeze(1), torch.tensor(j)] = part.cpu()
        yield out


def compute_batches(grid: Grid, members: list[int]) -> None:
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
    layers = grid.plan.layers
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=grid.device)
    own = [batch for batch in spans(grid.plan.n_rows, form.rows) if batch[0] in range(*grid.reader.span)]
    with grid.progress("comparing", len(own), "batches") as advance:
        for first, last in spans(len(own), max(1, grid.reader.block_rows // form.rows)):  # read at once
            begin, end = own[first][0], own[last - 1][1]
            blocks = [grid.reader.rows(layer, begin, end) for layer in layers]
            for start, stop in spans(end - begin, form.rows):
                if stop - start >= form.fewest:
                    kernels = torch.stack([form.kernel(rows[start:stop]) for rows in blocks])
                    total += kernels @ kernels.T
            advance(last - first)
    distributed.total(total)
    return total
