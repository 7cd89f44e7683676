"""Dissimilarities across repeated measurements of the same rows, to which the noise of a measurement adds nothing.

X [..., n, k p] holds k ≥ 2 measurements [n, p] side by side. What comes back is [..., n, n] in float64, up to a factor, with a
zero diagonal. Squared distances may be negative: they are unbiased, and a distance of nothing is 0 on average.
"""

from collections.abc import Callable

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures.distances import all_squared_distances, scaled
from contrasim_cli.measures.tiles import between

ACROSS = ("crossnobis", "crossnobis-diag", "cv-sqeuclidean", "split-half")
SINGULAR = 1e-12  # a direction with less than this part of the noise of its neuron has none


def cross_validated(x: Tensor, repeats: int, noise: str) -> Tensor:
    """Squared distances: Σ over a ≠ b of (x_r - x_s)ᵃ Σ⁻¹ (x_r - x_s)ᵇ (Walther et al. 2016; rsatoolbox's `crossnobis`).

    Σ is the covariance of the noise: with `crossnobis` shrunk towards its diagonal, with `crossnobis-diag` its diagonal, with
    `cv-sqeuclidean` I. NaN where there is no noise to divide by: a neuron varies among rows and not between repeats, or Σ is
    singular.
    """
    mean, noises = _signal_and_noise(x, repeats)
    if noise != "cv-sqeuclidean":
        mean, noises = _normalised(mean, noises, shrunk=noise == "crossnobis")
    # equals the sum over a ≠ b, over k(k - 1): with x = m + e it is (k² mm - Σ (m + e)(m + e)) / k(k - 1), and Σ e = 0
    return all_squared_distances(mean) - all_squared_distances(noises.flatten(-2)) / (repeats * (repeats - 1))


def split_half(
    x: Tensor, repeats: int, compared_rows: Callable[[Tensor], Tensor], dissimilarity: Callable[[Tensor], Tensor]
) -> Tensor:
    """Dissimilarities of rows of one half of the measurements to rows of the other, the mean of (r, s) and (s, r).

    Split-data dissimilarities (Henriksson et al. 2015), of the means of the first, third, … and the second, fourth, … one.
    """
    n = x.shape[-2]
    each = measurements(x.double(), repeats)
    halves = xp.cat([each[..., start::2, :].mean(dim=-2) for start in (0, 1)], dim=-2)
    rows = compared_rows(halves)
    values = dissimilarity(between(rows[..., :n, :], rows[..., n:, :]))
    return (values + values.mT) / 2 * ~xp.eye(n, dtype=xp.bool, device=x.device)


def measurements(x: Tensor, repeats: int) -> Tensor:
    """X [..., n, k p] as [..., n, k, p]."""
    return x.reshape(*x.shape[:-1], repeats, -1)


def _signal_and_noise(x: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """The means over repeats [..., n, p] of rows at a common scale, and what each differs from it by [..., n, k, p]."""
    rows, _ = scaled(measurements(x, repeats).flatten(-3, -2))
    each = rows.reshape(*x.shape[:-1], repeats, -1)
    apart = each - each[..., :1, :]  # repeats that are equal have exactly no noise
    shift = apart.mean(dim=-2, keepdim=True)
    return (each[..., :1, :] + shift).squeeze(-2), apart - shift


def _normalised(mean: Tensor, noises: Tensor, shrunk: bool) -> tuple[Tensor, Tensor]:
    """Both in a space where the noise has the covariance I, or (not `shrunk`) the variance 1 in every neuron."""
    n, repeats, _ = noises.shape[-3:]
    freedom = n * (repeats - 1)
    residuals = noises.flatten(-3, -2)  # [..., n k, p]
    spread = (residuals.square().sum(dim=-2, keepdim=True) / freedom).sqrt()
    silent = spread == 0
    undefined = (silent & (mean != mean[..., :1, :])).any(dim=(-2, -1), keepdim=True)
    spread = spread.where(~silent, 1.0)
    residuals, mean = residuals / spread, mean / spread.where(~undefined, xp.nan)
    if shrunk:
        root = _root(residuals, freedom)
        mean, residuals = (xp.linalg.solve_triangular(root, side.mT, upper=False).mT for side in (mean, residuals))
    return mean, residuals.reshape(noises.shape)


def _root(z: Tensor, freedom: int) -> Tensor:
    """The Cholesky factor [..., p, p] of the shrunk correlations of residuals Z [..., N, p] of variance 1; NaN if singular.

    R = ZᵀZ / freedom, of which all but the diagonal is multiplied by 1 - λ, 0 ≤ λ ≤ 1: λ is the sum over neurons i ≠ j of the
    variance of r_ij, over that of r_ij² (Schäfer & Strimmer 2005), as rsatoolbox's `shrinkage_diag` estimates them.
    """
    count, width = z.shape[-2:]
    products = z.mT @ z
    others = ~xp.eye(width, dtype=xp.bool, device=z.device)
    r = products / (count - 1) * others
    squares = r.square().sum(dim=(-2, -1), keepdim=True)
    # Σ_ij z_i² z_j² is (Σ_i z_i²)², row by row
    fourth = z.square().sum(dim=-1).square().sum(dim=-1) - z.square().square().sum(dim=(-2, -1))
    variance = count / freedom**2 * (fourth[..., None, None] / (count - 1) - squares)
    kept = (1 - variance / squares).clamp(0.0, 1.0).where(squares > 0, 0.0)
    shrunk = products / freedom * kept * others + xp.eye(width, dtype=z.dtype, device=z.device)
    found = xp.linalg.cholesky_ex(shrunk)
    root: Tensor = found.L
    pivots = root.diagonal(dim1=-2, dim2=-1).square().amin(dim=-1)
    return root.where(((found.info == 0) & (pivots > SINGULAR))[..., None, None], xp.nan)
