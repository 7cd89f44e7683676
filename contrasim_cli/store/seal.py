"""The seal of a store: a digest of all that HDF5 has no checksum for, behind the end of the HDF5 file.

Damaged metadata can crash HDF5 or keep it busy for ever, so that they are checked before HDF5 reads a byte of them. The seal is
    extents   [n, 2] little-endian uint64: where the rows lie, position and bytes; these have checksums of their own
    footer    MAGIC, then the end of the HDF5 file and n as uint64, then SHA-256 of the rest of the file and of the extents
HDF5 ignores what is behind its end, and cuts it off when somebody opens the file to change it.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

MAGIC = b"contrasim-seal1\n"
FOOTER = struct.Struct("<16sQQ32s")
SUPERBLOCK = struct.Struct("<8xB31xQ")  # its version, and where the file ends
BLOCK = 1 << 20

Extents = npt.NDArray[np.uint64]


def append(path: Path, rows: Iterable[tuple[int, int]]) -> None:
    """Seal a closed HDF5 file whose rows lie at these (position, bytes)."""
    extents = _runs(rows)
    with path.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        digest = _digest(stream, end, extents)
        stream.seek(end)
        stream.write(extents.astype("<u8").tobytes() + FOOTER.pack(MAGIC, end, len(extents), digest))


def holds(path: Path) -> bool | None:
    """Whether the file is as it was sealed; None where it has no seal."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size < FOOTER.size:
            return None
        stream.seek(size - FOOTER.size)
        magic, end, count, digest = FOOTER.unpack(stream.read(FOOTER.size))
        if magic != MAGIC:
            return None
        if end + 16 * count + FOOTER.size != size:
            return False
        stream.seek(end)
        extents = np.frombuffer(stream.read(16 * count), "<u8").astype(np.uint64).reshape(-1, 2)
        return _in_order(extents, end) and _digest(stream, end, extents) == digest


def is_cut(path: Path) -> bool:
    """Whether something is behind the end of an HDF5 file of the earliest layout that is no seal, such as half of one."""
    with path.open("rb") as stream:
        start = stream.read(SUPERBLOCK.size)
        size = stream.seek(0, os.SEEK_END)
    version, end = SUPERBLOCK.unpack(start) if len(start) == SUPERBLOCK.size else (None, 0)
    return version == 0 and size > end and holds(path) is None


def _runs(rows: Iterable[tuple[int, int]]) -> Extents:
    merged: list[tuple[int, int]] = []
    for start, size in sorted(rows):
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((start, size))
    return np.array(merged, np.uint64).reshape(-1, 2)


def _in_order(extents: Extents, end: int) -> bool:
    """Whether each extent begins behind the one before, and the last ends within the file."""
    place = 0
    for start, size in extents.tolist():
        if start < place:
            return False
        place = start + size
    return place <= end


def _digest(stream: IO[bytes], end: int, extents: Extents) -> bytes:
    digest = hashlib.sha256(extents.astype("<u8").tobytes())
    for start, stop in _gaps(extents, end):
        stream.seek(start)
        for at in range(start, stop, BLOCK):
            digest.update(stream.read(min(BLOCK, stop - at)))
    return digest.digest()


def _gaps(extents: Extents, end: int) -> Iterator[tuple[int, int]]:
    """Where everything but the rows lies."""
    place = 0
    for start, size in extents.tolist():
        yield place, start
        place = start + size
    yield place, end
