"""Tables in Parquet and Arrow (Feather) files: columns of numbers, or of lists of numbers of the same length. Needs pyarrow.

Columns of strings may name the rows; values that are missing are NaN. Rows are read on from where the last ones were read.
A few kilobytes may claim to unpack to gigabytes, in any page; so a child process reads all numbers first, and texts where they are
asked for.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from contrasim_cli import limits
from contrasim_cli.errors import InputError, out_of_memory, reason
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.arrow import depth, has_nulls, is_number, is_text, lengths_of, numpy_type, plain
from contrasim_cli.store.arrow_batches import index_column, open_batches
from contrasim_cli.store.arrow_cursors import COPIES, Columns, Table, Texts, clear
from contrasim_cli.store.child_process import rehearse
from contrasim_cli.store.columns import layers_of, refuse_texts
from contrasim_cli.store.content import Content
from contrasim_cli.store.store import Array, Ids

LOOKED_AT = 64  # rows of a batch of lists that is only looked at
FLAT = 1 << 14  # and of one of numbers


def read_table(file: Snapshot, budget: int | None = None) -> Content:
    """The layers and the names of rows in such a file.

    Raises:
        InputError: it is damaged, a table of texts, has two columns of the same name, or takes more memory than there is for it.
    """
    most = memory_budget(budget)
    rehearse(file, lambda: _read_through(file, most), "pyarrow", most=most)
    return _opened(file, most)


def _opened(file: Snapshot, most: int) -> Content:
    with clear(file.path):
        source = open_batches(file, most)
        limits.grow(held=COPIES * source.claimed)
        try:
            return _content(Table(file, source, most))
        except BaseException:
            source.close()
            raise


def _read_through(file: Snapshot, most: int) -> None:
    """Read all numbers, in the steps in which they are read later; those that cannot be read are met again when asked for."""
    arrays = [array for array in _opened(file, most).arrays.values() if isinstance(array, Columns)]
    for array in arrays:
        for start in range(0, array.shape[0], array.batch_rows):
            try:
                array[start : start + array.batch_rows]
            except InputError as error:
                if out_of_memory(error):
                    raise


def _content(table: Table) -> Content:
    path, source = table.path, table.source
    kinds = {column.name: plain(column.type) for column in source.schema}
    if len(kinds) < len(source.schema):
        raise InputError(f"{quoted(path)}: two columns have the same name; rename one of them")
    numbers = [name for name, kind in kinds.items() if is_number(kind)]
    lists = [name for name, kind in kinds.items() if depth(kind)]
    texts = [name for name, kind in kinds.items() if is_text(kind)]
    layers = {name: [name] for name in lists} or layers_of(numbers, quoted(path.stem))
    if not lists:
        refuse_texts(path, texts, sum(map(len, layers.values())))
    taken = {column for columns in layers.values() for column in columns}
    groups = layers | {name: [name] for name in numbers if name not in taken}
    arrays: dict[str, Array] = {}
    for name, columns in sorted(groups.items(), key=lambda item: source.schema.get_field_index(item[1][0])):
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
        close=table.close,
    )


def _array(table: Table, columns: Sequence[str], kinds: Mapping[str, pa.DataType], as_matrix: bool) -> Columns:
    missing = any(_has_nulls(table, column) for column in columns if numpy_type(kinds[column], False).kind != "f")
    dtype = np.result_type(*(numpy_type(kinds[column], missing) for column in columns))
    tail = (len(columns),) if as_matrix else _tail(table, columns[0], depth(kinds[columns[0]]))
    return Columns(table, columns, dtype, tail, as_matrix)


def _has_nulls(table: Table, column: str) -> bool:
    size = LOOKED_AT if depth(plain(table.source.schema.field(column).type)) else FLAT
    return any(has_nulls(batch.column(0)) for _, batch in table.source.batches([column], 0, size))


def _tail(table: Table, column: str, dimensions: int) -> tuple[int, ...]:
    """The lengths of the lists of a column, by the first row that has one."""
    batches = table.source.batches([column], 0, LOOKED_AT)
    tails = (lengths for _, batch in batches if (lengths := lengths_of(batch.column(0))) is not None)
    return next(tails, (0,) * dimensions)
