"""Grids of layers against layers as heat maps; a frame marks the layer that is most similar to that of its row."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from contrasim_cli.plots import page
from contrasim_cli.report.heat_maps import HeatMap, Values, limits

MOST_VALUES = 12  # layers on a side up to which the values are written into the cells
MOST_TICKS = 24
CELL, SMALLEST = 0.3, 0.11  # inches
NAME = 22  # letters of a layer's name beside a map
TITLE = 40


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
        _heat_map(figure, ax, grid, limits([m for m in maps if m.measure == grid.measure]))
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
