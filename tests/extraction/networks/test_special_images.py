"""Models of images that are unlike others: of timm, of patches of any shape, of videos."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tiny
import torch
import transformers
from helpers import run
from PIL import Image
from safetensors.torch import save_file

SIZES = [(40, 40), (64, 32), (24, 70), (40, 41)]
VISION = {"patch_size": 8, "num_patches": 16, **tiny.SIZES}
TIMM = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2},
    "eva02_tiny_patch14_224": {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2},
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number, (height, width) in enumerate(SIZES):
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def opened(images: Path) -> list[Any]:
    return [Image.open(path) for path in sorted(images.iterdir())]


def extracted(model: Path, images: Path, *options: str) -> Any:
    out = images.parent / "o.h5"
    result = run("extract", "--model", model, "--images", images, "-o", out, "--force", *options)
    assert result.code == 0, result.stderr
    with h5py.File(out) as store:
        return {name: store["layers"][name][:] for name in store["layers"]}


@torch.no_grad()
def test_of_images_cut_into_as_many_patches_as_they_have_padding_is_left_out(tmp_path: Path, images: Path) -> None:
    text = {"vocab_size": 64, "max_position_embeddings": 20, "projection_size": tiny.WIDTH, **tiny.SIZES}
    folder = tiny.from_config(tmp_path / "m", transformers.Siglip2Config(text_config=text, vision_config=VISION))
    transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    items = [processor(images=[image], return_tensors="pt") for image in opened(images)]
    assert len({int(item["pixel_attention_mask"].sum()) for item in items}) > 1
    found = extracted(folder, images)
    for index in range(tiny.DEPTH + 1):
        states = [model.vision_model(**item, output_hidden_states=True).hidden_states[index][0] for item in items]
        kept = [item["pixel_attention_mask"][0].bool() for item in items]
        expected = torch.stack([state[mask].mean(0) for state, mask in zip(states, kept, strict=True)])
        np.testing.assert_allclose(found[f"hidden_{index}"], expected, rtol=1e-4, atol=1e-5)
    expected = torch.cat([model.get_image_features(**item).pooler_output for item in items])
    np.testing.assert_allclose(found["projected"], expected, rtol=1e-4, atol=1e-5)


def test_a_model_of_videos_is_refused_in_one_line(tmp_path: Path, images: Path) -> None:
    config = transformers.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, **tiny.SIZES)
    folder = tiny.from_config(tmp_path / "videos", config)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.VideoMAEImageProcessorPil(**sizes).save_pretrained(folder)
    result = run("extract", "--model", folder, "--images", images, "-o", tmp_path / "o.h5")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == (
        "contrasim: error: videos: is a model of videos [frames, channels, height, width], and takes no single images; give "
        "--model file.py:function with --arrays\n"
    )


@torch.no_grad()
@pytest.mark.parametrize("architecture", TIMM)
def test_folders_of_timm_have_rows_of_a_plain_call(architecture: str, tmp_path: Path, images: Path) -> None:
    pytest.importorskip("timm")
    said = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 1.0}
    config = transformers.TimmWrapperConfig.from_dict(
        {"architecture": architecture, "num_classes": 2, "label_names": ["a", "b"], "pretrained_cfg": said}
        | {"model_args": TIMM[architecture]}
    )
    torch.manual_seed(0)
    transformers.TimmWrapperModel(config).save_pretrained(tmp_path / "m")
    model = transformers.AutoModel.from_pretrained(tmp_path / "m").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m")
    given = [processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"] for image in opened(images)]
    items = [model(one, output_hidden_states=True).hidden_states for one in given]
    found = extracted(tmp_path / "m", images)
    assert len(found) == len(items[0])
    for index in range(len(found)):
        expected = torch.cat([item[index].mean((2, 3)) for item in items])
        np.testing.assert_allclose(found[f"hidden_{index}"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_the_extra_is_named(tmp_path: Path, images: Path) -> None:
    (tmp_path / "m").mkdir()
    said = {"model_type": "timm_wrapper", "architecture": "resnet18", "label_names": ["a", "b"], "num_classes": 2}
    (tmp_path / "m" / "config.json").write_text(json.dumps(said))
    save_file({"weight": torch.zeros(1)}, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    result = run("extract", "--model", tmp_path / "m", "--images", images, "-o", tmp_path / "o.h5")
    assert (result.code, result.stdout) == (6, "")
    assert result.stderr == f"contrasim: error: {tmp_path}/m: needs the extra timm: pip install 'contrasim[timm]'\n"
