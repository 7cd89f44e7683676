"""Accuracy: of a benchmark by layer, or by pair of models or views (Figure 4 of the paper), and over the epochs of a run.

By layer there is a line per measure with its 95 % interval as a band (of one std where there are no intervals, as with one batch
or pair of models), a panel per kind of negatives; by pair there are bars per measure, one per kind of negatives.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from contrasim_cli.names import distinct, shortened
from contrasim_cli.plots import page
from contrasim_cli.report.look import Look, layer_names
from contrasim_cli.report.results import ALL, MONOTONICITY, BenchRow

MOST_TICKS = 24
NAME, PAIR_NAME = 22, 20
BAR = 0.13  # inches
INTERVAL = "95 % interval"
NOTHING = "undefined, or not judged"


class Panel(NamedTuple):
    """What is drawn side by side, and what its trials are of, where there are several."""

    benchmark: str
    negatives: str
    test_data: str
    models: str
    pair: str

    @classmethod
    def of(cls, row: BenchRow) -> "Panel":
        """Where a row belongs."""
        return cls(row.benchmark, row.negatives, row.test_data, row.models, row.pair)

    @property
    def title(self) -> str:
        """`multilingual: faiss negatives`, or of which data set, models or pair."""
        negatives = f"{self.negatives} negatives" if self.negatives else ""
        of = [self.test_data, self.models, self.pair if self.pair != ALL else ""]
        about = ", ".join(part for part in (*of, negatives) if part)
        return f"{self.benchmark}: {about}" if about else self.benchmark


def by_layer(rows: Sequence[BenchRow], look: Look = Look()) -> Figure:
    """A panel per benchmark, kind of negatives and what else is told apart; panels of one scale share it."""
    summed = _of_all_pairs(rows)
    panels = list(dict.fromkeys(map(Panel.of, summed)))
    names = labels(summed)
    measures = list(dict.fromkeys(names.values()))
    width = look.size[0] if look.size else page.PAGE * (0.7 if len(panels) == 1 else 1.0)
    columns = page.columns(len(panels), width)
    lines = -(-len(panels) // columns)
    band = band_name(summed)
    legend = page.legend_height([*measures, "chance", band or "chance"], width)
    layers = list(dict.fromkeys(row.layer for row in summed))
    beneath = page.inches_of(layer_names(layers, "", look, NAME))
    figure = Figure(figsize=(width, (2.2 + beneath) * lines + legend), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.axis("off")
    handles: dict[str, Any] = {}
    for k, (ax, panel) in enumerate(zip(axes.ravel(), panels, strict=False)):
        shown = [row for row in summed if Panel.of(row) == panel]
        handles |= _panel(ax, shown, measures, names, look)
        ax.set_title(shortened(panel.title, int(width / columns / page.LETTER) - 8))
        label_axis(ax, panel.benchmark, panels[k - 1].benchmark if k % columns else "")
    if band:
        handles[band] = Patch(facecolor="0.85")
    page.legend_below(figure, list(handles.values()), list(handles), width)
    return figure


def _of_all_pairs(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The rows per layer, over all pairs where there are such."""
    layers = [row for row in rows if row.layer != ALL]
    return [row for row in layers if row.pair == ALL] or layers


def labels(rows: Sequence[BenchRow]) -> dict[tuple[str, str], str]:
    """How measures are called, by name and by what they were trained on, which is said where it differs."""
    trained = {row.train_data for row in rows if row.train_data}
    return {
        (row.measure, row.train_data): f"{row.measure}, trained on {row.train_data}"
        if row.train_data and len(trained) > 1
        else row.measure
        for row in rows
    }


def label_axis(ax: Any, benchmark: str, left: str) -> None:
    """Say what an axis shows, unless its left neighbour does."""
    if left and unit(left) == unit(benchmark):
        ax.tick_params(labelleft=False)
    else:
        ax.set_ylabel(unit(benchmark))


def unit(benchmark: str) -> str:
    """What a benchmark's values are."""
    return "rank correlation" if benchmark == MONOTONICITY else "accuracy in %"


