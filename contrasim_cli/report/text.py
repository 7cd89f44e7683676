"""Results as text: table, TSV, CSV, JSON, Markdown, LaTeX or a bare number."""

import codecs
import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contrasim_cli.errors import UsageError
from contrasim_cli.measures import MEASURES, higher_is_more_similar
from contrasim_cli.names import cell, distinct, encodable, json_text, quoted
from contrasim_cli.nulls import CLEAR, Standing, clears
from contrasim_cli.output_files import write_atomic
from contrasim_cli.report import markup
from contrasim_cli.report.bench_tables import bench_tables, checklists, compare_tables
from contrasim_cli.report.results import ALL, BenchRow, CompareRow, Results, Row, SanityRow, ScoreRow
from contrasim_cli.report.score_tables import TIED, UNCLEAR, ScoreGrid, best_matches, full_table, narrow_table

SCHEMA_VERSION = 1
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
FILE_FORMATS = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".parquet": "parquet",
    ".md": "md",
    ".tex": "tex",
    ".txt": "table",
}


def file_format(path: Path) -> str:
    """The format that a file's suffix stands for.

    Raises:
        UsageError: the suffix stands for none.
    """
    if path.suffix.lower() not in FILE_FORMATS:
        raise UsageError(
            f"--output {quoted(path)}: the format follows the suffix, which is one of {', '.join(FILE_FORMATS)}"
        )
    return FILE_FORMATS[path.suffix.lower()]


def write_file(results: Results, path: Path, force: bool) -> None:
    """Write the results to a file, whole or not at all; Parquet needs the extra `table`."""
    if file_format(path) == "parquet":
        from contrasim_cli.report import parquet

        write_atomic(path, parquet.to_bytes(results, SCHEMA_VERSION), force)
        return
    write_atomic(path, render(results, file_format(path), color=False).encode(), force)


class _Page(io.StringIO):
    """What rich writes to, in an encoding that may lack the lines of its tables."""

    encoding = "utf-8"


def render(results: Results, form: str, *, color: bool, width: int | None = None, encoding: str = "utf-8") -> str:
    """The results as text that ends with a newline, in letters that the encoding has.

    Raises:
        UsageError: `value`, but there is not exactly one score.
    """
    writers: dict[str, Callable[[Results], str]] = {
        "tsv": lambda r: _delimited(r, "\t"),
        "csv": lambda r: _delimited(r, ","),
        "json": lambda r: _json(r, encoding),
        "value": _value,
    }
    if form in writers:
        return writers[form](results)
    if form in markup.WRITERS:
        return markup.WRITERS[form](_tables(results.printable(), markup.WIDE))
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
    for part in _tables(_cut(results.printable(), console.width), console.width):
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


def _delimited(results: Results, delimiter: str) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(results.columns)
    writer.writerows([_cell(value) for value in results.values(row)] for row in results.rows)
    return stream.getvalue()


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else cell(str(value)) if isinstance(value, str) else str(value)


def _json(results: Results, encoding: str) -> str:
    rows = [dict(zip(results.columns, map(_finite, results.values(row)), strict=True)) for row in results.rows]
    content = {"schema_version": SCHEMA_VERSION, "command": results.command, **results.about, "results": rows}
    is_unicode = codecs.lookup(encoding).name.startswith("utf")
    return (json_text(content, indent=1) if is_unicode else json.dumps(content, indent=1, allow_nan=False)) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _value(results: Results) -> str:
    scores = [row.score for row in results.rows if isinstance(row, ScoreRow)]
    if len(scores) != 1 or len(results.rows) != 1:
        raise UsageError(
            f"--format value prints one score, {len(results.rows)} were asked for; select one layer on each side and one measure"
        )
    return ("" if scores[0] is None else repr(scores[0])) + "\n"


def _tables(results: Results, width: int) -> list[Table | str]:
    """Tables, and lines that say what the next one shows."""
    if results.kind is ScoreRow:
        return _score_tables(results, width)
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


def _plain_table(results: Results, rows: Sequence[Row], grid: ScoreGrid | None = None) -> Table:
    """A line per row; scores of a grid have its marks."""
    table = Table(*results.columns)
    for row in rows:
        cells = [f"{value:.4f}" if isinstance(value, float) else _text(value) for value in results.values(row)]
        if grid is not None and isinstance(row, ScoreRow):
            cells[results.columns.index("score")] += grid.marks((row.layer_a, row.layer_b))
        table.add_row(*cells)
    return table


def _text(value: object) -> str:
    return value if isinstance(value, str) else _cell(value)


def _score_tables(results: Results, width: int) -> list[Table | str]:
    """A table per measure and pair of stores."""
    grids: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in results.rows:
        if isinstance(row, ScoreRow):
            grids.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    return [part for key, cells in grids.items() for part in _grid(results, key, cells, width)]


def _grid(results: Results, key: tuple[str, str, str], cells: Sequence[ScoreRow], width: int) -> list[Table | str]:
    """A shaded grid; where that is too wide, a list of few cells, or the best matches of many."""
    higher = higher_is_more_similar(key[0])
    scores = {(cell.layer_a, cell.layer_b): cell.score for cell in cells}
    shuffles = results.about.get("replicates", {}).get("permutations")
    floor = 1 / (shuffles + 1) if shuffles else None
    shown = {(cell.layer_a, cell.layer_b): _score_text(cell, floor) for cell in cells}
    down, across = (list(dict.fromkeys(names)) for names in zip(*scores, strict=True))
    unclear = frozenset(
        (cell.layer_a, cell.layer_b) for cell in cells if not clears(cell.score, cell.null, cell.null_z)
    )
    grid = ScoreGrid(down, across, scores, shown, higher, unclear)
    wide = set(results.optional) - set(NULL_COLUMNS)
    table = full_table(grid, width) or (None if wide else narrow_table(grid, width))
    note = "" if higher else "; lower is more similar"
    note += "; → calibrated" if any(cell.calibrated is not None for cell in cells) else ""
    legend = _legend(grid, cells)
    if table:
        return [f"{key[0]}: {key[1]} (rows) against {key[2]} (columns){note}", table, *legend]
    if len(cells) <= LISTED:
        return [_plain_table(results, cells, grid), *legend]
    title = f"{key[0]}: the layer of {key[2]} that is most similar to each of {key[1]}{note}"
    return [title, best_matches(grid), *legend]


def _legend(grid: ScoreGrid, cells: Sequence[ScoreRow]) -> list[str]:
    """What shuffled rows score, and what the marks of a grid say."""
    levels = [cell.null for cell in cells if cell.null is not None and math.isfinite(cell.null)]
    low, high = (_short(bound(levels)) if levels else "" for bound in (min, max))
    parts = [f"shuffled rows score {low}" + (f" to {high}" if high != low else "")] if levels else []
    if grid.unclear:
        parts.append(f"{UNCLEAR} less than {CLEAR:g} standard deviations from shuffled rows")
    if grid.tied:
        parts.append(f"{TIED} tied for the best match of its row")
    return ["; ".join(parts)] if parts else []


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
    return f"{bound:.2f}" if abs(bound) < 1000 else f"{bound:.3g}"


def _short(score: float | None) -> str:
    if score is None:
        return ""
    return f"{score:.4f}" if abs(score) < 1000 else f"{score:.4g}"
