"""Names of what every block adds to the residual stream, the same for all models: `resid_3`, `attn_3`, `mlp_3`.

They are found from what a block does, not from what its parts are called: a block puts out its input plus what two of its parts put
out, whatever is between them. The part that ends first is the attention, the other the feed-forward network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrasim_cli.extraction.networks.hooks import first_tensor

NAMES = ("resid", "attn", "mlp")
CLOSE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the largest number; others are rounded to
COARSE = 3e-2
MOST = 24  # parts of a block that are tried in pairs


def asked(patterns: Sequence[str]) -> bool:
    """Whether one of the layers asked for may be such a name."""
    return any(pattern.startswith(tuple(f"{name}_" for name in NAMES)) for pattern in patterns)


def aliases(model: nn.Module, states: Sequence[Tensor], run: Callable[[], Any]) -> dict[str, str]:
    """Name -> path of the module that puts it out, block by block, where the model has blocks that add up.

    `states` are the hidden states, of the embeddings and of every block.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    for index, (path, block) in enumerate(_blocks(model, len(states) - 1)):
        flow = _Flow(block)
        with flow:
            run()
        if flow.given is None or flow.output is None or flow.output.shape != flow.given.shape:
            continue
        found["resid"][f"resid_{index}"] = path
        added = flow.output - flow.given
        close = CLOSE.get(added.dtype, COARSE) * float(added.abs().max())
        rounding = 4 * torch.finfo(added.dtype).eps * float(flow.given.abs().max())
        pair = _pair(added, flow.parts, close + rounding)
        if pair is not None:
            found["attn"][f"attn_{index}"], found["mlp"][f"mlp_{index}"] = (f"{path}.{name}" for name in pair)
    return {name: path for paths in found.values() for name, path in paths.items()}


def _blocks(model: nn.Module, count: int) -> Iterator[tuple[str, nn.Module]]:
    """The members of the outermost list of as many modules as there are blocks."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) == count:
            prefix = f"{name}." if name else ""
            yield from ((f"{prefix}{index}", block) for index, block in enumerate(module))
            return


class _Flow:
    """While a block runs: what it is given, what it puts out, and what each of its parts does, in the order in which they end."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.given: Tensor | None = None
        self.output: Tensor | None = None
        self.parts: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        self._handles = [self.block.register_forward_pre_hook(self._begin, with_kwargs=True)]
        self._handles += [self.block.register_forward_hook(self._end)]
        for name, part in self.block.named_modules():
            if name:
                self._handles.append(part.register_forward_hook(self._keep(name)))

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, block: nn.Module, given: Any, named: Mapping[str, Any]) -> None:
        tensor = first_tensor(given) if first_tensor(given) is not None else named.get("hidden_states")
        self.given = None if tensor is None else tensor.detach().clone()

    def _end(self, block: nn.Module, given: Any, output: Any) -> None:
        tensor = first_tensor(output)
        self.output = None if tensor is None else tensor.detach().clone()

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(part: nn.Module, given: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None or self.given is None or tensor.shape[-1] != self.given.shape[-1]:
                return
            if tensor.numel() == self.given.numel():  # some lay the tokens of all items in one row
                self.parts.pop(name, None)  # of one that runs again, what it puts out last
                self.parts[name] = tensor.detach().clone().view_as(self.given)

        return keep


def _pair(added: Tensor, parts: Mapping[str, Tensor], within: float) -> tuple[str, str] | None:
    """Two parts whose outputs add up to it, in the order in which they end; of equal outputs the outermost part's."""
    distinct: dict[str, Tensor] = {}
    for name, output in parts.items():
        same = next((other for other, found in distinct.items() if torch.equal(found, output)), None)
        if same is None:
            distinct[name] = output
        elif name.count(".") < same.count("."):
            distinct = {name if other == same else other: found for other, found in distinct.items()}
    candidates = list(distinct.items())[-MOST:]
    sums = (
        (float((first + second - added).abs().max()), (name, other))
        for place, (name, first) in enumerate(candidates)
        for other, second in candidates[place + 1 :]
    )
    off, pair = min(sums, default=(torch.inf, None))
    return pair if off <= within else None
