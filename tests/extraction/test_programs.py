"""TorchScript and torch.export files as models."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from networks import rows, seeing
from PIL import Image
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError
from contrasim_cli.extraction.exported import outermost
from contrasim_cli.extraction.images import image_source
from contrasim_cli.extraction.models import ModelOptions, layer_widths, load
from contrasim_cli.store import open_store

IMAGES = np.random.default_rng(0).random((7, 1, 8, 8)).astype(np.float32)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.linear(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(1, 4, 4, 4), nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.shared(self.shared(x)), {"mean": x.mean(1)}


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, net: Net) -> Path:
    path = tmp_path_factory.mktemp("programs")
    np.save(path / "i.npy", IMAGES)
    example = torch.from_numpy(IMAGES[:3])
    torch.jit.save(torch.jit.script(net), path / "script.pt")
    torch.jit.save(torch.jit.trace(net, example, strict=False), path / "trace.pt")
    torch.export.save(torch.export.export(net, (example,)), path / "three.pt2")
    rows_of_any = ({0: torch.export.Dim("rows", min=1)},)
    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=rows_of_any), path / "any.pt2")
    return path


def module_rows(net: Net, name: str) -> np.ndarray[Any, Any]:
    """The mean over tokens, or over space, of what a module puts out, image by image."""
    kept: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_hook(lambda module, given, out: kept.append(out.clone()))
    with torch.no_grad():
        for image in IMAGES:
            net(torch.from_numpy(image[None]))
    handle.remove()
    return np.stack([state[0].mean((1, 2) if state.ndim == 4 else 0).numpy() for state in kept])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("file", ["any.pt2", "three.pt2"])
def test_modules_of_an_exported_program_are_layers(folder: Path, net: Net, file: str, size: int) -> None:
    names = ["stem", "blocks.0.linear", "blocks.0.act", "blocks.1"]
    found = rows(seeing(folder / file, folder / "i.npy", layers=names), IMAGES, size)
    assert list(found) == names
    for name, values in found.items():
        np.testing.assert_allclose(values, module_rows(net, name), rtol=1e-5, atol=1e-6, err_msg=name)


def test_of_an_exported_program_the_blocks_are_taken(folder: Path) -> None:
    network = seeing(folder / "any.pt2", folder / "i.npy")
    assert list(rows(network, IMAGES)) == ["blocks.0", "blocks.1"]
    assert network.name == "any.pt2"
    assert list(rows(seeing(folder / "any.pt2", folder / "i.npy", layers=["-1", "blocks.*.act"]), IMAGES)) == [
        "blocks.1", "blocks.0.act", "blocks.1.act",
    ]  # fmt: skip


def test_the_outermost_members() -> None:
    assert outermost(["a", "a.b.0", "a.b.0.c.1", "d.2x", "e.3"]) == ["a.b.0", "e.3"]
    assert outermost(["a", "a.b", "c"]) == ["a", "c"]


def test_a_module_that_runs_twice_is_no_layer(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        rows(seeing(folder / "any.pt2", folder / "i.npy", layers=["shared"]), IMAGES)
    assert str(caught.value) == (
        "any.pt2: layer shared runs 2 times per row, and a layer must run once; choose others with --layers"
    )


@pytest.mark.parametrize("file", ["script.pt", "trace.pt"])
def test_modules_of_a_script_are_layers(folder: Path, net: Net, file: str) -> None:
    names = ["stem", "blocks.0.linear", "blocks.0.act", "blocks.1"]
    for size in (1, 3):
        found = rows(seeing(folder / file, folder / "i.npy", layers=names), IMAGES, size)
        assert list(found) == names
        for name, values in found.items():
            np.testing.assert_allclose(values, module_rows(net, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert list(rows(seeing(folder / file, folder / "i.npy"), IMAGES)) == ["blocks.0", "blocks.1"]
    with pytest.raises(UsageError, match="layer shared runs 2 times per row, and a layer must run once"):
        rows(seeing(folder / file, folder / "i.npy", layers=["shared"]), IMAGES)


@pytest.mark.parametrize("file", ["script.pt", "trace.pt"])
def test_outputs_of_a_script_are_layers(folder: Path, net: Net, file: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = rows(seeing(folder / file, folder / "i.npy", layers=["output.*", "output.1.*", "-1"]), IMAGES, 3)
    with torch.no_grad():
        tokens, others = net(torch.from_numpy(IMAGES))
    assert list(found) == ["output.0", "output.1.mean", "blocks.1"]
    np.testing.assert_allclose(found["output.0"], tokens.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["output.1.mean"], others["mean"], rtol=1e-5, atol=1e-6)
    assert capfd.readouterr().out == ""


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2).mean(1)
        x = self.first(x) if bool(x.sum() > 0) else self.second(x)
        return self.last(x)


def test_what_runs_in_a_branch_is_no_layer(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    module = Branching().eval()
    torch.jit.save(torch.jit.script(module), tmp_path / "branching.pt")
    found = rows(seeing(tmp_path / "branching.pt", folder / "i.npy"), IMAGES)
    with torch.no_grad():
        np.testing.assert_allclose(found["last"], module(torch.from_numpy(IMAGES)), rtol=1e-5, atol=1e-6)
    assert list(found) == ["last"]
    with pytest.raises(UsageError) as caught:
        rows(seeing(tmp_path / "branching.pt", folder / "i.npy", layers=["first"]), IMAGES)
    assert str(caught.value) == "--layers first matches no layer of branching.pt; it has 2: last, output"
    assert capfd.readouterr().out == ""


def test_a_frozen_script_has_its_outputs_alone(folder: Path, net: Net, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.freeze(torch.jit.load(folder / "script.pt")), tmp_path / "frozen.pt")
    found = rows(seeing(tmp_path / "frozen.pt", folder / "i.npy"), IMAGES)
    with torch.no_grad():
        tokens, _ = net(torch.from_numpy(IMAGES))
    np.testing.assert_allclose(found["output.0"], tokens.mean(1), rtol=1e-5, atol=1e-6)
    assert list(found) == ["output.0", "output.1.mean"]
    with pytest.raises(UsageError) as caught:
        rows(seeing(tmp_path / "frozen.pt", folder / "i.npy", layers=["blocks.0"]), IMAGES)
    assert str(caught.value) == ("--layers blocks.0 matches no layer of frozen.pt; it has 2: output.0, output.1.mean")


def test_inputs_that_do_not_fit_are_refused(folder: Path) -> None:
    wide = np.zeros((2, 3, 8, 8), np.float32)
    np.save(folder / "wide.npy", wide)
    with pytest.raises(
        MismatchError, match=r"^wide\.npy: script\.pt does not take rows \[3, 8, 8\] \(RuntimeError: Given"
    ):
        rows(seeing(folder / "script.pt", folder / "wide.npy"), wide)
    with pytest.raises(MismatchError) as caught:
        rows(seeing(folder / "any.pt2", folder / "wide.npy"), wide)
    assert str(caught.value) == ("wide.npy: any.pt2 does not take rows [3, 8, 8]; it was exported for [1, 8, 8]")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"random_weights": True}, UsageError, "--random-weights is for Hugging Face models; {path} decides that itself"),
        ({"pool": "patch-mean"}, UsageError, "--pool patch-mean is not for a module's tokens; choose cls, mean, last, max, "
         "spatial-mean or flatten"),
    ],
)  # fmt: skip
def test_options_that_a_program_does_not_take(
    folder: Path, options: dict[str, Any], error: type[ContraSimError], message: str
) -> None:
    with pytest.raises(error) as caught:
        seeing(folder / "any.pt2", folder / "i.npy", **options)
    assert str(caught.value) == message.format(path=folder / "any.pt2")


def test_layers_without_data(folder: Path) -> None:
    assert layer_widths(load(ModelOptions(str(folder / "any.pt2"), layers=["stem", "blocks.1.*"]), None)) == {
        "stem": "[rows, 4, 2, 2]", "blocks.1.linear": "[rows, 4, 4]", "blocks.1.act": "[rows, 4, 4]",
    }  # fmt: skip
    everything = layer_widths(load(ModelOptions(str(folder / "any.pt2")), None))
    assert list(everything)[:2] == ["blocks.0", "blocks.1"]
    assert len(everything) == 7
    with pytest.raises(UsageError, match=r"^script\.pt: what it takes is not known; give --arrays, so that its layers"):
        layer_widths(load(ModelOptions(str(folder / "script.pt")), None))


def test_image_files_are_refused(folder: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError) as caught:
        load(ModelOptions(str(folder / "any.pt2")), image_source(tmp_path))
    assert str(caught.value) == f"{folder / 'any.pt2'}: takes no --images; give its inputs as --arrays"


def test_other_files_are_refused(folder: Path, net: Net, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text").write_text("a text")
    for name in ("weights.pt", "text"):
        with pytest.raises(InputError) as caught:
            seeing(tmp_path / name, folder / "i.npy")
        assert str(caught.value) == (
            f"{tmp_path / name}: is no TorchScript or torch.export file; --model takes a folder, a hub id, "
            "file.py:function, or such a file"
        )


class Code:
    """What a pickle may hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def changed(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive with other members; names are without the folder in the archive."""
    with zipfile.ZipFile(source) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"any/{name}", content)
    return target


def in_model(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def changing(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return changing


def pickled_weight(content: bytes) -> Callable[[dict[str, bytes]], None]:
    def changing(members: dict[str, bytes]) -> None:
        config = json.loads(members["data/weights/model_weights_config.json"])
        entry = config["config"]["stem.weight"]
        entry["use_pickle"], members[f"data/weights/{entry['path_name']}"] = True, content
        members["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    return changing


def named(change: str, value: str) -> Callable[[Any], None]:
    """Set the first node's target, or the first size."""

    def changing(program: Any) -> None:
        graph = program["graph_module"]["graph"]
        if change == "target":
            graph["nodes"][0]["target"] = value
        else:
            graph["tensor_values"]["x"]["sizes"][0] = {"as_expr": {"expr_str": value, "hint": {"as_int": 3}}}

    return changing


def refusal(path: Path, array: Path) -> str:
    with pytest.raises(InputError) as caught:
        seeing(path, array)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_must_be_unpickled_is_refused(folder: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(Code(tmp_path / "ran"), stream)
    code, array = stream.getvalue(), folder / "i.npy"
    remedy = "; save plain tensors with torch.export.save of torch 2.9 or later, or give --model file.py:function"
    weight = changed(folder / "any.pt2", tmp_path / "weight.pt2", pickled_weight(code))
    assert refusal(weight, array) == f"cannot be loaded without unpickling (it holds pickled weights){remedy}"
    for name in ("data/constants/opaque_obj_0", "data/weights/model.pt", "data/aotinductor/model/a.so"):
        held = {name: pickle.dumps(Code(tmp_path / "ran"))}
        other = changed(folder / "any.pt2", tmp_path / "other.pt2", lambda members, held=held: members.update(held))
        assert refusal(other, array) == f"cannot be loaded without unpickling (it holds {name}){remedy}"
    inputs = {"data/sample_inputs/model.pt": code}
    examples = changed(folder / "any.pt2", tmp_path / "examples.pt2", lambda members: members.update(inputs))
    assert refusal(examples, array) == (
        "cannot be loaded without unpickling (its example inputs are more than tensors); export it with tensors as "
        "inputs, or give --model file.py:function"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target", ["torch.os.system", "torch.ops.load_library", "_operator.call", "torch.ops.aten.__class__.mro", "eval"]
)
def test_a_program_that_calls_more_than_operators_is_refused(folder: Path, tmp_path: Path, target: str) -> None:
    path = changed(folder / "any.pt2", tmp_path / "calls.pt2", in_model(named("target", target)))
    assert refusal(path, folder / "i.npy") == (
        f"calls {target}, which is no operator on tensors; give --model file.py:function"
    )


@pytest.mark.parametrize("size", ["open('ran', 'w')", "exit()", "s0.__class__", "[s0]", "eval(chr(49))"])
def test_a_program_whose_sizes_are_code_is_refused(folder: Path, tmp_path: Path, size: str) -> None:
    path = changed(folder / "any.pt2", tmp_path / "sizes.pt2", in_model(named("size", size)))
    assert refusal(path, folder / "i.npy") == (
        f"has the size {size}, which is no arithmetic; give --model file.py:function"
    )


def test_guards_that_a_file_brings_along_are_not_run(folder: Path, tmp_path: Path) -> None:
    guard = f"open({str(tmp_path / 'ran')!r}, 'w')"
    path = changed(
        folder / "any.pt2", tmp_path / "guard.pt2", in_model(lambda program: program.update(guards_code=[guard]))
    )
    assert list(rows(seeing(path, folder / "i.npy"), IMAGES)) == ["blocks.0", "blocks.1"]
    assert not (tmp_path / "ran").exists()


def test_a_broken_program_is_refused(folder: Path, tmp_path: Path) -> None:
    path = changed(folder / "any.pt2", tmp_path / "broken.pt2", lambda members: members.pop("data/weights/weight_0"))
    assert refusal(path, folder / "i.npy").startswith("cannot be loaded (")
    script = tmp_path / "broken.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/code/x.py", b"")
    assert refusal(script, folder / "i.npy").startswith("cannot be loaded (")


@pytest.mark.parametrize("file", ["script.pt", "any.pt2"])
def test_the_whole_way_into_a_store(folder: Path, net: Net, tmp_path: Path, file: str) -> None:
    output = tmp_path / "o.h5"
    result = run("extract", "--model", folder / file, "--arrays", folder / "i.npy", "-o", output)
    assert result == (0, "", f"contrasim: note: wrote {output}: 2 layers x 7 rows x 4\n")
    store = open_store(output)
    assert (store.attrs["unit"], store.attrs["model"], store.attrs["pooling"]) == ("row", file, "mean")
    for name in ("blocks.0", "blocks.1"):
        np.testing.assert_allclose(store.read(name, 0, 7), module_rows(net, name), rtol=1e-5, atol=1e-6)
    store.close()
