"""Modules of Hugging Face models as layers, by name or glob, besides their hidden states."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import assert_same, pooled, reading, rows, seeing

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.hooks import first_tensor, matches, select
from contrasim_cli.extraction.networks.load import layer_widths, load
from contrasim_cli.extraction.networks.network import ModelOptions

TEXTS = tiny.sentences(9)
OUTPUT = "encoder.layer.*.attention.output"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "s.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def module_states(folder: Path, names: list[str], text: str) -> list[torch.Tensor]:
    """What modules put out for a text alone."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    kept: dict[str, torch.Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, given, output, name=name: kept.__setitem__(name, first_tensor(output).clone())
        )
    with torch.no_grad():
        model(**transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt"))
    return [kept[name][0] for name in names]


@pytest.mark.parametrize("pool", ["cls", "mean", "last", "max", "none"])
def test_modules_are_layers_by_glob(folder: Path, lines: Path, pool: str) -> None:
    names = [OUTPUT.replace("*", "0"), OUTPUT.replace("*", "1")]
    found = rows(reading(folder, lines, layers=[OUTPUT], pool=pool), TEXTS)
    assert list(found) == names
    assert_same(found, [[pooled(state, pool) for state in module_states(folder, names, text)] for text in TEXTS])


def test_hidden_states_and_modules_can_be_mixed(folder: Path, lines: Path) -> None:
    found = rows(reading(folder, lines, layers=["encoder.layer.1", "hidden_0", "-1", "pooler"]), TEXTS)
    assert list(found) == ["encoder.layer.1", "hidden_0", "hidden_2", "pooler"]
    np.testing.assert_array_equal(found["encoder.layer.1"], found["hidden_2"])
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).pooler_output for text in TEXTS]
    np.testing.assert_allclose(found["pooler"], torch.cat(expected).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            "embeddings.position_embeddings",
            r"layer embeddings.position_embeddings puts out \[1, \d+, 16\] for 2 rows; expected \[n, tokens, width\] or "
            r"\[n, width\]",
        ),
        ("encoder.layer", "layer encoder.layer runs 0 times per row, and a layer must run once"),
    ],
)
def test_what_is_no_layer_is_refused(folder: Path, lines: Path, layer: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"^bert: {reason}; choose others with --layers$"):
        rows(reading(folder, lines, layers=[layer]), TEXTS)


def test_one_row_per_text_is_none_per_word(folder: Path, lines: Path) -> None:
    with pytest.raises(UsageError) as caught:
        rows(reading(folder, lines, layers=["pooler"], unit="word"), ["w1"])
    assert str(caught.value) == (
        "bert: layer pooler puts out [2, 16] for 2 rows; expected [n, tokens, width], of which rows are made; choose "
        "others with --layers"
    )
    found = rows(reading(folder, lines, layers=["encoder.layer.0", "hidden_1"], unit="word"), TEXTS)
    np.testing.assert_array_equal(found["encoder.layer.0"], found["hidden_1"])


