"""What modules put out while a model runs, and the globs that name modules.

In a glob `*` and `?` stay between two dots and `**` crosses them: `blocks.*` are the blocks, `blocks.**` everything in
them too.
"""

import contextlib
import fnmatch
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted
from contrasim_cli.store.select_layers import select_layers

log = logging.getLogger(__name__)

End = Literal["input", "output"]  # of a module
Outputs = dict[str, list[Tensor | None]]
INDEX = re.compile(r"-?\d+|\d+-\d+")


@contextlib.contextmanager
def hooked(layers: Mapping[str, nn.Module], end: End = "output") -> Iterator[Outputs]:
    """Collect what each module puts out, or what it is given, while the block runs."""
    kept: Outputs = {name: [] for name in layers}

    # cloned: an in-place operation in or behind the layer would change what was kept
    def keep_output(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, given, output: kept[name].append(_cloned(first_tensor(output)))

    def keep_input(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, given, named: kept[name].append(_cloned(first_tensor([given, named])))

    # not by the method of its own, with which a TorchScript program refuses hooks that it calls all the same
    if end == "output":
        handles = [nn.Module.register_forward_hook(one, keep_output(name)) for name, one in layers.items()]
    else:
        before = nn.Module.register_forward_pre_hook
        handles = [before(one, keep_input(name), with_kwargs=True) for name, one in layers.items()]
    try:
        yield kept
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


def only_output(name: str, outputs: Sequence[Tensor | None]) -> Tensor | str:
    """What a layer put out, or what is wrong with it."""
    if len(outputs) != 1:
        return f"layer {quoted(name)} runs {len(outputs)} times per row, and a layer must run once"
    return f"layer {quoted(name)} puts out no tensor" if outputs[0] is None else outputs[0]


def without_refused(found: Mapping[str, Tensor | str], asked: Sequence[str], where: str) -> dict[str, Tensor]:
    """The usable layers; what cannot be used is left out, unless it was asked for by its name or nothing else is there.

    Raises:
        UsageError: a layer that was asked for by its name cannot be used, or none can.
    """
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


def select(
    first: Sequence[str], modules: Sequence[str], patterns: Sequence[str], where: str, globs: bool = True
) -> list[str]:
    """The names that the patterns select, each once: of `first` where there is one, else of `modules`.

    An index or a range counts in `first` alone, a glob in `modules` alone unless `globs`.

    Raises:
        UsageError: a pattern matches nothing.
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        exact = [name for name in (*first, *modules) if name == pattern]
        found = exact or [name for name in first if globs and fnmatch.fnmatchcase(name, pattern)]
        found = found or [name for name in modules if matches(name, pattern)]
        names = first if INDEX.fullmatch(pattern) else list(dict.fromkeys([*first, *modules]))
        chosen.update(dict.fromkeys(found or select_layers(names, [pattern], where=where)))
    return list(chosen)


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name fits a glob: `*` and `?` stay between two dots, `**` crosses them."""
    parts = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    regex = "".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*|\?)", pattern))
    return re.fullmatch(regex, name) is not None


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
