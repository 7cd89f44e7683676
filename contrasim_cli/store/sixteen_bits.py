"""What 16-bit integers stand for: NumPy has no bfloat16, and people keep its bits in int16, uint16 or raw two bytes.

Taken as integers they give a number that looks right, so that a layer whose bits make sense as floating point is refused until
`--read-as` says what it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.store.store import Array

SAMPLED_ROWS, SAMPLED_COLUMNS = 64, 4096
LIKELY = range(127 - 40, 127 + 18)  # exponents of bfloat16 for 1e-12 to 2.6e5, which activations have
SHARE = 0.99  # of the values that have to be zero or as likely as that
LEAST = 3  # exponents that have to occur


@dataclass(frozen=True)
class Floats:
    """The bits of 16-bit integers as bfloat16 or float16."""

    bits: Array
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the integers."""
        return tuple(self.bits.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest type that NumPy has for the values."""
        return np.dtype(np.float32 if self.kind == "bfloat16" else np.float16)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """The chunks of the integers."""
        return getattr(self.bits, "chunks", None)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of the values."""
        bits = _bits(self.bits[key])
        return _bfloat16(bits) if self.kind == "bfloat16" else bits.view(np.float16)


@dataclass(frozen=True)
class Column:
    """A matrix of one column as a vector."""

    matrix: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows,)."""
        return (int(self.matrix.shape[0]),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return self.matrix.dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of the values."""
        return np.asarray(self.matrix[key]).ravel()


def is_column(array: Array) -> bool:
    """Whether it is whole numbers, one per row, in a matrix: names or classes, as MATLAB's habit is, and no neuron."""
    return array.dtype.kind in "iu" and len(array.shape) == 2 and array.shape[1] == 1 < array.shape[0]


def is_two_bytes(array: Array) -> bool:
    """Whether the values may be the bits of floats: 16-bit integers, or two raw bytes."""
    return array.dtype.kind in "iuV" and array.dtype.itemsize == 2 and array.dtype.names is None


def read_as(array: Array, kind: str | None) -> Array:
    """The values that were asked for, of an array of two bytes each."""
    return Floats(array, kind) if kind in ("bfloat16", "float16") else array


def refusal(path: Path, name: str, matrix: Array, kind: str | None) -> InputError | None:
    """The problem of a matrix of integers that look like bits, of which nothing was said."""
    if not is_two_bytes(matrix) or (kind is not None and matrix.dtype.kind != "V"):
        return None
    what = "raw pairs of bytes" if matrix.dtype.kind == "V" else f"{matrix.dtype} whose bits make sense as bfloat16"
    if matrix.dtype.kind != "V" and not looks_like_bfloat16(matrix):
        return None
    return InputError(
        f"{quoted(path)}: layer {quoted(name)} is {what}; convert it with contrasim extract --from FILE --read-as bfloat16 "
        "(or float16, or integers, if they are that)"
    )


def looks_like_bfloat16(matrix: Array) -> bool:
    """Whether nearly all of a sample of a matrix of 16-bit integers are plausible as bfloat16, and of many magnitudes."""
    n_rows, width = matrix.shape
    places = np.unique(np.linspace(0, max(n_rows - 1, 0), SAMPLED_ROWS).astype(np.int64)).tolist()
    rows = [_bits(matrix[row : row + 1])[:, :SAMPLED_COLUMNS] for row in places] if n_rows else []
    bits = np.concatenate(rows).ravel() if rows and width else np.empty(0, np.uint16)
    bits = bits[(bits & 0x7FFF) != 0]
    exponents = (bits >> 7) & 0xFF
    likely = np.isin(exponents, LIKELY)
    return len(bits) > 0 and bool(likely.mean() >= SHARE) and len(np.unique(exponents[likely])) >= LEAST


def _bits(values: Any) -> npt.NDArray[np.uint16]:
    block = np.asarray(values)
    return block.view("<u2").astype(np.uint16) if block.dtype.kind == "V" else block.astype(np.uint16)


def _bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)
