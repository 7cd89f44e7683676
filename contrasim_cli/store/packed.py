"""A `.npy` file that is packed with gzip, held in memory once it is unpacked."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content, check_held, sorted_out
from contrasim_cli.store.npz import HEADERS

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
