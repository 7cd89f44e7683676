"""Grids of layers against layers as heat maps; a frame marks the layer that is most similar to that of its row."""

import logging
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from contrasim_cli.names import shortened
from contrasim_cli.plots import page
from contrasim_cli.report.heat_maps import HeatMap, Values, calibrated_limits, limits
from contrasim_cli.report.look import Look, layer_names
from contrasim_cli.report.titles import titled

log = logging.getLogger(__name__)

MOST_VALUES = 12  # layers on a side up to which the values are written into the cells, where these are large enough
CELL, SMALLEST = 0.3, 0.11  # inches
SIDE = 1.35  # inches that a map of many layers takes at least, where maps stand side by side
TICK = 0.12  # inches from one name to the next
NAME, SHORT_NAME = 22, 12  # letters of a layer's name beside a map; and where maps of many layers stand side by side
SHORTER_NAMES = (12, 8, 5)  # letters where the size asked for leaves a map less than LEAST_SIDE inches
LEAST_SIDE = 0.9
NOTE_LETTERS, NOTE_POINTS = 0.045, 5.0  # inches of a narrow letter of a note; and the smallest letters of notes
TITLE = 40
BAR = 0.65  # inches for a scale of colours and its numbers
ACROSS, ALONG = 0.35, 0.65  # inches for the label beside a map; and for title and label above and beneath one
LOWER, SHORT_LOWER = "lower is more similar", "low: similar"
DIGIT = 0.06  # inches of a digit by which the numbers beside a low bar may be longer
LABEL = 0.17  # inches across a store's name
THICK, GAP = 0.1, 0.12  # inches of a bar, and between what belongs to one panel and to the next
TINY = 0.02  # inches that a cell has at least


@dataclass(frozen=True)
class _Panel:
    """A map, the names of its layers down and across, and where its scale of colours begins and ends.

    `kind`: which scores are drawn, `calibrated` or `raw`; empty where there is one kind. `is_given`: whether maps of
    several measures share a scale that was given.
    """

    grid: HeatMap
    names: tuple[Sequence[str], Sequence[str]]
    limits: tuple[float, float]
    kind: Literal["", "calibrated", "raw"] = ""
    is_given: bool = False

    @property
    def values(self) -> Values:
        """The scores that are drawn."""
        calibrated = self.grid.calibrated
        return self.grid.values if calibrated is None or self.kind != "calibrated" else calibrated

    @property
    def scale(self) -> tuple[str, str, tuple[float, float], bool]:
        """What panels that share a bar have in common."""
        return "" if self.is_given else self.grid.measure, self.kind, self.limits, self.grid.higher

    @property
    def level(self) -> float | None:
        """What shuffled rows score, where that is marked beside the bar of one measure; calibrated scores begin there."""
        return None if self.kind == "calibrated" or self.is_given else self.grid.level

    @property
    def ceiling(self) -> tuple[float, float] | None:
        """The noise ceiling, where that is marked beside the bar of one measure."""
        return None if self.is_given else self.grid.ceiling


@dataclass(frozen=True)
class _Arrangement:
    """Panels in lines, and how much room everything takes that is no cell."""

    lines: Sequence[Sequence[_Panel]]

    @property
    def cells(self) -> tuple[list[int], list[int]]:
        """How many layers the columns have across, and the lines down."""
        columns = range(max(map(len, self.lines)))
        across = [max(line[k].grid.values.shape[1] for line in self.lines if k < len(line)) for k in columns]
        return across, [max(panel.grid.values.shape[0] for panel in line) for line in self.lines]

    @property
    def barred(self) -> set[tuple[int, int]]:
        """The line and column of the panels beside which a bar stands: the first time that a scale ends in its line."""
        ends: dict[object, tuple[int, int]] = {}
        for i, line in enumerate(self.lines):
            for k, panel in enumerate(line):
                if k + 1 == len(line) or line[k + 1].scale != panel.scale:
                    ends.setdefault(panel.scale, (i, k))
        return set(ends.values())

    def cell(self, width: float, height: float = math.inf) -> float:
        """Inches that the side of a cell has in a figure of this size, about; less than 0 where nothing is left of it."""
        panels = [panel for line in self.lines for panel in line]
        beside, beneath = (max(page.inches_of(panel.names[side]) for panel in panels) for side in (0, 1))
        across, down = self.cells
        bars = len({k for _, k in self.barred})
        wide = len(across) * (beside + ACROSS) + bars * BAR
        return min((width - wide) / sum(across), (height - len(down) * (beneath + ALONG)) / sum(down))


