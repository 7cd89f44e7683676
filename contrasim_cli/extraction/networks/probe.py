"""What a model does with its items, found before a run by passing two of them alone, together, and once more.

A row must be that of its item alone, whatever else is in the batch. Tokens of an image that are no patches are found by what
they are: they do not change with the pixels, where they first appear.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrasim_cli.errors import InputError
from contrasim_cli.extraction.networks.network import ALIKE, ANY, ONE, Inputs
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

Rows = Mapping[str, Tensor]
Probe = tuple[Sequence[Inputs], Inputs]  # two different items alone, and both of them as a batch
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}
NOTES = {ALIKE: "share a batch only if they are equally long", ONE: "run one by one"}


def grouping(rows: Callable[[Inputs], Rows], ways: Mapping[str, Probe], dtype: torch.dtype, name: str) -> str:
    """Which items may share a batch: the first of `ways`, in order of preference, in which the rows are those of the items alone.

    None, and so one by one, where items do not differ: equal ones can hide behind each other in a batch.
    """
    for way, (items, together) in ways.items():
        expected = joined([rows(inputs) for inputs in items])
        if layer := differing(expected, rows(together), TOLERANCE[dtype]):
            log.debug("%s: %s, layer %s is not that of the item alone", quoted(name), way, layer)
            continue
        if all(torch.equal(items[0][key], value) for key, value in items[1].items()):
            continue
        if way != ANY:
            _note(name, way)
        return way
    _note(name, ONE)
    return ONE


def unlike(items: Tensor) -> Tensor:
    """Other items of the same kind: numbers moved at random, by about as much as they differ; of integers the same, backwards."""
    if not items.is_floating_point():
        return items.flatten(1).flip(1).view_as(items)
    spread = float(items.std(correction=0)) or 1.0
    return items + spread * torch.randn(items.shape, generator=torch.Generator().manual_seed(0)).to(items)


def _note(name: str, way: str) -> None:
    log.warning("%s: a row depends on the other items in its batch, so items %s", quoted(name), NOTES[way])


def check_repeatable(rows: Callable[[], Rows], config: Any, dtype: torch.dtype, name: str, allow_random: bool) -> None:
    """Turn off what is random in a model by its own switch: a rate in its configuration that makes rows repeatable at 0.

    Raises:
        InputError: there is none, and random rows are not allowed.
    """
    if _repeats(rows, dtype):
        return
    for holder, switch, rate in list(_rates(config)):
        setattr(holder, switch, type(rate)(0))
        if _repeats(rows, dtype):
            log.warning("%s: its rows depend on chance (%s = %g), which is set to 0", quoted(name), switch, rate)
            return
        setattr(holder, switch, rate)
    if not allow_random:
        raise InputError(
            f"{quoted(name)}: gives different rows for the same item each time, and no rate in its config.json turns that off; "
            "accept them with --allow-random"
        )


def _repeats(rows: Callable[[], Rows], dtype: torch.dtype) -> bool:
    try:
        return differing(rows(), rows(), TOLERANCE[dtype]) is None
    except InputError:  # a rate that must not be 0
        return False


def _rates(config: Any) -> Iterator[tuple[Any, str, float]]:
    """The numbers between 0 and 1 of a configuration, and where each of them is."""
    for name, value in list(getattr(config, "__dict__", {}).items()):
        if isinstance(value, float) and 0 < value < 1:
            yield config, name, value
        elif hasattr(value, "to_dict"):
            yield from _rates(value)


def joined(rows: Sequence[Rows]) -> Rows:
    """The rows of several batches as those of one."""
    return {name: torch.cat([one[name] for one in rows]) for name in rows[0]}


def differing(expected: Rows, found: Rows, tolerance: float) -> str | None:
    """The first layer of which a row differs, relative to its length, by more than the tolerance."""
    for name, rows in expected.items():
        others = found[name]
        if rows.shape != others.shape:
            return name
        # a row that is all but zero is measured by what the others of the layer are
        length = rows.norm(dim=1).clamp_min(1e-3 * float(rows.norm(dim=1).max()))
        if ((rows - others).norm(dim=1) > tolerance * length).any():
            return name
    return None


def constant_tokens(
    model: nn.Module, run: Callable[[Inputs], Any], inputs: Sequence[Inputs]
) -> dict[int, tuple[int, ...]]:
    """Number of tokens -> those of them that two different images have in common where so many tokens first appear.

    They are the CLS token, registers, and tokens for detection; the others are patches.
    """
    seen: list[list[Tensor]] = [[] for _ in inputs]
    for states, one in zip(seen, inputs, strict=True):
        with _sequences(model, states):
            run(one)
    found: dict[int, tuple[int, ...]] = {}
    for first, second in zip(*seen, strict=False):
        count = first.shape[1]
        if first.shape != second.shape or count in found:
            continue
        same = (first - second).abs().amax(dim=(0, 2)) <= 1e-6 * first.abs().max()
        if not same.all():  # an embedding of positions is no token of an image
            found[count] = tuple(same.nonzero().flatten().tolist())
    return found


class _sequences:
    """A block in which every output [1, tokens, width] of a module is kept, in order."""

    def __init__(self, model: nn.Module, states: list[Tensor]) -> None:
        self._model, self._states = model, states

    def __enter__(self) -> None:
        self._handles = [part.register_forward_hook(self._keep) for part in self._model.modules()]

    def _keep(self, module: nn.Module, given: Any, output: Any) -> None:
        for member in (output, *(output[:1] if isinstance(output, tuple) else ())):
            if isinstance(member, Tensor) and member.ndim == 3 and len(member) == 1:
                self._states.append(member.detach().float().clone())

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


def failing_layer(error: BaseException, model: nn.Module) -> str:
    """The name of the innermost module in which an exception was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = "", error.__traceback__
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), "") or found
        trace = trace.tb_next
    return found
