"""Arrays that lie in chunks, as zarr keeps them, in files of their own or several in one (a shard)."""

import itertools
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.store.codecs import CHECKSUM, UnpackError, unpack
from contrasim_cli.store.file_trees import Tree

PLACE = struct.Struct("<QQ")  # of a chunk in a shard: where it begins, and its bytes
NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
ABSENT = 2**64 - 1
TEXTS = 64 << 20  # bytes of the texts in a chunk

Values = npt.NDArray[Any]
Coordinates = tuple[int, ...]


@dataclass(frozen=True)
class Sharding:
    """How chunks lie in a shard: its shape, how the index is packed, and whether that is behind them."""

    shape: tuple[int, ...]
    codecs: list[Mapping[str, Any]]
    at_end: bool


@dataclass(frozen=True)
class Layout:
    """What the metadata of an array say.

    `stored` is the type of the values in a file, None for texts; `wide` if they are bfloat16. To become bytes, the axes of a chunk
    are put into `order`, and the bytes go through `codecs`. The files are named by `prefix` and their places.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    stored: np.dtype[Any] | None
    fill: Any
    order: tuple[int, ...]
    codecs: list[Mapping[str, Any]]
    prefix: str
    separator: str
    sharding: Sharding | None = None
    wide: bool = False

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk that is unpacked."""
        return math.prod(self.chunks) * self.stored.itemsize if self.stored is not None else TEXTS

    @property
    def outer(self) -> tuple[int, ...]:
        """The shape of what lies in one file."""
        return self.sharding.shape if self.sharding else self.chunks


@dataclass(eq=False)
class Chunked:
    """One array of a tree of files; it is sliced as NumPy's are, by a slice or a number per axis."""

    tree: Tree
    name: str
    layout: Layout

    def __post_init__(self) -> None:
        self._index: tuple[str, bytes] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.layout.shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of a chunk."""
        return self.layout.chunks

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values, objects for texts."""
        if self.layout.wide:
            return np.dtype(np.float32)
        return np.dtype(object) if self.layout.stored is None else self.layout.stored

    def __getitem__(self, index: Any) -> Values:
        """Some of the array."""
        keys = index if isinstance(index, tuple) else (index,)
        keys = (*keys, *(slice(None),) * (len(self.shape) - len(keys)))
        box = [
            range(*key.indices(length)) if isinstance(key, slice) else range(key, key + 1)
            for key, length in zip(keys, self.shape, strict=True)
        ]
        out = np.empty([len(axis) for axis in box], self.dtype)
        spans = [
            range(axis.start // size, -(-axis.stop // size)) if len(axis) else range(0)
            for axis, size in zip(box, self.chunks, strict=True)
        ]
        for place in itertools.product(*spans):
            ours, theirs = [], []
            for axis, number, size in zip(box, place, self.chunks, strict=True):
                first, last = max(axis.start, number * size), min(axis.stop, (number + 1) * size)
                ours.append(slice(first - axis.start, last - axis.start))
                theirs.append(slice(first - number * size, last - number * size))
            out[tuple(ours)] = self._chunk(place)[tuple(theirs)]
        return out[tuple(slice(None) if isinstance(key, slice) else 0 for key in keys)]

    def places(self) -> Iterator[Coordinates]:
        """The places of the files that are there."""
        for name in self.tree.below(self.layout.prefix):
            numbers = name.removeprefix(self.layout.prefix).split(self.layout.separator)
            if len(numbers) == len(self.shape) and all(map(NUMBER.fullmatch, numbers)):
                place = tuple(map(int, numbers))
                if all(n * size < length for n, size, length in zip(place, self.layout.outer, self.shape, strict=True)):
                    yield place

    def _key(self, place: Coordinates) -> str:
        return self.layout.prefix + self.layout.separator.join(map(str, place))

    def _chunk(self, place: Coordinates) -> Values:
        try:
            packed = self._shard_part(place) if self.layout.sharding else self._file(self._key(place))
            if packed is None:
                return np.full(self.chunks, self._fill(), self.dtype)
            return self._values(unpack(packed, self.layout.chunk_bytes, self.layout.codecs))
        except ContraSimError:
            raise
        except Exception as error:  # codecs raise whatever they trip over
            where = f"{quoted(self.tree.path)}: {quoted(self.name)}: chunk {place}"
            raise InputError(f"{where} cannot be read ({reason(error)}); the file is damaged") from error

    def _fill(self) -> Any:
        if self.layout.fill is None:
            raise UnpackError("it was never written, and nothing says what is in its place")
        return self.layout.fill

    def _file(self, name: str) -> bytes | None:
        if name not in self.tree:
            return None
        size, limit = self.tree.size(name), 2 * self.layout.chunk_bytes + (1 << 16)
        if size > limit:
            raise UnpackError(f"{size} bytes are more than a chunk of {self.layout.chunk_bytes} can be packed to")
        return self.tree.read(name, 0, size)

    def _shard_part(self, place: Coordinates) -> bytes | None:
        counts = [outer // inner for outer, inner in zip(self.layout.outer, self.chunks, strict=True)]
        name = self._key(tuple(number // count for number, count in zip(place, counts, strict=True)))
        if name not in self.tree:
            return None
        at = int(np.ravel_multi_index([n % count for n, count in zip(place, counts, strict=True)], counts))
        start, length = PLACE.unpack_from(self._shard_index(name, math.prod(counts)), at * PLACE.size)
        if start == length == ABSENT:
            return None
        if start + length > self.tree.size(name):
            raise UnpackError("its shard is cut short")
        if length > 2 * self.layout.chunk_bytes + (1 << 16):
            raise UnpackError(f"{length} bytes are more than a chunk of {self.layout.chunk_bytes} can be packed to")
        return self.tree.read(name, start, length)

    def _shard_index(self, name: str, count: int) -> bytes:
        if self._index is None or self._index[0] != name:
            sharding = self.layout.sharding
            assert sharding is not None
            size = count * PLACE.size + CHECKSUM.size * sum(config["id"] == "crc32c" for config in sharding.codecs)
            if size > self.tree.size(name):
                raise UnpackError("its shard is cut short")
            start = self.tree.size(name) - size if sharding.at_end else 0
            self._index = name, unpack(self.tree.read(name, start, size), size, sharding.codecs)
        return self._index[1]

    def _values(self, data: bytes) -> Values:
        if self.layout.stored is None:
            return np.array(_texts(data), object).reshape(self.chunks)
        order = self.layout.order
        values = np.frombuffer(data, self.layout.stored).reshape([self.chunks[axis] for axis in order])
        values = values.transpose(np.argsort(order))
        return (values.astype(np.uint32) << 16).view(np.float32) if self.layout.wide else values


def _texts(data: bytes) -> list[str]:
    """Texts of any length, as the codec vlen-utf8 writes them: their number, and each behind its length."""
    (count,), at, texts = struct.unpack_from("<I", data), 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4 + length
        if at > len(data):
            raise UnpackError("texts are cut short")
        texts.append(data[at - length : at].decode())
    return texts
