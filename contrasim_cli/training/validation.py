"""How an encoder fares on rows that are held out of training, by a small form of the task's benchmark."""

import torch
from torch import Tensor

from contrasim_cli.benchmarks import STRICTLY


def row_accuracy(first: Tensor, second: Tensor) -> float:
    """The part of the rows [n, d] of either view to which, of all rows of the other view, their own is the most similar."""
    s = first @ second.T
    return 0.5 * (_right(s) + _right(s.T))


def layer_accuracy(z: Tensor, n_layers: int) -> float:
    """The part of the layers of every ordered pair of models to which, in the other model, the same layer is the most similar.

    z [items, n, d]: item = model · n_layers + layer.
    """
    flat = z.flatten(1)
    n_models = len(z) // n_layers
    s = (flat @ flat.T / z.shape[1]).view(n_models, n_layers, n_models, n_layers)
    pairs = [_right(s[f, :, g]) for f in range(n_models) for g in range(n_models) if f != g]
    return sum(pairs) / len(pairs)


def _right(s: Tensor) -> float:
    """The part of the rows of s [n, n] in which the diagonal is strictly the largest."""
    own = s.diagonal().unsqueeze(1)
    margin = STRICTLY * torch.maximum(own.abs(), s.abs())
    others = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
    return float((((own - s) > margin) | ~others).all(dim=1).double().mean())
