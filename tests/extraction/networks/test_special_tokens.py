"""Special tokens: kept, seen but not pooled, or not there."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import reading, rows

from contrasim_cli.errors import InputError, UsageError

TEXTS = ["the winter", "talking of the unbelievable winter's tale", "<s>walked", "a", "<s> the talkers </s>"]
MAKERS = {"bert": tiny.wordpiece_tokenizer, "roberta": lambda: tiny.byte_tokenizer(True), "llama": tiny.chat_tokenizer}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path / "s.txt"


def made(folder: Path, kind: str) -> Path:
    tiny.from_config(folder, tiny.TEXT_CONFIGS[kind]())
    MAKERS[kind]().save_pretrained(folder)
    return folder


def states(folder: Path, ids: list[int]) -> list[torch.Tensor]:
    """[tokens, width] of every layer, by a plain call."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return [state[0] for state in model(torch.tensor([ids]), output_hidden_states=True).hidden_states]


def ids_by_hand(folder: Path, text: str, special: bool) -> list[int]:
    """With a single BOS, where the tokenizer would put a second one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
    return ids[1:] if special and text.startswith("<s>") and tokenizer.bos_token == "<s>" else ids


def check(folder: Path, found: Any, expected: list[list[torch.Tensor]]) -> None:
    for layer, name in enumerate(found):
        wanted = torch.stack([item[layer] for item in expected]).numpy()
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_counts_the_tokens_asked_for(tmp_path: Path, lines: Path, kind: str) -> None:
    folder = made(tmp_path / kind, kind)
    special = set(
        transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(["<s>", "</s>", "[CLS]", "[SEP]"])
    )
    special -= {transformers.AutoTokenizer.from_pretrained(folder).unk_token_id}
    kept, without, none = [], [], []
    for text in TEXTS:
        ids = ids_by_hand(folder, text, True)
        inner = [place for place, token in enumerate(ids) if token not in special]
        kept.append([state.mean(0) for state in states(folder, ids)])
        without.append([state[inner].mean(0) for state in states(folder, ids)])
        none.append([state.mean(0) for state in states(folder, ids_by_hand(folder, text, False))])
    check(folder, rows(reading(folder, lines), TEXTS), kept)
    check(folder, rows(reading(folder, lines, special_tokens="pool-without"), TEXTS), without)
    check(folder, rows(reading(folder, lines, special_tokens="none"), TEXTS), none)
    assert not torch.allclose(kept[0][2], without[0][2], atol=1e-2)
    assert not torch.allclose(without[0][2], none[0][2], atol=1e-2)


@pytest.mark.parametrize(("pool", "place"), [("first", 1), ("last", -1), ("none", slice(1, None))])
def test_other_poolings_leave_special_tokens_out_too(tmp_path: Path, lines: Path, pool: str, place: Any) -> None:
    folder = tiny.llama(tmp_path / "llama")
    found = reading(folder, lines, special_tokens="pool-without", pool=pool)
    wanted = states(folder, ids_by_hand(folder, "talking", True))[2][place]
    np.testing.assert_allclose(
        rows(found, ["talking", "a"])["hidden_2"][: len(wanted) if pool == "none" else 1],
        wanted.view(-1, 16),
        atol=1e-5,
    )
    if pool == "none":
        assert found.prepare(["talking"], 0).units == [list(map(str, range(1, 1 + len(wanted))))]


def test_a_tokenizer_without_offsets_has_special_tokens_too(tmp_path: Path, lines: Path) -> None:
    config = transformers.T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    transformers.ByT5Tokenizer().save_pretrained(tiny.from_config(tmp_path / "byt5", config))
    found = reading(tmp_path / "byt5", lines, special_tokens="pool-without").prepare(["ab"], 0)
    assert found.ids == [[100, 101, 1]]
    assert found.batch([0])["counted"].tolist() == [[1, 1, 0]]
    assert reading(tmp_path / "byt5", lines, special_tokens="none").prepare(["ab"], 0).ids == [[100, 101]]


def test_unknown_tokens_are_text(tmp_path: Path, lines: Path) -> None:
    folder = made(tmp_path / "bert", "bert")
    found = reading(folder, lines, special_tokens="pool-without").prepare(["漢 a"], 0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert found.ids[0][1] == tokenizer.unk_token_id
    assert found.batch([0])["counted"].tolist() == [[0, 1, 1, 0]]


def test_a_second_bos_is_told_of_once(tmp_path: Path, lines: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tiny.llama(tmp_path / "llama")
    network = reading(folder, lines)
    for _ in range(2):
        found = network.prepare(["<s>a", "<s><s>a", "a"], 0)
        assert [ids[:3].count(0) for ids in found.ids] == [1, 2, 1]
    assert caplog.messages == ["llama: texts that begin with <s> get no second one from the tokenizer"]


def test_a_tokenizer_that_adds_no_bos_takes_none_away(tmp_path: Path, lines: Path) -> None:
    tiny.from_config(tmp_path / "gpt2", tiny.TEXT_CONFIGS["gpt2"]())
    tokenizer = tiny.byte_tokenizer(False)
    tokenizer.bos_token = "<s>"
    tokenizer.save_pretrained(tmp_path / "gpt2")
    assert reading(tmp_path / "gpt2", lines).prepare(["<s><s>a"], 0).ids[0][:2] == [0, 0]


def test_a_text_that_begins_with_bos_is_cut_at_the_limit(tmp_path: Path, lines: Path) -> None:
    folder = tiny.llama(tmp_path / "llama")
    found = reading(folder, lines, max_length=4).prepare(["<s>the winter of talking", "<s>the winter"], 0)
    whole = ids_by_hand(folder, "the winter of talking", True)
    assert found.ids == [whole[:4], ids_by_hand(folder, "the winter", True)]
    assert list(found.cut) == [0]


def test_words_are_those_of_texts_with_one_bos(tmp_path: Path, lines: Path) -> None:
    network = reading(tiny.llama(tmp_path / "llama"), lines, unit="word")
    plain, begun = rows(network, ["the winter"]), rows(network, ["<s>the winter"])
    np.testing.assert_allclose(begun["hidden_2"][1], plain["hidden_2"][1], atol=1e-5)
    assert network.prepare(["<s> the"], 0).spans == [{0: (0, 1), 1: (1, 2)}]
    none = reading(tmp_path / "llama", lines, unit="word", special_tokens="none").prepare(["the winter"], 0)
    assert none.spans[0][0][0] == 0


@pytest.mark.parametrize(
    ("special", "text", "message"),
    [
        ("none", "", "row 4 has no tokens: the text is empty for llama"),
        ("pool-without", "", "row 4 has no tokens but special ones, which --special-tokens pool-without leaves out"),
        (
            "pool-without",
            "<s></s>",
            "row 4 has no tokens but special ones, which --special-tokens pool-without leaves out",
        ),
    ],
)
def test_a_text_without_tokens_is_refused(tmp_path: Path, lines: Path, special: str, text: str, message: str) -> None:
    network = reading(tiny.llama(tmp_path / "llama"), lines, special_tokens=special)
    with pytest.raises(InputError) as caught:
        network.prepare(["a", text], 3)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pool": "cls"},
            "--pool cls takes a special token, which --special-tokens pool-without leaves out; give --pool first",
        ),
        (
            {"pool": "cls", "special_tokens": "none"},
            "--pool cls takes a special token, which --special-tokens none leaves out; give --pool first",
        ),
        ({"unit": "word"}, "--special-tokens pool-without: no word has special tokens; leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, lines: Path, options: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        reading(tiny.llama(tmp_path / "llama"), lines, **{"special_tokens": "pool-without", **options})
    assert str(caught.value) == message
