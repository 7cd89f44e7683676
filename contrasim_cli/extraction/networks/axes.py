"""Which axis of what a layer puts out is its width, where shapes alone do not say.

Feature maps come as [n, channels, height, width] from convolutions and as [n, height, width, channels] from windows of attention,
sequences as [n, tokens, width] or as [n, channels, time]. What the parts of a layer are says which: convolutions and batch norms
have channels behind the rows, linear maps and layer norms at the end. Where parts and shape do not agree nothing is guessed.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, pooling

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.hooks import first_tensor
from contrasim_cli.names import quoted
from contrasim_cli.store.axes import LAYERS, POOL, ROWS, WIDTH, parse_axes

# what a part says of its output: the attribute with the width, if it has one, and the axis of the width
FIRST: dict[type[nn.Module], str | None] = {
    conv._ConvNd: "out_channels", batchnorm._NormBase: "num_features", nn.GroupNorm: "num_channels",
    pooling._MaxPoolNd: None, pooling._AvgPoolNd: None, pooling._AdaptiveMaxPoolNd: None, pooling._AdaptiveAvgPoolNd: None,
}  # fmt: skip
LAST: dict[type[nn.Module], str | None] = {
    nn.Linear: "out_features", nn.Bilinear: "out_features", nn.Embedding: "embedding_dim", nn.MultiheadAttention: "embed_dim",
    nn.LayerNorm: None, nn.RMSNorm: None, nn.RNNBase: None,
}  # fmt: skip
KNOWN: tuple[type[nn.Module], ...] = (*FIRST, *LAST)


@dataclass(frozen=True)
class Part:
    """A part of known kind that ran: its name, and `axis` and `width` of its output with `dimensions`, None where unknown."""

    name: str
    axis: int | None
    width: int | None
    dimensions: int


@contextlib.contextmanager
def recorded(module: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Part]]]:
    """For each layer the parts of known kind that ran until it had its output, in their order, while the block runs."""
    parts: list[Part] = []
    until: dict[str, list[Part]] = {name: [] for name in layers}

    def keep(name: str) -> Any:
        return lambda part, given, output: parts.extend(_part(name, part, first_tensor(output)))

    def stop(name: str) -> Any:
        return lambda layer, given, output: until.update({name: parts[:]})

    known = {name: part for name, part in module.named_modules() if isinstance(part, KNOWN)}
    # in this order: a layer that is such a part is one of its own parts
    handles = [nn.Module.register_forward_hook(part, keep(name)) for name, part in known.items()]
    handles += [nn.Module.register_forward_hook(layer, stop(name)) for name, layer in layers.items()]
    try:
        yield until
    finally:
        for handle in handles:
            handle.remove()


def _part(name: str, module: nn.Module, output: Tensor | None) -> Iterator[Part]:
    if output is None:
        return
    (kind, attribute), last = next(
        ((kind, attribute), kinds is LAST)
        for kinds in (FIRST, LAST)
        for kind, attribute in kinds.items()
        if isinstance(module, kind)
    )
    width = getattr(module, attribute) if attribute else None
    shape: tuple[int, ...] = getattr(
        module, "normalized_shape", ()
    )  # of several axes: which of them is the width, it does not say
    if len(shape) == 1:
        width = shape[0]
    # a layer norm of maps, as others derive it, may move the axes
    known = len(shape) < 2 and (kind not in (nn.LayerNorm, nn.RMSNorm) or type(module).__module__.startswith("torch."))
    yield Part(name, (output.ndim - 1 if last else 1) if known else None, width, output.ndim)


def width_axis(name: str, states: Tensor, parts: Sequence[Part]) -> int | None:
    """The axis of the width of a layer's output, of three dimensions or more; None where it is unclear.

    `parts` are those that ran until the output was there. A layer without parts of known kind, such as an activation
    function, is judged by those before it.
    """
    own = next((part for part in parts if part.name == name and part.axis is not None), None)
    if own is not None and own.dimensions == states.ndim:
        return own.axis
    evidence = [part for part in parts if part.name == name or part.name.startswith(f"{name}.")] or parts
    widths = [part.width for part in evidence if part.width is not None]
    axes = {axis for axis in (1, states.ndim - 1) if widths and states.shape[axis] == widths[-1]}
    agreed = {part.axis for part in evidence if part.dimensions == states.ndim}
    if len(axes) == 1 and (len(agreed) != 1 or agreed in (axes, {None})):
        return axes.pop()
    return agreed.pop() if len(agreed) == 1 and len(axes) != 1 else None


def model_axes(axes: str) -> tuple[str, ...]:
    """The words of `--axes` for what a module puts out: rows, then width and pool.

    Raises:
        UsageError: a word is none, or rows are not the first axis alone.
    """
    words = parse_axes(axes)
    if words[0] != ROWS or {ROWS, LAYERS} & set(words[1:]):
        raise UsageError(
            f"--axes {quoted(axes)}: with --model the first word is rows, and the others are width or pool, as in "
            "rows,pool,pool,width"
        )
    return words


def arranged(states: Tensor, words: Sequence[str]) -> Tensor:
    """[n, width] of an output whose axes are these: `width` flattened in order, `pool` averaged."""
    order = [axis for wanted in (ROWS, WIDTH, POOL) for axis, word in enumerate(words) if word == wanted]
    states = states.permute(order).flatten(1, words.count(WIDTH))
    return states.flatten(2).mean(2) if POOL in words else states
