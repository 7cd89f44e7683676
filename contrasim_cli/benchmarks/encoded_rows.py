"""Rows of one layer of a view, wherever they are: held in memory where they fit, else read, standardised and encoded anew."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from contrasim_cli.store import View
from contrasim_cli.store.blocks import Floats, RowIndex

FILLED_ROWS = 8192  # read, standardised or encoded at once
SAMPLED_ROWS = 2048  # whose mean is taken for that of all
HELD_AS_STORED = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


Taken = tuple[
    Tensor, Callable[[Tensor], Tensor]
]  # rows [..., n, p], and those of the matrices marked [...] as they were


class Room:
    """Bytes that may still be held."""

    def __init__(self, left: int) -> None:
        self.left = left

    def takes(self, size: int) -> bool:
        """Whether that many more bytes fit, which are then taken."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


class Rows:
    """Rows [n_rows, width] of one layer of one view in one form, of which any may be asked for at any time.

    `read` makes the rows at some positions, in the type `dtype`; `held_as` is the type in which no digit of them is lost.
    """

    def __init__(
        self,
        read: Callable[[RowIndex], Tensor],
        n_rows: int,
        width: int,
        dtype: torch.dtype,
        held_as: torch.dtype | None = None,
    ) -> None:
        self.read, self.n_rows, self.width, self.dtype = read, n_rows, width, dtype
        self.held_as = held_as or dtype
        self._held: Tensor | None = None
        self._as_they_were: Rows | None = None

    @property
    def held(self) -> bool:
        """Whether all of them are in memory."""
        return self._held is not None

    def hold(self, room: Room) -> "Rows":
        """Hold all rows from now on, where they fit the room."""
        if not self.held and room.takes(self.n_rows * self.width * self.held_as.itemsize):
            self._held = self._filled()
        return self

    def _filled(self) -> Tensor:
        step = max(1, min(self.n_rows, FILLED_ROWS))
        first = self.read(np.arange(step)).to(self.held_as)
        everything = torch.empty((self.n_rows, self.width), dtype=self.held_as, device=first.device)
        everything[:step] = first
        for start in range(step, self.n_rows, step):
            stop = min(start + step, self.n_rows)
            everything[start:stop] = self.read(np.arange(start, stop))
        return everything

    def take(self, where: Tensor) -> Tensor:
        """The rows [..., width] at positions [...]."""
        if self._held is not None:
            taken = self._held.index_select(0, where.flatten().to(self._held.device)).to(self.dtype)
        else:
            distinct, places = np.unique(where.numpy(), return_inverse=True)
            rows = self.read(distinct)
            taken = rows.index_select(0, torch.from_numpy(places.ravel()).to(rows.device))
        return taken.view(*where.shape, self.width)

    def mapped(self, function: Callable[[Tensor], Tensor], width: int, dtype: torch.dtype) -> "Rows":
        """What a function makes of the rows [k, width], row by row."""
        return Rows(lambda where: function(self.take(torch.from_numpy(where))), self.n_rows, width, dtype)

    @property
    def is_near(self) -> bool:
        """Whether they are relative to a common row."""
        return self._as_they_were is not None

    def near(self) -> "Rows":
        """The rows less a common row, which is about their mean, so that rounding costs fewer digits where it is large."""
        sample = np.unique(np.linspace(0, self.n_rows - 1, min(self.n_rows, SAMPLED_ROWS)).astype(np.int64))
        common = self.take(torch.from_numpy(sample)).mean(dim=0)
        rows = self.mapped(lambda x: x - common, self.width, self.dtype)
        rows._as_they_were = self
        return rows

    def taken(self, where: Tensor, device: torch.device) -> Taken:
        """The rows at positions [..., n] on a device."""
        before = self._as_they_were or self
        return self.take(where).to(device), lambda marked: before.take(where[marked.cpu()]).to(device)

    def within(self, positions: RowIndex) -> "Rows":
        """Some of the rows, numbered anew."""
        return Rows(
            lambda where: self.take(torch.from_numpy(positions[where])),
            len(positions),
            self.width,
            self.dtype,
            self.held_as,
        )


def stored_rows(view: View, name: str) -> Rows:
    """The rows of a layer as they are in the store, widened when they are taken."""
    layer = view.store.layer(name)
    read_as = _torch_type(layer.read_dtype)
    held_as = _torch_type(layer.dtype) if layer.dtype in HELD_AS_STORED else read_as

    def read(where: RowIndex) -> Tensor:
        rows: Floats = view.read(name, where)
        return torch.from_numpy(rows)

    return Rows(read, view.n_rows, layer.width, read_as, held_as)


def _torch_type(dtype: np.dtype[np.generic]) -> torch.dtype:
    found: torch.dtype = torch.from_numpy(np.empty(0, dtype=dtype.newbyteorder("="))).dtype
    return found
