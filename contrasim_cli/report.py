"""Results as text: table, TSV, CSV, JSON or a bare number."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contrasim_cli.errors import UsageError
from contrasim_cli.files import quoted, write_atomic
from contrasim_cli.results import ALL, BenchRow, Results, Row, ScoreRow

SCHEMA_VERSION = 1
FILE_FORMATS = {".tsv": "tsv", ".csv": "csv", ".json": "json", ".txt": "table"}


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
    """Write the results to a file, whole or not at all."""
    write_atomic(path, render(results, file_format(path), color=False).encode(), force)


def render(results: Results, form: str, *, color: bool, width: int | None = None) -> str:
    """The results as text that ends with a newline.

    Raises:
        UsageError: `value`, but there is not exactly one score.
    """
    writers: dict[str, Callable[[Results], str]] = {
        "tsv": lambda r: _separated(r, "\t"),
        "csv": lambda r: _separated(r, ","),
        "json": _json,
        "value": _value,
    }
    if form in writers:
        return writers[form](results)
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width or _terminal_width(),
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,  # names are shown as they are
        emoji=False,
    )
    for table in _tables(results, console.width):
        console.print(table)
    return stream.getvalue()


def _terminal_width() -> int:
    return max(80, shutil.get_terminal_size((100, 24)).columns)


def _separated(results: Results, delimiter: str) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(results.columns)
    writer.writerows([_cell(value) for value in astuple(row)] for row in results.rows)
    return stream.getvalue()


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _json(results: Results) -> str:
    rows = [dict(zip(results.columns, map(_finite, astuple(row)), strict=True)) for row in results.rows]
    content = {"schema_version": SCHEMA_VERSION, "command": results.command, **results.about, "results": rows}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _value(results: Results) -> str:
    scores = [row.score for row in results.rows if isinstance(row, ScoreRow)]
    if len(scores) != 1 or len(results.rows) != 1:
        raise UsageError(
            f"--format value prints one score, {len(results.rows)} were asked for; select one layer on each side and one measure"
        )
    return ("" if scores[0] is None else repr(scores[0])) + "\n"


def _tables(results: Results, width: int) -> list[Table]:
    if results.kind is ScoreRow:
        return _score_tables([row for row in results.rows if isinstance(row, ScoreRow)], width)
    if results.kind is BenchRow:
        return _bench_tables([row for row in results.rows if isinstance(row, BenchRow)])
    return [_plain_table(results.columns, results.rows), *_fact_tables(results.about.get("stores", {}))]


def _fact_tables(stores: dict[str, dict[str, Any]]) -> list[Table]:
    """Where each store comes from, beneath what is in it."""
    if not stores:
        return []
    table = Table("store", "", "")
    for name, facts in stores.items():
        for key, value in facts.items():
            if value and key != "provenance":
                table.add_row(name, key, str(value))
        table.add_section()
    return [table]


def _plain_table(columns: Sequence[str], rows: Sequence[Row]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else _cell(value) for value in astuple(row)))
    return table


def _score_tables(rows: Sequence[ScoreRow], width: int) -> list[Table]:
    """A grid per measure and pair of stores; the long form where a grid is too wide to read."""
    grids: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in rows:
        grids.setdefault((row.measure, row.store_a, row.store_b), []).append(row)
    return [_grid(key, cells, width) for key, cells in grids.items()]


def _grid(key: tuple[str, str, str], cells: Sequence[ScoreRow], width: int) -> Table:
    columns = list(dict.fromkeys(cell.layer_b for cell in cells))
    lines = list(dict.fromkeys(cell.layer_a for cell in cells))
    if sum(max(8, len(name) + 3) for name in columns) + max(map(len, lines)) + 4 > width:
        return _plain_table([*ScoreRow.__dataclass_fields__], cells)
    table = Table("", title=f"{key[0]}: {key[1]} (rows) against {key[2]} (columns)", title_justify="left")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    scores = {(cell.layer_a, cell.layer_b): cell.score for cell in cells}
    for name in lines:
        table.add_row(name, *(_short(scores[name, other]) for other in columns))
    return table


def _short(score: float | None) -> str:
    if score is None:
        return ""
    return f"{score:.4f}" if abs(score) < 1000 else f"{score:.4g}"


def _bench_tables(rows: Sequence[BenchRow]) -> list[Table]:
    """Accuracy in % by layer and measure, a table per kind of negatives."""
    kinds = dict.fromkeys(row.negatives for row in rows)
    return [_bench_table([row for row in rows if row.negatives == kind], kind) for kind in kinds]


def _bench_table(rows: Sequence[BenchRow], kind: str) -> Table:
    measures = list(dict.fromkeys(row.measure for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows if row.pair == ALL and row.layer != ALL))
    against = f", {kind} negatives" if kind else ""
    title = f"{rows[0].benchmark}{against}: accuracy in % ± std; chance is {100 * rows[0].chance:.1f} %"
    table = Table("layer", title=title, title_justify="left")
    for measure in measures:
        table.add_column(measure, justify="right")
    by_key = {(row.measure, row.layer): row for row in rows if row.pair == ALL}
    for layer in layers:
        table.add_row(layer, *(_percent(by_key.get((measure, layer))) for measure in measures))
    table.add_section()
    overall = [by_key.get((measure, ALL)) for measure in measures]
    table.add_row("all", *map(_percent, overall))
    table.add_row("95 % interval", *map(_interval, overall))
    table.add_row("trials", *(str(row.trials) if row and row.trials else "" for row in overall))
    return table


def _percent(row: BenchRow | None) -> str:
    if row is None or row.accuracy is None:
        return ""
    spread = "" if row.std is None else f" ± {100 * row.std:.1f}"
    return f"{100 * row.accuracy:.1f}{spread}"


def _interval(row: BenchRow | None) -> str:
    if row is None or row.ci_low is None or row.ci_high is None:
        return ""
    return f"{100 * row.ci_low:.1f} to {100 * row.ci_high:.1f}"
