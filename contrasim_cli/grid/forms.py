"""Which form serves which scorer: the way from its rows to the scores of all pairs of layers."""

from collections.abc import Callable, Sequence

from contrasim_cli.grid import batches, moments, rowwise, statistics, whitened
from contrasim_cli.grid import gram_products as energies
from contrasim_cli.grid import in_memory as whole
from contrasim_cli.grid import row_pairs as kernels
from contrasim_cli.grid.grid import Grid
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.scoring import Scorer

Form = Callable[[Grid, list[int]], None]


def compute(grid: Grid, members: Sequence[int]) -> None:
    """Scores of some scorers, none of which is an encoder of measures; those of one form together.

    Raises:
        InputError: a value is NaN or Inf, or a layer does not fit the budget and its measure needs it whole.
    """
    groups: dict[Form, list[int]] = {}
    for s in members:
        groups.setdefault(_form(grid, grid.scorers[s]), []).append(s)
    for form, together in groups.items():
        form(grid, together)


def _form(grid: Grid, scorer: Scorer) -> Form:
    if scorer.measure.rowwise is not None:
        return rowwise.compute
    if scorer.encoder is not None:
        return whole.compute
    return statistics.compute if scorer.measure.own is not None else _closed_form(grid, scorer.measure)


def _closed_form(grid: Grid, measure: Measure) -> Form:
    if measure.pairs is not None and (grid.squares_fit or not measure.pairs.gaps):
        return kernels.compute
    if measure.energy is not None and grid.reader.in_memory:
        return energies.compute
    forms: list[tuple[object, Form]] = [
        (measure.energy, energies.compute),
        (measure.batches, batches.compute),
    ]
    # with fewer rows, moments are larger than the rows and resolve less
    if all(grid.plan.n_rows > grid.plan.width(layer) + 1 for layer in grid.plan.layers):
        forms += [(measure.whiten, whitened.compute), (measure.moments, moments.compute)]
    return next((form for given, form in forms if given is not None and grid.squares_fit), whole.compute)
