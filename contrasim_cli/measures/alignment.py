"""Measures that map one side onto the other: by an orthogonal map, a linear map, or a matching of columns.

X is [..., n, p], Y is [..., n, q]; scores are [...]. Unequal widths mean what padding the narrower side with zero columns
means. The Procrustes distances and `permutation_procrustes` are lower for more similar sides, the others higher.
Everything is float64.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.errors import MissingError
from contrasim_cli.measures import Options
from contrasim_cli.measures.cca import RESOLVED, Factored, converging_svd, left_products, preparer, whitener
from contrasim_cli.measures.protocol import Measure, MomentForm, MomentPrepared, Moments, centred, moment_measure
from contrasim_cli.measures.subspace import principal, root_of_difference, whitening_map

WIDE = 64  # narrower matrices are decomposed faster than it takes to ask whether a short cut is exact

# --- orthogonal maps ----------------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """What the Procrustes distances need of one side."""

    total: Tensor  # ‖Xc‖²_F [...]


def spread(moments: Moments) -> Spread:
    """‖Xc‖²_F, the trace of the scatter."""
    return Spread(moments.squares.sum(dim=-1))


def spread_form(pair: Callable[[Spread, Spread, Tensor], Tensor]) -> MomentForm:
    """The moment form of a measure of two sides' `spread` and ‖XcᵀYc‖_*."""
    return MomentForm(spread, pair, scatter=False, of_cross=_nuclear_of_cross)


def _nuclear_of_cross(a: Spread, b: Spread, cross: Tensor) -> Tensor:
    """‖XcᵀYc‖_* [...] of XcᵀYc [..., p, q]."""
    return nuclear_norm(cross, a.total.sqrt() * b.total.sqrt())


def nuclear_norm(matrix: Tensor, limit: Tensor) -> Tensor:
    """‖M‖_* [...] of M [..., p, q], which is at most `limit` [...]; NaN where M is not finite, for which LAPACK would fail."""
    finite = matrix.isfinite().all(dim=-1).all(dim=-1) & limit.isfinite()
    whole = limit.where(finite & (limit > 0), 1.0)
    defined = matrix if bool(finite.all()) else matrix.where(finite[..., None, None], 0.0)
    share = defined / whole[..., None, None]
    found = _nuclear_by_squares(share) if min(share.shape[-2:]) >= WIDE else None
    if found is None:
        found = singular_values(share).sum(dim=-1)
    return (found * whole).where(finite, xp.nan)


def _nuclear_by_squares(share: Tensor) -> Tensor | None:
    """Σ √λ(MᵀM), in half the time; None where squaring would lose digits that Σ σ or 1 - Σ σ needs."""
    narrow = share if share.shape[-1] <= share.shape[-2] else share.mT
    sigma = xp.linalg.eigvalsh(narrow.mT @ narrow).clamp(min=0.0).sqrt()
    total: Tensor = sigma.sum(dim=-1)
    lost = np.finfo(np.float64).eps * (sigma[..., -1:].square() / sigma).sum(dim=-1)
    return total if bool(((lost < 1e-9 * total) & (total < 0.99)).all()) else None


def singular_values(matrix: Tensor) -> Tensor:
    """Σ [..., min(p, q)] of M [..., p, q], largest first."""
    sigma: Tensor
    try:
        sigma = xp.linalg.svdvals(matrix)
    except RuntimeError:  # no convergence; the transpose is another problem to LAPACK
        sigma = xp.linalg.svdvals(matrix.mT.contiguous())
    return sigma


def shape_cosine(a: Spread, b: Spread, nuclear: Tensor) -> Tensor:
    """‖XᵀY‖_* of centred sides of unit Frobenius norm [...], in [0, 1]; NaN where a side has no variance."""
    size = a.total.sqrt() * b.total.sqrt()
    return (nuclear / size.where(size > 0, xp.nan)).clamp(0.0, 1.0)


