"""Kendall's τ-a of two sides' ranks, in m log² m where pairs of values would take m².

On the processor, wherever the ranks are: what it takes is sorts of whole numbers, which NumPy has in vector instructions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.arrays import Tensor, as_tensor, xp

COUNTED = 32  # values of a run whose inversions are counted pair by pair

Whole = npt.NDArray[np.signedinteger[Any]]


def tau_a(x: Tensor, y: Tensor) -> Tensor:
    """(concordant - discordant) / (m (m - 1) / 2) [...] of X and Y [..., m], in [-1, 1]; NaN where a value is, or of one value.

    X and Y are whole numbers from 0 to less than 2 m, such as ranks. Σ_i<j sign(x_i - x_j) sign(y_i - y_j), where a tie on either
    side counts 0 (Kendall 1938; Nili et al. 2014). With rows in the order of X, and of Y where X ties, the discordant pairs are the
    inversions of Y (Knight 1966).
    """
    shape = np.broadcast_shapes(x.shape, y.shape)
    lead, count = shape[:-1], shape[-1]
    defined = ~(x.isnan() | y.isnan()).any(dim=-1)
    first, second = (side.nan_to_num(nan=0.0).long().cpu().numpy() for side in (x, y))
    bits = (2 * count).bit_length()
    both = np.sort((np.broadcast_to(first, shape) << bits) | second, axis=-1)
    of_x, of_y = (np.broadcast_to(_tied_pairs(np.sort(side, axis=-1)), lead) for side in (first, second))
    every = count * (count - 1) // 2
    untied = every - of_x - of_y + _tied_pairs(both)
    difference = untied - 2 * inversions(both & ((1 << bits) - 1))
    found = as_tensor(np.asarray(difference, dtype=np.float64), x.device)
    return found / found.new_tensor(every).where(defined, xp.nan)


def _tied_pairs(ordered: Whole) -> Whole:
    """Σ t (t - 1) / 2 over runs of t equal values [...] of ascending ones [..., m]."""
    apart = np.diff(ordered, axis=-1) != 0
    if apart.all():
        return np.zeros(ordered.shape[:-1], dtype=np.int64)
    place = np.arange(1, ordered.shape[-1])
    ties: Whole = (place - np.maximum.accumulate(place * apart, axis=-1)).sum(axis=-1)
    return ties


def inversions(values: Whole) -> Whole:
    """Number of places i < j with v_i > v_j [...] of whole numbers [..., m] from 0 to less than 2 m.

    Pair by pair within short runs; then by a merge sort that counts: of a run whose halves L and R, w values each, are put in order
    together, an l before an r where both are equal, Σ_r #(l > r) is w² + w (w - 1) / 2 less the sum of the places of R.
    """
    lead, count = values.shape[:-1], values.shape[-1]
    width = COUNTED
    padded = width << max(0, -(-count // width) - 1).bit_length()
    kind = np.int32 if 4 * count < 1 << 31 else np.int64
    runs = np.full((*lead, padded), np.iinfo(kind).max >> 1, dtype=kind)
    runs[..., :count] = values
    by_place = np.ascontiguousarray(runs.reshape(*lead, -1, width).swapaxes(-1, -2))
    found = np.zeros(lead, dtype=np.int64)
    for apart in range(1, min(width, count)):
        found += np.count_nonzero(by_place[..., :-apart, :] > by_place[..., apart:, :], axis=(-2, -1))
    while width < padded:
        runs = runs.reshape(*lead, -1, 2 * width)
        runs <<= 1  # the last bit tells the half
        runs[..., width:] |= 1
        runs.sort(axis=-1)
        places = (runs & 1).sum(axis=-2, dtype=np.int64) @ np.arange(2 * width)
        found += runs.shape[-2] * (width * width + width * (width - 1) // 2) - places
        runs >>= 1
        width *= 2
    return found
