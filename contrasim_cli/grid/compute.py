"""All scores of a grid: which form serves which scorer, and what learned measures over measures make of closed forms.

Learned measures over measures take the closed forms of every pair of layers, as they are and with rows shuffled. The shuffled rows
are those of the second side, in one seeded order for all its layers. Where rows are read from disk, rows are turned by a seeded
offset instead, so that they are read in order.
"""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed, seeds
from contrasim_cli.cautions import zero_row
from contrasim_cli.grid import gram_products, moments, prepared, row_pairs, rowwise
from contrasim_cli.grid.grid import Grid, Layer, Plan, Scores
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.names import quoted
from contrasim_cli.nulls import Null
from contrasim_cli.scoring import Scorer, closed_form
from contrasim_cli.stacking.measures import identity
from contrasim_cli.store import View

log = logging.getLogger(__name__)

POOLED, MOST_SHUFFLES = 100, 19  # cells of shuffled rows that make a null, and grids of them
CLEAR = 5.0  # standard deviations of shuffled rows

Form = Callable[[Grid, list[int]], None]
Floats = npt.NDArray[np.float64]
Pair = tuple[int, int]


def compute(grid: Grid) -> Scores:
    """Scores of every scorer for every pair of layers; NaN where a measure is undefined.

    Raises:
        InputError: a value is NaN or Inf, or a layer does not fit the budget and its measure needs it whole.
    """
    grid.reader.load(grid.progress)
    compute_closed(grid, [s for s, scorer in enumerate(grid.scorers) if not scorer.stacked])
    compute_stacked(grid, [s for s, scorer in enumerate(grid.scorers) if scorer.stacked])
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


def compute_closed(grid: Grid, members: Sequence[int]) -> None:
    """Scores of some scorers, none of which is an encoder of measures; those of one form together.

    Raises:
        InputError: a value is NaN or Inf, or a layer does not fit the budget and its measure needs it whole.
    """
    groups: dict[Form, list[int]] = {}
    for s in members:
        groups.setdefault(_form(grid, grid.scorers[s]), []).append(s)
    energies = groups.pop(gram_products.compute, None)
    for form, together in groups.items():
        form(grid, together)
    if energies:  # at last, because it may take rows over
        gram_products.compute(grid, energies)


def _form(grid: Grid, scorer: Scorer) -> Form:
    if scorer.measure.rowwise is not None:
        return rowwise.compute
    if scorer.encoder is not None:
        return prepared.compute
    return prepared.compute_numbers if scorer.measure.own is not None else _closed_form(grid, scorer.measure)


def _closed_form(grid: Grid, measure: Measure) -> Form:
    if measure.pairs is not None and (grid.squares_fit or not measure.pairs.gaps):
        return row_pairs.compute
    if measure.energy is not None and grid.reader.in_memory:
        return gram_products.compute
    forms: list[tuple[object, Form]] = [
        (measure.energy, gram_products.compute),
        (measure.batches, rowwise.compute_batches),
    ]
    # with fewer rows, moments are larger than the rows and resolve less
    if all(grid.plan.n_rows > grid.plan.width(layer) + 1 for layer in grid.plan.layers):
        forms += [(measure.whiten, moments.compute_whitened), (measure.moments, moments.compute)]
    return next((form for given, form in forms if given is not None and grid.squares_fit), prepared.compute)


@dataclass(frozen=True)
class Stack:
    """Closed forms of a pair of stores [measures, layers of a, layers of b], and the same with rows shuffled [shuffles, …]."""

    values: Floats
    shuffled: Floats


def compute_stacked(grid: Grid, members: list[int]) -> None:
    """Scores of every cell, and what lies between chance and identity, of all encoders of measures."""
    by_measures: dict[tuple[str, ...], list[int]] = {}
    for s in members:
        checkpoint = grid.scorers[s].checkpoint
        assert checkpoint is not None
        by_measures.setdefault(checkpoint.config.measures, []).append(s)
    for names, same in by_measures.items():
        for (a, b), stack in stacks(grid, names, 1 + _shuffles(grid)).items():
            for s in same:
                _score(grid, s, (a, b), stack)


def _shuffles(grid: Grid) -> int:
    """How many shuffles scores are held against: as many as asked for, or enough for a hundred cells."""
    if grid.shuffles is not None:
        return grid.shuffles
    cells = min(len(grid.plan.first[a]) * len(grid.plan.second[b]) for a, b in grid.plan.pairs)
    return max(1, min(MOST_SHUFFLES, math.ceil(POOLED / cells)))


