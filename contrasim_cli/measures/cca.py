"""Canonical correlations (Hotelling 1936) and what is made of them. Higher is more similar, range [0, 1].

Rank-aware: directions with σ below RANK_TOL · σ_max carry no information and are dropped, so that the correlations are
those of the column spaces that the data have. Everything is float64.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.protocol import Measure, Moments, centred

RESOLVED = 1e-7  # σ below this times the largest is lost in second moments, which hold σ²
WIDE = 64  # from this many on, correlations come from eigenvalues
TIE = 1e-9  # squared correlations closer than this are ordered by the variance of X
VARIANCE_KEPT = 0.99  # of SVCCA, in σ² (Raghu et al. 2017)


class Factored(NamedTuple):
    """Xc = U diag(σ) Vᵀ over min(n, p) directions, largest first; directions beyond the rank are zero in U and σ."""

    left: Tensor  # U [..., n, k]
    sigma: Tensor  # [..., k]
    right: Tensor  # Vᵀ [..., k, p]
    chosen: bool = False  # whether `left` is the identity, whose products are the other side's directions

    @property
    def rank(self) -> Tensor:
        """Numerical rank [...]."""
        return (self.sigma > 0).sum(dim=-1)


def prepare(x: Tensor, rank_tol: float = 1e-6) -> Factored:
    """Factor centred X [..., n, p]; directions with σ ≤ rank_tol · σ_max are zeroed."""
    return factor(centred(x), rank_tol)


def factor(rows: Tensor, rank_tol: float) -> Factored:
    """Factor rows [..., n, p] as they are; directions with σ ≤ rank_tol · σ_max are zeroed."""
    scale = rows.abs().amax(dim=(-2, -1), keepdim=True)
    rows = rows / scale.where(scale > 0, 1.0)
    left, sigma, right = _svd(rows)
    kept = sigma > rank_tol * sigma[..., :1]
    return Factored(left * kept.unsqueeze(-2), sigma * scale.squeeze(-1) * kept, right)


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD; of a tall matrix by way of its R factor, which costs half."""
    n, p = x.shape[-2:]
    if n > 2 * p:
        q, r = xp.linalg.qr(x)
        left, sigma, right = converging_svd(r)
        return q @ left, sigma, right
    return converging_svd(x)


def converging_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SVD that falls back to the transpose where LAPACK's divide and conquer does not converge."""
    try:
        return xp.linalg.svd(x, full_matrices=False)  # type: ignore[no-any-return]
    except RuntimeError:  # LinAlgError is one
        right, sigma, left = xp.linalg.svd(x.mT, full_matrices=False)
        return left.mT, sigma, right.mT


def left_products(a: Factored, b: Factored) -> Tensor:
    """UᵀU' [..., k, k'] of two sides."""
    if a.chosen:
        return b.left * a.left.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    if b.chosen:
        return a.left.mT * b.left.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    return a.left.mT @ b.left


def _svcca_directions(side: Factored) -> Factored:
    """The fewest leading directions that hold VARIANCE_KEPT of the variance."""
    largest = side.sigma[..., :1]
    variance = (side.sigma / largest.where(largest > 0, 1.0)).square()
    before = variance.cumsum(dim=-1) - variance
    kept = (before < VARIANCE_KEPT * variance.sum(dim=-1, keepdim=True)) & (side.sigma > 0)
    return Factored(side.left * kept.unsqueeze(-2), side.sigma * kept, side.right, side.chosen)


def _correlations(a: Factored, b: Factored) -> Tensor:
    """All canonical correlations [..., min(k_a, k_b)], largest first; zero beyond the smaller rank."""
    products = left_products(a, b)
    if min(products.shape[-2:]) < WIDE:
        return xp.linalg.svdvals(products).clamp(0.0, 1.0)  # type: ignore[no-any-return]
    # half the time; what it loses of a ρ near zero, about 1e-8, is nothing in a mean of that many
    smaller = products @ products.mT if products.shape[-2] <= products.shape[-1] else products.mT @ products
    squares: Tensor = xp.linalg.eigvalsh(smaller)
    return squares.clamp(0.0, 1.0).sqrt().flip(-1)


