"""Models of text: one row per text, per word, or per token."""

import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, UsageError
from contrasim_cli.extraction.networks.chat import Chat
from contrasim_cli.extraction.networks.network import ALIKE, ANY, Inputs
from contrasim_cli.extraction.networks.pretrained import SPANS, Pretrained
from contrasim_cli.extraction.networks.probe import Probe
from contrasim_cli.extraction.networks.text_rows import POSITION, SPAN_POOLS
from contrasim_cli.extraction.networks.token_places import position_tokens, span_tokens
from contrasim_cli.extraction.networks.tokenization import POOL_WITHOUT, Encoded, Tokenization
from contrasim_cli.extraction.networks.words import Owners, owners_by_offset, owners_by_word, spans, split, whole_words
from contrasim_cli.extraction.pooling import pool_tokens, span_rows
from contrasim_cli.extraction.sources.passages import Item, text_of
from contrasim_cli.extraction.sources.source import BadItem
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

UNLIMITED = 10**9  # tokenizers without a limit say 1e30
SENTENCE = "sentence"
COUNTED = "counted"  # of an input: which tokens a row is pooled of, where not all that are no padding; no business of the model
PROBED = 9  # tokens of an item that tells what the model does with its items, at least
MADE_UP = 3  # tokens; their values do not matter to shapes

# number of a word or token, or name of a position -> its first token and the one behind its last
Spans = Mapping[Any, tuple[int, int]]


@dataclass(frozen=True)
class Sentence:
    """What a sentence-transformers folder makes of a text: the model in `folder`, its last states pooled, and normalised."""

    folder: Path
    pool: str
    normalised: bool
    limit: int | None


@dataclass
class Tokens:
    """A block of tokenised texts. Batches are padded on the right, whatever side the tokenizer prefers.

    On the left, models that count positions from the start of the batch would see every text shifted.
    """

    ids: list[list[int]]
    types: list[list[int]] | None
    pad: int
    cut: Sequence[int] = ()
    spans: Sequence[Spans] | None = None
    fixed: int | None = None  # a length that every text is padded to
    counted: Sequence[Sequence[bool]] | None = None  # which tokens rows are pooled of; None: all
    unknown: list[tuple[int, int]] | None = None  # of each text's tokens that rows are of: unknown ones, and all
    named: bool = True  # whether the rows of a text have names of their own; without, each text has one row

    @property
    def truncated(self) -> int:
        return len(self.cut)

    @property
    def lengths(self) -> list[int]:
        return [self.fixed or len(row) for row in self.ids]

    @property
    def units(self) -> list[list[str]] | None:
        return None if self.spans is None or not self.named else [list(map(str, found)) for found in self.spans]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        # a text without tokens, which has no rows either, stands in the batch as one token
        ids = [self.ids[row] or [self.pad] for row in rows]
        mask = [[1] * len(row) for row in ids]
        inputs = {"input_ids": self._padded(ids, self.pad), "attention_mask": self._padded(mask, 0)}
        if self.types is not None:
            inputs["token_type_ids"] = self._padded([self.types[row] or [0] for row in rows], 0)
        if self.counted is not None:
            inputs[COUNTED] = self._padded([list(map(int, self.counted[row])) for row in rows], 0)
        if self.spans is not None:
            places = [(place, *span) for place, row in enumerate(rows) for span in self.spans[row].values()]
            inputs[SPANS] = torch.tensor(places, dtype=torch.long).view(-1, 3)
        return inputs

    def _padded(self, rows: Sequence[Sequence[int]], value: int) -> Tensor:
        out = torch.full((len(rows), max(map(len, rows), default=0)), value, dtype=torch.long)
        if self.fixed is not None:
            out = torch.full((len(rows), self.fixed), value, dtype=torch.long)
        for place, row in zip(out, rows, strict=True):
            place[: len(row)] = torch.tensor(row, dtype=torch.long)
        return out