def heat_maps(maps: Sequence[HeatMap], look: Look = Look()) -> Figure:
    """A panel per map, as many beside each other as a page is wide; panels of one scale of colours share its bar."""
    arrangement, cell = _arranged(maps, look)
    figure = Figure()
    drawn: dict[tuple[int, int], _Drawn] = {}
    for i, line in enumerate(arrangement.lines):
        for k, panel in enumerate(line):
            ax = figure.add_axes((0.0, 0.0, 1.0, 1.0), label=f"{i} {k}")
            image = _heat_map(ax, panel, cell, look)
            same = [one for line in arrangement.lines for one in line if one.scale == panel.scale]
            bar = _bar(figure, image, same) if (i, k) in arrangement.barred else None
            drawn[i, k] = _Drawn(panel, ax, image, bar)
    _place(figure, arrangement, drawn, cell, _notes(arrangement) if look.legend else "", look)
    if isinstance(look.scale, tuple):
        _note_outside([one.panel for one in drawn.values()], *look.scale)
    return figure


def _note_outside(panels: Sequence[_Panel], least: float, most: float) -> None:
    """Say how many scores lie outside the scale that was given."""
    scores = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    rounding = 1e-6 * (most - least)
    outside = int(((scores < least - rounding) | (scores > most + rounding)).sum())
    if outside:
        text = "--scale %g,%g: %d of %d scores lie outside and have the colour of its nearer end"
        log.info(text, least, most, outside, len(scores))


def _notes(arrangement: _Arrangement) -> str:
    """What stands beneath a figure: what its scores, frames and marks mean."""
    panels = [panel for line in arrangement.lines for panel in line]
    calibrated = any(panel.kind == "calibrated" for panel in panels)
    by_raw = ", by raw score" * calibrated
    undecided = dict.fromkeys(why for panel in panels for why in panel.grid.why_undecided())
    notes = {
        "calibrated: 0 for unrelated rows, 1 for a layer with itself": calibrated,
        f"framed: the most similar layer of each row{by_raw}": any(panel.grid.best().any() for panel in panels),
        f"no frame: {' or '.join(undecided)}": bool(undecided),
        "▸ on a scale: the score of shuffled rows (median)": any(panel.level is not None for panel in panels),
        f"score of shuffled rows (median): {_levels(panels)}": bool(_levels(panels)),
        "line along a scale: the noise ceiling, from lower to upper (median over layers)": any(
            panel.ceiling is not None for panel in panels
        ),
    }
    return "; ".join(note for note, is_due in notes.items() if is_due)


def _levels(panels: Sequence[_Panel]) -> str:
    """What shuffled rows score by each of several measures that share a scale; the median over their panels."""
    levels: dict[str, list[float]] = {}
    for panel in panels:
        if panel.is_given and panel.kind != "calibrated" and panel.grid.level is not None:
            levels.setdefault(panel.grid.measure, []).append(panel.grid.level)
    return ", ".join(f"{titled(name)} {np.median(values):.3g}" for name, values in levels.items())


@dataclass(frozen=True)
class _Drawn:
    """What is drawn of a panel: its axes, its image, and the axes of the bar beside it."""

    panel: _Panel
    ax: Any
    image: Any
    bar: Any


