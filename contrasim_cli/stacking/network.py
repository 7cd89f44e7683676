"""The network over grids of measures: equivariant to the order of layers, and the same whichever store is first.

The score of a cell is a weighted mean of its advantages, plus what its grid, its row and its column add to that (nothing, where
it is the only cell). Weights are positive and sum to 1, so that the mean, the *calibrated* score, is 0 in expectation for
unrelated rows and 1 for a layer with itself, whatever the other layers are.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contrasim_cli.stacking.features import PER_GRID, PER_LINE, Described, advantages, describe
from contrasim_cli.stacking.transport import matched


class Judged(NamedTuple):
    """The scores of a pair of stores [L, M], the calibrated ones, and [N, L, M] the calibrated ones of shuffled rows."""

    scores: Tensor
    calibrated: Tensor
    nulls: Tensor


class GridNetwork(nn.Module):
    """Members side by side, whose scores are averaged; every second one does not see the measures `blind`, given by position.

    What helps on most models and misleads on some, as the lengths of rows do, then has half a voice.
    """

    def __init__(
        self,
        measures: int,
        hidden: tuple[int, ...],
        members: int,
        dropout: float = 0.0,
        blind: Sequence[int] = (),
    ) -> None:
        super().__init__()
        hidden_from = torch.zeros(members, measures, dtype=torch.bool)
        hidden_from[1::2, list(blind)] = True
        self.register_buffer("hidden_from", hidden_from, persistent=False)
        self.hidden_from: Tensor
        self.members: Iterable[_Member] = nn.ModuleList(_Member(measures, hidden, dropout) for _ in range(members))  # type: ignore[assignment]

    @torch.inference_mode()
    def judge(self, values: Tensor, shuffled: Tensor, identity: Tensor, whole: bool = True) -> Judged:
        """What a pair of stores comes to: values [K, L, M], and of shuffled rows [1 + N, K, L, M], the first being the level.

        `whole`: the layers are all that the stores have.
        """
        u = advantages(values, shuffled[0], identity).to(self.dtype)
        nulls = advantages(shuffled[1:], shuffled[0], identity).to(self.dtype)
        calibrated = self.calibrated(u)
        scores = self(u).mean(dim=0).masked_fill(calibrated.isnan(), torch.nan)
        return Judged(matched(scores, whole), calibrated, self.calibrated(nulls))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def forward(self, advantages: Tensor) -> Tensor:
        """Scores [members, ..., L, M] of advantages [..., K, L, M]."""
        views = self._views(advantages)
        described = [describe(view) for view in views[:2]]
        return torch.stack(
            [
                member(described[k % len(described)]) + member.gain * member.mean(view)
                for k, (member, view) in enumerate(zip(self.members, views, strict=True))
            ]
        )

    def calibrated(self, advantages: Tensor) -> Tensor:
        """The mean of the members' weighted means of advantages [..., L, M]; NaN where no measure is defined."""
        views = self._views(advantages)
        return torch.stack([member.mean(view) for member, view in zip(self.members, views, strict=True)]).mean(dim=0)

    def _views(self, advantages: Tensor) -> list[Tensor]:
        """The advantages as each member sees them: what is hidden from it is undefined."""
        return [advantages.masked_fill(hidden[:, None, None], torch.nan) for hidden in self.hidden_from]


class _Member(nn.Module):
    """One network: a layer per cell, then layers in which cells hear of their row, their column and their grid."""

    def __init__(self, measures: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        first, *_ = hidden
        self.weights = nn.Parameter(torch.zeros(measures))
        self.gain = nn.Parameter(torch.ones(()))
        self.own, self.of_grid = nn.Linear(measures, first), nn.Linear(PER_GRID * measures, first, bias=False)
        self.of_line = nn.Linear(PER_LINE * measures, first, bias=False)
        self.mixing = nn.ModuleList(_Mixing(a, b) for a, b in pairwise(hidden))
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(hidden[-1], 1, bias=False)

    def mean(self, advantages: Tensor) -> Tensor:
        """The weighted mean [..., L, M] of the advantages [..., K, L, M] that are defined."""
        weights = self.weights.softmax(dim=0)[:, None, None] * ~advantages.isnan()
        total: Tensor = (weights * advantages.nan_to_num(0.0)).sum(dim=-3)
        return total / weights.sum(dim=-3)

    def forward(self, described: Described) -> Tensor:
        """What a cell's place among the others adds to its score [..., L, M]."""
        among: Tensor = self._body(described, together=True) - self._body(described.alone, together=False)
        return among

    def _body(self, described: Described, together: bool) -> Tensor:
        h = self.own(described.advantages) + self.of_grid(described.grid)
        h = self.dropout(torch.relu(h + self.of_line(described.row) + self.of_line(described.column)))
        for mixing in self.mixing:
            h = self.dropout(mixing(h, together))
        scores: Tensor = self.out(h).squeeze(-1)
        return scores


class _Mixing(nn.Module):
    """Cells [..., L, M, d] hear of the mean and the largest of their row and column, and of their grid's mean."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.own = nn.Linear(before, after)
        self.mean, self.most, self.grid = (nn.Linear(before, after, bias=False) for _ in range(3))

    def forward(self, h: Tensor, together: bool) -> Tensor:
        if not together:
            return torch.relu(self.own(h) + 2 * self.mean(h) + 2 * self.most(h) + self.grid(h))
        lines = sum(self.mean(h.mean(dim=d, keepdim=True)) + self.most(h.amax(dim=d, keepdim=True)) for d in (-3, -2))
        return torch.relu(self.own(h) + lines + self.grid(h.mean(dim=(-3, -2), keepdim=True)))
