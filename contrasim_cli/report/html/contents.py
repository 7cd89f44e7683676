"""What a page shows, as plain data: heat maps, curves, bars and a table, with the measures in the order of the page."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contrasim_cli.measures import MEASURES
from contrasim_cli.nulls import clears
from contrasim_cli.report.conclusions import (
    Depths,
    learned,
    learned_first,
    named,
    of_benchmark,
    of_layers_alike,
    of_scores,
)
from contrasim_cli.report.heat_maps import HeatMap, Values, by_map, calibrated_limits, limits, matrix
from contrasim_cli.report.look import depths
from contrasim_cli.report.results import ALL, CEILING, MONOTONICITY, BenchRow, Results, ScoreRow
from contrasim_cli.report.score_tables import short_names
from contrasim_cli.report.titles import titled

DIGITS = 6  # significant ones, of numbers on the page
MOST_CELLS = 250_000  # of heat maps: what keeps a page under 6 MB; pairs of stores beyond are left out, and it says so
INTERVAL = ("ci_low", "ci_high")
OPTIONAL = tuple(field.name for field in dataclasses.fields(ScoreRow) if field.default is not dataclasses.MISSING)

Data = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """The data that the page's figures are drawn from, what follows from it, and what is left out."""

    data: Data
    sentences: Sequence[str]
    note: str = ""


def of(results: Results, grids: Sequence[HeatMap] = ()) -> Contents:
    """The contents of a page; `grids` are the mean grids of a benchmark of layers.

    Raises:
        TypeError: results are of a kind that no page shows.
    """
    if results.kind is ScoreRow:
        return _of_scores(results)
    if results.kind is BenchRow:
        return _of_benchmark(results, grids)
    raise TypeError(f"no page shows rows of the kind {results.kind.__name__}")


def rounded(value: float | None) -> float | None:
    """A number with as many digits as a page shows; None where it is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def _matrix(values: Values) -> list[list[float | None]]:
    return [[rounded(value) for value in row] for row in values.tolist()]


# --- scores -----------------------------------------------------------------------------------------------------------


class _Sides:
    """The sides of maps, each once: a store, and those of its layers that are compared, with their depths in %."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, tuple[str, ...]], int] = {}
        self.data: list[Data] = []

    def place(self, store: str, layers: Sequence[str], depths: Sequence[float]) -> int:
        """Where a side is in the list."""
        key = store, tuple(layers)
        if key not in self.found:
            self.found[key] = len(self.data)
            self.data.append(
                {
                    "store": store,
                    "layers": list(layers),
                    "short": short_names(layers),
                    "depths": [round(value, 1) for value in depths],
                }
            )
        return self.found[key]

    def of(self, grid: HeatMap, depths: Depths) -> tuple[int, int]:
        """Where both sides of a map are."""
        return (
            self.place(grid.stores[0], grid.down, depths.down),
            self.place(grid.stores[1], grid.across, depths.across),
        )


class _Scales:
    """Where scales of colours begin and end: of a measure's maps, and of all measures of one range and direction."""

    def __init__(self, grids: Sequence[HeatMap]) -> None:
        groups: dict[object, list[HeatMap]] = {}
        for grid in grids:
            groups.setdefault(grid.measure, []).append(grid)
            groups.setdefault(_scale(grid.measure), []).append(grid)
        self.limits = {key: [rounded(value) for value in limits(members)] for key, members in groups.items()}
        calibrated = [grid for grid in grids if grid.is_calibrated]
        self.calibrated = {
            measure: [rounded(value) for value in calibrated_limits([g for g in calibrated if g.measure == measure])]
            for measure in {grid.measure for grid in calibrated}
        }

    def of(self, grid: HeatMap) -> Data:
        """Both of a map, and that of its calibrated scores, None where some are not calibrated."""
        return {
            "measure_limits": self.limits[grid.measure],
            "shared_limits": self.limits[_scale(grid.measure)],
            "calibrated_limits": self.calibrated[grid.measure] if grid.is_calibrated else None,
        }


@dataclass(frozen=True)
class _Panel:
    """A heat map, with the rows that it is of."""

    grid: HeatMap
    cells: Sequence[ScoreRow]
    depths: Depths


