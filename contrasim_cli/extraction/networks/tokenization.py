"""Texts as tokens: which special tokens are among them, and where long texts are cut."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

KEEP, POOL_WITHOUT, NO_SPECIAL = "keep", "pool-without", "none"  # what becomes of special tokens
SPECIAL_TOKENS = (KEEP, POOL_WITHOUT, NO_SPECIAL)
FRAME = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
IN_TEXTS = ("unk_token_id", "mask_token_id")  # special by name, but each stands for a piece of the text


@dataclass(frozen=True)
class Encoded:
    """The tokens of one text.

    `special` says of every token whether it is special; empty where nobody asks. `encoding` is what a fast tokenizer knows of where
    tokens come from, less its first `dropped` tokens.
    """

    ids: list[int]
    types: list[int] | None = None
    special: Sequence[bool] = ()
    encoding: Any = None
    dropped: int = 0

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where every token begins and ends in the text, in characters."""
        return list(self.encoding.offsets[self.dropped :])

    @property
    def sequence_ids(self) -> list[int | None]:
        """None for tokens that the tokenizer added."""
        return list(self.encoding.sequence_ids[self.dropped :])

    def without_first(self) -> "Encoded":
        """The tokens without the first one."""
        types = None if self.types is None else self.types[1:]
        return replace(self, ids=self.ids[1:], types=types, special=self.special[1:], dropped=self.dropped + 1)


@dataclass
class Tokenization:
    """A tokenizer, and what becomes of special tokens: the model sees them or not (none), and rows count them or not."""

    tokenizer: Any
    special: str
    name: str
    is_chat: bool = False  # whether texts come with the special tokens that their template writes
    told_of_begin: bool = field(default=False, init=False)

    @property
    def adds_special(self) -> bool:
        """Whether the tokenizer puts its special tokens around a text."""
        return self.special != NO_SPECIAL and not self.is_chat

    @property
    def added(self) -> int:
        """How many special tokens it puts around a text."""
        return int(self.tokenizer.num_special_tokens_to_add()) if self.adds_special else 0

    def encode(self, texts: Sequence[str], **options: Any) -> list[Encoded]:
        """The tokens of every text."""
        marked = self.special == POOL_WITHOUT
        found = self.tokenizer(
            list(texts),
            verbose=False,
            return_attention_mask=False,
            return_special_tokens_mask=marked,
            add_special_tokens=self.adds_special,
            **options,
        )
        types, masks = found.get("token_type_ids"), found.get("special_tokens_mask")
        return [
            self._begun_once(
                Encoded(
                    list(ids),
                    None if types is None else list(types[row]),
                    self._special_of(ids, masks[row]) if marked else (),
                    found.encodings[row] if self.tokenizer.is_fast else None,
                )
            )
            for row, ids in enumerate(found["input_ids"])
        ]

    def cut(self, texts: Sequence[str], limit: int) -> list[Encoded]:
        """The tokens of texts that are longer than the limit: so many, special ones included."""
        found = self.encode(texts, truncation=True, max_length=limit)
        for row, one in enumerate(found):
            if one.dropped:  # which leaves room for one more
                found[row] = self.encode([texts[row]], truncation=True, max_length=limit + 1)[0]
        return found

    def _special_of(self, ids: Sequence[int], added: Sequence[int]) -> list[bool]:
        return [bool(mark) or token in self._special_ids for token, mark in zip(ids, added, strict=True)]

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        """The special tokens of the vocabulary, without those that stand for a piece of the text."""
        named = {number for name in FRAME if (number := getattr(self.tokenizer, name, None)) is not None}
        others = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset((others - {getattr(self.tokenizer, name, None) for name in IN_TEXTS}) | named)

    @cached_property
    def unknown(self) -> int | None:
        """The token for what the vocabulary lacks; None where there is none, or where texts begin or end with it (GPT-2)."""
        number = getattr(self.tokenizer, "unk_token_id", None)
        ends = {getattr(self.tokenizer, name, None) for name in FRAME if name != "pad_token_id"}
        return None if number in ends else number

    def count_unknown(self, ids: Sequence[int]) -> tuple[int, int]:
        """How many tokens are unknown, and how many there are without those that begin, end or part texts."""
        return ids.count(self.unknown), len(ids) - sum(token in self._frame for token in ids)

    @cached_property
    def _frame(self) -> frozenset[int | None]:
        return frozenset(getattr(self.tokenizer, name, None) for name in FRAME) - {self.unknown}

    @cached_property
    def _begin(self) -> int | None:
        """The BOS or CLS token that the tokenizer puts before every text, if it does."""
        added, plain = (
            self.tokenizer("a", add_special_tokens=adds, verbose=False)["input_ids"][:1]
            for adds in (self.adds_special, False)
        )
        ends = {getattr(self.tokenizer, name, None) for name in ("bos_token_id", "cls_token_id")}
        return int(added[0]) if added != plain and added[0] in ends else None

    def _begun_once(self, found: Encoded) -> Encoded:
        """A text that begins with that token itself, without a second one."""
        if self._begin is None or found.ids[:2] != [self._begin, self._begin]:
            return found
        if not self.told_of_begin:
            self.told_of_begin = True
            token = quoted(self.tokenizer.convert_ids_to_tokens(self._begin))
            log.info("%s: texts that begin with %s get no second one from the tokenizer", quoted(self.name), token)
        return found.without_first()
