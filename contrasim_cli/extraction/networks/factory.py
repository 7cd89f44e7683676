"""Any torch module, made by a function of the user's: layers are submodules, read through forward hooks.

Layers are chosen by globs over the names of `named_modules()`. Without a choice they are the members of every outermost
ModuleList or Sequential (usually the blocks), or, where there is none, the module's direct children.

A TorchScript program calls no hooks of its parts, so that it has one layer, `output`.

A layer's output [n, width] is taken as it is, [n, tokens, width] is pooled, [n, channels, height, width] is averaged
over space or flattened; of a tuple or dict the first tensor counts. Which axis is the width, `axes` finds or `--axes` says.
"""

import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception_only
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, reason
from contrasim_cli.extraction.networks.axes import Part, arranged, model_axes, recorded, width_axis
from contrasim_cli.extraction.networks.hooks import (
    Outputs,
    default_layers,
    hooked,
    only_output,
    select,
    without_refused,
)
from contrasim_cli.extraction.networks.network import ANY, Inputs, ModelOptions, Network, autocast, choose_pool, shapes
from contrasim_cli.extraction.networks.probe import check_repeatable, grouping, unlike
from contrasim_cli.extraction.networks.processed import (
    first_kind,
    is_pretrained,
    is_processor,
    load_processed,
    member_for,
    processor_state,
)
from contrasim_cli.extraction.pooling import MODULE_POOLS, pool_maps, pool_patches, pool_tokens
from contrasim_cli.extraction.sources.images import open_image
from contrasim_cli.extraction.sources.source import BadItem, Items, Source, file_digest
from contrasim_cli.names import listed, quoted

log = logging.getLogger(__name__)

NUMERIC = "fiub"
SHOWN = 6  # names that a note lists
OUTPUT = "output"
PASSING = re.compile(r"__torch_mangle_\d+|#.*")  # of a program's graph: what differs from one loading to the next
TALKING = (RuntimeError, ValueError, TypeError, IndexError)  # whose messages say what is wrong without their names

Preprocess = Callable[[Any], Any]


def load_factory(options: ModelOptions, source: Source | None) -> Network:
    """The module that `file.py:function` or `package.module:function` returns, alone or with what makes its inputs.

    That is a tokenizer or processor of transformers, or a function of one item, `preprocess`.

    Raises:
        UsageError: the module does not take this kind of source, or an option is not for it.
        InputError: the function is not there, fails, or returns something else.
    """
    refuse_options(options, ("--random-weights", "--tokenizer", "--revision"))
    made = _call(options)
    module, beside = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module) or not (beside is None or callable(beside)):
        raise InputError(
            f"{quoted(options.model)}: returned {type(made).__name__}; expected a torch.nn.Module, or it and a tokenizer, "
            "processor or preprocess function"
        )
    module = _with_layers(module).eval().to(options.device)
    if not _is_processed(module, beside, source):
        return _module_network(options, module, beside, source)
    digest = hashlib.sha256(f"{module_digest(options, module)} {processor_state(beside)}".encode()).hexdigest()
    return load_processed(options, module_name(options), module, beside, digest, source)


def _is_processed(module: nn.Module, beside: Any, source: Source | None) -> bool:
    """Whether it runs as models of transformers do: with a tokenizer or feature extractor, or as one of them that sees."""
    if not is_processor(beside):
        return False
    kind = source.kind if source else first_kind(beside)
    sees = kind == "images" or (kind == "arrays" and getattr(module, "main_input_name", "") == "pixel_values")
    return kind in ("text", "audio") or (sees and is_pretrained(module))


