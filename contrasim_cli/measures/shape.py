"""Bures similarity of Gram matrices, shape distances between canonical correlations and Procrustes, and angles of similarities.

X is [..., n, p], Y is [..., n, q], both centred; scores are [...]. Everything is float64.
"""

from collections.abc import Callable
from typing import Any

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options, cka
from contrasim_cli.measures.alignment import (
    Columns,
    angle_of_cosine,
    each,
    matching,
    nuclear_norm,
    procrustes_size_shape,
    shape_cosine,
    spread_form,
)
from contrasim_cli.measures.cca import Factored, left_products, preparer, whitener
from contrasim_cli.measures.cka import Centred
from contrasim_cli.measures.protocol import Measure, moment_measure


def angular_cka(a: Centred, b: Centred) -> Tensor:
    """Arccos of `cka` [...], in [0, π/2]; lower is more similar. A metric, which 1 - cka is not (Williams et al. 2021)."""
    return angle_of_cosine(cka.compare(a, b).clamp(0.0, 1.0))


def angular_permutation(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """Arccos max_P ⟨X P, Y⟩ of centred sides of unit norm over permutations P of columns [...], in [0, π] (Williams et al. 2021).

    The narrower side is padded with zero columns. Lower is more similar; NaN where a side has no variance.
    """
    size = a.scatter.sum(dim=-1).sqrt() * b.scatter.sum(dim=-1).sqrt()
    size = size.where(size > 0, xp.nan)
    return angle_of_cosine(each(cross / size[..., None, None], _greatest_sum).clamp(-1.0, 1.0))


def _greatest_sum(products: Any) -> float:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(products).all():
        return float("nan")
    return float(products[linear_sum_assignment(products, maximize=True)].sum())


def shape_alpha(a: Factored, b: Factored, alpha: float) -> Tensor:
    """Angle of X_α and Y_α after the best orthogonal map [...], in [0, π/2]; lower is more similar.

    arccos( ‖X_αᵀ Y_α‖_* / (‖X_α‖_F ‖Y_α‖_F) ) with X_α = Xc (α I / s + (1 - α) (XcᵀXc)^-½), where s² is the mean variance σ² of the
    directions that X has (Williams et al. 2021). 1 is `angular_shape`, 0 compares whitened sides. NaN where a side
    has no variance. netrep has no s, so that its score depends on the scale of X and on n.
    """
    left, right = (_partly_whitened(side, alpha) for side in (a, b))
    # with Xc = U diag(σ) Vᵀ, X_α = U diag(w) Vᵀ
    products = left.unsqueeze(-1) * left_products(a, b) * right.unsqueeze(-2)
    cosine = nuclear_norm(products, products.new_ones(products.shape[:-2])).clamp(max=1.0)
    return angle_of_cosine(cosine.where((a.rank > 0) & (b.rank > 0), xp.nan))


def _partly_whitened(side: Factored, alpha: float) -> Tensor:
    """w = α σ / s + (1 - α) [..., k], scaled to unit norm; 0 beyond the rank, NaN where that is 0."""
    largest = side.sigma[..., :1]
    sigma = side.sigma / largest.where(largest > 0, xp.nan)
    kept = sigma > 0
    mean = (sigma.square().sum(dim=-1, keepdim=True) / kept.sum(dim=-1, keepdim=True)).sqrt()
    weights = (alpha * sigma / mean + (1 - alpha)) * kept
    norm: Tensor = xp.linalg.vector_norm(weights, dim=-1, keepdim=True)
    return weights / norm


def _shape_alpha(options: Options) -> Measure:
    return Measure(
        preparer(options.rank_tol),
        lambda a, b: shape_alpha(a, b, options.shape_alpha),
        whiten=whitener(options.rank_tol),
    )


# With K = Xc Xcᵀ and L = Yc Ycᵀ, tr (K^½ L K^½)^½ = ‖XcᵀYc‖_*: the fidelity of the Gram matrices (Harvey et al. 2024).
MEASURES: dict[str, Callable[[Options], Measure]] = {
    "nbs": lambda options: moment_measure(spread_form(shape_cosine), rotation_invariant=True),
    "bures_distance": lambda options: moment_measure(spread_form(procrustes_size_shape), rotation_invariant=True),
    "shape_alpha": _shape_alpha,
    "angular_cka": lambda options: Measure(cka.prepare, angular_cka),
    "angular_permutation": lambda options: matching("angular_permutation", angular_permutation),
}
