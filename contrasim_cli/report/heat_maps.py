"""Grids of scores as matrices, for figures and pages: layers of one store against layers of another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contrasim_cli.measures import MEASURES, STRICTLY, higher_is_more_similar
from contrasim_cli.report.results import ScoreRow

Values = npt.NDArray[np.float64]
NEARLY = 0.02  # of a scale: the lead below which the best match of a row is not told from half of the other layers
AT_ODDS = (
    0.02  # by which another layer's calibrated score exceeds that of the best match, where they are said to disagree
)
EVEN_ODDS = 0.2  # the lead in log odds below which the best match of a row is not told from the next best one


@dataclass(frozen=True)
class HeatMap:
    """One grid: layers of the first store from below, layers of the second from the left.

    `null` [L, L'] is what shuffled rows score, where that is known; NaN in cells where it is not. `calibrated` [L, L'] are the
    calibrated scores of a learned measure, likewise. `ceiling`: lower and upper noise ceiling, the medians over the second
    store's layers.
    """

    measure: str
    stores: tuple[str, str]
    down: Sequence[str]
    across: Sequence[str]
    values: Values
    higher: bool = True  # is more similar
    null: Values | None = None
    calibrated: Values | None = None
    ceiling: tuple[float, float] | None = None

    @classmethod
    def of(cls, key: tuple[str, str, str], cells: Sequence[ScoreRow]) -> "HeatMap":
        """The grid of some cells, of one measure and pair of stores."""
        down, across = (
            list(dict.fromkeys(names)) for names in zip(*((c.layer_a, c.layer_b) for c in cells), strict=True)
        )
        values = matrix(down, across, cells, "score")
        null, calibrated = (_known(matrix(down, across, cells, name)) for name in ("null", "calibrated"))
        ends = [(c.ceiling_low, c.ceiling_high) for c in cells if None not in (c.ceiling_low, c.ceiling_high)]
        low, high = np.median(np.array(ends, dtype=float), axis=0).tolist() if ends else (None, None)
        ceiling = None if low is None or high is None else (low, high)
        return cls(key[0], key[1:], down, across, values, higher_is_more_similar(key[0]), null, calibrated, ceiling)

    @property
    def within(self) -> bool:
        """Whether the layers of one store are compared with each other."""
        return self.stores[0] == self.stores[1]

    @property
    def is_calibrated(self) -> bool:
        """Whether this is a learned measure, and every score has a calibrated one."""
        if self.calibrated is None or self.measure in MEASURES:
            return False
        return bool(np.isfinite(self.calibrated[np.isfinite(self.values)]).all())

    @property
    def level(self) -> float | None:
        """What shuffled rows score, the median over the cells; None where it is not known."""
        return None if self.null is None else float(np.nanmedian(self.null))

    def signed(self) -> Values:
        """The values with their sign turned where lower is more similar; -inf where there is none."""
        return np.where(np.isfinite(self.values), self.values if self.higher else -self.values, -np.inf)

    @property
    def span(self) -> float:
        """The length of the scale of scores: from shuffled rows to identical ones.

        Of measures that end at 1 it begins at the level of shuffled rows, or at 0 where that is not known. Of distances it begins
        at 0 and ends at that level, or at the largest distance of the map. Of others it is the largest absolute score of the map.
        """
        largest = float(np.max(np.abs(self.values), initial=0.0, where=np.isfinite(self.values)))
        entry = MEASURES.get(self.measure)
        if self.higher and entry is not None and entry.range.endswith(" 1]"):
            return 1.0 - (self.level or 0.0)
        return largest if self.higher or self.level is None else self.level

    def nearly_identical(self) -> npt.NDArray[np.bool_]:
        """The rows [L] whose best score leads the median of the row's other scores by less than NEARLY of the scale.

        Half of the other layers match as well there, so that which one matches best cannot be read from the scores. Learned
        measures are judged by their calibrated scores, where these are known: 0 for shuffled rows, 1 for a layer with itself.
        Where raw scores are log odds, rows also count whose best raw score leads the next one by less than EVEN_ODDS.
        """
        return self.leads_little() | self.even_odds()

    def why_undecided(self) -> list[str]:
        """Why rows are nearly identical, in words; empty where none is."""
        by_scores, by_odds = self.leads_little(), self.even_odds()
        raw = f"best two raw scores within {EVEN_ODDS:g}"
        rules = {"nearly identical scores": by_scores, raw: by_odds & ~by_scores}
        return [rule for rule, rows in rules.items() if rows.any()]

    def even_odds(self) -> npt.NDArray[np.bool_]:
        """The rows [L] whose best raw score, in log odds, leads the next one by less than EVEN_ODDS."""
        if not self.is_log_odds or len(self.across) < 2:
            return np.zeros(len(self.down), dtype=bool)
        best = np.sort(self.signed(), axis=1)[:, -2:]
        return np.asarray(np.isfinite(best).all(axis=1) & (best[:, 1] - best[:, 0] < EVEN_ODDS))

    def at_odds(self) -> int:
        """In how many rows with a best match by raw scores, in log odds, another layer's calibrated score is larger by AT_ODDS."""
        if self.calibrated is None or not self.is_log_odds:
            return 0
        best, known = self.best(), np.where(np.isfinite(self.calibrated), self.calibrated, -np.inf)
        own = known.max(axis=1, where=best, initial=-np.inf)
        return int((best.any(axis=1) & (known.max(axis=1) - own > AT_ODDS)).sum())

    @property
    def is_log_odds(self) -> bool:
        """Whether raw scores are those of a network over measures; those of other learned measures end at 1."""
        return (
            self.is_calibrated and float(np.max(np.abs(self.values), initial=0.0, where=np.isfinite(self.values))) > 1
        )

    def leads_little(self) -> npt.NDArray[np.bool_]:
        """The rows [L] whose best score leads the median of the row's other scores by less than NEARLY of the scale."""
        scores, span = (self.signed(), self.span) if self.calibrated is None else (self.calibrated, 1.0)
        ordered = np.sort(np.where(np.isfinite(scores), scores, np.nan), axis=1)  # NaN last
        known = np.isfinite(ordered).sum(axis=1)
        near = np.zeros(len(ordered), dtype=bool)
        for i in np.flatnonzero(known > 1):
            *others, best = ordered[i, : known[i]]
            with np.errstate(over="ignore"):  # an infinite lead is a lead
                near[i] = best - np.median(others) < NEARLY * span
        return near

    def best(self) -> npt.NDArray[np.bool_]:
        """The cells that are most similar in their row; several where they tie.

        None in rows that hold one score, or whose scores are nearly identical.
        """
        signed = self.signed()
        most = signed.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            near: npt.NDArray[np.bool_] = most - signed <= STRICTLY * np.maximum(np.abs(most), np.abs(signed))
        near &= np.isfinite(signed)
        near &= np.isfinite(signed).sum(axis=1, keepdims=True) > 1
        return near & ~self.nearly_identical()[:, np.newaxis]


