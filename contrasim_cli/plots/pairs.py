"""A benchmark by pair of models or views (Figure 4 of the paper): bars per measure, one per kind of negatives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from contrasim_cli.plots import page
from contrasim_cli.plots.accuracy import INTERVAL, Panel, label_axis, labels, scale
from contrasim_cli.report.results import ALL, BenchRow

NAME = 20
BAR = 0.13  # inches


def by_pair(rows: Sequence[BenchRow]) -> Figure:
    """A panel per pair, in which measures stand side by side; whiskers are the 95 % interval, where there is one."""
    overall = [row for row in rows if row.layer == ALL and row.benchmark == rows[0].benchmark]
    shown = [row for row in overall if row.pair != ALL] or overall
    panels = list(dict.fromkeys(_panel_of(row) for row in shown))
    kinds = list(dict.fromkeys(row.negatives for row in shown))
    names = labels(shown)
    measures = list(dict.fromkeys(names.values()))
    wide = max(1.3, len(measures) * (len(kinds) + 0.6) * BAR) + 0.35
    columns = max(1, min(len(panels), int(page.PAGE / wide)))
    lines = -(-len(panels) // columns)
    columns = -(-len(panels) // lines)  # lines of equal length
    ticks = page.distinct(measures, NAME)
    width = max(2.8, columns * wide + 0.4)
    legend = page.legend_height([*(f"{kind} negatives" for kind in kinds), "chance", INTERVAL], width)
    figure = Figure(figsize=(width, lines * (1.6 + page.inches_of(ticks)) + legend), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.axis("off")
    handles: dict[str, Any] = {}
    for k, (ax, panel) in enumerate(zip(axes.ravel(), panels, strict=False)):
        panel_rows = {(names[r.measure, r.train_data], r.negatives): r for r in shown if _panel_of(r) == panel}
        handles |= _panel(ax, panel_rows, measures, kinds)
        ax.set_xticks(range(len(ticks)), ticks, rotation=90 if max(map(len, ticks)) > 3 else 0)
        ax.set_title(page.shortened(_title(panel), int(wide / page.LETTER) - 4))
        label_axis(ax, panel.benchmark, panels[k - 1].benchmark if k % columns else "")
    if INTERVAL in handles:
        handles[INTERVAL] = handles.pop(INTERVAL)  # last
    page.legend_below(figure, list(handles.values()), list(handles), width)
    return figure


def _panel_of(row: BenchRow) -> Panel:
    return Panel.of(row)._replace(negatives="")


def _title(panel: Panel) -> str:
    """The pair, or the benchmark where there is one; and what data set and models it is of."""
    of = panel.benchmark if panel.pair == ALL else panel.pair
    return " ".join(part for part in (panel.test_data, panel.models, of) if part)


def _panel(
    ax: Any, rows: dict[tuple[str, str], BenchRow], measures: Sequence[str], kinds: Sequence[str]
) -> dict[str, Any]:
    """Draw the rows of a panel, by measure and kind; what a legend shows comes back."""
    first = next(iter(rows.values()))
    factor = scale(ax, first.benchmark)
    width = 0.8 / len(kinds)
    handles = {}
    for k, kind in enumerate(kinds):
        kind_rows = [rows.get((measure, kind)) for measure in measures]
        heights = [np.nan if row is None or row.accuracy is None else factor * row.accuracy for row in kind_rows]
        where = np.arange(len(measures)) + (k - (len(kinds) - 1) / 2) * width
        bars = ax.bar(where, heights, width, **page.bar_style(k))
        if len(kinds) > 1:
            handles[f"{kind} negatives"] = bars[0]
        handles |= _whiskers(ax, where, kind_rows, heights, factor)
    handles["chance"] = page.chance(ax, factor * first.chance)
    ax.set_xlim(min(-0.6, -1.5 + len(measures) / 2), max(len(measures) - 0.4, 0.5 + len(measures) / 2))
    ax.tick_params(axis="x", length=0)
    return handles


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
