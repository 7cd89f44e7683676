"""The loss of a step's encoded items, and how an encoder fares on held-out rows, by a small form of the task's benchmark."""

import math
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from contrasim_cli import losses
from contrasim_cli.encoder import Config, by_member
from contrasim_cli.measures import STRICTLY
from contrasim_cli.recipes import WITHOUT_NEGATIVES
from contrasim_cli.store.blocks import spans
from contrasim_cli.training.whole_batch import rows_of_all, sum_of_all

TILE_ROWS = 256  # compared at once


@dataclass
class Objective:
    """The loss of encoded items for one configuration; masks are made once per batch size."""

    config: Config
    n_models: int
    n_layers: int
    device: torch.device
    _sets: dict[int, losses.Sets] = field(default_factory=dict)
    _n_rows: int = 0

    def __call__(self, z: Tensor, n_rows: int | None = None) -> Tensor:
        """Loss of z [items, n, d]: items are (model, layer) over a batch, or the views of a batch.

        Of several members, the mean of their own losses: each learns as it would alone. Of several ranks each has some rows of a
        batch of `n_rows`, and the loss is that of the whole batch.
        """
        self._n_rows = n_rows or z.shape[1]
        if not self._adds_up:
            z = rows_of_all(z)
        return torch.stack([self._of_member(part) for part in by_member(z, self.config.members)]).mean()

    @property
    def _adds_up(self) -> bool:
        """Whether similarities are sums over rows, so that no rank needs the rows of others."""
        return self.config.task == "layers" and self.config.objective != "deepcka"

    @property
    def chance(self) -> float | None:
        """The loss of similarities that are all alike, for task `layers` and objectives with negatives.

        By Eq. 3 (items / |P|) · ln(|N| / |P|), by SupCon the logarithm of the number of other items.
        """
        if self.config.task == "pairs" or self.config.objective in WITHOUT_NEGATIVES:
            return None
        items, positives = self.n_models * self.n_layers, self.n_models - 1
        if self.config.objective == "supcon":
            return math.log(items - 1)
        return items / positives * math.log((items - self.n_models) / positives)

    def _of_member(self, z: Tensor) -> Tensor:
        """The loss of one member; of more than two views, the mean over all pairs of them."""
        if self.config.task == "layers" or len(z) == 2:
            return self._loss(z)
        pairs = list(combinations(range(len(z)), 2))
        return torch.stack([self._loss(z[list(pair)]) for pair in pairs]).mean()

    def _loss(self, z: Tensor) -> Tensor:
        config = self.config
        if config.objective == "deepcka":
            return losses.deepcka(z, self._positive_pairs())
        tau = config.temperature
        contrastive = config.objective not in WITHOUT_NEGATIVES
        if config.task == "pairs" and config.similarity == "dot" and contrastive and losses.mild(tau):
            return losses.paired(z[0], z[1], tau, config.objective == "supcon", config.anchor_side == "first")
        items = z if config.task == "layers" else z.flatten(0, 1).unsqueeze(1)
        sets = self._masks(z.shape[1])
        s = self._similarities(items)[: len(sets.positives)]
        if config.objective == "deepdot":
            return losses.deepdot(s, sets.positives)
        s = s / tau
        if config.objective == "supcon":
            return losses.supcon(s, sets.positives, sets.others)
        return losses.contrasim(s, sets.positives, sets.negatives)

    def _similarities(self, items: Tensor) -> Tensor:
        kind: losses.Similarity = "norm" if self.config.similarity == "norm" else "dot"
        if not self._adds_up:
            return losses.similarity_matrix(items, kind)
        return (sum_of_all(losses.similarity_sums(items, kind)) / self._n_rows).to(items.dtype)

    def _masks(self, n_rows: int) -> losses.Sets:
        key = n_rows if self.config.task == "pairs" else 0
        if key not in self._sets:
            side = "first" if self.config.anchor_side == "first" else "both"
            self._sets[key] = (
                losses.pair_sets(n_rows, side, self.device)  # type: ignore[arg-type]
                if self.config.task == "pairs"
                else losses.layer_sets(self.n_models, self.n_layers, self.device)
            )
        return self._sets[key]

    def _positive_pairs(self) -> Tensor:
        if self.config.task == "pairs":
            return torch.tensor([[0, 1]], device=self.device)
        return self._masks(0).positives.triu().nonzero()


def row_accuracy(first: Tensor, second: Tensor) -> float:
    """The part of the rows [n, d] of either view to which, of all rows of the other view, their own is the most similar."""
    return 0.5 * (_found(first, second) + _found(second, first))


def mean_row_accuracy(z: Tensor) -> float:
    """The mean of `row_accuracy` over all pairs of views; z [views, n, d]."""
    found = [row_accuracy(z[a], z[b]) for a, b in combinations(range(len(z)), 2)]
    return sum(found) / len(found)


def _found(first: Tensor, second: Tensor) -> float:
    """The part of the rows of the first [n, d] that find their own in the second, some rows at a time."""
    hits = 0.0
    for start, stop in spans(len(first), TILE_ROWS):
        s = first[start:stop] @ second.T
        hits += _right(s, start) * len(s)
    return hits / len(first)


def layer_accuracy(z: Tensor, n_layers: int) -> float:
    """The part of the layers of every ordered pair of models to which, in the other model, the same layer is the most similar.

    z [items, n, d]: item = model · n_layers + layer.
    """
    flat = z.flatten(1)
    n_models = len(z) // n_layers
    s = (flat @ flat.T / z.shape[1]).view(n_models, n_layers, n_models, n_layers)
    pairs = [_right(s[f, :, g]) for f in range(n_models) for g in range(n_models) if f != g]
    return sum(pairs) / len(pairs)


def _right(s: Tensor, start: int = 0) -> float:
    """The part of the rows of s [m, n] in which the diagonal that begins in column `start` is strictly the largest."""
    own = s.diagonal(start).unsqueeze(1)
    margin = STRICTLY * torch.maximum(own.abs(), s.abs())
    others = torch.ones_like(s, dtype=torch.bool)
    others.diagonal(start).fill_(False)
    return float((((own - s) > margin) | ~others).all(dim=1).double().mean())
