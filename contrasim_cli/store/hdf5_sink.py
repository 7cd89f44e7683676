"""The file that HDF5 writes a store to, which never lets it fail."""

import io
import os
from pathlib import Path
from typing import Any


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
