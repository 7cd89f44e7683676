"""Functions that return a module and the tokenizer or processor of transformers that makes its inputs."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
import tiny
import torch
from helpers import run
from networks import Rows
from PIL import Image

from contrasim_cli.extraction.networks.processed import processor_state

TEXTS = ["the unbelievable winter", "talking", "a winter's tale of the talkers, walking and walked", "winter talking"]
TAKES = "it takes width, scale, kind: give them with --model-arg name=value"
NETS = """
import torch
import transformers
from torch import nn

HERE = {here!r}

def pretrained(kind):
    return transformers.AutoModel.from_pretrained(f"{{HERE}}/{{kind}}")

def bert():
    return pretrained("bert"), transformers.AutoTokenizer.from_pretrained(f"{{HERE}}/bert")

def heard():
    return pretrained("wav2vec2"), transformers.AutoFeatureExtractor.from_pretrained(f"{{HERE}}/wav2vec2")

def seen():
    return pretrained("vit"), transformers.AutoImageProcessor.from_pretrained(f"{{HERE}}/vit")

def both():
    sees = transformers.AutoImageProcessor.from_pretrained(f"{{HERE}}/clip")
    reads = transformers.AutoTokenizer.from_pretrained(f"{{HERE}}/clip")
    return pretrained("clip"), transformers.CLIPProcessor(sees, reads)

class Bag(nn.Module):
    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.mix, self.out = nn.Embedding(400, width), nn.LSTM(width, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens):
        return self.out(self.mix(self.embed(tokens))[0])

class Masked(Bag):
    def forward(self, input_ids, attention_mask):
        kept = attention_mask.unsqueeze(-1)
        states = self.embed(input_ids)
        return self.out(self.mix(states + (states * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True))[0])

def bag(width=4, *, scale, kind="plain"):
    torch.manual_seed(0)
    made = (Masked if kind == "masked" else Bag)(width)
    made.embed.weight.data *= scale
    return made, transformers.AutoTokenizer.from_pretrained(f"{{HERE}}/bert")

class Ear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.act = nn.Conv1d(1, 6, 400, 160), nn.GELU()

    def forward(self, sound):
        return self.act(self.convolution(sound[:, None]))

def ear():
    return Ear(), transformers.Wav2Vec2FeatureExtractor()

class Eye(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 6, 4, 4)

    def forward(self, pixels):
        return self.convolution(pixels)

def eye():
    return Eye(), transformers.AutoImageProcessor.from_pretrained(f"{{HERE}}/vit")

def alone():
    return Eye()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of functions, the folders that they load, and data of every kind."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    tiny.from_config(folder / "bert", tiny.TEXT_CONFIGS["bert"]())
    tiny.wordpiece_tokenizer().save_pretrained(folder / "bert")
    tiny.from_config(folder / "vit", tiny.IMAGE_CONFIGS["vit"]())
    tiny.image_processor(folder / "vit", 16)
    tiny.hearing(folder / "wav2vec2", "wav2vec2")
    tiny.two_towers(folder / "clip", "clip")
    (folder / "nets.py").write_text(NETS.format(here=str(folder)))
    (folder / "s.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "sounds").mkdir()
    (folder / "images").mkdir()
    for number, seconds in enumerate((0.3, 0.5, 0.3)):
        sound = 0.1 * rng.standard_normal(round(16_000 * seconds))
        soundfile.write(folder / "sounds" / f"{number}.wav", sound, 16_000, subtype="FLOAT")
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / "images" / f"{number}.png")
    return folder


def rows(home: Path, function: str, out: Path, *options: object) -> Rows:
    """The rows of a store that the command line writes."""
    result = run("extract", "--model", f"{home}/nets.py:{function}", "-o", out, "--force", "-q", *options)
    assert result.code == 0, result.stderr
    with h5py.File(out) as store:
        names = sorted(store["layers"], key=lambda name: int(store["layers"][name].attrs["index"]))
        return {name: store["layers"][name][:] for name in names}


def functions(home: Path) -> Any:
    """What the functions of the file return."""
    space: dict[str, Any] = {}
    exec((home / "nets.py").read_text(), space)
    return space


