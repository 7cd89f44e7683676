"""Which tokens of a text make its row: those of a span of characters, or those at positions."""

from collections.abc import Sequence

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.tokenization import Encoded
from contrasim_cli.extraction.sources.passages import Item, Passage, fixed_position
from contrasim_cli.extraction.sources.source import BadItem

Range = tuple[int, int]  # the first token, and the one behind the last


def span_tokens(item: Item, text: str, whole: Encoded, kept: Encoded, row: int) -> Range:
    """The tokens that hold a character of an item's span; white space at its ends does not count.

    Raises:
        UsageError: the item has no span.
        BadItem: there are none, or not all are left of a text that was cut.
    """
    if isinstance(item, str) or item.span is None:
        raise UsageError(f"row {row}: has no span")
    span = item.span
    start, stop = _without_space(text, *span)
    found, left = _touching(whole, start, stop), _touching(kept, start, stop)
    said = f"row {row}: span {span[0]}:{span[1]}"
    if not found:
        raise BadItem(f"{said} holds no token")
    if len(left) < len(found):
        raise BadItem(f"{said} is cut off: the model reads {len(kept.ids)} tokens")
    return left[0], left[-1] + 1


def _without_space(text: str, start: int, stop: int) -> tuple[int, int]:
    inner = text[start:stop]
    if not inner.strip():
        return start, stop
    return start + len(inner) - len(inner.lstrip()), stop - len(inner) + len(inner.rstrip())


def _touching(encoded: Encoded, start: int, stop: int) -> list[int]:
    """The tokens of the text, none of which the tokenizer added, that lie over some of the characters."""
    places = zip(encoded.offsets, encoded.sequence_ids, strict=True)
    return [place for place, ((a, b), sequence) in enumerate(places) if sequence is not None and a < stop and b > start]


def position_tokens(names: Sequence[str], item: Item, count: int, row: int) -> dict[str, Range]:
    """The token at every position, by the position's name; numbers below 0 count from the end of the text's `count` tokens.

    Raises:
        UsageError: an item lacks what a column should give it.
        BadItem: the text has no such token.
    """
    found = {}
    for name in names:
        number = fixed_position(name)
        if number is None and isinstance(item, Passage):
            number = item.positions.get(name)
        if number is None:
            raise UsageError(f"row {row}: has no position {name}")
        place = number if number >= 0 else count + number
        if not 0 <= place < count:
            said = f"position {number}" if str(number) == name else f"position {name} ({number})"
            raise BadItem(f"row {row}: has no token at {said}: it has {count}")
        found[name] = (place, place + 1)
    return found
