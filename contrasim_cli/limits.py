"""Limits of processor time and memory for the child process that tries a file; they grow with the file and what is found in it.

A damaged file can keep HDF5 busy for ever or make it take all memory. A good one is as much work as there is in it: bytes, objects
(groups and datasets), ids. So the limits begin with the size of the file and grow with each object as it is met, but never by more
than a file of its size can have in it.
"""

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

from contrasim_cli.files import quoted

SECONDS = 2.0  # of processor time for an empty file
MEMORY = 256 << 20  # bytes for a small file, and four times the size of a large one
SECONDS_PER_BYTE = 1 / (4 << 20)  # of the file, and of what is read of it
OBJECT_SECONDS = 0.002  # several times what HDF5 and h5py take to open a dataset
OBJECT_MEMORY = 64 << 10  # and to hold it open
OBJECT_BYTES = 64  # of a file; no dataset takes less
MOST_PACKED = 100  # bytes held or read per byte of the file

times = 1.0  # what --open-limit says


@dataclass
class _Grown:
    """What the limits of this process have grown to."""

    size: int
    memory_before: int
    objects: int = 0
    read: int = 0
    held: int = 0

    def apply(self) -> None:
        """Set them."""
        objects = min(self.objects, self.size // OBJECT_BYTES)
        read = min(self.read, MOST_PACKED * self.size)
        held = min(self.held, MOST_PACKED * self.size)
        seconds = SECONDS + SECONDS_PER_BYTE * (self.size + read) + OBJECT_SECONDS * objects
        memory = max(MEMORY, 4 * self.size) + held + OBJECT_MEMORY * objects
        _set(resource.RLIMIT_CPU, max(1, int(times * seconds)))
        if self.memory_before:
            _set(resource.RLIMIT_AS, self.memory_before + int(times * memory))


_grown: _Grown | None = None


def begin(size: int) -> None:
    """Limit this process, which is to try a file of that many bytes."""
    global _grown  # noqa: PLW0603  the limits are the process's too
    _set(resource.RLIMIT_CORE, 0)
    before = 0
    with contextlib.suppress(OSError, ValueError):  # where there is no /proc
        before = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    _grown = _Grown(size, before)
    _grown.apply()


def grow(objects: int = 0, read: int = 0, held: int = 0) -> None:
    """Let the limits grow, where there are any: by objects that were met, bytes that are read, bytes that are held."""
    if _grown is None:
        return
    _grown.objects += objects
    _grown.read += read
    _grown.held += held
    _grown.apply()


def reached(path: Path, what: str) -> str:
    """What a user reads when one is reached."""
    return (
        f"{quoted(path)}: needs more than {what}, the limit for opening an HDF5 file without a seal (HDF5 hangs on some damaged "
        f"ones); if it is sound, give --open-limit {10 * times:g}"
    )


def _set(what: int, limit: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
