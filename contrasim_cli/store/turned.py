"""Arrays whose axes lie in the other order, and matrices of one row or column that are vectors: as MATLAB keeps them in HDF5."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

BLOCK = 1 << 20


@dataclass(frozen=True)
class Turned:
    """An array with its axes in the other order."""

    whole: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array, backwards."""
        return tuple(self.whole.shape[::-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        found: np.dtype[Any] = self.whole.dtype
        return found

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """What is best read together."""
        chunks = self.whole.chunks
        return tuple(chunks[::-1]) if chunks else None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of the values."""
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (len(self.shape) - len(keys))
        found: npt.NDArray[Any] = np.asarray(self.whole[keys[::-1]]).T
        return found


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
        found: np.dtype[Any] = self.whole.dtype
        starts = range(0, self.shape[0], BLOCK)
        is_whole = found.kind == "f" and all(_are_whole(self._read(start, start + BLOCK)) for start in starts)
        return np.dtype(np.int64) if is_whole else found

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
