"""One row per word: the sub-word tokens that it has within its sentence."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import reading, rows

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.networks.words import owners_by_offset, owners_by_word, split, whole_words

TEXTS = [
    "the unbelievable winter", "  talking,\tand  walked ", "", "a winter's tale — of the talkers", "\u00a0", "é walking 漢字 ok",
]  # fmt: skip
MAKERS: dict[str, Callable[..., Any]] = {
    "bert": tiny.wordpiece_tokenizer,
    "roberta": lambda **options: tiny.byte_tokenizer(True, **options),
    "gpt2": lambda **options: tiny.byte_tokenizer(False, **options),
    "t5": tiny.sentencepiece_tokenizer,
    "llama": tiny.sentencepiece_tokenizer,
}
SUBWORDS = ["mean", "first", "last"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "s.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def made(folder: Path, kind: str, **options: Any) -> Path:
    tiny.from_config(folder, tiny.TEXT_CONFIGS[kind]())
    MAKERS[kind](**options).save_pretrained(folder)
    return folder


def plain(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def word_tokens(tokenizer: Any, words: list[str]) -> list[list[int]]:
    """The positions of every word's tokens in its sentence, found by tokenising ever more of the sentence.

    The first words of a sentence have the tokens that they have in all of it, because none is split across a space.
    """
    before = [
        len(tokenizer(" ".join(words[:count]), add_special_tokens=False)["input_ids"])
        for count in range(len(words) + 1)
    ]
    ids = tokenizer(" ".join(words))["input_ids"]
    inner = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    frame = next(at for at in range(len(ids)) if ids[at : at + len(inner)] == inner)
    return [list(range(frame + start, frame + stop)) for start, stop in itertools.pairwise(before)]


def slow(model: Any, tokenizer: Any, text: str, how: str, ids: list[int] | None = None) -> list[torch.Tensor]:
    """[words, width] of every layer for one text alone, by a plain call."""
    words = text.split()
    inputs = torch.tensor([tokenizer(" ".join(words))["input_ids"] if ids is None else ids])
    with torch.no_grad():
        hidden = model(input_ids=inputs, output_hidden_states=True).hidden_states
    choose = {"mean": lambda s: s.mean(0), "first": lambda s: s[0], "last": lambda s: s[-1]}[how]
    return [torch.stack([choose(state[0, tokens]) for tokens in word_tokens(tokenizer, words)]) for state in hidden]


@pytest.mark.slow
@pytest.mark.parametrize("how", SUBWORDS)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_is_what_transformers_says_of_the_word_in_its_sentence(
    tmp_path: Path, lines: Path, kind: str, how: str, side: str
) -> None:
    folder = made(tmp_path / kind, kind, padding_side=side)
    model, tokenizer = plain(folder)
    network = reading(folder, lines, unit="word", subword=how)
    assert network.prepare(TEXTS, 0).units == [list(map(str, range(len(text.split())))) for text in TEXTS]
    expected = [slow(model, tokenizer, text, how) for text in TEXTS if text.split()]
    together, alone = rows(network, TEXTS, 64), rows(network, TEXTS, 1)
    for index, layer in enumerate(("hidden_0", "hidden_1", "hidden_2")):
        wanted = torch.cat([item[index] for item in expected]).numpy()
        np.testing.assert_allclose(together[layer], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone[layer], wanted, rtol=1e-5, atol=1e-5)


def test_some_words_have_several_tokens(tmp_path: Path) -> None:
    for kind, make in MAKERS.items():
        counts = [len(tokens) for text in TEXTS if text.split() for tokens in word_tokens(make(), text.split())]
        assert max(counts) > 1, kind


def test_a_text_without_words_alone_has_no_rows(tmp_path: Path, lines: Path) -> None:
    for kind in ("bert", "gpt2"):
        network = reading(made(tmp_path / kind, kind), lines, unit="word")
        assert network.prepare(["", " "], 0).units == [[], []]
        assert rows(network, ["", " "])["hidden_2"].shape == (0, 16)
        assert rows(network, ["", "the"])["hidden_2"].shape == (1, 16)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_word_that_is_cut_off_even_partly_has_no_row(tmp_path: Path, lines: Path, kind: str, side: str) -> None:
    folder = made(tmp_path / kind, kind, truncation_side=side)
    model, tokenizer = plain(folder)
    text = "a winter's unbelievable tale of the talkers"
    words = text.split()
    places, length = word_tokens(tokenizer, words), len(tokenizer(text)["input_ids"])
    special = tokenizer.num_special_tokens_to_add()
    for limit in range(special + 1, length + 2):
        network = reading(folder, lines, unit="word", max_length=limit, layers=["hidden_0"])
        prepared = network.prepare(["the", text], 0)
        gone = max(0, length - limit)
        frame = (places[0][0], places[-1][-1])
        kept = [
            number
            for number, tokens in enumerate(places)
            if (tokens[-1] <= frame[1] - gone if side == "right" else tokens[0] >= frame[0] + gone)
        ]
        assert prepared.units is not None
        assert prepared.units[1] == list(map(str, kept))
        assert list(prepared.cut) == ([1] if gone else [])
        assert prepared.truncated == bool(gone)
        if kind == "bert":
            continue
        # without special tokens, what is left is the model's own reading of the tokens that are left
        left = tokenizer(text)["input_ids"][: limit if side == "right" else None][-limit:]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([left]), output_hidden_states=True).hidden_states[0][0]
        offset = gone if side == "left" else 0
        wanted = [states[[place - offset for place in places[number]]].mean(0).numpy() for number in kept]
        found = rows(network, [text])["hidden_0"]
        np.testing.assert_allclose(found, np.array(wanted).reshape(-1, 16), rtol=1e-5, atol=1e-5)


def test_a_word_that_is_nothing_to_the_tokenizer_has_no_row_and_is_named(
    tmp_path: Path, lines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = reading(made(tmp_path / "bert", "bert"), lines, unit="word")
    assert network.prepare(["the", "the \u200b winter", "\u200b"], 7).units == [["0"], ["0", "2"], []]
    assert [said for said in caplog.messages if "tokenizer" in said] == [
        "row 8: word 1, '\\u200b', gives no token in the tokenizer of bert: such words have no row"
    ]


def test_special_tokens_written_in_a_text_are_words(tmp_path: Path, lines: Path) -> None:
    network = reading(made(tmp_path / "bert", "bert"), lines, unit="word")
    assert network.prepare(["the [SEP] winter"], 0).units == [["0", "1", "2"]]


class Encoding:
    """An encoding of `ab cd` whose only token holds both words."""

    offsets = ((0, 0), (0, 5))
    sequence_ids = (None, 0)


def test_a_token_of_two_words_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        owners_by_offset(Encoding(), ["ab", "cd"], "row 3")
    assert str(caught.value) == ("row 3: one token holds the words ab and cd, so that they have no rows of their own")


class Slow:
    """A tokenizer that says not where its tokens come from: one per letter, and `before` for the space before a word."""

    def __init__(self, before: str | None = "_") -> None:
        self.before = before

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        text = text.replace(" ", self.before or "")
        return {"input_ids": [ord(letter) for letter in text]}


def test_words_of_a_tokenizer_without_offsets() -> None:
    for before, inner in (("_", [0, 0, 1, 1, 2, 2, 2]), (None, [0, 0, 1, 2, 2])):
        tokenizer = Slow(before)
        ids = tokenizer("ab c de")["input_ids"]
        assert owners_by_word(tokenizer, [1, *ids, 2], split("ab c de")) == [None, *inner, None]
        cut = owners_by_word(tokenizer, [1, *ids[:-1], 2], split("ab c de"))
        assert list(whole_words(cut, [None, *inner, None])) == [0, 1]


def test_a_real_tokenizer_without_offsets(tmp_path: Path, lines: Path) -> None:
    tokenizer = transformers.ByT5Tokenizer()
    config = transformers.T5Config(
        vocab_size=400, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    folder = tiny.from_config(tmp_path / "byt5", config)
    tokenizer.save_pretrained(folder)
    model, tokenizer = plain(folder)
    assert not tokenizer.is_fast
    found = rows(reading(folder, lines, unit="word"), TEXTS)
    expected = [slow(model, tokenizer, text, "mean") for text in TEXTS if text.split()]
    wanted = torch.cat([item[2] for item in expected]).numpy()
    np.testing.assert_allclose(found["hidden_2"], wanted, rtol=1e-5, atol=1e-5)


def test_words_that_cannot_be_told_apart_are_refused() -> None:
    class Whole(Slow):
        def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
            return {"input_ids": [len(text)]}

    with pytest.raises(UsageError) as caught:
        owners_by_word(Whole(), [5], ["ab", "cd"])
    assert str(caught.value) == (
        "--unit word: Whole does not say which tokens belong to which word; give a fast tokenizer (--tokenizer)"
    )


def test_a_pooling_is_refused_for_words(tmp_path: Path, lines: Path) -> None:
    folder = made(tmp_path / "bert", "bert")
    with pytest.raises(UsageError) as caught:
        reading(folder, lines, unit="word", pool="mean")
    assert str(caught.value) == (
        "--pool does not go with --unit word; --subword says how a word's tokens become its row"
    )
    with pytest.raises(UsageError, match="--subword sum is not for sub-words; choose mean, first or last"):
        reading(folder, lines, unit="word", subword="sum")
