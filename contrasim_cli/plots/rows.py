"""A few rows of several views on a plane, before and after an encoder (Figure 5 of the paper): shape by view, colour by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from contrasim_cli.names import shortened
from contrasim_cli.plots import page
from contrasim_cli.report.look import Look

TITLE = 48
ID = 34


@dataclass(frozen=True)
class Plane:
    """One panel: points [n, 2] of every view, row r of each the same; the first of them are shown, the others behind them."""

    title: str
    points: Sequence[npt.NDArray[Any]]


def planes(panels: Sequence[Plane], views: Sequence[str], ids: Sequence[str], look: Look = Look()) -> Figure:
    """The panels side by side, where they fit; the rows of these ids are coloured, numbered, and joined from view to view."""
    width = look.size[0] if look.size else page.PAGE * (0.6 if len(panels) == 1 else 1.0)
    columns = page.columns(len(panels), width)
    lines = -(-len(panels) // columns)
    handles = {**_views(views), **_ids(ids)}
    size = (width, 3.0 * lines + page.legend_height(list(handles), width))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.axis("off")
    for ax, panel in zip(axes, panels, strict=False):
        ax.set_title(shortened(panel.title, min(TITLE, int(width / columns / page.LETTER) - 2)))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(True)
        ax.margins(0.08)
        _draw(ax, panel, len(ids))
    page.legend_below(figure, list(handles.values()), list(handles), width)
    return figure


def _draw(ax: Any, panel: Plane, count: int) -> None:
    for v, points in enumerate(panel.points):
        rest = points[count:]
        ax.plot(rest[:, 0], rest[:, 1], page.MARKERS[v], color="0.8", markersize=2.5, markeredgewidth=0, zorder=1)
    for r in range(count):
        same = [points[r] for points in panel.points]
        ax.plot(*zip(*same, strict=True), color="0.35", linewidth=0.7, zorder=2)
        for v, (x, y) in enumerate(same):
            ax.plot(
                x,
                y,
                page.MARKERS[v],
                color=_colour(r),
                markersize=7,
                markeredgecolor="black",
                markeredgewidth=0.6,
                zorder=3,
            )
            ax.annotate(
                str(r + 1), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=page.small(), zorder=2.5,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
            )  # fmt: skip


def _colour(r: int) -> str:
    coloured = page.COLOURS[1:]
    return coloured[r % len(coloured)]


def _views(names: Sequence[str]) -> dict[str, Line2D]:
    return {
        name: Line2D([], [], marker=page.MARKERS[v], color="white", markeredgecolor="black", linestyle="", markersize=6)
        for v, name in enumerate(names)
    }


def _ids(ids: Sequence[str]) -> dict[str, Line2D]:
    return {
        f"{r + 1} {shortened(name, ID)}": Line2D(
            [],
            [],
            marker="s",
            color=_colour(r),
            linestyle="",
            markersize=6,
            markeredgecolor="black",
            markeredgewidth=0.6,
        )
        for r, name in enumerate(ids)
    }
