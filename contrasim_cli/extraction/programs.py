"""Models saved as programs: TorchScript (`torch.jit.save`) and `torch.export` files (`.pt2`), found by content.

Every module of a program is a layer. Of a TorchScript program its outputs are layers too: `output`, or `output.0`,
`output.name` where there are several; where it was frozen, and its modules are gone, they are all there is.
"""

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, reason
from contrasim_cli.extraction.exported import check_archive, module_calls, module_of, outermost, tapped
from contrasim_cli.extraction.hooks import Outputs, first_tensor, select
from contrasim_cli.extraction.models import Inputs, ModelOptions, choose_pool
from contrasim_cli.extraction.modules import ModuleNetwork, refuse_texts
from contrasim_cli.extraction.pooling import MODULE_POOLS
from contrasim_cli.extraction.scripted import WHOLE, marked
from contrasim_cli.extraction.source import Source, file_digest
from contrasim_cli.files import quoted

OUTPUT = "output"


def load_program(options: ModelOptions, source: Source | None) -> "Program":
    """The program that a file holds.

    Raises:
        UsageError: texts or images, which it does not take, or an option for texts.
        InputError: the file is no program, or one that could not be read without unpickling.
    """
    path = Path(options.model)
    kind = program_kind(path)
    refuse_texts(options, source)
    if source and source.kind == "images":
        raise UsageError(f"{quoted(options.model)}: takes no --images; give its inputs as --arrays")
    pool = choose_pool(options.pool, MODULE_POOLS, "mean", "a module's tokens")
    load = _load_script if kind is Script else _load_exported
    try:
        with warnings.catch_warnings():
            # torch's about its own future
            warnings.simplefilter("ignore")
            return kind(options, load(path, options.device), None, pool, source)
    except ContraSimError:
        raise
    except Exception as error:  # torch raises whatever its parts trip over
        raise InputError(f"{quoted(path)}: cannot be loaded ({reason(error)})") from error


def program_kind(path: Path) -> "type[Program]":
    """What a file holds.

    Raises:
        InputError: neither of the two.
    """
    names = _members(path)
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return Script
    if any(name.endswith("/archive_format") for name in names):
        return Exported
    raise InputError(
        f"{quoted(path)}: is no TorchScript or torch.export file; --model takes a folder, a hub id, file.py:function, or "
        "such a file"
    )


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def _load_script(path: Path, device: torch.device) -> nn.Module:
    # its data.pkl is read by torch's own reader in C++, which knows TorchScript's types alone and runs no Python
    load: Any = torch.jit.load
    module: nn.Module = load(path, map_location=device)
    return module.eval()


def _load_exported(path: Path, device: torch.device) -> nn.Module:
    check_archive(path)
    return module_of(path, device)


@dataclass
class Program(ModuleNetwork):
    """A module that was read from a file."""

    @property
    def name(self) -> str:
        return Path(self.options.model).name

    @property
    def digest(self) -> str:
        return file_digest(Path(self.options.model))


@dataclass
class Script(Program):
    """A TorchScript program, whose layers are its modules and its outputs."""

    made: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.program = marked(self.module)

    def _names(self) -> list[str]:
        return list(self.program.calls)

    def _defaults(self, inputs: Inputs) -> list[str]:
        # a program that was frozen has no modules any more
        return outermost(self._names()) or list(self._results(inputs))

    def _selected(self, inputs: Inputs) -> list[str]:
        if not self.options.layers:
            return self._defaults(inputs)
        return select(self._defaults(inputs), [*self._names(), *self._results(inputs)], self.options.layers, self.name)

    def _results(self, inputs: Inputs) -> dict[str, Tensor]:
        return _flattened(self._values((WHOLE,), inputs)[0], OUTPUT)

    def _values(self, names: tuple[str, ...], inputs: Inputs) -> Any:
        """What modules return, each of which runs once."""
        if names not in self.made:
            self.made[names] = self.program.tapped(names)
        return self._run(self.made[names], *inputs.values())

    def _outputs(self, inputs: Inputs, names: Sequence[str]) -> Outputs:
        once = tuple(name for name in names if self.program.calls.get(name) == 1)
        states = dict(zip(once, self._values(once, inputs) if once else (), strict=True))
        calls = self.program.calls
        results = self._results(inputs) if any(name not in calls for name in names) else {}
        return {
            name: [first_tensor(states.get(name))] * calls[name] if name in calls else [results.get(name)]
            for name in names
        }