def _known(values: Values) -> Values | None:
    """Values of which some are finite; None otherwise."""
    return values if np.isfinite(values).any() else None


def matrix(down: Sequence[str], across: Sequence[str], cells: Sequence[ScoreRow], name: str) -> Values:
    """One column of the cells as a matrix [down, across]; NaN where it is empty."""
    rows, columns = ({layer: k for k, layer in enumerate(names)} for names in (down, across))
    values = np.full((len(down), len(across)), np.nan)
    for cell in cells:
        value = getattr(cell, name)
        values[rows[cell.layer_a], columns[cell.layer_b]] = np.nan if value is None else value
    return values


def by_map(rows: Sequence[ScoreRow]) -> dict[tuple[str, str, str], list[ScoreRow]]:
    """The rows of each measure and pair of stores."""
    panels: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in rows:
        panels.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    return panels


def of_rows(rows: Sequence[ScoreRow]) -> list[HeatMap]:
    """One map per measure and pair of stores."""
    return [HeatMap.of(key, cells) for key, cells in by_map(rows).items()]


def least_of(measure: str) -> float | None:
    """The natural zero of a measure: the value of nothing in common, or of no difference; None where there is none."""
    entry = MEASURES.get(measure)
    return 0.0 if entry is not None and (entry.range.startswith("[0") or entry.range == "[-1, 1]") else None


def limits(maps: Sequence[HeatMap]) -> tuple[float, float]:
    """Where a scale of colours begins and ends that some maps share: from a natural zero, unless a value lies below it."""
    finite = np.concatenate([m.values[np.isfinite(m.values)] for m in maps])
    if not len(finite):
        return 0.0, 1.0
    least, most = float(finite.min()), float(finite.max())
    zeros = {least_of(m.measure) for m in maps}
    zero = zeros.pop() if len(zeros) == 1 else None
    if zero is not None and 0 <= least <= most and most > 0:
        return 0.0, most
    return least, most


def calibrated_limits(maps: Sequence[HeatMap]) -> tuple[float, float]:
    """Where a scale of calibrated scores of some maps begins and ends: at unrelated rows and a layer with itself, or beyond."""
    known = [m.calibrated[np.isfinite(m.calibrated)] for m in maps if m.calibrated is not None]
    values = np.concatenate([np.array([0.0, 1.0]), *known])
    return float(values.min()), float(values.max())
