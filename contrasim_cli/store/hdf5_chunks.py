"""The chunks of an HDF5 dataset: whether all are there, where and as large as they can be, and fit into memory one by one."""

import math
from array import array
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from contrasim_cli import archives, signals
from contrasim_cli.errors import InputError

CHECKSUM_BYTES = 4  # of fletcher32, behind every chunk
LARGE_CHUNK = 64 << 20  # bytes, of which there is room anyhow


def check_chunks(where: str, dataset: h5py.Dataset, file_size: int, budget: int | None) -> bool:
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
