"""Differences of one number that the spectrum of a layer's covariance gives. Lower is more similar.

Rows need not be aligned, nor widths equal. X is [..., n, p]; scores are [...]. Everything is float64. The eigenvalues of the
covariance are λ_i = σ_i² / n, with the singular values σ_i of the centred rows, largest first. They come from the rows or, where
rows are streamed, from a triangular factor of them, never from the covariance, which would lose the digits of the small ones.
"""

from collections.abc import Callable, Iterable
from functools import cache

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.alignment import singular_values
from contrasim_cli.measures.distances import scaled, scaled_map
from contrasim_cli.measures.protocol import Blocks, Measure
from contrasim_cli.measures.statistics import Statistic, difference


def spectrum(x: Tensor) -> Tensor:
    """Singular values [..., min(n, p)] of centred X [..., n, p], largest first, up to a common factor."""
    rows = scaled(x)[0]
    return singular_values(xp.linalg.qr(rows).R if rows.shape[-2] > rows.shape[-1] else rows)


def spectrum_of_blocks(blocks: Blocks) -> Tensor:
    """The spectrum of rows in blocks."""
    centre = scaled_map(blocks).apply
    return singular_values(triangular(centre(rows) for rows in blocks))


def triangular(blocks: Iterable[Tensor]) -> Tensor:
    """R [k, p], k ≤ 2 p, with RᵀR = Σ BᵀB over the blocks B [·, p]; few rows stay as they are."""
    held: list[Tensor] = []
    for rows in blocks:
        held.append(rows.clone())
        if sum(map(len, held)) > 2 * rows.shape[1]:
            held = [xp.linalg.qr(xp.cat(held)).R]
    return xp.cat(held)


def decay(sigma: Tensor, rank_tol: float) -> Statistic:
    """The exponent α of the power law λ_i ∝ i^-α [...] (Stringer et al. 2019), from singular values [..., k].

    The slope of log λ_i over -log i by least squares with weights 1 / i, as in the code released with the paper, over the
    directions with σ > rank_tol · σ_max; that code fits a range of ranks that is chosen by eye (11 to 500 in the paper). NaN where
    fewer than two directions vary.
    """
    kept = sigma > rank_tol * sigma[..., :1]
    place = xp.arange(1, sigma.shape[-1] + 1, dtype=sigma.dtype, device=sigma.device)
    weight = kept / place
    x, y = -place.log().expand_as(sigma), 2 * sigma.where(kept, 1.0).log()
    whole = weight.sum(dim=-1, keepdim=True)
    x, y = (side - (weight * side).sum(dim=-1, keepdim=True) / whole for side in (x, y))
    spread = (weight * x.square()).sum(dim=-1)
    return Statistic((weight * x * y).sum(dim=-1) / spread.where(kept.sum(dim=-1) > 1, xp.nan))


def participation_ratio(sigma: Tensor) -> Statistic:
    """(Σ λ_i)² / Σ λ_i² [...], in [1, min(n - 1, p)] (Gao et al. 2017), from singular values [..., k]; NaN where all are zero.

    The number of directions that would give the same ratio with equal variances.
    """
    largest = sigma[..., :1]
    variances = (sigma / largest.where(largest > 0, xp.nan)).square()
    return Statistic(variances.sum(dim=-1).square() / variances.square().sum(dim=-1))


@cache
def decay_preparer(rank_tol: float) -> Callable[[Tensor], Statistic]:
    """`prepare` of the decay with a tolerance."""
    return lambda x: decay(spectrum(x), rank_tol)


def prepare_participation_ratio(x: Tensor) -> Statistic:
    """The participation ratio of X [..., n, p]."""
    return participation_ratio(spectrum(x))


def participation_ratio_of_blocks(blocks: Blocks) -> Statistic:
    """The participation ratio of rows in blocks."""
    return participation_ratio(spectrum_of_blocks(blocks))


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "eigenspectrum_decay_difference": lambda options: Measure(
        decay_preparer(options.rank_tol),
        difference,
        own=lambda blocks: decay(spectrum_of_blocks(blocks), options.rank_tol),
    ),
    "participation_ratio_difference": lambda options: Measure(
        prepare_participation_ratio, difference, own=participation_ratio_of_blocks
    ),
}
