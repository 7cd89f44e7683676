"""Ctrl-C and SIGTERM at moments that take no exception: within a step, or while a library of C calls back into Python."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """Signals that come meanwhile are noted, in their order, and not acted on; those that are ignored stay so."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone runs handlers
        yield came
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in taken:
            signal.signal(number, lambda number, frame: came.append(number))
        yield came
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals that come meanwhile are acted on at the end of the block, whatever its end is."""
    came: list[int] = []
    try:
        with noted() as came:
            yield
    finally:
        if came:
            signal.raise_signal(came[0])
