"""What grids of closed-form measures become for a network.

Shapes: K measures, grids [..., K, L, M] of the L layers of one store against the M layers of another. Everything is made of
*advantages*: where a value lies between its level with rows shuffled, 0, and that of a layer with itself, 1. So nothing is
left of a measure's unit, nor of what it says of unrelated rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LEAST = 1e-9  # between the level and the value of a layer with itself, for an advantage to be defined
STEADY = 1e-3  # added to standard deviations: advantages that differ by less are the same
TIED = 1e-6  # advantages that differ by less differ by rounding, which may not decide a rank
PER_GRID, PER_LINE = 2, 2  # features of a measure


class Described(NamedTuple):
    """What describes every cell [..., L, M, features]: its advantages, and its place in its grid, its row and its column."""

    advantages: Tensor
    grid: Tensor
    row: Tensor
    column: Tensor

    @property
    def alone(self) -> "Described":
        """Every cell as if it were the only one."""
        return self._replace(grid=self.grid * 0, row=self.row * 0, column=self.column * 0)


def advantages(values: Tensor, levels: Tensor, identity: Tensor) -> Tensor:
    """(value - level) / (identity - level), within [-1, 1]; NaN where a measure is undefined or says the same of all rows.

    `values` and `levels` [..., K, L, M], `identity` [K].
    """
    room = identity[:, None, None] - levels
    advantage: Tensor = (values - levels) / torch.where(room.abs() > LEAST, room, torch.nan)
    return advantage.clamp(-1.0, 1.0)


def describe(advantages: Tensor) -> Described:
    """The features of advantages [..., K, L, M], equivariant to the order of layers on either side."""
    u = advantages.nan_to_num(0.0)
    cells = u.mean(dim=(-2, -1), keepdim=True)
    rows, columns = u.mean(dim=-1, keepdim=True), u.mean(dim=-2, keepdim=True)
    interaction = u - rows - columns + cells
    in_grid = (_scaled(u - cells, (-2, -1)), _scaled(interaction, (-2, -1)))
    in_row = (_scaled(u - rows, (-1,)), _ranks(u))
    in_column = (_scaled(u - columns, (-2,)), _ranks(u.mT).mT)
    return Described(*(torch.cat(parts, dim=-3).movedim(-3, -1) for parts in ((u,), in_grid, in_row, in_column)))


def _scaled(centred: Tensor, over: tuple[int, ...]) -> Tensor:
    """Values of mean 0 over their standard deviation."""
    return centred / (centred.square().mean(dim=over, keepdim=True).sqrt() + STEADY)


def _ranks(u: Tensor) -> Tensor:
    """Ranks in the last axis, from -1/2 to 1/2; those that tie share the mean of theirs; 0 where there is one alone."""
    difference = u.unsqueeze(-1) - u.unsqueeze(-2)
    ahead = (difference > TIED).to(u.dtype).sum(dim=-1) - (difference < -TIED).to(u.dtype).sum(dim=-1)
    return ahead / (2 * max(1, u.shape[-1] - 1))
