import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from networks import seeing
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError
from contrasim_cli.extraction.networks.factory import ModuleNetwork, default_layers
from contrasim_cli.extraction.networks.hooks import first_tensor, matches
from contrasim_cli.extraction.networks.load import is_factory, layer_widths, load
from contrasim_cli.extraction.networks.network import ModelOptions
from contrasim_cli.extraction.sources.open import array_source, text_source

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.attn(x), "weights"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 4, 4)
        self.act = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList(Block() for _ in range(11))

    def forward(self, x):
        x = self.act(self.stem(x)).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x, _ = block(x)
        return x

def net():
    return Net()

def with_preprocess():
    return Net(), lambda array: torch.from_numpy(array[None])

def fails():
    raise RuntimeError("no weights here")

def number():
    return 3

class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.act, self.unused = nn.Linear(64, 5), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x.flatten(1)))))

def shared():
    return Shared()

class Raises(Net):
    def forward(self, x):
        raise KeyError("width")

def raises():
    return Raises()

def leaves():
    raise SystemExit(7)

def clumsy():
    def preprocess(array):
        if array.sum() > 30:
            raise KeyError("colour")
        return torch.from_numpy(array)
    return Net(), preprocess

def returns_none():
    return Net(), lambda array: None

def ragged():
    return Net(), lambda array: torch.zeros(1, 8, 8 if array.sum() > 30 else 4)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nets")
    (path / "tiny_nets.py").write_text(NETS)
    np.save(path / "i.npy", np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32))
    np.save(path / "grey.npy", np.load(path / "i.npy")[:, 0])
    return path


def made(folder: Path, function: str, arrays: str = "i.npy", **options: Any) -> tuple[Any, dict[str, int]]:
    source = array_source(folder / arrays)
    model = load(ModelOptions(f"{folder}/tiny_nets.py:{function}", **options), source)
    return model, model.discover(model.prepare(next(source.blocks(1)), 0).batch([0]))


def rows(model: Any, folder: Path, arrays: str = "i.npy") -> dict[str, Tensor]:
    items = np.load(folder / arrays)
    result: dict[str, Tensor] = model.rows(model.prepare(items, 0).batch(list(range(len(items)))))
    return result


def by_hand(module: Any, images: Tensor) -> list[Tensor]:
    x = torch.relu(module.stem(images)).flatten(2).transpose(1, 2)
    states = []
    for block in module.blocks:
        x = x + block.attn(x)
        states.append(x)
    return states


def test_the_blocks_are_the_layers_unless_others_are_chosen(folder: Path) -> None:
    model, widths = made(folder, "net")
    assert widths == {f"blocks.{index}": 8 for index in range(11)}
    states = by_hand(model.module, torch.from_numpy(np.load(folder / "i.npy")))
    for found, expected in zip(rows(model, folder).values(), states, strict=True):
        torch.testing.assert_close(found, expected.mean(1))


@pytest.mark.parametrize(("pool", "place"), [("cls", 0), ("last", -1)])
def test_tokens_of_a_module_are_pooled(folder: Path, pool: str, place: int) -> None:
    model, _ = made(folder, "net", pool=pool, layers=["-1"])
    state = by_hand(model.module, torch.from_numpy(np.load(folder / "i.npy")))[-1]
    torch.testing.assert_close(rows(model, folder)["blocks.10"], state[:, place])


def test_feature_maps_are_averaged_over_space_as_they_were_when_the_layer_ran(folder: Path) -> None:
    model, widths = made(folder, "net", layers=["stem"])
    assert widths == {"stem": 8}
    # the activation behind it works in place
    expected = model.module.stem(torch.from_numpy(np.load(folder / "i.npy"))).mean((2, 3))
    torch.testing.assert_close(rows(model, folder)["stem"], expected)
    assert (expected < 0).any()


def test_a_preprocess_function_gets_one_item_at_a_time(folder: Path) -> None:
    plain, _ = made(folder, "net")
    torch.manual_seed(0)
    given, _ = made(folder, "with_preprocess", arrays="grey.npy")
    torch.testing.assert_close(rows(given, folder, "grey.npy"), rows(plain, folder))


