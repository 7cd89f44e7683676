"""Trying in a child process what may crash, hang or take all memory: HDF5, scipy and pyarrow do so on some damaged files."""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from contrasim_cli import limits
from contrasim_cli.errors import ContraSimError, InputError, out_of_memory, raise_all
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot

log = logging.getLogger(__name__)

CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


_trusted = threading.local()


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """In this thread, do without: the files are those that were tried before."""
    _trusted.on = True
    try:
        yield
    finally:
        _trusted.on = False


def rehearse(
    file: Snapshot, work: Callable[[], object], library: str = "HDF5", held: int = 0, most: int | None = None
) -> None:
    """Do the work in a child process first; it is safe here if this returns.

    The child is a fork, so that it costs milliseconds, and has limits of memory and processor time (see `limits`), which begin with
    the size of the file and the bytes that are to be held of it; its memory never grows above `most` bytes. Errors other than of
    inputs are left to be met here.

    Raises:
        InputError: the child met one, or crashed, or reached a limit; or the file has been changed meanwhile.
    """
    if getattr(_trusted, "on", False):
        return
    with readable(file.path):
        before = file.identity()
    _in_child(file.path, work, library, limits.Start(file.size + held, most, library))
    with readable(file.path):
        if file.identity() != before:  # what was tried is not what would be read
            raise InputError(f"{quoted(file.path)}: is being written; wait until it has been written")


def _in_child(path: Path, work: Callable[[], object], library: str, start: limits.Start) -> None:
    receiver, sender = os.pipe()
    try:
        pid = _fork()
    except OSError as error:  # no room for another process
        log.debug("%s is opened without a rehearsal: %s", quoted(path), error)
        os.close(sender)
        os.close(receiver)
        return
    if pid == 0:
        _child(path, work, start, sender)
    os.close(sender)
    try:
        with open(receiver, "rb") as stream:
            message = stream.read()
        status, seconds = _end(pid)
    except BaseException:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    _judge(path, status, seconds, message, library)


def _fork() -> int:
    with warnings.catch_warnings():  # of threads that the child does without
        warnings.simplefilter("ignore")
        return os.fork()


def _end(pid: int) -> tuple[int | None, float]:
    """How the child ended, and the processor time it took; None and 0 where this process was started so that it is not told."""
    try:
        _, status, used = os.wait4(pid, 0)
    except ChildProcessError:
        return None, 0
    return status, used.ru_utime + used.ru_stime


def _judge(path: Path, status: int | None, seconds: float, message: bytes, library: str) -> None:
    if message:  # as by every child that comes to its end
        raise_all([InputError(line) for line in json.loads(message)])
        return
    number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
    if number == signal.SIGXCPU:
        raise InputError(limits.reached(path, f"{seconds:.0f} s of processor time", library))
    if number is None or number in CRASHES:
        name = f" ({signal.Signals(number).name})" if number else ""
        raise InputError(
            f"{quoted(path)}: {library} crashes on it{name}; the file is damaged, copy or extract it again"
        )
    raise InputError(
        f"{quoted(path)}: the process that tried to open it was ended by signal {number}, as where memory runs out; try again"
    )


def _child(path: Path, work: Callable[[], object], start: limits.Start, sender: int) -> NoReturn:
    """Work within the limits; the lines of an error of inputs go to the parent."""
    problems: list[str] = []
    try:
        _prepare()
        limits.begin(start)
        work()
    except BaseException as error:  # others than of inputs are met again by the parent
        problems = _error_lines(path, error)
    with contextlib.suppress(OSError):
        os.write(sender, json.dumps(problems).encode())
    os._exit(0)


def _error_lines(path: Path, error: BaseException) -> list[str]:
    if out_of_memory(error):
        return [limits.memory_reached(path)]
    if isinstance(error, ContraSimError) and error.exit_code == InputError.exit_code:
        return list(error.lines)
    return []


def _prepare() -> None:
    """Die of signals, and say nothing."""
    logging.disable(logging.CRITICAL)
    if "faulthandler" in sys.modules:
        sys.modules["faulthandler"].disable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