def _place(
    figure: Figure,
    arrangement: _Arrangement,
    drawn: Mapping[tuple[int, int], _Drawn],
    cell: float,
    notes: str,
    look: Look,
) -> None:
    """Give all axes their places: cells of one size, and around them the room that names, titles and bars take.

    A figure that is given no size is as large as that makes it. One that is given its width alone has cells as large as fit into
    it, but no line of panels is higher than the figure is wide.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    across, down = arrangement.cells
    left, right, above, below = (np.zeros(size) for size in (len(across), len(across), len(down), len(down)))
    for (i, k), one in drawn.items():
        room = _room(one.ax, renderer)
        bar = _room(one.bar, renderer)[1] + 2.5 * THICK + DIGIT if one.bar else 0.0
        left[k], right[k] = max(left[k], room[0]), max(right[k], room[1], bar)
        below[i], above[i] = max(below[i], room[2]), max(above[i], room[3])
    wide, high = left.sum() + right.sum() + GAP * len(across), above.sum() + below.sum() + GAP * len(down)
    width, height = look.size or (min(page.PAGE, wide + cell * sum(across)), None)
    most = height or (width * len(down) if look.size else math.inf)
    note, foot = _foot(figure, notes, width, height, renderer)
    head = page.title_height(look, width)
    cell = min((width - wide) / sum(across), (most - high - head - foot) / sum(down))
    if cell < TINY:
        warnings.warn("the size is not applied to the cells, which would vanish", stacklevel=1)
        cell = TINY
    height = height or high + head + foot + cell * sum(down)
    figure.set_size_inches(width, height)
    note.set_y(0.03 / height)
    start = (width - wide - cell * sum(across)) / 2
    top = height - head - (height - head - foot - high - cell * sum(down)) / 2
    for (i, k), one in drawn.items():
        rows, columns = (cell * layers for layers in one.panel.grid.values.shape)
        x = start + left[: k + 1].sum() + right[:k].sum() + cell * sum(across[:k]) + GAP * (k + 0.5)
        y = top - above[: i + 1].sum() - below[:i].sum() - cell * sum(down[:i]) - GAP * (i + 0.5) - rows
        one.ax.set_position((x / width, y / height, columns / width, rows / height))
        if one.bar:
            one.bar.set_position(((x + columns + 1.5 * THICK) / width, y / height, THICK / width, rows / height))
        wide_slot = (x - left[k] + LABEL, x + cell * across[k] + right[k])  # between the labels at the sides
        for label in (one.ax.title, one.ax.xaxis.label):
            label.set_x((_fitted(label, "width", x + columns / 2, wide_slot, renderer) - x) / columns)
        high_slot = (y - below[i], y + rows + above[i])
        label = one.ax.yaxis.label
        label.set_y((_fitted(label, "height", y + rows / 2, high_slot, renderer) - y) / rows)
        if one.bar:
            beside = (y - below[i] + LABEL, y + rows)  # above the store's name, below the title
            _label_bar(one, beside, rows, renderer)
            label = one.bar.yaxis.label
            label.set_y((_fitted(label, "height", y + rows / 2, beside, renderer) - y) / rows)
        if max(one.panel.grid.values.shape) <= MOST_VALUES:
            _write_values(one, cell, renderer)


def _foot(figure: Figure, notes: str, width: float, height: float | None, renderer: Any) -> tuple[Any, float]:
    """Write the notes beneath a figure in lines of its width in inches; they come back with the inches that they take.

    Their letters shrink where the notes would take more than a fifth of a given height.
    """
    if not notes:
        return figure.supxlabel(""), 0.0
    size = page.points(page.small())
    while True:
        letters = int(width / (NOTE_LETTERS * size / page.SMALL))
        label = figure.supxlabel(textwrap.fill(notes, letters), fontsize=size)
        while letters > 10 and label.get_window_extent(renderer).width / figure.dpi > width - 0.1:
            letters -= 1
            label.set_text(textwrap.fill(notes, letters))
        taken = float(label.get_window_extent(renderer).height / figure.dpi) + 0.1
        if height is None or taken <= height / 5 or size <= NOTE_POINTS:
            return label, taken
        size = max(NOTE_POINTS, size - 0.5)


def _fitted(
    label: Any, side: Literal["width", "height"], middle: float, slot: tuple[float, float], renderer: Any
) -> float:
    """Shrink, then shorten a label that is longer than its slot, in inches; its middle comes back, moved to stay in there."""
    room = slot[1] - slot[0]

    def length() -> float:
        return float(getattr(label.get_window_extent(renderer), side) / label.figure.dpi)

    if length() > room:
        label.set_fontsize(
            min(label.get_fontsize(), max(page.points(page.small()), label.get_fontsize() * room / length()))
        )
    if length() > room:
        label.set_text(shortened(label.get_text(), max(3, int(len(label.get_text()) * room / length()))))
    half = min(length(), room) / 2
    return float(min(max(middle, slot[0] + half), slot[1] - half))


def _room(ax: Any, renderer: Any) -> tuple[float, float, float, float]:
    """Inches that names, titles and ticks take to the left of axes, to the right, below and above."""
    inner, outer, dpi = ax.get_window_extent(renderer), ax.get_tightbbox(renderer), ax.figure.dpi
    sides = (inner.x0 - outer.x0, outer.x1 - inner.x1, inner.y0 - outer.y0, outer.y1 - inner.y1)
    return tuple(side / dpi for side in sides)


def _arranged(maps: Sequence[HeatMap], look: Look) -> tuple[_Arrangement, float]:
    """The arrangement that suits the page, or leaves most for the cells of a figure of given size; and inches of a cell."""
    layers = max(max(m.values.shape) for m in maps)
    letters = NAME if len(maps) == 1 or layers <= MOST_VALUES else SHORT_NAME
    ways = _ways(maps, look, letters)
    width, height = look.size or (page.PAGE, None)
    if height or (look.columns and look.size):
        room = width, 0.8 * height - page.title_height(look, width) if height else math.inf  # the rest is for notes

        def side(way: _Arrangement) -> float:
            return way.cell(*room)

        best = max(ways, key=side)
        for fewer in SHORTER_NAMES:
            if side(best) * layers < LEAST_SIDE and fewer < letters:
                best = max(best, *_ways(maps, look, fewer), key=side)
        if look.columns and side(best) * layers < LEAST_SIDE:
            labels = "" if look.labels == "index" else "--layer-labels index, "
            text = "the heat maps are %.1f inches wide; %sa larger --size, or fewer --columns leave them more"
            log.warning(text, max(0.0, side(best) * layers), labels)
        if height:
            return best, side(best)
        ways = [best]
    wanted = max(1.0, CELL * layers) if layers <= MOST_VALUES else max(2.2, SMALLEST * layers)
    least = max(1.0, TICK * layers) if layers <= MOST_VALUES else SIDE
    fitting = [way for way in ways if way.cell(width) * layers >= least]
    best = fitting[-1] if fitting else ways[0]
    cell = best.cell(width) if look.size else min(wanted, max(least, best.cell(width) * layers)) / layers
    return best, cell


def _ways(maps: Sequence[HeatMap], look: Look, letters: int) -> list[_Arrangement]:
    """The maps in lines of one panel, of two, and so on; names of layers have no more than `letters`."""
    panels = [_panel(m, maps, look, letters) for m in maps]
    beside = range(1, len(panels) + 1) if look.columns is None else [look.columns]
    return [_Arrangement(_lines(panels, most)) for most in beside]


def _lines(panels: Sequence[_Panel], most: int) -> list[list[_Panel]]:
    """Panels in lines of `most` or fewer: the measures of a pair of stores, or all pairs of one measure.

    Of stores that are compared with themselves too, those panels stand beside that of the pair, a line per measure.
    """
    of_measures = len({panel.grid.measure for panel in panels}) == 1 or any(panel.grid.within for panel in panels)
    groups: dict[object, list[_Panel]] = {}
    for panel in panels:
        groups.setdefault(panel.grid.measure if of_measures else panel.grid.stores, []).append(panel)
    lines = []
    for group in groups.values():
        count = -(-len(group) // most)
        length = -(-len(group) // count)  # lines of equal length
        lines += [group[k : k + length] for k in range(0, len(group), length)]
    return lines


def _panel(grid: HeatMap, maps: Sequence[HeatMap], look: Look, letters: int) -> _Panel:
    """A map as it is drawn, on its measure's scale or the one that was given."""
    panel = _measured(grid, maps, look, letters)
    return replace(panel, is_given=isinstance(look.scale, tuple) and len({m.measure for m in maps}) > 1)


