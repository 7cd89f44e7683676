"""No wrong row, whatever the model: what the probe finds out before a run."""

import ast
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from helpers import run
from networks import assert_same, pooled, reading, rows, seeing
from torch import nn

import contrasim_cli
from contrasim_cli.errors import InputError
from contrasim_cli.extraction.networks.probe import check_repeatable, differing, grouping, unlike
from contrasim_cli.store import View, open_store

TEXTS = [
    "the unbelievable winter",
    "talking",
    "a winter's tale of the talkers, walking and walked",
    "the talkers talking",
]
IMAGE = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "s.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray[Any, Any]:
    images = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "i.npy", images)
    return images


def saved(folder: Path, config: Any) -> Any:
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tiny.wordpiece_tokenizer().save_pretrained(folder)
    return transformers.AutoModel.from_pretrained(folder).eval()


def test_where_padding_reaches_the_rows_batches_are_of_one_length(
    tmp_path: Path, lines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    config = transformers.FNetConfig(vocab_size=120, max_position_embeddings=64, **sizes, **tiny.SPREAD)
    model, tokens = saved(tmp_path / "m", config), transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    network = reading(tmp_path / "m", lines)
    found = rows(network, TEXTS, 1)
    assert network.grouping == "alike"
    assert caplog.messages == [
        "m: a row depends on the other items in its batch, so items share a batch only if they are equally long"
    ]
    with torch.no_grad():
        given = [tokens(text, return_tensors="pt")["input_ids"] for text in TEXTS]
        states = [[state[0] for state in model(ids, output_hidden_states=True).hidden_states] for ids in given]
    assert_same(found, [[pooled(state, "mean") for state in item] for item in states])
    # and padded batches would be wrong
    assert differing(*({n: torch.from_numpy(v) for n, v in r.items()} for r in (found, rows(network, TEXTS, 4))), 1e-2)


def test_a_rate_that_makes_rows_random_is_set_to_0(
    tmp_path: Path, pixels: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = saved(tmp_path / "m", transformers.ViTMAEConfig(**IMAGE, **tiny.SPREAD))
    network = seeing(tmp_path / "m", tmp_path / "i.npy")
    assert network.pooling == "cls"
    found = rows(network, pixels)
    assert "m: its rows depend on chance (mask_ratio = 0.75), which is set to 0" in caplog.messages
    model.config.mask_ratio = 0.0
    with torch.no_grad():
        states = [model(torch.from_numpy(one[None]), output_hidden_states=True).hidden_states for one in pixels]
    assert_same(found, [[state[:, 0] for state in item] for item in states])


def test_tokens_behind_the_patches_are_no_patches(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    sizes = IMAGE | {"image_size": [16, 16], "num_detection_tokens": 5}
    model = saved(tmp_path / "m", transformers.YolosConfig(**sizes, **tiny.SPREAD))
    found = rows(seeing(tmp_path / "m", tmp_path / "i.npy", pool="patch-mean"), pixels)
    with torch.no_grad():
        states = [model(torch.from_numpy(one[None]), output_hidden_states=True).hidden_states for one in pixels]
    assert_same(found, [[state[:, 1:17].mean(1) for state in item] for item in states])


def test_a_decoder_reads_the_text_on_both_sides(tmp_path: Path, lines: Path) -> None:
    model, tokens = (
        saved(tmp_path / "m", tiny.TEXT_CONFIGS["t5"]()),
        transformers.AutoTokenizer.from_pretrained(tmp_path / "m"),
    )
    found = rows(reading(tmp_path / "m", lines, part="decoder"), TEXTS)
    with torch.no_grad():
        given = [tokens(text, return_tensors="pt")["input_ids"] for text in TEXTS]
        outputs = [model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True) for ids in given]
    assert_same(found, [[pooled(state[0], "mean") for state in output.decoder_hidden_states] for output in outputs])


def noisy(scale: Any) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {"one": torch.ones(2, 3) + scale() * torch.randn(2, 3)}


def test_a_model_without_a_switch_is_refused_unless_random_rows_are_allowed() -> None:
    with pytest.raises(InputError) as caught:
        check_repeatable(noisy(lambda: 1.0), None, torch.float32, "m", False)
    assert str(caught.value) == (
        "m: gives different rows for the same item each time, and no rate in its config.json turns that off; "
        "accept them with --allow-random"
    )
    check_repeatable(noisy(lambda: 1.0), None, torch.float32, "m", True)
    check_repeatable(noisy(lambda: 1e-7), None, torch.float32, "m", False)


@pytest.mark.parametrize(
    ("error", "dtype", "expected"), [(1e-5, "float32", "any"), (1e-3, "float32", "one"), (1e-3, "bfloat16", "any")]
)
def test_rounding_depends_on_the_type(error: float, dtype: str, expected: str) -> None:
    def layers(inputs: Any) -> dict[str, torch.Tensor]:
        return {"one": inputs["x"] * (1 + error * (len(inputs["x"]) - 1))}

    first, second = torch.ones(1, 3), 2 * torch.ones(1, 3)
    way = [{"x": first}, {"x": second}], {"x": torch.cat([first, second])}
    assert grouping(layers, {"any": way, "alike": way}, getattr(torch, dtype), "m") == expected


def test_equal_items_tell_nothing() -> None:
    same = [{"x": torch.ones(1, 3)}] * 2, {"x": torch.ones(2, 3)}
    assert grouping(lambda inputs: {"one": inputs["x"]}, {"any": same}, torch.float32, "m") == "one"


def test_other_items_are_of_the_same_kind() -> None:
    for items in (torch.zeros(1, 2, 3), torch.rand(1, 4), torch.tensor([[1, 2, 3]])):
        other = unlike(items)
        assert (other.shape, other.dtype) == (items.shape, items.dtype)
        assert not torch.equal(other, items)
    assert sorted(unlike(torch.tensor([[3, 1, 2]])).flatten().tolist()) == [1, 2, 3]


class Mixing(nn.Module):
    """A part that takes the mean of its batch from every item, in which an item beside its equal looks as it does alone."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: torch.Tensor, *given: Any, **options: Any) -> Any:
        return self.part(hidden - hidden.mean(dim=0) + 1, *given, **options)


FACTORY = """
import torch
from torch import nn


class Part(nn.Linear):
    def forward(self, x):
        return super().forward(x - x.mean(dim=0) + 1)


def make():
    torch.manual_seed(0)
    return nn.Sequential(Part(4, 4), nn.ReLU())
"""


def test_a_module_that_mixes_its_batch_gets_one_item_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(FACTORY)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    done = run(
        "extract", "--model", f"{tmp_path / 'made.py'}:make", "--arrays", tmp_path / "x.npy", "-o", tmp_path / "a.h5"
    )
    assert done.code == 0, done.stderr
    assert "items run one by one" in done.stderr
    view = View(open_store(tmp_path / "a.h5"))
    assert np.ptp(view.read("0"), axis=0).max() < 1e-6  # each item less itself
    view.store.close()


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_model_that_mixes_its_batch_gets_one_item_at_a_time(
    tmp_path: Path, lines: Path, pixels: np.ndarray[Any, Any], kind: str
) -> None:
    configs = {"text": tiny.TEXT_CONFIGS["bert"](), "image": transformers.ViTConfig(**IMAGE, **tiny.SPREAD)}
    saved(tmp_path / "m", configs[kind])
    network: Any = reading(tmp_path / "m", lines) if kind == "text" else seeing(tmp_path / "m", tmp_path / "i.npy")
    blocks = next(part for part in network.model.modules() if isinstance(part, nn.ModuleList))
    blocks[0] = Mixing(blocks[0])
    items = TEXTS if kind == "text" else pixels
    alone = rows(network, items, 1)
    assert network.grouping == "one"
    together = rows(network, items, 4)
    assert differing(*({n: torch.from_numpy(v) for n, v in found.items()} for found in (alone, together)), 1e-2)


class Failing(nn.Module):
    """A part that fails."""

    def forward(self, *given: Any, **options: Any) -> None:
        raise KeyError("missing")


def test_what_a_model_raises_is_one_line_with_its_layer(tmp_path: Path, lines: Path) -> None:
    saved(tmp_path / "m", tiny.TEXT_CONFIGS["bert"]())
    network: Any = reading(tmp_path / "m", lines)
    network.model.encoder.layer[1].output = Failing()
    with pytest.raises(InputError, match=r"^m: fails in layer encoder.layer.1.output with KeyError: 'missing'; "):
        rows(network, TEXTS)


def constants(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_no_architecture_is_named() -> None:
    package = Path(contrasim_cli.__file__).parent
    kinds = set(transformers.CONFIG_MAPPING) | {config.__name__ for config in transformers.CONFIG_MAPPING.values()}
    kinds -= {"align", "clip", "encoder-decoder"}  # words of the language, or of NumPy, too
    named = {(path.name, text) for path in package.rglob("*.py") for text in constants(path) if text in kinds}
    assert not named
    assert {"bert", "t5", "YolosConfig"} <= kinds


def test_a_sentence_transformers_folder_gives_its_own_row(
    tmp_path: Path, lines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number, inner in enumerate(("", "0_Transformer")):
        folder = tmp_path / f"st{number}"
        model = saved(folder / inner, tiny.TEXT_CONFIGS["bert"]())
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(
            '{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}'
        )
        kinds = [("Transformer", inner), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
        listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
        (folder / "modules.json").write_text(str(listed).replace("'", '"'))
        (folder / inner / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
        network = reading(folder, lines, pool="cls", layers=["sentence"])
        assert network.name == f"st{number}"
        tokens, found = transformers.AutoTokenizer.from_pretrained(folder / inner), rows(network, TEXTS)
        with torch.no_grad():
            given = [tokens(text, return_tensors="pt", truncation=True, max_length=6) for text in TEXTS]
            means = [model(**one).last_hidden_state[0].mean(0) for one in given]
        assert_same(found, [[(mean / mean.norm())[None]] for mean in means])


def test_other_sentence_transformers_are_refused(tmp_path: Path, lines: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"path": "", "type": "sentence_transformers.models.CLIPModel"}]')
    with pytest.raises(
        InputError, match="is a sentence-transformers folder of CLIPModel; a Transformer, a Pooling and a Normalize"
    ):
        reading(tmp_path, lines)
