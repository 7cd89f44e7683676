"""What blocks add to the residual stream, by names that all models share; heads; and what modules are given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import reading, rows, seeing

from contrasim_cli.errors import UsageError

TEXTS = ["the unbelievable winter", "talking", "a winter's tale of the talkers, walking and walked"]
SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
# attention and feed-forward network of a block, by the paths that their authors chose
PARTS = {
    "llama": ("self_attn", "mlp"),
    "gpt2": ("attn", "mlp"),
    "gpt-neox": ("attention", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "phi": ("self_attn", "mlp"),
    "opt": ("self_attn", "fc2"),
}
OTHERS = {
    "gemma2": lambda: transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "phi": lambda: transformers.PhiConfig(**SMALL),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32
    ),
}


def made(kind: str, folder: Path) -> Path:
    config = OTHERS[kind]() if kind in OTHERS else tiny.TEXT_CONFIGS[kind]()
    tiny.from_config(folder / kind, config)
    tiny.sentencepiece_tokenizer().save_pretrained(folder / kind)
    (folder / "s.txt").write_text("\n".join(TEXTS) + "\n")
    return folder / kind


@torch.no_grad()
def plain(folder: Path, text: str, paths: list[str]) -> list[torch.Tensor]:
    """The mean over a text's tokens of what modules put out."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_token_type_ids=False)
    kept: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda module, given, output, name=name: kept.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
    model(**inputs)
    return [kept[path].reshape(-1, kept[path].shape[-1]).mean(0) for path in paths]


@pytest.mark.parametrize("kind", PARTS)
def test_parts_of_blocks_have_the_same_names_in_all_models(kind: str, tmp_path: Path) -> None:
    folder = made(kind, tmp_path)
    network: Any = reading(folder, tmp_path / "s.txt", layers=["resid_*", "attn_*", "mlp_1"])
    found = rows(network, TEXTS)
    assert list(found) == ["resid_0", "resid_1", "attn_0", "attn_1", "mlp_1"]
    blocks = network.aliases["resid_0"], network.aliases["resid_1"]
    attention, feed_forward = PARTS[kind]
    paths = [*blocks, *(f"{block}.{attention}" for block in blocks), f"{blocks[1]}.{feed_forward}"]
    for place, text in enumerate(TEXTS):
        for rows_of, expected in zip(found.values(), plain(folder, text, paths), strict=True):
            np.testing.assert_allclose(rows_of[place], expected, rtol=1e-4, atol=1e-5)


def test_a_block_adds_its_parts_to_what_it_is_given(tmp_path: Path) -> None:
    folder = made("llama", tmp_path)
    found = rows(reading(folder, tmp_path / "s.txt", layers=["resid_0", "attn_1", "mlp_1", "resid_1"]), TEXTS)
    total = found["resid_0"] + found["attn_1"] + found["mlp_1"]
    np.testing.assert_allclose(total, found["resid_1"], rtol=1e-4, atol=1e-5)
    whole = rows(reading(folder, tmp_path / "s.txt"), TEXTS)
    np.testing.assert_array_equal(found["resid_0"], whole["hidden_1"])
    assert not np.allclose(found["resid_1"], whole["hidden_2"])  # which is behind the last normalisation


def test_blocks_that_normalise_their_sums_have_no_such_parts(tmp_path: Path) -> None:
    folder = tiny.from_config(tmp_path / "bert", tiny.TEXT_CONFIGS["bert"]())
    tiny.wordpiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    assert list(rows(reading(folder, tmp_path / "s.txt", layers=["resid_*"]), TEXTS)) == ["resid_0", "resid_1"]
    with pytest.raises(UsageError, match="attn_0"):
        rows(reading(folder, tmp_path / "s.txt", layers=["attn_0"]), TEXTS)