@dataclass
class TextNetwork(Pretrained):
    """An encoder or decoder of text, with its tokenizer."""

    tokenizer: Any = None
    sentence: Sentence | None = None
    kept_words: Mapping[int, frozenset[str]] = field(default_factory=dict)  # of texts, of which not all make rows

    def __post_init__(self) -> None:
        self.tokens = Tokenization(
            self.tokenizer, self.options.special_tokens, self.name, self.options.template is not None
        )
        self.chat = None
        if self.options.template is not None:
            self.chat = Chat(self.tokenizer, self.name, self.options.generation_prompt)
            self.digest = self.chat.digest(self.digest)
        if self.options.span is not None and not self.tokenizer.is_fast:
            kind = type(self.tokenizer).__name__
            raise UsageError(
                f"--span: {kind} does not say where its tokens come from; give a fast tokenizer (--tokenizer)"
            )
        self.limit = token_limit(self.tokens, self.model, self.options.max_length)
        self.vocabulary = vocabulary(self.model)
        # padding is masked, so that any token will do where there is none for it
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        self.pad = next(number for number in candidates if number is not None)
        self.parameters = self.part.parameters
        self.fixed: int | None = None
        if self._reads_padding():
            self.fixed = positions(self.model)
        self.told_of_empty_words = False

    def take_sentence(self, sentence: Sentence) -> None:
        """Give a text the row that its sentence-transformers folder gives it, as the layer `sentence`, and its limit."""
        self.sentence = sentence
        made = f"{self.digest} {sentence.pool} {sentence.normalised} {sentence.limit}"
        self.digest = hashlib.sha256(made.encode()).hexdigest()
        if sentence.limit is not None and self.options.max_length is None:
            self.limit = min(self.limit or sentence.limit, sentence.limit)

    def _states(self, output: Any, inputs: Inputs) -> dict[str, Tensor]:
        states = super()._states(output, inputs)
        if self.sentence is None or not self._has_whole_items():
            return states
        last = self.part.states(output)[-1].float()
        row = pool_tokens(last, inputs["attention_mask"].to(last.device), self.sentence.pool)
        return states | {SENTENCE: torch.nn.functional.normalize(row, dim=1) if self.sentence.normalised else row}

    def _reads_padding(self) -> bool:
        """Whether the model's own row of a text is that of its last place, be it padding, which its states do not depend on.

        Such models were trained on texts of one length without a mask.
        """
        ids = list(self.tokenizer("a a a", verbose=False)["input_ids"])
        room = (positions(self.model) or 0) - len(ids)
        if room < 1 or not ids or self.part.is_second:
            return False
        try:
            short, padded = (
                self._run(self.part.run, Tokens([row], None, self.pad).batch([0]) | {"attention_mask": mask})
                for row, mask in (
                    (ids, torch.ones(1, len(ids), dtype=torch.long)),
                    (ids + [self.pad] * 1, torch.tensor([[1] * len(ids) + [0]])),
                )
            )
        except ContraSimError:  # which the run itself will meet, and say
            return False
        states = [self.part.states(output)[-1][:, : len(ids)] for output in (short, padded) if self.part.states(output)]
        pooled = [
            found for output in (short, padded) if isinstance(found := getattr(output, "pooler_output", None), Tensor)
        ]
        if len(states) < 2 or len(pooled) < 2:
            return False
        return _close(*states) and not _close(*pooled)

    def prepare(self, items: Sequence[Item], first: int) -> Tokens:
        if self.chat is not None:
            items = [self.chat.passage(item, row) for row, item in enumerate(items, first)]
        texts = [" ".join(split(text_of(item))) if self._by_word else text_of(item) for item in items]
        whole = self.tokens.encode(texts)
        kept = list(whole)
        long = [row for row, text in enumerate(whole) if self.limit is not None and len(text.ids) > self.limit]
        if long and self.limit is not None:
            cut = self.tokens.cut([texts[row] for row in long], self.limit)
            for row, text in zip(long, cut, strict=True):
                kept[row] = text
        self._check_tokens(kept, first)
        counted = [[not mark for mark in text.special] for text in kept] if self._pools_without else None
        types = [text.types or [] for text in kept] if any(text.types for text in kept) else None
        rows_of = self._spans(items, texts, whole, kept, first)
        return Tokens(
            [text.ids for text in kept],
            types,
            self.pad,
            long,
            rows_of,
            self.fixed,
            counted,
            self._unknown(kept, rows_of),
            named=self._by_word or self.pooling == "none" or len(self.options.position or ()) > 1,
        )

    def _unknown(self, texts: Sequence[Encoded], rows_of: Sequence[Spans] | None) -> list[tuple[int, int]] | None:
        if self.tokens.unknown is None:
            return None
        if rows_of is None:
            return [self.tokens.count_unknown(text.ids) for text in texts]
        return [
            self.tokens.count_unknown([token for begin, stop in found.values() for token in text.ids[begin:stop]])
            for text, found in zip(texts, rows_of, strict=True)
        ]

    def _kept(self, found: Spans, row: int) -> Spans:
        kept = self.kept_words.get(row)
        return found if kept is None else {word: span for word, span in found.items() if str(word) in kept}

    def about(self) -> dict[str, Any]:
        about = super().about() | {"token_limit": self.limit}
        if self.tokens.unknown is not None:
            about["unknown_token"] = self.tokenizer.convert_ids_to_tokens(self.tokens.unknown)
        return about

    @property
    def _by_word(self) -> bool:
        return self.options.unit == "word"

    def _has_whole_items(self) -> bool:
        return not self._by_word and self.options.span is None and self.pooling not in ("none", POSITION)

    @property
    def _pools_without(self) -> bool:
        """Whether a row is pooled of some of the tokens."""
        return self.options.special_tokens == POOL_WITHOUT and self._has_whole_items()

    def _spans(
        self, items: Sequence[Item], texts: Sequence[str], whole: Sequence[Encoded], kept: Sequence[Encoded], first: int
    ) -> list[Spans] | None:
        """Which tokens become which rows of every text, of which `kept` is left; None where a text is one row."""
        if self._has_whole_items():
            return None
        rows = enumerate(zip(items, texts, whole, kept, strict=True), first)
        return [self._spans_of(*text, row) for row, text in rows]

    def _spans_of(self, item: Item, text: str, whole: Encoded, kept: Encoded, row: int) -> Spans:
        if self._by_word:
            return self._word_spans(text, whole, kept, row)
        if self.options.span is not None:
            return {0: span_tokens(item, text, whole, kept, row)}
        if self.pooling == POSITION:
            return position_tokens(self.options.position or (), item, len(kept.ids), row)
        return _token_spans(kept)

    def _word_spans(self, text: str, whole: Encoded, kept: Encoded, row: int) -> Spans:
        """The spans of a text's words; of a text that was cut, only the words that are still whole."""
        owners = self._owners(whole, text, row)
        found = spans(owners)
        self._tell_of_empty_words(split(text), found, row)
        if kept is not whole:
            found = whole_words(self._owners(kept, text, row), owners)
        return self._kept(found, row)

    def _owners(self, encoded: Encoded, text: str, row: int) -> Owners:
        words = split(text)
        if not words:
            return [None] * len(encoded.ids)
        if self.tokenizer.is_fast:
            return owners_by_offset(encoded, words, f"row {row}")
        return owners_by_word(self.tokenizer, encoded.ids, words)

    def _tell_of_empty_words(self, words: Sequence[str], kept: Spans, row: int) -> None:
        if len(kept) == len(words) or self.told_of_empty_words:
            return
        self.told_of_empty_words = True
        missing = next(number for number in range(len(words)) if number not in kept)
        log.warning(
            "row %d: word %d, %a, gives no token in the tokenizer of %s: such words have no row",
            row, missing, words[missing], self.name,
        )  # fmt: skip

    def _check_tokens(self, texts: Sequence[Encoded], first: int) -> None:
        for row, text in enumerate(texts, first):
            if not text.ids and self._has_whole_items():
                raise BadItem(f"row {row} has no tokens: the text is empty for {quoted(self.name)}")
            if self._pools_without and all(text.special):
                raise BadItem(
                    f"row {row} has no tokens but special ones, which --special-tokens pool-without leaves out"
                )
            if self.vocabulary is not None and max(text.ids, default=0) >= self.vocabulary:
                raise InputError(
                    f"{quoted(self.name)}: the tokenizer gives token {max(text.ids)} where the model has {self.vocabulary}; "
                    "tokenizer and model do not belong together"
                )

    def discover(self, inputs: Inputs) -> dict[str, int]:
        if self.pooling == "cls" and self.tokenizer.cls_token_id is None:
            log.warning("%s has no CLS token: --pool cls takes the first token of every text", self.name)
        return super().discover(inputs)

    def _given(self, inputs: Inputs) -> Inputs:
        left_out = {SPANS} | ({"attention_mask"} if self.fixed else set())
        return {name: tensor for name, tensor in inputs.items() if name in self.parameters and name not in left_out}

    @property
    def _expected(self) -> str:
        return "[n, tokens, width]" + (" or [n, width]" if self._has_whole_items() else ", of which rows are made")

    def _fits(self, state: Tensor, inputs: Inputs) -> bool:
        if state.ndim == 2:
            return self._has_whole_items()
        return state.ndim == 3 and state.shape[1] == inputs["input_ids"].shape[1]

    def _row(self, states: Tensor, inputs: Inputs) -> Tensor:
        if states.ndim == 2:
            return states
        if states.shape[1] != inputs["input_ids"].shape[1]:
            raise InputError(
                f"{quoted(self.name)}: a layer has {states.shape[1]} places for {inputs['input_ids'].shape[1]} tokens; "
                "choose others with --layers"
            )
        if SPANS in inputs:
            return span_rows(states, inputs[SPANS].to(states.device), self._span_pool)
        return pool_tokens(states, inputs.get(COUNTED, inputs["attention_mask"]).to(states.device), self.pooling)

    @property
    def _span_pool(self) -> str:
        """How the tokens of a span become its row."""
        if self._by_word:
            return self.options.subword
        return next((how for how, pooling in SPAN_POOLS.items() if pooling == self.pooling), "mean")

    def _probes(self, inputs: Inputs) -> Mapping[str, Probe]:
        ids = inputs["input_ids"][0].tolist()
        types = inputs["token_type_ids"][0].tolist() if "token_type_ids" in inputs else None
        count = max(1, min(self.limit or PROBED, max(len(ids), PROBED)))
        places = [0, *(1 + place % max(1, len(ids) - 2) for place in range(count - 2)), len(ids) - 1][:count]
        places = [min(place, len(ids) - 1) for place in places]
        short = places[: (count + 1) // 2 - 1] + places[-1:]
        found = {}
        for way, other in ((ANY, short), (ALIKE, places[::-1])):
            both = [places, other]
            spans = [{place: (place, place + 1) for place in range(len(one))} for one in both]
            tokens = Tokens(
                [[ids[place] for place in one] for one in both],
                None if types is None else [[types[place] for place in one] for one in both],
                self.pad,
                (),
                None if self._has_whole_items() else spans,
                self.fixed,
            )
            found[way] = [tokens.batch([0]), tokens.batch([1])], tokens.batch([0, 1])
        return found

    def _shape(self, state: Tensor, inputs: Inputs) -> str:
        return f"[rows, tokens, {state.shape[2]}]" if state.ndim == 3 else f"[rows, {state.shape[1]}]"

    def _made_up(self) -> dict[str, Tensor]:
        count = min(self.limit or MADE_UP, MADE_UP)
        found = None if self._has_whole_items() else [{place: (place, place + 1) for place in range(count)}]
        ids = [min(place, (self.vocabulary or count) - 1) for place in range(count)]
        return Tokens([ids], None, self.pad, (), found, self.fixed).batch([0])

    def _by_item(self, state: Tensor, inputs: Inputs) -> Tensor:
        """States of tokens item by item, where a module laid those of all items in one row."""
        items, tokens = inputs["input_ids"].shape
        is_flat = state.ndim == 2 and tokens > 1 and len(state) == items * tokens
        return state.view(items, tokens, -1) if is_flat else state


def _token_spans(text: Encoded) -> Spans:
    """Every token by itself, without special ones where these do not count."""
    marks = text.special or [False] * len(text.ids)
    return {place: (place, place + 1) for place, special in enumerate(marks) if not special}


def _close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first - second).norm() <= 1e-2 * first.norm())


def token_limit(tokens: Tokenization, model: nn.Module, asked: int | None) -> int | None:
    """How many tokens the model takes, or the fewer that were asked for; None where nothing limits them.

    Raises:
        UsageError: more were asked for than the model takes, or no more than its special tokens.
    """
    known = (tokens.tokenizer.model_max_length, positions(model))
    limit = min((number for number in known if number is not None and 0 < number < UNLIMITED), default=None)
    if asked is None:
        return limit
    if limit is not None and asked > limit:
        raise UsageError(f"--max-length {asked}: the model takes {limit} tokens at most")
    special = tokens.added
    if asked <= special:
        raise UsageError(f"--max-length {asked}: the {special} special tokens alone leave no room for text")
    return asked


def positions(model: nn.Module) -> int | None:
    """How many positions the model knows."""
    found: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            # RoBERTa's kind: positions start behind that of the padding
            return module.num_embeddings - module.padding_idx - 1
    return found


def vocabulary(model: nn.Module) -> int | None:
    """How many tokens the model knows."""
    embeddings = None
    with contextlib.suppress(NotImplementedError, AttributeError):  # parts whose class does not say
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
    found: int | None = getattr(embeddings, "num_embeddings", getattr(model.config, "vocab_size", None))
    return found
