"""Layers whose rows lie in pieces of other arrays: in a plane of a 3-D array, or in several arrays one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.store.store import Array


@dataclass(frozen=True)
class Slab:
    """One layer of a 3-D array: a matrix that is read when its rows are asked for."""

    whole: Any
    layers_axis: int
    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        return (int(self.whole.shape[1 - self.layers_axis]), int(self.whole.shape[2]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        found: np.dtype[Any] = self.whole.dtype
        return found

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Rows that are best read together."""
        chunks = getattr(self.whole, "chunks", None)
        return (int(chunks[1 - self.layers_axis]),) if chunks else None

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Some rows [k, width]."""
        return np.asarray(self.whole[self.index, rows] if self.layers_axis == 0 else self.whole[rows, self.index])


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
