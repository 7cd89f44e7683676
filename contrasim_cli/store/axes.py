"""What the axes of an array are, a word for each, and the matrices [rows, width] that come of it.

Axes that are `rows` are flattened in their order, the last one fastest, and so are those that are `width`; `pool` axes are
averaged, with a mask over what it keeps; each index of the axis `layers` is a matrix of its own. Nothing is read before rows are
asked for, a block at a time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted
from contrasim_cli.store.store import Array

WORDS = (LAYERS, ROWS, WIDTH, POOL) = ("layers", "rows", "width", "pool")
MATRIX = (ROWS, WIDTH)
BLOCK_BYTES = 16 << 20  # read at once where axes are averaged


def parse_axes(axes: str) -> tuple[str, ...]:
    """The words of `--axes`.

    Raises:
        UsageError: a word is none of the four, `layers` repeats, or `width` is missing.
    """
    words = tuple(word.strip() for word in axes.split(","))
    wrong = next((word for word in words if word not in WORDS), None)
    if wrong is not None:
        raise UsageError(
            f"--axes {quoted(axes)}: {quoted(wrong) or 'an empty word'} is not a word for an axis; write one per axis of the "
            "array: layers, rows, width or pool, as in rows,layers,width"
        )
    if words.count(LAYERS) > 1 or WIDTH not in words:
        problem = "layers are one axis at most" if WIDTH in words else "no axis is width"
        raise UsageError(f"--axes {quoted(axes)}: {problem}; rows, width and pool may repeat")
    return words


@dataclass(frozen=True)
class Arranged:
    """One layer of an array of any shape, as a matrix; `layer` is its index where `words` have an axis of layers.

    `mask` [rows…, pool…] is true for what means are taken over.
    """

    whole: Array
    words: tuple[str, ...]
    layer: int = 0
    mask: npt.NDArray[np.bool_] | None = field(default=None, compare=False)

    def sizes(self, word: str) -> tuple[int, ...]:
        """The lengths of the axes that are this."""
        return sizes(self.whole.shape, self.words, word)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        return math.prod(self.sizes(ROWS)), math.prod(self.sizes(WIDTH))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values: that of the array, or of means."""
        if POOL not in self.words:
            return self.whole.dtype
        return np.result_type(self.whole.dtype, np.float32 if self.whole.dtype.kind == "f" else np.float64)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Rows that are best read together."""
        chunks = getattr(self.whole, "chunks", None)
        along = sizes(chunks, self.words, ROWS) if chunks else ()
        if not along:
            return None
        inner = math.prod(self.sizes(ROWS)[1:])
        together = along[0] * inner * self.shape[1] * self.dtype.itemsize <= BLOCK_BYTES
        return (along[0] * inner if together else along[-1],)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Some rows [k, width]."""
        start, stop, _ = rows.indices(self.shape[0])
        step = stop - start
        if POOL in self.words:  # what is averaged is larger than what comes of it
            row_bytes = math.prod(self.sizes(POOL)) * self.shape[1] * 8
            step = max(1, BLOCK_BYTES // max(row_bytes, 1))
        parts = [
            self._matrix(box)
            for first in range(start, stop, max(step, 1))
            for box in boxes(self.sizes(ROWS), first, min(first + step, stop))
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self.dtype)

    def _matrix(self, box: Sequence[slice]) -> npt.NDArray[Any]:
        """The rows [k, width] within a box of the axes that are rows."""
        along = iter(box)
        key = tuple(
            next(along) if word == ROWS else self.layer if word == LAYERS else slice(None) for word in self.words
        )
        block = np.asarray(self.whole[key])
        left = [word for word in self.words if word != LAYERS]
        order = [axis for kind in (ROWS, WIDTH, POOL) for axis, word in enumerate(left) if word == kind]
        block = block.transpose(order)
        if POOL in left:
            pooled = tuple(range(len(left) - left.count(POOL), len(left)))
            means = block.mean(axis=pooled, dtype=np.float64, where=self._kept(box, left))
            block = means.astype(self.dtype)
        return block.reshape(-1, self.shape[1])

    def _kept(self, box: Sequence[slice], left: Sequence[str]) -> npt.NDArray[np.bool_] | bool:
        """What means are taken over, broadcastable to a block [rows…, width…, pool…]."""
        if self.mask is None:
            return True
        first = left.count(ROWS)
        return np.expand_dims(self.mask[tuple(box)], tuple(range(first, first + left.count(WIDTH))))


def sizes(shape: Sequence[int], words: Sequence[str], word: str) -> tuple[int, ...]:
    """The lengths of the axes that are this."""
    return tuple(int(size) for size, axis in zip(shape, words, strict=True) if axis == word)


def boxes(lengths: Sequence[int], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of an array of these lengths that hold, one after the other, its elements from `start` to before `stop`."""
    if not lengths or start >= stop:
        if start < stop:
            yield ()
        return
    inner = math.prod(lengths[1:])
    (first, skipped), (last, rest) = divmod(start, inner), divmod(stop, inner)
    if first == last:
        yield from _boxes_within(first, lengths, skipped, rest)
        return
    if skipped:
        yield from _boxes_within(first, lengths, skipped, inner)
        first += 1
    if first < last:
        yield (slice(first, last), *(slice(0, length) for length in lengths[1:]))
    yield from _boxes_within(last, lengths, 0, rest)


def _boxes_within(index: int, lengths: Sequence[int], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """The boxes at one index of the first axis."""
    for box in boxes(lengths[1:], start, stop):
        yield (slice(index, index + 1), *box)
