"""Everything that resampling is asked for, of every scorer by the form that serves it.

The score of a cell by an encoder of measures depends on the whole grid: its replicates are grids of the replicates' rows. Intervals
are from halves of the subset of rows, as those of measures that are not row-wise; p-values and z-scores from grids in which the
second store's rows are shuffled.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from contrasim_cli.confidence import prepared, rowwise
from contrasim_cli.confidence.resampling import Confidence, Resampling, Use
from contrasim_cli.grid import Cell, Grid
from contrasim_cli.grid.compute import compute as compute_grid
from contrasim_cli.grid.compute import taken

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


def compute(sampling: Resampling) -> dict[Cell, Confidence]:
    """Confidence of every cell; `about` and `note` of the resampling then say how."""
    plan, scorers = sampling.grid.plan, sampling.grid.scorers
    sampling.grid.reader.load(sampling.grid.progress)
    sampling.found = {(s, *cell): Confidence() for s in range(len(scorers)) for cell in plan.cells()}
    if by_rows := [s for s, scorer in enumerate(scorers) if scorer.measure.rowwise is not None]:
        rowwise.compute(sampling, by_rows)
    if together := [s for s, scorer in enumerate(scorers) if scorer.stacked]:
        _compute_stacked(sampling, together)
    for members in sampling.wholes:
        prepared.compute(sampling, members)
    _note_blind(sampling)
    return sampling.found


def _note_blind(sampling: Resampling) -> None:
    """Say where shuffles tell nothing."""
    for s, scorer in enumerate(sampling.grid.scorers):
        cells = [sampling.found[(s, *cell)] for cell in sampling.grid.plan.cells()]
        blind = sum(cell.p_value == 1.0 and cell.z_score is None for cell in cells)
        if blind and sampling.asked.permutations > 1:
            text = "%s: every shuffle of rows scores the same for %d pair(s) of layers, so that p is 1 and there is no z-score"
            log.info(text, scorer.name, blind)


def _compute_stacked(sampling: Resampling, members: Sequence[int]) -> None:
    """Both kinds of replicates, of all these scorers together."""
    if sampling.asked.bootstrap:
        _halves(sampling, members)
    if sampling.asked.permutations:
        _shuffles(sampling, members)


def _halves(sampling: Resampling, members: Sequence[int]) -> None:
    subset, rows = sampling.subset, sampling.grid.plan.n_rows
    found = []
    with sampling.grid.progress("subsampling", sampling.asked.bootstrap, "draws") as advance:
        for r in range(sampling.asked.bootstrap):
            drawn = subset[sampling.draws(r, r + 1)[0].cpu().numpy()]
            found.append(_scores(sampling, members, drawn, None))
            advance(1)
    for k, s in enumerate(members):
        cells = {cell: np.array([one[(k, *cell)] for one in found]) for cell in sampling.grid.plan.cells()}
        sampling.set_intervals(s, cells, sampling.scale(rows))
        sampling.intervals[sampling.grid.scorers[s].name] = sampling.halves(rows)


def _shuffles(sampling: Resampling, members: Sequence[int]) -> None:
    subset, count = sampling.subset, len(sampling.subset)
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
        plan = replace(grid.plan, views=views, pairs=[(a, b)])
        inner = Grid(plan, scorers, grid.device, grid.budget, grid.precision, grid.seed)
        found |= compute_grid(inner)
    return found
