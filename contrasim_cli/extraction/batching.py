"""Items on their way to the model: prepared block by block, cut into shards and batches, one step ahead of the model."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from contrasim_cli.extraction.networks.network import ALIKE, ANY, ONE, Inputs, Network, Prepared
from contrasim_cli.extraction.shards import Shard, Sizes
from contrasim_cli.extraction.sources.source import BadItem, Items, Source, raise_bad
from contrasim_cli.names import quoted

ROW = re.compile(r"^row \d+:? ")  # what a network calls an item; its id says it better
AHEAD = 2  # batches that wait for the model
STEP = 0.05  # seconds between two looks at whether anybody still wants what was read

T = TypeVar("T")
Reasons = list[tuple[int, str]]  # positions of items, and why each cannot be read


class Nothing:
    """A block of which no item could be read."""

    lengths: Sequence[int] = ()
    cut: Sequence[int] = ()
    truncated = 0
    unknown: Sequence[tuple[int, int]] = ()
    units = None

    def batch(self, rows: Sequence[int]) -> Inputs:
        """Nobody asks for a batch of it."""
        return {}


@dataclass(frozen=True)
class Piece:
    """The items of one shard: `members` are their places in `prepared`, `positions` those in the source of all of it."""

    shard: Shard
    prepared: Prepared
    members: Sequence[int]
    positions: Sequence[int]


@dataclass(frozen=True)
class Batch:
    """Items of a piece, by their places in `prepared`, and the inputs made of those that could be read."""

    piece: Piece
    members: Sequence[int]
    inputs: Inputs | None
    bad: Reasons = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """All batches of a piece have gone before; or, where there is none, its `items` were made earlier."""

    items: int
    piece: Piece | None = None


@dataclass
class BatchSize:
    """How many items a batch has; `automatic` sizes shrink when memory runs out."""

    value: int
    automatic: bool = False

    def halve(self, tried: int) -> None:
        """Go on with less than what was tried."""
        self.value = max(1, min(self.value, tried) // 2)


@dataclass(frozen=True)
class Reader:
    """Reads the items of a source for a network, or those within `span`, which begins and ends with blocks."""

    network: Network
    source: Source
    skip_bad: bool = False
    span: tuple[int, int] | None = None

    def steps(self, sizes: Sizes, done: Mapping[int, int], batch_size: BatchSize) -> Iterator[Batch | Done]:
        """The batches of every shard that is not `done` (first item: the one behind the last), each followed by Done."""
        for at, items in self._blocks(sizes.block_items):
            start, end = at, at + len(items)
            while start < end:
                if start in done:
                    yield Done(done[start] - start)
                    start = done[start]
                    continue
                stop = min([first for first in done if start < first < end], default=end)
                for piece in self._pieces(items[start - at : stop - at], start, sizes.shard_rows):
                    yield from self._batches(piece, batch_size)
                    yield Done(piece.shard.stop - piece.shard.first, piece)
                start = stop

    def _blocks(self, size: int) -> Iterator[tuple[int, Items]]:
        """The blocks of the span, each with the position of its first item."""
        first, stop = self.span or (0, self.source.n_rows)
        at = 0
        for items in self.source.blocks(size):
            if at >= stop:
                return
            if at >= first:
                yield at, items
            at += len(items)

    def cut(self, block_items: int) -> Iterator[int]:
        """The positions of the items that the model's limit cuts."""
        for at, items in self._blocks(block_items):
            prepared, bad = self._prepared(items, at)
            gone = {position for position, _ in bad}
            yield from (at + place for place in prepared.cut if at + place not in gone)

    def _pieces(self, items: Items, first: int, shard_rows: int) -> Iterator[Piece]:
        prepared, bad = self._prepared(items, first)
        positions, gone = range(first, first + len(items)), {position for position, _ in bad}
        where = {position: place for place, position in enumerate(positions) if position not in gone}
        counts = [_count(prepared, where.get(first + k)) for k in range(len(items))]
        for start, stop in _groups(counts, shard_rows):
            inside = range(first + start, first + stop)
            members = [where[position] for position in inside if position in where]
            shard = Shard(
                inside.start,
                inside.stop,
                _units(prepared, [where.get(position) for position in inside]),
                [
                    positions[place]
                    for place in prepared.cut
                    if positions[place] in inside and positions[place] in where
                ],
                [(position, reason) for position, reason in bad if position in inside],
                _tokens(prepared, members),
            )
            yield Piece(shard, prepared, members, positions)

    def _prepared(self, items: Items, first: int) -> tuple[Prepared, Reasons]:
        """A block of items, and those that cannot be prepared, in whose places others stand, so that all keep their positions."""
        positions = range(first, first + len(items))
        try:
            return self.network.prepare(items, first), []
        except BadItem:
            bad = list(_failing(lambda k: self.network.prepare(items[k - first : k - first + 1], k), positions))
        self._refuse(bad)
        gone = {position for position, _ in bad}
        other = next((items[position - first] for position in positions if position not in gone), None)
        if other is None:
            return Nothing(), bad
        stood_in = [other if position in gone else items[position - first] for position in positions]
        return self.network.prepare(stood_in, first), bad

    def _batches(self, piece: Piece, size: BatchSize) -> Iterator[Batch]:
        lengths = np.asarray(piece.prepared.lengths)
        bad: Reasons = []
        for members in by_length(piece.members, lengths, size, self.network.grouping):
            batch = self._read(piece, members)
            bad += batch.bad
            if not bad or self.skip_bad:
                yield batch
        self._refuse(bad)

    def _read(self, piece: Piece, members: Sequence[int]) -> Batch:
        try:
            return Batch(piece, members, piece.prepared.batch(members))
        except BadItem:
            bad = list(_failing(lambda place: piece.prepared.batch([place]), members))
        gone = {place for place, _ in bad}
        kept = [place for place in members if place not in gone]
        reasons = [(piece.positions[place], reason) for place, reason in bad]
        return Batch(piece, kept, piece.prepared.batch(kept) if kept else None, reasons)

    def _refuse(self, bad: Reasons) -> None:
        if bad and not self.skip_bad:
            where = f"{quoted(self.source.path)}: row "
            raise_bad([f"{where}{quoted(self.source.id_of(position))}: {reason}" for position, reason in bad])


