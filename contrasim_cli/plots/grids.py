"""Grids of layers against layers as heat maps; a frame marks the layer that is most similar to that of its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from contrasim_cli.names import distinct, shortened
from contrasim_cli.plots import page
from contrasim_cli.report.heat_maps import HeatMap, Values, limits
from contrasim_cli.report.look import Look, depths, positions

MOST_VALUES = 12  # layers on a side up to which the values are written into the cells
CELL, SMALLEST = 0.3, 0.11  # inches
SIDE = 1.6  # inches that a map of many layers takes at least, where maps stand side by side
TICK = 0.12  # inches from one name to the next
NAME, SHORT_NAME = 22, 12  # letters of a layer's name beside a map; and where maps of many layers stand side by side
TITLE = 40
BAR = 0.95  # inches for the scale of colours and its numbers


def heat_maps(maps: Sequence[HeatMap], look: Look = Look()) -> Figure:
    """A panel per map, as many beside each other as a page is wide; measures side by side where they fit."""
    letters = NAME
    high, wide = (max(_inches(m.values.shape[axis]) for m in maps) for axis in (0, 1))
    beside, beneath = _room_for_names(maps, look, letters)
    if len(maps) > 1 and 2 * (wide + beside + BAR) > page.PAGE:  # two in a line, that a page keeps its shape
        letters = SHORT_NAME
        beside, beneath = _room_for_names(maps, look, letters)
        shrunk = min(wide, max(SIDE, page.PAGE / 2 - beside - BAR))
        high, wide = high * shrunk / wide, shrunk
    room = wide + beside + BAR
    maps, columns = _arrangement(maps, max(1, int(page.PAGE / room + 1e-6)))
    lines = -(-len(maps) // columns)
    figure = Figure(figsize=(columns * room, lines * (high + beneath + 0.65) + 0.2), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(maps) :]:
        ax.axis("off")
    for ax, grid in zip(axes, maps, strict=False):
        most = max(2, int(high / TICK)), max(2, int(wide / TICK))
        names = [
            layer_names(side, store, look, letters)
            for side, store in zip((grid.down, grid.across), grid.stores, strict=True)
        ]
        _heat_map(figure, ax, grid, _Drawn(names[0], names[1], most, _limits(grid, maps, look), look))
    notes = ["framed: the most similar layer of each row"] if any(m.best().any() for m in maps) else []
    notes += ["▸ on a scale: the score of shuffled rows (median)"] if any(m.level is not None for m in maps) else []
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=page.small())
    return figure


@dataclass(frozen=True)
class _Drawn:
    """How one map is drawn: names of its layers, how many of them fit, where its scale begins and ends."""

    down: Sequence[str]
    across: Sequence[str]
    most: tuple[int, int]
    limits: tuple[float, float]
    look: Look


def layer_names(layers: Sequence[str], store: str, look: Look, letters: int) -> list[str]:
    """Layers as they are called beside figures: by name, by their depth in %, or by their place in the store."""
    every = look.layers.get(store, layers)
    if look.labels == "depth":
        return [f"{value:.0f} %" for value in depths(every, layers)]
    if look.labels == "index":
        return [str(place) for place in positions(every, layers)[0]]
    return distinct(layers, letters)


def _room_for_names(maps: Sequence[HeatMap], look: Look, letters: int) -> tuple[float, float]:
    """Inches that the names beside and beneath the maps take."""
    beside = [layer_names(m.down, m.stores[0], look, letters) for m in maps]
    beneath = [layer_names(m.across, m.stores[1], look, letters) for m in maps]
    return max(map(page.inches_of, beside)), max(map(page.inches_of, beneath))


def _limits(grid: HeatMap, maps: Sequence[HeatMap], look: Look) -> tuple[float, float]:
    if isinstance(look.scale, tuple):
        return look.scale
    if look.scale == "own":
        finite = grid.values[np.isfinite(grid.values)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return limits([m for m in maps if m.measure == grid.measure])


def _arrangement(maps: Sequence[HeatMap], most: int) -> tuple[list[HeatMap], int]:
    """The maps in drawing order, and how many stand side by side: the measures of a pair of stores, where they fit.

    Of one measure and stores that are compared with themselves too, those panels stand beside that of the pair.
    """
    measures = list(dict.fromkeys(m.measure for m in maps))
    pairs = list(dict.fromkeys(m.stores for m in maps))
    ordered = sorted(maps, key=lambda m: (pairs.index(m.stores), measures.index(m.measure)))
    if 1 < len(measures) <= most:
        return ordered, len(measures)
    lines = -(-len(maps) // most)
    return (list(maps) if len(measures) == 1 else ordered), -(-len(maps) // lines)  # lines of equal length


def _inches(layers: int) -> float:
    """Side of a heat map: room for a value in each cell while they are few, then for every cell to be seen."""
    return max(1.0, CELL * layers) if layers <= MOST_VALUES else max(2.2, SMALLEST * layers)


def _heat_map(figure: Figure, ax: Any, grid: HeatMap, drawn: _Drawn) -> None:
    colours = mpl.colormaps[drawn.look.cmap or "viridis"]  # bright is similar
    colours = colours if grid.higher else colours.reversed()
    ax.patch.set(hatch="////", edgecolor="0.7", facecolor="white")  # shows where there is no value
    least, most = drawn.limits
    image = ax.imshow(grid.values, cmap=colours, aspect="equal", origin="lower", vmin=least, vmax=most)
    bar = figure.colorbar(image, ax=ax, shrink=0.9, fraction=0.06, pad=0.05)
    bar.ax.tick_params(labelsize=page.small())
    if not grid.higher:
        bar.set_label("lower is more similar", fontsize=page.small())
    if grid.level is not None and most > least:  # within the scale, or at its end
        level = min(max(grid.level, least), most)
        bar.ax.plot(
            [-0.45],
            [level],
            marker=">",
            markersize=4,
            color="black",
            clip_on=False,
            transform=bar.ax.get_yaxis_transform(),
        )
    ax.spines[:].set_visible(True)
    ax.set_title(shortened(grid.measure, TITLE) + (", within" if grid.within else ""))
    ax.set_xlabel(shortened(grid.stores[1], TITLE))
    ax.set_ylabel(shortened(grid.stores[0], TITLE))
    ax.set_xticks(*_ticks(drawn.across, drawn.most[1]), rotation=90)
    ax.set_yticks(*_ticks(drawn.down, drawn.most[0]))
    if max(grid.values.shape) <= MOST_VALUES:
        _write_values(ax, image, grid.values)
    for i, j in np.argwhere(grid.best()):
        _frame(ax, i, j, small=max(grid.values.shape) > MOST_VALUES)


def _ticks(names: Sequence[str], most: int) -> tuple[Sequence[int], Sequence[str]]:
    """Positions and names, thinned out so that they do not overlap."""
    step = -(-len(names) // most)
    return range(0, len(names), step), names[::step]


def _write_values(ax: Any, image: Any, values: Values) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            colour = "white" if dark else "black"
            ax.text(j, i, page.value_text(value), ha="center", va="center", fontsize=page.small(), color=colour)


def _frame(ax: Any, i: int, j: int, small: bool) -> None:
    """White in black, to be seen on bright and dark cells."""
    for colour, width in (("black", 1.6 if small else 2.4), ("white", 0.7 if small else 1.0)):
        box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3)
        box.set_clip_on(False)
        ax.add_patch(box)
