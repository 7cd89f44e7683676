"""A benchmark by pair of models or views (Figure 4 of the paper): bars per measure, one per kind of negatives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from contrasim_cli.plots import page
from contrasim_cli.plots.accuracy import panels_of, scale, title, unit
from contrasim_cli.results import ALL, BenchRow

NAME = 20
BAR = 0.13  # inches

Kind = tuple[str, str]  # benchmark, negatives


def by_pair(rows: Sequence[BenchRow]) -> Figure:
    """A panel per pair, in which measures stand side by side; whiskers are the 95 % interval, where there is one."""
    shown = [row for row in rows if row.layer == ALL and row.pair != ALL] or [row for row in rows if row.layer == ALL]
    kinds = panels_of(shown)
    pairs = list(dict.fromkeys(row.pair for row in shown))
    measures = list(dict.fromkeys(row.measure for row in shown))
    wide = max(1.3, len(measures) * (len(kinds) + 0.6) * BAR) + 0.35
    columns = max(1, min(len(pairs), int(page.PAGE / wide)))
    lines = -(-len(pairs) // columns)
    columns = -(-len(pairs) // lines)  # lines of equal length
    names = page.distinct(measures, NAME)
    width = max(2.8, columns * wide + 0.4)
    legend = page.legend_height([*(_label(kind, kinds) for kind in kinds), "chance"], width)
    size = (width, lines * (1.6 + page.inches_of(names)) + legend)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for ax in axes.ravel()[len(pairs) :]:
        ax.axis("off")
    handles: dict[str, Any] = {}
    for ax, pair in zip(axes.ravel(), pairs, strict=False):
        handles |= _panel(ax, [row for row in shown if row.pair == pair], measures, kinds)
        ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        ax.set_title(rows[0].benchmark if pair == ALL else page.shortened(pair, int(wide / page.LETTER)))
    for ax in axes[:, 0]:
        ax.set_ylabel(unit(rows[0].benchmark))
    page.legend_below(figure, list(handles.values()), list(handles), size[0])
    return figure


def _panel(ax: Any, rows: Sequence[BenchRow], measures: Sequence[str], kinds: Sequence[Kind]) -> dict[str, Any]:
    """Draw one panel; what a legend shows comes back."""
    factor = scale(ax, rows[0].benchmark)
    width = 0.8 / len(kinds)
    handles = {}
    for k, kind in enumerate(kinds):
        found = {row.measure: row for row in rows if (row.benchmark, row.negatives) == kind}
        chosen = [found.get(measure) for measure in measures]
        heights = [np.nan if row is None or row.accuracy is None else factor * row.accuracy for row in chosen]
        where = np.arange(len(measures)) + (k - (len(kinds) - 1) / 2) * width
        bars = ax.bar(where, heights, width, **page.bar_style(k))
        if len(kinds) > 1:
            handles[_label(kind, kinds)] = bars[0]
        _whiskers(ax, where, chosen, heights, factor)
    handles["chance"] = page.chance(ax, factor * rows[0].chance)
    ax.set_xlim(min(-0.6, -1.5 + len(measures) / 2), max(len(measures) - 0.4, 0.5 + len(measures) / 2))
    ax.tick_params(axis="x", length=0)
    return handles


def _label(kind: Kind, kinds: Sequence[Kind]) -> str:
    """What tells a kind of bars from the others."""
    return title(kind) if len({benchmark for benchmark, _ in kinds}) > 1 else f"{kind[1]} negatives"


def _whiskers(ax: Any, where: Any, rows: Sequence[BenchRow | None], heights: Sequence[float], factor: float) -> None:
    for x, row, height in zip(where, rows, heights, strict=True):
        if row is not None and row.ci_low is not None and row.ci_high is not None:
            below, above = max(0.0, height - factor * row.ci_low), max(0.0, factor * row.ci_high - height)
            ax.errorbar(x, height, yerr=[[below], [above]], color="black", linewidth=0.8, capsize=1.5)
