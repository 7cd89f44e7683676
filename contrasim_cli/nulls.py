"""Where a score lies between chance and identity: the columns `calibrated`, `null_z`, `null_p` and `null`.

For one pair of stores, of L and L' layers, a scorer says

    scores     [L, L']      what it gives the rows as they are
    shuffled   [N, L, L']   what it gives them after each of N shuffles of one side's rows: unrelated rows of the same shape
    identity   [L, L']      what it gives a layer with itself: 1 where unit rows are compared
    level      [L, L']      the exact mean over all shuffles, where the scorer has it in closed form
    spread     [L, L']      the exact standard deviation over all shuffles, likewise

and of each cell comes

    calibrated = (score - level) / (identity - level)       0 for unrelated rows, 1 for a layer with itself
    null_z     = (score - level) / std of the shuffles      of measures whose lower scores are more similar: its negative
    null_p     = (1 + number of shuffles that score at least as similar) / (N + 1)
    null       = level

A score clears its null where null_z is at least CLEAR.

Without closed forms, level and std are those of the shuffles. A cell is undefined (NaN) where a score in it is, and each of its
columns where it would divide by what is rounding: `calibrated` where a layer with itself scores no higher than chance, `null_z`
where all shuffles score the same.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TIE = 1e-9  # relative; by how much one score differs that is computed again on the same rows in another order
SINGLE_TIE = 1e-7  # the same, of rows that are encoded in float32
CLEAR = 3.0  # standard deviations over shuffled rows from which on a score is told from theirs
AMPLE = 4  # rows for each neuron, from which on the scores of unrelated rows are well below those of related ones

Values = npt.NDArray[np.float64]


class Standing(NamedTuple):
    """The columns [L, L'] of one pair of stores; NaN where undefined."""

    calibrated: Values
    null_z: Values
    null_p: Values
    null: Values


@dataclass(frozen=True)
class Null:
    """What a scorer gives unrelated rows and a layer with itself, for one pair of stores; shapes as above.

    `shuffled` has no shuffles where level and spread are exact and nobody asked for any; there is no p-value then.

    `pooled`: all cells are one population, with one level and one spread over all N · L · L' shuffled scores, against which
    each cell is held. It serves scorers with few shuffles whose cells have one scale, and none that they differ in: where
    levels differ from cell to cell, give `level`, and the distances from it are pooled. Scores of one shuffle depend on
    each other, so that p is not finer than the number of shuffles warrants: about 1 / (N · L) rather than 1 / (N · L · L').

    `observed` [L, L']: the scores of the rows that were shuffled, where those are not all rows. They stand for the scores in z
    and p, unless the spread is exact; an exact `level` is then that of all rows.

    `judged` [L, L']: scores that stand for the scores in all columns: those of each cell alone, of a scorer whose scores also
    depend on the other cells. There is no `null` then, which would be on another scale than the scores.

    `identity` is NaN where nobody knows it. `higher`: whether higher scores are more similar.
    """

    shuffled: Values
    identity: Values | float = 1.0
    level: Values | None = None
    pooled: bool = False
    observed: Values | None = None
    judged: Values | None = None
    spread: Values | None = None
    higher: bool = True

    def __len__(self) -> int:
        return len(self.shuffled)

    def standing(self, scores: Values) -> Standing:
        """Where scores [L, L'] lie."""
        if not self.higher:
            mirrored = {
                name: -value for name in ("shuffled", "level", "observed") if (value := getattr(self, name)) is not None
            }
            standing = replace(self, higher=True, **mirrored).standing(-scores)
            return standing._replace(null=-standing.null)
        scores = scores if self.judged is None else self.judged
        level = self._level(scores)
        null = np.where(np.isfinite(scores), level, np.nan) if self.judged is None else np.full(scores.shape, np.nan)
        if self.pooled:
            p, z = significance((self.shuffled - level).reshape(-1, 1, 1), scores - level, 0.0, SINGLE_TIE)
        elif self.observed is None:
            p, z = significance(self.shuffled, scores, level, SINGLE_TIE)
        else:
            p, z = significance(self.shuffled, self.observed, None, SINGLE_TIE)
        if self.spread is not None:
            z = _quotient(scores - level, self.spread, SINGLE_TIE * np.maximum(np.abs(scores), np.abs(level)))
        rounding = SINGLE_TIE * np.maximum(np.abs(self.identity), np.abs(level))
        calibrated = _quotient(scores - level, self.identity - level, rounding)
        return Standing(np.where(np.isfinite(p), calibrated, np.nan), z, p, null)

    def _level(self, scores: Values) -> Values:
        if self.level is not None:
            return self.level
        mean: Values = self.shuffled.mean(axis=None if self.pooled else 0)
        return np.broadcast_to(mean, scores.shape)


def exact(level: Values, spread: Values) -> Null:
    """The null of scores whose mean and standard deviation [L, L'] over all shuffles are known; NaN where they are not."""
    return Null(np.empty((0, *level.shape)), np.nan, level, spread=spread)


def clears(score: float | None, null: float | None, z: float | None) -> bool:
    """Whether a score is told from that of shuffled rows; also where it has none, or where nobody knows how these are spread.

    Without a spread, it is not told from theirs where it is theirs.
    """
    if score is None or z is not None:
        return score is None or (z is not None and z >= CLEAR)
    return null is None or abs(score - null) > SINGLE_TIE * max(abs(score), abs(null))


def significance(
    shuffled: Values, observed: Values, level: Values | float | None = None, tie: float = TIE
) -> tuple[Values, Values]:
    """P-values and z-scores [...] of observed scores [...] among shuffled ones [N, ...]; NaN where undefined.

    `level` is the shuffles' mean, where it is known better than from themselves. What a shuffle is lower by counts as rounding
    up to `tie` times the largest of all.
    """
    if not len(shuffled):
        nothing = np.full(observed.shape, np.nan)
        return nothing, nothing
    level = shuffled.mean(axis=0) if level is None else level
    rounding = tie * np.maximum(np.abs(observed), np.abs(shuffled).max(axis=0))
    as_high = (shuffled >= observed - rounding).sum(axis=0)
    defined = np.isfinite(observed) & np.isfinite(shuffled).all(axis=0)
    p = np.where(defined, (1 + as_high) / (len(shuffled) + 1), np.nan)
    spread = shuffled.std(axis=0, ddof=1) if len(shuffled) > 1 else np.zeros(shuffled.shape[1:])
    return p, np.where(defined, _quotient(observed - level, spread, rounding), np.nan)


def _quotient(values: Values, by: Values, rounding: Values) -> Values:
    """Values / by; NaN where `by` is not above rounding."""
    by = np.broadcast_to(by, values.shape)
    with np.errstate(invalid="ignore"):
        quotient: Values = np.divide(values, by, out=np.full(values.shape, np.nan), where=by > rounding)
    return quotient
