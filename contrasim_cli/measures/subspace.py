"""Measures of the spaces that the columns span: eigenspace overlap (higher) and GULP (lower is more similar).

X is [..., n, p], Y is [..., n, q]; scores are [...]. Everything is float64. Rows are factored where whole layers are at
hand; the moment forms agree to 1e-6 for directions down to σ ≈ 1e-5 · σ_max, below which a scatter has lost them.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.cca import RESOLVED, Factored, factor, left_products, preparer
from contrasim_cli.measures.protocol import Measure, MomentForm, Moments

ROUNDING = 1e-14  # a difference of squares below this share of them is rounding, not a distance


def root_of_difference(whole: Tensor, part: Tensor) -> Tensor:
    """√(whole - part) of two equal shapes; 0 where the difference is rounding, so that X is at no distance from X."""
    squared = whole - part
    return squared.where((squared > ROUNDING * whole) | squared.isnan(), 0.0).sqrt()


def principal(moments: Moments) -> tuple[Tensor, Tensor]:
    """Eigenvalues [..., p] ≥ 0, ascending, and eigenvectors [..., p, p] of the scatter; NaN where it is not finite."""
    scatter = moments.scatter
    assert scatter is not None
    finite = scatter.isfinite().all(dim=-1).all(dim=-1)
    values, vectors = xp.linalg.eigh(scatter.where(finite[..., None, None], 0.0))
    return values.clamp(min=0.0), vectors.where(finite[..., None, None], xp.nan)


def whitening_map(values: Tensor, vectors: Tensor, rank_tol: float) -> Tensor:
    """W [..., p, p] with Wᵀ XᵀX W = I on the directions with σ > rank_tol · σ_max, and zero columns for the others."""
    kept = values > rank_tol**2 * values[..., -1:]
    return vectors * (kept / values.where(kept, 1.0).sqrt()).unsqueeze(-2)


# --- eigenspace overlap -------------------------------------------------------------------------------------------------


class Basis(NamedTuple):
    """Left singular vectors of X, not centred, to numerical rank; the columns beyond it are zero."""

    left: Tensor  # U [..., n, k]

    @property
    def rank(self) -> Tensor:
        """Numerical rank [...]."""
        return (self.left != 0).any(dim=-2).sum(dim=-1)


@cache
def basis(rank_tol: float) -> Callable[[Tensor], Basis]:
    """`prepare` of `eigenspace_overlap` with a tolerance."""
    return lambda x: Basis(factor(x.double(), rank_tol).left)


def eigenspace_overlap(a: Basis, b: Basis) -> Tensor:
    """‖U_Xᵀ U_Y‖²_F / max(rank X, rank Y) [...], in [0, 1]; NaN where both sides are zero (May et al. 2019)."""
    return _overlap(a.left.mT @ b.left, a.rank, b.rank)


def _overlap(products: Tensor, rank_a: Tensor, rank_b: Tensor) -> Tensor:
    return (products.square().sum(dim=(-2, -1)) / xp.maximum(rank_a, rank_b)).clamp(max=1.0)


class CentredBasis(NamedTuple):
    """An orthonormal basis through moments: U = [Xc W, 1/√n] M."""

    map: Tensor  # W [..., p, p], so that Xc W has orthonormal columns
    mix: Tensor  # M [..., p + 1, k], zero columns beyond the rank
    rank: Tensor  # [...]


@cache
def centred_basis(rank_tol: float) -> Callable[[Moments], CentredBasis]:
    """`own` of `eigenspace_overlap`.

    X = [Xc W, 1/√n] [diag(σ) Vᵀ; √n x̄ᵀ], so that the small second factor has the singular values of X. The scatter of
    the raw rows would be squared before: a large common mean would hide every other direction.
    """

    def own(moments: Moments) -> CentredBasis:
        values, vectors = principal(moments)
        small = xp.cat(
            [values.sqrt().unsqueeze(-1) * vectors.mT, math.sqrt(moments.n) * moments.mean.unsqueeze(-2)], dim=-2
        )
        mixed = factor(small, rank_tol)
        return CentredBasis(whitening_map(values, vectors, rank_tol), mixed.left, mixed.rank)

    return own


def _overlap_of_moments(a: CentredBasis, b: CentredBasis, cross: Tensor) -> Tensor:
    inner = a.mix[..., :-1, :].mT @ (a.map.mT @ cross @ b.map) @ b.mix[..., :-1, :]
    constant = a.mix[..., -1, :].unsqueeze(-1) * b.mix[..., -1, :].unsqueeze(-2)
    return _overlap(inner + constant, a.rank, b.rank)


# --- GULP ---------------------------------------------------------------------------------------------------------------


def gulp(a: Factored, b: Factored, ridge: float) -> Tensor:
    """Distance of the ridge predictions from X and from Y, over all targets of regression [...], in [0, ∞).

    √( tr(Σ_X^-λ Σ_X Σ_X^-λ Σ_X) + tr(Σ_Y^-λ Σ_Y Σ_Y^-λ Σ_Y) - 2 tr(Σ_X^-λ Σ_XY Σ_Y^-λ Σ_YX) ) with Σ^-λ = (Σ + λI)^-1 of
    centred sides (Boix-Adserà et al. 2022). λ is `ridge` times the side's mean variance of a column, so that the score does
    not depend on scales. The paper's code scales sides to a total variance of 1, so that its λ is `ridge` / p, and gives the
    square. NaN where a side has no variance.
    """
    shrunk_a, shrunk_b = _shrunk(a, ridge), _shrunk(b, ridge)
    # with X = U diag(σ) Vᵀ every trace is one of shrinkage factors f = s / (s + λ), s = σ²/n
    weights = shrunk_a.unsqueeze(-1) * shrunk_b.unsqueeze(-2)
    shared = (left_products(a, b).square() * weights).sum(dim=(-2, -1))
    return root_of_difference(shrunk_a.square().sum(dim=-1) + shrunk_b.square().sum(dim=-1), 2.0 * shared)


def _shrunk(side: Factored, ridge: float) -> Tensor:
    largest = side.sigma[..., :1]
    values = (side.sigma / largest.where(largest > 0, xp.nan)).square()
    return _shrinkage(values, ridge, side.right.shape[-1])


def _shrinkage(values: Tensor, ridge: float, width: int) -> Tensor:
    """S / (s + λ) [..., k] with λ over the mean of all `width` variances; 0 where s is, NaN where all are."""
    penalised = values + ridge * values.sum(dim=-1, keepdim=True) / width
    varies = values.sum(dim=-1, keepdim=True) > 0
    return (values / penalised.where(penalised > 0, 1.0)).where(varies, xp.nan)


class Ridge(NamedTuple):
    """One side through its moments."""

    map: Tensor  # V diag(s + λ)^-½ [..., p, p], of the scatter
    own: Tensor  # Σ f² [...]


@cache
def ridge_map(ridge: float) -> Callable[[Moments], Ridge]:
    """`own` of `gulp`; λ keeps small directions from being divided by, so that nothing is lost in the scatter."""

    def own(moments: Moments) -> Ridge:
        values, vectors = principal(moments)
        shrunk = _shrinkage(values, ridge, values.shape[-1])
        scale = (shrunk / values.where(values > 0, 1.0)).sqrt()
        return Ridge(vectors * scale.unsqueeze(-2), shrunk.square().sum(dim=-1))

    return own


def _gulp_of_moments(a: Ridge, b: Ridge, cross: Tensor) -> Tensor:
    shared = (a.map.mT @ cross @ b.map).square().sum(dim=(-2, -1))
    return root_of_difference(a.own + b.own, 2.0 * shared)


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "eigenspace_overlap": lambda options: Measure(
        basis(options.rank_tol),
        eigenspace_overlap,
        MomentForm(centred_basis(options.rank_tol), _overlap_of_moments) if options.rank_tol >= RESOLVED else None,
    ),
    "gulp": lambda options: Measure(
        preparer(options.rank_tol),
        lambda a, b: gulp(a, b, options.ridge),
        MomentForm(ridge_map(options.ridge), _gulp_of_moments),
    ),
}
