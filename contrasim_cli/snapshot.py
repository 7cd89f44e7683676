"""One version of an input file, while other processes put another in its place (by rename) or write into it."""

import errno
import io
import os
import time
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.input_files import check_regular, readable
from contrasim_cli.names import quoted

ATTEMPTS = 20  # at reading a file that is replaced meanwhile
PAUSE = 0.01  # seconds before the second, and that much longer before each that follows

Result = TypeVar("Result")


def _no_op(result: object) -> None:
    pass


def one_version(
    path: Path, read: Callable[["Snapshot"], Result], discard: Callable[[Result], object] = _no_op
) -> Result:
    """What `read` makes of a file that is not written to meanwhile; it is read anew otherwise.

    Raises:
        InputError: `read` raised it, and the file did not change; or the file changes again and again.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(attempt * PAUSE)
        file = Snapshot(path)
        before = file.identity()
        try:
            result = read(file)
        except InputError:
            file.close()  # which the traceback keeps alive
            if identity_of(path) == before:
                raise
            continue
        if file.identity() == before:
            return result
        discard(result)
    raise InputError(f"{quoted(path)}: keeps being replaced while it is opened; wait until it has been written")


def identity_of(path: Path) -> tuple[int, ...]:
    """Differs once the path leads to other content."""
    with readable(path):
        status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Snapshot:
    """A file that is opened once: everything that is read through it is of one version, whatever gets its name later.

    It stays open as long as somebody holds it.

    Raises:
        InputError: it is missing, unreadable, or not a regular file.
    """

    def __init__(self, path: Path) -> None:
        check_regular(path)
        self.path = path
        with readable(path):
            self._descriptor = os.open(path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._descriptor)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return os.fstat(self._descriptor).st_size

    @property
    def name(self) -> Path:
        """A path for libraries that open files themselves; where the system has none of this version, the file's own."""
        descriptor_path = Path(f"/proc/self/fd/{self._descriptor}")
        return descriptor_path if descriptor_path.exists() else self.path

    def identity(self) -> tuple[int, ...]:
        """Differs once `name` leads to other content."""
        return identity_of(self.name)

    def start(self, size: int = 64) -> bytes:
        """The first bytes, by which its kind is known."""
        with readable(self.path):
            return self.reader().read(size)

    @cached_property
    def content(self) -> npt.NDArray[np.uint8]:
        """The whole file, mapped into memory."""
        return np.memmap(self.reader(), np.uint8, "r")

    def reader(self) -> IO[bytes]:
        """A stream of its content, at a place of its own."""
        return io.BufferedReader(_Reader(self, self._descriptor))


class _Reader(io.RawIOBase):
    """Reads at its own place of a descriptor that others read too."""

    def __init__(self, snapshot: Snapshot, descriptor: int) -> None:
        self._snapshot = snapshot  # which keeps the descriptor open
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether one can move in it: yes."""
        return True

    def fileno(self) -> int:
        """The descriptor, for mapping."""
        return self._descriptor

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position counted from the beginning, from here or from the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._snapshot.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill as much of the buffer as there is."""
        content = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
