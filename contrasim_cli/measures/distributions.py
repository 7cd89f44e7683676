"""Distances of the distributions of rows. Lower is more similar; rows need not be aligned, but widths must be equal.

X and Y are [..., n, p], with neurons in the same order; scores are [...]. Everything is float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.alignment import nuclear_norm
from contrasim_cli.measures.distances import (
    COLLECTED,
    all_squared_distances,
    median,
    median_of_tiles,
    scaled,
    scaled_map,
    tiles,
)
from contrasim_cli.measures.pointwise import Rows, prepare
from contrasim_cli.measures.protocol import Blocks, Measure, centred
from contrasim_cli.measures.spectrum import triangular
from contrasim_cli.measures.statistics import centroid, centroid_of_blocks
from contrasim_cli.measures.subspace import root_of_difference
from contrasim_cli.measures.tiles import Tiles, upper

WHOLE = 2048  # rows of both sides together of which all distances are held at once
SIDE = 1024  # rows per tile where there are more

# --- kernels ------------------------------------------------------------------------------------------------------------


def mmd(a: Rows, b: Rows) -> Tensor:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel [...], at most 2; may be negative.

    mean_r≠s k(x_r, x_s) + mean_r≠s k(y_r, y_s) - 2 mean_r,s k(x_r, y_s) with k = exp(-d² / 2σ²) (Gretton et al. 2012, Eq. 3), σ the
    median distance of two rows of both sides together (their section 8). NaN where that is 0, of one row, and of unequal widths.
    """
    n = a.rows.shape[-2]
    lead = np.broadcast_shapes(a.rows.shape[:-2], b.rows.shape[:-2])
    if a.rows.shape[-1] != b.rows.shape[-1]:
        return a.rows.new_full(lead, xp.nan)
    first, second = (
        side.rows.expand(*lead, *side.rows.shape[-2:]).reshape(-1, *side.rows.shape[-2:]) for side in (a, b)
    )
    of = _mmd_whole if 2 * n <= WHOLE else _mmd_by_tiles
    found = [of(scaled(xp.cat([first[at], second[at]], dim=-2))[0], n) for at in tiles(len(first), 4 * n * n)]
    return xp.cat(found).reshape(lead)


def mmd_at_once(n: int, p: int) -> int:
    """Values that are held at once: rows of both sides, scaled; and all distances, or those around their median."""
    return 8 * n * p + (20 * n * n if 2 * n <= WHOLE else COLLECTED)


def _mmd_whole(rows: Tensor, n: int) -> Tensor:
    """[c] of both sides' rows [c, 2 n, p]."""
    squared = all_squared_distances(rows)
    sigma = median(upper(squared).sqrt()).unsqueeze(-1)
    kernel = _gaussian(squared, sigma)
    sides = kernel.reshape(-1, 2, n, 2, n)
    return _discrepancy(sides.sum(dim=(2, 4)), n)


def _gaussian(squared: Tensor, sigma: Tensor) -> Tensor:
    """K - 1: without the ones, which cancel in the discrepancy, near rows keep their digits. NaN where σ is 0."""
    return xp.expm1(-squared / (2 * sigma.where(sigma > 0, xp.nan).square()))


def _discrepancy(sums: Tensor, n: int) -> Tensor:
    """[...] of sums of the kernel over pairs of rows of two sides [..., 2, 2]."""
    within = sums[..., 0, 0] + sums[..., 1, 1]
    return within / within.new_tensor(n * (n - 1)) - (sums[..., 0, 1] + sums[..., 1, 0]) / n**2


def _mmd_by_tiles(rows: Tensor, n: int) -> Tensor:
    """[c] of both sides' rows [c, 2 n, p], one after the other."""
    side = (xp.arange(2 * n, device=rows.device).unsqueeze(-1) >= n).double()
    sides = xp.cat([1 - side, side], dim=-1)  # [2 n, 2]: which side a row is of
    found = []
    for matrix in rows:
        squares = Tiles(2 * n, _rows_of(matrix), SIDE, matrix.new_tensor(1.0))
        sigma = median_of_tiles(squares)
        sums = matrix.new_zeros(2, 2)
        for tile in squares:
            part = sides[tile.rows].mT @ _gaussian(tile.squared, sigma) @ sides[tile.columns]
            sums += part if tile.on_diagonal else part + part.mT
        found.append(_discrepancy(sums, n))
    return xp.stack(found)


def _rows_of(matrix: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: matrix[start:stop]


# --- Gaussians ----------------------------------------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """Mean and covariance Σ = RᵀR of a layer's rows."""

    mean: Tensor  # [..., p]
    root: Tensor  # R [..., k, p]


def fit(x: Tensor) -> Gaussian:
    """The mean and covariance of X [..., n, p], with n - 1 as the divisor."""
    rows = centred(x)
    root = xp.linalg.qr(rows).R if rows.shape[-2] > rows.shape[-1] else rows
    return Gaussian(centroid(x), _per_degree_of_freedom(root, x.shape[-2]))


def fit_blocks(blocks: Blocks) -> Gaussian:
    """The mean and covariance of rows in blocks."""
    centre = scaled_map(blocks)
    root = triangular(centre.apply(rows) for rows in blocks) * centre.scale
    return Gaussian(centroid_of_blocks(blocks), _per_degree_of_freedom(root, blocks.n_rows))


def _per_degree_of_freedom(root: Tensor, n: int) -> Tensor:
    return root / root.new_tensor(n - 1.0).sqrt()


def bures_covariance(a: Gaussian, b: Gaussian) -> Tensor:
    """√( tr Σ_X + tr Σ_Y - 2 tr (Σ_X^½ Σ_Y Σ_X^½)^½ ) [...], in [0, ∞) (Bhatia et al. 2019).

    With Σ = RᵀR the last trace is ‖R_X R_Yᵀ‖_*. NaN of one row, and of unequal widths.
    """
    if a.root.shape[-1] != b.root.shape[-1]:
        return a.root.new_full(np.broadcast_shapes(a.root.shape[:-2], b.root.shape[:-2]), xp.nan)
    first, second = (side.root.square().sum(dim=(-2, -1)) for side in (a, b))
    shared = nuclear_norm(a.root @ b.root.mT, first.sqrt() * second.sqrt())
    return root_of_difference(first + second, 2.0 * shared)


def frechet(a: Gaussian, b: Gaussian) -> Tensor:
    """‖x̄ - ȳ‖² + `bures_covariance`² [...], in [0, ∞): the squared Fréchet distance of Gaussians (Dowson & Landau 1982).

    The number that is called Fréchet Inception distance (Heusel et al. 2017).
    """
    covariances = bures_covariance(a, b).square()
    if a.mean.shape[-1] != b.mean.shape[-1]:
        return covariances
    return (a.mean - b.mean).square().sum(dim=-1) + covariances


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "mmd": lambda options: Measure(prepare, mmd, at_once=mmd_at_once),
    "frechet_distance": lambda options: Measure(fit, frechet, own=fit_blocks),
    "bures_covariance": lambda options: Measure(fit, bures_covariance, own=fit_blocks),
}
