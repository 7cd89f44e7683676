"""How the core tells how far it is, without knowing where that is shown."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Called with the amount done since the last call and, optionally, a few words on the state.

    What was done `earlier`, by a run that this one goes on with, counts as done and not for the rate.
    """

    def __call__(self, amount: int = 1, note: str = "", earlier: bool = False) -> None: ...


class Progress(Protocol):
    """Opens one bar; `total` is in `unit`s."""

    def __call__(self, description: str, total: int, unit: str) -> AbstractContextManager[Advance]: ...


def _nothing(amount: int = 1, note: str = "", earlier: bool = False) -> None:
    pass


def silent(description: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    """The progress that shows nothing."""
    return nullcontext(_nothing)
