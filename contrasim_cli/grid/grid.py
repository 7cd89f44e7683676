"""What a grid computes: the state that all forms of measures share, and which measure takes which form."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.device import device_budget
from contrasim_cli.files import quoted
from contrasim_cli.grid import batches, energies, kernels, moments, rowwise, stacked, statistics, whitened, whole
from contrasim_cli.grid.plan import Blocks, Layer, Plan, Reader
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.nulls import Null
from contrasim_cli.progress import Progress, silent
from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)

Cell = tuple[int, Layer, Layer]  # position of the scorer, both layers
Scores = dict[Cell, float]
Form = Callable[["Grid", list[int]], None]


@dataclass
class Grid:
    """Scores of every scorer for every pair of layers of a plan."""

    plan: Plan
    scorers: Sequence[Scorer]
    device: torch.device
    budget: int
    precision: torch.dtype = torch.float32
    max_rows: int | None = None  # of measures that cost n², and of encoders of measures
    seed: int = 0
    progress: Progress = silent
    shuffles: int | None = (
        None  # that encoders of measures are judged by, besides the one that is their level; None: one
    )

    def __post_init__(self) -> None:
        self.budget = device_budget(self.budget, self.device)
        self.reader = Reader(self.plan, self.device, self.budget)
        self.scores: Scores = {}
        self.nulls: dict[tuple[int, int, int], Null] = {}  # by scorer and pair of views (s, a, b), where there are any
        self.full_rank: set[Layer] = set()  # layers of which it was said

    def compute(self) -> Scores:
        """All scores; NaN where a measure is undefined.

        Raises:
            InputError: a value is NaN or Inf, or a layer does not fit the budget and its measure needs it whole.
        """
        self.reader.load(self.progress)
        if self.rows_of_subset is not None:
            text = "%s: a random subset of %d of %d rows (--seed %d)"
            names = ", ".join(scorer.name for scorer in self.scorers if scorer.entry.quadratic or scorer.stacked)
            log.info(text, names, self.rows_of_subset, self.plan.n_rows, self.seed)
        groups: dict[Form, list[int]] = {}
        for s, scorer in enumerate(self.scorers):
            groups.setdefault(self._form(scorer), []).append(s)
        for form, members in groups.items():
            form(self, members)
        return self.scores

    def _form(self, scorer: Scorer) -> Form:
        measure = scorer.measure
        if scorer.stacked:
            return stacked.compute
        if measure.rowwise is not None:
            return rowwise.compute
        if scorer.encoder is not None:
            return whole.compute
        return statistics.compute if measure.own is not None else self._closed_form(measure)

    def _closed_form(self, measure: Measure) -> Form:
        if measure.pairs is not None and (self._squares_fit or not measure.pairs.gaps):
            return kernels.compute
        if measure.energy is not None and self.reader.in_memory:
            return energies.compute
        forms: list[tuple[object, Form]] = [
            (measure.energy, energies.compute),
            (measure.batches, batches.compute),
        ]
        # with fewer rows, moments are larger than the rows and resolve less
        if all(self.plan.n_rows > self.plan.width(layer) + 1 for layer in self.plan.layers):
            forms += [(measure.whiten, whitened.compute), (measure.moments, moments.compute)]
        return next((form for given, form in forms if given is not None and self._squares_fit), whole.compute)

    @cached_property
    def _squares_fit(self) -> bool:
        """Whether no square of a value leaves float64."""
        return all(map(self.reader.squares_fit, self.plan.layers))

    @property
    def rows_of_subset(self) -> int | None:
        """How many rows measures that cost n² take, if not all."""
        limited = any(scorer.entry.quadratic or scorer.stacked for scorer in self.scorers)
        return self.max_rows if limited and self.max_rows is not None and self.max_rows < self.plan.n_rows else None

    @property
    def scored_rows(self) -> int:
        """How many rows encoders of measures take."""
        return min(self.plan.n_rows, self.max_rows or self.plan.n_rows)

    def chosen(self, scorer: Scorer) -> npt.NDArray[np.int64] | None:
        """The rows of the seeded subset, where the scorer takes it."""
        if self.rows_of_subset is None or not scorer.entry.quadratic:
            return None
        rng = np.random.default_rng([self.seed, 2])
        return np.sort(rng.choice(self.plan.n_rows, self.rows_of_subset, replace=False))

    def blocks(self, scorer: Scorer, layer: Layer) -> Blocks:
        """The raw rows of a layer that a scorer takes."""
        return Blocks(self.reader, layer, self.reader.block_rows([layer], itemsize=8), self.chosen(scorer))

    def encoded(self, scorer: Scorer, layer: Layer, rows: Tensor) -> Tensor:
        """Rows as the scorer's measure takes them: through its encoder, if it has one."""
        if scorer.encoder is None:
            return rows
        store = self.plan.views[layer[0]].store
        return scorer.encoder.encode(rows, scorer.encoder.view_of(store.stem, store.path), layer[1], self.device)


def layer_grids(grid: Grid, warn: bool = True) -> dict[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Scores [layers of a, layers of b] by scorer and pair of views (s, a, b); a warning names what is undefined."""
    scores = grid.compute()
    plan = grid.plan
    found = {}
    for s, scorer in enumerate(grid.scorers):
        undefined: list[tuple[Layer, Layer]] = []
        for a, b in plan.pairs:
            values = np.array([[scores[s, (a, i), (b, j)] for j in plan.second[b]] for i in plan.first[a]])
            values[~np.isfinite(values)] = np.nan
            found[s, a, b] = values
            undefined.extend(((a, plan.first[a][i]), (b, plan.second[b][j])) for i, j in np.argwhere(np.isnan(values)))
        if undefined and warn:
            _warn_undefined(plan, scorer, undefined)
    return found


def _warn_undefined(plan: Plan, scorer: Scorer, cells: Sequence[tuple[Layer, Layer]]) -> None:
    first, second = (f"{quoted(name)} of {quoted(plan.views[view].store.path)}" for view, name in cells[0])
    more = f" and {len(cells) - 1} more pairs of layers" if len(cells) > 1 else ""
    log.warning(
        "%s is undefined (%s) for %s and %s%s; left empty", scorer.name, scorer.entry.undefined, first, second, more
    )
