"""Rows of one layer of a view in one form, wherever they are: held in memory where they fit, else read anew.

The form is that of the store, or what a scorer takes: standardised or described by anchors, and then encoded. Whoever reads blocks
of them in turn can have the next one read ahead.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from contrasim_cli.anchors import Anchored
from contrasim_cli.arrays import Device, DType, Tensor, as_tensor, host, is_tensor, native
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import Store, View
from contrasim_cli.store.blocks import RowIndex, block_rows, spans
from contrasim_cli.transforms import Transform

Places = RowIndex | Tensor
Key = TypeVar("Key")
Block = TypeVar("Block")
FILLED_ROWS = 8192  # read, standardised or encoded at once
READ_BYTES = 4 << 20  # read at once to be held
SAMPLED_ROWS = 2048  # whose mean is taken for that of all
HELD_AS_STORED = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))

# rows [..., n, p], and those of the matrices marked [...] as they were
Taken = tuple[Tensor, Callable[[Tensor], Tensor]]


class Room:
    """Bytes that may still be held."""

    def __init__(self, left: int) -> None:
        self.left = left

    def takes(self, size: int) -> bool:
        """Whether that many more bytes fit, which are then taken."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


@dataclass
class Kept:
    """What is made for a key on demand; kept while there is room, made anew when asked for again otherwise."""

    make: Callable[[Any], Any]
    room: Room
    made: dict[Any, Any] = field(default_factory=dict)

    def get(self, key: Any) -> Any:
        """What `make` makes of the key."""
        if key in self.made:
            return self.made[key]
        made = self.make(key)
        if self.room.takes(size(made)):
            self.made[key] = made
        return made


def size(prepared: Any) -> int:
    """Bytes of the tensors of a prepared layer."""
    if is_tensor(prepared):
        return prepared.numel() * prepared.element_size()
    return sum(map(size, prepared)) if isinstance(prepared, tuple) else 0


class Rows:
    """Rows [n_rows, width] of one layer of one view in one form, of which any may be asked for at any time.

    `read` makes the rows at some positions, in the type `dtype`; `held_as` is the type in which no digit of them is lost. To be
    held they are read `step` rows at a time.
    """

    def __init__(
        self,
        read: Callable[[RowIndex], Tensor],
        n_rows: int,
        width: int,
        dtype: DType,
        held_as: DType | None = None,
        step: int = FILLED_ROWS,
    ) -> None:
        self.read, self.n_rows, self.width, self.dtype = read, n_rows, width, dtype
        self.held_as, self.step = held_as or dtype, step
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

    def release(self) -> None:
        """Hold them no longer: whoever asks for rows reads them."""
        self._held = None

    def _filled(self) -> Tensor:
        everything = None
        for start, stop in spans(self.n_rows, self.step):
            rows = self.read(np.arange(start, stop))
            if len(rows) == self.n_rows:
                return rows.to(self.held_as)
            if everything is None:
                everything = rows.to(self.held_as).new_empty(self.n_rows, self.width)
            everything[start:stop] = rows
        return self.read(np.arange(0)).to(self.held_as) if everything is None else everything

    def span(self, start: int, stop: int) -> Tensor:
        """The rows [stop - start, width] from `start` to before `stop`."""
        if self._held is not None:
            return self._held[start:stop].to(self.dtype)
        return self.read(np.arange(start, stop))

    def take(self, where: "Places") -> Tensor:
        """The rows [..., width] at positions [...]."""
        if self._held is not None:
            taken = self._held.index_select(0, as_tensor(where, self._held.device).flatten()).to(self.dtype)
        else:
            distinct, places = np.unique(np.asarray(where), return_inverse=True)
            rows = self.read(distinct)
            taken = rows.index_select(0, as_tensor(places.ravel(), rows.device))
        return taken.reshape(*where.shape, self.width)

    def mapped(self, function: Callable[[Tensor], Tensor], width: int, dtype: DType) -> "Rows":
        """What a function makes of the rows [k, width], row by row."""
        return Rows(lambda where: function(self.take(where)), self.n_rows, width, dtype)

    @property
    def is_near(self) -> bool:
        """Whether they are relative to a common row."""
        return self._as_they_were is not None

    def near(self) -> "Rows":
        """The rows less a common row, which is about their mean, so that rounding costs fewer digits where it is large."""
        sample = np.linspace(0, self.n_rows - 1, min(self.n_rows, SAMPLED_ROWS)).astype(np.int64)
        common = self.take(sample).mean(dim=0)
        rows = self.mapped(lambda x: x - common, self.width, self.dtype)
        rows._as_they_were = self
        return rows

    def taken(self, where: RowIndex, device: Device) -> Taken:
        """The rows at positions [..., n] on a device."""
        before = self._as_they_were or self
        return self.take(where).to(device), lambda marked: before.take(where[marked.cpu().numpy()]).to(device)

    def within(self, positions: RowIndex) -> "Rows":
        """Some of the rows, numbered anew."""
        return Rows(
            lambda where: self.take(positions[where]),
            len(positions),
            self.width,
            self.dtype,
            self.held_as,
            self.step,
        )


def stored_rows(view: View, name: str, device: Device, widened: bool = False) -> Rows:
    """The rows of a layer as the view has them, on a device; held as they are stored, or `widened` as they are taken."""
    layer = view.store.layer(name)
    read_as = native(layer.read_dtype, device)
    as_stored = not widened and layer.dtype in HELD_AS_STORED
    held_as = native(layer.dtype, device) if as_stored else read_as
    # few rows at once keep memory small; rows in an order of their own lie in chunks that each read would read again
    step = block_rows(layer, READ_BYTES) if view.rows is None else FILLED_ROWS

    def read(where: RowIndex) -> Tensor:
        return as_tensor(view.read(name, where), device)

    return Rows(read, view.n_rows, layer.width, read_as, held_as, step)


def scored_rows(
    raw: Rows, transform: Transform | Anchored | None, scorer: Scorer, store: Store, layer: str, device: Device
) -> Rows:
    """The rows of a store's layer as a scorer's measure takes them: standardised or described by anchors, then encoded."""
    rows, on = raw, host(device)
    if transform is not None:
        made = (transform.width, native("float32", on)) if isinstance(transform, Anchored) else (raw.width, raw.dtype)
        rows = raw.mapped(lambda x: as_tensor(transform(x.numpy()), x.device), *made)
    if scorer.encoder is not None:
        return rows.mapped(lambda x: scorer.rows(x, store, layer, device), scorer.encoded, native("float32", device))
    return rows.mapped(lambda x: x.to(device), rows.width, rows.dtype) if device.type == "cuda" else rows


def read_ahead(read: Callable[[Key], Block], keys: Iterable[Key], ahead: bool = True) -> Generator[Block, None, None]:
    """`read(key)` for each key in turn, the next one in a thread while one is in use, unless there is no room for two.

    No more than two are held here, and one without reading ahead. Close the iterator where it is not read to its end.
    """
    with ThreadPoolExecutor(1) as reader:
        coming: Future[Block] | None = None
        left = iter(keys)
        waiting = list(islice(left, 1))
        while waiting:
            block = coming.result() if coming else read(waiting[0])
            waiting = list(islice(left, 1))
            coming = reader.submit(read, waiting[0]) if ahead and waiting else None
            yield block
            del block  # before the next but one is read