def procrustes(a: Spread, b: Spread, nuclear: Tensor) -> Tensor:
    """√(2 - 2‖XᵀY‖_*) of centred sides of unit norm [...], in [0, √2]: their least distance over orthogonal maps.

    Schönemann 1966; Williams et al. 2021. Ding et al. 2021 report its square.
    """
    return _chord(shape_cosine(a, b, nuclear))


def _chord(cosine: Tensor) -> Tensor:
    """√(2 - 2 c), the distance of two unit vectors; 0 where c is 1 up to rounding."""
    return root_of_difference(xp.full_like(cosine, 2.0), 2.0 * cosine)


def angle_of_cosine(cosine: Tensor) -> Tensor:
    """Arccos c [...] of cosines in [0, 1], 0 where c is 1 up to rounding."""
    return 2.0 * (_chord(cosine) / 2.0).clamp(max=1.0).arcsin()


def angular_shape(a: Spread, b: Spread, nuclear: Tensor) -> Tensor:
    """Arccos ‖XᵀY‖_* of centred sides of unit norm [...], in [0, π/2]: the Riemannian shape distance (Williams et al. 2021)."""
    return angle_of_cosine(shape_cosine(a, b, nuclear))


def procrustes_size_shape(a: Spread, b: Spread, nuclear: Tensor) -> Tensor:
    """√(‖X‖² + ‖Y‖² - 2‖XᵀY‖_*) of centred sides [...], in [0, ∞); 0 for two constant sides (Williams et al. 2021)."""
    return root_of_difference(a.total + b.total, 2.0 * nuclear)


class Raw(NamedTuple):
    """Rows [..., n, k] up to a common factor, in coordinates of their own span where n < p."""

    rows: Tensor


def prepare_raw(x: Tensor) -> Raw:
    """The rows of X, not centred, scaled by the largest entry."""
    rows = x.double()
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    rows = rows / largest.where(largest > 0, 1.0)
    if rows.shape[-2] < rows.shape[-1]:
        rows = xp.linalg.qr(rows.mT).R.mT
    return Raw(rows)


def aligned_cosine(a: Raw, b: Raw, rank_tol: float) -> Tensor:
    """1/n Σ_r cos(x_r Q, y_r) [...] with the orthogonal Q that takes X nearest to Y, not centred; in [-1, 1].

    Q = U Vᵀ from XᵀY = U S Vᵀ (Hamilton et al. 2016). Directions with s ≤ rank_tol² · s_max (X and Y each contribute one
    factor to s) have no counterpart: Q may turn them anywhere, and here they count as orthogonal to the other side.
    NaN where a row is zero.
    """
    left, sigma, right = converging_svd(a.rows.mT @ b.rows)
    mapped = left * (sigma > rank_tol**2 * sigma[..., :1]).unsqueeze(-2)
    products = ((a.rows @ mapped) * (b.rows @ right.mT)).sum(dim=-1)
    lengths = xp.linalg.vector_norm(a.rows, dim=-1) * xp.linalg.vector_norm(b.rows, dim=-1)
    cosines: Tensor = products / lengths.where(lengths > 0, xp.nan)
    return cosines.mean(dim=-1)


# --- linear maps --------------------------------------------------------------------------------------------------------


def linear_regression(a: Factored, b: Factored) -> Tensor:
    """R² of the least-squares prediction of Xc from Yc, ‖Q_Yᵀ Xc‖²_F / ‖Xc‖²_F [...], in [0, 1] (Kornblith et al. 2019).

    Q_Y is an orthonormal basis of the columns of Yc to numerical rank. 0 where Y is constant, NaN where X is.
    """
    total = a.sigma.square().sum(dim=-1)
    explained = (left_products(b, a) * _relative(a.sigma).unsqueeze(-2)).square().sum(dim=(-2, -1))
    return (explained / _relative(a.sigma).square().sum(dim=-1)).where(total > 0, xp.nan).clamp(max=1.0)


def shuffled_regression(a: Factored, b: Factored, n_rows: int) -> Tensor:
    """Mean of `linear_regression` over all shuffles of the rows [...]: of n - 1 directions the fit takes rank Y."""
    variance = a.sigma.square().sum(dim=-1)
    return (b.rank / (n_rows - 1)).where(variance > 0, xp.nan)