def _score(grid: Grid, s: int, pair: Pair, stack: Stack) -> None:
    import torch

    (a, b), checkpoint = pair, grid.scorers[s].checkpoint
    assert checkpoint is not None
    values, shuffled = (torch.from_numpy(grids) for grids in (stack.values, stack.shuffled))
    of = torch.tensor(identity(checkpoint.config.measures), dtype=torch.float64)
    sides = (grid.plan.views[a], grid.plan.first[a]), (grid.plan.views[b], grid.plan.second[b])
    whole = all(len(names) == len(view.store.layers) for view, names in sides)
    judged = checkpoint.encoder.grids.cpu().eval().judge(values, shuffled, of, whole)
    if len(judged.nulls):
        none, calibrated = np.zeros(judged.scores.shape), judged.calibrated.double().numpy()
        _warn_unrelated(grid, s, pair, calibrated, judged.nulls.double().numpy())
        grid.nulls[s, a, b] = Null(judged.nulls.double().numpy(), level=none, pooled=True, judged=calibrated)
    for i, one in enumerate(grid.plan.first[a]):
        for j, other in enumerate(grid.plan.second[b]):
            grid.scores[s, (a, one), (b, other)] = float(judged.scores[i, j])


def _warn_unrelated(grid: Grid, s: int, pair: Pair, calibrated: Floats, nulls: Floats) -> None:
    """Say where no two layers are more alike than shuffled rows are."""
    if np.isfinite(calibrated).any() and np.nanmax(calibrated) < CLEAR * np.nanstd(nulls):
        first, second = (quoted(grid.plan.views[v].store.path) for v in pair)
        text = "%s: no layer of %s is clearly more similar to one of %s than with rows shuffled; are these the same examples?"
        log.warning(text, grid.scorers[s].name, first, second)


def stacks(grid: Grid, names: Sequence[str], shuffles: int) -> dict[Pair, Stack]:
    """The closed forms of every pair of stores of a grid, in one grid of their own that factors every layer once."""
    plan = grid.plan
    seconds = list(dict.fromkeys(b for _, b in plan.pairs))
    orders = [_order(grid, 1 + len(seconds) * shuffles, k) for k in range(shuffles)]
    views = [sized(view) for view in plan.views]
    place = {(b, k): len(views) + seconds.index(b) * shuffles + k for b in seconds for k in range(shuffles)}
    views += [sized(taken(plan.views[b], order)) for b in seconds for order in orders]
    first = [*plan.first, *(plan.first[b] for b in seconds for _ in orders)]
    second = [*plan.second, *(plan.second[b] for b in seconds for _ in orders)]
    pairs = [(a, c) for a, b in plan.pairs for c in (b, *(place[b, k] for k in range(shuffles)))]
    scorers = closed_form(names)
    inner = Grid(
        Plan(views, pairs, first, second), scorers, grid.device, grid.budget, grid.precision, progress=grid.progress
    )
    inner.reader.load(grid.progress)
    compute_closed(inner, range(len(names)))

    def together(a: int, b: int) -> Floats:
        return np.stack([inner.scores_of(s, a, b) for s in range(len(names))])

    return {
        (a, b): Stack(together(a, b), np.stack([together(a, place[b, k]) for k in range(shuffles)]))
        for a, b in plan.pairs
    }


def _order(grid: Grid, copies: int, shuffle: int) -> npt.NDArray[np.int64]:
    """One order of the rows in which none keeps its place on disk; a permutation where all fit into memory."""
    rng = seeds.stream(grid.seed, seeds.STACKED_SHUFFLE, shuffle)
    rows = grid.plan.n_rows
    # whether one process would keep them, so that several take the same order
    if grid.reader.size <= distributed.budget_of_machine(grid.budget) // copies // 2:
        return rng.permutation(rows)
    return np.roll(np.arange(rows), int(rng.integers(rows // 4, max(1 + rows // 4, 3 * rows // 4))))


def sized(view: View) -> View:
    """Rows over the root of their width: what measures that mind lengths say does not depend on how wide models are."""
    return Sized(view.store, view.rows, inner=view)


@dataclass(frozen=True)
class Sized(View):
    """A view whose rows are divided by the root of their width."""

    inner: View = field(kw_only=True)

    def read(self, layer: str, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.floating]:
        """Rows [n, width] of a layer; otherwise as those of any view."""
        block = self.inner.read(layer, rows)
        return block / block.dtype.type(np.sqrt(block.shape[1]))


def taken(view: View, rows: npt.NDArray[np.int64] | None) -> View:
    """A view of these rows of a view, in this order."""
    if rows is None:
        return view
    return replace(view, rows=rows if view.rows is None else view.rows[rows])