def test_weights_of_a_factory_come_from_the_seed(folder: Path) -> None:
    digests = [made(folder, "net", seed=seed)[0].digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("blocks.3", "blocks.*", True),
        ("blocks.3.attn", "blocks.*", False),
        ("blocks.3.attn", "blocks.**", True),
        ("blocks.3.attn", "blocks.*.attn", True),
        ("blocks.10", "blocks.?", False),
        ("blocksX3", "blocks.3", False),
    ],
)
def test_a_star_stays_between_two_dots(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, pattern) is fits


def test_default_layers_are_the_members_of_the_outermost_containers() -> None:
    stages = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU())
    body = nn.Module()
    body.stem, body.stages = nn.ReLU(), stages
    whole = nn.Module()
    whole.body, whole.head = body, nn.ReLU()
    assert default_layers(whole) == ["body.stages.0", "body.stages.1"]
    assert default_layers(stages) == ["0", "1"]
    plain = nn.Module()
    plain.first, plain.second = nn.ReLU(), nn.ReLU()
    assert default_layers(plain) == ["first", "second"]


def test_globs_take_modules_and_a_note_says_what_the_default_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tiny_nets.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    body = nn.Sequential(nn.Linear(64, 6), nn.ReLU())\n"
        "    return nn.Sequential(__import__('collections').OrderedDict(\n"
        "        flat=nn.Flatten(), first=nn.Linear(64, 64), body=body, head=nn.Linear(6, 3)))\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.flat, self.first, self.body, self.head = net()\n"
        "    def forward(self, x):\n"
        "        return self.head(self.body(self.first(self.flat(x))))\n"
    )
    np.save(tmp_path / "i.npy", np.random.default_rng(0).random((3, 8, 8)).astype(np.float32))
    logging.getLogger("contrasim_cli").propagate = True
    with caplog.at_level(logging.INFO):
        assert list(made(tmp_path, "Net")[1]) == ["body.0", "body.1"]
    assert caplog.messages == [
        "the layers are the 2 members of body; left out: flat, first and head (--layers '**' takes every module)"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert list(made(tmp_path, "Net", layers=["*"])[1]) == ["flat", "first", "body", "head"]
        assert list(made(tmp_path, "Net", layers=["**"])[1]) == ["flat", "first", "body", "body.0", "body.1", "head"]
        assert list(made(tmp_path, "Net", layers=["0"])[1]) == ["body.0"]
        assert list(made(tmp_path, "net")[1]) == ["flat", "first", "body", "head"]
    assert not caplog.messages


def test_of_several_outputs_the_first_tensor_counts() -> None:
    tensor = torch.ones(1)
    assert first_tensor(("a", [None, tensor], torch.zeros(1))) is tensor
    assert first_tensor({"loss": None, "states": tensor}) is tensor
    assert first_tensor("a") is None


def test_a_layer_that_runs_twice_is_no_layer(folder: Path) -> None:
    assert made(folder, "shared")[1] == {"first": 5, "second": 5}
    assert made(folder, "shared", layers=["*"])[1] == {"first": 5, "second": 5}
    with pytest.raises(UsageError, match="layer act runs 2 times per row, and a layer must run once"):
        made(folder, "shared", layers=["act"])


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("fails", InputError, "the function failed with RuntimeError: no weights here"),
        (
            "number",
            InputError,
            "returned int; expected a torch.nn.Module, or it and a tokenizer, processor or preprocess function",
        ),
        ("missing", InputError, "has no function missing"),
        ("leaves", InputError, "the function failed with SystemExit: 7"),
    ],
)
def test_a_factory_that_makes_no_module_is_refused(
    folder: Path, function: str, error: type[ContraSimError], message: str
) -> None:
    with pytest.raises(error) as caught:
        made(folder, function)
    assert str(caught.value).endswith(message)


