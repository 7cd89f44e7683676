"""Kendall's τ-a of two sides' values, in m log² m where pairs of values would take m²."""

import numpy as np
import torch
from torch import Tensor


def tau_a(x: Tensor, y: Tensor) -> Tensor:
    """(concordant - discordant) / (m (m - 1) / 2) [...] of X and Y [..., m], in [-1, 1]; NaN where a value is, or of one value.

    Σ_i<j sign(x_i - x_j) sign(y_i - y_j), where a tie on either side counts 0 (Kendall 1938; Nili et al. 2014). With rows in
    the order of X, and of Y where X ties, the discordant pairs are the inversions of Y (Knight 1966).
    """
    shape = np.broadcast_shapes(x.shape, y.shape)
    x, y = x.expand(shape), y.expand(shape)
    defined = ~(x.isnan() | y.isnan()).any(dim=-1)
    count = x.shape[-1]
    by_y, order = y.sort(dim=-1, stable=True)
    by_x, order_x = x.gather(-1, order).sort(dim=-1, stable=True)
    along = by_y.gather(-1, order_x)
    apart_x, apart_y = by_x.diff(dim=-1) != 0, by_y.diff(dim=-1) != 0
    tied_both = _tied_pairs(apart_x | (along.diff(dim=-1) != 0))
    every = count * (count - 1) // 2
    untied = every - _tied_pairs(apart_x) - _tied_pairs(apart_y) + tied_both
    difference = (untied - 2 * inversions(along)).double()
    return difference / difference.new_tensor(every).where(defined, torch.nan)


def _tied_pairs(apart: Tensor) -> Tensor:
    """Σ t (t - 1) / 2 over runs of t equal values [...]; `apart` [..., m - 1] says between which neighbours runs end."""
    place = torch.arange(1, apart.shape[-1] + 1, device=apart.device)
    begin = (place * apart).cummax(dim=-1).values if apart.shape[-1] else place
    return (place - begin).sum(dim=-1)


def inversions(values: Tensor) -> Tensor:
    """Number of places i < j with v_i > v_j [...] of [..., m], by a merge sort that counts."""
    lead, count = values.shape[:-1], values.shape[-1]
    padded = 1 << max(count - 1, 0).bit_length()
    runs = torch.nn.functional.pad(values, (0, padded - count), value=torch.inf).unsqueeze(-1)  # [..., runs, width]
    found = torch.zeros(lead, dtype=torch.int64, device=values.device)
    while runs.shape[-2] > 1:
        left, right = runs[..., 0::2, :].contiguous(), runs[..., 1::2, :].contiguous()
        no_larger = torch.searchsorted(left, right, right=True)
        found += (left.shape[-1] - no_larger).sum(dim=(-2, -1))
        runs = torch.cat([left, right], dim=-1).sort(dim=-1).values
    return found
