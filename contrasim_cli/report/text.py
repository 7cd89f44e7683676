"""Results as text: table, TSV, CSV, JSON, Markdown, LaTeX or a bare number."""

import codecs
import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contrasim_cli.errors import UsageError
from contrasim_cli.names import cell, json_text, quoted
from contrasim_cli.output_files import write_atomic
from contrasim_cli.report.results import Results, ScoreRow

SCHEMA_VERSION = 1
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
    from contrasim_cli.report import markup, tables  # what imports rich

    if form in markup.WRITERS:
        found = tables.with_layer_labels(results.printable())
        parts = markup.titled(tables.as_tables(found, markup.WIDE, for_papers=True), found.title)
        return markup.WRITERS[form](parts, found.title or f"contrasim {results.command}")
    return tables.shown(results, color, width, encoding)


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
