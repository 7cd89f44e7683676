"""What a model of texts is given of a row: a text, and what says which of its tokens make the row.

Characters and tokens are counted from 0.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

POSITIONS = {"first": 0, "last": -1}
NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
SPAN = re.compile(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", re.ASCII)


class UnfitError(ValueError):
    """A value is not what its column is for; the message goes on from where it is."""


Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Passage:
    """A text with its span, of characters from the first to before the second number, and the positions that columns give.

    `messages` are those of a chat, whose contents the text is.
    """

    text: str
    span: tuple[int, int] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    messages: Messages | None = None


Item = str | Passage


def text_of(item: Item) -> str:
    """The text alone."""
    return item if isinstance(item, str) else item.text


def fixed_position(name: str) -> int | None:
    """The number that a position is; None where it is the name of a column."""
    if name in POSITIONS:
        return POSITIONS[name]
    return int(name) if NUMBER.fullmatch(name) else None


def as_text(value: Any, where: str) -> str:
    """A value that is a text.

    Raises:
        UnfitError: it is none.
    """
    if not isinstance(value, str):
        raise unfit(value, where, "no text")
    if not is_utf8(value):
        raise UnfitError(f"holds half a character (a lone surrogate) in {where}")
    return value


def as_id(value: Any, where: str) -> str:
    """A value that names a row: a text or a whole number."""
    return str(value) if _is_whole(value) else as_text(value, where)


def as_messages(value: list[Any], where: str) -> Messages:
    """The messages of a chat, each with a role and a content that are texts.

    Raises:
        UnfitError: they are none.
    """
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
            raise unfit(message, where, "no message; expected an object with role and content, which are texts")
        as_text(message["content"], where)
    if not value:
        raise unfit(value, where, "a chat without messages")
    return value


def position_of(value: Any, where: str) -> int:
    """The number of a token."""
    if _is_whole(value):
        return int(value)
    if not isinstance(value, str) or not NUMBER.fullmatch(value.strip()):
        raise unfit(value, where, "no position; write a whole number")
    return int(value)


def span_of(value: Any, text: str, where: str) -> tuple[int, int]:
    """Where a span of the text begins, and where it ends before: of "start:end", or of a list of two numbers."""
    numbers = SPAN.fullmatch(value) if isinstance(value, str) else None
    if numbers is not None:
        start, stop = (int(number) for number in numbers.groups())
    elif isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value)):
        start, stop = value
    else:
        raise unfit(value, where, 'no span; write it as "start:end", in characters')
    if start >= stop:
        raise unfit(value, where, "an empty span")
    if start < 0 or stop > len(text):
        raise unfit(value, where, f"outside of the text of {len(text)} characters")
    return start, stop


def unfit(value: Any, where: str, why: str) -> UnfitError:
    """The error of a value that is not what its column is for."""
    return UnfitError(f"holds {json.dumps(value, default=str)[:20]} in {where}, which is {why}")


def is_utf8(text: str) -> bool:
    """Whether a string can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
