"""Tables of numbers as text: CSV, TSV, and columns apart by semicolons or spaces, as NumPy, pandas, R and MATLAB write them.

A table is read once, in blocks, and held as float64, so that no digit is lost. A column beside the numbers may name the rows.
"""

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, reason
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.array_views import Joined
from contrasim_cli.store.content import Content, check_held
from contrasim_cli.store.delimiters import CODE, INTEGER, NUMBER, Layout, Record, is_missing, layout_of, records
from contrasim_cli.store.store import Array, Ids

NO_TABLE = (
    "{",
    "[",
    "<",
    "version https://git-lfs",
)  # JSON, a web page, and what is in place of a file that was not fetched
GZIP = b"\x1f\x8b"
START, SLICE = 64 << 10, 4096  # bytes that tell whether a file is text, and that are read at once
MAX_LINE = 64 << 20  # characters
MAX_EMPTY = 10_000  # lines, one after the other
SAMPLE_LINES, SAMPLE_SIZE = 200, 4 << 20  # lines, and characters, that tell what the columns are
BLOCK = 1 << 18  # cells that are turned into numbers at once
TEXT_BYTES = 64  # that a text takes beside its characters


def is_text(file: Snapshot) -> bool:
    """Whether a file, or what is packed in it, begins as a table in UTF-8 may."""
    start = b""
    with contextlib.suppress(OSError, EOFError, zlib.error), _opened(file) as stream:
        while len(start) < START and (block := stream.read(SLICE)):
            start += block
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)  # which may end within a letter
    except ValueError:
        return False
    begins = text.lstrip()
    return bool(begins) and not begins.startswith(NO_TABLE) and all(c.isprintable() or c in "\t\r\n" for c in text)


def read_delimited(file: Snapshot, budget: int | None = None) -> Content:
    """The layers and the names of rows in such a table.

    Raises:
        InputError: it is a table of texts, a row is longer than others, a cell is no number, or all of it takes more than `budget`.
    """
    path = file.path
    try:
        with readable(path), _opened(file) as stream:
            return _read(path, io.TextIOWrapper(stream, "utf-8-sig", newline=""), budget)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{quoted(path)}: is not UTF-8 ({reason(error)}); convert the file first (iconv -t utf-8)"
        ) from error
    except (csv.Error, EOFError, zlib.error) as error:
        raise InputError(f"{quoted(path)}: cannot be read as a table ({reason(error)}); the file is damaged") from error


@contextlib.contextmanager
def _opened(file: Snapshot) -> Iterator[IO[bytes]]:
    if file.start(len(GZIP)) != GZIP:
        yield file.reader()
        return
    with gzip.open(file.reader()) as unpacked:
        yield unpacked  # type: ignore[misc]


def _lines(path: Path, stream: IO[str]) -> Iterator[str]:
    empty = 0
    while line := stream.readline(MAX_LINE):
        empty = 0 if line.strip() else empty + 1
        if len(line) == MAX_LINE or empty > MAX_EMPTY:
            what = (
                f"a line of more than {MAX_LINE} characters"
                if empty <= MAX_EMPTY
                else f"more than {MAX_EMPTY} empty lines"
            )
            raise InputError(f"{quoted(path)}: has {what}, and is no table of numbers")
        yield line


def _read(path: Path, stream: IO[str], budget: int | None) -> Content:
    name = path.name.removesuffix(".gz")
    lines, size = _lines(path, stream), 0
    head: list[str] = []
    while len(head) < SAMPLE_LINES and size < SAMPLE_SIZE and (line := next(lines, "")):
        head.append(line)
        size += len(line)
    comments = list(itertools.takewhile(lambda line: line.startswith("#"), head))
    head = head[len(comments) :]
    layout = layout_of(
        path, quoted(Path(name).stem), comments[-1].lstrip("#").strip("\r\n") if comments else None, head
    )
    table = _Table(path, name, layout, budget)
    rows = records(itertools.chain(head, lines), layout.delimiter, len(comments))
    rows = itertools.islice(rows, layout.before, None)
    while block := list(itertools.islice(rows, max(1, BLOCK // layout.width))):
        table.add(block)
    return table.content()


@dataclass
class _Table:
    """What has been read of a table."""

    path: Path
    name: str
    layout: Layout
    budget: int | None
    blocks: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    beside: dict[int, list[str]] = field(default_factory=dict)
    held: int = 0

    def add(self, rows: Sequence[Record]) -> None:
        """Take some rows."""
        for line, cells in rows:
            if len(cells) != self.layout.width:
                raise InputError(
                    f"{quoted(self.path)}: line {line} has {len(cells)} cells, and those before it {self.layout.width}; "
                    "the file is no table of numbers, or is damaged"
                )
        for layer, columns in self.layout.layers.items():
            block = _numbers(self.path, rows, columns)
            self.blocks.setdefault(layer, []).append(block)
            self.held += block.nbytes
        for column in self.layout.beside:
            cells = [cells[column] for _, cells in rows]
            self.beside.setdefault(column, []).extend(cells)
            self.held += sum(map(len, cells)) + TEXT_BYTES * len(cells)
        check_held(self.path, self.name, self.held, self.budget)

    def content(self) -> Content:
        """All of the content."""
        arrays: dict[str, Array] = {layer: Joined(blocks) for layer, blocks in self.blocks.items()}
        texts: dict[str, Ids] = {}
        for column, name in self.layout.beside.items():
            vector = _vector(self.beside[column])
            key = name if name not in {*arrays, *texts} else f"{name} (column {column + 1})"
            if vector is None:
                texts[key] = _ids(self.beside[column])
            else:
                arrays[key] = vector
        index = self.layout.index
        named = index is not None and (self.layout.beside[index] in texts or not texts)  # numbers say less than texts
        names = self.layout.beside[index] if index is not None and named else None
        return Content(self.layout.kind, arrays, ordered=True, texts=texts, names=names)


def _numbers(path: Path, rows: Sequence[Record], columns: Sequence[int]) -> npt.NDArray[np.float64]:
    """Some columns [rows, columns], each number the nearest to what is written."""
    cells = [[cells[column] for column in columns] for _, cells in rows]
    if len(columns) > 1:  # NumPy passes over lines that are empty, and ends them within cells that hold an end of line
        with contextlib.suppress(ValueError):
            if (block := _matrix(cells)).shape == (len(rows), len(columns)):
                return block
    for (line, _), row in zip(rows, cells, strict=True):
        for k, cell in enumerate(row):
            row[k] = "nan" if is_missing(cell) else cell.strip()
            if not is_missing(cell) and not NUMBER.fullmatch(cell):
                raise InputError(
                    f"{quoted(path)}: line {line}, column {columns[k] + 1}: {quoted(cell[:40])} is not a number"
                )
    return _matrix(cells)


def _matrix(cells: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    lines = ["\t".join(row) for row in cells]
    values: npt.NDArray[np.float64] = np.loadtxt(lines, np.float64, comments=None, delimiter="\t", ndmin=2)
    return values


def _vector(cells: Sequence[str]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64] | None:
    """Numbers, if all of them are: integers where no digit would be lost; codes such as 007 are texts."""
    if all(map(INTEGER.fullmatch, cells)):
        return np.array([int(cell) for cell in cells], np.int64)
    if any(map(CODE.fullmatch, cells)) or not all(NUMBER.fullmatch(cell) or is_missing(cell) for cell in cells):
        return None
    return np.array([float("nan") if is_missing(cell) else float(cell) for cell in cells])


def _ids(cells: Sequence[str]) -> Ids:
    return Ids(len(cells), lambda start, stop: list(cells[start:stop]))