def _measured(grid: HeatMap, maps: Sequence[HeatMap], look: Look, letters: int) -> _Panel:
    """A map with calibrated scores where each has one and they are not asked for raw."""
    same = [m for m in maps if m.measure == grid.measure]
    if not any(m.is_calibrated for m in same):
        least, most = limits(same)
        most = max([most, *(m.ceiling[1] for m in same if m.ceiling is not None)])
        return _Panel(grid, _names(grid, look, letters), _limits(grid.values, (least, most), look))
    if look.values == "raw" or not grid.is_calibrated:
        raw = [m for m in same if look.values == "raw" or not m.is_calibrated]
        return _Panel(grid, _names(grid, look, letters), _limits(grid.values, limits(raw), look), "raw")
    calibrated = [m for m in same if m.is_calibrated]
    values = grid.values if grid.calibrated is None else grid.calibrated
    return _Panel(grid, _names(grid, look, letters), _limits(values, calibrated_limits(calibrated), look), "calibrated")


def _names(grid: HeatMap, look: Look, letters: int) -> tuple[Sequence[str], Sequence[str]]:
    down, across = grid.stores
    return layer_names(grid.down, down, look, letters), layer_names(grid.across, across, look, letters)


def _limits(values: Values, shared: tuple[float, float], look: Look) -> tuple[float, float]:
    """Where the scale of a panel's scores begins and ends; `shared`: that of the panels it shares one with."""
    if isinstance(look.scale, tuple):
        return look.scale
    if look.scale == "own":
        finite = values[np.isfinite(values)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return shared


def _heat_map(ax: Any, panel: _Panel, cell: float, look: Look) -> Any:
    """Draw a map whose cells have sides of about `cell` inches; its image comes back."""
    grid, (least, most) = panel.grid, panel.limits
    colours = mpl.colormaps[look.cmap or "viridis"]  # bright is similar
    colours = colours if grid.higher else colours.reversed()
    ax.patch.set(hatch="////", edgecolor="0.7", facecolor="white")  # shows where there is no value
    image = ax.imshow(panel.values, cmap=colours, aspect="equal", origin="lower", vmin=least, vmax=most)
    ax.spines[:].set_visible(True)
    ax.set_title(shortened(titled(grid.measure), TITLE) + (", within" if grid.within else ""))
    ax.set_xlabel(shortened(grid.stores[1], TITLE))
    ax.set_ylabel(shortened(grid.stores[0], TITLE))
    rows, columns = (max(2, int(cell * size / TICK)) for size in grid.values.shape)
    ax.set_xticks(*_ticks(panel.names[1], columns), rotation=90)
    ax.set_yticks(*_ticks(panel.names[0], rows))
    for i, j in np.argwhere(grid.best()):
        _frame(ax, i, j, small=max(grid.values.shape) > MOST_VALUES)
    return image


def _beyond(image: Any, panels: Sequence[_Panel]) -> str:
    """At which ends of a scale scores lie outside it, which a point there shows."""
    least, most = image.get_clim()
    scores = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    rounding = 1e-6 * (most - least)
    low, high = bool((scores < least - rounding).any()), bool((scores > most + rounding).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[low, high]


def _bar(figure: Figure, image: Any, panels: Sequence[_Panel]) -> Any:
    """Draw the scale of colours of some panels, on axes that come back."""
    beyond = _beyond(image, panels)
    bar = figure.colorbar(image, cax=figure.add_axes((0.0, 0.0, 1.0, 1.0), label="scale"), extend=beyond)
    bar.ax.tick_params(labelsize=page.small())
    bar.set_label(_scale_labels(panels[0])[0], fontsize=page.small())
    levels = [panel.level for panel in panels if panel.level is not None]
    least, most = image.get_clim()
    if levels and most > least:  # within the scale, or at its end
        level = min(max(float(np.median(levels)), least), most)
        at = bar.ax.get_yaxis_transform()
        bar.ax.plot([-0.3], [level], marker=">", markersize=4, color="black", clip_on=False, transform=at)
    ceilings = [panel.ceiling for panel in panels if panel.ceiling is not None]
    if ceilings and most > least:
        ends = [min(max(float(end), least), most) for end in np.median(np.array(ceilings), axis=0)]
        at = bar.ax.get_yaxis_transform()
        line: dict[str, Any] = {"marker": "_", "markersize": 5, "linewidth": 1.5, "color": "black", "label": "ceiling"}
        bar.ax.plot([-0.35, -0.35], ends, clip_on=False, transform=at, **line)
    return bar.ax


def _label_bar(drawn: _Drawn, slot: tuple[float, float], bar: float, renderer: Any) -> None:
    """Write the longest label that fits beside a bar of this length; the first one is not much longer than the bar."""
    label, room = drawn.bar.yaxis.label, slot[1] - slot[0]
    for place, text in enumerate(_scale_labels(drawn.panel)):
        label.set_text(text)
        most = room if place else min(room, 1.5 * bar)
        if label.get_window_extent(renderer).height / label.figure.dpi <= most:
            return


def _scale_labels(panel: _Panel) -> list[str]:
    """What is written beside a scale, the longest first: the measure, which scores are drawn, and their direction."""
    name = shortened(titled(panel.grid.measure), TITLE)
    what = {"calibrated": "calibrated", "raw": "raw score"}.get(panel.kind, "")
    if panel.is_given:
        return [what or "score"] if panel.grid.higher else [f"score, {LOWER}", LOWER, SHORT_LOWER]
    if panel.grid.higher:
        return [f"{name}, {what}", what] if what else [name]
    return [f"{name}, {LOWER}", LOWER, SHORT_LOWER]


def _ticks(names: Sequence[str], most: int) -> tuple[Sequence[int], Sequence[str]]:
    """Positions and names, thinned out so that they do not overlap."""
    step = -(-len(names) // most)
    return range(0, len(names), step), names[::step]


def _write_values(drawn: _Drawn, cell: float, renderer: Any) -> None:
    """Write the values into the cells, if each fits into its own."""
    texts = []
    for (i, j), value in np.ndenumerate(drawn.panel.values):
        if np.isfinite(value):
            red, green, blue, _ = drawn.image.cmap(drawn.image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            style = {"ha": "center", "va": "center", "fontsize": page.small(), "color": "white" if dark else "black"}
            texts.append(drawn.ax.text(j, i, page.value_text(value), **style))
    boxes = [text.get_window_extent(renderer) for text in texts]
    if max((max(box.width, box.height) for box in boxes), default=0.0) > 0.94 * cell * drawn.ax.figure.dpi:
        for text in texts:
            text.remove()


def _frame(ax: Any, i: int, j: int, small: bool) -> None:
    """White in black, to be seen on bright and dark cells."""
    for colour, width in (("black", 1.6 if small else 2.4), ("white", 0.7 if small else 1.0)):
        box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3)
        box.set_clip_on(False)
        ax.add_patch(box)