def test_weights_that_the_files_do_not_hold_are_no_layer(folder: Path, lines: Path, tmp_path: Path) -> None:
    model = transformers.BertModel.from_pretrained(folder)
    weights = {name: value for name, value in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(tmp_path / "bert", state_dict=weights)
    tiny.framed_tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError) as caught:
        rows(reading(tmp_path / "bert", lines, layers=["pooler"]), TEXTS)
    assert str(caught.value) == (
        "bert: layer pooler has weights that the model's files do not hold; choose others with --layers"
    )
    found = rows(reading(tmp_path / "bert", lines), TEXTS)
    assert_same(rows(reading(folder, lines), TEXTS), [[torch.from_numpy(values) for values in found.values()]])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("encoder.layers.1", "did you mean encoder.layer.1, encoder.layer.0, encoder.layer?"),
        ("3", "it has 3: hidden_0, hidden_1, hidden_2"),
    ],
)
def test_what_matches_nothing_is_refused(folder: Path, lines: Path, pattern: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        rows(reading(folder, lines, layers=[pattern]), TEXTS)
    assert str(caught.value) == f"--layers {pattern} matches no layer of bert; {message}"


def test_names_are_chosen_before_modules() -> None:
    states, modules = ["hidden_0", "hidden_1"], ["encoder", "encoder.0", "hidden_x"]
    assert select(states, modules, ["*"], "m") == states
    assert select(states, modules, ["**.0", "-1", "0-1"], "m") == ["encoder.0", "hidden_1", "hidden_0"]
    assert select(states, modules, ["hidden_x", "hidden_?"], "m") == ["hidden_x", *states]
    assert [name for name in modules if matches(name, "*")] == ["encoder", "hidden_x"]


@pytest.mark.parametrize("pool", ["cls", "patch-mean", "flatten"])
def test_modules_of_image_models(tmp_path: Path, pool: str) -> None:
    folder = tiny.from_config(tmp_path / "vit", tiny.IMAGE_CONFIGS["vit"]())
    pixels = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    model, expected, kept = transformers.AutoModel.from_pretrained(folder).eval(), [], []
    model.layernorm.register_forward_hook(lambda module, given, output: kept.append(output[0]))
    for one in pixels:
        with torch.no_grad():
            model(pixel_values=torch.from_numpy(one[None]))
        state = kept.pop()
        expected.append([{"cls": state[:1], "patch-mean": state[1:].mean(0)[None], "flatten": state.view(1, -1)}[pool]])
    found = rows(seeing(folder, tmp_path / "i.npy", layers=["layernorm"], pool=pool), pixels)
    assert_same(found, expected)


def test_states_of_patches_alone_have_no_cls_token(tmp_path: Path) -> None:
    folder = tiny.from_config(tmp_path / "vit", tiny.IMAGE_CONFIGS["vit"]())
    pixels = np.zeros((1, 3, 16, 16), np.float32)
    np.save(tmp_path / "i.npy", pixels)
    with pytest.raises(UsageError) as caught:
        rows(seeing(folder, tmp_path / "i.npy", layers=["embeddings.patch_embeddings"]), pixels)
    assert str(caught.value) == (
        "vit: layer embeddings.patch_embeddings puts out [2, 16, 16] for 2 rows; expected [n, tokens, width] or [n, "
        "width]; choose others with --layers"
    )


@pytest.mark.parametrize("size", [(16, 16), (16, 32), (32, 16)])
def test_channels_that_come_last_are_not_taken_for_space(tmp_path: Path, size: tuple[int, int]) -> None:
    folder = tiny.from_config(tmp_path / "convnext", tiny.IMAGE_CONFIGS["convnext"]())
    pixels = np.random.default_rng(0).random((2, 3, *size)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    model, kept = transformers.AutoModel.from_pretrained(folder).eval(), []
    module = model.get_submodule("encoder.stages.0.layers.0.pwconv1")
    module.register_forward_hook(lambda module, given, output: kept.append(output))
    with torch.no_grad():
        model(pixel_values=torch.from_numpy(pixels))
    found = rows(seeing(folder, tmp_path / "i.npy", layers=["encoder.stages.0.layers.0.pwconv1"]), pixels)
    np.testing.assert_allclose(
        found["encoder.stages.0.layers.0.pwconv1"], kept[0].mean((1, 2)).numpy(), rtol=1e-5, atol=1e-5
    )


def test_the_layers_of_a_text_model_need_no_data(folder: Path) -> None:
    found = layer_widths(load(ModelOptions(str(folder)), None))
    assert list(found.items())[:3] == [(f"hidden_{index}", "[rows, 16]") for index in range(3)]
    assert found["encoder.layer.0.attention.output"] == "[rows, tokens, 16]"
    assert found["encoder.layer.1.intermediate"] == "[rows, tokens, 24]"
    assert found["pooler"] == "[rows, 16]"
    assert "embeddings.position_embeddings" not in found
    chosen = layer_widths(load(ModelOptions(str(folder), layers=["-1", OUTPUT], unit="word"), None))
    assert chosen == dict.fromkeys(["hidden_2", *(OUTPUT.replace("*", n) for n in "01")], "[rows, 16]")


def test_the_layers_of_an_image_model_need_no_data(tmp_path: Path) -> None:
    found: dict[str, Any] = layer_widths(
        load(ModelOptions(str(tiny.from_config(tmp_path / "m", tiny.IMAGE_CONFIGS["resnet"]()))), None)
    )
    assert list(found.items())[:3] == [("hidden_0", "[rows, 8]"), ("hidden_1", "[rows, 8]"), ("hidden_2", "[rows, 16]")]
    assert found["encoder.stages.1"] == "[rows, 16, 28, 28]"