def test_blocks_of_images_have_them_too(tmp_path: Path) -> None:
    folder = tiny.from_config(tmp_path / "vit", tiny.IMAGE_CONFIGS["vit"]())
    pixels = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    found = rows(seeing(folder, tmp_path / "i.npy", layers=["resid_0", "attn_1", "mlp_1", "resid_1"]), pixels)
    total = found["resid_0"] + found["attn_1"] + found["mlp_1"]
    np.testing.assert_allclose(total, found["resid_1"], rtol=1e-4, atol=1e-5)


def test_they_are_listed(tmp_path: Path) -> None:
    listed = reading(made("llama", tmp_path), tmp_path / "s.txt").widths()
    assert {"hidden_0", "layers.0.self_attn", "resid_1", "attn_0", "mlp_1"} <= set(listed)


@torch.no_grad()
def test_heads_are_layers(tmp_path: Path) -> None:
    folder = made("llama", tmp_path)
    asked = {"layers": ["layers.*.self_attn.o_proj"], "hook": "input", "split_heads": True}
    found = rows(reading(folder, tmp_path / "s.txt", **asked), TEXTS)
    assert list(found) == [f"layers.{k}.self_attn.o_proj.head_{head}" for k in (0, 1) for head in (0, 1)]
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    kept: list[torch.Tensor] = []
    model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda module, given: kept.append(given[0][0]))
    for place, text in enumerate(TEXTS):
        model(**tokens(text, return_tensors="pt", return_token_type_ids=False))
        heads = kept[-1].unflatten(-1, (2, -1)).mean(0)
        for head in (0, 1):
            mine = found[f"layers.1.self_attn.o_proj.head_{head}"][place]
            np.testing.assert_allclose(mine, heads[head], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_heads_of_keys_are_as_many_as_there_are(tmp_path: Path) -> None:
    config = transformers.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=16)
    folder = tiny.from_config(tmp_path / "qwen3", config)
    tiny.sentencepiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    for part, count in (("q_proj", 4), ("k_proj", 2)):
        path = f"layers.0.self_attn.{part}"
        network = reading(folder, tmp_path / "s.txt", layers=[path], split_heads=True)
        found = rows(network, TEXTS)
        assert [one.shape[1] for one in found.values()] == [16] * count
        for place, text in enumerate(TEXTS):
            whole = np.concatenate([found[f"{path}.head_{head}"][place] for head in range(count)])
            np.testing.assert_allclose(whole, plain(folder, text, [path])[0], rtol=1e-4, atol=1e-5)


def test_a_decoder_has_heads_of_its_own(tmp_path: Path) -> None:
    config = transformers.BartConfig(
        vocab_size=128, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=8,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    folder = tiny.from_config(tmp_path / "bart", config)
    tiny.sentencepiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    asked = {"layers": ["layers.0.self_attn.out_proj"], "hook": "input", "split_heads": True}
    for part, count in (("decoder", 4), ("encoder", 8)):
        found = rows(reading(folder, tmp_path / "s.txt", part=part, **asked), TEXTS)
        assert [one.shape[1] for one in found.values()] == [32 // count] * count


@pytest.mark.parametrize(("kind", "path"), [("gpt2", "h.0.attn.c_attn"), ("llama", "attn_0"), ("llama", "resid_1")])
def test_what_is_not_heads_side_by_side_is_not_split(kind: str, path: str, tmp_path: Path) -> None:
    network = reading(made(kind, tmp_path), tmp_path / "s.txt", layers=[path], split_heads=True)
    with pytest.raises(UsageError, match="is not made of 2 heads"):
        rows(network, TEXTS)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"hook": "input"}, "--hook input is for modules, not for hidden states; choose modules with --layers"),
        ({"split_heads": True}, "--split-heads: layer hidden_0 of width 16 is not made of 2 heads; choose what "),
        ({"layers": ["layers.0.mlp.gate_proj.*"]}, "layers.0.mlp.gate_proj"),
    ],
)
def test_what_has_no_heads_or_inputs_is_refused(asked: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = made("llama", tmp_path)
    with pytest.raises(UsageError) as caught:
        rows(reading(folder, tmp_path / "s.txt", **asked), TEXTS)
    assert said in str(caught.value)
