"""Sparse matrices in compressed rows, as SciPy and AnnData keep them; rows become dense when they are read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 20
WIDEST = 1 << 28
OTHER_FORM = "a sparse matrix not in rows; save it with .tocsr(), or dense"


@dataclass(frozen=True)
class SparseRows:
    """A matrix [rows, width]; row r has the values `data[s:t]` in the columns `indices[s:t]`, s, t = `indptr[r:r + 2]`."""

    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        dtype: np.dtype[Any] = self.data.dtype
        return dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some rows, or a part of some."""
        rows, *columns = key if isinstance(key, tuple) else (key,)
        start, stop, step = rows.indices(self.shape[0]) if isinstance(rows, slice) else (rows, rows + 1, 1)
        block = self._dense(start, stop)[::step]
        return block[(slice(None) if isinstance(rows, slice) else 0, *columns)]

    def _dense(self, start: int, stop: int) -> npt.NDArray[Any]:
        block = np.zeros((max(stop - start, 0), self.shape[1]), self.dtype)
        if not len(block):
            return block
        ends = np.asarray(self.indptr[start : stop + 1]).astype(np.int64)
        first, last = int(ends[0]), int(ends[-1])
        columns = np.asarray(self.indices[first:last]).astype(np.int64)
        if len(columns) != last - first or (columns < 0).any() or (columns >= self.shape[1]).any():
            raise ValueError(f"columns of a sparse matrix of width {self.shape[1]} are out of bounds")
        places = np.repeat(np.arange(len(block)), np.diff(ends))
        np.add.at(block, (places, columns), np.asarray(self.data[first:last]))
        return block


def sparse_rows(data: Any, indices: Any, indptr: Any, shape: Any) -> SparseRows:
    """A matrix of these parts.

    Raises:
        ValueError: they do not make one.
    """
    sizes = tuple(int(size) for size in np.asarray(shape).ravel())
    vectors = all(len(part.shape) == 1 for part in (data, indices, indptr))
    numbers = data.dtype.kind in "biuf" and indices.dtype.kind in "iu" and indptr.dtype.kind in "iu"
    if (
        len(sizes) != 2
        or min(sizes) < 0
        or sizes[1] > WIDEST
        or not vectors
        or not numbers
        or indptr.shape[0] != sizes[0] + 1
    ):
        raise ValueError("the parts of a sparse matrix do not fit together")
    last = 0
    for start in range(0, indptr.shape[0], BLOCK):
        ends = np.asarray(indptr[start : start + BLOCK]).astype(np.int64)
        if ends[0] < last or (np.diff(ends) < 0).any():
            raise ValueError("the rows of a sparse matrix are not in order")
        last = int(ends[-1])
    if last != data.shape[0] or indices.shape != data.shape:
        raise ValueError("a sparse matrix holds other values than its rows claim")
    return SparseRows(data, indices, indptr, (sizes[0], sizes[1]))
