"""A benchmark by layer: one line per measure with a band of one std, one panel per kind of negatives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from contrasim_cli.plots import page
from contrasim_cli.results import ALL, MONOTONICITY, BenchRow

MOST_TICKS = 24
NAME = 22

Panel = tuple[str, str]  # benchmark, negatives


def panels_of(rows: Sequence[BenchRow]) -> list[Panel]:
    """What is drawn side by side."""
    return list(dict.fromkeys((row.benchmark, row.negatives) for row in rows))


def by_layer(rows: Sequence[BenchRow]) -> Figure:
    """A panel per benchmark and kind of negatives; panels of one scale share it."""
    panels = panels_of(rows)
    measures = list(dict.fromkeys(row.measure for row in rows))
    width = page.PAGE * (0.7 if len(panels) == 1 else 1.0)
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    legend = page.legend_height([*measures, "chance"], width)
    beneath = page.inches_of(page.distinct([row.layer for row in rows if row.layer != ALL], NAME))
    figure = Figure(figsize=(width, (2.2 + beneath) * lines + legend), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.axis("off")
    handles: dict[str, Any] = {}
    for k, (ax, panel) in enumerate(zip(axes.ravel(), panels, strict=False)):
        shown = [row for row in rows if (row.benchmark, row.negatives) == panel]
        handles |= _panel(ax, [row for row in shown if row.pair == ALL and row.layer != ALL], measures)
        ax.set_title(title(panel))
        if k % columns and unit(panels[k - 1][0]) == unit(panel[0]):
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel(unit(panel[0]))
    page.legend_below(figure, list(handles.values()), list(handles), width)
    return figure


def title(panel: Panel) -> str:
    """`multilingual: faiss negatives`."""
    return f"{panel[0]}: {panel[1]} negatives" if panel[1] else panel[0]


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


def _panel(ax: Any, rows: Sequence[BenchRow], measures: Sequence[str]) -> dict[str, Any]:
    """Draw one panel; what a legend shows comes back."""
    factor = scale(ax, rows[0].benchmark)
    layers = list(dict.fromkeys(row.layer for row in rows))
    handles = {}
    for k, measure in enumerate(measures):
        chosen = {row.layer: row for row in rows if row.measure == measure}
        if chosen:
            handles[measure] = _line(ax, k, [chosen.get(layer) for layer in layers], factor)
    handles["chance"] = page.chance(ax, factor * rows[0].chance)
    step = -(-len(layers) // MOST_TICKS)
    names = page.distinct(layers, NAME)[::step]
    ax.set_xticks(range(0, len(layers), step), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_xlabel("layer")
    ax.margins(x=0.04 if len(layers) > 1 else 0.5)
    return handles


def _line(ax: Any, k: int, rows: Sequence[BenchRow | None], factor: float) -> Any:
    middle = np.array([np.nan if row is None or row.accuracy is None else factor * row.accuracy for row in rows])
    spread = np.array([0.0 if row is None or row.std is None else factor * row.std for row in rows])
    style = page.style(k)
    where = np.arange(len(rows))
    (line,) = ax.plot(where, middle, zorder=2.5, **style)
    if len(rows) > 1:
        ax.fill_between(where, middle - spread, middle + spread, alpha=0.12, linewidth=0, color=style["color"])
    else:
        ax.errorbar(where, middle, yerr=spread, color=style["color"], capsize=3, linewidth=1)
    return line
