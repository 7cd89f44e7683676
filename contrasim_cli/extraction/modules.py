"""Any torch module, made by a function of the user's: layers are submodules, read through forward hooks.

Layers are chosen by globs over the names of `named_modules()`, in which `*` stays between two dots and `**` crosses
them: `blocks.*` are the blocks, `blocks.**` everything in them too. Without a choice they are the members of every
outermost ModuleList or Sequential (usually the blocks), or, where there is none, the module's direct children.

A layer's output [n, width] is taken as it is, [n, tokens, width] is pooled, [n, channels, height, width] is averaged
over space; of a tuple or dict the first tensor counts.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError
from contrasim_cli.extraction.inputs import Items, Source, file_digest, open_image
from contrasim_cli.extraction.models import Inputs, ModelOptions, choose_pool, shapes, to_device
from contrasim_cli.extraction.pooling import TEXT_POOLS, pool_tokens, spatial_mean
from contrasim_cli.files import quoted
from contrasim_cli.store.select import select_layers

log = logging.getLogger(__name__)

Preprocess = Callable[[Any], Any]


def load_factory(options: ModelOptions, source: Source) -> "ModuleNetwork":
    """The module that `file.py:function` or `package.module:function` returns, alone or with a preprocess function.

    Raises:
        UsageError: texts, which a factory's module does not take, or an option for texts.
        InputError: the function is not there, fails, or returns something else.
    """
    if source.kind == "text":
        raise UsageError(f"{quoted(options.model)}: takes no --text; give its inputs as --arrays")
    if options.max_length is not None or options.random_weights:
        given = "--random-weights" if options.random_weights else "--max-length"
        raise UsageError(f"{given} is for Hugging Face models; {quoted(options.model)} decides that itself")
    pool = choose_pool(options.pool, TEXT_POOLS, "mean", "a module's tokens")
    made = _call(options.model)
    module, preprocess = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module) or not (preprocess is None or callable(preprocess)):
        raise InputError(
            f"{quoted(options.model)}: returned {type(made).__name__}; expected a torch.nn.Module, or it and a preprocess function"
        )
    if source.kind == "images" and preprocess is None:
        raise InputError(
            f"{quoted(options.model)}: --images needs (module, preprocess) from it, so that images become tensors"
        )
    return ModuleNetwork(options, module.eval().to(options.device), preprocess, pool, source)


def _call(model: str) -> Any:
    function = _function(model)
    try:
        return function()
    except ContraSimError:
        raise
    except Exception as error:
        raise InputError(f"{quoted(model)}: the function failed with {type(error).__name__}: {error}") from error


def _function(model: str) -> Callable[[], Any]:
    file, _, name = model.rpartition(":")
    try:
        module = _from_file(Path(file)) if file.endswith(".py") else _from_package(file)
    except ContraSimError:
        raise
    except Exception as error:
        raise InputError(f"{quoted(file)}: cannot be imported ({type(error).__name__}: {error})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{quoted(file)}: has no function {quoted(name)}")
    return function  # type: ignore[no-any-return]


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{quoted(path)}: there is no such file")
    # its neighbours are importable, as in `python file.py`
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{quoted(path)}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _from_package(name: str) -> Any:
    # the current folder is importable, as in `python -m`
    sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


@dataclass
class Examples:
    """A block of arrays or image files, preprocessed one by one where the factory gives a function for it."""

    items: Items
    preprocess: Preprocess | None
    files: bool
    truncated: int = 0

    @property
    def lengths(self) -> list[int]:
        return [1] * len(self.items)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        if self.preprocess is None:
            return {"input": _tensor(np.asarray(self.items[rows]))}
        return {"input": torch.stack([self._one(self.items[row]) for row in rows])}

    def _one(self, item: Any) -> Tensor:
        given = open_image(item, None) if self.files else np.array(item)
        done = self.preprocess(given) if self.preprocess else given
        return done if isinstance(done, Tensor) else _tensor(np.asarray(done))


def _tensor(array: Any) -> Tensor:
    """Floats, and bytes of pixels, as float32; other integers, which are tokens or indices, as int64."""
    integers = array.dtype.kind in "iu" and array.dtype.itemsize > 1
    return torch.from_numpy(array.astype(np.int64 if integers else np.float32))


@dataclass
class ModuleNetwork:
    """A module and the submodules that are its layers."""

    options: ModelOptions
    module: nn.Module
    preprocess: Preprocess | None
    pooling: str
    source: Source
    chosen: dict[str, nn.Module] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        file, _, function = self.options.model.rpartition(":")
        return f"{Path(file).name}:{function}"

    @property
    def digest(self) -> str:
        file = Path(self.options.model.rpartition(":")[0])
        code = file_digest(file) if file.is_file() else ""
        return hashlib.sha256(f"{code} {weights_digest(self.module)}".encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        return {"architecture": type(self.module).__name__}

    def prepare(self, items: Items, first: int) -> Examples:
        return Examples(items, self.preprocess, self.source.kind == "images")

    def discover(self, inputs: Inputs) -> dict[str, int]:
        names = default_layers(self.module) if not self.options.layers else self._selected(self.options.layers)
        modules = dict(self.module.named_modules())
        candidates = {name: modules[name] for name in names}
        outputs = self._outputs(inputs, candidates)
        found = {name: self._usable(name, outputs[name], inputs) for name in names}
        usable = _without_refused(found, self.options.layers or (), self.name)
        self.chosen = {name: candidates[name] for name in usable}
        return {name: tensor.shape[1] for name, tensor in self.rows(inputs).items()}

    def rows(self, inputs: Inputs) -> dict[str, Tensor]:
        outputs = self._outputs(inputs, self.chosen)
        count = len(next(iter(inputs.values())))
        rows = {}
        for name in self.chosen:
            states = outputs[name][0]
            if states is None or len(states) != count:
                raise InputError(
                    f"{quoted(self.name)}: layer {quoted(name)} does not give one state per row of the batch"
                )
            rows[name] = self._pool(states)
        return rows

    def _selected(self, patterns: Sequence[str]) -> list[str]:
        names = [name for name, _ in self.module.named_modules() if name]
        defaults = default_layers(self.module)
        chosen: dict[str, None] = {}
        for pattern in patterns:
            found = [name for name in names if matches(name, pattern)]
            ranged = re.fullmatch(r"-?\d+|\d+-\d+", pattern) and not found
            chosen.update(
                dict.fromkeys(found or select_layers(defaults if ranged else names, [pattern], where=self.name))
            )
        return list(chosen)

    @torch.inference_mode()
    def _outputs(self, inputs: Inputs, layers: Mapping[str, nn.Module]) -> dict[str, list[Tensor | None]]:
        with _hooked(layers) as outputs:
            try:
                self.module(*to_device(inputs, self.options.device).values())
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                raise MismatchError(
                    f"{quoted(self.source.name)}: {quoted(self.name)} does not take rows {shapes(inputs.values())} "
                    f"({str(error).strip().splitlines()[0]})"
                ) from error
        return outputs

    def _usable(self, name: str, outputs: Sequence[Tensor | None], inputs: Inputs) -> Tensor | str:
        """A layer's only output, or what is wrong with it."""
        if len(outputs) != 1:
            return f"layer {quoted(name)} runs {len(outputs)} times per row, and a layer must run once"
        states, count = outputs[0], len(next(iter(inputs.values())))
        if states is None:
            return f"layer {quoted(name)} puts out no tensor"
        if states.ndim not in (2, 3, 4) or len(states) != count or not states.is_floating_point():
            shape = list(states.shape)
            return (
                f"layer {quoted(name)} puts out {shape} for {count} row(s); expected [n, width], [n, tokens, width] or "
                "[n, channels, height, width]"
            )
        return states

    def _pool(self, states: Tensor) -> Tensor:
        if states.ndim == 3:
            return pool_tokens(states, torch.ones(states.shape[:2], device=states.device), self.pooling)
        return spatial_mean(states) if states.ndim == 4 else states


