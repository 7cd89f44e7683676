"""Opening HDF5 files of unknown origin: locks, links that leave the file, data that is not there."""

import io
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from contrasim_cli import archives, limits, signals
from contrasim_cli.errors import InputError, reason
from contrasim_cli.files import quoted
from contrasim_cli.snapshot import Snapshot

MAX_DEPTH = 16
TEXT_BYTES = 24  # that a string counts for at least: each is made, and many are kept somewhere else
CHECKSUM_BYTES = 4  # of fletcher32, behind every chunk
LARGE_CHUNK = 64 << 20  # bytes, of which there is room anyhow


def open_file(file: Snapshot) -> h5py.File:
    """Open for reading, without locks where the file system has none.

    Raises:
        InputError: the file is no readable HDF5, or another process is writing it.
    """
    path = file.path
    try:
        return h5py.File(file.name, "r")
    except BlockingIOError as error:
        raise InputError(f"{quoted(path)}: another process is writing it; wait until it has finished") from error
    except OSError as first:
        if "lock" in str(first):
            try:
                return h5py.File(file.name, "r", locking=False)
            except OSError as second:
                raise _damaged(path, second) from second
        raise _damaged(path, first) from first
    except (RuntimeError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{quoted(path)}: cannot be read as HDF5 ({reason(error)}); the file is cut short or damaged")


class Sink(io.RawIOBase):
    """A file for HDF5 to write to, in which no write ever fails: the first error is kept in `error` for us to raise.

    HDF5 itself crashes the interpreter when it cannot write what is left to write on closing a file. Nor may a signal raise
    anything here: whoever makes HDF5 write defers them.
    """

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR)
        self._position = self._end = 0

    def check(self) -> None:
        """Raise the first error."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position counted from the beginning or the end."""
        self._position = offset + (self._end if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; what an error kept from being written reads as zero."""
        content = os.pread(self._descriptor, len(buffer), self._position)
        buffer[:] = content + bytes(len(buffer) - len(content))
        return len(buffer)

    def write(self, content: Any) -> int:
        """Write all of it, or keep the error."""
        left = memoryview(content)
        size, at = left.nbytes, self._position
        try:
            while left:
                written = os.pwrite(self._descriptor, left, at)
                left, at = left[written:], at + written
        except OSError as error:
            self.error = self.error or error
        self._position += size
        self._end = max(self._end, self._position)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        self._end = self._position if size is None else size
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            self.error = self.error or error
        return self._end

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def datasets(path: Path, file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset of a file with its name; a link that leaves the file is refused.

    Raises:
        InputError: an external or soft link, groups nested too deep, or a group in two places, which could be 10^16 places.
    """
    yield from _below(path, file, "", {})


def _below(path: Path, group: h5py.Group, prefix: str, seen: dict[int, str]) -> Iterator[tuple[str, h5py.Dataset]]:
    if prefix.count("/") > MAX_DEPTH:
        raise InputError(f"{quoted(path)}: groups are nested deeper than {MAX_DEPTH}")
    address = int(h5py.h5o.get_info(group.id).addr)
    if address in seen:
        raise InputError(
            f"{quoted(path)}: {quoted(prefix)} is the same group as {quoted(seen[address])}; keep one of them"
        )
    seen[address] = prefix or "/"
    for key in group:
        limits.grow(objects=1)
        name = f"{prefix}{key}"
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
            raise InputError(f"{quoted(path)}: {quoted(name)} is {kind} link; only data inside the file is read")
        member = group[key]
        if isinstance(member, h5py.Group):
            yield from _below(path, member, f"{name}/", seen)
        elif isinstance(member, h5py.Dataset):
            yield name, member


def check_dataset(path: Path, name: str, dataset: h5py.Dataset, budget: int | None = None) -> None:
    """Refuse a dataset whose values are elsewhere or nowhere, or of which a single chunk does not fit into memory.

    Raises:
        InputError: a virtual or external dataset, one with values that were never written, or one with chunks larger than
            `budget` (None: than half of what is free).
    """
    where = f"{quoted(path)}: {quoted(name)}"
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{where} takes its values from other files; only data inside the file is read")
    if not dataset.size:
        return
    if dataset.chunks is None:
        stored, needed = int(dataset.id.get_storage_size()), int(dataset.size) * int(dataset.id.get_type().get_size())
        whole = stored >= needed
    else:
        whole = _check_chunks(where, dataset, dataset.file.id.get_filesize(), budget)
    if not whole:
        raise InputError(f"{where}: shape {dataset.shape} is claimed, but not all of its values were ever written")


def _check_chunks(where: str, dataset: h5py.Dataset, file_size: int, budget: int | None) -> bool:
    """Whether every chunk is there, which HDF5 would invent otherwise; their index must be sound.

    Raises:
        InputError: the index names places or sizes that cannot be, or a chunk is too large to be unpacked.
    """
    survey = _Survey(dataset, file_size)
    if dataset.id.get_num_chunks() < survey.expected:
        return False
    each_chunk(dataset, survey.add)
    if not survey.is_sound:
        raise InputError(f"{where}: the index of its chunks is damaged; copy or extract the file again")
    if survey.unpacked > LARGE_CHUNK:
        _check_room(where, survey.unpacked, budget)
    return True


def _check_room(where: str, size: int, budget: int | None) -> None:
    from contrasim_cli.memory import memory_budget

    limit = memory_budget(budget)
    if size > limit:
        raise InputError(
            f"{where}: a single chunk takes {size} bytes of memory once it is unpacked, and there are {limit} for it; "
            "give --memory, or write it in smaller chunks"
        )


class _Survey:
    """What the index of a dataset's chunks says, each chunk looked at once."""

    def __init__(self, dataset: h5py.Dataset, file_size: int) -> None:
        self._chunk, self._file_size = dataset.chunks, file_size
        self._grid = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
        self.expected = math.prod(self._grid)
        self.unpacked = math.prod(dataset.chunks) * int(dataset.id.get_type().get_size())
        plain = dataset.compression is None and dataset.fletcher32 and not dataset.scaleoffset
        self._exact = self.unpacked + CHECKSUM_BYTES if plain else None
        self._least = self.unpacked // archives.MOST_PACKED if _by_deflate(dataset) else 0
        self._places = array("q")
        self._in_place = True

    def add(self, chunk: Any) -> None:
        """Look at one: `chunk_offset`, `filter_mask`, `byte_offset` and `size`."""
        place = 0
        for start, length, count in zip(chunk.chunk_offset, self._chunk, self._grid, strict=True):
            number, rest = divmod(start, length)
            self._in_place &= 0 <= number < count and not rest
            place = place * count + min(number, count)
        # filters make no chunk twice as large
        size_fits = (
            chunk.size <= 2 * self.unpacked + CHECKSUM_BYTES if self._exact is None else chunk.size == self._exact
        )
        unfiltered = self._exact is not None and chunk.filter_mask  # its checksum would not be looked at
        self._in_place &= size_fits and not unfiltered and chunk.size >= self._least
        self._in_place &= 0 <= chunk.byte_offset <= self._file_size - chunk.size
        self._places.append(place)

    @property
    def is_sound(self) -> bool:
        """Whether every chunk has a place of its own, in the dataset and in the file, and the size it must have."""
        return self._in_place and len(np.unique(np.frombuffer(self._places, np.int64))) == self.expected


def _by_deflate(dataset: h5py.Dataset) -> bool:
    """Whether nothing but deflate makes chunks smaller, so that there is a bound to it."""
    filters = dataset.id.get_create_plist()
    codes = {filters.get_filter(k)[0] for k in range(filters.get_nfilters())}
    return codes <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def each_chunk(dataset: h5py.Dataset, look: Callable[[Any], None]) -> None:
    """Look at each chunk: its `chunk_offset`, `filter_mask`, `byte_offset` and `size`."""
    with signals.deferred():
        if hasattr(dataset.id, "chunk_iter"):  # walks through the index once, instead of once per chunk
            dataset.id.chunk_iter(look)
        else:
            for number in range(dataset.id.get_num_chunks()):
                look(dataset.id.get_chunk_info(number))


def text_attrs(path: Path, holder: Any) -> dict[str, str]:
    """The attributes that are text, as text."""
    try:
        raw = {name: holder.attrs[name] for name in holder.attrs}
    except (OSError, RuntimeError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    return {
        name: value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else value.encode("utf-8", "replace").decode()
        for name, value in raw.items()
        if isinstance(value, (str, bytes))
    }


def keeps_order(file: h5py.File, names: Iterable[str]) -> bool:
    """Whether every group above these datasets that has several members keeps the order in which they were written."""
    above = {"/", *(name[:at] for name in names for at, character in enumerate(name) if character == "/")}
    groups = [file[name] for name in above]
    flags = [group.id.get_create_plist().get_link_creation_order() for group in groups if len(group) > 1]
    return all(flag & h5py.h5p.CRT_ORDER_TRACKED for flag in flags)


def is_text(dataset: h5py.Dataset) -> bool:
    """Whether the values are strings."""
    return h5py.check_string_dtype(dataset.dtype) is not None


def read_text(path: Path, dataset: h5py.Dataset, start: int, stop: int) -> list[str]:
    """Strings [stop - start] of a one-dimensional dataset."""
    limits.grow(read=_bytes_to_read(dataset, start, stop))
    try:
        values = dataset[start:stop]
        return [
            value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in np.asarray(values).tolist()
        ]
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{quoted(path)}: the ids of rows {start} to {stop - 1} cannot be read; the file is damaged"
        ) from error


def _bytes_to_read(dataset: h5py.Dataset, start: int, stop: int) -> int:
    """Bytes unpacked for some values of a one-dimensional dataset of text: those of whole chunks."""
    chunk = dataset.chunks[0] if dataset.chunks else 1
    return (stop - start + 2 * chunk) * max(TEXT_BYTES, int(dataset.id.get_type().get_size()))
