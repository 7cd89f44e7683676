"""Locks between processes: a file beside what is worked on, which the kernel lets go of however its holder ends."""

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from contrasim_cli import distributed
from contrasim_cli.errors import OutputError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import writing

ATTEMPTS = 100  # at a lock that another process removes at the same moment


class BusyError(OutputError):
    """Another process holds the lock."""


@contextlib.contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Keep other processes from writing an output at the same time; the lock lies beside it, hidden. Of several ranks one has it.

    Raises:
        BusyError: another process is at it.
        OutputError: no lock can be made there.
    """
    target = Path(os.path.realpath(output))
    path = target.with_name(f".{target.name}.lock")
    if not distributed.writes():
        distributed.tidy_after_first(functools.partial(_clear, path))
        yield
        return
    with writing(output):
        descriptor = take(path)
    if descriptor is None:
        raise BusyError(f"{quoted(output)}: another process is writing this output; wait until it has finished")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _clear(path: Path) -> None:
    """Remove the lock of a process that was killed, unless another one has taken it."""
    if path.exists() and (descriptor := take(path)) is not None:
        path.unlink()
        os.close(descriptor)


def take(path: Path) -> int | None:
    """A descriptor that holds the lock of a file, which is made if need be; None where another process holds it.

    Raises:
        OSError: the file cannot be made.
    """
    for _ in range(ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks
            pass
        if _is_there(descriptor, path):
            return descriptor
        os.close(descriptor)  # another process has just removed it, and a third may hold a new one
    raise OSError(errno.EBUSY, "its lock goes away again and again")


def _is_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
