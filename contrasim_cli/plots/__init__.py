"""Results as figures; needs the extra `plot`. Readable in print, in grey and by colour-blind readers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from contrasim_cli.errors import UsageError
from contrasim_cli.plots import accuracy, grids, page, pairs, training
from contrasim_cli.results import BenchRow, Results, ScoreRow


def draw(results: Results, path: Path, force: bool) -> None:
    """Draw grids as heat maps, and benchmarks as accuracy per layer (per pair where there is one layer); whole or not at all."""
    if results.kind is ScoreRow:
        scores = [row for row in results.rows if isinstance(row, ScoreRow)]
        page.write(lambda: grids.heat_maps(grids.of_rows(scores)), path, force)
    elif results.kind is BenchRow:
        rows = [row for row in results.rows if isinstance(row, BenchRow)]
        several = len({row.layer for row in rows}) > 2  # `all` is one of them
        page.write(lambda: accuracy.by_layer(rows) if several else pairs.by_pair(rows), path, force)
    else:
        raise UsageError("--plot: there is nothing to draw")


def draw_pairs(rows: Sequence[BenchRow], path: Path, force: bool) -> None:
    """Draw a benchmark as bars per pair; whole or not at all."""
    page.write(lambda: pairs.by_pair(rows), path, force)


def draw_grids(maps: Sequence[grids.HeatMap], path: Path, force: bool) -> None:
    """Draw heat maps; whole or not at all."""
    page.write(lambda: grids.heat_maps(maps), path, force)


def draw_training(curves: Mapping[str, Sequence[float]], path: Path, force: bool) -> None:
    """Draw the loss and, where rows were held out, the accuracy of a run; whole or not at all."""
    page.write(lambda: training.curves(curves), path, force)
