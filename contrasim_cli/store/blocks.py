"""Reading rows: in blocks of whole chunks, widened, and checked for NaN and Inf."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.store.store import Layer, Store

BLOCK_BYTES = 16 << 20
GAP_BYTES = 64 << 10  # of rows that nobody asked for; less is read with what is around it
Floats = npt.NDArray[np.floating]
RowIndex = npt.NDArray[np.int64]


def block_rows(layer: Layer, block_bytes: int = BLOCK_BYTES) -> int:
    """Rows of a block: whole chunks, about `block_bytes` once widened."""
    rows = block_bytes // max(1, layer.width * layer.read_dtype.itemsize)
    return max(layer.chunk_rows, rows // layer.chunk_rows * layer.chunk_rows)


def spans(count: int, step: int) -> Iterator[tuple[int, int]]:
    """Where runs of `step` begin and end: to cut what is worked off at once, as within a product."""
    for start in range(0, count, step):
        yield start, min(start + step, count)


def row_blocks(layer: Layer, n_rows: int, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """Where the blocks begin and end in which rows of a layer are read; the cut follows from the layer and the options alone."""
    return spans(n_rows, block_rows(layer, block_bytes))


def iter_blocks(store: Store, name: str) -> Iterator[tuple[int, Floats]]:
    """All rows of a layer in order as (position of the first, [k, width]); widened, unchecked."""
    layer = store.layer(name)
    for start, stop in row_blocks(layer, layer.n_rows):
        yield start, store.read(name, start, stop).astype(layer.read_dtype, copy=False)


def read_rows(store: Store, name: str, rows: RowIndex) -> Floats:
    """The given rows [len(rows), width] in the given order; every chunk that holds some of them is read once."""
    layer = store.layer(name)
    out = np.empty((len(rows), layer.width), dtype=layer.read_dtype)
    if len(rows) and bool((np.diff(rows) == 1).all()):
        begin, step = int(rows[0]), block_rows(layer)
        edges = [begin, *range((begin // step + 1) * step, begin + len(rows), step), begin + len(rows)]
        for start, stop in pairwise(edges):
            out[start - begin : stop - begin] = store.read(name, start, stop)
        return out
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    step, chunk = block_rows(layer), max(layer.chunk_rows, GAP_BYTES // max(1, layer.width * layer.dtype.itemsize))
    # each run of rows lies in one block of the file, and none of them far from the one before: what lies between is not read
    apart = np.diff(ordered // step) | (np.diff(ordered // chunk) > 1)
    cuts = np.flatnonzero(apart) + 1
    for run in np.split(np.arange(len(ordered)), cuts) if len(ordered) else ():
        first, last = int(ordered[run[0]]), int(ordered[run[-1]])
        block = store.read(name, first, last + 1)
        out[order[run]] = block[ordered[run] - first]
    return out


def all_finite(block: Floats) -> bool:
    """Whether no value is NaN or Inf; one pass without a temporary in the usual case."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(block.sum(dtype=np.float64))) or bool(np.isfinite(block).all())


def bad_rows(block: Floats) -> npt.NDArray[np.bool_]:
    """[k] which rows hold a NaN or Inf."""
    bad: npt.NDArray[np.bool_] = np.logical_not(np.isfinite(block).all(axis=1))
    return bad


def bad_value(store: Store, name: str, row: int) -> InputError:
    """The error for the first NaN or Inf of a layer, which is at `row`."""
    values = store.read(name, row, row + 1)[0]
    column = int(np.flatnonzero(~np.isfinite(values))[0])
    label = f" (id {quoted(store.ids.read(row, row + 1)[0])})" if store.ids else ""
    return InputError(
        f"{quoted(store.path)}: layer {quoted(name)}: row {row}{label} holds {values[column]} in column {column}; "
        "mend the file or give --nan drop to leave such rows out of every store"
    )
