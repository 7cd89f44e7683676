"""Where the rows of a step come from, and their way through the encoder.

They come from memory where all fit, else from disk, the next group being read while steps run. They are kept in the type of the
encoder's products where that is a narrow one, so that no step converts them again; else as stored, float16 as float16.

Ranks share the reading. Where all rows fit into the memory of each, every rank reads its part of them once and is sent the rest;
else it reads its part of the blocks of every group, and encodes the rows of a batch that lie in them.

All models and layers of one width go through the encoder together. On a CPU they do so in chunks, gathered and widened one by one,
so that what they become on their way stays in its cache.
"""

import hashlib
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise, tee
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli import distributed
from contrasim_cli.device import free_on
from contrasim_cli.encoder import Config, Encoder, training_bytes
from contrasim_cli.progress import Progress, silent
from contrasim_cli.rows import read_ahead
from contrasim_cli.store import View
from contrasim_cli.store.blocks import Floats, spans
from contrasim_cli.store.zero_rows import check_zero_rows, share_zero_rows
from contrasim_cli.training.data import Data, Item, kept_dtype
from contrasim_cli.training.shuffle import BLOCK_ROWS, Group, Order, Rows, rows_of_block

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
READ_BYTES = 64 << 20  # of one layer at once, once widened
FLOAT16_MAX = float(np.finfo(np.float16).max)

CHUNK_ROWS = 4096


class Part(NamedTuple):
    """Rows [items · n, width] of items of one width, by their positions among the items of the step."""

    view: int
    places: list[int]
    held: Tensor  # [rows, width], of which they are those at `chosen`
    chosen: Tensor

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(self.chosen)

    @property
    def width(self) -> int:
        """Neurons of a row."""
        return self.held.shape[1]

    def rows(self, where: slice) -> Tensor:
        """Some of the rows, in the type they are kept in."""
        return self.held.index_select(0, self.chosen[where])


@dataclass(eq=False)
class Held:
    """Some rows of every layer; layers of equal width and type lie in one tensor [items, rows, width].

    `shared`: whether other ranks have the other rows that batches are made of.
    """

    items: Sequence[Item]
    rows: Rows  # sorted
    per_view: bool = False
    precision: str = "float32"
    device: torch.device = CPU
    shared: bool = False

    def __post_init__(self) -> None:
        kinds: dict[tuple[int, int, torch.dtype], list[int]] = {}
        for i, item in enumerate(self.items):
            dtype = held_type(item, self.precision)
            kinds.setdefault((item.view if self.per_view else 0, item.width, dtype), []).append(i)
        self._kinds = list(kinds.items())
        self._tensors = [
            torch.empty(len(members), len(self.rows), width, dtype=dtype, device=self.device)
            for (_, width, dtype), members in self._kinds
        ]

    def put(self, i: int, start: int, block: npt.NDArray[Any]) -> None:
        """Keep rows of item i from position `start` on."""
        for (_, members), tensor in zip(self._kinds, self._tensors, strict=True):
            if i in members:
                rows = torch.from_numpy(block)
                # from float16 to bfloat16 by way of float32 is twice as fast as at once
                tensor[members.index(i), start : start + len(block)] = (
                    rows if rows.dtype == tensor.dtype else rows.float()
                )

    def spread(self, i: int, bounds: Rows) -> None:
        """Send the rows of item i to all ranks, of which rank r has put those from the r-th to before the next of `bounds`."""
        for (_, members), tensor in zip(self._kinds, self._tensors, strict=True):
            if i in members:
                for rank, (start, stop) in enumerate(pairwise(bounds)):
                    distributed.spread(tensor[members.index(i), start:stop], source=rank)

    def own(self, batch: Rows) -> Rows:
        """The rows of a batch that this rank encodes: those that it alone has, or a share of those that all have."""
        if self.shared:
            return batch[np.isin(batch, self.rows)]
        start, stop = distributed.part(len(batch))
        return batch[start:stop]

    def take(self, rows: Rows, layer: int | None = None) -> Iterator[Part]:
        """These rows of all items, or of the items of one layer, in the types they are kept in."""
        where = torch.from_numpy(np.searchsorted(self.rows, rows))
        chosen = [i for i, item in enumerate(self.items) if layer is None or item.layer == layer]
        for ((view, _, _), members), tensor in zip(self._kinds, self._tensors, strict=True):
            slots = [slot for slot, i in enumerate(members) if i in chosen]
            if slots:
                index = (torch.tensor(slots)[:, None] * len(self.rows) + where).flatten().to(tensor.device)
                yield Part(view, [chosen.index(members[slot]) for slot in slots], tensor.flatten(0, 1), index)


