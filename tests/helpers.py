"""Running the command line inside the test process: the same entry point, without the seconds of a new interpreter."""

import contextlib
import io
import logging
import signal
import sys
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

from contrasim_cli import limits
from contrasim_cli.cli import main


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def run(*args: object) -> Result:
    """Run `contrasim args`; exit code, stdout and stderr come back."""
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", ["contrasim", *map(str, args)])
    try:
        with argv, _settings_kept(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        return Result(int(stop.code or 0), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    """Undo what a run sets for its whole process."""
    handler = signal.getsignal(signal.SIGTERM)
    logger = logging.getLogger("contrasim_cli")
    before = logger.handlers[:], logger.level, logger.propagate
    times = limits.times
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        logger.handlers[:], logger.level, logger.propagate = before
        limits.times = times
