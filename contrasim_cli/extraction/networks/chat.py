"""Chats as a tokenizer's own template writes them: all special tokens, BOS too, are the template's."""

import datetime
import hashlib
import logging
from dataclasses import dataclass
from typing import Any

from contrasim_cli.errors import UsageError, reason
from contrasim_cli.extraction.sources.passages import Item, Messages, Passage, text_of
from contrasim_cli.extraction.sources.source import BadItem
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

MARK = "\ue000\ue001"  # stands for a text, to see what a template puts around it
TODAY = "strftime_now"  # by which a template asks for the date


@dataclass
class Chat:
    """The chat template of a tokenizer, with or without the words that an answer begins with."""

    tokenizer: Any
    name: str
    generation_prompt: bool

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UsageError(
                f"--template chat: the tokenizer of {quoted(self.name)} has no chat template; give one that has (--tokenizer)"
            )

    def digest(self, model: str) -> str:
        """What rows depend on: the model, whose digest this is, and the date where the template writes it."""
        if TODAY not in str(self.tokenizer.chat_template):
            return model
        log.warning("%s: the chat template writes the date: another day's rows differ", quoted(self.name))
        return hashlib.sha256(f"{model} {datetime.date.today()}".encode()).hexdigest()

    def passage(self, item: Item, row: int) -> Passage:
        """An item as the template writes it, with its span where that is then; a text is one message of the user.

        Raises:
            BadItem: the template refuses it, or its span cannot be found again.
        """
        if isinstance(item, Passage) and item.messages is not None:
            return Passage(self._written(item.messages, row), positions=item.positions)
        text = text_of(item)
        written = self._written(_user(text), row)
        if isinstance(item, str):
            return Passage(written)
        span = None if item.span is None else self._moved(item.span, text, written, row)
        return Passage(written, span, item.positions)

    def _written(self, messages: Messages, row: int) -> str:
        try:
            found = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=self.generation_prompt
            )
        except Exception as error:  # templates raise what they like
            raise BadItem(f"row {row}: the chat template refuses it ({reason(error)})") from error
        return str(found)

    def _moved(self, span: tuple[int, int], text: str, written: str, row: int) -> tuple[int, int]:
        """Where a span of a text is in what the template writes, which may take white space from the ends of the text."""
        before, _, behind = self._written(_user(MARK), row).partition(MARK)
        inner = written[len(before) : len(written) - len(behind)]
        if MARK in behind or f"{before}{inner}{behind}" != written or inner not in (text, text.strip()):
            raise BadItem(f"row {row}: the chat template changes the text, so that its span is not found")
        gone = 0 if inner == text else len(text) - len(text.lstrip())
        start, stop = max(0, span[0] - gone), min(len(inner), span[1] - gone)
        if start >= stop:
            raise BadItem(f"row {row}: span {span[0]}:{span[1]} is white space, which the chat template leaves out")
        return len(before) + start, len(before) + stop


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]