def _smaller_rank(a: Factored, b: Factored) -> Tensor:
    """min(rank X, rank Y) [...], NaN where it is zero."""
    rank = xp.minimum(a.rank, b.rank).double()
    return rank.where(rank > 0, xp.nan)


def cca(a: Factored, b: Factored) -> Tensor:
    """Mean of the min(rank X, rank Y) canonical correlations [...] (Eq. 5, 6)."""
    return _correlations(a, b).sum(dim=-1) / _smaller_rank(a, b)


def cca_yanai(a: Factored, b: Factored) -> Tensor:
    """Mean of the squares of the min(rank X, rank Y) canonical correlations [...] (Yanai 1974; Ramsay et al. 1984)."""
    squares: Tensor = left_products(a, b).square().sum(dim=(-2, -1))
    return (squares / _smaller_rank(a, b)).clamp(max=1.0)


def shuffled_yanai(a: Factored, b: Factored, n_rows: int) -> Tensor:
    """Mean of `cca_yanai` over all shuffles of the rows [...].

    ⟨K, PLPᵀ⟩ of doubly centred K, L has the mean tr K tr L / (n - 1) (Kazi-Aoual et al. 1995); K = UUᵀ has the trace of its rank.
    """
    return a.rank * b.rank / ((n_rows - 1) * _smaller_rank(a, b))


def svcca(a: Factored, b: Factored) -> Tensor:
    """`cca` between the leading directions of both sides [...]."""
    return cca(_svcca_directions(a), _svcca_directions(b))


def pwcca(a: Factored, b: Factored) -> Tensor:
    """Σ αᵢ ρᵢ / Σ αᵢ with αᵢ = Σ_j |⟨hᵢ, x_j⟩| over the columns x_j of centred X [...] (Eq. 7); weighted by X alone.

    Where correlations tie, as the ones do that are exactly 1 when both ranks add up to more than n - 1, Eq. 7 leaves the
    variates open; here they are the principal axes of X within the tied directions, so that the score is one number.
    """
    products = left_products(a, b)
    rotation, rho = _canonical_rotation(products, a.sigma)
    count = xp.arange(rho.shape[-1], device=rho.device)
    used = count < _smaller_rank(a, b).unsqueeze(-1)
    # hᵢ = U rᵢ is of unit norm, so that ⟨hᵢ, x_j⟩ = (rᵢᵀ diag(σ) Vᵀ)_j
    alpha = (rotation.mT @ (a.sigma.unsqueeze(-1) * a.right)).abs().sum(dim=-1) * used
    return (alpha * rho.clamp(0.0, 1.0)).sum(dim=-1) / alpha.sum(dim=-1)


def pwcca_google(a: Factored, b: Factored) -> Tensor:
    """Σ αᵢ ρᵢ / Σ αᵢ with the weights of github.com/google/svcca (`pwcca.py` at 1f9f7ea), not those of Eq. 7 [...].

    There αᵢ = Σ_j |⟨pᵢ, x_j⟩| with pᵢ from the QR decomposition of the "directions" Xc uᵢ in the order of falling ρᵢ,
    where uᵢ are the left singular vectors of Σ_XX^-½ Σ_XY Σ_YY^-½: the step back through Σ_XX^-½, which would make Xc uᵢ
    the canonical variates hᵢ, is left out. The weights are those of the narrower side, of X where widths are equal.

    Where that code has no one answer, this has: columns x_j are centred (there, each column's mean is added to the
    direction of the same index, so that the number hangs on the sign and order in which LAPACK returns uᵢ); a
    narrower Y is weighted by Y (there, X's rows are mixed with Y's coefficients, which fails or means nothing); of
    rank-deficient sides min(rank X, rank Y) directions count; and ties are ordered as in `pwcca`.
    """
    if b.right.shape[-1] < a.right.shape[-1]:
        a, b = b, a
    rotation, rho = _canonical_rotation(left_products(a, b), a.sigma)
    largest = a.sigma[..., :1]
    sigma = a.sigma / largest.where(largest > 0, 1.0)
    # Xc uᵢ = U diag(σ) rᵢ up to scale, so that its QR is U times that of the small factor
    basis = xp.linalg.qr(sigma.unsqueeze(-1) * rotation).Q
    used = xp.arange(rho.shape[-1], device=rho.device) < _smaller_rank(a, b).unsqueeze(-1)
    alpha: Tensor = (basis.mT @ (sigma.unsqueeze(-1) * a.right)).abs().sum(dim=-1) * used
    return (alpha * rho.clamp(0.0, 1.0)).sum(dim=-1) / alpha.sum(dim=-1)


