"""Grids of layers against layers as heat maps; a frame marks the layer that is most similar to that of its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from contrasim_cli.measures import higher_is_more_similar
from contrasim_cli.plots import page
from contrasim_cli.report.results import ScoreRow
from contrasim_cli.scoring import STRICTLY

if TYPE_CHECKING:
    from contrasim_cli.benchmarks.outcomes import Trials

MOST_VALUES = 12  # layers on a side up to which the values are written into the cells
MOST_TICKS = 24
CELL, SMALLEST = 0.3, 0.11  # inches
NAME = 22  # letters of a layer's name beside a map
TITLE = 40

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeatMap:
    """One grid: layers of the first store from below, layers of the second from the left."""

    measure: str
    stores: tuple[str, str]
    down: Sequence[str]
    across: Sequence[str]
    values: Values
    higher: bool = True  # is more similar

    @classmethod
    def of(cls, key: tuple[str, str, str], cells: Sequence[ScoreRow]) -> "HeatMap":
        """The grid of some cells, of one measure and pair of stores."""
        down, across = (
            list(dict.fromkeys(names)) for names in zip(*((c.layer_a, c.layer_b) for c in cells), strict=True)
        )
        values = np.full((len(down), len(across)), np.nan)
        for cell in cells:
            values[down.index(cell.layer_a), across.index(cell.layer_b)] = np.nan if cell.score is None else cell.score
        return cls(key[0], key[1:], down, across, values, higher_is_more_similar(key[0]))

    def best(self) -> npt.NDArray[np.bool_]:
        """The cells that are most similar in their row; several where they tie, none where there is nothing to choose."""
        signed = np.where(np.isfinite(self.values), self.values if self.higher else -self.values, -np.inf)
        most = signed.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            near: npt.NDArray[np.bool_] = most - signed <= STRICTLY * np.maximum(np.abs(most), np.abs(signed))
        near &= np.isfinite(signed)
        near &= np.isfinite(signed).sum(axis=1, keepdims=True) > 1
        return near


def of_rows(rows: Sequence[ScoreRow]) -> list[HeatMap]:
    """One map per measure and pair of stores."""
    panels: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in rows:
        panels.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    return [HeatMap.of(key, cells) for key, cells in panels.items()]


def of_trials(all_trials: "Sequence[Trials]") -> list[HeatMap]:
    """One map per measure and set of pairs: the mean over pairs, and over encoders that were trained for one measure."""
    together: dict[tuple[str, str, str, str], list[Trials]] = {}
    for trials in all_trials:
        origin = trials.origin
        together.setdefault((trials.name, origin.train, origin.test, origin.models), []).append(trials)
    maps = []
    for (name, train, test, models), members in together.items():
        stacked = np.concatenate([trials.grids for trials in members if trials.grids is not None])
        trained = f", trained on {train}" if train and len({key[1] for key in together if key[1]}) > 1 else ""
        pairs = len({pair for trials in members for pair in trials.pairs})
        scope = ", ".join(part for part in (test, models, f"mean of {pairs} pair{'s' * (pairs > 1)}") if part)
        layers, higher = members[0].layers, members[0].scorer.entry.higher_is_more_similar
        sides = ("layer of the first", f"layer of the second\n({scope})")
        maps.append(HeatMap(f"{name}{trained}", sides, layers, layers, stacked.mean(axis=0), higher))
    return maps


def heat_maps(maps: Sequence[HeatMap]) -> Figure:
    """A panel per map, as many beside each other as a page is wide; measures side by side where they fit."""
    high, wide = (max(_inches(m.values.shape[axis]) for m in maps) for axis in (0, 1))
    beside, beneath = (max(page.inches_of(page.distinct(names, NAME)) for names in side) for side in _sides(maps))
    room = wide + beside + 0.95
    maps, columns = _arrangement(maps, max(1, int(page.PAGE / room)))
    lines = -(-len(maps) // columns)
    figure = Figure(figsize=(columns * room, lines * (high + beneath + 0.65) + 0.2), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(maps) :]:
        ax.axis("off")
    for ax, grid in zip(axes, maps, strict=False):
        _heat_map(figure, ax, grid, _limits([m.values for m in maps if m.measure == grid.measure]))
    if any(m.best().any() for m in maps):
        figure.supxlabel("framed: the most similar layer of each row", fontsize=page.SMALL)
    return figure


def _sides(maps: Sequence[HeatMap]) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
    """The names beside the maps, and those beneath."""
    return [m.down for m in maps], [m.across for m in maps]


def _arrangement(maps: Sequence[HeatMap], most: int) -> tuple[list[HeatMap], int]:
    """The maps in drawing order, and how many stand side by side: the measures of a pair of stores, where they fit."""
    measures = list(dict.fromkeys(m.measure for m in maps))
    if not 1 < len(measures) <= most:
        return list(maps), min(most, len(maps))
    pairs = list(dict.fromkeys(m.stores for m in maps))
    return sorted(maps, key=lambda m: (pairs.index(m.stores), measures.index(m.measure))), len(measures)


def _inches(layers: int) -> float:
    """Side of a heat map: room for a value in each cell while they are few, then for every cell to be seen."""
    return max(1.0, CELL * layers) if layers <= MOST_VALUES else max(2.2, SMALLEST * layers)


def _limits(grids: Sequence[Values]) -> tuple[float, float]:
    """The least and the greatest value of all panels of a measure, so that equal colours are equal values."""
    finite = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _heat_map(figure: Figure, ax: Any, grid: HeatMap, limits: tuple[float, float]) -> None:
    colours = mpl.colormaps["viridis" if grid.higher else "viridis_r"]  # bright is similar
    ax.patch.set(hatch="////", edgecolor="0.7", facecolor="white")  # shows where there is no value
    image = ax.imshow(grid.values, cmap=colours, aspect="equal", origin="lower", vmin=limits[0], vmax=limits[1])
    bar = figure.colorbar(image, ax=ax, shrink=0.9, fraction=0.06, pad=0.03)
    bar.ax.tick_params(labelsize=page.SMALL)
    if not grid.higher:
        bar.set_label("lower is more similar", fontsize=page.SMALL)
    ax.spines[:].set_visible(True)
    ax.set_title(page.shortened(grid.measure, TITLE))
    ax.set_xlabel(page.shortened(grid.stores[1], TITLE))
    ax.set_ylabel(page.shortened(grid.stores[0], TITLE))
    ax.set_xticks(*_ticks(grid.across), rotation=90)
    ax.set_yticks(*_ticks(grid.down))
    if max(grid.values.shape) <= MOST_VALUES:
        _write_values(ax, image, grid.values)
    for i, j in np.argwhere(grid.best()):
        _frame(ax, i, j, small=max(grid.values.shape) > MOST_VALUES)


def _ticks(names: Sequence[str]) -> tuple[Sequence[int], Sequence[str]]:
    """Positions and names, thinned out so that they do not overlap."""
    step = -(-len(names) // MOST_TICKS)
    return range(0, len(names), step), page.distinct(names, NAME)[::step]


def _write_values(ax: Any, image: Any, values: Values) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            colour = "white" if dark else "black"
            ax.text(j, i, page.value_text(value), ha="center", va="center", fontsize=page.SMALL, color=colour)


def _frame(ax: Any, i: int, j: int, small: bool) -> None:
    """White in black, to be seen on bright and dark cells."""
    for colour, width in (("black", 1.6 if small else 2.4), ("white", 0.7 if small else 1.0)):
        box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3)
        box.set_clip_on(False)
        ax.add_patch(box)
