import importlib.util
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from networks import assert_same, pooled, rows
from networks import reading as network
from PIL import Image

from contrasim_cli.errors import InputError, MismatchError, MissingError, UsageError
from contrasim_cli.extraction.networks import vision
from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.run import RunOptions, extract
from contrasim_cli.extraction.sources.open import array_source, image_source, text_source
from contrasim_cli.store import open_store

TEXTS = tiny.sentences(23)


def alone(model: Any, tokenizer: Any, text: str, how: str, limit: int | None = None) -> list[torch.Tensor]:
    """Every layer's row of one text, by a plain call of transformers."""
    inputs = tokenizer(text, return_tensors="pt", truncation=limit is not None, max_length=limit)
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    return [pooled(states[0], how) for states in hidden]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "s.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.mark.parametrize("how", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_row_is_what_transformers_says_of_its_text_alone(
    request: pytest.FixtureRequest, lines: Path, kind: str, how: str
) -> None:
    folder = request.getfixturevalue(kind)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = rows(network(folder, lines, pool=how), TEXTS)
    assert list(found) == ["hidden_0", "hidden_1", "hidden_2"]
    assert_same(found, [alone(model, tokenizer, text, how) for text in TEXTS])


def test_of_an_encoder_decoder_the_encoder_is_used(tmp_path: Path, lines: Path) -> None:
    folder = tiny.t5(tmp_path)
    model = transformers.AutoModel.from_pretrained(folder).eval().get_encoder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = rows(network(folder, lines, pool="mean"), TEXTS)
    assert_same(found, [alone(model, tokenizer, text, "mean") for text in TEXTS])


@pytest.mark.parametrize("how", ["cls", "mean", "last", "max", "none"])
def test_rows_do_not_depend_on_the_batch(bert: Path, lines: Path, how: str) -> None:
    model = network(bert, lines, pool=how)
    together, one_by_one = rows(model, TEXTS, 64), rows(model, TEXTS, 1)
    for name in together:
        np.testing.assert_allclose(together[name], one_by_one[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["cls", "mean", "last", "max", "none"])
@pytest.mark.parametrize("make", [tiny.bert, tiny.gpt2])
def test_a_tokenizer_that_pads_on_the_left_changes_no_row(tmp_path: Path, lines: Path, make: Any, how: str) -> None:
    left = rows(network(make(tmp_path / "left", padding_side="left"), lines, pool=how), TEXTS)
    right = rows(network(make(tmp_path / "right", padding_side="right"), lines, pool=how), TEXTS)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def test_without_attention_masks_rows_would_depend_on_the_batch(bert: Path, lines: Path) -> None:
    model = network(bert, lines, pool="cls")
    model.discover(model.prepare(TEXTS[:1], 0).batch([0]))
    inputs = dict(model.prepare(TEXTS, 0).batch(range(len(TEXTS))))
    right = model.rows(inputs)["hidden_2"]
    inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    assert (model.rows(inputs)["hidden_2"] - right).abs().max() > 1e-2


def test_longer_texts_are_cut_at_the_limit_of_the_model_and_counted(bert: Path, lines: Path) -> None:
    texts = ["w1 w2", " ".join(tiny.WORDS), " ".join(tiny.WORDS[:10]), " ".join(tiny.WORDS[:11])]
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    found = network(bert, lines, pool="last")
    assert found.prepare(texts, 0).truncated == 2
    assert_same(rows(found, texts), [alone(model, tokenizer, text, "last", tiny.POSITIONS) for text in texts])


def test_positions_that_start_behind_the_padding_are_fewer_than_the_config_says(tmp_path: Path, lines: Path) -> None:
    model = network(tiny.roberta(tmp_path), lines, pool="mean")
    texts = [" ".join(tiny.WORDS)]
    assert model.prepare(texts, 0).lengths == [13]
    assert np.isfinite(rows(model, texts)["hidden_2"]).all()


def test_max_length_must_fit_the_model(bert: Path, lines: Path) -> None:
    assert network(bert, lines, max_length=5).prepare([" ".join(tiny.WORDS)], 0).lengths == [5]
    with pytest.raises(UsageError, match="--max-length 13: the model takes 12 tokens at most"):
        network(bert, lines, max_length=13)
    with pytest.raises(UsageError, match="--max-length 2: the 2 special tokens alone leave no room for text"):
        network(bert, lines, max_length=2)


def test_a_text_without_tokens_is_refused_with_its_row(gpt2: Path, lines: Path) -> None:
    with pytest.raises(InputError, match="row 8 has no tokens"):
        network(gpt2, lines, pool="last").prepare(["w1", ""], 7)


def test_a_tokenizer_of_another_model_is_refused(bert: Path, lines: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=9, max_position_embeddings=8, **tiny.SIZES)
    transformers.BertModel(config).save_pretrained(tmp_path)
    tiny.framed_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer and model do not belong together"):
        network(tmp_path, lines).prepare(["w29"], 0)


def test_random_weights_depend_on_the_seed_alone(bert: Path, lines: Path) -> None:
    def last(seed: int, random: bool = True) -> Any:
        return rows(network(bert, lines, seed=seed, random_weights=random), TEXTS[:3])["hidden_2"]

    np.testing.assert_array_equal(last(1), last(1))
    assert not np.allclose(last(1), last(2))
    np.testing.assert_array_equal(last(1, random=False), last(2, random=False))


def test_layers_are_chosen_by_name_index_range_or_glob(bert: Path, lines: Path) -> None:
    model = network(bert, lines, layers=["-1", "hidden_[01]"])
    assert list(rows(model, TEXTS[:2])) == ["hidden_2", "hidden_0", "hidden_1"]


def test_a_model_with_weights_missing_is_refused(bert: Path, lines: Path, tmp_path: Path) -> None:
    model = transformers.BertModel.from_pretrained(bert)
    weights = {name: value for name, value in model.state_dict().items() if "layer.1.output.dense" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    tiny.framed_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"2 weights of its architecture are missing .* first encoder\.layer\.1\.output"
    ):
        network(tmp_path, lines)


def test_weights_that_are_a_pickle_of_code_are_refused(bert: Path, lines: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "ran"), "w"))

    transformers.BertConfig.from_pretrained(bert).save_pretrained(tmp_path)
    tiny.framed_tokenizer().save_pretrained(tmp_path)
    torch.save({"embeddings.word_embeddings.weight": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="its weights are a pickle of more than tensors"):
        network(tmp_path, lines)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_repository_is_not_run(lines: Path, tmp_path: Path) -> None:
    names = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="needs code from its repository, which is not run"):
        network(tmp_path, lines)
    assert not (tmp_path / "ran").exists()