def _of_scores(results: Results) -> Contents:
    rows = [row for row in (*results.beside, *results.rows, *results.within) if isinstance(row, ScoreRow)]
    order = learned_first([row.measure for row in rows])
    panels = sorted(_panels(rows, results), key=lambda panel: order.index(panel.grid.measure))
    pairs, left_out = _fitting(panels)
    shown = [p for p in panels if p.grid.stores in pairs or (p.grid.within and _part_of(p.grid.stores[0], pairs))]
    across = [p for p in shown if not p.grid.within]
    optional = [name for name in OPTIONAL if any(getattr(cell, name) is not None for p in across for cell in p.cells)]
    sides, scales = _Sides(), _Scales([p.grid for p in shown])
    maps = [
        _map(p.grid, order.index(p.grid.measure), sides.of(p.grid, p.depths), scales, p.cells, optional) for p in shown
    ]
    stores = list(dict.fromkeys(store for pair in pairs for store in pair))
    data = {
        "stores": stores,
        "pairs": [[stores.index(store) for store in pair] for pair in pairs],
        "sides": sides.data,
        "maps": maps,
        "curves": [*_curves(across, order, sides), *_best_depths(across, order, sides)],
        "columns": [
            "measure",
            "store",
            "layer",
            "depth %",
            "other store",
            "its layer",
            "its depth %",
            "score (raw where there is a calibrated one)" if any(one["calibrated_limits"] for one in maps) else "score",
            *optional,
        ],
        "optional": optional,
        "rows": None,  # made of the maps
    }
    about = results.about
    widest = max((width for widths in about.get("widths", []) for width in widths.values()), default=0)
    counts = _counts([p for p in panels if not p.grid.within])
    every = [p for p in panels if not p.grid.within]
    sentences = of_scores([p.grid for p in every], [p.depths for p in every], counts, int(about.get("rows", 0)), widest)
    sentences += of_layers_alike([p.grid for p in panels if p.grid.within])
    note = f"{left_out} pairs of stores are left out to keep the page small; -o FILE.tsv holds all." if left_out else ""
    return Contents(data, sentences, note)


def _panels(rows: Sequence[ScoreRow], results: Results) -> Iterator[_Panel]:
    for key, cells in by_map(rows).items():
        grid = HeatMap.of(key, cells)
        places = (
            depths(results.layers.get(store, names), names)
            for store, names in zip(grid.stores, (grid.down, grid.across), strict=True)
        )
        yield _Panel(grid, cells, Depths(*places))


def _fitting(panels: Sequence[_Panel]) -> tuple[list[tuple[str, str]], int]:
    """The first pairs of stores whose cells fit on the page, one at least, and how many do not."""
    cells: dict[tuple[str, str], int] = {}
    for panel in panels:
        cells[panel.grid.stores] = cells.get(panel.grid.stores, 0) + panel.grid.values.size
    pairs = [pair for pair in cells if pair[0] != pair[1]]
    fitting: list[tuple[str, str]] = []
    used, stores = 0, set[str]()
    for pair in pairs:
        need = cells[pair] + sum(cells.get((store, store), 0) for store in set(pair) - stores)
        if fitting and used + need > MOST_CELLS:
            break
        used += need
        stores |= set(pair)
        fitting.append(pair)
    return fitting, len(pairs) - len(fitting)


def _part_of(store: str, pairs: Sequence[tuple[str, str]]) -> bool:
    return any(store in pair for pair in pairs)


def _scale(measure: str) -> tuple[str, bool]:
    """Measures of one range and direction share a scale; every encoder has its own."""
    entry = MEASURES.get(measure)
    return (measure, True) if entry is None else (entry.range, entry.higher_is_more_similar)


def _map(
    grid: HeatMap,
    colour: int,
    sides: tuple[int, int],
    scales: _Scales,
    cells: Sequence[ScoreRow] = (),
    optional: Sequence[str] = (),
) -> Data:
    best = grid.best()
    tied = best & (best.sum(axis=1, keepdims=True) > 1)
    columns = {name: matrix(grid.down, grid.across, cells, name) for name in optional}
    unclear = {(cell.layer_a, cell.layer_b) for cell in cells if not clears(cell.score, cell.null, cell.null_z)}
    pairs = itertools.product(enumerate(grid.down), enumerate(grid.across))
    return {
        "measure": grid.measure,
        "title": titled(grid.measure),
        "colour": colour,
        "down": sides[0],
        "across": sides[1],
        "higher": grid.higher,
        "values": _matrix(grid.values),
        "level": rounded(grid.level),
        "best": np.argwhere(best & ~tied).tolist(),
        "tied": np.argwhere(tied).tolist(),
        "unclear": [[i, j] for (i, a), (j, b) in pairs if (a, b) in unclear],
        "columns": {name: _matrix(values) for name, values in columns.items() if np.isfinite(values).any()},
        **scales.of(grid),
    }


