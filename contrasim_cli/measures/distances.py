"""Squared distances between the rows of one matrix, tile by tile, and what is made of n × n matrices. All in float64."""

from collections.abc import Iterator

import torch
from torch import Tensor

from contrasim_cli.measures.protocol import centred

TILE = 1 << 24  # values of a tile held at once
INEXACT = 1e-5  # squared distances below this part of both rows' squared norms are computed from the difference
ONE_DIRECTION = 1e-14  # unit rows that differ by less differ by rounding
TIE = 1e-13  # values closer than this part of the largest differ by rounding


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Centred rows [..., n, p] over their largest entry, and that entry [..., 1, 1] (1 where all rows are equal).

    Squares of them neither overflow nor vanish.
    """
    rows = centred(x)
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    largest = largest.where(largest != 0, 1.0)
    return rows / largest, largest


def directions(x: Tensor) -> Tensor:
    """The rows of X [..., n, p] at unit length, in float64; NaN for a zero row, which has no direction."""
    rows = x.double()
    largest = rows.abs().amax(dim=-1, keepdim=True)
    rows = rows / largest.where(largest > 0, torch.nan)
    return unit(rows, dim=-1)


def centred_directions(x: Tensor) -> Tensor:
    """Unit rows [..., n, p] minus their mean; exactly zero where all have one direction, NaN where a row is zero."""
    rows = centred(directions(x))
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    return rows * (largest > ONE_DIRECTION).where(largest.isfinite(), torch.nan)


def tiles(n: int, each: int) -> Iterator[slice]:
    """Slices of n rows, of which each takes `each` values, that hold about TILE values."""
    step = max(1, TILE // max(each, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def squared_distances(rows: Tensor, at: slice) -> Tensor:
    """‖x_r - x_s‖² [..., t, n] of the rows `at` to all rows [..., n, p].

    ‖x_r‖² + ‖x_s‖² - 2 x_r · x_s cancels where rows are close; those distances come from the difference.
    """
    norms = rows.square().sum(dim=-1)
    both = norms[..., at, None] + norms[..., None, :]
    squared = (both - 2 * (rows[..., at, :] @ rows.mT)).clamp(min=0.0)
    *lead, first, second = (squared < INEXACT * both).nonzero(as_tuple=True)
    for some in tiles(len(first), rows.shape[-1]):
        of = [index[some] for index in lead]
        difference = rows[(*of, first[some] + at.start)] - rows[(*of, second[some])]
        squared[(*of, first[some], second[some])] = difference.square().sum(dim=-1)
    return squared


def all_squared_distances(rows: Tensor) -> Tensor:
    """‖x_r - x_s‖² [..., n, n]."""
    n = rows.shape[-2]
    return torch.cat([squared_distances(rows, at) for at in tiles(n, _each(rows))], dim=-2)


def upper_squared_distances(rows: Tensor) -> Tensor:
    """‖x_r - x_s‖² of the n(n - 1)/2 pairs r < s [..., pairs], row by row."""
    n = rows.shape[-2]
    position = torch.arange(n, device=rows.device)
    found = [
        squared_distances(rows, at)[..., position > position[at, None]]  # [..., pairs of the tile]
        for at in tiles(n, _each(rows))
    ]
    return torch.cat(found, dim=-1)


def _each(rows: Tensor) -> int:
    return rows.shape[-2] * rows.shape[:-2].numel()


def upper(matrix: Tensor) -> Tensor:
    """Entries above the diagonal [..., pairs] of [..., n, n], row by row."""
    position = torch.arange(matrix.shape[-1], device=matrix.device)
    return matrix[..., position > position[:, None]]


def double_centred(matrix: Tensor) -> Tensor:
    """H M H of a symmetric M [..., n, n], with the centring matrix H = I - 11ᵀ/n."""
    mean = matrix.mean(dim=-1, keepdim=True)
    return matrix - mean - mean.mT + mean.mean(dim=-2, keepdim=True)


def unit(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The values over their Euclidean norm along `dim`; NaN where all are zero."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return values / norm.where(norm > 0, torch.nan)


def median(values: Tensor) -> Tensor:
    """Median [..., 1] along the last dimension, the mean of the middle two of an even number; NaN of none."""
    count = values.shape[-1]
    if count == 0:
        return values.new_full((*values.shape[:-1], 1), torch.nan)
    middle = [values.kthvalue(place, dim=-1, keepdim=True).values for place in ((count + 1) // 2, count // 2 + 1)]
    return (middle[0] + middle[1]) / 2


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 0 along the last dimension; ties, which are values closer than rounding, share their mean rank.

    NaN where a value is.
    """
    if values.shape[-1] < 2:
        return 0 * values
    ordered, order = values.sort(dim=-1)
    place = torch.arange(values.shape[-1], device=values.device, dtype=values.dtype).expand_as(values)
    apart = ordered.diff(dim=-1) > TIE * values.abs().amax(dim=-1, keepdim=True)
    edge = torch.ones_like(apart[..., :1])
    first = place.where(torch.cat([edge, apart], dim=-1), 0.0).cummax(dim=-1).values
    last = place.where(torch.cat([apart, edge], dim=-1), torch.inf).flip(-1).cummin(dim=-1).values.flip(-1)
    ranks = torch.empty_like(values).scatter_(-1, order, (first + last) / 2)
    return ranks.where(~values.isnan(), torch.nan)
