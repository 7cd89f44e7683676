"""Which of the rows that were read are zero in every layer, found in the blocks that are read anyway."""

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed

Places = npt.NDArray[np.int64]


class ZeroRows:
    """Which rows of a store were read, and which of these had a value other than zero in some layer.

    `settled`: whether somebody was told of them, or has said what is to be done.
    """

    def __init__(self, n_rows: int) -> None:
        self._seen, self._alive = np.zeros((2, n_rows), dtype=bool)
        self.settled = False

    def look(self, start: int, block: npt.NDArray[np.generic]) -> None:
        """Take note of the rows [k, width] from `start` on of some layer."""
        self._seen[start : start + len(block)] = True
        alive = self._alive[start : start + len(block)]
        unknown = np.flatnonzero(~alive)
        if len(unknown) == len(block):
            alive[:] = block.any(axis=1)
        elif len(unknown):
            alive[unknown] = block[unknown].any(axis=1)

    def merge(self) -> None:
        """Take note of what all ranks have seen."""
        self._seen, self._alive = (_of_any_rank(rows) for rows in (self._seen, self._alive))

    def are_alive(self, start: int, stop: int) -> bool:
        """Whether none of these rows can turn out to be zero."""
        return bool(self._alive[start:stop].all())

    @property
    def seen(self) -> Places:
        """[k] the rows that were read."""
        return np.flatnonzero(self._seen)

    @property
    def places(self) -> Places:
        """[k] those of them that were zero in every layer that was read of them."""
        return np.flatnonzero(self._seen & ~self._alive)


def _of_any_rank(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    every = distributed.gathered_arrays(np.packbits(rows))
    return np.unpackbits(np.bitwise_or.reduce(every), count=len(rows)).astype(bool)
