"""Arrays as they are wanted: axes in the other order, vectors that were kept as matrices, several arrays one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contrasim_cli.store.store import Array

BLOCK = 1 << 20


@dataclass(frozen=True)
class Turned:
    """An array with its axes in the other order."""

    whole: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array, backwards."""
        return tuple(self.whole.shape[::-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        dtype: np.dtype[Any] = self.whole.dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """What is best read together."""
        chunks = self.whole.chunks
        return tuple(chunks[::-1]) if chunks else None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of the values."""
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (len(self.shape) - len(keys))
        values: npt.NDArray[Any] = np.asarray(self.whole[keys[::-1]]).T
        return values


@dataclass(frozen=True)
class Vector:
    """A matrix of one row or column as a vector; doubles that are all whole numbers are integers."""

    whole: Any

    @property
    def shape(self) -> tuple[int]:
        """(length,)."""
        return (int(self.whole.size),)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        dtype: np.dtype[Any] = self.whole.dtype
        starts = range(0, self.shape[0], BLOCK)
        is_whole = dtype.kind == "f" and all(_are_whole(self._read(start, start + BLOCK)) for start in starts)
        return np.dtype(np.int64) if is_whole else dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of the values."""
        (rows,) = key if isinstance(key, tuple) else (key,)
        start, stop, _ = rows.indices(self.shape[0])
        return self._read(start, stop).astype(self.dtype)

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return np.asarray(self.whole[along(self.whole, start, stop)]).ravel()


def _are_whole(values: npt.NDArray[Any]) -> bool:
    return bool((np.abs(values) < 2**53).all() and (values == np.floor(values)).all())


def along(dataset: h5py.Dataset, start: int, stop: int) -> tuple[Any, ...]:
    """Where a part of a matrix of one row or column lies."""
    return (slice(None), slice(start, stop)) if dataset.shape[0] == 1 else (slice(start, stop),)


@dataclass(frozen=True)
class Joined:
    """Matrices of equal width as one, their rows one after the other."""

    parts: Sequence[Array]

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """[parts + 1] where the rows of each part begin, and how many there are of all."""
        return np.concatenate([[0], np.cumsum([part.shape[0] for part in self.parts], dtype=np.int64)])

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        return (int(self.starts[-1]), int(self.parts[0].shape[1]))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of every part."""
        return np.result_type(*{part.dtype for part in self.parts})

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Some rows [k, width]."""
        start, stop, _ = rows.indices(self.shape[0])
        out = np.empty((max(0, stop - start), self.shape[1]), self.dtype)
        for k in range(self.part_of(start), len(self.parts)):
            first, last = max(start, int(self.starts[k])), min(stop, int(self.starts[k + 1]))
            if int(self.starts[k]) >= stop:
                break
            if first < last:
                out[first - start : last - start] = self.parts[k][slice(first - self.starts[k], last - self.starts[k])]
        return out

    def part_of(self, row: int) -> int:
        """Which part holds a row."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1
