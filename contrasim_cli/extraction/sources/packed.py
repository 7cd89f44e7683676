"""Lines of files packed by gzip or Zstandard, unpacked as they are read.

A few kilobytes may unpack to gigabytes: what is held at once is a line, and a line that is too long is refused.
"""

import gzip
import importlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contrasim_cli.errors import InputError, MissingError, reason
from contrasim_cli.names import quoted

PACKED = {".gz", ".zst"}
MOST_LINE = 64 << 20  # bytes
STEP = 1 << 10  # bytes unpacked at once, of which Zstandard can make 32 MB


def is_packed(path: Path) -> bool:
    """Whether a file is packed, by its name."""
    return path.suffix.lower() in PACKED


def packed_lines(path: Path) -> Iterator[bytes]:
    """The lines of a packed file.

    Raises:
        InputError: it cannot be read, is damaged or cut short, or a line unpacks to more than 64 MiB.
        MissingError: it takes a library that is not there.
    """
    try:
        with _unpacked(path) as stream:
            number = 0
            while line := stream.readline(MOST_LINE + 1):
                number += 1
                if len(line) > MOST_LINE:
                    raise InputError(
                        f"{quoted(path)}: line {number} unpacks to more than {MOST_LINE >> 20} MiB, as in a file that is made to "
                        "fill memory; unpack it if it is sound"
                    )
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{quoted(path)}: cannot be unpacked ({reason(error)}); the file is damaged") from error


def _unpacked(path: Path) -> io.BufferedIOBase:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    return io.BufferedReader(Unzstd(path, *_zstandard(path)))


def _zstandard(path: Path) -> tuple[Callable[[], Any], type[Exception]]:
    """What makes an object that unpacks one frame, and what it raises: of Python 3.14 and later, or of the package zstandard."""
    try:
        zstd = importlib.import_module("compression.zstd")
        return zstd.ZstdDecompressor, zstd.ZstdError
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError as error:
        raise MissingError(f"{quoted(path)}: reading .zst needs the extra zst: pip install 'contrasim[zst]'") from error
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError


class Unzstd(io.RawIOBase):
    """What the frames of a Zstandard file hold, read in small steps; a library's own reader may not say that the end is missing.

    Raises:
        EOFError: the last frame is not complete.
        OSError: the file is damaged.
    """

    def __init__(self, path: Path, frame: Callable[[], Any], damaged: type[Exception]) -> None:
        self._file = path.open("rb")
        self._new_frame, self._damaged = frame, damaged
        self._frame: Any = None
        self._packed = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill as much of the buffer as the next step gives."""
        while not self._unpacked:
            self._packed = self._packed or self._file.read(STEP)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it is cut short")
                return 0
            self._unpacked = memoryview(self._step())
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _step(self) -> bytes:
        if self._frame is None:
            self._frame = self._new_frame()
        try:
            found: bytes = self._frame.decompress(self._packed)
        except self._damaged as error:
            raise OSError(reason(error)) from error
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
        return found
