"""Ctrl-C and SIGTERM wait for the end of the running step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from contrasim_cli.errors import Terminated
from contrasim_cli.training.state import State


@dataclass
class Stop:
    """A signal that waits for the end of the running step."""

    received: int = 0

    def act(self, state: State, save: Callable[[bool], None]) -> None:
        """Save the state and stop, if a signal came.

        Raises:
            Terminated, KeyboardInterrupt: it was SIGTERM, or Ctrl-C.
        """
        if not self.received:
            return
        save(False)
        text = f"stopped in epoch {state.epoch + 1} after {state.step} steps; the state is saved, --resume goes on"
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(text)
        raise Terminated(text)


@contextmanager
def deferred_signals() -> Iterator[Stop]:
    """Signals that come meanwhile are noted, not acted on."""
    stop = Stop()

    def note(number: int, frame: object) -> None:
        stop.received = number

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
