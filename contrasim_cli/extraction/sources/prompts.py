"""Prompts: texts with the columns of a row in them, as `In French: {text}`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.sources.passages import as_text, unfit
from contrasim_cli.names import quoted


@dataclass(frozen=True)
class Prompt:
    """A text in pieces: each a literal, and the column behind it, if there is one; `source` is what was written."""

    source: str
    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> list[str]:
        """The columns in it, each once."""
        return list(dict.fromkeys(name for _, name in self.pieces if name is not None))

    def count(self, column: str) -> int:
        """How often a column is in it."""
        return sum(name == column for _, name in self.pieces)

    def fill(self, values: Mapping[str, Any], word: str) -> str:
        """The text of a row.

        Raises:
            UnfitError: a value is neither a text nor a number.
        """
        return "".join(self._parts(values, word))

    def place(self, column: str, values: Mapping[str, Any], word: str) -> int:
        """Where in the text of a row the value of a column begins, which is in it once."""
        before = next(at for at, (_, name) in enumerate(self.pieces) if name == column)
        parts = self._parts(values, word)
        return sum(map(len, parts[: 2 * before + 1]))

    def _parts(self, values: Mapping[str, Any], word: str) -> list[str]:
        """Literals and values in turn."""
        return [
            part
            for literal, name in self.pieces
            for part in (literal, "" if name is None else shown(values[name], f"{word} {quoted(name)}"))
        ]


def parsed(text: str) -> Prompt:
    """A prompt as it is written: columns in braces, and braces themselves doubled.

    Raises:
        UsageError: braces are not closed, or there is no column in it.
    """
    try:
        pieces = tuple(_piece(*piece) for piece in Formatter().parse(text))
    except ValueError as error:
        raise UsageError(
            f"--prompt {quoted(text)}: {error}; write columns as {{column}}, and braces themselves as {{{{ and }}}}"
        ) from error
    if not any(name for _, name in pieces):
        raise UsageError(f"--prompt {quoted(text)}: has no column in it; write one as {{column}}")
    return Prompt(text, pieces)


def _piece(literal: str, name: str | None, spec: str | None, conversion: str | None) -> tuple[str, str | None]:
    if name is None:
        return literal, None
    if not name:
        raise ValueError("a column without a name")
    # which are part of the name: nothing is formatted
    return literal, name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")


def shown(value: Any, where: str) -> str:
    """A value as it stands in a prompt.

    Raises:
        UnfitError: it is neither a text nor a number.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise unfit(value, where, "neither a text nor a number")
    return as_text(value, where)
