"""Ctrl-C and SIGTERM at moments that take no exception: while a library of C calls back into Python."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals that come meanwhile are acted on at the end of the block, whatever its end is."""
    if threading.current_thread() is not threading.main_thread():  # which alone runs handlers
        yield
        return
    came: list[int] = []
    # of the signals that are not ignored
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in taken:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
