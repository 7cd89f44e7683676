"""Ctrl-C and SIGTERM at moments that take no exception: within a step, or while a library of C calls back into Python."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """Signals that come meanwhile are noted, in their order, and not acted on."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone runs handlers
        yield came
        return

    def note(number: int, frame: object) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals that come meanwhile are acted on at the end of the block, whatever its end is, as they would be anywhere."""
    came: list[int] = []
    try:
        with noted() as came:
            yield
    finally:
        if came:
            signal.raise_signal(came[0])
