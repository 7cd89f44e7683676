"""What all resampling shares: what is asked for, the subset of rows, draws and shuffles by seed, what is found from replicates."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contrasim_cli import nulls, seeds
from contrasim_cli.arrays import Tensor, as_tensor
from contrasim_cli.benchmarks.outcomes import LEVEL
from contrasim_cli.errors import InputError
from contrasim_cli.grid import Cell, Grid, Layer
from contrasim_cli.nulls import Null
from contrasim_cli.scoring import Scorer
from contrasim_cli.store.blocks import RowIndex

log = logging.getLogger(__name__)

ROWS = 2000  # of the subset

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """Replicates of each kind, 0 for none; at most `rows` rows where not all are used.

    `nulls`: shuffles that scores are held against; the same ones serve permutations.
    """

    bootstrap: int = 0
    permutations: int = 0
    rows: int = ROWS
    seed: int = 0
    nulls: int = 0

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.bootstrap or self.permutations or self.nulls)

    @property
    def columns(self) -> tuple[str, ...]:
        """What is found for a cell, by the names of result columns."""
        interval = ("ci_low", "ci_high") if self.bootstrap else ()
        return (*interval, "p_value", "z_score") if self.permutations else interval


class Confidence(NamedTuple):
    """The interval and p-value of one cell; None where they were not asked for or are undefined."""

    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    z_score: float | None = None


@dataclass(frozen=True)
class Use:
    """How a scorer's confidence was found, and on how many rows."""

    rows: int
    method: str


def interval(replicates: Values, score: float, scale: float | None) -> tuple[float | None, float | None]:
    """Percentiles of the replicates [B]; with a scale, scaled around the score. None where one is undefined."""
    if not (np.isfinite(score) and replicates.size and np.isfinite(replicates).all()):
        return None, None
    ends = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if scale is not None:
        ends = score + scale * (ends - replicates.mean())
    return float(ends[0]), float(ends[1])


def significance(shuffled: Values, observed: float, higher: bool) -> tuple[float | None, float | None]:
    """P-value and z-score of an observed score among shuffled ones [B]; z is None where these are all equal."""
    sign = 1.0 if higher else -1.0
    found = nulls.significance(sign * shuffled, np.array(sign * observed))
    p, z = (None if np.isnan(value) else float(value) for value in found)
    return p, z