def test_the_store_knows_whether_its_last_layer_is_normed(bert: Path, tmp_path: Path, lines: Path) -> None:
    np.save(tmp_path / "i.npy", np.zeros((1, 8, 8), np.float32))
    images = array_source(tmp_path / "i.npy")
    seeing = load(ModelOptions(str(tiny.vit(tmp_path / "vit"))), images)
    rows(seeing, np.zeros((1, 8, 8), np.float32))
    assert seeing.about()["last_layer_after_final_norm"] is False
    reading = network(bert, lines)
    rows(reading, TEXTS[:1])
    assert reading.about()["last_layer_after_final_norm"] is True


def images(count: int, channels: int) -> Any:
    return np.random.default_rng(0).random((count, channels, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("make", "channels", "extra"), [(tiny.vit, 1, 1), (tiny.dinov2, 3, 4)])
@pytest.mark.parametrize("how", ["cls", "patch-mean"])
def test_images_are_pooled_over_patches_only(tmp_path: Path, make: Any, channels: int, extra: int, how: str) -> None:
    pixels = images(5, channels)
    np.save(tmp_path / "i.npy", pixels)
    folder = make(tmp_path / "model")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    found = rows(load(ModelOptions(str(folder), pool=how), array_source(tmp_path / "i.npy")), pixels, 2)
    expected = []
    for one in pixels:
        with torch.no_grad():
            hidden = model(pixel_values=torch.from_numpy(one[None]), output_hidden_states=True).hidden_states
        expected.append([states[:1, 0] if how == "cls" else states[0, extra:].mean(0)[None] for states in hidden])
    assert_same(found, expected)


def test_grey_images_need_no_axis_of_channels(tmp_path: Path) -> None:
    folder, pixels = tiny.vit(tmp_path / "vit"), images(3, 1)
    np.save(tmp_path / "i.npy", pixels)
    model = load(ModelOptions(str(folder)), array_source(tmp_path / "i.npy"))
    np.testing.assert_array_equal(rows(model, pixels[:, 0])["hidden_2"], rows(model, pixels)["hidden_2"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 8, 8), "i.npy: images have 3 channels, vit takes 1"),
        (
            (2, 1, 12, 12),
            "i.npy: vit does not take images [1, 12, 12] (Input image size (12*12) doesn't match model (8*8).)",
        ),
        ((2, 5), "i.npy: a row is [5]; vit takes [channels, height, width]"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    np.save(tmp_path / "i.npy", np.zeros(shape, np.float32))
    source = array_source(tmp_path / "i.npy")
    model = load(ModelOptions(str(tiny.vit(tmp_path / "vit"))), source)
    with pytest.raises(MismatchError) as caught:
        rows(model, next(source.blocks(1)))
    assert str(caught.value) == message


def test_image_files_go_through_the_processor_of_the_model(tmp_path: Path) -> None:
    folder = tiny.image_processor(tiny.vit(tmp_path / "vit", channels=3))
    (tmp_path / "images").mkdir()
    files = [tmp_path / "images" / f"{name}.png" for name in "ab"]
    for path, shade in zip(files, (10, 200), strict=True):
        Image.new("L", (20, 30), shade).save(path)
    source = image_source(tmp_path / "images")
    found = rows(load(ModelOptions(str(folder)), source), files)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for row, path in enumerate(files):
        given = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            wanted = model(**given, output_hidden_states=True).hidden_states[-1][0, 0]
        np.testing.assert_allclose(found["hidden_2"][row], wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_a_store_says_what_made_the_images_numbers(tmp_path: Path) -> None:
    folder = tiny.image_processor(tiny.vit(tmp_path / "vit", channels=3))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), (200, 100, 0)).save(tmp_path / "images" / "a.png")
    source, options = image_source(tmp_path / "images"), ModelOptions(str(folder))
    extract(load(options, source), source, options, RunOptions(tmp_path / "o.h5"))
    config = open_store(tmp_path / "o.h5").provenance["config"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert config["prepared_by"] == type(processor).__name__
    assert config["versions"]["pillow"] == metadata.version("pillow")
    assert ("torchvision" in config["versions"]) is (importlib.util.find_spec("torchvision") is not None)


def test_a_tokenizer_of_another_folder(bert: Path, lines: Path, tmp_path: Path) -> None:
    folder = tiny.from_config(tmp_path / "model", transformers.BertConfig.from_pretrained(bert))
    with pytest.raises(InputError) as caught:
        network(folder, lines)
    assert str(caught.value) == f"{folder}: has no tokenizer; save one there with save_pretrained, or give --tokenizer"
    other = tmp_path / "tokenizer"
    tiny.framed_tokenizer().save_pretrained(other)
    model = network(folder, lines, tokenizer=str(other))
    plain = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(other)
    assert_same(rows(model, TEXTS), [alone(plain, tokenizer, text, "mean") for text in TEXTS])
    tiny.tokenizer(False, pad_token="[PAD]").save_pretrained(tmp_path / "bare")
    bare = network(folder, lines, tokenizer=str(tmp_path / "bare"))
    assert bare.digest != model.digest
    assert not np.allclose(rows(bare, TEXTS)["hidden_2"], rows(model, TEXTS)["hidden_2"])


def hub(cache: Path, revisions: Mapping[str, Path]) -> None:
    """A cache of the hub in which `org/tiny` has some revisions."""
    root = cache / "models--org--tiny"
    (root / "refs").mkdir(parents=True)
    for number, (name, folder) in enumerate(revisions.items()):
        commit = f"{number:040d}"
        (root / "refs" / name).write_text(commit)
        shutil.copytree(folder, root / "snapshots" / commit)


def test_a_revision_of_the_hub_is_that_of_weights_config_tokenizer_and_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: Path
) -> None:
    first, second = tiny.bert(tmp_path / "first"), tiny.bert(tmp_path / "second", seed=1, model_max_length=5)
    hub(tmp_path / "hub", {"main": first, "v2": second})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = Path("org/tiny")
    for revision, folder in ((None, first), ("main", first), ("v2", second)):
        found, local = network(name, lines, revision=revision), network(folder, lines)
        assert found.name == "org/tiny"
        assert found.digest == local.digest
        assert found.prepare(TEXTS, 0).lengths == local.prepare(TEXTS, 0).lengths
        for layer, values in rows(found, TEXTS).items():
            np.testing.assert_array_equal(values, rows(local, TEXTS)[layer])
    assert network(first, lines).digest != network(second, lines).digest


def test_a_revision_is_that_of_an_architecture_with_random_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: Path
) -> None:
    folders = {"main": tiny.bert(tmp_path / "main"), "v2": tiny.bert(tmp_path / "v2")}
    config = json.loads((folders["v2"] / "config.json").read_text())
    (folders["v2"] / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    hub(tmp_path / "hub", folders)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for revision, depth in (("main", 2), ("v2", 1)):
        model = network(Path("org/tiny"), lines, revision=revision, random_weights=True)
        assert list(rows(model, TEXTS)) == [f"hidden_{index}" for index in range(depth + 1)]


def test_a_tokenizer_of_special_tokens_alone_is_none(tmp_path: Path, lines: Path) -> None:
    folder = tiny.from_config(tmp_path / "bert", tiny.TEXT_CONFIGS["bert"]())
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"its tokenizer knows \d special tokens and no words: the vocabulary is missing"
    ):
        network(folder, lines)