def _relative(sigma: Tensor) -> Tensor:
    largest = sigma[..., :1]
    return sigma / largest.where(largest > 0, 1.0)


def linear_regression_symmetric(a: Factored, b: Factored) -> Tensor:
    """Mean of the R² of X from Y and of Y from X [...], in [0, 1]; NaN where a side is constant."""
    return (linear_regression(a, b) + linear_regression(b, a)) / 2


class Whitened(NamedTuple):
    """A side whitened through its moments: Xc W has orthonormal columns, zero beyond the rank."""

    map: Tensor  # W [..., p, p]
    total: Tensor  # ‖Xc‖²_F [...]


@cache
def whitening(rank_tol: float) -> Callable[[Moments], Whitened]:
    """`own` of the regressions; one function per tolerance, so that they share it."""
    return lambda moments: Whitened(whitening_map(*principal(moments), rank_tol), moments.squares.sum(dim=-1))


def _r2_of_moments(a: Whitened, b: Whitened, cross: Tensor) -> Tensor:
    """‖W_Yᵀ Σ_YX‖²_F / ‖Xc‖²_F, which is ‖Q_Yᵀ Xc‖²_F / ‖Xc‖²_F."""
    return ((cross @ b.map).square().sum(dim=(-2, -1)) / a.total.where(a.total > 0, xp.nan)).clamp(max=1.0)


def _symmetric_of_moments(a: Whitened, b: Whitened, cross: Tensor) -> Tensor:
    return (_r2_of_moments(a, b, cross) + _r2_of_moments(b, a, cross.mT)) / 2


def _regression(
    compare: Callable[[Factored, Factored], Tensor], pair: Callable[[Whitened, Whitened, Tensor], Tensor]
) -> Callable[[Options], Measure]:
    """Rows are factored, like in the CCA family: a scatter squares the condition, and would lose digits of small directions."""
    return lambda options: Measure(
        preparer(options.rank_tol),
        compare,
        MomentForm(whitening(options.rank_tol), pair) if options.rank_tol >= RESOLVED else None,
        whiten=whitener(options.rank_tol),
    )


# --- matchings of columns -----------------------------------------------------------------------------------------------


class Columns(NamedTuple):
    """What matchings need of one side."""

    n: int
    mean: Tensor  # [..., p]
    scatter: Tensor  # Σ_r (x_r - x̄)² of each column [..., p]


def columns(moments: Moments) -> Columns:
    """Means and the diagonal of the scatter."""
    return Columns(moments.n, moments.mean, moments.squares)


def prepare_columns(x: Tensor) -> MomentPrepared:
    """Centred rows and `columns` of X [..., n, p], without the p × p scatter of which they are the diagonal."""
    rows = centred(x)
    return MomentPrepared(rows, Columns(x.shape[-2], x.double().mean(dim=-2), rows.square().sum(dim=-2)))


