"""Sums over blocks of rows: row-wise measures and learned scores, and measures of batches of consecutive rows."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, host, xp
from contrasim_cli.grid.grid import Grid, Layer, Plan
from contrasim_cli.measures.protocol import BatchForm, RowForm
from contrasim_cli.store.blocks import spans


def compute(grid: Grid, members: list[int]) -> None:
    """Σ_r f(x_r, y_r) over blocks, for all pairs of layers of two views in one product."""
    plan, layers = grid.plan, grid.plan.layers
    sums = {
        (s, pair): xp.zeros(
            len(plan.first[pair[0]]), len(plan.second[pair[1]]), dtype=xp.float64, device=host(grid.device)
        )
        for s in members
        for pair in plan.pairs
    }
    # of mapped rows, by the first scorer with a map; also where a rank has no rows
    means = {
        (same[0], layer): xp.zeros(
            grid.scorers[same[0]].encoded or plan.width(layer), dtype=xp.float64, device=host(grid.device)
        )
        for same in _by_map(grid, members)
        if grid.levels and any(_form(grid, s).bilinear for s in same)
        for layer in layers
    }
    for block in grid.reader.each_block(grid.progress):
        _add(grid, members, {layer: grid.reader.rows(layer, *block) for layer in layers}, sums, means)
    distributed.total(*sums.values(), *means.values())
    for (s, (a, b)), total in sums.items():
        for i, one in enumerate(plan.first[a]):
            for j, other in enumerate(plan.second[b]):
                grid.scores[s, (a, one), (b, other)] = float(total[i, j]) / plan.n_rows
    for same in _by_map(grid, members) if grid.levels else ():
        for s in [s for s in same if _form(grid, s).bilinear]:
            _note_shuffled(grid, s, {layer: means[same[0], layer].unsqueeze(0) / plan.n_rows for layer in layers})


def _note_shuffled(grid: Grid, s: int, means: Mapping[Layer, Tensor]) -> None:
    """The mean over all shuffles: what a bilinear form makes of the means [1, p] of mapped rows."""
    plan = grid.plan
    for (a, b), values in zip(plan.pairs, by_pair(plan, means, means, _form(grid, s).sums), strict=True):
        for i, one in enumerate(plan.first[a]):
            for j, other in enumerate(plan.second[b]):
                grid.shuffled[s, (a, one), (b, other)] = float(values[i, j]), math.nan


def _form(grid: Grid, s: int) -> RowForm:
    form = grid.scorers[s].measure.rowwise
    assert form is not None
    return form


def _by_map(grid: Grid, members: list[int]) -> list[list[int]]:
    """The scorers that map rows alike, together."""
    by_map: dict[Any, list[int]] = {}
    for s in members:
        by_map.setdefault((id(grid.scorers[s].checkpoint), _form(grid, s).map), []).append(s)
    return list(by_map.values())


def _add(
    grid: Grid,
    members: list[int],
    raw: Mapping[Layer, Tensor],
    sums: dict[Any, Tensor],
    means: dict[tuple[int, Layer], Tensor],
) -> None:
    for same in _by_map(grid, members):
        scorer, mapping = grid.scorers[same[0]], _form(grid, same[0]).map
        mapped = {layer: mapping(grid.encoded(scorer, layer, rows)) for layer, rows in raw.items()}
        for layer, rows in mapped.items():
            if (same[0], layer) in means:
                means[same[0], layer] += xp.sum(rows, dim=0, dtype=xp.float64).cpu()
        for s in same:
            for pair, values in zip(
                grid.plan.pairs, by_pair(grid.plan, mapped, mapped, _form(grid, s).sums), strict=True
            ):
                sums[s, pair] += values


def by_pair(
    plan: Plan,
    first: Mapping[Layer, Tensor],
    second: Mapping[Layer, Tensor],
    function: Callable[[Tensor, Tensor], Tensor],
    lead: tuple[int, ...] = (),
) -> Iterator[Tensor]:
    """A row form's function [*lead, layers of a, layers of b] of mapped rows for every pair of views; NaN where widths differ."""
    device = host(next(iter(first.values())).device)
    for a, b in plan.pairs:
        one, other = [first[a, n] for n in plan.first[a]], [second[b, n] for n in plan.second[b]]
        out = xp.full((*lead, len(one), len(other)), xp.nan, dtype=xp.float64, device=device)
        for width in {rows.shape[1] for rows in one} & {rows.shape[1] for rows in other}:
            i, j = ([k for k, rows in enumerate(side) if rows.shape[1] == width] for side in (one, other))
            part = function(xp.stack([one[k] for k in i]), xp.stack([other[k] for k in j]))
            out[..., np.array(i)[:, None], np.array(j)] = part.cpu()
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


def _sums(grid: Grid, form: BatchForm) -> Tensor:
    """[layers, layers] inner products of kernels, summed over batches."""
    layers = grid.plan.layers
    total = xp.zeros(len(layers), len(layers), dtype=xp.float64, device=grid.device)
    own = [batch for batch in spans(grid.plan.n_rows, form.rows) if batch[0] in range(*grid.reader.span)]
    with grid.progress("comparing", len(own), "batches") as advance:
        for first, last in spans(len(own), max(1, grid.reader.block_rows // form.rows)):  # read at once
            begin, end = own[first][0], own[last - 1][1]
            blocks = [grid.reader.rows(layer, begin, end) for layer in layers]
            for start, stop in spans(end - begin, form.rows):
                if stop - start >= form.fewest:
                    kernels = xp.stack([form.kernel(rows[start:stop]) for rows in blocks])
                    total += kernels @ kernels.T
            advance(last - first)
    distributed.total(total)
    return total
