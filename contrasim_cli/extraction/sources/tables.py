"""Files of rows: lines, tables of columns, JSON objects; all of them may be packed.

Tables are UTF-8 with a header line; in `.csv` fields may be quoted, in `.tsv` a tab always separates and a quotation mark
is a character like any other. `.jsonl` holds one JSON object per line. A row that cannot be read is an entry `Bad`.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.sources.columnar import COLUMNAR, Columnar
from contrasim_cli.extraction.sources.packed import MOST_LINE, is_packed
from contrasim_cli.extraction.sources.source import decoded, file_digest, raw_lines, read_lines
from contrasim_cli.extraction.sources.values import Bad, Table, Values, refuse_unknown, shown_names
from contrasim_cli.input_files import first_bytes
from contrasim_cli.names import quoted

TABLES = {".tsv", ".csv"}
OBJECTS = {".jsonl", ".ndjson"}
NO_TEXTS = {".7z", ".bz2", ".json", ".npy", ".npz", ".tar", ".tgz", ".xls", ".xlsx", ".xz", ".zip"}
ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `surrogateescape` decodes them
LINE = "text"  # what the only column of a file of lines is called


@dataclass(frozen=True)
class FileTable:
    """A table that is a file."""

    path: Path
    word: ClassVar[str] = "column"

    def digest(self) -> str:
        """The digest of the file."""
        return file_digest(self.path)

    def contents(self, fields: Sequence[str]) -> str:
        """The digest of the file, which covers its contents."""
        return self.digest()


@dataclass(frozen=True)
class Lines(FileTable):
    """A text per line, in the column `text`."""

    def columns(self) -> list[str]:
        """The one that there is."""
        return [LINE]

    def rows(self, fields: Sequence[str]) -> Iterator[Values | Bad]:
        """Every line of the table."""
        refuse_unknown(self.path, fields, self.columns())
        for number, line in _numbered(self.path):
            yield line if isinstance(line, Bad) else Values(f"line {number}", [line] * len(fields))


@dataclass(frozen=True)
class Delimited(FileTable):
    """A TSV or CSV."""

    def columns(self) -> list[str]:
        """The columns of the header."""
        first = next(_cells(self.path), None)
        if first is None:
            raise InputError(f"{quoted(self.path)}: is empty; a table starts with a line that names its columns")
        if isinstance(first[1], Bad):
            raise InputError(f"{quoted(self.path)}: {first[1].reason}")
        return first[1]

    def rows(self, fields: Sequence[str]) -> Iterator[Values | Bad]:
        """Every row but the header."""
        names = self.columns()
        refuse_unknown(self.path, fields, names)
        places = [names.index(name) for name in fields]
        rows = _cells(self.path)
        next(rows)
        for number, row in rows:
            if isinstance(row, Bad):
                yield row
            elif len(row) != len(names):
                yield Bad(f"line {number} has {len(row)} fields where the header has {len(names)}")
            else:
                yield Values(f"line {number}", [row[place] for place in places])


@dataclass(frozen=True)
class Objects(FileTable):
    """JSON objects, one per line."""

    word: ClassVar[str] = "field"

    def columns(self) -> list[str]:
        """The fields of the first object; none where the first line is no object."""
        try:
            content = json.loads(next(read_lines(self.path), ""))
        except (ValueError, RecursionError):
            content = None
        return list(content) if isinstance(content, dict) else []

    def rows(self, fields: Sequence[str]) -> Iterator[Values | Bad]:
        """Every object of the file."""
        for number, line in _numbered(self.path):
            yield line if isinstance(line, Bad) else _object(number, line, fields)


def suffix_of(path: Path) -> str:
    """By which a file's kind is known: that of its name, without the one of what packed it."""
    return (path.with_suffix("") if is_packed(path) else path).suffix.lower()


def open_table(path: Path, memory: int | None = None) -> Table:
    """The table that a file is, by its name; reading it may take `memory` bytes (None: half of what is free)."""
    suffix = suffix_of(path)
    if suffix in COLUMNAR:
        return Columnar(path, memory)
    if suffix in OBJECTS:
        return Objects(path)
    return Delimited(path) if suffix in TABLES else Lines(path)


def check_columns(path: Path, columns: Sequence[str], id_column: str | None) -> None:
    """Refuse columns of something that is no table, and a table without a column."""
    suffix = suffix_of(path)
    first_bytes(path)  # which refuses a pipe: tables are read several times
    if suffix in NO_TEXTS or (suffix in COLUMNAR and is_packed(path)):
        raise UsageError(
            f"{quoted(path)}: --text takes .txt (one text per line), .tsv, .csv and .jsonl, packed as .gz or .zst too, .parquet, "
            ".arrow and .feather; convert the file first"
        )
    if suffix in OBJECTS:
        if not columns:
            raise UsageError(f"{quoted(path)}: say which field holds the text (--field); {_first_fields(path)}")
        return
    if suffix in TABLES | COLUMNAR and not columns:
        names = shown_names(open_table(path).columns())
        raise UsageError(f"{quoted(path)}: say which column holds the text (--column); it has {names}")
    if suffix not in TABLES | COLUMNAR and (columns or id_column):
        option = "--column" if columns else "--id-column"
        raise UsageError(
            f"{quoted(path)}: {option} needs a table with a header line, named .tsv or .csv, a .jsonl, or a .parquet"
        )


def is_table(path: Path) -> bool:
    """Whether a file has columns or fields."""
    return suffix_of(path) in TABLES | OBJECTS | COLUMNAR


def _first_fields(path: Path) -> str:
    names = Objects(path).columns()
    return f"the first object has {shown_names(names)}" if names else "its first line is no object"


def _numbered(path: Path) -> Iterator[tuple[int, str | Bad]]:
    for number, line in enumerate(raw_lines(path), 1):
        try:
            yield number, decoded(line, number)
        except UnicodeDecodeError:
            yield number, _no_utf8(number)


def _no_utf8(line: int) -> Bad:
    return Bad(f"line {line} is not UTF-8 (iconv -t utf-8 converts a file)")


def _cells(path: Path) -> Iterator[tuple[int, list[str] | Bad]]:
    """The rows of a table, header included, each with the number of its last line."""
    if suffix_of(path) == ".tsv":
        for number, line in _numbered(path):
            yield number, line if isinstance(line, Bad) else line.split("\t")
        return
    csv.field_size_limit(MOST_LINE if is_packed(path) else min(sys.maxsize, 2**31 - 1))
    reader = csv.reader((_whole(line, number) for number, line in enumerate(raw_lines(path), 1)), strict=True)
    try:
        for row in reader:
            bad = any(map(ESCAPED.search, row))
            yield reader.line_num, _no_utf8(reader.line_num) if bad else row or [""]
    except csv.Error as error:
        raise InputError(f"{quoted(path)}: line {reader.line_num} is not valid CSV ({error})") from error


def _whole(line: bytes, number: int) -> str:
    """A line with its end, which a quoted field may hold."""
    text = line.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff") if number == 1 else text


def _object(number: int, line: str, fields: Sequence[str]) -> Values | Bad:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Bad(f"line {number} is not valid JSON ({error})")
    if not isinstance(content, dict):
        return Bad(f"line {number} is not a JSON object")
    missing = next((name for name in fields if name not in content), None)
    if missing is not None:
        return Bad(f"line {number} has no field {quoted(missing)}; it has {shown_names(list(content))}")
    return Values(f"line {number}", [content[name] for name in fields])