def permutation_procrustes(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """min ‖X P - Y‖_F over permutations P of columns [...], in [0, ∞); neither centred nor scaled (Williams et al. 2021).

    The narrower side is padded with zero columns.
    """
    centres = a.n * (a.mean.unsqueeze(-1) - b.mean.unsqueeze(-2)).square()
    squared = centres + root_of_difference(a.scatter.unsqueeze(-1) + b.scatter.unsqueeze(-2), 2.0 * cross).square()
    p, q = squared.shape[-2:]
    alone_x, alone_y = (side.n * side.mean.square() + side.scatter for side in (a, b))
    if p > q:
        extra = alone_x.unsqueeze(-1).expand(*squared.shape[:-1], p - q)
        squared = xp.cat([squared, extra], dim=-1)
    elif q > p:
        extra = alone_y.unsqueeze(-2).expand(*squared.shape[:-2], q - p, q)
        squared = xp.cat([squared, extra], dim=-2)
    return each(squared, _least_sum).sqrt()


def correlations(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """Correlation of each column of X with each of Y [..., p, q]; NaN in the rows and columns of constant ones."""
    scale_x, scale_y = (side.scatter.where(side.scatter > 0, xp.nan).sqrt() for side in (a, b))
    return (cross / scale_x.unsqueeze(-1) / scale_y.unsqueeze(-2)).clamp(-1.0, 1.0)


def hard_match(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """Mean correlation of the min(p, q) pairs of columns under the best one-to-one assignment [...], in [-1, 1].

    Correlations keep their sign. Constant columns have none and are left out on their side; NaN where all are constant.
    Li et al. 2016.
    """
    return each(correlations(a, b, cross), _best_mean)


def soft_match(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """Mean of two means of each column's highest correlation with a column of the other side [...], in [-1, 1].

    Correlations keep their sign. Constant columns are left out; NaN where all of a side are constant. The semi-matching
    of Li et al. 2016, in both directions; not the optimal transport of Khosla and Williams 2024.
    """
    found = correlations(a, b, cross)
    return (_mean_of_best(found) + _mean_of_best(found.mT)) / 2


def _mean_of_best(found: Tensor) -> Tensor:
    best = found.nan_to_num(nan=-xp.inf).amax(dim=-1)
    defined = best.isfinite()
    return best.where(defined, 0.0).sum(dim=-1) / defined.sum(dim=-1)


def each(matrices: Tensor, solve: Callable[[Any], float]) -> Tensor:
    """[...] of [..., p, q], one assignment problem after the other on the CPU, where SciPy solves them."""
    found = [solve(matrix) for matrix in matrices.flatten(end_dim=-3).cpu().numpy()] if matrices.ndim > 2 else None
    if found is None:
        return matrices.new_tensor(solve(matrices.cpu().numpy()))
    return matrices.new_tensor(found).reshape(matrices.shape[:-2])


def _least_sum(cost: Any) -> float:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(cost).all():
        return float("nan")
    return float(cost[linear_sum_assignment(cost)].sum())


def _best_mean(found: Any) -> float:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    defined = ~np.isnan(found)
    found = found[defined.any(axis=1)][:, defined.any(axis=0)]
    return float(found[linear_sum_assignment(found, maximize=True)].mean()) if found.size else float("nan")


def check_scipy(name: str) -> None:
    """Refuse a measure that needs SciPy.

    Raises:
        MissingError: it is not installed.
    """
    if find_spec("scipy") is None:
        raise MissingError(f"--measure {name}: needs the extra match: pip install 'contrasim[match]'")


def matching(name: str, pair: Callable[[Columns, Columns, Tensor], Tensor]) -> Measure:
    """A measure of `columns` and their cross moments that SciPy finds the best assignment for.

    Raises:
        MissingError: SciPy is not installed.
    """
    check_scipy(name)
    return of_columns(pair)


def of_columns(pair: Callable[[Columns, Columns, Tensor], Tensor]) -> Measure:
    """A measure of `columns` and their cross moments."""
    return Measure(
        prepare_columns, lambda a, b: pair(a.own, b.own, a.rows.mT @ b.rows), MomentForm(columns, pair, scatter=False)
    )


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "procrustes": lambda options: moment_measure(spread_form(procrustes), rotation_invariant=True),
    "angular_shape": lambda options: moment_measure(spread_form(angular_shape), rotation_invariant=True),
    "procrustes_size_shape": lambda options: moment_measure(
        spread_form(procrustes_size_shape), rotation_invariant=True
    ),
    "permutation_procrustes": lambda options: matching("permutation_procrustes", permutation_procrustes),
    "aligned_cosine": lambda options: Measure(prepare_raw, lambda a, b: aligned_cosine(a, b, options.rank_tol)),
    "linear_regression": lambda options: replace(
        _regression(linear_regression, _r2_of_moments)(options), shuffled_mean=shuffled_regression
    ),
    "linear_regression_symmetric": _regression(linear_regression_symmetric, _symmetric_of_moments),
    "hard_match": lambda options: matching("hard_match", hard_match),
    "soft_match": lambda options: of_columns(soft_match),
}
