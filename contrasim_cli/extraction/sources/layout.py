"""How the columns of a row become what a model of texts is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.sources.passages import (
    Item,
    Messages,
    Passage,
    as_messages,
    as_text,
    position_of,
    span_of,
    unfit,
)
from contrasim_cli.extraction.sources.prompts import Prompt, shown
from contrasim_cli.names import quoted

MESSAGES = "messages"  # the column of chats, unless another is named


@dataclass(frozen=True)
class Layout:
    """A `prompt` that columns are put into, the columns of a `span` and of `positions` in the text, and whether texts are chats."""

    prompt: Prompt | None = None
    span: str | None = None
    positions: Sequence[str] = ()
    chat: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What of it determines rows."""
        found = {"prompt": self.prompt.source if self.prompt else None, "span": self.span}
        return {name: value for name, value in found.items() if value is not None}

    def columns(self, texts: Sequence[str]) -> list[str]:
        """All columns that it takes, where the texts are in these."""
        prompt = self.prompt.columns if self.prompt else []
        return list(dict.fromkeys([*texts, *prompt, *([self.span] if self.span else []), *self.positions]))

    def texts(self, columns: Sequence[str]) -> list[str | None]:
        """The column that holds the text of each store, or its span; None where a prompt takes its place.

        Raises:
            UsageError: these columns do not fit the prompt, or are several where a span or a position is of one.
        """
        if self.prompt is not None:
            return [self._prompted(self.prompt, columns)]
        option, named = ("--span", self.span) if self.span else ("--position", next(iter(self.positions), None))
        if named is not None and len(columns) > 1:
            raise UsageError(f"{option} {quoted(named)} applies to one text; give one --column, and run once for each")
        return list(columns)

    def _prompted(self, prompt: Prompt, columns: Sequence[str]) -> str | None:
        if self.span is None:
            if columns:
                raise UsageError("--prompt says which columns it takes; leave out --column")
            return None
        columns = columns or prompt.columns
        if len(columns) != 1:
            raise UsageError(f"--span {quoted(self.span)}: say with --column which column of the prompt it belongs to")
        if (count := prompt.count(columns[0])) != 1:
            raise UsageError(
                f"--span {quoted(self.span)}: column {quoted(columns[0])} is in the prompt {count} times; it has to be there once"
            )
        return columns[0]

    def item(self, name: str | None, values: Mapping[str, Any], word: str) -> Item:
        """What the model is given of a row: the text in a column, or the prompt, and what goes with it.

        Raises:
            UnfitError: a value is not what its column is for.
        """
        text, messages = self._text(name, values, word)
        places = {column: position_of(values[column], f"{word} {quoted(column)}") for column in self.positions}
        span = None if self.span is None else self._span(name, text, messages, values, word)
        return text if span is None and messages is None and not places else Passage(text, span, places, messages)

    def _text(self, name: str | None, values: Mapping[str, Any], word: str) -> tuple[str, Messages | None]:
        if self.prompt is not None:
            return self.prompt.fill(values, word), None
        value, where = values[name or ""], f"{word} {quoted(name)}"
        if self.chat and isinstance(value, list):
            messages = as_messages(value, where)
            return "\n".join(message["content"] for message in messages), messages
        if isinstance(value, list):
            raise unfit(value, where, "no text; of chats it takes --template chat")
        return as_text(value, where), None

    def _span(
        self, name: str | None, text: str, messages: Messages | None, values: Mapping[str, Any], word: str
    ) -> tuple[int, int]:
        value, where = values[self.span or ""], f"{word} {quoted(self.span)}"
        if messages is not None:
            raise unfit(value, where, "a span of a chat of messages; spans are of single texts")
        if self.prompt is None or name is None:
            return span_of(value, text, where)
        start, stop = span_of(value, shown(values[name], f"{word} {quoted(name)}"), where)
        place = self.prompt.place(name, values, word)
        return place + start, place + stop


PLAIN = Layout()