def scale(ax: Any, benchmark: str) -> float:
    """Give an axis the range of a benchmark's values; what they are multiplied by comes back."""
    ranks = benchmark == MONOTONICITY
    ax.set_ylim(*((-1.05, 1.05) if ranks else (-2, 104)))
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    return 1.0 if ranks else 100.0


def _panel(
    ax: Any, rows: Sequence[BenchRow], measures: Sequence[str], names: dict[tuple[str, str], str], look: Look
) -> dict[str, Any]:
    """Draw one panel; what a legend shows comes back."""
    factor = scale(ax, rows[0].benchmark)
    layers = list(dict.fromkeys(row.layer for row in rows))
    handles = {}
    for k, measure in enumerate(measures):
        rows_by_layer = {row.layer: row for row in rows if names[row.measure, row.train_data] == measure}
        if rows_by_layer:
            handles[measure] = _line(ax, k, [rows_by_layer.get(layer) for layer in layers], factor)
    handles["chance"] = page.chance(ax, factor * rows[0].chance)
    step = -(-len(layers) // MOST_TICKS)
    ticks = layer_names(layers, "", look, NAME)[::step]
    ax.set_xticks(range(0, len(layers), step), ticks, rotation=90 if max(map(len, ticks)) > 3 else 0)
    ax.set_xlabel("depth of the layer" if look.labels == "depth" else "layer")
    ax.margins(x=0.04 if len(layers) > 1 else 0.5)
    return handles


def _line(ax: Any, k: int, rows: Sequence[BenchRow | None], factor: float) -> Any:
    """The line of one measure, with its band; a row is None where a layer is missing."""
    style = page.style(k)
    middle, low, high = (factor * np.array(values, dtype=float) for values in zip(*map(_band, rows), strict=True))
    where = np.arange(len(rows))
    (line,) = ax.plot(where, middle, zorder=2.5, **style)
    if len(rows) > 1:
        ax.fill_between(where, low, high, alpha=0.15, linewidth=0, color=style["color"])
    else:
        ax.errorbar(where, middle, yerr=[middle - low, high - middle], color=style["color"], capsize=3, linewidth=1)
    return line


def _band(row: BenchRow | None) -> tuple[float, float, float]:
    """A value and the ends of its band."""
    if row is None or row.accuracy is None:
        return math.nan, math.nan, math.nan
    if row.ci_low is None or row.ci_high is None:
        spread = row.std or 0.0
        return row.accuracy, row.accuracy - spread, row.accuracy + spread
    return row.accuracy, min(row.accuracy, row.ci_low), max(row.accuracy, row.ci_high)


def band_name(rows: Sequence[BenchRow]) -> str:
    """What bands and whiskers are; empty where there are none."""
    if any(row.ci_low is not None for row in rows):
        return INTERVAL
    return "one std" if any(row.std for row in rows) else ""


def by_pair(rows: Sequence[BenchRow], look: Look = Look()) -> Figure:
    """A panel per pair, in which measures stand side by side; whiskers are the 95 % interval, where there is one."""
    overall = [row for row in rows if row.layer == ALL and row.benchmark == rows[0].benchmark]
    shown = [row for row in overall if row.pair != ALL] or overall
    panels = list(dict.fromkeys(_panel_of(row) for row in shown))
    kinds = list(dict.fromkeys(row.negatives for row in shown))
    names = labels(shown)
    measures = list(dict.fromkeys(names.values()))
    wide = max(1.3, len(measures) * (len(kinds) + 0.6) * BAR) + 0.35
    room = look.size[0] if look.size else page.PAGE
    columns = max(1, min(len(panels), int(room / wide)))
    lines = -(-len(panels) // columns)
    columns = -(-len(panels) // lines)  # lines of equal length
    ticks = distinct(measures, PAIR_NAME)
    width = look.size[0] if look.size else max(2.8, columns * wide + 0.4)
    legend = page.legend_height([*(f"{kind} negatives" for kind in kinds), "chance", INTERVAL, NOTHING], width)
    figure = Figure(figsize=(width, lines * (1.6 + page.inches_of(ticks)) + legend), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.axis("off")
    handles: dict[str, Any] = {}
    for k, (ax, panel) in enumerate(zip(axes.ravel(), panels, strict=False)):
        found = {(names[r.measure, r.train_data], r.negatives): r for r in shown if _panel_of(r) == panel}
        handles |= _pair_panel(ax, found, measures, kinds)
        ax.set_xticks(range(len(ticks)), ticks, rotation=90 if max(map(len, ticks)) > 3 else 0)
        ax.set_title(shortened(_pair_title(panel), int(wide / page.LETTER) - 4))
        label_axis(ax, panel.benchmark, panels[k - 1].benchmark if k % columns else "")
    for last in (INTERVAL, NOTHING):
        if last in handles:
            handles[last] = handles.pop(last)
    page.legend_below(figure, list(handles.values()), list(handles), width)
    return figure


def _panel_of(row: BenchRow) -> Panel:
    return Panel.of(row)._replace(negatives="")


def _pair_title(panel: Panel) -> str:
    """The pair, or the benchmark where there is one; and what data set and models it is of."""
    of = panel.benchmark if panel.pair == ALL else panel.pair
    return " ".join(part for part in (panel.test_data, panel.models, of) if part)


def _pair_panel(
    ax: Any, rows: dict[tuple[str, str], BenchRow], measures: Sequence[str], kinds: Sequence[str]
) -> dict[str, Any]:
    """Draw the rows of a panel, by measure and kind; what a legend shows comes back."""
    first = next(iter(rows.values()))
    factor = scale(ax, first.benchmark)
    width = 0.8 / len(kinds)
    handles = {}
    for k, kind in enumerate(kinds):
        chosen = [rows.get((measure, kind)) for measure in measures]
        heights = [np.nan if row is None or row.accuracy is None else factor * row.accuracy for row in chosen]
        where = np.arange(len(measures)) + (k - (len(kinds) - 1) / 2) * width
        for m, (x, height) in enumerate(zip(where, heights, strict=True)):
            ax.bar(x, height, width, **page.bar_style(m, k))
        if len(kinds) > 1:
            handles[f"{kind} negatives"] = Patch(**{**page.bar_style(0, k), "facecolor": "white"})
        handles |= _whiskers(ax, where, chosen, heights, factor)
        handles |= _missing(ax, where[np.isnan(heights)])
    handles["chance"] = page.chance(ax, factor * first.chance)
    ax.set_xlim(min(-0.6, -1.5 + len(measures) / 2), max(len(measures) - 0.4, 0.5 + len(measures) / 2))
    ax.tick_params(axis="x", length=0)
    return handles


def _missing(ax: Any, where: Any) -> dict[str, Any]:
    """Mark where a bar is missing."""
    if not len(where):
        return {}
    (mark,) = ax.plot(where, [0.0] * len(where), "x", color="black", markersize=4, clip_on=False, zorder=3)
    return {NOTHING: mark}


def _whiskers(
    ax: Any, where: Any, rows: Sequence[BenchRow | None], heights: Sequence[float], factor: float
) -> dict[str, Any]:
    handles = {}
    for x, row, height in zip(where, rows, heights, strict=True):
        if row is not None and row.ci_low is not None and row.ci_high is not None:
            below, above = max(0.0, height - factor * row.ci_low), max(0.0, factor * row.ci_high - height)
            drawn = ax.errorbar(
                x, height, yerr=[[below], [above]], fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5
            )
            handles[INTERVAL] = drawn
    return handles


def curves(found: Mapping[str, Sequence[float]]) -> Figure:
    """Loss and, where rows were held out, accuracy over the epochs of a run."""
    accuracy = found.get("validation_accuracy")
    panels = 2 if accuracy else 1
    figure = Figure(figsize=(page.PAGE * panels / 2, 2.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _curve(axes[0], found["loss"])
    axes[0].set_ylabel("mean loss of a step")
    if accuracy:
        _curve(axes[1], [100 * value for value in accuracy])
        axes[1].set_ylabel("accuracy in % on held-out rows")
        axes[1].set_ylim(-2, 104)
    for ax in axes:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _curve(ax: Any, values: Sequence[float]) -> None:
    ax.plot(range(1, 1 + len(values)), values, color="black", marker="o", markersize=3, linewidth=1.2)
