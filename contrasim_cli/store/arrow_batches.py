"""Parquet and Arrow (Feather) files as batches of rows, of which no more is read than is asked for. Needs pyarrow."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from contrasim_cli import limits
from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.arrow import claims
from contrasim_cli.store.content import check_held

PARQUET, ARROW, STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
SMALL = 1 << 20  # rows that a file may claim whatever its size
BUFFER = 1 << 20  # bytes that are read at once of each column
NUMBERED = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
REPEATING = {
    *NUMBERED,
    "PLAIN",
    "RLE",
    "BIT_PACKED",
}  # encodings that texts may have beside numbers, and be read as numbers

Batches = Iterator[tuple[int, pa.RecordBatch]]  # each with the number of its first row


class Parquet:
    """A Parquet file."""

    kind = "Parquet"

    def __init__(self, file: Snapshot, budget: int | None) -> None:
        self._stream = pa.OSFile(str(file.name))
        metadata = parquet.read_metadata(self._stream)
        groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
        self._file = parquet.ParquetFile(
            self._stream, metadata=metadata, read_dictionary=_repeating(metadata, groups), pre_buffer=False, buffer_size=BUFFER,
            page_checksum_verification=True,
        )  # fmt: skip
        self.schema: pa.Schema = self._file.schema_arrow
        self.claimed = max((group.total_byte_size for group in groups), default=0)
        self._starts: list[int] = list(itertools.accumulate((group.num_rows for group in groups), initial=0))
        self.n_rows = self._starts[-1]
        if self.n_rows != metadata.num_rows or any(group.num_rows < 0 for group in groups):
            raise ValueError(f"it claims {metadata.num_rows} rows, and its parts {self.n_rows}")
        sizes = [sum(group.column(k).total_compressed_size for group in groups) for k in range(metadata.num_columns)]
        if self.n_rows > max(SMALL, file.size) and sizes:  # before room is made for their names
            self._count(metadata.schema.column(int(np.argmin(sizes))).path)

    def _count(self, column: str) -> None:
        for _ in self._each([column], 0, 1 << 16):
            pass

    def begins(self, row: int) -> int:
        """Where reading has to begin to come to a row."""
        return self._starts[self._group(row)]

    def _group(self, row: int) -> int:
        return max(0, int(np.searchsorted(self._starts, row, side="right")) - 1)

    def batches(self, columns: Sequence[str], row: int, size: int) -> Batches:
        """Batches of at most so many rows of these columns, from where reading has to begin for a row."""
        for start, batch in self._each(columns, self._group(row), size):
            yield start, batch.select(columns)

    def _each(self, columns: Sequence[str], group: int, size: int) -> Batches:
        for k in range(group, len(self._starts) - 1):
            start, stop = self._starts[k], self._starts[k + 1]
            for batch in self._file.iter_batches(size, row_groups=[k], columns=list(columns), use_threads=False):
                limits.grow(read=batch.nbytes)
                yield start, batch
                start += batch.num_rows
            if start != stop:
                raise ValueError(f"rows {self._starts[k]} to {stop - 1} are claimed, and not all are there")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _repeating(metadata: Any, groups: Sequence[Any]) -> list[str]:
    """The columns of texts that are kept as numbers of a list of texts, any of which may be long and repeat in every row."""
    columns = [metadata.schema.column(k) for k in range(metadata.num_columns)]
    return [
        column.path
        for k, column in enumerate(columns)
        if column.physical_type == "BYTE_ARRAY" and not column.max_repetition_level
        if all({*group.column(k).encodings} <= REPEATING for group in groups)
        if any({*group.column(k).encodings} & NUMBERED for group in groups)
    ]


class Arrow:
    """An Arrow file (Feather) or stream, mapped; what is packed in it is unpacked batch by batch."""

    kind = "Arrow"

    def __init__(self, file: Snapshot, budget: int | None) -> None:
        with pa.memory_map(str(file.name)) as mapped:
            content = mapped.read_buffer()
        expected = None
        if content[: len(ARROW)].to_pybytes() == ARROW:
            expected = pa.ipc.open_file(content).num_record_batches
            content = content.slice(8)  # behind its mark, a file is a stream
        self._content = content
        self.schema: pa.Schema = pa.ipc.open_stream(content).schema
        rows = []
        self.claimed = 0
        for message in pa.ipc.MessageReader.open_stream(content):
            is_rows, count, size = claims(message)
            check_held(file.path, "a batch of rows", size, budget)
            self.claimed = max(self.claimed, size)
            rows += [count] if is_rows else []
            if expected == len(rows):
                break
        if expected is not None and expected != len(rows):
            raise ValueError(f"it claims {expected} batches, and {len(rows)} are there")
        self._starts = list(itertools.accumulate(rows, initial=0))
        self.n_rows = self._starts[-1]

    def begins(self, row: int) -> int:
        """Where reading has to begin to come to a row."""
        return 0

    def batches(self, columns: Sequence[str], row: int, size: int) -> Batches:
        """Batches of these columns from the first, as they are in the file."""
        fields = [self.schema.get_field_index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=sorted(fields), use_threads=False)
        reader = pa.ipc.open_stream(self._content, options=options)
        for start, stop in itertools.pairwise(self._starts):
            batch = reader.read_next_batch().select(columns)
            limits.grow(read=batch.nbytes)
            batch.validate(full=True)
            if batch.num_rows != stop - start:
                raise ValueError(f"rows {start} to {stop - 1} are claimed, and {batch.num_rows} are there")
            if stop > row:
                yield start, batch

    def close(self) -> None:
        """Close nothing: nothing is open."""


def index_column(schema: pa.Schema) -> str | None:
    """The column that pandas kept its index in, if it is one column."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        columns = metadata["index_columns"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    single = isinstance(columns, list) and len(columns) == 1 and isinstance(columns[0], str)
    return columns[0] if single else None


def open_batches(file: Snapshot, budget: int | None) -> Parquet | Arrow:
    """Open the file by its first bytes."""
    start = file.start()
    if start.startswith(PARQUET):
        return Parquet(file, budget)
    if start.startswith((ARROW, STREAM)):
        return Arrow(file, budget)
    raise InputError(f"{quoted(file.path)}: is neither Parquet nor Arrow")
