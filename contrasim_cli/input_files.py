"""Inputs as files: what cannot be read is refused in a line that names it."""

import contextlib
import difflib
import errno
import os
import resource
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted

LISTED = 10_000  # names of a folder that are looked through for one like a missing file's


def first_bytes(path: Path) -> bytes:
    """The first bytes of an input, by which its kind is known.

    Raises:
        InputError: it is missing, unreadable, or not a regular file (opening a FIFO would wait for ever).
    """
    check_regular(path)
    with readable(path), path.open("rb") as stream:
        return stream.read(64)


def check_regular(path: Path) -> None:
    """Refuse an input that is missing or not a regular file.

    Raises:
        InputError: it is.
    """
    with readable(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"{quoted(path)}: cannot be read: it is {kind}")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of the file system into errors that name the input."""
    try:
        yield
    except OSError as error:
        hint = did_you_mean(path) if error.errno == errno.ENOENT else ""
        raise InputError(f"{quoted(path)}: cannot be read: {said(error)}{hint}") from error


def did_you_mean(path: Path) -> str:
    """The files beside a missing one whose names are like its name, as the end of a message; empty where there are none."""
    try:
        with os.scandir(path.parent) as entries:
            found = {entry.name for entry in islice(entries, LISTED)}
    except OSError:
        return ""
    partial = f"{path.name}.partial"
    if partial in found:
        return f"; {quoted(path.with_name(partial))} is that of a run that has not ended"
    names = sorted(name for name in found if name != path.name and not name.startswith("."))
    same_stem = [name for name in names if Path(name).stem == path.stem]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.65)
    likely = list(dict.fromkeys([*close, *same_stem]))[:3]
    return f"; did you mean {' or '.join(quoted(path.with_name(name)) for name in likely)}?" if likely else ""


def said(error: OSError) -> str:
    """What the system says; where a limit of this process is reached, which one, and what raises it."""
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this process may have {limit} files open, and has; raise the limit with ulimit -n {2 * limit}"
    return error.strerror or str(error)
