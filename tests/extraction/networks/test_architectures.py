"""Every named architecture: a row is what transformers says of its item alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import Rows, assert_same, pooled, reading, rows, seeing

from contrasim_cli.errors import UsageError

TEXTS = ["the unbelievable winter", "talking", "a winter's tale of the talkers, walking and walked"] * 2
POOLS = ["cls", "mean", "last", "max", "none"]
FRAMED = {"bert", "distilbert", "roberta"}
# whose last state is the output of a normalisation
NORMED = {**dict.fromkeys(tiny.TEXT_CONFIGS, True), **dict.fromkeys(tiny.IMAGE_CONFIGS, False)}


def tokenizer_of(kind: str, **options: Any) -> Any:
    if kind in ("bert", "distilbert"):
        return tiny.wordpiece_tokenizer(**options)
    if kind in ("roberta", "gpt2", "gpt-neox", "qwen2", "qwen3"):
        return tiny.byte_tokenizer(kind in FRAMED, **options)
    return tiny.sentencepiece_tokenizer(**options)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "s.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            configs = tiny.TEXT_CONFIGS | tiny.IMAGE_CONFIGS
            made[kind] = tiny.from_config(tmp_path_factory.mktemp(kind), configs[kind]())
            if kind in tiny.TEXT_CONFIGS:
                tokenizer_of(kind, padding_side="left").save_pretrained(made[kind])
        return made[kind]

    return make


def plain(folder: Path) -> Any:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return model.get_encoder() if model.config.is_encoder_decoder else model


def text_states(model: Any, tokenizer: Any, text: str) -> list[torch.Tensor]:
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return [state[0] for state in model(**inputs, output_hidden_states=True).hidden_states]


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.TEXT_CONFIGS)
def test_of_a_text(kind: str, folder_of: Callable[[str], Path], lines: Path) -> None:
    folder = folder_of(kind)
    model, tokenizer = plain(folder), transformers.AutoTokenizer.from_pretrained(folder)
    states = [text_states(model, tokenizer, text) for text in TEXTS]
    for pool in POOLS:
        network = reading(folder, lines, pool=pool)
        found = rows(network, TEXTS)
        assert list(found) == ["hidden_0", "hidden_1", "hidden_2"]
        assert_same(found, [[pooled(state, pool) for state in item] for item in states])
        assert network.about()["last_layer_after_final_norm"] is NORMED[kind]
        for layer, alone in rows(network, TEXTS, 1).items():
            np.testing.assert_allclose(found[layer], alone, rtol=1e-5, atol=1e-5)


def image_row(state: torch.Tensor, extra: int, pool: str) -> torch.Tensor:
    if pool == "flatten":
        return state.flatten()[None]
    if state.ndim == 3:
        return state.mean((1, 2))[None]
    return state[:1] if pool == "cls" else state[extra:].mean(0)[None]


EXTRA = {"vit": 1, "deit": 2, "dinov2": 1, "swin": 0, "convnext": 0, "resnet": 0}


def image_pools(kind: str) -> list[str]:
    return [*(["cls"] if EXTRA[kind] else []), "patch-mean", "spatial-mean", "flatten"]


@pytest.mark.parametrize("kind", tiny.IMAGE_CONFIGS)
def test_of_an_image(kind: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder, pixels = folder_of(kind), np.random.default_rng(0).random((5, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    model, expected = plain(folder), []
    for one in pixels:
        with torch.no_grad():
            hidden = model(pixel_values=torch.from_numpy(one[None]), output_hidden_states=True).hidden_states
        expected.append([state[0] for state in hidden])
    for pool in image_pools(kind):
        network = seeing(folder, tmp_path / "i.npy", pool=pool)
        found = rows(network, pixels, 2)
        assert_same(found, [[image_row(state, EXTRA[kind], pool) for state in item] for item in expected])
        assert network.about()["last_layer_after_final_norm"] is NORMED[kind]


@pytest.mark.parametrize("kind", tiny.IMAGE_CONFIGS)
def test_an_image_is_its_cls_token_or_without_one_its_mean(
    kind: str, folder_of: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pixels = np.random.default_rng(0).random((2, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    default = seeing(folder_of(kind), tmp_path / "i.npy")
    wanted = "cls" if EXTRA[kind] else "patch-mean" if kind == "swin" else "spatial-mean"
    assert default.pooling == wanted
    said = f"{folder_of(kind).name} has no CLS token: a row is the mean over its image (--pool {wanted})"
    assert (said in caplog.messages) is (wanted != "cls")
    asked: Rows = rows(seeing(folder_of(kind), tmp_path / "i.npy", pool=wanted), pixels)
    for name, values in rows(default, pixels).items():
        np.testing.assert_array_equal(values, asked[name])


def test_patches_beyond_the_edge_of_an_image_are_patches(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((2, 3, 15, 15)).astype(np.float32)
    np.save(tmp_path / "i.npy", pixels)
    with torch.no_grad():
        hidden = plain(folder_of("swin"))(
            pixel_values=torch.from_numpy(pixels), output_hidden_states=True
        ).hidden_states
    assert_same(rows(seeing(folder_of("swin"), tmp_path / "i.npy"), pixels), [[state.mean(1) for state in hidden]])


@pytest.mark.parametrize(("kind", "pool"), [("swin", "patch-mean"), ("resnet", "spatial-mean")])
def test_without_a_cls_token_cls_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path, kind: str, pool: str
) -> None:
    np.save(tmp_path / "i.npy", np.zeros((1, 3, 16, 16), np.float32))
    network = seeing(folder_of(kind), tmp_path / "i.npy", pool="cls")
    with pytest.raises(UsageError) as caught:
        rows(network, np.zeros((1, 3, 16, 16), np.float32))
    assert str(caught.value) == f"{folder_of(kind).name} has no CLS token; give --pool {pool}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*tiny.TEXT_CONFIGS, *tiny.IMAGE_CONFIGS])
def test_random_weights_are_made_from_the_seed(
    kind: str, folder_of: Callable[[str], Path], lines: Path, tmp_path: Path
) -> None:
    items: Any = TEXTS[:3] if kind in tiny.TEXT_CONFIGS else np.ones((2, 3, 16, 16), np.float32)
    np.save(tmp_path / "i.npy", np.ones((2, 3, 16, 16), np.float32))
    make, data = (reading, lines) if kind in tiny.TEXT_CONFIGS else (seeing, tmp_path / "i.npy")

    def last(seed: int, random: bool = True) -> Any:
        return rows(make(folder_of(kind), data, seed=seed, random_weights=random), items)["hidden_2"]

    np.testing.assert_array_equal(last(1), last(1))
    assert not np.allclose(last(1), last(2))
    np.testing.assert_array_equal(last(1, random=False), last(2, random=False))