def _without_refused(found: Mapping[str, Tensor | str], asked: Sequence[str], where: str) -> dict[str, Tensor]:
    """The usable layers; what cannot be used is left out, unless it was asked for by its name or nothing else is there."""
    refused = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    named = [name for name in refused if name in asked]
    if named or len(refused) == len(found):
        reason = refused[named[0]] if named else next(iter(refused.values()), "it has no submodules")
        raise UsageError(f"{quoted(where)}: {reason}; choose others with --layers")
    if refused:
        log.info(
            "%d of %d modules are left out, the first because %s",
            len(refused),
            len(found),
            next(iter(refused.values())),
        )
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


@contextlib.contextmanager
def _hooked(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor | None]]]:
    """Collect what each module puts out while the block runs."""
    outputs: dict[str, list[Tensor | None]] = {name: [] for name in layers}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        # cloned: an in-place operation behind the layer would change what was kept
        return lambda module, given, output: outputs[name].append(_cloned(first_tensor(output)))

    handles = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _cloned(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def first_tensor(output: Any) -> Tensor | None:
    """The output itself, or the first tensor in a tuple, list or dict of outputs."""
    if isinstance(output, Tensor):
        return output
    members = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for member in members if (found := first_tensor(member)) is not None), None)


def default_layers(module: nn.Module) -> list[str]:
    """The members of every outermost ModuleList or Sequential, in order; without any, the direct children."""
    return list(_members(module, "")) or [name for name, _ in module.named_children()]


def _members(module: nn.Module, prefix: str) -> Iterator[str]:
    is_container = isinstance(module, (nn.ModuleList, nn.Sequential))
    for name, child in module.named_children():
        if is_container:
            yield f"{prefix}{name}"
        else:
            yield from _members(child, f"{prefix}{name}.")


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name fits a glob: `*` and `?` stay between two dots, `**` crosses them."""
    parts = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    regex = "".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*|\?)", pattern))
    return re.fullmatch(regex, name) is not None


def weights_digest(module: nn.Module) -> str:
    """Digest of every parameter and buffer."""
    digest = hashlib.sha256(str(module).encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
