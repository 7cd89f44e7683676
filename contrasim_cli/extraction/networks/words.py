"""Which tokens belong to which word.

Words are what whitespace separates, split before tokenisation, so that every tokenizer has the same ones; they are
tokenised together, joined by single spaces, so that each has the tokens that it has within its sentence.
"""

import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.sources.source import BadItem
from contrasim_cli.names import quoted

Owners = list[int | None]  # for every token the number of its word, None for special tokens


def split(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def owners_by_offset(encoding: Any, words: Sequence[str], where: str) -> Owners:
    """For every token of an encoding of `" ".join(words)` the number of its word.

    Raises:
        BadItem: a token holds parts of two words.
    """
    starts = [0, *accumulate(len(word) + 1 for word in words[:-1])]
    owners: Owners = []
    for (first, stop), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True):
        if sequence is None:
            owners.append(None)
            continue
        # one place further, because the space before a word is part of the word
        begins = bisect.bisect_right(starts, first + 1) - 1
        ends = bisect.bisect_right(starts, max(stop, first + 1)) - 1
        if begins != ends:
            raise BadItem(
                f"{where}: one token holds the words {quoted(words[begins])} and {quoted(words[ends])}, "
                "so that they have no rows of their own"
            )
        owners.append(ends)
    return owners


def owners_by_word(tokenizer: Any, ids: Sequence[int], words: Sequence[str]) -> Owners:
    """The word of each token, for a tokenizer that does not say where its tokens come from: word by word.

    Raises:
        UsageError: the words' own tokens are not those of the sentence.
    """
    sentence = _encode(tokenizer, " ".join(words))
    for space in (" ", ""):
        pieces = [_encode(tokenizer, (space if number else "") + word) for number, word in enumerate(words)]
        if [token for piece in pieces for token in piece] == sentence:
            inner: Owners = [number for number, piece in enumerate(pieces) for _ in piece]
            return _framed(ids, sentence, inner)
    raise UsageError(
        f"--unit word: {type(tokenizer).__name__} does not say which tokens belong to which word; "
        "give a fast tokenizer (--tokenizer)"
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _framed(ids: Sequence[int], sentence: Sequence[int], inner: Owners) -> Owners:
    """The owners of a sentence's tokens between the special tokens around them; the end of it may be cut off."""
    before = next(
        place
        for place in range(len(ids) + 1)
        if not sentence or place == len(ids) or list(ids[place : place + 1]) == list(sentence[:1])
    )
    kept = 0
    while kept < len(sentence) and before + kept < len(ids) and ids[before + kept] == sentence[kept]:
        kept += 1
    return [None] * before + inner[:kept] + [None] * (len(ids) - before - kept)


def spans(owners: Owners) -> dict[int, tuple[int, int]]:
    """Word number -> its first token and the token behind its last one."""
    found: dict[int, tuple[int, int]] = {}
    for place, owner in enumerate(owners):
        if owner is not None:
            found[owner] = (found.get(owner, (place, 0))[0], place + 1)
    return found


def whole_words(cut: Owners, full: Owners) -> dict[int, tuple[int, int]]:
    """The spans of the words all of whose tokens are left after the cut."""
    lengths = {word: stop - first for word, (first, stop) in spans(full).items()}
    return {word: (first, stop) for word, (first, stop) in spans(cut).items() if stop - first == lengths[word]}
