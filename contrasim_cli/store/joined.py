"""Layers whose rows lie in several arrays, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.store.store import Array


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
