"""Tables in Parquet and Arrow (Feather) files: columns of numbers, or of lists of numbers of the same length. Needs pyarrow.

Columns of strings may name the rows; values that are missing are NaN. Rows are read on from where the last ones were read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from contrasim_cli.errors import InputError, reason
from contrasim_cli.files import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.arrowtypes import depth, has_nulls, is_number, is_text, lengths_of, numpy_type, plain
from contrasim_cli.store.batches import Arrow, Parquet, index_column, open_batches
from contrasim_cli.store.columns import layers_of, refuse_texts
from contrasim_cli.store.content import Content
from contrasim_cli.store.cursors import Columns, Table, Texts, clear
from contrasim_cli.store.store import Array, Ids

LOOKED_AT = 64  # rows of a batch that is only looked at


def read_table(file: Snapshot, budget: int | None = None) -> Content:
    """The layers and the names of rows in such a file.

    Raises:
        InputError: it is damaged, a table of texts, or has two columns of the same name.
    """
    with clear(file.path):
        source = open_batches(file, budget)
        try:
            return _content(file.path, source)
        except BaseException:
            source.close()
            raise


def _content(path: Path, source: Parquet | Arrow) -> Content:
    kinds = {column.name: plain(column.type) for column in source.schema}
    if len(kinds) < len(source.schema):
        raise InputError(f"{quoted(path)}: two columns have the same name; rename one of them")
    table = Table(path, source)
    numbers = [name for name, kind in kinds.items() if is_number(kind)]
    lists = [name for name, kind in kinds.items() if depth(kind)]
    texts = [name for name, kind in kinds.items() if is_text(kind)]
    layers = {name: [name] for name in lists} or layers_of(numbers, quoted(path.stem))
    if not lists:
        refuse_texts(path, texts, sum(map(len, layers.values())))
    taken = {column for columns in layers.values() for column in columns}
    found = layers | {name: [name] for name in numbers if name not in taken}
    arrays: dict[str, Array] = {}
    for name, columns in sorted(found.items(), key=lambda item: source.schema.get_field_index(item[1][0])):
        key = name if name in layers or name not in layers else f"{name} (column)"
        arrays[key] = _array(table, columns, kinds, as_matrix=name in layers and name not in lists)
    known = {*numbers, *lists, *texts}
    index = index_column(source.schema)
    return Content(
        source.kind,
        arrays,
        ordered=True,
        texts={name: Ids(source.n_rows, Texts(table, name).read) for name in texts},
        names=index if index in {*texts, *numbers} - taken else None,
        passed={name: f"of type {reason(ValueError(str(kind)))}" for name, kind in kinds.items() if name not in known},
        close=source.close,
    )


def _array(table: Table, columns: Sequence[str], kinds: Mapping[str, pa.DataType], as_matrix: bool) -> Columns:
    missing = any(_has_nulls(table, column) for column in columns if numpy_type(kinds[column], False).kind != "f")
    dtype = np.result_type(*(numpy_type(kinds[column], missing) for column in columns))
    tail = (len(columns),) if as_matrix else _tail(table, columns[0], depth(kinds[columns[0]]))
    return Columns(table, columns, dtype, tail, as_matrix)


def _has_nulls(table: Table, column: str) -> bool:
    return any(has_nulls(batch.column(0)) for _, batch in table.source.batches([column], 0, LOOKED_AT))


def _tail(table: Table, column: str, dimensions: int) -> tuple[int, ...]:
    """The lengths of the lists of a column, by the first row that has one."""
    batches = table.source.batches([column], 0, LOOKED_AT)
    found = (lengths for _, batch in batches if (lengths := lengths_of(batch.column(0))) is not None)
    return next(found, (0,) * dimensions)
