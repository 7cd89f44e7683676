"""Everything that goes to stderr: notes, warnings, errors and progress. The core logs; this shows."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from contrasim_cli.names import quoted
from contrasim_cli.progress import Advance

SILENT = (
    os.environ.get("WORLD_SIZE", "") not in ("", "1") and os.environ.get("RANK", "0") != "0"
)  # rank 0 speaks for all
PLAIN_INTERVAL = 30.0  # seconds between two lines of progress in a batch log


@dataclass
class Settings:
    """What the options that every command has were set to, and what the run has noted and warned of."""

    quiet: bool = False
    color: bool = True
    debug: bool = False
    notes: list[str] = field(default_factory=list)


settings = Settings()


class _Lines(logging.Formatter):
    """`contrasim: warning: …` in one line, whatever the message holds."""

    names: ClassVar = {logging.DEBUG: "debug", logging.INFO: "note", logging.WARNING: "warning", logging.ERROR: "error"}

    def format(self, record: logging.LogRecord) -> str:
        return f"contrasim: {self.names.get(record.levelno, 'error')}: {_one_line(record.getMessage())}"


class _Stderr(logging.Handler):
    """Shows records on what stderr is at that moment: a progress bar puts itself before it; notes are kept for the results."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.levelno >= logging.INFO:
            settings.notes.append(line.removeprefix("contrasim: "))
        if record.levelno >= (logging.ERROR if settings.quiet else logging.DEBUG):
            _show(line)


def _one_line(text: str) -> str:
    return quoted(" ".join(text.splitlines()))


def _show(line: str) -> None:
    if SILENT:
        return
    with contextlib.suppress(OSError):  # nobody reads stderr any more: no reason to stop
        print(line, file=sys.stderr, flush=True)


def speak() -> None:
    """Show errors though this is not the first of several processes, as where that one is gone."""
    global SILENT  # noqa: PLW0603
    SILENT = False


def configure(*, quiet: bool, verbose: bool, no_color: bool, debug: bool) -> None:
    """Set up what a run shows on stderr."""
    settings.quiet = quiet
    settings.notes = []
    settings.debug = debug
    settings.color = not (no_color or os.environ.get("NO_COLOR"))
    handler = _Stderr()
    handler.setFormatter(_Lines())
    logger = logging.getLogger("contrasim_cli")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """A block whose notes and warnings are not shown: what it would say was said, or nobody asked."""
    logger = logging.getLogger("contrasim_cli")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def error_line(text: str) -> None:
    """Print one problem."""
    _show(f"contrasim: error: {_one_line(text)}")


@contextlib.contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar with rate and time left on a terminal; elsewhere one plain line about every 30 s."""
    description = quoted(description)
    if settings.quiet or SILENT:
        yield lambda amount=1, note="", earlier=False: None
    elif sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        yield _PlainLines(description, total, unit)


class _PlainLines:
    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.earlier = 0
        self.started = self.shown = time.monotonic()

    def __call__(self, amount: int = 1, note: str = "", earlier: bool = False) -> None:
        self.done += amount
        self.earlier += amount if earlier else 0
        now = time.monotonic()
        if now - self.shown < PLAIN_INTERVAL:
            return
        self.shown = now
        rate = (self.done - self.earlier) / (now - self.started)
        left = f", {duration(max(0, self.total - self.done) / rate)} left" if rate else ""
        extra = f", {note}" if note else ""
        _show(
            f"contrasim: {self.description}: {self.done}/{self.total} {self.unit}, {_rate(rate)} {self.unit}/s{left}{extra}"
        )


@contextlib.contextmanager
def _bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True, no_color=not settings.color)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total, unit=unit, rate="", note="")
        started, before = time.monotonic(), 0

        def advance(amount: int = 1, note: str = "", earlier: bool = False) -> None:
            nonlocal before
            before += amount if earlier else 0
            done = bar.tasks[0].completed + amount - before
            rate = f"{_rate(done / max(time.monotonic() - started, 1e-9))} {unit}/s"
            bar.update(task, advance=amount, rate=rate, note=note or bar.tasks[0].fields["note"])

        yield advance


def _rate(rate: float) -> str:
    return f"{rate:.3g}" if rate < 1000 else f"{rate:.0f}"


def duration(seconds: float) -> str:
    """`1:02:03`: hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