def _flattened(output: Any, name: str) -> dict[str, Tensor]:
    """The tensors in a program's output, by their places in it."""
    if isinstance(output, Tensor):
        return {name: output}
    members = output.items() if isinstance(output, Mapping) else enumerate(output if _is_list(output) else ())
    return {key: found for place, member in members for key, found in _flattened(member, f"{name}.{place}").items()}


def _is_list(output: Any) -> bool:
    return isinstance(output, (tuple, list))


@dataclass
class Exported(Program):
    """A `torch.export` program, whose layers are the values that leave its modules."""

    made: dict[tuple[str, ...], fx.GraphModule] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.calls = module_calls(self.graph)
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise UsageError(f"{quoted(self.name)}: takes {len(inputs)} inputs; --arrays gives one")
        value = inputs[0].meta.get("val")
        # a program is made for inputs of some sizes, those that are numbers, and may be wrong for others
        self.sizes = list(value.shape) if isinstance(value, Tensor) else [None]
        self.fixed = self.sizes[0] if isinstance(self.sizes[0], int) else None

    @property
    def graph(self) -> Any:
        return self.module.graph

    def widths(self) -> dict[str, str]:
        """Every module that runs once, with the shape that it was exported with."""
        everything = [*outermost(self._names()), *self._names()]
        asked = self.options.layers
        names = (
            select(outermost(self._names()), self._names(), asked, self.name) if asked else dict.fromkeys(everything)
        )
        once = {name: self.calls[name][0].meta["val"].shape[1:] for name in names if len(self.calls[name]) == 1}
        return {name: f"[{', '.join(map(str, ('rows', *shape)))}]" for name, shape in once.items()}

    def _names(self) -> list[str]:
        return list(self.calls)

    def _defaults(self, inputs: Inputs) -> list[str]:
        return outermost(self._names())

    def _outputs(self, inputs: Inputs, names: Sequence[str]) -> Outputs:
        (given,) = inputs.values()
        self._check_sizes(given)
        once = [name for name in names if len(self.calls[name]) == 1]
        program = self._tapped(tuple(once))
        pieces = [self._run(program, piece) for piece in self._pieces(given)] if once else []
        states = {name: _joined([piece[place] for piece in pieces], len(given)) for place, name in enumerate(once)}
        return {name: [states.get(name)] * len(self.calls[name]) for name in names}

    def _check_sizes(self, given: Tensor) -> None:
        wanted, found = self.sizes[1:], list(given.shape[1:])
        if len(wanted) != len(found) or any(isinstance(k, int) and k != n for k, n in zip(wanted, found, strict=True)):
            where = f"{quoted(self.source.name)}: " if self.source else ""
            raise MismatchError(f"{where}{quoted(self.name)} does not take rows {found}; it was exported for {wanted}")

    def _pieces(self, given: Tensor) -> Iterator[Tensor]:
        """Batches of the size that the program takes, the last row repeated; few programs are made for one row alone."""
        size = self.fixed or max(2, len(given))
        for start in range(0, len(given), size):
            piece = given[start : start + size]
            yield torch.cat([piece, piece[-1:].expand(size - len(piece), *piece.shape[1:])])

    def _tapped(self, names: tuple[str, ...]) -> fx.GraphModule:
        """The program with the layers as its outputs."""
        if names not in self.made:
            self.made[names] = tapped(self.module, [self.calls[name][0] for name in names])
        return self.made[names]


def _joined(pieces: Sequence[Tensor], count: int) -> Tensor:
    """The rows of all pieces without those that fill the last one."""
    return torch.cat(list(pieces))[:count] if all(piece.ndim for piece in pieces) else pieces[0]