def test_large_images_are_held_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And come to the same numbers."""
    folder = tiny.image_processor(tiny.vit(tmp_path / "vit", channels=3))
    (tmp_path / "images").mkdir()
    for k in range(7):
        pixels = np.random.default_rng(k).integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{k}.png")
    source = image_source(tmp_path / "images")
    found = load(ModelOptions(str(folder)), source)
    assert isinstance(found, vision.VisionNetwork)
    block = vision.Pixels(found, next(iter(source.blocks(7))))
    expected = block.batch(range(7))["pixel_values"]
    for most, parts in ((1 << 26, [7]), (900, [3, 3, 1]), (1, [1] * 7)):
        monkeypatch.setattr(vision, "HELD", most)
        assert [len(images) for images in block._images(range(7))] == parts
        assert torch.equal(block.batch(range(7))["pixel_values"], expected)


def test_a_revision_is_that_of_the_image_processor_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders = {name: tiny.vit(tmp_path / name, channels=3) for name in ("main", "v2")}
    for mean, folder in enumerate(folders.values()):
        tiny.image_processor(folder, image_mean=[mean] * 3)
    hub(tmp_path / "hub", folders)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / "a.png"
    Image.new("RGB", (8, 8), (200, 100, 0)).save(file)
    source = image_source(tmp_path / "images")
    for revision, folder in folders.items():
        found = rows(load(ModelOptions("org/tiny", revision=revision), source), [file])["hidden_2"]
        np.testing.assert_array_equal(found, rows(load(ModelOptions(str(folder)), source), [file])["hidden_2"])
    others = [rows(load(ModelOptions(str(folder)), source), [file])["hidden_2"] for folder in folders.values()]
    assert not np.allclose(*others)


def test_a_revision_of_a_folder_is_refused(bert: Path, lines: Path) -> None:
    with pytest.raises(UsageError) as caught:
        network(bert, lines, revision="v2")
    assert str(caught.value) == f"--revision is for models of the hub; {bert} is a folder, leave it out"


@pytest.mark.parametrize(("dtype", "close"), [("bfloat16", 0.3), ("float16", 0.05)])
def test_a_model_can_compute_in_fewer_bits(bert: Path, lines: Path, dtype: str, close: float) -> None:
    full, short = (rows(network(bert, lines, dtype=name), TEXTS) for name in ("float32", dtype))
    for name, values in short.items():
        np.testing.assert_allclose(values, full[name], atol=close)
    assert not np.array_equal(short["hidden_2"], full["hidden_2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "word"}, "--unit word is for text; images are no words"),
        ({"tokenizer": "other"}, "--tokenizer is for text; images are no words"),
        ({"max_length": 3}, "--max-length is for text; images are not cut"),
        ({"pool": "mean"}, "--pool mean is not for images; choose cls, patch-mean, spatial-mean or flatten"),
    ],
)
def test_options_for_texts_are_refused_for_images(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "i.npy", images(1, 1))
    with pytest.raises(UsageError) as caught:
        load(ModelOptions(str(tiny.vit(tmp_path / "vit")), **options), array_source(tmp_path / "i.npy"))
    assert str(caught.value) == message


def test_the_whole_way_into_a_store(bert: Path, lines: Path, tmp_path: Path) -> None:
    source = text_source(lines)
    options = ModelOptions(str(bert), pool="mean")
    model = load(options, source)
    run = RunOptions(tmp_path / "o.h5", store_dtype="float16", attrs={"model": model.name})
    extract(model, source, options, run)
    extract(model, source, options, replace(run, output=tmp_path / "one.h5", batch_size=1))
    expected = rows(model, TEXTS)
    for name in ("o.h5", "one.h5"):
        store = open_store(tmp_path / name)
        assert store.ids is not None
        assert store.ids.read(0, 2) == ["0", "1"]
        for layer, values in expected.items():
            np.testing.assert_allclose(store.read(layer, 0, 23), values, atol=2e-3)
            assert store.layer(layer).dtype == np.float16
        store.close()
    assert not (tmp_path / "o.h5.parts").exists()


def test_a_model_is_spread_over_the_devices_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.from_config(tmp_path / "m", tiny.TEXT_CONFIGS["llama"]())
    tiny.sentencepiece_tokenizer().save_pretrained(folder)
    (tmp_path / "s.txt").write_text("the winter\ntalking\n")
    texts = ["the winter", "talking"]
    plain = rows(network(folder, tmp_path / "s.txt"), texts)
    for name, values in rows(network(folder, tmp_path / "s.txt", spread=True), texts).items():
        np.testing.assert_allclose(values, plain[name], rtol=1e-6)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingError, match=r"^--device auto needs the extra spread: pip install 'contrasim\[spread\]'$"
    ):
        network(folder, tmp_path / "s.txt", spread=True)