def _canonical_rotation(products: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors [..., k, k] of the products and the correlations [..., k], largest first; ties by σ."""
    largest = sigma[..., :1]
    relative = sigma / largest.where(largest > 0, 1.0)
    # the identity on the directions that exist puts them before those beyond the rank
    order = (sigma > 0) + TIE * relative.square()
    squares = products @ products.mT
    squares.diagonal(dim1=-2, dim2=-1).add_(order)
    _, vectors = xp.linalg.eigh(squares)
    rotation = vectors.flip(-1)
    rho: Tensor = xp.linalg.vector_norm(rotation.mT @ products, dim=-1)
    return rotation, rho


@cache
def preparer(rank_tol: float) -> Callable[[Tensor], Factored]:
    """`prepare` with a tolerance; the same function for the same one, so that the family factors once."""
    return lambda x: prepare(x, rank_tol)


class Whitening(NamedTuple):
    """Factors of Xc = U diag(σ) Vᵀ through moments: U = Xc W, over the directions within the rank, largest first."""

    sigma: Tensor  # [r]
    right: Tensor  # Vᵀ [r, p]

    @property
    def map(self) -> Tensor:
        """W = V diag(1/σ) [p, r]."""
        return self.right.T / self.sigma

    @property
    def condition(self) -> float:
        """The largest σ over the smallest one, 1 where there is none."""
        return float(self.sigma[0] / self.sigma[-1]) if self.rank else 1.0

    @property
    def rank(self) -> int:
        """The numerical rank."""
        return len(self.sigma)


@cache
def whitener(rank_tol: float) -> Callable[[Moments], Whitening] | None:
    """The whitening of a layer; None where the tolerance is finer than what second moments resolve."""
    if rank_tol < RESOLVED:
        return None

    def whiten(moments: Moments) -> Whitening:
        assert moments.scatter is not None
        scale = moments.squares.amax().clamp_min(np.finfo(np.float64).tiny.item())
        # of the negative, so that LAPACK's ascending order is that of falling σ
        values, vectors = xp.linalg.eigh(moments.scatter / -scale)
        values = -values.clamp_max(0.0)
        rank = int(((values > rank_tol**2 * values[:1]) & (values > 0)).sum())
        return Whitening((values[:rank] * scale).sqrt(), vectors.mT[:rank].contiguous())

    return whiten


def from_whitened(a: Whitening, b: Whitening, products: Tensor) -> tuple[Factored, Factored]:
    """Two sides as `compare` takes them, whose left factors have the given products UᵀU' [r, s]."""
    identity = xp.eye(b.rank, dtype=products.dtype, device=products.device)
    return Factored(products.mT, a.sigma, a.right), Factored(identity, b.sigma, b.right, chosen=True)


def _measure(compare: Callable[[Factored, Factored], Tensor]) -> Callable[[Options], Measure]:
    return lambda options: Measure(preparer(options.rank_tol), compare, whiten=whitener(options.rank_tol))


MEASURES = {
    "cca": _measure(cca),
    "svcca": _measure(svcca),
    "pwcca": _measure(pwcca),
    "pwcca_google": _measure(pwcca_google),
    "cca_yanai": lambda options: replace(_measure(cca_yanai)(options), shuffled_mean=shuffled_yanai),
}
