"""Rows of chats, against transformers' own `apply_chat_template` and plain calls."""

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
from contrasim_cli.extraction.sources.passages import Passage

CHATS = [
    [{"role": "user", "content": "the winter"}],
    [{"role": "user", "content": "a tale?"}, {"role": "assistant", "content": "of the talkers"}],
    [{"role": "user", "content": "talking"}],
]
ITEMS = ["the winter", Passage("a tale?\nof the talkers", messages=CHATS[1]), "talking"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "s.txt").write_text("a\n")
    return tmp_path / "s.txt"


def batch(folder: Path, side: str, **options: Any) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The states of every layer of all chats in one padded batch, its tokens and its mask, by plain calls of transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side=side)
    inputs = tokenizer.apply_chat_template(
        CHATS, padding=True, return_tensors="pt", return_dict=True, tokenize=True, **options
    )
    mask = inputs["attention_mask"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        hidden = model(inputs["input_ids"], attention_mask=mask, position_ids=positions, output_hidden_states=True)
    return list(hidden.hidden_states), inputs["input_ids"], mask


def check(found: Any, wanted: list[torch.Tensor]) -> None:
    for name, expected in zip(("hidden_0", "hidden_1", "hidden_2"), wanted, strict=True):
        np.testing.assert_allclose(found[name], expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_those_of_the_tokenizers_own_template(
    tmp_path: Path, lines: Path, side: str, generation: bool
) -> None:
    folder = tiny.llama(tmp_path / "llama", padding_side=side)
    states, ids, mask = batch(folder, side, add_generation_prompt=generation)
    options: Any = {"template": "chat", "generation_prompt": generation}
    network = reading(folder, lines, **options)
    assert [row.count(0) for row in network.prepare(ITEMS, 0).ids] == [1, 1, 1]  # BOS, which the template writes
    weights = mask.unsqueeze(-1) / mask.sum(1).view(-1, 1, 1)
    check(rows(network, ITEMS), [(state * weights).sum(1) for state in states])
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    check(rows(reading(folder, lines, position=["-1"], **options), ITEMS), [s[range(3), last] for s in states])
    special = torch.isin(ids, torch.tensor([0, 1, 2])) | (mask == 0)
    weights = (~special).unsqueeze(-1) / (~special).sum(1).view(-1, 1, 1)
    network = reading(folder, lines, special_tokens="pool-without", **options)
    check(rows(network, ITEMS), [(state * weights).sum(1) for state in states])


def test_a_generation_prompt_and_a_template_change_rows(tmp_path: Path, lines: Path) -> None:
    folder = tiny.llama(tmp_path / "llama")
    plain = rows(reading(folder, lines), ["the winter"])["hidden_2"]
    chat = rows(reading(folder, lines, template="chat"), ["the winter"])["hidden_2"]
    asked = rows(reading(folder, lines, template="chat", generation_prompt=True), ["the winter"])["hidden_2"]
    assert np.abs(plain - chat).max() > 1e-2
    assert np.abs(asked - chat).max() > 1e-2


@pytest.mark.parametrize("text", ["the winter", "  the winter\n", "user winter", "r"])
def test_a_span_is_that_of_the_users_text(tmp_path: Path, lines: Path, text: str) -> None:
    folder = tiny.llama(tmp_path / "llama")
    start = text.index("winter") if "winter" in text else 0
    span = (start, start + len("winter" if "winter" in text else "r"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    written = f"<s><|user|>\n{text.strip()}</s>\n"
    assert tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False) == written
    first = len("<s><|user|>\n") + span[0] - len(text) + len(text.lstrip())
    encoded = tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
    wanted = [k for k, (a, b) in enumerate(encoded["offset_mapping"]) if a < first + span[1] - span[0] and b > first]
    network: Any = reading(folder, lines, template="chat", span="at")
    found = network.prepare([Passage(text, span)], 0)
    assert found.ids == [encoded["input_ids"]]
    assert found.spans == [{0: (wanted[0], wanted[-1] + 1)}]


LOUD = "{{ bos_token }}{{ messages[0]['content'] | upper }}"
STRICT = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system prompt is missing') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "item", "message"),
    [
        (STRICT, "a", "row 4: the chat template refuses it (a system prompt is missing)"),
        (LOUD, Passage("the", (0, 1)), "row 4: the chat template changes the text, so that its span is not found"),
        (None, Passage("the  ", (3, 5)), "row 4: span 3:5 is white space, which the chat template leaves out"),
    ],
)
def test_what_a_template_does_not_take_is_an_error_of_its_row(
    tmp_path: Path, lines: Path, template: str | None, item: Any, message: str
) -> None:
    folder = tiny.llama(tmp_path / "llama")
    if template is not None:
        tokenizer = tiny.chat_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    network = reading(folder, lines, template="chat", span=None if isinstance(item, str) else "at")
    with pytest.raises(InputError) as caught:
        network.prepare([item], 4)
    assert str(caught.value) == message


def test_a_template_that_writes_the_date_is_told_of(
    tmp_path: Path, lines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny.llama(tmp_path / "llama")
    plain = reading(folder, lines, template="chat").digest
    assert plain == reading(folder, lines).digest
    assert caplog.messages == []
    tokenizer = tiny.chat_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d') }}" + tiny.CHAT
    tokenizer.save_pretrained(folder)
    caplog.set_level(logging.WARNING)
    assert reading(folder, lines, template="chat").digest != reading(folder, lines).digest
    assert caplog.messages == ["llama: the chat template writes the date: another day's rows differ"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"special_tokens": "none"}, "--special-tokens none: a chat has those that its template writes; leave it out"),
        ({"unit": "word"}, "--unit word: a chat template is not a sequence of words; leave out one of the two"),
        (
            {"template": None, "generation_prompt": True},
            "--generation-prompt is for --template chat; give both, or leave it out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, lines: Path, options: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        reading(tiny.llama(tmp_path / "llama"), lines, **{"template": "chat", **options})
    assert str(caught.value) == message


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path, lines: Path) -> None:
    with pytest.raises(UsageError) as caught:
        reading(tiny.bert(tmp_path / "bert"), lines, template="chat")
    assert str(caught.value) == (
        "--template chat: the tokenizer of bert has no chat template; give one that has (--tokenizer)"
    )