def _counts(panels: Sequence[_Panel]) -> dict[str, tuple[int, int]]:
    """By measure, how many scores do not clear their null, and how many have one."""
    counts: dict[str, tuple[int, int]] = {}
    for panel in panels:
        held = [
            cell
            for cell in panel.cells
            if cell.score is not None and (cell.null_z is not None or not clears(cell.score, cell.null, None))
        ]
        below, known = counts.get(panel.grid.measure, (0, 0))
        unclear = sum(not clears(cell.score, cell.null, cell.null_z) for cell in held)
        counts[panel.grid.measure] = below + unclear, known + len(held)
    return counts


def _curves(panels: Sequence[_Panel], order: Sequence[str], sides: _Sides) -> Iterator[Data]:
    """The score of every layer with the one at the same depth, a chart for measures that share a scale."""
    charts: dict[tuple[tuple[str, str], tuple[str, bool]], list[_Panel]] = {}
    for panel in panels:
        if min(panel.grid.values.shape) > 1:
            charts.setdefault((panel.grid.stores, _scale(panel.grid.measure)), []).append(panel)
    for (_, (_, higher)), members in charts.items():
        yield {
            "title": f"Score at the same depth: {', '.join(titled(p.grid.measure) for p in members)}",
            **_of_pair(members[0], sides),
            "y": "score" if higher else "score (lower is more similar)",
            "lines": [{**_at_same_depth(panel), "colour": order.index(panel.grid.measure)} for panel in members],
            "chance": None,
        }


def _of_pair(panel: _Panel, sides: _Sides) -> Data:
    down, across = sides.of(panel.grid, panel.depths)
    return {"down": down, "across": across, "x": "depth of the layer of the first store in %"}


def _at_same_depth(panel: _Panel) -> Data:
    grid = panel.grid
    distances = np.abs(np.subtract.outer(np.array(panel.depths.down), np.array(panel.depths.across)))
    partners = distances.argmin(axis=1)
    if len(grid.down) == len(grid.across):
        partners = np.arange(len(grid.down))
    rows = range(len(grid.down))
    low, high = (matrix(grid.down, grid.across, panel.cells, name)[rows, partners] for name in INTERVAL)
    calibrated = matrix(grid.down, grid.across, panel.cells, "calibrated")
    ceilings = [matrix(grid.down, grid.across, panel.cells, name)[rows, partners] for name in CEILING]
    return {
        "name": grid.measure,
        "x": [round(value, 1) for value in panel.depths.down],
        "y": [rounded(value) for value in grid.values[rows, partners].tolist()],
        "calibrated": [rounded(value) for value in calibrated[rows, partners].tolist()] if grid.is_calibrated else None,
        "low": [rounded(value) for value in low.tolist()],
        "high": [rounded(value) for value in high.tolist()],
        "level": rounded(grid.level),
        "ceilings": None if grid.ceiling is None else [[rounded(value) for value in one.tolist()] for one in ceilings],
        "partners": partners.tolist(),
    }


def _best_depths(panels: Sequence[_Panel], order: Sequence[str], sides: _Sides) -> Iterator[Data]:
    """Where the best match of every layer lies, a chart per pair of stores."""
    by_pair: dict[tuple[str, str], list[_Panel]] = {}
    for panel in panels:
        if min(panel.grid.values.shape) > 1:
            by_pair.setdefault(panel.grid.stores, []).append(panel)
    for members in by_pair.values():
        lines = [{**_best_depth(panel), "colour": order.index(panel.grid.measure)} for panel in members]
        lines = [line for line in lines if any(depth is not None for depth in line["y"])]
        if not lines:
            continue
        yield {
            "title": "Depth of the best match",
            **_of_pair(members[0], sides),
            "y": "depth of its best match in %",
            "lines": lines,
            "chance": None,
            "diagonal": True,
            "range": [-4, 104],
        }


def _best_depth(panel: _Panel) -> Data:
    best = panel.grid.best()
    single = best.sum(axis=1) == 1  # of several that tie there is no depth
    places = best.argmax(axis=1)
    depths = [round(panel.depths.across[int(k)], 1) if one else None for k, one in zip(places, single, strict=True)]
    return {
        "name": panel.grid.measure,
        "x": [round(value, 1) for value in panel.depths.down],
        "y": depths,
        "low": None,
        "high": None,
        "level": None,
        "partners": [int(k) if one else None for k, one in zip(places, single, strict=True)],
    }


# --- benchmarks -------------------------------------------------------------------------------------------------------


