"""Rows of named values, of whatever they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted


@dataclass(frozen=True)
class Bad:
    """What is wrong with a row."""

    reason: str


@dataclass(frozen=True)
class Values:
    """The values of a row's fields, and where it is in its file."""

    where: str
    values: Sequence[Any]


class Table(Protocol):
    """Rows of named values; `word` is what messages call a name."""

    word: ClassVar[str]

    def columns(self) -> list[str]:
        """The names; of objects, those that the first one has."""

    def rows(self, fields: Sequence[str]) -> Iterator[Values | Bad]:
        """The values of these columns, row by row.

        Raises:
            UsageError: there is no such column.
            InputError: it cannot be read.
        """

    def digest(self) -> str:
        """What automatic names of rows depend on: the file, or the split of a data set."""

    def contents(self, fields: Sequence[str]) -> str:
        """What the values of these columns depend on."""


def refuse_unknown(path: Path, fields: Sequence[str], names: Sequence[str]) -> None:
    """Refuse columns that a table does not have, or has twice."""
    unknown = next((name for name in fields if name not in names), None)
    if unknown is not None:
        raise UsageError(f"{quoted(path)}: has no column {quoted(unknown)}; it has {shown_names(names)}")
    twice = next((name for name in fields if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{quoted(path)}: has several columns {quoted(twice)}; give each a name of its own")


def shown_names(names: Sequence[str]) -> str:
    """The names of columns, the first of many."""
    return ", ".join(map(quoted, names[:20])) + (", …" if len(names) > 20 else "")
