"""A model ends behind the last layer that is asked for, with the rows of the whole run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from networks import reading, rows, seeing

TEXTS = ["the unbelievable winter", "talking", "a winter's tale of the talkers, walking and walked"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of module that run."""
    ran: list[str] = []
    plain = torch.nn.Module.__call__

    def call(self: Any, *given: Any, **named: Any) -> Any:
        ran.append(type(self).__name__)
        return plain(self, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "__call__", call)
    return ran


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "t5"])
def test_the_layers_before_are_those_of_a_whole_run(kind: str, tmp_path: Path, calls: list[str]) -> None:
    folder = tiny.from_config(tmp_path / "m", tiny.TEXT_CONFIGS[kind]())
    tiny.sentencepiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    every = reading(folder, tmp_path / "s.txt")
    whole = rows(every, TEXTS)
    few = reading(folder, tmp_path / "s.txt", layers=["hidden_0", "hidden_1"])
    found = rows(few, TEXTS)
    assert list(found) == ["hidden_0", "hidden_1"]
    for name, values in found.items():
        np.testing.assert_array_equal(values, whole[name])
    counts = []
    for network in (every, few):
        inputs = network.prepare(TEXTS, 0).batch([0, 1])
        calls.clear()
        network.rows(inputs)
        counts.append(len(calls))
    assert counts[1] < 0.65 * counts[0]


def test_a_module_asked_for_by_name_is_the_last_to_run(tmp_path: Path, calls: list[str]) -> None:
    folder = tiny.from_config(tmp_path / "m", tiny.TEXT_CONFIGS["bert"]())
    tiny.wordpiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    network = reading(folder, tmp_path / "s.txt", layers=["encoder.layer.0.attention", "embeddings.word_embeddings"])
    rows(network, TEXTS)
    calls.clear()
    network.rows(network.prepare(TEXTS, 0).batch([0]))
    assert calls[-1] == "LayerNorm"
    assert "BertOutput" not in calls


def test_images_end_early_too(tmp_path: Path, calls: list[str]) -> None:
    folder = tiny.from_config(tmp_path / "m", tiny.IMAGE_CONFIGS["resnet"]())
    pixels = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    whole = rows(seeing(folder, tmp_path / "i.npy"), pixels)
    network = seeing(folder, tmp_path / "i.npy", layers=["hidden_0"])
    np.testing.assert_array_equal(rows(network, pixels)["hidden_0"], whole["hidden_0"])
    calls.clear()
    network.rows(network.prepare(pixels, 0).batch([0]))
    assert "ResNetStage" not in calls


class Halved(torch.nn.Module):
    """A module whose states are changed behind it, so that no module puts them out."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.config = inner.config
        self.main_input_name = "input_ids"

    def forward(self, input_ids: Any, attention_mask: Any = None, **asked: Any) -> Any:
        found = self.inner(input_ids, attention_mask=attention_mask, **asked)
        found.hidden_states = tuple(0.5 * state for state in found.hidden_states)
        return found


def test_states_that_no_module_puts_out_are_read_at_the_end(tmp_path: Path) -> None:
    folder = tiny.from_config(tmp_path / "m", tiny.TEXT_CONFIGS["bert"]())
    tiny.wordpiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    network: Any = reading(folder, tmp_path / "s.txt", layers=["hidden_1"])
    expected = rows(network, TEXTS)["hidden_1"] / 2
    network.part = type(network.part)(Halved(network.model), Halved(network.model))
    np.testing.assert_array_equal(rows(network, TEXTS)["hidden_1"], expected)
    assert network.early is None
