"""Grids of scores as matrices, for figures and pages: layers of one store against layers of another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contrasim_cli.measures import MEASURES, STRICTLY, higher_is_more_similar
from contrasim_cli.report.results import ScoreRow

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeatMap:
    """One grid: layers of the first store from below, layers of the second from the left.

    `null` [L, L'] is what shuffled rows score, where that is known; NaN in cells where it is not.
    """

    measure: str
    stores: tuple[str, str]
    down: Sequence[str]
    across: Sequence[str]
    values: Values
    higher: bool = True  # is more similar
    null: Values | None = None

    @classmethod
    def of(cls, key: tuple[str, str, str], cells: Sequence[ScoreRow]) -> "HeatMap":
        """The grid of some cells, of one measure and pair of stores."""
        down, across = (
            list(dict.fromkeys(names)) for names in zip(*((c.layer_a, c.layer_b) for c in cells), strict=True)
        )
        values = matrix(down, across, cells, "score")
        null = matrix(down, across, cells, "null")
        known = null if np.isfinite(null).any() else None
        return cls(key[0], key[1:], down, across, values, higher_is_more_similar(key[0]), known)

    @property
    def within(self) -> bool:
        """Whether the layers of one store are compared with each other."""
        return self.stores[0] == self.stores[1]

    @property
    def level(self) -> float | None:
        """What shuffled rows score, the median over the cells; None where it is not known."""
        return None if self.null is None else float(np.nanmedian(self.null))

    def signed(self) -> Values:
        """The values with their sign turned where lower is more similar; -inf where there is none."""
        return np.where(np.isfinite(self.values), self.values if self.higher else -self.values, -np.inf)

    def best(self) -> npt.NDArray[np.bool_]:
        """The cells that are most similar in their row; several where they tie, none where there is nothing to choose."""
        signed = self.signed()
        most = signed.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            near: npt.NDArray[np.bool_] = most - signed <= STRICTLY * np.maximum(np.abs(most), np.abs(signed))
        near &= np.isfinite(signed)
        near &= np.isfinite(signed).sum(axis=1, keepdims=True) > 1
        return near


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