def test_inputs_that_do_not_fit_are_refused_with_their_shape(folder: Path) -> None:
    np.save(folder / "wide.npy", np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(MismatchError, match=r"wide\.npy: tiny_nets\.py:net does not take rows \[3, 8, 8\]"):
        made(folder, "net", arrays="wide.npy")


def test_whatever_a_module_raises_is_one_line(folder: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        made(folder, "raises")
    assert str(caught.value) == "i.npy: tiny_nets.py:raises does not take rows [1, 8, 8] (KeyError: 'width')"


def test_a_preprocess_function_that_fails_names_the_row(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.stack([np.full((1, 8, 8), k, np.float32) for k in (0, 1, 0)]))
    given = (
        "extract",
        "--model",
        f"{folder}/tiny_nets.py:clumsy",
        "--arrays",
        tmp_path / "i.npy",
        "-o",
        tmp_path / "o",
    )
    why = "the preprocess function failed with KeyError: 'colour'"
    found = run(*given)
    note = "contrasim: note: the layers are the 11 members of blocks; left out: stem and act (--layers '**' takes every module)\n"
    assert found.stderr == (
        f"{note}contrasim: error: {tmp_path}/i.npy: row 1: {why}; correct it, or leave it out with --skip-bad\n"
    )
    assert found.code == 3
    assert run(*given, "--skip-bad") == (
        0,
        "",
        f"{note}contrasim: warning: row 1 is left out: {why}\ncontrasim: note: wrote {tmp_path}/o: 11 layers x 2 rows x 8\n",
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("returns_none", "the preprocess function returned NoneType; expected a tensor or an array"),
        (
            "ragged",
            "the preprocess function returns tensors of [1, 8, 4] and of [1, 8, 8]; expected one shape for all items",
        ),
    ],
)
def test_what_a_preprocess_function_returns_must_fit(folder: Path, function: str, message: str) -> None:
    array = np.stack([np.full((1, 8, 8), k, np.float32) for k in (0, 1)])
    network = load(ModelOptions(f"{folder}/tiny_nets.py:{function}"), array_source(folder / "i.npy"))
    with pytest.raises(InputError) as caught:
        network.prepare(array, 0).batch([0, 1])
    assert str(caught.value) == message


def test_a_misspelt_layer_is_refused_with_what_is_near(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--layers blcks.1 matches no layer of tiny_nets.py:net; did you mean blocks.1"
    ):
        made(folder, "net", layers=["blcks.1"])


def test_options_for_texts_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a\n")
    with pytest.raises(UsageError, match="takes no --text without a tokenizer of transformers; return"):
        load(ModelOptions(f"{folder}/tiny_nets.py:net"), text_source(tmp_path / "s.txt"))
    with pytest.raises(UsageError, match="--pool patch-mean is not for a module's tokens"):
        made(folder, "net", pool="patch-mean")


def test_integers_stay_integers_and_bytes_become_numbers(folder: Path) -> None:
    module = nn.Sequential(nn.Embedding(9, 4))
    options, source = ModelOptions("nets.py:f"), array_source(folder / "i.npy")
    model = ModuleNetwork(options, module, None, "mean", source)
    tokens = np.array([[1, 2], [3, 4]])
    inputs = model.prepare(tokens, 0).batch([1, 0])
    assert model.discover(inputs) == {"0": 4}
    torch.testing.assert_close(model.rows(inputs)["0"], module(torch.tensor([[3, 4], [1, 2]])).mean(1))
    assert model.prepare(tokens.astype(np.uint8), 0).batch([0])["input"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"unit": "word"}, "--unit word"),
        ({"tokenizer": "t"}, "--tokenizer"),
        ({"revision": "r"}, "--revision"),
        ({"part": "text"}, "--part"),
        ({"max_length": 3}, "--max-length"),
        ({"random_weights": True}, "--random-weights"),
    ],
)
def test_options_for_hugging_face_are_refused(folder: Path, options: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(folder, "net", **options)
    assert str(caught.value) == f"{name} is for Hugging Face models; {folder}/tiny_nets.py:net decides that itself"


def test_without_data_the_layers_of_a_module_are_not_known(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        layer_widths(load(ModelOptions(f"{folder}/tiny_nets.py:net"), None))
    assert str(caught.value) == (
        "tiny_nets.py:net: its inputs are not known; give --arrays, so that its layers can be found"
    )


def test_states_can_be_flattened(folder: Path) -> None:
    model, widths = made(folder, "net", layers=["stem", "blocks.0"], pool="flatten")
    assert widths == {"stem": 32, "blocks.0": 32}
    images = torch.from_numpy(np.load(folder / "i.npy"))
    torch.testing.assert_close(rows(model, folder)["stem"], model.module.stem(images).flatten(1))
    torch.testing.assert_close(rows(model, folder)["blocks.0"], by_hand(model.module, images)[0].flatten(1))


def test_a_module_can_compute_in_fewer_bits(folder: Path) -> None:
    full, short = (rows(made(folder, "net", dtype=dtype, seed=1)[0], folder) for dtype in ("float32", "bfloat16"))
    for name, values in short.items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, full[name], atol=0.1, rtol=0.1)
        assert not torch.equal(values, full[name])


def test_what_is_a_factory_and_what_a_hub_id(tmp_path: Path) -> None:
    assert is_factory("nets.py:make")
    assert is_factory("some.package:make")
    assert not is_factory("org/name")
    assert not is_factory("bert-base-uncased")
    assert not is_factory(str(tmp_path))


LOADS = """
import torch

def script():
    return torch.jit.load("net.pt")

def exported():
    return torch.export.unflatten(torch.export.load("net.pt2"))
"""


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_a_program_is_loaded_by_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net, inputs = Small().eval(), np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.save("x.npy", inputs)
    Path("loads.py").write_text(LOADS, encoding="utf-8")
    torch.jit.save(torch.jit.script(net), "net.pt")
    torch.export.save(
        torch.export.export(net, (torch.from_numpy(inputs),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},)),
        "net.pt2",
    )
    first = (inputs @ net.first.weight.T.detach().numpy()) + net.first.bias.detach().numpy()
    last = np.maximum(first, 0) @ net.second.weight.T.detach().numpy() + net.second.bias.detach().numpy()
    for function, expected in (("script", {"output": last}), ("exported", {"first": first, "second": last})):
        network = seeing(Path(f"loads.py:{function}"), Path("x.npy"))
        batch = network.prepare(inputs, 0).batch(range(5))
        assert network.discover(batch) == {name: values.shape[1] for name, values in expected.items()}
        for name, tensor in network.rows(batch).items():
            np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-6)


