"""A store, whatever file it came from: named layers over the same rows, and the rows' ids."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.store.zeros import ZeroRows

IDS_PER_BLOCK = 65_536
IdHashes = npt.NDArray[np.void]


class Array(Protocol):
    """What a layer's rows are read from: an HDF5 dataset, a memory map, an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: Any) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Layer:
    """One matrix [n_rows, width] of a store; rows are best read in multiples of `chunk_rows`.

    Rows of a layer that was measured `repeats` times hold its measurements side by side.
    """

    name: str
    array: Array
    chunk_rows: int = 1
    repeats: int = 1

    @property
    def n_rows(self) -> int:
        """The number of examples."""
        return int(self.array.shape[0])

    @property
    def width(self) -> int:
        """The number of neurons."""
        return int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type the values are stored in."""
        return self.array.dtype

    @property
    def read_dtype(self) -> np.dtype[Any]:
        """The type the values are read as: float64 where float32 would lose digits, else float32."""
        exact = self.dtype.kind == "f" and self.dtype.itemsize <= 4
        small = self.dtype.kind in "biu" and self.dtype.itemsize <= 2
        return np.dtype(np.float32 if exact or small else np.float64)


@dataclass(frozen=True)
class Promised:
    """What is known of a layer's rows before a view computes them."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        raise TypeError("rows that are computed are read through their view")


@dataclass(frozen=True)
class KnownIds:
    """What all ids of a store are together: one digest of them in order, and the first rows of one id, if there are such."""

    digest: str
    repeated: tuple[int, int] | None = None


@dataclass(frozen=True)
class Ids:
    """The rows' names, read block by block.

    `automatic` ids were made from positions in the source whose digest is `source`. `known` is what a store's index says of
    them, so that nobody needs to read them for it.
    """

    count: int
    read: Callable[[int, int], list[str]]
    automatic: bool = False
    source: str | None = None
    known: "KnownIds | None" = None

    def blocks(self) -> Iterator[list[str]]:
        """All ids, in order, in blocks."""
        for start in range(0, self.count, IDS_PER_BLOCK):
            yield self.read(start, min(start + IDS_PER_BLOCK, self.count))

    def hash_blocks(self) -> Iterator[IdHashes]:
        """The hashes of all ids, in order, in blocks."""
        if self.known is None:
            yield self.hashes
        else:
            yield from map(id_hashes, self.blocks())

    def hashes_at(self, rows: npt.NDArray[np.int64]) -> IdHashes:
        """[rows] the hashes of the ids of these rows."""
        if self.known is None:
            return self.hashes[rows]
        out, order = np.empty(len(rows), dtype="V16"), np.argsort(rows, kind="stable")
        cuts = np.flatnonzero(np.diff(rows[order] // IDS_PER_BLOCK)) + 1
        for run in np.split(order, cuts) if len(order) else ():
            first, last = int(rows[run[0]]), int(rows[run[-1]])
            out[run] = id_hashes(self.read(first, last + 1))[rows[run] - first]
        return out

    @cached_property
    def _scan(self) -> tuple[IdHashes, str]:
        hashes = np.empty(self.count, dtype="V16")
        everything = hashlib.sha256()
        done = 0
        for block in self.blocks():
            block_hashes = id_hashes(block)
            hashes[done : done + len(block)] = block_hashes
            everything.update(block_hashes.tobytes())
            done += len(block)
        return hashes, everything.hexdigest()

    @property
    def hashes(self) -> IdHashes:
        """[count] 16-byte hashes, by which ids are compared: a million of them take 16 MB."""
        return self._scan[0]

    @property
    def digest(self) -> str:
        """One digest of all ids in order."""
        return self._scan[1] if self.known is None else self.known.digest

    @cached_property
    def repeated(self) -> tuple[int, int] | None:
        """The rows of the first id that occurs twice, or None."""
        return first_duplicate(self.hashes) if self.known is None else self.known.repeated


@dataclass(frozen=True)
class Store:
    """One model run over one data set: layers by name in their order, and what is known about them.

    `files` are those that are read, where it is not the one at `path`. `facts` say how somebody else's file was read; `rows` is
    the number of rows where not all of its layers agree.
    """

    path: Path
    kind: str
    layers: Mapping[str, Layer]
    ids: Ids | None = None
    attrs: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None
    files: Sequence[Path] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    close: Callable[[], None] = lambda: None

    @property
    def n_rows(self) -> int:
        """Rows of every layer that was asked for; in a file of somebody else's others may have other rows."""
        return next(iter(self.layers.values())).n_rows if self.rows is None else self.rows

    @cached_property
    def zero_rows(self) -> ZeroRows | None:
        """Which rows that were read are all zero; None in a store of our own, whose writer has seen all of them."""
        return ZeroRows(self.n_rows) if self.digest is None else None

    @property
    def stem(self) -> str:
        """The file name without its suffix."""
        return self.path.stem

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return self.layers[name]

    def read(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [stop - start, width] as stored; a block that fails its checksum is an InputError."""
        array = self.layers[name].array
        try:
            block = np.asarray(array[slice(start, stop)])
        except (ContraSimError, MemoryError):
            raise
        except Exception as error:  # of whatever reads somebody else's file
            raise InputError(
                f"{quoted(self.path)}: layer {quoted(name)}: rows {start} to {stop - 1} cannot be read "
                f"({reason(error)}); the file is damaged, copy or extract it again"
            ) from error
        if self.zero_rows is not None:
            self.zero_rows.look(start, block)
        return block


def id_hashes(names: Sequence[str]) -> IdHashes:
    """[ids] the hashes by which ids are compared."""
    digests = {
        name: hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest() for name in set(names)
    }
    return np.frombuffer(b"".join(digests[name] for name in names), dtype="V16")


def first_duplicate(hashes: IdHashes) -> tuple[int, int] | None:
    """The positions of the first id that occurs twice, or None."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    if not same.any():
        return None
    seconds = order[1:][same]
    at = int(np.argmin(seconds))
    return int(order[:-1][same][at]), int(seconds[at])
