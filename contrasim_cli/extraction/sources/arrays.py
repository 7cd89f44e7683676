"""Inputs that are numbers: a `.npy` array [n, …], or the one array of an `.npz` file.

Rows are read where they are: mapped into memory, or unpacked one after the other.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, reason
from contrasim_cli.extraction.sources.source import (
    ALL,
    Choice,
    Chosen,
    Positions,
    Row,
    Source,
    batched,
    choose,
    file_digest,
    named,
    refuse_duplicates,
)
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot, one_version
from contrasim_cli.store.npz import Member, arrays, members

NUMERIC = "fiub"
NPY = b"\x93NUMPY"
# what NumPy, zipfile and zlib trip over in damaged files
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error, struct.error)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Inputs:
    """An array of inputs, whole or as rows to be unpacked, and the names of its rows if the file has any."""

    shape: tuple[int, ...]
    rows: Array | Iterable[Array]
    names: list[str] | None


def array_source(path: Path, choice: Choice | None = None) -> Source:
    """The rows of a `.npy` array (memory-mapped) or of the one array of an `.npz` file.

    Strings named `ids` in an `.npz` name the rows.

    Raises:
        InputError: the file cannot be read, or holds no such array.
        MismatchError: ids asked for are not there.
    """
    return one_version(path, lambda file: _source(file, choice or ALL))


def _source(file: Snapshot, choice: Choice) -> Source:
    path, inputs = file.path, _load(file)
    if inputs.names is not None and choice.ids is None:
        refuse_duplicates(f"{quoted(path)}: ids", inputs.names)
    chosen = choose(path, _rows(path, inputs, choice.ids), choice).chosen
    if choice.ids is not None:
        refuse_duplicates(quoted(choice.ids), (row.id for row in chosen.of(_rows(path, inputs, choice.ids))))
    digest = file_digest(file.name)
    return Source(
        path=path,
        kind="arrays",
        n_rows=len(chosen),
        blocks=lambda size: _blocks(path, inputs.rows, chosen, size),
        ids=lambda: (row.id for row in chosen.of(_rows(path, inputs, choice.ids))),
        automatic=inputs.names is None and choice.ids is None,
        digest=digest,
        contents=digest,
    )


def _rows(path: Path, inputs: Inputs, ids: Path | None) -> Iterator[Row]:
    names = map(str, range(inputs.shape[0])) if inputs.names is None else inputs.names
    return named(path, map(Row, names), ids)


def _blocks(path: Path, rows: Array | Iterable[Array], chosen: Chosen, size: int) -> Iterator[Array]:
    if isinstance(rows, np.ndarray):
        for positions in chosen.batches(size):
            yield _taken(rows, positions)
        return
    try:
        for block in batched(chosen.of(rows), size):
            yield np.stack(block)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _taken(array: Array, positions: Positions) -> Array:
    """Rows at ascending positions; a view where they follow each other."""
    first, last = int(positions[0]), int(positions[-1])
    return array[first : last + 1] if last - first + 1 == len(positions) else array[positions]


def _load(file: Snapshot) -> Inputs:
    path = file.path
    if not file.start().startswith(b"PK"):
        return _whole(path, _mapped(file), None)
    try:
        found = members(file)
        ids = arrays(file, {"ids": found.pop("ids")})["ids"] if "ids" in found else None
        if len(found) != 1:
            raise InputError(f"{quoted(path)}: holds {len(found)} arrays; --arrays takes a file with one")
        (member,) = found.values()
        _check(path, member.shape, member.dtype)
        names = None if ids is None else _names(path, ids, member.shape[0])
        if member.is_packed and not member.fortran:
            return Inputs(member.shape, member.rows(), names)
        _check_room(path, member)
        return _whole(path, arrays(file, {"": member})[""], names)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _mapped(file: Snapshot) -> Array:
    # of other files NumPy says how to unpickle them
    if not file.start().startswith(NPY):
        raise InputError(f"{quoted(file.path)}: is not a .npy or .npz file; save the inputs with numpy.save")
    try:
        array: Array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise _unreadable(file.path, error) from error
    return array


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{quoted(path)}: cannot be read as .npy or .npz ({reason(error)})")


def _whole(path: Path, array: Array, names: list[str] | None) -> Inputs:
    _check(path, array.shape, array.dtype)
    return Inputs(array.shape, array, names)


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in NUMERIC or len(shape) < 2 or not shape[0]:
        raise InputError(f"{quoted(path)}: is {dtype} {shape}; expected numbers [n, …] with at least one row")


def _check_room(path: Path, member: Member) -> None:
    """Only columns that are compressed together have to be unpacked whole."""
    size = int(np.prod(member.shape, dtype=object)) * member.dtype.itemsize
    if member.is_packed and size > memory_budget(None):
        raise InputError(
            f"{quoted(path)}: unpacks to {size} bytes in Fortran order, which do not fit into memory; save it as .npy"
        )


def _names(path: Path, ids: Array, n_rows: int) -> list[str]:
    if ids.dtype.kind not in "USiu" or ids.shape != (n_rows,):
        raise InputError(f"{quoted(path)}: ids are {ids.dtype} {ids.shape}; expected {n_rows} strings or integers")
    return [str(name) for name in ids.astype(str)]
