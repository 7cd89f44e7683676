"""How an encoder fares on rows that are held out of training, by a small form of the task's benchmark."""

from itertools import combinations

import torch
from torch import Tensor

from contrasim_cli.ties import STRICTLY

TILE_ROWS = 256  # compared at once


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
    for start in range(0, len(first), TILE_ROWS):
        s = first[start : start + TILE_ROWS] @ second.T
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