def _failing(attempt: Callable[[int], object], places: Sequence[int]) -> Iterator[tuple[int, str]]:
    for place in places:
        try:
            attempt(place)
        except BadItem as error:
            yield place, ROW.sub("", str(error))


def _count(prepared: Prepared, place: int | None) -> int:
    """Rows of an item; one that cannot be read has none."""
    if place is None:
        return 0
    return 1 if prepared.units is None else len(prepared.units[place])


def _tokens(prepared: Prepared, members: Sequence[int]) -> tuple[int, int] | None:
    """Unknown tokens of some items, and all tokens; None where nobody counts them."""
    if prepared.unknown is None:
        return None
    counts = [prepared.unknown[place] for place in members]
    return sum(unknown for unknown, _ in counts), sum(tokens for _, tokens in counts)


def _units(prepared: Prepared, places: Sequence[int | None]) -> list[list[str]] | None:
    if prepared.units is None:
        return None
    return [[] if place is None else list(prepared.units[place]) for place in places]


def _groups(counts: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Consecutive items with at most so many rows together, or a single one with more: first and the one behind the last."""
    start = rows = 0
    for place, count in enumerate(counts):
        if rows + count > most and place > start:
            yield start, place
            start, rows = place, 0
        rows += count
    if start < len(counts):
        yield start, len(counts)


def by_length(
    members: Sequence[int], lengths: npt.NDArray[np.int64], size: BatchSize, grouping: str = ANY
) -> Iterator[list[int]]:
    """Items in batches, the longest first, so that little is padded and a lack of memory shows at once.

    By `grouping` the items of a batch are any, equally long, or one.
    """
    places = np.asarray(members, dtype=np.int64)
    order = places[np.argsort(-lengths[places], kind="stable")].tolist()
    while order:
        count = 1 if grouping == ONE else size.value
        if grouping == ALIKE:
            count = min(count, int((lengths[order] == lengths[order[0]]).sum()))
        batch, order = order[:count], order[count:]
        yield batch


class Ahead(Generic[T]):
    """What an iterator yields, read in a thread of its own a few steps before it is asked for; a context manager.

    An error in the thread is raised where the next thing is asked for.
    """

    def __init__(self, items: Iterator[T], depth: int = AHEAD) -> None:
        self._items = items
        self._queue: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
        self._stop = Event()
        self._thread = Thread(target=self._work, name="reader", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._taken()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put((item, None)):
                    return
            self._put((None, None))
        except BaseException as error:
            self._put((None, error))

    def _put(self, entry: tuple[T | None, BaseException | None]) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(Full):
                self._queue.put(entry, timeout=STEP)
                return True
        return False

    def _taken(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