@torch.no_grad()
def test_texts_of_a_model_of_transformers(home: Path, tmp_path: Path) -> None:
    model, tokenizer = functions(home)["bert"]()
    items = [
        model.eval()(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states for text in TEXTS
    ]
    for pool, row in (("mean", lambda state: state[0].mean(0)), ("last", lambda state: state[0, -1])):
        found = rows(home, "bert", tmp_path / "o.h5", "--text", home / "s.txt", "--pool", pool)
        assert list(found) == ["hidden_0", "hidden_1", "hidden_2"]
        for index, name in enumerate(found):
            expected = torch.stack([row(item[index]) for item in items])
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)
    with h5py.File(tmp_path / "o.h5") as store:
        assert (store.attrs["model"], store.attrs["unit"]) == ("nets.py:bert", "sentence")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "masked"])
def test_texts_of_any_module(kind: str, home: Path, tmp_path: Path) -> None:
    """One takes the tokens alone, one a mask too, by name."""
    module, tokenizer = functions(home)["bag"](width=6, scale=2.0, kind=kind)
    given = (
        "--text",
        home / "s.txt",
        "--model-arg",
        "width=6",
        "--model-arg",
        "scale=2.0",
        "--model-arg",
        f"kind={kind}",
    )
    found = rows(home, "bag", tmp_path / "o.h5", *given)
    assert list(found) == ["embed", "mix", "out"]
    states: dict[str, list[torch.Tensor]] = {name: [] for name in found}
    module.embed.register_forward_hook(lambda part, given, output: states["embed"].append(output[0]))
    module.mix.register_forward_hook(lambda part, given, output: states["mix"].append(output[0][0]))
    module.out.register_forward_hook(lambda part, given, output: states["out"].append(output[0]))
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt")
        module(inputs["input_ids"], *([inputs["attention_mask"]] if kind == "masked" else []))
    for name, items in states.items():
        expected = torch.stack([state.mean(0) for state in items])
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    tokens = rows(home, "bag", tmp_path / "o.h5", *given, "--pool", "none", "--layers", "out")
    np.testing.assert_allclose(tokens["out"], torch.cat(states["out"]), rtol=1e-4, atol=1e-5)


def test_a_module_that_reads_padding_gets_texts_of_one_length(home: Path, tmp_path: Path) -> None:
    backwards = NETS.replace("batch_first=True", "batch_first=True, bidirectional=True").replace(
        "nn.Linear(5", "nn.Linear(10"
    )
    (tmp_path / "nets.py").write_text(backwards.format(here=str(home)))
    given = (
        "extract",
        "--text",
        home / "s.txt",
        "--model-arg",
        "scale=1",
        "-o",
        tmp_path / "o.h5",
        "--force",
        "--model",
    )
    warned = "a row depends on the other items in its batch, so items share a batch only if they are equally long"
    assert warned in run(*given, f"{tmp_path}/nets.py:bag").stderr
    assert warned not in run(*given, f"{home}/nets.py:bag").stderr


