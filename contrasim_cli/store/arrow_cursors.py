"""Columns of a table in Parquet or Arrow, whose rows are read on from where the last ones were read. Needs pyarrow."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contrasim_cli import limits
from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.arrow import RaggedError, Values, dense, strings
from contrasim_cli.store.arrow_batches import Arrow, Batches, Parquet
from contrasim_cli.store.child_process import rehearse
from contrasim_cli.store.store import IDS_PER_BLOCK

BATCH_BYTES = 4 << 20
ACTIVE = 32  # columns that are read on; others begin anew
COPIES = 3  # of what is claimed: pages, and values as they grow and are put together
TEXTS = 4096  # that are read at once

Source = Parquet | Arrow


@contextlib.contextmanager
def clear(path: Path) -> Iterator[None]:
    """Turn errors of pyarrow into one that names the file."""
    try:
        yield
    except ContraSimError:
        raise
    except Exception as error:  # pyarrow has errors of many kinds, and raises others too
        raise InputError(f"{quoted(path)}: cannot be read as a table ({reason(error)}); the file is damaged") from error


@dataclass
class Table:
    """A file, the readers that read on from where they were, and the most memory that trying it may take."""

    file: Snapshot
    source: Source
    most: int
    active: list["_Reader"] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    def close(self) -> None:
        """Close the file."""
        self.source.close()
        self.file.close()

    def use(self, reader: "_Reader") -> None:
        """Make room for a reader among those that are read on."""
        if reader in self.active:
            self.active.remove(reader)
        elif len(self.active) == ACTIVE:
            self.active.pop(0).rest()
        self.active.append(reader)


@dataclass(eq=False)
class _Reader:
    """Batches of some columns, of which the current one is kept."""

    table: Table
    columns: Sequence[str]
    size: int
    _batches: Batches = field(default_factory=lambda: iter(()))
    _current: tuple[int, pa.RecordBatch] | None = None

    def rest(self) -> None:
        """Let go of what is held."""
        self._batches, self._current = iter(()), None

    def batches(self, start: int, stop: int) -> Batches:
        """The rows from `start` to before `stop`, each part with the number of its first row."""
        with self.table.lock, clear(self.table.path):
            self.table.use(self)
            if self._current is None or not self._current[0] <= start or self._is_far(start, *self._current):
                self._batches = self.table.source.batches(self.columns, start, self.size)
                self._current = next(self._batches, None)
            while start < stop:
                if self._current is None:
                    raise ValueError(f"row {start} is claimed, and is not there")
                first, batch = self._current
                if (last := min(stop, first + batch.num_rows)) > start:
                    yield start, batch.slice(start - first, last - start)
                    start = last
                else:
                    self._current = next(self._batches, None)

    def _is_far(self, row: int, first: int, batch: pa.RecordBatch) -> bool:
        return self.table.source.begins(row) > first + int(batch.num_rows)


@dataclass(eq=False)
class Columns:
    """Numbers [rows, *tail] of one column, or of several as a matrix."""

    table: Table
    columns: Sequence[str]
    dtype: np.dtype[Any]
    tail: tuple[int, ...]
    as_matrix: bool

    def __post_init__(self) -> None:
        self._reader = _Reader(self.table, self.columns, self.batch_rows)

    @property
    def batch_rows(self) -> int:
        """Rows that are read at once."""
        return max(1, BATCH_BYTES // max(1, math.prod(self.tail) * self.dtype.itemsize))

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, *tail)."""
        return (self.table.source.n_rows, *self.tail)

    def __getitem__(self, index: Any) -> Values:
        """Some of it, by a slice of rows, or by a slice or number per axis."""
        rows, *rest = index if isinstance(index, tuple) else (index,)
        span = rows if isinstance(rows, slice) else slice(rows, rows + 1)
        start, stop, _ = span.indices(self.shape[0])
        out = np.empty((max(0, stop - start), *self.tail), self.dtype)
        for first, batch in self._reader.batches(start, stop):
            with clear(self.table.path):
                out[first - start : first - start + batch.num_rows] = self._values(first, batch)
        return out[(slice(None) if isinstance(rows, slice) else 0, *rest)]

    def _values(self, first: int, batch: pa.RecordBatch) -> Values:
        try:
            if self.as_matrix:
                return np.stack([dense(column, ()) for column in batch.columns], axis=1)
            return dense(batch.column(0), self.tail)
        except RaggedError as error:
            row, length, expected = error.args
            raise InputError(
                f"{quoted(self.table.path)}: {quoted(self.columns[0])} has {length} values in row {first + row}, and {expected} in "
                "the first; lists of one layer have the same length"
            ) from error


@dataclass(eq=False)
class Texts:
    """The strings of a column."""

    table: Table
    column: str

    def __post_init__(self) -> None:
        self._reader = _Reader(self.table, [self.column], TEXTS)
        self._tried = False

    def read(self, start: int, stop: int) -> list[str]:
        """Strings [stop - start]; a child process reads all of them before the first."""
        if not self._tried:
            rehearse(self.table.file, self._read_through, "pyarrow", most=self.table.most)
            self._tried = True
        return self._read(start, stop)

    def _read_through(self) -> None:
        limits.grow(held=COPIES * self.table.source.claimed)
        for start in range(0, self.table.source.n_rows, IDS_PER_BLOCK):
            self._read(start, min(start + IDS_PER_BLOCK, self.table.source.n_rows))

    def _read(self, start: int, stop: int) -> list[str]:
        texts: list[str] = []
        for first, batch in self._reader.batches(start, stop):
            with clear(self.table.path):  # a place in a dictionary may be beyond its end
                block = strings(batch.column(0))
            texts += [text for text in block if text is not None]
            if len(texts) < first - start + len(block):
                row = first + block.index(None)
                raise InputError(f"{quoted(self.table.path)}: {quoted(self.column)} is missing in row {row}")
        return texts