def _of_benchmark(results: Results, grids: Sequence[HeatMap]) -> Contents:
    rows = [row for row in results.rows if isinstance(row, BenchRow)]
    order = learned_first([row.measure for row in rows])
    rows = sorted(rows, key=lambda row: order.index(row.measure))
    names = list(dict.fromkeys(map(named, rows)))
    colours = {name: k for k, name in enumerate(names)}
    maps = sorted(grids, key=lambda grid: not learned(grid.measure.partition(", trained on ")[0]))
    colours_of_maps = _colours_of_maps(rows, colours)
    sides, scales = _Sides(), _Scales(maps)
    data = {
        "stores": [],
        "pairs": [],
        "maps": [_map(grid, colours_of_maps[grid.measure], sides.of(grid, _spread(grid)), scales) for grid in maps],
        "sides": sides.data,
        "curves": [*_bars(rows, colours), *_by_layer(rows, names)],
        "columns": results.columns,
        "optional": [],
        "rows": [[rounded(v) if isinstance(v, float) else v for v in results.values(row)] for row in rows],
    }
    return Contents(data, of_benchmark(rows))


def _colours_of_maps(rows: Sequence[BenchRow], colours: Mapping[str, int]) -> dict[str, int]:
    """The colours of bars by the names of mean grids, which say what a measure was trained on only where that differs."""
    found: dict[str, int] = {}
    for row in rows:
        for name in (row.measure, f"{row.measure}, trained on {row.train_data}"):
            found.setdefault(name, colours[named(row)])
    return found


def _spread(grid: HeatMap) -> Depths:
    return Depths(*(depths(names, names) for names in (grid.down, grid.across)))


def _where(row: BenchRow) -> tuple[str, ...]:
    """What charts are told apart by."""
    return row.benchmark, row.negatives, row.test_data, row.models


def _title(where: Sequence[str]) -> str:
    benchmark, negatives, *rest = where
    return ", ".join(part for part in (benchmark, f"{negatives} negatives" if negatives else "", *rest) if part)


def _unit(row: BenchRow) -> tuple[str, float, list[float]]:
    """What values are, what they are multiplied by, and their range."""
    return (
        ("rank correlation", 1.0, [-1.05, 1.05])
        if row.benchmark == MONOTONICITY
        else ("accuracy in %", 100.0, [-2, 104])
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else rounded(factor * value)


def _bars(rows: Sequence[BenchRow], colours: Mapping[str, int]) -> Iterator[Data]:
    """Overall accuracies: of all pairs, else of every pair."""
    overall = [row for row in rows if row.layer == ALL]
    shown = [row for row in overall if row.pair == ALL] or overall
    charts: dict[tuple[str, ...], list[BenchRow]] = {}
    for row in shown:
        charts.setdefault((*_where(row), row.pair if row.pair != ALL else ""), []).append(row)
    for where, members in charts.items():
        unit, factor, span = _unit(members[0])
        lines = [
            {
                "name": named(row),
                "colour": colours[named(row)],
                "y": _times(row.accuracy, factor),
                "low": _times(row.ci_low, factor),
                "high": _times(row.ci_high, factor),
            }
            for row in members
        ]
        title = f"Overall, {_title(where)}"
        yield {
            "title": title,
            "bars": True,
            "y": unit,
            "range": span,
            "lines": lines,
            "chance": factor * members[0].chance,
        }


def _by_layer(rows: Sequence[BenchRow], names: Sequence[str]) -> Iterator[Data]:
    """Accuracy per layer with its interval, over all pairs where there are such rows."""
    layers = [row for row in rows if row.layer != ALL]
    layers = [row for row in layers if row.pair == ALL] or layers
    charts: dict[tuple[str, ...], list[BenchRow]] = {}
    for row in layers:
        charts.setdefault((*_where(row), row.pair if row.pair != ALL else ""), []).append(row)
    for where, members in charts.items():
        places = list(dict.fromkeys(row.layer for row in members))
        if len(places) < 2:
            continue
        unit, factor, span = _unit(members[0])
        by_name = {name: {row.layer: row for row in members if named(row) == name} for name in names}
        yield {
            "title": f"By layer, {_title(where)}",
            "x": "layer",
            "y": unit,
            "range": span,
            "ticks": places,
            "lines": [
                {**_layer_line(name, found, places, factor), "colour": names.index(name)}
                for name, found in by_name.items()
                if found
            ],
            "chance": factor * members[0].chance,
        }


def _layer_line(name: str, found: Mapping[str, BenchRow], places: Sequence[str], factor: float) -> Data:
    known = [found.get(place) for place in places]
    return {
        "name": name,
        "x": list(range(len(places))),
        "y": [_times(row.accuracy, factor) if row else None for row in known],
        "low": [_times(row.ci_low, factor) if row else None for row in known],
        "high": [_times(row.ci_high, factor) if row else None for row in known],
        "level": None,
        "partners": None,
    }