@torch.no_grad()
def test_sounds_of_a_model_of_transformers_and_of_any_module(home: Path, tmp_path: Path) -> None:
    paths = sorted((home / "sounds").iterdir())
    sounds = [soundfile.read(path, dtype="float32")[0] for path in paths]
    model, extractor = functions(home)["heard"]()
    given = [extractor(sound, sampling_rate=16_000, return_tensors="pt")["input_values"] for sound in sounds]
    found = rows(home, "heard", tmp_path / "o.h5", "--audio", home / "sounds")
    expected = torch.cat([model.eval()(one, output_hidden_states=True).hidden_states[-1].mean(1) for one in given])
    np.testing.assert_allclose(found["hidden_2"], expected, rtol=1e-4, atol=1e-5)
    module, extractor = functions(home)["ear"]()
    given = [extractor(sound, sampling_rate=16_000, return_tensors="pt")["input_values"] for sound in sounds]
    found = rows(home, "ear", tmp_path / "o.h5", "--audio", home / "sounds")
    assert list(found) == ["convolution", "act"]
    expected = torch.cat([module(one).mean(2) for one in given])
    np.testing.assert_allclose(found["act"], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_images_of_a_model_of_transformers_and_of_any_module(home: Path, tmp_path: Path) -> None:
    images = [Image.open(path) for path in sorted((home / "images").iterdir())]
    model, processor = functions(home)["seen"]()
    given = torch.cat([processor(images=image, return_tensors="pt")["pixel_values"] for image in images])
    found = rows(home, "seen", tmp_path / "o.h5", "--images", home / "images")
    expected = model.eval()(given, output_hidden_states=True).hidden_states[-1][:, 0]
    np.testing.assert_allclose(found["hidden_2"], expected, rtol=1e-4, atol=1e-5)
    np.save(tmp_path / "i.npy", given.numpy())
    again = rows(home, "seen", tmp_path / "o.h5", "--arrays", tmp_path / "i.npy")
    np.testing.assert_allclose(again["hidden_2"], expected, rtol=1e-4, atol=1e-5)
    module, _ = functions(home)["eye"]()
    found = rows(home, "eye", tmp_path / "o.h5", "--images", home / "images")
    np.testing.assert_allclose(found["convolution"], module(given).mean((2, 3)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_processor_has_a_member_for_each_kind(home: Path, tmp_path: Path) -> None:
    model, processor = functions(home)["both"]()
    texts = rows(home, "both", tmp_path / "t.h5", "--text", home / "s.txt")
    expected = [model.get_text_features(**processor.tokenizer(text, return_tensors="pt")) for text in TEXTS]
    expected = torch.cat([getattr(one, "pooler_output", one) for one in expected])
    np.testing.assert_allclose(texts["projected"], expected, rtol=1e-4, atol=1e-5)
    images = rows(home, "both", tmp_path / "i.h5", "--images", home / "images")
    assert images["projected"].shape == (3, expected.shape[1])


def test_arguments_are_json_or_text_and_part_of_what_a_run_is(home: Path, tmp_path: Path) -> None:
    given = (
        "--text",
        home / "s.txt",
        "--model-arg",
        "width=5",
        "--model-arg",
        "kind=plain",
        "--model-arg",
        "scale=0.5",
    )
    assert rows(home, "bag", tmp_path / "o.h5", *given)["embed"].shape[1] == 5
    with h5py.File(tmp_path / "o.h5") as store:
        config = json.loads(store["provenance"][()])["config"]
    assert config["model_arguments"] == {"width": 5, "kind": "plain", "scale": 0.5}
    resumed = run(
        "extract", "--model", f"{home}/nets.py:bag", *given[:-1], "scale=0.25", "-o", tmp_path / "o.h5", "--resume"
    )
    assert (resumed.code, "already exists and differs" in resumed.stderr) == (5, True)


@pytest.mark.parametrize(
    ("function", "options", "code", "message"),
    [
        (
            "bag",
            (),
            2,
            "{nets}:bag: missing a required argument: 'scale'; {takes}",
        ),
        (
            "bag",
            ("--model-arg", "scale=1", "--model-arg", "depth=1"),
            2,
            "{nets}:bag: got an unexpected keyword argument 'depth'; {takes}",
        ),
        ("bag", ("--model-arg", "scale"), 2, "--model-arg scale: write name=value, such as depth=12"),
        ("bag", ("--model-arg", "scale=1", "--model-arg", "scale=2"), 2, "--model-arg: scale is given twice"),
        (
            "ear",
            (),
            2,
            "nets.py:ear: returned a module and its feature extractor, which takes no --text; return its tokenizer",
        ),
        (
            "alone",
            (),
            2,
            "{nets}:alone: takes no --text without a tokenizer of transformers; return the module and its tokenizer, or give its "
            "inputs as --arrays",
        ),
        (
            "bag",
            ("--part", "text", "--model-arg", "scale=1"),
            2,
            "--part is for models of transformers; nets.py:bag returns a module of one part",
        ),
        ("bert", ("--tokenizer", "x"), 2, "--tokenizer is for Hugging Face models; {nets}:bert decides that itself"),
    ],
)
def test_what_does_not_fit_is_one_line(
    function: str, options: tuple[str, ...], code: int, message: str, home: Path, tmp_path: Path
) -> None:
    given = ("--model", f"{home}/nets.py:{function}", "--text", home / "s.txt", "-o", tmp_path / "o.h5", *options)
    result = run("extract", *given)
    assert (result.code, result.stdout) == (code, "")
    assert result.stderr == f"contrasim: error: {message.format(nets=home / 'nets.py', takes=TAKES)}\n"


def test_arguments_are_for_functions(home: Path, tmp_path: Path) -> None:
    result = run(
        "extract", "--model", home / "bert", "--text", home / "s.txt", "--model-arg", "a=1", "-o", tmp_path / "o.h5"
    )
    assert (result.code, result.stderr) == (
        2,
        f"contrasim: error: --model-arg is for --model file.py:function; {home}/bert takes no arguments\n",
    )


@pytest.mark.parametrize(
    "change", [{"chat_template": "{{ messages }}"}, {"model_max_length": 7}, {"truncation_side": "left"}]
)
def test_all_that_a_tokenizer_does_is_in_the_digest(change: dict[str, Any]) -> None:
    states = [processor_state(tiny.framed_tokenizer(**options)) for options in ({}, {}, change)]
    assert states[0] == states[1] != states[2]
