"""Intervals, p-values and z-scores from replicates of a score, and what is asked for and found."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contrasim_cli import nulls
from contrasim_cli.benchmarks.intervals import LEVEL

ROWS = 2000  # of the subset

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """Replicates of each kind, 0 for none; at most `rows` rows where not all are used.

    `nulls`: shuffles that encoders are calibrated by; the same ones serve permutations.
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
    """Of one cell; None where it was not asked for or is undefined."""

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
    statistics = nulls.significance(sign * shuffled, np.array(sign * observed))
    p, z = (None if np.isnan(value) else float(value) for value in statistics)
    return p, z
