"""`torch.export` files: what may be in one that is loaded, and the values that leave a program's modules.

torch's loader unpickles some members of such an archive, evaluates the sizes that it describes, and calls whatever
function of torch a node names. What is loaded here is an archive without such members, whose sizes are arithmetic, and
whose nodes are torch's operators on tensors.
"""

import inspect
import io
import json
import operator
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from contrasim_cli.errors import InputError
from contrasim_cli.files import quoted

TENSORS = re.compile(
    r"models/model\.json|data/weights/(model_weights_config\.json|weight_\d+)|data/sample_inputs/model\.pt|"
    r"data/constants/(model_constants_config\.json|tensor_\d+)|archive_format|archive_version|version|byteorder|"
    r"(\.data|extra)/.*"
)
OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
ARITHMETIC = {
    "add",
    "sub",
    "mul",
    "floordiv",
    "mod",
    "truediv",
    "neg",
    "pow",
    "getitem",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
}
SYMBOLIC = {"torch.sym_int", "torch.sym_float", "torch.sym_max", "torch.sym_min", "torch.sym_not"}
NAME = re.compile(r"[A-Za-z_]\w*")
SIZE_NAMES = re.compile(
    r"[su]\d+|Symbol|Integer|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|positive|nonnegative|integer|True|False"
)
SIZE_MARKS = re.compile(r"[\s\d'(),=+\-*/<>!]*")


def check_archive(path: Path) -> None:
    """Refuse a file that could run code while it is loaded.

    Raises:
        InputError: it holds pickled objects, or a program of more than torch's operators.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        odd = [name for name in members if not TENSORS.fullmatch(name)]
        payloads = [json.loads(archive.read(full)) for name, full in members.items() if name.endswith("_config.json")]
        program = json.loads(archive.read(members["models/model.json"])) if "models/model.json" in members else {}
        examples = archive.read(members["data/sample_inputs/model.pt"]) if not odd and program else b""
    if odd or not program or any(entry.get("use_pickle") for part in payloads for entry in part["config"].values()):
        found = f"it holds {quoted(odd[0])}" if odd else "it holds pickled weights" if program else "it holds no model"
        raise InputError(
            f"{quoted(path)}: cannot be loaded without unpickling ({found}); save plain tensors with torch.export.save of "
            "torch 2.9 or later, or give --model file.py:function"
        )
    _check_program(path, program)
    _check_examples(path, examples)


def _check_program(path: Path, program: Any) -> None:
    for key, text in _texts(program):
        if key == "target" and not _is_operator(text):
            raise InputError(
                f"{quoted(path)}: calls {quoted(text)}, which is no operator on tensors; give --model file.py:function"
            )
        if key == "expr_str" and not _is_size(text):
            raise InputError(
                f"{quoted(path)}: has the size {quoted(text)}, which is no arithmetic; give --model file.py:function"
            )


def _texts(part: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in what JSON holds, with the key that it stands under."""
    if isinstance(part, str):
        yield key, part
    elif isinstance(part, (dict, list)):
        for name, member in part.items() if isinstance(part, dict) else ((key, member) for member in part):
            yield from _texts(member, name)


def _is_operator(target: str) -> bool:
    if target in SYMBOLIC:
        return True
    module, _, name = target.partition(".")
    if module == "_operator":
        return name in ARITHMETIC and hasattr(operator, name)
    found = OPERATOR.fullmatch(target)
    overload = getattr(getattr(torch.ops.aten, found[1], None), found[2], None) if found else None
    return isinstance(overload, torch._ops.OpOverload)


def _is_size(text: str) -> bool:
    names = NAME.findall(text)
    return all(map(SIZE_NAMES.fullmatch, names)) and SIZE_MARKS.fullmatch(NAME.sub("", text)) is not None


def _check_examples(path: Path, examples: bytes) -> None:
    try:
        if examples:
            torch.load(io.BytesIO(examples), weights_only=True)
    except Exception as error:  # whatever it is, torch would unpickle it all
        raise InputError(
            f"{quoted(path)}: cannot be loaded without unpickling (its example inputs are more than tensors); export it with "
            "tensors as inputs, or give --model file.py:function"
        ) from error


def module_of(path: Path, device: torch.device) -> fx.GraphModule:
    """The program of a checked file as a module on a device."""
    from torch.export.passes import move_to_device_pass

    program = torch.export.load(path)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    # guards are code that the file brings along
    options = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
    made: fx.GraphModule = program.module(**options)
    return made


def module_calls(graph: Any) -> dict[str, list[fx.Node]]:
    """Module name -> for each of its calls the value that leaves it."""
    inside: dict[tuple[str, str], list[fx.Node]] = {}
    for node in graph.nodes:
        if isinstance(node.meta.get("val"), Tensor):
            for call in _calls_around(node):
                inside.setdefault(call, []).append(node)
    calls: dict[str, list[fx.Node]] = {}
    for call, nodes in inside.items():
        calls.setdefault(call[1].partition("@")[0], []).append(_leaving(call, nodes))
    return calls


def _calls_around(node: fx.Node) -> list[tuple[str, str]]:
    """The calls of modules that a value is made in, each by its key and the module's name; the second call has a @1."""
    return [(key, str(name)) for key, (name, _) in (node.meta.get("nn_module_stack") or {}).items() if name]


def _leaving(call: tuple[str, str], nodes: Sequence[fx.Node]) -> fx.Node:
    """The last of a call's values that is used outside of it."""
    used = [node for node in nodes if any(call not in _calls_around(user) for user in node.users)]
    return (used or nodes)[-1]


def tapped(module: Any, nodes: Sequence[fx.Node]) -> fx.GraphModule:
    """The program with other values as its outputs."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(module.graph, copies)
    kept = []
    for node in nodes:
        with graph.inserting_after(copies[node]):
            # cloned: an in-place operation behind the layer would change what was kept
            kept.append(graph.call_function(torch.ops.aten.clone.default, (copies[node],)))
    graph.output(tuple(kept))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def outermost(names: Sequence[str]) -> list[str]:
    """The members of the outermost lists of modules; without any, the modules that are in no other."""
    members = [name for name in names if re.fullmatch(r"([^.]*[^.\d][^.]*\.)*\d+", name)]
    return members or [name for name in names if "." not in name]
