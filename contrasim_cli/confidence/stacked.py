"""Confidence of encoders of measures, whose score of a cell depends on the whole grid: grids of the replicates' rows.

Intervals are from halves of the subset of rows, as those of measures that are not row-wise; p-values and z-scores from grids in
which the second store's rows are shuffled.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from contrasim_cli.confidence.estimates import Use
from contrasim_cli.confidence.resampling import Resampling
from contrasim_cli.grid import Cell, Grid
from contrasim_cli.grid.compute import compute as compute_grid
from contrasim_cli.grid.compute import taken

Rows = npt.NDArray[np.int64]


def compute(sampling: Resampling, members: Sequence[int]) -> None:
    """Both kinds of replicates, of all these scorers together."""
    if sampling.asked.bootstrap:
        _halves(sampling, members)
    if sampling.asked.permutations:
        _shuffles(sampling, members)


def _halves(sampling: Resampling, members: Sequence[int]) -> None:
    subset, count, rows = sampling.subset.numpy(), len(sampling.subset), sampling.grid.scored_rows
    found = []
    with sampling.grid.progress("subsampling", sampling.asked.bootstrap, "draws") as advance:
        for r in range(sampling.asked.bootstrap):
            drawn = subset[sampling.draws(r, r + 1)[0].cpu().numpy()]
            found.append(_scores(sampling, members, drawn, None))
            advance(1)
    scale = float((sampling.half * count / ((count - sampling.half) * rows)) ** 0.5)
    method = f"{sampling.half} of {count} rows without replacement, spread scaled to {rows} rows"
    for k, s in enumerate(members):
        cells = {cell: np.array([one[(k, *cell)] for one in found]) for cell in sampling.grid.plan.cells()}
        sampling.set_intervals(s, cells, scale)
        sampling.intervals[sampling.grid.scorers[s].name] = Use(count, method)


def _shuffles(sampling: Resampling, members: Sequence[int]) -> None:
    subset, count = sampling.subset.numpy(), len(sampling.subset)
    observed = _scores(sampling, members, subset, None)
    found = []
    with sampling.grid.progress("shuffling", sampling.asked.permutations, "times") as advance:
        for r in range(sampling.asked.permutations):
            order = sampling.orders(count, r, r + 1)[0].cpu().numpy()
            found.append(_scores(sampling, members, subset, order))
            advance(1)
    for k, s in enumerate(members):
        for cell in sampling.grid.plan.cells():
            values = np.array([one[(k, *cell)] for one in found])
            sampling.set_significance(s, cell, observed[(k, *cell)], values)
        sampling.shuffles[sampling.grid.scorers[s].name] = Use(count, f"{count} rows of Y")


def _scores(sampling: Resampling, members: Sequence[int], rows: Rows, order: Rows | None) -> dict[Cell, float]:
    """Scores on these rows of every pair of stores, those of the second store in another order where one is given."""
    grid = sampling.grid
    found: dict[Cell, float] = {}
    scorers = [grid.scorers[s] for s in members]
    for a, b in grid.plan.pairs:
        views = list(grid.plan.views)
        views[a], views[b] = taken(views[a], rows), taken(views[b], rows if order is None else rows[order])
        inner = Grid(replace(grid.plan, views=views, pairs=[(a, b)]), scorers, grid.device, grid.budget, seed=grid.seed)
        found |= compute_grid(inner)
    return found
