"""All scores of a grid: rows are read, and every scorer takes the form that serves it."""

import itertools
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from contrasim_cli.cautions import zero_row
from contrasim_cli.grid import forms, stacked
from contrasim_cli.grid.grid import Grid, Scores
from contrasim_cli.grid.plan import Layer, Plan
from contrasim_cli.names import quoted
from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)


def compute(grid: Grid) -> Scores:
    """Scores of every scorer for every pair of layers; NaN where a measure is undefined.

    Raises:
        InputError: a value is NaN or Inf, or a layer does not fit the budget and its measure needs it whole.
    """
    grid.reader.load(grid.progress)
    if grid.rows_of_subset is not None:
        text = "%s: a random subset of %d of %d rows (--seed %d)"
        names = ", ".join(scorer.name for scorer in grid.scorers if scorer.entry.quadratic or scorer.stacked)
        log.info(text, names, grid.rows_of_subset, grid.plan.n_rows, grid.seed)
    forms.compute(grid, [s for s, scorer in enumerate(grid.scorers) if not scorer.stacked])
    stacked.compute(grid, [s for s, scorer in enumerate(grid.scorers) if scorer.stacked])
    return grid.scores


def layer_grids(grid: Grid) -> dict[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Scores [layers of a, layers of b] by scorer and pair of views (s, a, b); a warning names what is undefined."""
    compute(grid)
    found = {(s, a, b): grid.scores_of(s, a, b) for s in range(len(grid.scorers)) for a, b in grid.plan.pairs}
    for s, scorer in enumerate(grid.scorers):
        undefined = [
            ((a, grid.plan.first[a][i]), (b, grid.plan.second[b][j]))
            for a, b in grid.plan.pairs
            for i, j in np.argwhere(np.isnan(found[s, a, b]))
        ]
        if undefined:
            _warn_undefined(grid.plan, scorer, undefined)
    return found


def _warn_undefined(plan: Plan, scorer: Scorer, cells: Sequence[tuple[Layer, Layer]]) -> None:
    first, second = (f"{quoted(name)} of {quoted(plan.views[view].store.path)}" for view, name in cells[0])
    more = f" and {len(cells) - 1} more pairs of layers" if len(cells) > 1 else ""
    zero = ""
    if scorer.entry.empty_on_zero_rows and scorer.encoder is None:
        meeting = [cell for cell in cells if not scorer.mismatch(*map(plan.width, cell))]
        zero = zero_row((plan.views[view], name) for view, name in dict.fromkeys(itertools.chain(*meeting)))
    text = "%s is undefined (%s) for %s and %s%s; left empty%s"
    log.warning(text, scorer.name, scorer.entry.undefined, first, second, more, zero)
