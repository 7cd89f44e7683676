"""Outputs that are whole or absent: temporary file in the same folder, fsync, rename."""

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from contrasim_cli import signals
from contrasim_cli.errors import OutputError, OutputExistsError
from contrasim_cli.input_files import said
from contrasim_cli.names import quoted


def check_output(path: Path, force: bool) -> None:
    """Refuse an output that exists or cannot be written, before any work is done for it.

    Raises:
        OutputExistsError: the file is there and `force` is not given.
        OutputError: the folder is missing or not writable, or the path is not a regular file.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise OutputError(f"{quoted(path)}: cannot be written: {error.strerror}") from error
    if mode is not None and not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise OutputError(f"{quoted(path)}: cannot be written: it is {kind}")
    if not target.parent.is_dir():
        raise OutputError(
            f"{quoted(path)}: cannot be written: there is no folder {quoted(target.parent)}; create it first"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{quoted(path)}: cannot be written: the folder {quoted(target.parent)} is not writable")
    if mode is not None and not force:
        raise OutputExistsError(f"{quoted(path)}: already exists; give --force to replace it")


@contextlib.contextmanager
def atomic_output(path: Path, force: bool) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes `path` when the block ends without an error.

    What replaces a file gets its owner, group and mode, as far as this process may give them, and nobody else reads it before.
    The temporary file is locked while it is in use, so that a later run can tell a leftover from work in progress.

    Raises:
        OutputExistsError, OutputError: as `check_output`, and where the file cannot be created or renamed.
    """
    check_output(path, force)
    target = Path(os.path.realpath(path))
    sweep(target)
    temporaries: list[tuple[Path, int]] = []
    try:
        with writing(path), signals.deferred():
            temporaries.append(_create_locked(target, 0o600 if target.exists() else 0o666))
        yield temporaries[0][0]
        with writing(path):
            _publish(*temporaries[0], target, force)
    finally:
        with signals.deferred():
            for temporary, descriptor in temporaries:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    temporary.unlink()


def _create_locked(target: Path, mode: int) -> tuple[Path, int]:
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with contextlib.suppress(OSError):  # a file system without locks: leftovers there are kept
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, descriptor
        os.close(descriptor)  # another process swept it before it was locked


def write_atomic(path: Path, content: bytes, force: bool) -> None:
    """Write a whole file, or nothing."""
    with atomic_output(path, force) as temporary, writing(path):
        temporary.write_bytes(content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the file system into errors that name the output."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{quoted(path)}: cannot be written: {said(error)}") from error


def _publish(temporary: Path, descriptor: int, target: Path, force: bool) -> None:
    sync(temporary)
    if force:
        _take_after(descriptor, target)
        os.replace(temporary, target)
    else:
        _rename_new(temporary, target)
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder; the output is whole
        sync(target.parent)


def _take_after(descriptor: int, target: Path) -> None:
    """Give a file the owner, group and mode of the one that it replaces; where its group is another, that gets what others do."""
    with contextlib.suppress(OSError):  # there is none, or a file system without owners
        old = target.stat()
        mode = old.st_mode & 0o777
        with contextlib.suppress(OSError):
            os.fchown(descriptor, -1, old.st_gid)
        with contextlib.suppress(OSError):
            os.fchown(descriptor, old.st_uid, -1)
        if os.fstat(descriptor).st_gid != old.st_gid:
            mode = mode & ~0o070 | (mode & 0o007) << 3
        os.fchmod(descriptor, mode)


def _rename_new(temporary: Path, target: Path) -> None:
    """Rename without replacing a file that another process put there meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise OutputExistsError(
            f"{quoted(target)}: another process wrote it meanwhile; give --force to replace it"
        ) from error
    except OSError:  # a file system without hard links
        os.replace(temporary, target)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file of ours that is not needed any more, and the temporary files of its writers that were killed."""
    with contextlib.suppress(OSError):
        path.unlink()
    sweep(path)


def sweep(path: Path) -> None:
    """Remove temporary files of this output that a killed process left behind."""
    target = Path(os.path.realpath(path))
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.tmp")
    leftovers: list[Path] = []
    with contextlib.suppress(OSError):  # a folder that may be written to, but not read
        leftovers = [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            descriptor = os.open(leftover, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(descriptor)
