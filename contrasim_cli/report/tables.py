"""Results as tables for a terminal, and for markup."""

import io
import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from contrasim_cli.measures import MEASURES, higher_is_more_similar
from contrasim_cli.names import distinct, encodable, quoted
from contrasim_cli.nulls import CLEAR, Standing, clears
from contrasim_cli.report.bench_tables import bench_tables, checklists, compare_tables
from contrasim_cli.report.heat_maps import HeatMap
from contrasim_cli.report.look import Look, depths, layer_names
from contrasim_cli.report.results import ALL, BenchRow, CompareRow, Results, Row, SanityRow, ScoreRow
from contrasim_cli.report.score_tables import (
    NEAR,
    TIED,
    UNCLEAR,
    ScoreGrid,
    best_matches,
    full_table,
    narrow_table,
    with_calibrated,
)
from contrasim_cli.report.titles import titled

NULL_COLUMNS = Standing._fields
# the fields of rows that hold names, those of one kind together; and letters to which none is cut, however narrow a terminal
NAMES = {
    ("measure", "measure_a", "measure_b"): 32,
    ("store_a", "store_b", "store"): 20,
    ("layer_a", "layer_b", "layer"): 20,
    ("pair",): 20,
    ("test_data", "train_data"): 20,
}
LISTED = 60  # cells of a grid too wide to read that are listed one by one


class _Page(io.StringIO):
    """What rich writes to, in an encoding that may lack the lines of its tables."""

    encoding = "utf-8"


def shown(results: Results, color: bool, width: int | None, encoding: str) -> str:
    """The tables as a terminal shows them, in letters that the encoding has."""
    stream = _Page()
    stream.encoding = encoding
    console = Console(
        file=stream,
        width=width or _terminal_width(),
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,  # names are shown as they are
        emoji=False,
    )
    for part in as_tables(_cut(results.printable(), console.width), console.width):
        console.print(part, soft_wrap=isinstance(part, str))
    return encodable(stream.getvalue(), encoding)


