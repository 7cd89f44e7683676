"""Texts: the lines of a file, columns of a table, fields of JSON objects.

Tables are UTF-8 with a header line; in `.csv` fields may be quoted, in `.tsv` a tab always separates and a quotation mark
is a character like any other. `.jsonl` holds one JSON object per line. A row that cannot be read is an entry `Bad`.
"""

import csv
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.sources.source import (
    ALL,
    Choice,
    Row,
    Selection,
    Source,
    batched,
    choose,
    decoded,
    file_digest,
    named,
    raw_lines,
    read_lines,
    refuse_duplicates,
)
from contrasim_cli.input_files import first_bytes
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

TABLES = {".tsv", ".csv"}
OBJECTS = {".jsonl", ".ndjson"}
NO_TEXTS = {".arrow", ".bz2", ".gz", ".json", ".npy", ".npz", ".parquet", ".xls", ".xlsx", ".xz", ".zip", ".zst"}
ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `surrogateescape` decodes them


@dataclass(frozen=True)
class Bad:
    """What is wrong with a row."""

    reason: str


Record = list[str] | Bad


def text_source(
    path: Path, column: str | None = None, id_column: str | None = None, choice: Choice | None = None
) -> Source:
    """The lines of a text file, or one column of a table."""
    return text_sources(path, [column] if column else [], id_column, choice or ALL)[0]


def text_sources(path: Path, columns: Sequence[str], id_column: str | None, choice: Choice = ALL) -> list[Source]:
    """The lines of a text file, or a source per column of a table, all of the same rows.

    A row that cannot be read, or fits the pattern, in one column is left out of all of them.

    Raises:
        UsageError: a table without a column, a column that is not in it, or columns of something that is no table.
        InputError: the file cannot be read, has rows that cannot or none, or repeats an id.
        MismatchError: ids asked for are not there.
    """
    check_columns(path, columns, id_column)
    table = Records(path, columns, id_column, choice.ids)
    found = choose(path, table.rows(), choice)
    table.check_ids(found)
    if found.blank:
        log.warning(
            "%s: %d of %d texts are empty; --skip-pattern '^\\s*$' leaves them out",
            quoted(path), found.blank, len(found.chosen),
        )  # fmt: skip
    digest = file_digest(path)
    return [
        Source(
            path=path,
            kind="text",
            n_rows=len(found.chosen),
            blocks=table.blocks(place, found),
            ids=table.ids(found),
            automatic=table.automatic,
            digest=digest,
            contents=digest,
            column=columns[place] if columns else None,
            left_out=found.bad,
            words=found.words,
        )
        for place in range(max(1, len(columns)))
    ]


@dataclass(frozen=True)
class Records:
    """The rows of a file of texts: the values of `columns`, or whole lines, and their names."""

    path: Path
    columns: Sequence[str]
    id_column: str | None = None
    names: Path | None = None

    @property
    def automatic(self) -> bool:
        """Whether rows are named by their positions."""
        return self.id_column is None and self.names is None

    def read(self) -> Iterator[Record]:
        """The values of a row's columns, then its name where a column holds it."""
        fields = [*self.columns, *([self.id_column] if self.id_column else [])]
        if self.path.suffix.lower() in OBJECTS:
            return _objects(self.path, fields, self.id_column)
        return _table(self.path, fields) if fields else _lines(self.path)

    def rows(self) -> Iterator[Row]:
        """All rows, by name."""
        return named(self.path, self._rows(), self.names)

    def _rows(self) -> Iterator[Row]:
        for position, record in enumerate(self.read()):
            if isinstance(record, Bad):
                yield Row(str(position), bad=f"{quoted(self.path)}: {record.reason}")
            elif self.id_column:
                yield Row(record[-1], record[:-1])
            else:
                yield Row(str(position), record)

    def blocks(self, place: int, found: Selection) -> Callable[[int], Iterator[list[str]]]:
        """The chosen values of a column, block by block."""
        return lambda size: batched((record[place] for record in found.chosen.of(self.read())), size)  # type: ignore[index]

    def ids(self, found: Selection) -> Callable[[], Iterator[str]]:
        """The names of the chosen rows."""
        if self.automatic:
            return lambda: map(str, found.chosen)
        return lambda: (row.id for row in found.chosen.of(self.rows()))

    def check_ids(self, found: Selection) -> None:
        """Refuse a name that two rows have."""
        if self.names is not None:
            refuse_duplicates(quoted(self.names), self.ids(found)())
        elif self.id_column is not None:
            refuse_duplicates(f"{quoted(self.path)}: column {quoted(self.id_column)}", self.ids(found)())