def _module_network(options: ModelOptions, module: nn.Module, beside: Any, source: Source | None) -> "ModuleNetwork":
    kind = source.kind if source else None
    if kind in ("text", "audio"):
        what = "tokenizer" if kind == "text" else "feature extractor"
        raise UsageError(
            f"{quoted(options.model)}: takes no --{kind} without a {what} of transformers; return the module and its {what}, or "
            "give its inputs as --arrays"
        )
    refuse_options(options, ("--max-length", "--part", "--unit word"))
    pool = choose_pool(options.pool, MODULE_POOLS, "mean", "a module's tokens")
    if options.axes is not None:
        if options.pool is not None:
            raise UsageError("--axes says what is averaged and --pool too; give one of them")
        pool = f"axes {','.join(model_axes(options.axes))}"
    if kind == "images" and beside is None:
        raise InputError(
            f"{quoted(options.model)}: --images needs (module, preprocess) from it, so that images become tensors"
        )
    return ModuleNetwork(options, module, _preprocess(options, beside, kind), pool, source)


def _preprocess(options: ModelOptions, beside: Any, kind: str | None) -> Preprocess | None:
    """The function that makes a tensor of an item, or what an image processor makes of an image; arrays go past that."""
    if not is_processor(beside):
        return beside  # type: ignore[no-any-return]
    if kind == "arrays":
        return None
    processor = member_for(beside, "images", module_name(options))
    return lambda image: processor(images=image, return_tensors="pt")[processor.model_input_names[0]][0]


def _with_layers(module: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict({OUTPUT: module})) if isinstance(module, torch.jit.ScriptModule) else module


def refuse_options(options: ModelOptions, names: Sequence[str]) -> None:
    """Refuse options that have no meaning for what a function returns."""
    asked = {
        "--max-length": options.max_length is not None, "--random-weights": options.random_weights,
        "--part": options.part is not None, "--tokenizer": options.tokenizer is not None,
        "--revision": options.revision is not None, "--unit word": options.unit == "word",
        "--device auto": options.spread, "--split-heads": options.split_heads,
    }  # fmt: skip
    for name in (name for name in names if asked[name]):
        raise UsageError(f"{name} is for Hugging Face models; {quoted(options.model)} decides that itself")


def module_name(options: ModelOptions) -> str:
    """How the store names what a function returns."""
    file, _, function = options.model.rpartition(":")
    return f"{Path(file).name}:{function}"


def module_digest(options: ModelOptions, module: nn.Module) -> str:
    """Digest of the file of the function, and of the weights."""
    file = Path(options.model.rpartition(":")[0])
    code = file_digest(file) if file.is_file() else ""
    return hashlib.sha256(f"{code} {weights_digest(module)}".encode()).hexdigest()


def _call(options: ModelOptions) -> Any:
    model, given = options.model, options.model_arguments
    function = _function(model)
    _check_arguments(model, function, given)
    try:
        return function(**given)
    except ContraSimError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{quoted(model)}: the function failed with {type(error).__name__}: {error}") from error