def _cut(results: Results, width: int) -> Results:
    """The results with long names cut in the middle, as figures cut them, where that leaves them different."""
    rows: list[Row] = list(results.rows)
    for fields, fewest in NAMES.items():
        letters = max(fewest, width // 4)
        own = [name for name in fields if name in results.columns]
        known = sorted({getattr(row, name) for row in rows for name in own} - set(MEASURES) - {ALL}, key=len)
        short = dict(zip(known, distinct(known, letters), strict=True))
        if known and len(known[-1]) > letters and len(set(short.values())) == len(known):
            rows = [_renamed(row, own, short) for row in rows]
    return replace(results, rows=rows)


def _renamed(row: Row, fields: Sequence[str], names: Mapping[str, str]) -> Row:
    values = {field: getattr(row, field) for field in fields}
    new: dict[str, Any] = {field: names.get(value, value) for field, value in values.items()}
    return replace(row, **new)


def _terminal_width() -> int:
    return max(80, shutil.get_terminal_size((100, 24)).columns)


def with_layer_labels(results: Results) -> Results:
    """The results with layers by their depth in % or by their place in the store, where tables for papers are to have that."""
    look = Look(labels=results.layer_labels, layers=results.layers)
    if look.labels == "name" or results.kind not in (ScoreRow, BenchRow):
        return results
    sides = (("store_a", "layer_a"), ("store_b", "layer_b")) if results.kind is ScoreRow else (("", "layer"),)
    layers: dict[str, list[str]] = {}
    for row, (store, layer) in itertools.product(results.rows, sides):
        if getattr(row, layer) != ALL:
            layers.setdefault(getattr(row, store) if store else "", []).append(getattr(row, layer))
    labels = {(store, ALL): ALL for store in layers}
    for store, found in layers.items():
        names = list(dict.fromkeys(found))
        shown = layer_names(names, store, look, 0)
        if len(set(shown)) < len(names):  # depths that differ by less than 1 %
            shown = [f"{value:.2f} %" for value in depths(look.layers.get(store, names), names)]
        labels |= {(store, name): label for name, label in zip(names, shown, strict=True)}
    rows: list[Row] = []
    for row in results.rows:
        new: dict[str, Any] = {
            layer: labels[getattr(row, store) if store else "", getattr(row, layer)] for store, layer in sides
        }
        rows.append(replace(row, **new))
    return replace(results, rows=rows)


def as_tables(results: Results, width: int, for_papers: bool = False) -> list[Table | str]:
    """Tables, and lines that say what the next one shows.

    Those `for_papers` call measures as the literature does, and their best matches of rows are `BestMatch`.
    """
    if results.kind is ScoreRow:
        return _score_tables(results, width, for_papers)
    if results.kind is BenchRow:
        return bench_tables([row for row in results.rows if isinstance(row, BenchRow)], width)
    if results.kind is CompareRow:
        return compare_tables([row for row in results.rows if isinstance(row, CompareRow)])
    if results.kind is SanityRow:
        return checklists([row for row in results.rows if isinstance(row, SanityRow)], width)
    return [_plain_table(results, results.rows), *_fact_tables(results.about.get("stores", {}))]


def _fact_tables(stores: dict[str, dict[str, Any]]) -> list[Table]:
    """Where each store comes from, beneath what is in it."""
    if not stores:
        return []
    table = Table("store", "", "")
    for name, facts in stores.items():
        for key, value in facts.items():
            if value and key != "provenance":
                table.add_row(quoted(name), key, quoted(value))
        table.add_section()
    return [table]


def _plain_table(results: Results, rows: Sequence[Row]) -> Table:
    """A line per row, without columns in which nothing stands."""
    cells = [[_rounded(value) for value in results.values(row)] for row in rows]
    kept = [any(line[k] for line in cells) or not cells for k in range(len(results.columns))]
    table = Table(*itertools.compress(results.columns, kept))
    for line in cells:
        table.add_row(*itertools.compress(line, kept))
    return table


def _rounded(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else _text(value)


def _shortened(table: Table, across: Sequence[str]) -> str:
    """Which layers the columns of a narrow table are, where their names are shortened."""
    heads = [str(column.header) for column in table.columns[1:]]
    if heads == list(across):
        return ""
    return f"; columns {heads[0]} to {heads[-1]} are {across[0]} to {across[-1]}"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _score_tables(results: Results, width: int, for_papers: bool) -> list[Table | str]:
    """A table per measure and pair of stores."""
    grids: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in results.rows:
        if isinstance(row, ScoreRow):
            grids.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    return [part for key, cells in grids.items() for part in _grid(results, key, cells, width, for_papers)]


def _grid(
    results: Results, key: tuple[str, str, str], cells: Sequence[ScoreRow], width: int, for_papers: bool
) -> list[Table | str]:
    """A shaded grid; where that is too wide, one of fewer digits, then of calibrated scores alone; else a list or best matches.

    What was asked for stays: intervals and p-values are in no narrow grid, but in the list of few cells and in the best matches.
    """
    higher = higher_is_more_similar(key[0])
    scores = {(cell.layer_a, cell.layer_b): cell.score for cell in cells}
    shuffles = results.about.get("replicates", {}).get("permutations")
    floor = 1 / (shuffles + 1) if shuffles else None
    shown = {(cell.layer_a, cell.layer_b): _score_text(cell, floor) for cell in cells}
    down, across = (list(dict.fromkeys(names)) for names in zip(*scores, strict=True))
    unclear = frozenset(
        (cell.layer_a, cell.layer_b) for cell in cells if not clears(cell.score, cell.null, cell.null_z)
    )
    map_, measure = HeatMap.of(key, cells), key[0]
    near = frozenset(itertools.compress(down, map_.nearly_identical()))
    grid = ScoreGrid(down, across, scores, shown, higher, unclear, near)
    if for_papers:
        best = np.argwhere(map_.best())
        grid = replace(grid, best=frozenset((down[i], across[j]) for i, j in best), shows_near=False)
        measure = titled(measure)
    wide = set(results.optional) - set(NULL_COLUMNS)
    calibrated = {(cell.layer_a, cell.layer_b): cell.calibrated for cell in cells if cell.calibrated is not None}
    note = ("" if higher else "; lower is more similar") + ("; → calibrated" if calibrated else "")
    sides = f"{key[1]} (rows) against {key[2]} (columns)"
    legend = [*_legend(grid, cells), *_undecided(grid, map_), *_at_odds(map_)]
    table = full_table(grid, width)
    if table is None and not wide:
        table = with_calibrated(grid, calibrated, width) if calibrated else narrow_table(grid, width)
    if table:
        return [f"{measure}: {sides}{note}{_shortened(table, across)}", table, *legend]
    if calibrated and not wide and all(pair in calibrated for pair, score in scores.items() if score is not None):
        alone = replace(grid, scores=calibrated, higher=True)
        if (table := narrow_table(alone, width)) is not None:
            told = "0: unrelated rows, 1: a layer with itself; raw scores, by which layers match: --format tsv"
            heading = f"{measure}, calibrated: {sides}{_shortened(table, across)}"
            return [heading, table, *_legend(alone, cells), *_undecided(alone, map_), *_at_odds(map_), told]
    if len(cells) <= LISTED:
        return [f"{measure}: layers of {key[1]} and of {key[2]}{note}", _list(results, cells, grid), *legend]
    title = f"{measure}: the layer of {key[2]} that is most similar to each of {key[1]}{note}"
    return [title, best_matches(grid), *legend]


def _undecided(grid: ScoreGrid, scores: HeatMap) -> list[str]:
    """In how many rows no best match is to be read, and why; nothing where there is none."""
    rows, of, why = len(grid.undecided), len(grid.down), " or ".join(scores.why_undecided())
    mark = NEAR if grid.shows_near else "no bold:"
    return [f"{mark} no best match in {rows} of {of} rows ({why}; see guide report)"] if rows else []


def _at_odds(scores: HeatMap) -> list[str]:
    """In how many rows the calibrated scores do not say what the raw ones do, by which layers match."""
    rows = scores.at_odds()
    text = f"in {rows} of {len(scores.down)} rows another layer than the best match has the largest calibrated score "
    text += "(see guide unseen)"
    return [text] if rows else []


def _list(results: Results, cells: Sequence[ScoreRow], grid: ScoreGrid) -> Table:
    """A line per cell of a grid, with marks; its measure and stores are in the title."""
    columns = [name for name in results.columns if name not in ("measure", "store_a", "store_b")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for name in columns:
        is_name = name in ("layer_a", "layer_b")  # which wraps, so that numbers stay whole
        table.add_column(name, justify="left" if is_name else "right", no_wrap=not is_name)
    for row in cells:
        texts = [
            _text(value) if isinstance(value, str) else _short(value)
            for value in (getattr(row, name) for name in columns)
        ]
        texts[columns.index("score")] += grid.marks((row.layer_a, row.layer_b))
        table.add_row(*texts)
    return table


def _legend(grid: ScoreGrid, cells: Sequence[ScoreRow]) -> list[str]:
    """What shuffled rows score, and what the marks of a grid say."""
    levels = [cell.null for cell in cells if cell.null is not None and math.isfinite(cell.null)]
    low, high = (_short(bound(levels)) if levels else "" for bound in (min, max))
    parts = [f"shuffled rows score {low}" + (f" to {high}" if high != low else "")] if levels else []
    if grid.unclear:
        parts.append(f"{UNCLEAR} less than {CLEAR:g} standard deviations from shuffled rows")
    if grid.tied:
        parts.append(f"{TIED} tied for the best match of its row")
    return [line for line in ("; ".join(parts), _counted(cells)) if line]


def _counted(cells: Sequence[ScoreRow]) -> str:
    """How many scores clear their null, with the least null_z and the largest null_p; empty where none has a p-value."""
    judged = [cell for cell in cells if cell.null_p is not None and math.isfinite(cell.null_p)]
    if not judged:
        return ""
    clear = sum(clears(cell.score, cell.null, cell.null_z) for cell in judged)
    z = [cell.null_z for cell in judged if cell.null_z is not None and math.isfinite(cell.null_z)]
    p = max(cell.null_p for cell in judged if cell.null_p is not None)
    least = f"least null_z {min(z):.3g}, " if z else ""
    return f"{clear} of {len(judged)} scores clear their null ({least}largest null_p {p:.2g})"


def _score_text(cell: ScoreRow, floor: float | None = None) -> str:
    """`0.8312 [0.81, 0.85] → 0.79 p 0.01 z 9.3`, as far as it was asked for.

    The arrow leads to the calibrated score, `of` to the noise ceiling.

    The z-score stands where p is as low as so many shuffles allow, so that p does not say how far the score is from them.
    """
    parts = [_short(cell.score)]
    if cell.ci_low is not None and cell.ci_high is not None:
        parts.append(f"[{_shorter(cell.ci_low)}, {_shorter(cell.ci_high)}]")
    if cell.calibrated is not None:
        parts.append(f"→ {_shorter(cell.calibrated)}")
    if cell.p_value is not None:
        at_floor = cell.z_score is not None and floor is not None and cell.p_value <= floor * (1 + 1e-9)
        parts.append(f"p {cell.p_value:.2g}" + (f" z {cell.z_score:.3g}" if at_floor else ""))
    if cell.ceiling_low is not None and cell.ceiling_high is not None:
        parts.append(f"of {_shorter(cell.ceiling_low)}-{_shorter(cell.ceiling_high)}")
    return " ".join(parts)


def _shorter(bound: float) -> str:
    text = f"{bound:.2f}" if abs(bound) < 1000 else f"{bound:.3g}"
    return text.removeprefix("-") if text == "-0.00" else text


def _short(score: float | None) -> str:
    if score is None:
        return ""
    text = f"{score:.4f}" if abs(score) < 1000 else f"{score:.4g}"
    return text.removeprefix("-") if text == "-0.0000" else text
