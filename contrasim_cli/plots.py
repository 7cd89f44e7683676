"""Results as figures; needs the extra `plot`. Readable in print and in grey."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from contrasim_cli.errors import UsageError
from contrasim_cli.files import write_atomic
from contrasim_cli.results import ALL, BenchRow, Results, ScoreRow

MARKERS = "osD^vP*X<>"
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


def _heat_maps(rows: Sequence[ScoreRow]) -> Figure:
    """One panel per measure and pair of stores."""
    panels: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in rows:
        panels.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    largest = max(len({row.layer_b for row in cells}) for cells in panels.values())
    side = max(3.2, 0.42 * largest + 1.6)
    figure = Figure(figsize=(columns * side, lines * side * 0.92), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.axis("off")
    for ax, (key, cells) in zip(axes, panels.items(), strict=False):
        _heat_map(figure, ax, key, cells)
    return figure


def _heat_map(figure: Figure, ax: Any, key: tuple[str, str, str], cells: Sequence[ScoreRow]) -> None:
    across = list(dict.fromkeys(cell.layer_b for cell in cells))
    down = list(dict.fromkeys(cell.layer_a for cell in cells))
    values = np.array([np.nan if cell.score is None else cell.score for cell in cells]).reshape(len(down), len(across))
    image = ax.imshow(values, cmap="viridis", aspect="equal", origin="lower")
    figure.colorbar(image, ax=ax, shrink=0.8)
    ax.set_title(key[0])
    ax.set_xlabel(key[2])
    ax.set_ylabel(key[1])
    ax.set_xticks(range(len(across)), across, rotation=90, fontsize=7)
    ax.set_yticks(range(len(down)), down, fontsize=7)
    if values.size <= 144 and np.isfinite(values).any():
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                ax.text(
                    j,
                    i,
                    f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if value < middle else "black",
                )


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