def _check_arguments(model: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that a function does not know, or leaves to be given."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C, which say it themselves
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "no arguments"
        raise UsageError(
            f"{quoted(model)}: {error}; it takes {known}: give them with --model-arg name=value"
        ) from error


def _function(model: str) -> Callable[..., Any]:
    file, _, name = model.rpartition(":")
    try:
        module = _from_file(Path(file)) if file.endswith(".py") else _from_package(file)
    except ContraSimError:
        raise
    except (Exception, SystemExit) as error:
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
        raise InputError(f"{quoted(path)}: is not a Python file")
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
    cut: Sequence[int] = ()
    units: None = None
    truncated: int = 0
    unknown: None = None

    @property
    def lengths(self) -> list[int]:
        return [1] * len(self.items)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        if self.preprocess is None:
            return {"input": _tensor(np.asarray(self.items[rows]))}
        return {"input": _stacked([self._one(self.preprocess, self.items[row]) for row in rows])}

    def _one(self, preprocess: Preprocess, item: Any) -> Tensor:
        given = open_image(item, None) if self.files else np.array(item)
        try:
            done = preprocess(given)
        except (ContraSimError, MemoryError):
            raise
        except Exception as error:
            raise BadItem(f"the preprocess function failed with {type(error).__name__}: {reason(error)}") from error
        if isinstance(done, Tensor):
            return done
        array = np.asarray(done)
        if array.dtype.kind not in NUMERIC:
            raise BadItem(f"the preprocess function returned {type(done).__name__}; expected a tensor or an array")
        return _tensor(array)


def _stacked(items: Sequence[Tensor]) -> Tensor:
    found = list(dict.fromkeys(str(list(item.shape)) for item in items))
    if len(found) > 1:
        raise InputError(
            f"the preprocess function returns tensors of {found[0]} and of {found[1]}; expected one shape for all items"
        )
    return torch.stack(list(items))


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
    source: Source | None
    chosen: list[str] = field(default_factory=list, init=False)
    width_axes: dict[str, int | None] = field(default_factory=dict, init=False)
    grouping: str = field(default=ANY, init=False)
    prepared_by: None = field(default=None, init=False)

    @property
    def words(self) -> tuple[str, ...] | None:
        """What was said of the axes of the layers."""
        return None if self.options.axes is None else model_axes(self.options.axes)

    @property
    def name(self) -> str:
        return module_name(self.options)

    @property
    def digest(self) -> str:
        return module_digest(self.options, self.module)

    def widths(self) -> dict[str, str]:
        raise UsageError(
            f"{quoted(self.name)}: its inputs are not known; give --arrays, so that its layers can be found"
        )

    def about(self) -> dict[str, Any]:
        return {"architecture": type(self.module).__name__}

    def prepare(self, items: Items, first: int) -> Examples:
        return Examples(items, self.preprocess, self.source is not None and self.source.kind == "images")

    def discover(self, inputs: Inputs) -> dict[str, int]:
        names = self._selected()
        modules = dict(self.module.named_modules())
        with recorded(self.module, {name: modules[name] for name in names}) as ran:
            outputs = self._outputs(inputs, names)
        found = {name: self._usable(name, outputs[name], inputs) for name in names}
        found = {name: self._with_width(name, state, ran[name]) for name, state in found.items()}
        self.chosen = list(without_refused(found, self.options.layers or (), self.name))
        self._probe(inputs)
        return {name: tensor.shape[1] for name, tensor in self.rows(inputs).items()}

    def _probe(self, inputs: Inputs) -> None:
        """Find whether a row depends on what else is in the batch: an item alone, and beside another."""
        dtype = getattr(torch, self.options.dtype)
        check_repeatable(lambda: self.rows(inputs), None, dtype, self.name, self.options.allow_random)
        if not self.options.allow_random:
            other = {name: unlike(one) for name, one in inputs.items()}
            together = {name: torch.cat([one, other[name]]) for name, one in inputs.items()}
            self.grouping = grouping(self.rows, {ANY: ([inputs, other], together)}, dtype, self.name)

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
            rows[name] = self._pool(states.float(), self.width_axes.get(name))
        return rows

    def _selected(self) -> list[str]:
        defaults, asked = default_layers(self.module), self.options.layers
        modules = [name for name, _ in self.module.named_modules() if name]
        if asked:
            return select(defaults, modules, asked, self.name, globs=False)
        left = [
            name
            for name, _ in self.module.named_children()
            if not any(f"{one}.".startswith(f"{name}.") for one in defaults)
        ]
        if left:
            text = "the layers are the %d members of %s; left out: %s (--layers '**' takes every module)"
            containers = dict.fromkeys(name.rpartition(".")[0] for name in defaults)
            log.info(text, len(defaults), listed([quoted(name) for name in containers], SHOWN), listed(left, SHOWN))
        return defaults

    def _outputs(self, inputs: Inputs, names: Sequence[str]) -> Outputs:
        modules = dict(self.module.named_modules())
        with hooked({name: modules[name] for name in names}, self.options.hook) as outputs:
            self._call(*inputs.values())
        return outputs

    @torch.inference_mode()
    def _call(self, *inputs: Tensor) -> None:
        given = [tensor.to(self.options.device) for tensor in inputs]
        try:
            with autocast(self.options):
                self.module(*given)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a module raises whatever its author chose
            where = f"{quoted(self.source.name)}: " if self.source else ""
            raise MismatchError(
                f"{where}{quoted(self.name)} does not take rows {shapes(inputs)} ({_why(error)})"
            ) from error

    def _usable(self, name: str, outputs: Sequence[Tensor | None], inputs: Inputs) -> Tensor | str:
        """A layer's only output, or what is wrong with it."""
        states, count = only_output(name, outputs), len(next(iter(inputs.values())))
        if isinstance(states, str):
            return states
        dimensions = (2, len(self.words)) if self.words else (2, 3, 4)
        if states.ndim not in dimensions or len(states) != count or not states.is_floating_point():
            shape = list(states.shape)
            kinds = (
                f"[n, width] or {len(self.words)} axes"
                if self.words
                else ("[n, width], [n, tokens, width] or [n, channels, height, width]")
            )
            return f"layer {quoted(name)} puts out {shape} for {count} row(s); expected {kinds}"
        return states

    def _with_width(self, name: str, states: Tensor | str, parts: Sequence[Part]) -> Tensor | str:
        """A layer's output, or that nothing says which of its axes is the width, which is kept for `rows`."""
        if isinstance(states, str) or states.ndim == 2 or self.words or self.pooling == "flatten":
            return states
        if states.ndim == 4 and self.pooling in ("cls", "last"):
            return f"layer {quoted(name)} puts out maps, which have no {self.pooling} token; give --pool mean, max or flatten"
        axis = self.width_axes[name] = width_axis(name, states, parts) if self.options.hook == "output" else None
        if axis is not None:
            return states
        others = ",".join(["pool"] * (states.ndim - 2))
        return (
            f"layer {quoted(name)} puts out {['n', *states.shape[1:]]}, and nothing says which axis is its width; say it with "
            f"--axes rows,{others},width or rows,width,{others}, or take all with --pool flatten"
        ).replace("'n'", "n")

    def _pool(self, states: Tensor, width: int | None) -> Tensor:
        if states.ndim == 2:
            return states
        if self.words:
            return arranged(states, self.words)
        if width is not None:
            states = states.movedim(width, 1 if states.ndim == 4 else 2)
        if states.ndim == 4:
            return pool_maps(states, self.pooling)
        if self.pooling in ("spatial-mean", "flatten"):
            return pool_patches(states, (), self.pooling)
        return pool_tokens(states, torch.ones(states.shape[:2], device=states.device), self.pooling)


def _why(error: Exception) -> str:
    """What a module says of its inputs; a TorchScript program says it in the last line, below where it happened."""
    if not isinstance(error, TALKING):
        return format_exception_only(error)[0].splitlines()[0][:200]
    lines = str(error).strip().splitlines()
    return lines[-1] if lines and "TorchScript" in lines[0] else reason(error).strip()


def weights_digest(module: nn.Module) -> str:
    """Digest of every parameter and buffer, and of what a program says."""
    digest = hashlib.sha256(str(module).encode())
    programs = list(_programs(module))
    for program in programs:
        digest.update(PASSING.sub("", str(program.inlined_graph)).encode())
    for name, tensor in (*module.state_dict().items(), *(pair for one in programs for pair in _constants(one))):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _programs(module: nn.Module) -> Iterator[Any]:
    """The outermost TorchScript programs among the parts of a module."""
    for child in module.children():
        if isinstance(child, torch.jit.ScriptModule):
            yield child
        else:
            yield from _programs(child)


def _constants(program: Any) -> Iterator[tuple[str, Any]]:
    """What a program's graph holds by value: its weights, where it was frozen."""
    graph = program.inlined_graph  # to which nodes belong
    for node in graph.findAllNodes("prim::Constant"):
        yield "constant", node.output().toIValue()