def held_type(item: Item, precision: str) -> torch.dtype:
    """What an item's rows are held in."""
    if precision != "float32":
        narrow: torch.dtype = getattr(torch, precision)
        return narrow
    return torch.float16 if item.dtype == np.float16 else torch.float32


class Source:
    """The rows that an order asks for.

    Rows are read and standardised in blocks that start at multiples of BLOCK_ROWS, however they are asked for, so that
    they are the same bit for bit. Where half of what the encoder leaves free on the CUDA device of every rank holds all of them,
    they lie there.
    """

    def __init__(
        self, data: Data, order: Order, budget: int, progress: Progress = silent, device: torch.device = CPU
    ) -> None:
        self.data, self.order, self.items = data, order, data.items
        precision = order.config.precision
        held_bytes = data.n_rows * sum(item.width * held_type(item, precision).itemsize for item in self.items)
        budget -= data.transform_bytes
        room = (free_on(device) - training_bytes(order.config)) // 2 if device.type == "cuda" else 0
        on_device = all(distributed.gathered(held_bytes <= room))
        self.in_memory = on_device or held_bytes <= budget
        group_bytes = order.group_rows * data.row_bytes // distributed.world()
        self.reads_ahead = not self.in_memory and 2 * group_bytes <= budget
        self.digests = [hashlib.blake2b(digest_size=16) for _ in data.views]
        where = "in memory" if self.in_memory else "streamed from disk"
        log.debug("training rows take %.3g GiB and are %s%s", held_bytes / 2**30, where, " of the device" * on_device)
        self._whole = self._empty(np.arange(data.n_rows if self.in_memory else 0), device if on_device else CPU)
        self.held_out = self._empty(order.held_out)
        self._shared = distributed.world() > 1
        self._first_pass(progress)

    def _empty(self, rows: Rows, device: torch.device = CPU, shared: bool = False) -> Held:
        return Held(self.items, rows, self.order.config.encoder_per_view, self.order.config.precision, device, shared)

    def _first_pass(self, progress: Progress) -> None:
        """Read everything once, each rank its part: bad values stop the run before hours of work, and the content is digested."""
        bounds = _bounds(self.data.n_rows)
        with progress("reading", len(self.items), "layers") as advance:
            for i, item in enumerate(self.items):
                digests = Digests()
                for rows in _spans(*_own(bounds), item.width):
                    block = self._read(item, rows, digests)
                    if self.in_memory:
                        self._whole.put(i, int(rows[0]), block)
                    start, stop = np.searchsorted(self.held_out.rows, [rows[0], rows[-1] + 1])
                    self.held_out.put(i, int(start), block[self.held_out.rows[start:stop] - rows[0]])
                self.digests[item.view].update(digests.of_all_ranks())
                if self.in_memory:
                    self._whole.spread(i, bounds)
                self.held_out.spread(i, np.searchsorted(self.held_out.rows, bounds))
                advance(1)
        stores = [view.store for view in self.data.views]
        share_zero_rows(stores)
        check_zero_rows(stores)

    def _read(self, item: Item, rows: Rows, digests: "Digests | None" = None) -> npt.NDArray[Any]:
        """Rows of whole blocks in the type they are kept in; the digests are of what the store holds."""
        block = self.data.views[item.view].read(item.name, rows)
        if digests:
            digests.add(block, kept_dtype(self.data.views[item.view].store.layer(item.name)))
        return _narrow(self.data.formed(item.view, item.name, block), item.dtype)

    def _own_blocks(self, group: Group) -> Rows:
        """The blocks, among those that a group's rows lie in, that this rank reads."""
        start, stop = distributed.part(len(blocks := np.unique(group.rows // BLOCK_ROWS)))
        return blocks[start:stop]

    def _group(self, blocks: Rows) -> Held:
        """The rows of some blocks."""
        rows = [rows_of_block(int(block), self.data.n_rows) for block in blocks]
        held = self._empty(np.concatenate([np.arange(0), *rows]), shared=self._shared)
        for i, item in enumerate(self.items):
            for span in _spans(0, len(held.rows), item.width):
                held.put(i, int(span[0]), self._read(item, held.rows[span]))
        return held

    @contextmanager
    def groups(self, epoch: int, done: int) -> Iterator[Iterator[tuple[Group, Held, int]]]:
        """The groups of an epoch with their rows, and how many of the epoch's steps come before each.

        Groups whose steps are `done` already are left out. While one is in use the next is read, where both fit.
        """
        with closing(self._opened(self._left(epoch, done))) as groups:
            yield groups

    def _opened(self, left: Iterator[tuple[Group, int]]) -> Generator[tuple[Group, Held, int], None, None]:
        if self.in_memory:
            yield from ((group, self._whole, before) for group, before in left)
            return
        left, ahead = tee(left)
        own = (self._own_blocks(group) for group, _ in ahead)
        with closing(read_ahead(self._group, own, self.reads_ahead)) as blocks:
            for group, before in left:
                yield group, next(blocks), before  # which nothing here holds when the next is read

    def _left(self, epoch: int, done: int) -> Iterator[tuple[Group, int]]:
        before = 0
        for group in self.order.groups(epoch):
            if before + len(group.steps) > done:
                yield group, before
            before += len(group.steps)


class Digests:
    """Digests of blocks of BLOCK_ROWS rows of a layer, in order: those that a rank has read, and then those of all."""

    def __init__(self) -> None:
        self._found: list[bytes] = []

    def add(self, rows: Floats, dtype: np.dtype[Any]) -> None:
        """Rows [k, width] of whole blocks, or of the last one, in the type they are kept in."""
        kept = np.ascontiguousarray(rows.astype(dtype, copy=False))
        for start, stop in spans(len(kept), BLOCK_ROWS):
            self._found.append(hashlib.blake2b(kept[start:stop].data, digest_size=16).digest())

    def of_all_ranks(self) -> bytes:
        """The digests of all blocks, of all ranks."""
        return distributed.joined_rows(np.frombuffer(b"".join(self._found), np.uint8)).tobytes()


def content_digest(view: View, layers: Sequence[str]) -> str:
    """Digest of a view's rows in these layers, the one that an encoder's provenance has of what it was trained on.

    Ranks share the reading.
    """
    digest = hashlib.blake2b(digest_size=16)
    own = _own(_bounds(view.n_rows))
    for name in layers:
        layer, digests = view.store.layer(name), Digests()
        for rows in _spans(*own, layer.width):
            digests.add(view.read(name, rows), kept_dtype(layer))
        digest.update(digests.of_all_ranks())
    return digest.hexdigest()


def _bounds(n_rows: int) -> Rows:
    """[ranks + 1] where the rows that each rank reads begin, whole blocks, and the end."""
    shares = distributed.parts(-(-n_rows // BLOCK_ROWS))
    return np.array([0, *(min(stop * BLOCK_ROWS, n_rows) for _, stop in shares)])


def _own(bounds: Rows) -> tuple[int, int]:
    """Where this rank's rows begin and end."""
    rank = distributed.part(len(bounds) - 1)[0]
    return int(bounds[rank]), int(bounds[rank + 1])


def _narrow(rows: Floats, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Rows in a type they are kept in; what standardisation takes beyond float16 is kept at its end."""
    if dtype == np.float16 and rows.dtype != np.float16:
        rows = rows.clip(-FLOAT16_MAX, FLOAT16_MAX)
    return np.ascontiguousarray(rows.astype(dtype, copy=False))


def _spans(first: int, end: int, width: int) -> Iterator[Rows]:
    """Rows from the first, which begins a block, to before the end, in runs of whole blocks."""
    step = max(1, READ_BYTES // (8 * width * BLOCK_ROWS)) * BLOCK_ROWS
    return (np.arange(first + start, first + stop) for start, stop in spans(end - first, step))


def encode_parts(encoder: Encoder, parts: Iterable[Part], device: torch.device, config: Config) -> Tensor:
    """The encoded items z [items, n, output] of a step, float32."""
    encoded, places = [], []
    dtype: torch.dtype = getattr(torch, config.precision)
    with _autocast(dtype, device):
        for part in parts:
            z = torch.cat([encoder(rows, part.view) for rows in _chunks(part, device, dtype)])
            encoded.append(z.view(len(part.places), part.n_rows // len(part.places), z.shape[-1]))
            places.extend(part.places)
    z = encoded[0] if len(encoded) == 1 else torch.cat(encoded)
    if places == list(range(len(places))):
        return z
    return z[torch.tensor(places, device=z.device).argsort()]


def _chunks(part: Part, device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
    cut = spans(part.n_rows, CHUNK_ROWS if device.type == "cpu" else max(1, part.n_rows))
    for span in cut if part.n_rows else [(0, 0)]:  # a rank may have none of a batch
        yield part.rows(slice(*span)).to(device).to(dtype)


def _autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Weights are cast anew for every chunk, so that the chunks' gradients add up in float32."""
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if reduced else None, enabled=reduced, cache_enabled=False)
