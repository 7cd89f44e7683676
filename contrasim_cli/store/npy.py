"""Files of NumPy: `.npy`, mapped into memory, and `.npz`, whose arrays are mapped or, where they are compressed, unpacked."""

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content, check_held, sorted_out, unreadable
from contrasim_cli.store.npz import HEADERS, Member, arrays, members
from contrasim_cli.store.sparse import OTHER_FORM, sparse_rows

SPARSE = {"data", "shape", "format"}  # of what scipy.sparse.save_npz writes, whatever the format


def read_npy(file: Snapshot) -> Content:
    """A `.npy` array."""
    path = file.path
    try:
        with np.errstate(over="ignore"):  # of sizes that a damaged header claims
            array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises whatever its parser of headers trips over
        raise unreadable(path, ".npy", error) from error
    return sorted_out(path, ".npy", {quoted(path.stem): array})


def read_npz(file: Snapshot, budget: int | None = None) -> Content:
    """A `.npz` archive, in the order of its members; no Python object in it is unpickled."""
    path = file.path
    try:
        entries = members(file, objects=True)
        _check_room(path, entries, budget)
        values = arrays(file, {name: member for name, member in entries.items() if not member.dtype.hasobject})
        if set(entries) >= SPARSE:
            return _sparse(path, values)
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib raise whatever they trip over
        raise unreadable(path, ".npz", error) from error
    reason = "an array of Python objects, which would have to be unpickled; save texts with .astype(str)"
    objects = {name: reason for name in entries if name not in values}
    return sorted_out(path, ".npz", {name: values.get(name) for name in entries}, objects, ordered=True)


def _sparse(path: Path, parts: Mapping[str, Any]) -> Content:
    """What `scipy.sparse.save_npz` wrote."""
    form = np.asarray(parts["format"]).astype(str).item()
    if form != "csr":
        return Content("SciPy sparse .npz", {}, passed={quoted(path.stem): OTHER_FORM})
    matrix = sparse_rows(*(parts[name] for name in ("data", "indices", "indptr", "shape")))
    return Content("SciPy sparse .npz", {quoted(path.stem): matrix})


def _check_room(path: Path, entries: dict[str, Member], budget: int | None) -> None:
    """What is compressed has to fit into memory, whatever it was packed to."""
    packed = [member for member in entries.values() if member.is_packed and not member.dtype.hasobject]
    if packed:
        largest = max(packed, key=lambda member: member.info.file_size)
        shown = f"{largest.info.filename} {largest.shape}" + " and the rest" * (len(packed) > 1)
        check_held(path, shown, sum(member.info.file_size for member in packed), budget)


BLOCK = 1 << 20
NPY = b"\x93NUMPY"


def read_packed(file: Snapshot, budget: int | None = None) -> Content:
    """The array in such a file.

    Raises:
        InputError: it is damaged, of another kind, or takes more than `budget` bytes of memory.
    """
    path = file.path
    try:
        with gzip.open(file.reader()) as stream:
            return sorted_out(path, ".npy.gz", {_stem(path): _array(path, stream, budget)})
    except ContraSimError:
        raise
    except Exception as error:  # NumPy raises whatever its parser of headers trips over
        raise InputError(f"{quoted(path)}: cannot be read as .npy.gz ({reason(error)}); the file is damaged") from error


def starts_with_npy(file: Snapshot) -> bool:
    """Whether a `.npy` file is in it, as far as its start can be unpacked."""
    try:
        with gzip.open(file.reader()) as stream:
            return stream.read(len(NPY)) == NPY
    except (OSError, EOFError, zlib.error):
        return False


def _stem(path: Path) -> str:
    return quoted(path.name.removesuffix(".gz").removesuffix(".npy") or path.name)


def _array(path: Path, stream: gzip.GzipFile, budget: int | None) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):  # of sizes that a damaged header claims
        shape, fortran, dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    size = math.prod(shape) * dtype.itemsize
    if size < 0:
        raise ValueError(f"its shape is {shape}")
    check_held(path, _stem(path), size, budget)
    content = _exactly(stream, size)
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")


def _exactly(stream: gzip.GzipFile, size: int) -> npt.NDArray[np.uint8]:
    """So many bytes, behind which the stream ends, where its checksum is compared. No room is made for what is only claimed."""
    content = bytearray()
    while len(content) < size:
        block = stream.read(min(size - len(content), BLOCK))
        if not block:
            raise EOFError("it ends within its array")
        content += block
    if stream.read(1):
        raise ValueError("something is behind its array")
    return np.frombuffer(content, np.uint8)
