"""Folders of adapters: rows are those of plain peft."""

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tiny
import torch
import transformers
from helpers import run

TEXTS = ["the unbelievable winter", "talking", "a winter's tale of the talkers, walking and walked"]
HEADS = {
    "bert": (transformers.BertForSequenceClassification, "SEQ_CLS", ["query", "value"]),
    "llama": (transformers.LlamaForCausalLM, "CAUSAL_LM", ["q_proj", "down_proj"]),
    "gpt2": (transformers.GPT2LMHeadModel, "CAUSAL_LM", ["c_attn"]),
    "roberta": (transformers.RobertaModel, "FEATURE_EXTRACTION", ["key"]),
}


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft")


def saved(folder: Path, kind: str, peft: Any, **options: Any) -> Path:
    """A base model, and an adapter with weights that change it, made with a head as people train it."""
    head, task, targets = HEADS[kind]
    torch.manual_seed(0)
    head(tiny.TEXT_CONFIGS[kind]()).save_pretrained(folder / "base")
    tokenizer = tiny.wordpiece_tokenizer() if kind == "bert" else tiny.byte_tokenizer(kind == "roberta")
    tokenizer.save_pretrained(folder / "base")
    base = head.from_pretrained(folder / "base")
    config = peft.LoraConfig(
        task_type=task, target_modules=targets, r=2, init_lora_weights=False, lora_dropout=0.5, **options
    )
    peft.get_peft_model(base, config).save_pretrained(folder / "adapter")
    return folder / "adapter"


def extracted(model: Path, folder: Path) -> Any:
    (folder / "s.txt").write_text("\n".join(TEXTS) + "\n")
    result = run("extract", "--model", model, "--text", folder / "s.txt", "-o", folder / "o.h5", "--force")
    assert result.code == 0, result.stderr
    with h5py.File(folder / "o.h5") as store:
        assert store.attrs["model"] == model.name
        return {name: store["layers"][name][:] for name in store["layers"]}


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_rows_are_those_of_plain_peft(kind: str, tmp_path: Path, peft: Any) -> None:
    adapter = saved(tmp_path, kind, peft)
    plain = peft.PeftModel.from_pretrained(HEADS[kind][0].from_pretrained(tmp_path / "base"), adapter).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    items = [plain(**tokens(text, return_tensors="pt"), output_hidden_states=True).hidden_states for text in TEXTS]
    found, base = extracted(adapter, tmp_path), extracted(tmp_path / "base", tmp_path)
    assert sorted(found) == ["hidden_0", "hidden_1", "hidden_2"]
    for index in range(3):
        expected = torch.stack([item[index][0].mean(0) for item in items])
        np.testing.assert_allclose(found[f"hidden_{index}"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found["hidden_2"] - base["hidden_2"]).max() > 1e-2


def refused(folder: Path, tmp_path: Path, *options: str) -> tuple[int, str]:
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    result = run("extract", "--model", folder, "--text", tmp_path / "s.txt", "-o", tmp_path / "o.h5", *options)
    return result.code, result.stderr.replace(f"{tmp_path}/", "")


def test_what_does_not_fit_is_one_line(tmp_path: Path, peft: Any) -> None:
    adapter = saved(tmp_path, "bert", peft)
    said = json.loads((adapter / "adapter_config.json").read_text())

    def rewritten(**changed: Any) -> None:
        (adapter / "adapter_config.json").write_text(json.dumps(said | changed))

    rewritten(base_model_name_or_path=f"{tmp_path}/gone")
    assert refused(adapter, tmp_path) == (
        3,
        "contrasim: error: adapter: adapts gone, and there is no such folder; write where it is into adapter_config.json "
        "(base_model_name_or_path)\n",
    )
    rewritten(base_model_name_or_path=None)
    code, line = refused(adapter, tmp_path)
    assert (code, "does not say which model it adapts" in line) == (3, True)
    tiny.from_config(tmp_path / "other", tiny.TEXT_CONFIGS["distilbert"]())
    rewritten(base_model_name_or_path=f"{tmp_path}/other")
    code, line = refused(adapter, tmp_path)
    assert (code, line.startswith("contrasim: error: adapter: its adapter does not fit its base other (")) == (3, True)
    assert line.count("\n") == 1
    rewritten()
    code, line = refused(adapter, tmp_path, "--random-weights")
    assert (code, line) == (
        2,
        "contrasim: error: --random-weights does not go with the adapter adapter; leave it out\n",
    )
    weights = adapter / "adapter_model.safetensors"
    weights.rename(adapter / "adapter_model.bin")
    assert refused(adapter, tmp_path) == (
        3,
        "contrasim: error: adapter: has no adapter_model.safetensors; save the adapter as safetensors\n",
    )


def test_an_adapter_of_more_layers_than_the_base_has_is_refused(tmp_path: Path, peft: Any) -> None:
    adapter = saved(tmp_path, "llama", peft)
    config = tiny.TEXT_CONFIGS["llama"]()
    config.num_hidden_layers = 1
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    code, line = refused(adapter, tmp_path)
    assert code == 3
    assert "its adapter does not fit its base base (the model has no base_model.model.layers.1." in line


def test_an_adapter_that_adds_tokens_is_refused(tmp_path: Path, peft: Any) -> None:
    adapter = saved(tmp_path, "bert", peft)
    base = transformers.BertModel.from_pretrained(tmp_path / "base")
    peft.get_peft_model(
        base, peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=2)
    ).save_pretrained(adapter)
    code, line = refused(adapter, tmp_path)
    assert (code, "its adapter puts tokens before the text" in line) == (3, True)


def test_without_peft_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.bert(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": f"{tmp_path}/base"})
    )
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "peft", None)
    assert refused(tmp_path / "adapter", tmp_path) == (
        6,
        "contrasim: error: adapter: is an adapter of peft, and needs the extra peft: pip install 'contrasim[peft]'\n",
    )