def check_columns(path: Path, columns: Sequence[str], id_column: str | None) -> None:
    """Refuse columns of something that is no table, and a table without a column."""
    suffix = path.suffix.lower()
    first_bytes(path)  # which refuses a pipe: tables are read several times
    if suffix in NO_TEXTS:
        raise UsageError(
            f"{quoted(path)}: --text takes .txt (one text per line), .tsv, .csv or .jsonl; convert the file first"
        )
    if suffix in OBJECTS:
        if not columns:
            raise UsageError(f"{quoted(path)}: say which field holds the text (--field); {_first_fields(path)}")
        return
    if suffix in TABLES and not columns:
        raise UsageError(f"{quoted(path)}: say which column holds the text (--column); it has {_shown(header(path))}")
    if suffix not in TABLES and (columns or id_column):
        option = "--column" if columns else "--id-column"
        raise UsageError(f"{quoted(path)}: {option} needs a table with a header line, named .tsv or .csv, or a .jsonl")


def is_table(path: Path) -> bool:
    """Whether a file has columns or fields."""
    return path.suffix.lower() in TABLES | OBJECTS


def _lines(path: Path) -> Iterator[Record]:
    for _, line in _numbered(path):
        yield line if isinstance(line, Bad) else [line]


def _numbered(path: Path) -> Iterator[tuple[int, str | Bad]]:
    for number, line in enumerate(raw_lines(path), 1):
        try:
            yield number, decoded(line, number)
        except UnicodeDecodeError:
            yield number, _no_utf8(number)


def _no_utf8(line: int) -> Bad:
    return Bad(f"line {line} is not UTF-8 (iconv -t utf-8 converts a file)")


def _table(path: Path, fields: Sequence[str]) -> Iterator[Record]:
    names = header(path)
    unknown = next((name for name in fields if name not in names), None)
    if unknown is not None:
        raise UsageError(f"{quoted(path)}: has no column {quoted(unknown)}; it has {_shown(names)}")
    places = [names.index(name) for name in fields]
    rows = _cells(path)
    next(rows)
    for number, row in rows:
        if isinstance(row, Bad):
            yield row
        elif len(row) != len(names):
            yield Bad(f"line {number} has {len(row)} fields where the header has {len(names)}")
        else:
            yield [row[place] for place in places]


def _cells(path: Path) -> Iterator[tuple[int, list[str] | Bad]]:
    """The rows of a table, header included, each with the number of its last line."""
    if path.suffix.lower() == ".tsv":
        for number, line in _numbered(path):
            yield number, line if isinstance(line, Bad) else line.split("\t")
        return
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader((_whole(line, number) for number, line in enumerate(raw_lines(path), 1)), strict=True)
    try:
        for row in reader:
            bad = any(map(ESCAPED.search, row))
            yield reader.line_num, _no_utf8(reader.line_num) if bad else row or [""]
    except csv.Error as error:
        raise InputError(f"{quoted(path)}: line {reader.line_num} is no CSV ({error})") from error


def _whole(line: bytes, number: int) -> str:
    """A line with its end, which a quoted field may hold."""
    text = line.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff") if number == 1 else text


def header(path: Path) -> list[str]:
    """The columns of a table."""
    first = next(_cells(path), None)
    if first is None:
        raise InputError(f"{quoted(path)}: is empty; a table starts with a line that names its columns")
    if isinstance(first[1], Bad):
        raise InputError(f"{quoted(path)}: {first[1].reason}")
    return first[1]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:20])) + (", …" if len(names) > 20 else "")


def _objects(path: Path, fields: Sequence[str], id_field: str | None) -> Iterator[Record]:
    for number, line in _numbered(path):
        yield line if isinstance(line, Bad) else _object(number, line, fields, id_field)


def _object(number: int, line: str, fields: Sequence[str], id_field: str | None) -> Record:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Bad(f"line {number} is no JSON ({error})")
    problem = next((found for name in fields if (found := _field_problem(content, name, name == id_field))), None)
    return Bad(f"line {number} {problem}") if problem else [str(content[name]) for name in fields]


def _field_problem(content: Any, name: str, is_id: bool) -> str | None:
    if not isinstance(content, dict):
        return "is no JSON object"
    if name not in content:
        return f"has no field {quoted(name)}; it has {_shown(list(content))}"
    value = content[name]
    if isinstance(value, str):
        return None if is_utf8(value) else f"holds half a character (a lone surrogate) in field {quoted(name)}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if is_id and whole else f"holds {json.dumps(value)[:20]} in field {quoted(name)}, which is no text"


def is_utf8(text: str) -> bool:
    """Whether a string can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _first_fields(path: Path) -> str:
    try:
        content = json.loads(next(read_lines(path), ""))
    except ValueError:
        content = None
    return (
        f"the first object has {_shown(list(content))}" if isinstance(content, dict) else "its first line is no object"
    )
