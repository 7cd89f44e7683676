"""The arrays of an `.npz` archive: those that are not compressed are mapped, the others read when they are asked for."""

import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import archives
from contrasim_cli.snapshot import Snapshot

LOCAL_HEADER = 30  # bytes, and then the name and an extra field
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Member:
    """One array of an archive, known by its header."""

    file: Snapshot
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header: int

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed."""
        return self.info.compress_type != zipfile.ZIP_STORED

    def array(self, archive: zipfile.ZipFile) -> npt.NDArray[Any]:
        """The whole array: mapped, or unpacked into memory. Its checksum is verified."""
        if self.is_packed or 0 in self.shape:
            with archive.open(self.info) as stream:
                array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
                return array
        archives.verify(archive, self.info)
        start = self._offset() + self.header
        values = self.file.content[start : start + math.prod(self.shape) * self.dtype.itemsize].view(self.dtype)
        return values.reshape(self.shape, order="F" if self.fortran else "C")

    def rows(self) -> "PackedRows":
        """The rows one after the other, unpacked as they are read (not of an array in Fortran order)."""
        return PackedRows(self)

    def _offset(self) -> int:
        stream = self.file.reader()
        stream.seek(self.info.header_offset)
        local = stream.read(LOCAL_HEADER)
        name, extra = struct.unpack("<26xHH", local)
        return int(self.info.header_offset + LOCAL_HEADER + name + extra)


@dataclass(frozen=True)
class PackedRows:
    """The rows of a compressed array, for reading once and in order."""

    member: Member

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Every row, in order."""
        shape, dtype = self.member.shape[1:], self.member.dtype
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        with zipfile.ZipFile(self.member.file.reader()) as archive, archive.open(self.member.info) as stream:
            stream.read(self.member.header)
            for _ in range(self.member.shape[0]):
                yield np.frombuffer(_exactly(stream, size), dtype).reshape(shape)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the archive ends within an array")
    return content


def _check_claim(member: Member) -> None:
    """Refuse a shape that claims another number of values than there are, before room is made for them."""
    size, claimed = member.info.file_size - member.header, math.prod(member.shape) * member.dtype.itemsize
    if size != claimed:
        raise ValueError(f"{member.info.filename} claims {claimed} bytes in shape {member.shape}, and holds {size}")


def arrays(file: Snapshot, members: Mapping[str, Member]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of some members; the archive is opened once for all of them."""
    with zipfile.ZipFile(file.reader()) as archive:
        return {name: member.array(archive) for name, member in members.items()}


def members(file: Snapshot, objects: bool = False) -> dict[str, Member]:
    """The arrays of an archive by name, with `objects` also those of Python objects, which nothing here unpickles.

    Whatever zipfile, zlib and NumPy trip over is raised as it is.
    """
    entries: dict[str, Member] = {}
    with zipfile.ZipFile(file.reader()) as archive:
        archives.check_packed(file, archive)
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in entries:
                raise ValueError(f"two of its arrays are called {name}")
            with archive.open(info) as stream:
                shape, fortran, dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
                entries[name] = Member(file, info, shape, dtype, fortran, stream.tell())
            if not dtype.hasobject:
                _check_claim(entries[name])
            elif not objects:
                raise ValueError(f"{info.filename} holds Python objects")
    return entries