@dataclass
class Resampling:
    """Confidence for every cell of a grid that has its scores."""

    grid: Grid
    asked: Asked
    found: dict[Cell, Confidence] = field(default_factory=dict)
    intervals: dict[str, Use] = field(default_factory=dict)  # by scorer
    shuffles: dict[str, Use] = field(default_factory=dict)
    nulls: dict[str, Use] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw the subset.

        Raises:
            InputError: its rows do not fit the budget.
        """
        rows = self.grid.plan.n_rows
        count = min(rows, self.asked.rows)
        subset = (
            np.arange(rows)
            if count == rows
            else np.sort(self.rng(seeds.CONFIDENCE_SUBSET).choice(rows, count, replace=False))
        )
        self.subset = subset
        self.half = count // 2
        self._encoded: dict[Any, Tensor] = {}
        self._check_memory(count)

    def _check_memory(self, count: int) -> None:
        widths = [self.grid.plan.width(layer) for layer in self.grid.plan.layers]
        need = 8 * count * (sum(widths) + 4 * max(count, *widths))
        if self.wholes and need > self.grid.reader.free:
            raise InputError(
                f"--confidence-rows {count} needs about {need / 2**20:.0f} MiB besides what is kept, --memory leaves "
                f"{self.grid.reader.free / 2**20:.0f}; raise --memory or ask for fewer rows"
            )

    @property
    def wholes(self) -> list[list[int]]:
        """Scorers whose cells are compared one by one, those together that share prepared layers."""
        groups: dict[Any, list[int]] = {}
        for s, scorer in enumerate(self.grid.scorers):
            if scorer.measure.rowwise is None and not scorer.stacked:
                groups.setdefault(scorer.key, []).append(s)
        return list(groups.values())

    @property
    def about(self) -> dict[str, Any]:
        """What JSON says of how it was done."""
        kinds = {
            "bootstrap": (self.asked.bootstrap, self.intervals),
            "permutations": (self.asked.permutations, self.shuffles),
            **({"null": (self.asked.nulls, self.nulls)} if self.nulls else {}),
        }
        return {
            "replicates": {kind: count for kind, (count, _) in kinds.items()},
            "confidence_rows": {
                kind: {name: use.rows for name, use in uses.items()} for kind, (_, uses) in kinds.items()
            },
            "confidence_method": {
                kind: {name: use.method for name, use in uses.items()} for kind, (_, uses) in kinds.items()
            },
        }

    def note(self) -> None:
        """Say on stderr how it was done."""
        for text, count, uses in (
            ("95 %% intervals from %d replicates, %s (%s)", self.asked.bootstrap, self.intervals),
            (
                f"p-values from %d shuffles (1/{self.asked.permutations + 1} at least), %s (%s)",
                self.asked.permutations,
                self.shuffles,
            ),
            ("null from %d shuffles, %s (%s)", self.asked.nulls, self.nulls),
        ):
            for use in dict.fromkeys(uses.values()):
                names = ", ".join(name for name, u in uses.items() if u == use)
                log.info(text, count, use.method, names)

    def rng(self, *purpose: int) -> np.random.Generator:
        """A generator for one purpose."""
        return seeds.stream(self.asked.seed, *purpose)

    def orders(self, count: int, start: int, stop: int) -> Tensor:
        """Shuffles [stop - start, count] of so many rows."""
        orders = np.stack(
            [self.rng(seeds.CONFIDENCE_SHUFFLE, replicate).permutation(count) for replicate in range(start, stop)]
        )
        return as_tensor(orders, self.grid.device)

    def offsets(self, count: int, rolls: int) -> list[int]:
        """By how much rows are rolled: one seeded offset in each of so many equal parts of the rows, the first row's left out."""
        ends = np.linspace(min(1, count - 1), count, rolls + 1)
        return [int(at) for at in self.rng(seeds.CONFIDENCE_OFFSET).uniform(ends[:-1], ends[1:])]

    def draws(self, start: int, stop: int) -> Tensor:
        """Positions [stop - start, m] in the subset, without replacement, in order."""
        count = len(self.subset)
        draws = [self.rng(seeds.CONFIDENCE_DRAW, r).choice(count, self.half, replace=False) for r in range(start, stop)]
        return as_tensor(np.sort(np.stack(draws), axis=-1), self.grid.device)

    def halves(self, rows: int) -> Use:
        """How intervals of scores on so many rows are found by halves of the subset."""
        count = len(self.subset)
        return Use(count, f"{self.half} of {count} rows without replacement, spread scaled to {rows} rows")

    def scale(self, rows: int, growth: float = 0.0, most: int | None = None) -> float:
        """What takes the spread of scores on halves to that of the score on so many rows, with which it grows up to `most` rows."""
        count = len(self.subset)
        times = min(rows, most or rows) / min(self.half, most or rows)
        return float(times**growth * (self.half * count / ((count - self.half) * rows)) ** 0.5)

    def set(self, s: int, cell: tuple[Layer, Layer], **values: float | None) -> None:
        """Set some of what is found for a cell."""
        self.found[(s, *cell)] = self.found[(s, *cell)]._replace(**values)

    def set_intervals(self, s: int, replicates: Mapping[tuple[Layer, Layer], Values], scale: float | None) -> None:
        """Intervals of every pair of layers from its replicates; a warning where there is none."""
        empty = 0
        for cell, values in replicates.items():
            score = self.grid.scores[(s, *cell)]
            low, high = interval(values, score, scale)
            empty += low is None and np.isfinite(score)
            self.set(s, cell, ci_low=low, ci_high=high)
        if empty:
            log.warning(
                "%s: no interval for %d pair(s) of layers: the measure is undefined on some draw of rows (%s)",
                self.grid.scorers[s].name,
                empty,
                self.grid.scorers[s].entry.undefined,
            )

    def shuffles_of(self, s: int) -> int:
        """How many shuffles a scorer needs: those of its p-values, and of its null."""
        return max(self.asked.permutations, self.asked.nulls)

    def set_shuffled(self, s: int, use: Use, observed: Values, shuffled: Values, level: Values | None) -> None:
        """What shuffles [N, cells] score, and the same rows as they are [cells], in the order of the plan's cells.

        `level` [cells] is the exact mean over all shuffles, of all rows, where it is known.
        """
        scorer = self.grid.scorers[s]
        if self.asked.permutations:
            self.shuffles[scorer.name] = use
            for k, cell in enumerate(self.grid.plan.cells()):
                self.set_significance(s, cell, float(observed[k]), shuffled[: self.asked.permutations, k])
        if self.asked.nulls:
            self.nulls[scorer.name] = use
            some = use.rows < self.grid.plan.n_rows
            self._set_nulls(s, observed if some else None, shuffled[: self.asked.nulls], level)

    def _set_nulls(self, s: int, observed: Values | None, shuffled: Values, level: Values | None) -> None:
        plan, start, scorer = self.grid.plan, 0, self.grid.scorers[s]
        identity = 1.0 if scorer.checkpoint else np.nan
        for a, b in plan.pairs:
            shape = len(plan.first[a]), len(plan.second[b])
            own = slice(start, start := start + shape[0] * shape[1])
            of_level, of_rows = (None if v is None else v[own].reshape(shape) for v in (level, observed))
            exact = self.grid.shuffled_of(s, a, b)
            self.grid.nulls[s, a, b] = Null(
                shuffled[:, own].reshape(-1, *shape),
                identity,
                exact[0] if exact else of_level,
                observed=of_rows,
                spread=exact[1] if exact and not np.isnan(exact[1]).all() else None,
                higher=scorer.entry.higher_is_more_similar,
            )

    def set_significance(self, s: int, cell: tuple[Layer, Layer], observed: float, shuffled: Values) -> None:
        """P-value and z-score of a cell that has a score."""
        if not np.isfinite(self.grid.scores[(s, *cell)]):
            return
        p, z = significance(shuffled, observed, self.grid.scorers[s].entry.higher_is_more_similar)
        self.set(s, cell, p_value=p, z_score=z)

    def rows_of(self, scorer: Scorer, layer: Layer, rows: RowIndex) -> Tensor:
        """Some rows [k, p] as the scorer's measure takes them."""
        return self.grid.encoded(scorer, layer, self.grid.reader.chosen(layer, rows))

    def width(self, scorer: Scorer, layer: Layer) -> int:
        """Columns of a layer as the scorer's measure takes it."""
        return scorer.encoded or self.grid.plan.width(layer)

    @property
    def room(self) -> int:
        """Bytes for prepared layers."""
        return self.grid.reader.free // 2
