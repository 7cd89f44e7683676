"""Texts in Parquet and Arrow (Feather) files, in batches of rows. Needs pyarrow.

A few kilobytes may claim to unpack to gigabytes; so a child process reads what is asked for first.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from contrasim_cli import limits
from contrasim_cli.errors import MissingError
from contrasim_cli.extraction.sources.source import file_digest
from contrasim_cli.extraction.sources.values import Bad, Values, refuse_unknown
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.child_process import rehearse

COLUMNAR = {".parquet", ".arrow", ".feather"}
BATCH = 1024  # rows


@dataclass
class Columnar:
    """A table in such a file; reading it may take `memory` bytes (None: half of what is free)."""

    path: Path
    memory: int | None = None
    word: ClassVar[str] = "column"
    _tried: set[tuple[str, ...]] = field(default_factory=set)

    def columns(self) -> list[str]:
        """The columns of the file."""
        with self._opened() as (_, source):
            return list(source.schema.names)

    def rows(self, fields: Sequence[str]) -> Iterator[Values | Bad]:
        """Every row; rows have numbers, from 0."""
        refuse_unknown(self.path, fields, self.columns())
        if tuple(fields) not in self._tried:
            with self._opened() as (file, source):
                rehearse(file, lambda: self._read_through(source, fields), "pyarrow", most=memory_budget(self.memory))
            self._tried.add(tuple(fields))
        with self._opened() as (_, source):
            for start, columns in _batches(source, fields):
                for number, values in enumerate(zip(*columns, strict=True), start):
                    yield Values(f"row {number}", values)

    def digest(self) -> str:
        """The digest of the file."""
        return file_digest(self.path)

    def contents(self, fields: Sequence[str]) -> str:
        """The digest of the file, which covers its contents."""
        return self.digest()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Snapshot, Any]]:
        try:
            from contrasim_cli.store.arrow_batches import open_batches
        except ImportError as error:
            raise MissingError(
                f"{quoted(self.path)}: reading Parquet and Arrow files needs the extra table: pip install 'contrasim[table]'"
            ) from error
        file = Snapshot(self.path)
        from contrasim_cli.store.arrow_cursors import clear

        with contextlib.closing(file), clear(self.path):
            source = open_batches(file, memory_budget(self.memory))
            with contextlib.closing(source):
                yield file, source

    @staticmethod
    def _read_through(source: Any, fields: Sequence[str]) -> None:
        from contrasim_cli.store.arrow_cursors import COPIES

        limits.grow(held=COPIES * source.claimed)
        for _ in _batches(source, fields):
            pass


def _batches(source: Any, fields: Sequence[str]) -> Iterator[tuple[int, list[Sequence[Any]]]]:
    """The number of the first row of every batch, and the values of its columns."""
    for start, batch in source.batches(fields, 0, BATCH):
        yield start, [_values(column) for column in batch.columns]


def _values(column: Any) -> Sequence[Any]:
    from contrasim_cli.store.arrow import is_text, plain, strings

    # which hold a text that repeats once
    return strings(column) if is_text(plain(column.type)) else list(column.to_pylist())