def test_the_digest_of_a_frozen_program_is_that_of_its_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((2, 6), np.float32))
    Path("loads.py").write_text(LOADS, encoding="utf-8")
    digests = []
    for seed in (0, 0, 1):
        torch.jit.save(torch.jit.freeze(torch.jit.script(Small(seed).eval())), "net.pt")
        digests.append(seeing(Path("loads.py:script"), Path("x.npy")).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_file_of_a_model_says_how_to_load_it(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Small()), tmp_path / "net.pt")
    np.save(tmp_path / "x.npy", np.zeros((2, 6), np.float32))
    done = run("extract", "--model", tmp_path / "net.pt", "--arrays", tmp_path / "x.npy", "-o", tmp_path / "o.h5")
    assert done == (
        3,
        "",
        f"contrasim: error: {tmp_path / 'net.pt'}: is a file, and a file of a model (TorchScript, torch.export, a pickle) can run "
        "code; load it in a function of your own, --model file.py:function, or give a folder or hub id of Hugging Face\n",
    )


def test_a_part_that_is_a_program_is_a_layer_and_its_own_parts_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 6), np.float32))
    code = "\ndef both():\n    return torch.nn.Sequential(torch.jit.load(PATH), torch.nn.Linear(3, 2))\n"
    (tmp_path / "both.py").write_text(f"import torch\nPATH = {str(tmp_path / 'net.pt')!r}\n{code}", encoding="utf-8")
    torch.jit.save(torch.jit.script(Small()), tmp_path / "net.pt")
    network = seeing(tmp_path / "both.py:both", tmp_path / "x.npy")
    assert network.discover({"input": torch.zeros(2, 6)}) == {"0": 3, "1": 2}
    network = seeing(tmp_path / "both.py:both", tmp_path / "x.npy", layers=["0.first"])
    with pytest.raises(UsageError, match=r"layer 0\.first runs 0 times per row, and a layer must run once"):
        network.discover({"input": torch.zeros(2, 6)})
