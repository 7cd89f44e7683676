"""Limits of processor time and memory for the child process that tries a file; they grow with the file and what is found in it.

A damaged file can keep HDF5 busy for ever or make it take all memory; so it is with
scipy and pyarrow. A good one is as much work as there is in it: bytes, objects
(groups and datasets), ids. So the limits begin with the size of the file and grow with each object as it is met, but never by more
than a file of its size can have in it.
"""

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

from contrasim_cli.names import quoted

SECONDS = 2.0  # of processor time for an empty file
MEMORY = 256 << 20  # bytes for a small file, and four times the size of a large one
SECONDS_PER_BYTE = 1 / (4 << 20)  # of the file, and of what is read of it
OBJECT_SECONDS = 0.002  # several times what HDF5 and h5py take to open a dataset
OBJECT_MEMORY = 64 << 10  # and to hold it open
OBJECT_BYTES = 64  # of a file; no dataset takes less
MOST_PER_BYTE = 100  # bytes held or read, per byte of the file
LEAST = 64 << 20  # bytes that a library may take, however little is asked for

KINDS = {
    "HDF5": "opening an HDF5 file without a seal (HDF5 hangs on some damaged ones)",
    "scipy": "reading a MATLAB file before version 7.3 (small ones can claim gigabytes)",
    "pyarrow": "reading a Parquet or Arrow file (small ones can claim gigabytes)",
}

times = 1.0  # what --open-limit says


@dataclass(frozen=True)
class Start:
    """What a child begins with: bytes to be read, the most memory that it may ever take (None: any), and which library reads."""

    size: int
    most: int | None = None
    library: str = "HDF5"


@dataclass
class _Grown:
    """What the limits of this process have grown to."""

    start: Start
    memory_before: int
    objects: int = 0
    read: int = 0
    held: int = 0

    def apply(self) -> None:
        """Set the limits."""
        size = self.start.size
        read = min(self.read, MOST_PER_BYTE * size)
        seconds = SECONDS + SECONDS_PER_BYTE * (size + read) + OBJECT_SECONDS * self._objects
        _set(resource.RLIMIT_CPU, max(1, int(times * seconds)))
        if self.memory_before:
            most = max(LEAST, self.start.most or 0)
            _set(
                resource.RLIMIT_AS,
                self.memory_before + (min(most, self.memory) if self.start.most is not None else self.memory),
            )

    @property
    def memory(self) -> int:
        """Bytes for a file of this size, as far as it is known."""
        held = min(self.held, MOST_PER_BYTE * self.start.size)
        return int(times * (max(MEMORY, 4 * self.start.size) + held + OBJECT_MEMORY * self._objects))

    @property
    def _objects(self) -> int:
        return min(self.objects, self.start.size // OBJECT_BYTES)


_grown: _Grown | None = None


def begin(start: Start) -> None:
    """Limit this process, which is to try a file."""
    global _grown  # noqa: PLW0603  the limits are the process's too
    _set(resource.RLIMIT_CORE, 0)
    before = 0
    with contextlib.suppress(OSError, ValueError):  # where there is no /proc
        before = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    _grown = _Grown(start, before)
    _grown.apply()


def grow(objects: int = 0, read: int = 0, held: int = 0) -> None:
    """Let the limits grow, where there are any: by objects that were met, bytes that are read, bytes that are held."""
    if _grown is None:
        return
    _grown.objects += objects
    _grown.read += read
    _grown.held += held
    _grown.apply()


def reached(path: Path, what: str, library: str = "HDF5") -> str:
    """What a user reads when one is reached."""
    more = f"{10 * times:g}"
    return f"{quoted(path)}: needs more than {what}, the limit for {KINDS[library]}; if it is sound, give --open-limit {more}"


def memory_reached(path: Path) -> str:
    """What a user reads when this process, which tries a file, has reached its limit of memory."""
    start = _grown.start if _grown else Start(0)
    if _grown and start.most is not None and start.most < _grown.memory:
        return (
            f"{quoted(path)}: needs more memory than the {start.most / 1e9:.3g} GB that there are for it; give --memory"
        )
    return reached(path, "the memory that a file of its size is given", start.library)


def _set(what: int, limit: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
