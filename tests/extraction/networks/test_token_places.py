"""Rows that are one token of a text, or those of a span of its characters, against plain calls and indexing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import reading, rows

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.networks.token_places import span_tokens
from contrasim_cli.extraction.sources.passages import Passage

TEXTS = ["the unbelievable winter", "talking", "a winter's tale; é 漢字 of the talkers", "walked in the winter"]
MAKERS = {
    "bert": tiny.wordpiece_tokenizer,
    "gpt2": lambda **options: tiny.byte_tokenizer(False, **options),
    "llama": tiny.chat_tokenizer,
    "t5": tiny.sentencepiece_tokenizer,
}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path / "s.txt"


def made(folder: Path, kind: str, **options: Any) -> Path:
    tiny.from_config(folder, tiny.TEXT_CONFIGS[kind]())
    MAKERS[kind](**options).save_pretrained(folder)
    return folder


def padded(folder: Path, texts: list[str], side: str) -> tuple[list[torch.Tensor], list[int]]:
    """The states [n, tokens, width] of every layer of one padded batch, and where each text begins in it, by a plain call."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side=side)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = "<pad>"
    inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    mask = inputs["attention_mask"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    if model.config.model_type != "t5":  # which alone does not count positions from the padding
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    return list(hidden), mask.argmax(1).tolist()


def lengths(folder: Path) -> list[int]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [len(tokenizer(text)["input_ids"]) for text in TEXTS]


def check(found: Any, wanted: list[torch.Tensor]) -> None:
    assert list(found) == ["hidden_0", "hidden_1", "hidden_2"]
    for rows_found, expected in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(rows_found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("position", ["first", "last", "1", "-2"])
def test_a_row_is_the_token_at_a_position(tmp_path: Path, lines: Path, kind: str, side: str, position: str) -> None:
    folder = made(tmp_path / kind, kind, padding_side=side)
    states, begins = padded(folder, TEXTS, side)
    number = {"first": 0, "last": -1}.get(position) if position.isalpha() else int(position)
    assert number is not None
    places = [begin + number % length for begin, length in zip(begins, lengths(folder), strict=True)]
    network = reading(folder, lines, position=[position])
    check(rows(network, TEXTS), [state[range(len(TEXTS)), places] for state in states])
    assert network.prepare(TEXTS, 0).units is None


def test_several_positions_are_several_rows(tmp_path: Path, lines: Path) -> None:
    folder = made(tmp_path / "llama", "llama")
    network = reading(folder, lines, position=["-1", "subject", "first"])
    items = [Passage(text, positions={"subject": place}) for text, place in zip(TEXTS, (2, -1, 3, 1), strict=True)]
    states, begins = padded(folder, TEXTS, "right")
    assert begins == [0] * 4
    wanted = [
        torch.cat(
            [
                state[k, [length - 1, place % length, 0]]
                for k, (length, place) in enumerate(zip(lengths(folder), (2, -1, 3, 1), strict=True))
            ]
        )
        for state in states
    ]
    check(rows(network, items, 3), wanted)
    assert network.prepare(items, 0).units == [["-1", "subject", "first"]] * 4


def characters(folder: Path, text: str, start: int, stop: int) -> list[int]:
    """The tokens of a span, by tokenising the text up to every character: those in whose making the span has a part."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mapping = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return [
        place for place, (a, b) in enumerate(mapping) if any(start <= character < stop for character in range(a, b))
    ]


SPANS = [
    (4, 16),
    (0, 7),
    (11, 21),
    (10, 13),
]  # unbelievable, talking, " tale; é 漢", " the" of which the space does not count


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("how", ["mean", "first", "last", "max"])
def test_a_row_is_the_tokens_of_a_span(tmp_path: Path, lines: Path, kind: str, side: str, how: str) -> None:
    folder = made(tmp_path / kind, kind, padding_side=side)
    states, begins = padded(folder, TEXTS, side)
    pool = {"mean": lambda s: s.mean(0), "first": lambda s: s[0], "last": lambda s: s[-1], "max": lambda s: s.amax(0)}[
        how
    ]
    inner = [span if text[span[0]] != " " else (span[0] + 1, span[1]) for text, span in zip(TEXTS, SPANS, strict=True)]
    places = [characters(folder, text, *span) for text, span in zip(TEXTS, inner, strict=True)]
    assert max(map(len, places)) > 1
    wanted = [
        torch.stack([pool(state[k, [begins[k] + place for place in found]]) for k, found in enumerate(places)])
        for state in states
    ]
    network = reading(folder, lines, span="where", pool=how)
    items = [Passage(text, span) for text, span in zip(TEXTS, SPANS, strict=True)]
    check(rows(network, items), wanted)
    check(rows(network, items, 1), wanted)
    assert network.pooling == f"span-{how}"


def test_a_span_is_found_in_a_text_that_begins_with_bos(tmp_path: Path, lines: Path) -> None:
    folder = made(tmp_path / "llama", "llama")
    network = reading(folder, lines, span="where")
    plain = rows(network, [Passage("the winter", (4, 10))])
    begun = rows(network, [Passage("<s>the winter", (7, 13))])
    check(begun, [torch.from_numpy(layer) for layer in plain.values()])


def test_tokens_that_were_added_are_in_no_span(tmp_path: Path, lines: Path) -> None:
    network: Any = reading(made(tmp_path / "bert", "bert"), lines, span="where")
    (whole,) = network.tokens.encode(["the winter"])
    assert span_tokens(Passage("the winter", (0, 10)), "the winter", whole, whole, 0) == (1, len(whole.ids) - 1)


@pytest.mark.parametrize(
    ("options", "item", "message"),
    [
        ({"position": ["3"]}, "a", "row 6: has no token at position 3: it has 2"),
        ({"position": ["-4"]}, "a", "row 6: has no token at position -4: it has 2"),
        ({"position": ["last"], "special_tokens": "none"}, "", "row 6: has no token at position last (-1): it has 0"),
        ({"position": ["at"]}, Passage("a", positions={"at": 9}), "row 6: has no token at position at (9): it has 2"),
        (
            {"span": "at", "max_length": 4},
            Passage("talking of the winter", (4, 21)),
            "row 6: span 4:21 is cut off: the model reads 4 tokens",
        ),
    ],
)  # fmt: skip
def test_what_hits_no_token_is_refused_with_its_row(
    tmp_path: Path, lines: Path, options: Any, item: Any, message: str
) -> None:
    network = reading(made(tmp_path / "llama", "llama"), lines, **options)
    with pytest.raises(InputError) as caught:
        network.prepare([item], 6)
    assert str(caught.value) == message


def test_a_span_of_what_the_tokenizer_drops_is_refused(tmp_path: Path, lines: Path) -> None:
    network = reading(made(tmp_path / "bert", "bert"), lines, span="at")
    with pytest.raises(InputError, match=r"^row 0: span 1:2 holds no token$"):
        network.prepare([Passage("a  b", (1, 2))], 0)


@pytest.mark.parametrize(
    ("options", "option", "other"),
    [
        ({"position": ["1"], "span": "a"}, "--span", "--position"),
        ({"position": ["1"], "pool": "mean"}, "--position", "--pool"),
        ({"position": ["1"], "unit": "word"}, "--position", "--unit word"),
        ({"span": "a", "unit": "word"}, "--span", "--unit word"),
        ({"span": "a", "special_tokens": "pool-without"}, "--span", "--special-tokens pool-without"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, lines: Path, options: Any, option: str, other: str
) -> None:
    with pytest.raises(UsageError) as caught:
        reading(made(tmp_path / "llama", "llama"), lines, **options)
    said = f"{option} says which tokens make a row; {other} does not go with it, leave it out"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"span": "a", "pool": "cls"}, "--pool cls is not for spans; choose mean, first, last or max"),
        ({"position": ["1", "a", "1"]}, "--position names 1 twice"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, lines: Path, options: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        reading(made(tmp_path / "llama", "llama"), lines, **options)
    assert str(caught.value) == message


def test_a_tokenizer_without_offsets_is_refused_for_spans(tmp_path: Path, lines: Path) -> None:
    config = transformers.T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    transformers.ByT5Tokenizer().save_pretrained(tiny.from_config(tmp_path / "byt5", config))
    with pytest.raises(UsageError) as caught:
        reading(tmp_path / "byt5", lines, span="a")
    assert str(caught.value) == (
        "--span: ByT5Tokenizer does not say where its tokens come from; give a fast tokenizer (--tokenizer)"
    )
    assert rows(reading(tmp_path / "byt5", lines, position=["-1"]), TEXTS)["hidden_1"].shape == (4, 16)
