"""Inputs as files: what cannot be read is refused in a line that names it."""

import contextlib
import errno
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted


def first_bytes(path: Path) -> bytes:
    """The first bytes of an input, by which its kind is known.

    Raises:
        InputError: it is missing, unreadable, or no regular file (opening a FIFO would wait for ever).
    """
    check_regular(path)
    with readable(path), path.open("rb") as stream:
        return stream.read(64)


def check_regular(path: Path) -> None:
    """Refuse an input that is missing or no regular file.

    Raises:
        InputError: it is.
    """
    with readable(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise InputError(f"{quoted(path)}: cannot be read: it is {kind}")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of the file system into errors that name the input."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {said(error)}") from error


def said(error: OSError) -> str:
    """What the system says; where a limit of this process is reached, which one, and what raises it."""
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this process may have {limit} files open, and has; raise the limit with ulimit -n {2 * limit}"
    return error.strerror or str(error)
