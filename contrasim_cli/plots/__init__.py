"""Results as figures; needs the extra `plot`. Readable in print, in grey and by colour-blind readers."""

from collections.abc import Mapping, Sequence

from contrasim_cli.errors import UsageError
from contrasim_cli.plots import accuracy, grids, page, rows
from contrasim_cli.report.heat_maps import HeatMap, of_rows
from contrasim_cli.report.look import Look
from contrasim_cli.report.results import BenchRow, Results, ScoreRow


def draw(results: Results, paths: page.Paths, force: bool, look: Look = Look()) -> None:
    """Draw grids as heat maps, and benchmarks as accuracy per layer (per pair where there is one layer); whole or not at all."""
    if results.kind is ScoreRow:
        scores = [row for row in (*results.rows, *results.within) if isinstance(row, ScoreRow)]
        page.write(lambda: grids.heat_maps(of_rows(scores), look), paths, force, look)
    elif results.kind is BenchRow:
        found = [row for row in results.rows if isinstance(row, BenchRow)]
        several = len({row.layer for row in found}) > 2  # `all` is one of them
        page.write(
            lambda: accuracy.by_layer(found, look) if several else accuracy.by_pair(found, look), paths, force, look
        )
    else:
        raise UsageError("--plot: there is nothing to draw")


def draw_pairs(found: Sequence[BenchRow], paths: page.Paths, force: bool, look: Look = Look()) -> None:
    """Draw a benchmark as bars per pair; whole or not at all."""
    page.write(lambda: accuracy.by_pair(found, look), paths, force, look)


def draw_grids(maps: Sequence[HeatMap], paths: page.Paths, force: bool, look: Look = Look()) -> None:
    """Draw grids that were made of scores already; whole or not at all."""
    page.write(lambda: grids.heat_maps(maps, look), paths, force, look)


def draw_planes(
    panels: Sequence[rows.Plane],
    views: Sequence[str],
    ids: Sequence[str],
    paths: page.Paths,
    force: bool,
    look: Look = Look(),
) -> None:
    """Draw rows of some views on planes; whole or not at all."""
    page.write(lambda: rows.planes(panels, views, ids, look), paths, force, look)


def draw_training(curves: Mapping[str, Sequence[float]], paths: page.Paths, force: bool, look: Look = Look()) -> None:
    """Draw the loss and, where rows were held out, the accuracy of a run; whole or not at all."""
    page.write(lambda: accuracy.curves(curves), paths, force, look)
