"""Stopping a model behind the last layer that is asked for: nine layers of eighty cost nine.

The hidden states that a model hands out at its end are, each of them, what one of its modules put out on the way. Which module that
is, is found by running it; from then on the states are read there, and the run ends at the last of them.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from contrasim_cli.extraction.networks.hooks import first_tensor


class _Reached(BaseException):
    """The last module that is needed has run; no error, so that no handler in a model's code takes it for one."""


class Early(NamedTuple):
    """The modules that put out hidden states, by the states' names, and the last one to end of all that are read."""

    sources: Mapping[str, nn.Module]
    last: nn.Module | None


def emitting(module: nn.Module, states: Mapping[str, Tensor], run: Callable[[], Any]) -> dict[str, nn.Module]:
    """For each of the states the first module that puts it out while `run` runs, and runs once; none where no module does."""
    found: dict[str, nn.Module] = {}
    calls: Counter[nn.Module] = Counter()

    def compare(part: nn.Module, given: Any, output: Any) -> None:
        calls[part] += 1
        tensor = first_tensor(output)
        for name, state in states.items():
            if name not in found and tensor is not None and tensor.shape == state.shape and torch.equal(tensor, state):
                found[name] = part

    handles = [nn.Module.register_forward_hook(part, compare) for part in module.modules()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: part for name, part in found.items() if calls[part] == 1}


def last_to_end(modules: Iterable[nn.Module], run: Callable[[], Any]) -> nn.Module | None:
    """The module among these that ends last."""
    ended: list[nn.Module] = []
    handles = [nn.Module.register_forward_hook(one, lambda one, *_: ended.append(one)) for one in modules]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return ended[-1] if ended else None


@contextlib.contextmanager
def ending_at(module: nn.Module | None) -> Iterator[None]:
    """A block that is left as soon as the module, where there is one, has put something out."""
    if module is None:
        yield
        return

    def stop(part: nn.Module, given: Any, output: Any) -> None:
        raise _Reached

    handle = nn.Module.register_forward_hook(module, stop)
    try:
        yield
    except _Reached:
        pass
    finally:
        handle.remove()
