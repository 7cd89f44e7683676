"""Everything that resampling is asked for, of every scorer by the form that serves it."""

import logging

from contrasim_cli.confidence import prepared, rowwise, stacked
from contrasim_cli.confidence.estimates import Confidence
from contrasim_cli.confidence.resampling import Resampling
from contrasim_cli.grid import Cell

log = logging.getLogger(__name__)


def compute(sampling: Resampling) -> dict[Cell, Confidence]:
    """Confidence of every cell; `about` and `note` of the resampling then say how."""
    plan, scorers = sampling.grid.plan, sampling.grid.scorers
    sampling.found = {(s, *cell): Confidence() for s in range(len(scorers)) for cell in plan.cells()}
    if by_rows := [s for s, scorer in enumerate(scorers) if scorer.measure.rowwise is not None]:
        rowwise.compute(sampling, by_rows)
    if together := [s for s, scorer in enumerate(scorers) if scorer.stacked]:
        stacked.compute(sampling, together)
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
