"""CLIP and SigLIP: one tower each, and the embeddings in the space that both share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import assert_same, pooled, reading, rows, seeing
from PIL import Image

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.load import layer_widths, load
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.sources.images import image_source

TEXTS = ["the unbelievable winter", "talking", "a winter's tale"]
POSITIONS = 20
TWO_TOWERS = ["clip", "siglip"]


@pytest.fixture(scope="module", params=TWO_TOWERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.two_towers(tmp_path_factory.mktemp(request.param) / request.param, request.param)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "s.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "i.npy"
    np.save(path, np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32))
    return path


def given(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """What each kind of model was trained on: texts of their own length, or texts padded to one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if folder.name == "clip":
        return {"input_ids": tokenizer(text, return_tensors="pt")["input_ids"]}
    return {"input_ids": tokenizer(text, return_tensors="pt", padding="max_length", max_length=POSITIONS)["input_ids"]}


def length(folder: Path, text: str) -> int:
    return len(transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"])


@torch.no_grad()
def embedding(features: Any) -> torch.Tensor:
    result: torch.Tensor = getattr(features, "pooler_output", features)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["cls", "mean", "last", "max"])
@pytest.mark.parametrize("size", [1, 64])
def test_texts_go_to_the_text_tower(folder: Path, lines: Path, pool: str, size: int) -> None:
    model, expected = transformers.AutoModel.from_pretrained(folder).eval(), []
    for text in TEXTS:
        inputs = given(folder, text)
        with torch.no_grad():
            hidden = model.text_model(**inputs, output_hidden_states=True).hidden_states
            projected = embedding(model.get_text_features(**inputs))
        real = length(folder, text)
        expected.append([*(pooled(state[0, :real], pool) for state in hidden), projected])
    network = reading(folder, lines, pool=pool)
    found = rows(network, TEXTS, size)
    assert list(found) == ["hidden_0", "hidden_1", "hidden_2", "projected"]
    assert_same(found, expected)
    assert network.about()["part"] == "text"
    assert network.about()["last_layer_after_final_norm"] is False


def test_images_go_to_the_image_tower(folder: Path, pixels: Path) -> None:
    model, expected = transformers.AutoModel.from_pretrained(folder).eval(), []
    images = np.load(pixels)
    for one in images:
        inputs = {"pixel_values": torch.from_numpy(one[None])}
        with torch.no_grad():
            hidden = model.vision_model(**inputs, output_hidden_states=True).hidden_states
            projected = embedding(model.get_image_features(**inputs))
        expected.append([*(state[:, 0] if folder.name == "clip" else state.mean(1) for state in hidden), projected])
    network = seeing(folder, pixels)
    assert network.pooling == ("cls" if folder.name == "clip" else "patch-mean")
    found = rows(network, images)
    assert list(found) == ["hidden_0", "hidden_1", "hidden_2", "projected"]
    assert_same(found, expected)
    assert network.about()["part"] == "image"
    # CLIP's last state is what its transformer puts out: the norm behind it sees the CLS token alone
    assert network.about()["last_layer_after_final_norm"] is False


def test_image_files_go_through_the_processor(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), (10, 200, 30)).save(tmp_path / "a.png")
    source = image_source(tmp_path)
    found = rows(load(ModelOptions(str(folder), layers=["projected"]), source), [tmp_path / "a.png"])
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = transformers.AutoImageProcessor.from_pretrained(folder)(
        images=Image.open(tmp_path / "a.png"), return_tensors="pt"
    )
    with torch.no_grad():
        expected = embedding(model.get_image_features(**inputs))
    assert_same(found, [[expected]])


def test_words_have_no_projection(folder: Path, lines: Path) -> None:
    assert list(rows(reading(folder, lines, unit="word"), TEXTS)) == ["hidden_0", "hidden_1", "hidden_2"]
    with pytest.raises(UsageError, match="--layers projected matches no layer of"):
        rows(reading(folder, lines, unit="word", layers=["projected"]), TEXTS)


def test_random_weights_are_made_from_the_seed(folder: Path, lines: Path, pixels: Path) -> None:
    for make, data, items in ((reading, lines, TEXTS), (seeing, pixels, np.load(pixels))):
        first, again, other = (
            rows(make(folder, data, random_weights=True, seed=seed), items)["projected"] for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other)


def test_the_layers_of_a_tower_need_no_data(folder: Path) -> None:
    for tower in ("text", "image"):
        found = layer_widths(load(ModelOptions(str(folder), part=tower), None))
        widths = {"hidden_0": 16, "hidden_1": 16, "hidden_2": 16, "projected": 12 if folder.name == "clip" else 16}
        assert list(found.items())[:4] == [(name, f"[rows, {width}]") for name, width in widths.items()]


def test_a_tower_must_be_known_and_fit(folder: Path, lines: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(ModelOptions(str(folder)), None)
    assert str(caught.value) == (f"{folder}: takes several kinds of input; choose one with --part text or --part image")
    with pytest.raises(UsageError) as caught:
        reading(folder, lines, part="image")
    assert str(caught.value) == (
        "--part image takes --images or --arrays, not --text; leave --part out or change the data"
    )


def test_a_model_of_one_kind_has_no_tower(tmp_path: Path, lines: Path) -> None:
    with pytest.raises(UsageError) as caught:
        reading(tiny.bert(tmp_path / "bert"), lines, part="text")
    assert str(caught.value) == (f"--part text: {tmp_path / 'bert'} is a model of one kind of input; leave --part out")
