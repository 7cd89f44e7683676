"""Trying in a child process what may crash, hang or take all memory: HDF5 and scipy do so on some damaged files."""

import contextlib
import json
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from contrasim_cli.errors import ContraSimError, InputError, raise_all
from contrasim_cli.files import quoted

log = logging.getLogger(__name__)

MEMORY = 256 << 20  # bytes for a small file, and as many more as four times a large one
SECONDS = 2  # of processor time for a small file, and one more for every 4 MB of a large one
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


def rehearse(path: Path, work: Callable[[], object], library: str = "HDF5", held: int = 0) -> None:
    """Do the work in a child process first; it is safe here if this returns.

    The child is a fork, so that it costs milliseconds, and has limits of memory and processor time that follow from the size of
    the file and from the bytes that are to be held of it. Errors other than of inputs are left to be met here.

    Raises:
        InputError: the child met one, or crashed, hung or needed more memory than the file can be in need of.
    """
    size = path.stat().st_size + held
    receiver, sender = os.pipe()
    try:
        pid = _fork()
    except OSError as error:  # no room for another process
        log.debug("%s is opened without a rehearsal: %s", quoted(path), error)
        os.close(sender)
        os.close(receiver)
        return
    if pid == 0:
        _child(path, work, size, sender)
    os.close(sender)
    try:
        with open(receiver, "rb") as stream:
            told = stream.read()
        status = _status(pid)
    except BaseException:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    _judge(path, status, told, library)


def _fork() -> int:
    with warnings.catch_warnings():  # of threads that the child does without
        warnings.simplefilter("ignore")
        return os.fork()


def _status(pid: int) -> int | None:
    """How the child ended; None where this process was started so that it is not told."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


def _judge(path: Path, status: int | None, told: bytes, library: str) -> None:
    if not told:  # a child that comes to its end tells something
        crashed = status is None or not os.WIFSIGNALED(status)
        cause = f"{library} crashes on it" if crashed else _cause(os.WTERMSIG(status or 0), library)
        raise InputError(f"{quoted(path)}: {cause}; the file is damaged, copy or extract it again")
    raise_all([InputError(line) for line in json.loads(told)])


def _cause(number: int, library: str) -> str:
    if number in CRASHES:
        return f"{library} crashes on it ({signal.Signals(number).name})"
    if number == signal.SIGXCPU:
        return f"{library} hangs on it"
    return f"the process that tried to open it was ended by signal {number}"


def _child(path: Path, work: Callable[[], object], size: int, sender: int) -> NoReturn:
    """Work within the limits; the lines of an error of inputs go to the parent."""
    problems: list[str] = []
    try:
        _limit(size)
        work()
    except MemoryError:
        problems = [f"{quoted(path)}: needs more memory than a file of its size can hold; the file is damaged"]
    except ContraSimError as error:
        problems = list(error.lines) if error.exit_code == InputError.exit_code else []
    except BaseException:  # met again by the parent
        problems = []
    with contextlib.suppress(OSError):
        os.write(sender, json.dumps(problems).encode())
    os._exit(0)


def _limit(size: int) -> None:
    """Of memory, processor time and core files; and nothing is said by the child."""
    logging.disable(logging.CRITICAL)
    if "faulthandler" in sys.modules:
        sys.modules["faulthandler"].disable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    seconds = SECONDS + size // (4 << 20)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, seconds)
    with contextlib.suppress(OSError, ValueError):  # where there is no /proc
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + max(MEMORY, 4 * size))


def _lower(what: int, limit: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
