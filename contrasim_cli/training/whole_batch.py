"""Batches whose rows ranks share: what a loss needs of the rows of all ranks, and how gradients come back.

Every rank encodes its rows and takes the loss of the whole batch, which is one number that all know. So the gradient of that
loss by the weights is the sum, not the mean, of what the ranks' own rows contribute. With one rank every function returns what it
was given.
"""

import signal
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from contrasim_cli import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # the later one counts where both came


class _RowsOfAll(torch.autograd.Function):
    """[items, n, d] of all ranks, of whose gradient each takes its own rows: all of them have the same loss."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        parts = distributed.gathered_arrays(z.detach().cpu().numpy())
        ctx.start = sum(part.shape[1] for part in parts[: distributed.rank()])
        ctx.count = z.shape[1]
        return torch.cat([torch.from_numpy(part) for part in parts], dim=1).to(z.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[:, ctx.start : ctx.start + ctx.count]


class _SumOfAll(torch.autograd.Function):
    """The sum over ranks, by whose own part the gradient is that by the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        distributed.total(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def rows_of_all(z: Tensor) -> Tensor:
    """The encoded rows [items, n, d] of all ranks, in their order."""
    if distributed.world() == 1:
        return z
    found: Tensor = _RowsOfAll.apply(z)  # type: ignore[no-untyped-call]
    return found


def sum_of_all(x: Tensor) -> Tensor:
    """The sum of a tensor over ranks."""
    if distributed.world() == 1:
        return x
    found: Tensor = _SumOfAll.apply(x)  # type: ignore[no-untyped-call]
    return found


def sum_gradients(parameters: Iterable[Tensor], came: Sequence[int]) -> list[int]:
    """Replace the gradients, where there are any, by their sums over ranks; which signals `came` to some rank."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    told = torch.tensor([float(number in came) for number in SIGNALS], device=gradients[0].device)
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), told])
    distributed.total(flat)
    *sums, told = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(SIGNALS)])
    for gradient, total in zip(gradients, sums, strict=True):
        gradient.copy_(total.view_as(gradient))
    return [number for number, ranks in zip(SIGNALS, told.tolist(), strict=True) if ranks]
