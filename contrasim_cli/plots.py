"""Results as figures; needs the extra `plot`. Readable in print and in grey."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from contrasim_cli.errors import UsageError
from contrasim_cli.files import write_atomic
from contrasim_cli.measures import higher_is_more_similar
from contrasim_cli.results import ALL, BenchRow, Results, ScoreRow

MARKERS = "osD^vP*X<>"
MOST_VALUES = 12  # layers on a side up to which the values are written into the cells
MOST_TICKS = 24
MOST_COLUMNS = 4
LINES = ("-", "--", "-.", ":")


def draw(results: Results, path: Path, force: bool) -> None:
    """Draw grids as heat maps and benchmarks as accuracy per layer; whole or not at all."""
    mpl.use("Agg")
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "text.parse_math": False}):
        if results.kind is ScoreRow:
            figure = _heat_maps([row for row in results.rows if isinstance(row, ScoreRow)])
        elif results.kind is BenchRow:
            figure = _accuracies([row for row in results.rows if isinstance(row, BenchRow)])
        else:
            raise UsageError("--plot: there is nothing to draw")
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=160, bbox_inches="tight")
    write_atomic(path, buffer.getvalue(), force)


def draw_training(curves: Mapping[str, Sequence[float]], path: Path, force: bool) -> None:
    """Draw loss and, where rows were held out, accuracy over the epochs of a run; whole or not at all."""
    mpl.use("Agg")
    accuracy = curves.get("validation_accuracy")
    panels = 2 if accuracy else 1
    figure = Figure(figsize=(1.0 + 4.0 * panels, 3.4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _curve(axes[0], curves["loss"])
    axes[0].set_ylabel("mean loss of a step")
    if accuracy:
        _curve(axes[1], [100 * value for value in accuracy])
        axes[1].set_ylabel("accuracy in % on held-out rows")
        axes[1].set_ylim(-2, 104)
    for ax in axes:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=160, bbox_inches="tight")
    write_atomic(path, buffer.getvalue(), force)


def _curve(ax: Any, values: Sequence[float]) -> None:
    ax.plot(range(1, 1 + len(values)), values, color="C0", marker="o", markersize=3)


def _heat_maps(rows: Sequence[ScoreRow]) -> Figure:
    """One panel per measure and pair of stores."""
    panels: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in rows:
        panels.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    maps = [HeatMap.of(key, cells) for key, cells in panels.items()]
    measures = list(dict.fromkeys(one.measure for one in maps))
    columns = len(measures) if 1 < len(measures) <= MOST_COLUMNS else min(3, len(maps))
    if columns == len(measures):  # one pair of stores per line
        maps.sort(key=lambda one: measures.index(one.measure))
        maps = [one for k in range(len(maps) // columns) for one in maps[k :: len(maps) // columns]]
    lines = -(-len(maps) // columns)
    high, wide = (max(_inches(one.values.shape[axis]) for one in maps) for axis in (0, 1))
    figure = Figure(figsize=(columns * (wide + 2.0), lines * (high + 1.4)), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(maps) :]:
        ax.axis("off")
    for ax, one in zip(axes, maps, strict=False):
        _heat_map(figure, ax, one, _limits([other.values for other in maps if other.measure == one.measure]))
    return figure


@dataclass(frozen=True)
class HeatMap:
    """One grid: layers of the first store from below, layers of the second from the left."""

    measure: str
    stores: tuple[str, str]
    down: Sequence[str]
    across: Sequence[str]
    values: npt.NDArray[np.float64]

    @classmethod
    def of(cls, key: tuple[str, str, str], cells: Sequence[ScoreRow]) -> "HeatMap":
        """The grid of some cells, of one measure and pair of stores."""
        down, across = (
            list(dict.fromkeys(names)) for names in zip(*((c.layer_a, c.layer_b) for c in cells), strict=True)
        )
        values = np.full((len(down), len(across)), np.nan)
        for cell in cells:
            values[down.index(cell.layer_a), across.index(cell.layer_b)] = np.nan if cell.score is None else cell.score
        return cls(key[0], key[1:], down, across, values)


def _inches(layers: int) -> float:
    """Side of a heat map: room for a value in each cell while they are few, then for every cell to be seen."""
    return max(1.2, min(0.36 * layers, max(0.36 * MOST_VALUES, 0.11 * layers)))


def _limits(grids: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """The least and the greatest value of all panels of a measure, so that equal colours are equal values."""
    finite = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _heat_map(figure: Figure, ax: Any, one: HeatMap, limits: tuple[float, float]) -> None:
    higher = higher_is_more_similar(one.measure)
    colours = mpl.colormaps["viridis" if higher else "viridis_r"]  # bright is similar
    ax.patch.set(hatch="////", edgecolor="0.7", facecolor="white")  # shows where there is no value
    image = ax.imshow(one.values, cmap=colours, aspect="equal", origin="lower", vmin=limits[0], vmax=limits[1])
    bar = figure.colorbar(image, ax=ax, shrink=0.8)
    bar.ax.tick_params(labelsize=7)
    if not higher:
        bar.set_label("lower is more similar", fontsize=7)
    ax.set_title(one.measure, fontsize=10)
    ax.set_xlabel(one.stores[1], fontsize=9)
    ax.set_ylabel(one.stores[0], fontsize=9)
    ax.set_xticks(*_ticks(one.across), rotation=90, fontsize=7)
    ax.set_yticks(*_ticks(one.down), fontsize=7)
    if max(one.values.shape) <= MOST_VALUES:
        _write_values(ax, image, one.values)


def _ticks(names: Sequence[str]) -> tuple[Sequence[int], Sequence[str]]:
    """Positions and names, thinned out so that they do not overlap."""
    step = -(-len(names) // MOST_TICKS)
    return range(0, len(names), step), names[::step]


def _write_values(ax: Any, image: Any, values: npt.NDArray[np.float64]) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
            ax.text(j, i, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _accuracies(rows: Sequence[BenchRow]) -> Figure:
    """Accuracy per layer with a band of one std; a panel per kind of negatives."""
    kinds = list(dict.fromkeys(row.negatives for row in rows))
    figure = Figure(figsize=(1.0 + 4.6 * len(kinds), 3.8), layout="constrained")
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        shown = [row for row in rows if row.negatives == kind and row.pair == ALL and row.layer != ALL]
        _accuracy_panel(ax, shown)
        ax.set_title(f"{rows[0].benchmark}: {kind} negatives" if kind else rows[0].benchmark)
    axes[0].set_ylabel("accuracy in %")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    return figure


def _accuracy_panel(ax: Any, rows: Sequence[BenchRow]) -> None:
    measures = list(dict.fromkeys(row.measure for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows))
    for k, measure in enumerate(measures):
        chosen = [row for row in rows if row.measure == measure]
        middle = np.array([np.nan if row.accuracy is None else 100 * row.accuracy for row in chosen])
        spread = np.array([0.0 if row.std is None else 100 * row.std for row in chosen])
        style = {"marker": MARKERS[k % len(MARKERS)], "linestyle": LINES[k % len(LINES)], "color": f"C{k % 10}"}
        ax.plot(range(len(chosen)), middle, label=measure, markersize=4, **style)
        ax.fill_between(
            range(len(chosen)), middle - spread, middle + spread, alpha=0.12, linewidth=0, color=style["color"]
        )
    ax.axhline(100 * rows[0].chance, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)))
    ax.text(0, 100 * rows[0].chance + 1, "chance", fontsize=7, color="0.4")
    ax.set_xticks(range(len(layers)), layers, rotation=90 if max(map(len, layers)) > 3 else 0, fontsize=7)
    ax.set_xlabel("layer")
    ax.set_ylim(-2, 104)
