"""What a grid computes, and the state that all forms of measures share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli import seeds
from contrasim_cli.device import device_budget
from contrasim_cli.grid.plan import Blocks, Layer, Plan, Reader
from contrasim_cli.nulls import Null
from contrasim_cli.progress import Progress, silent
from contrasim_cli.scoring import Scorer

Cell = tuple[int, Layer, Layer]  # position of the scorer, both layers
Scores = dict[Cell, float]


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

    @cached_property
    def squares_fit(self) -> bool:
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
        rng = seeds.stream(self.seed, seeds.QUADRATIC_ROWS)
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

    def scores_of(self, s: int, a: int, b: int) -> npt.NDArray[np.float64]:
        """What a scorer found for a pair of views [layers of a, layers of b]; NaN where it is not finite."""
        first, second = self.plan.first[a], self.plan.second[b]
        values = np.array([[self.scores[s, (a, i), (b, j)] for j in second] for i in first])
        values[~np.isfinite(values)] = np.nan
        return values
