"""Soft matching of columns by optimal transport (Khosla & Williams 2024), exactly.

X is [..., n, p], Y is [..., n, q]; scores are [...]. A plan P [p, q] ≥ 0 moves mass 1 / p from every column of X and mass 1 / q to
every one of Y. Where p = q the best plan is a permutation. Everything is float64.
"""

import math
from collections.abc import Callable
from typing import Any

from contrasim_cli.arrays import Tensor
from contrasim_cli.measures import Options
from contrasim_cli.measures.alignment import Columns, correlations, each, matching
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.measures.subspace import root_of_difference

LARGEST = 4096  # side of an assignment problem, beyond which the linear programme is solved


def soft_matching_distance(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """√ min_P Σ_ij P_ij ‖x_i - y_j‖² of centred columns, not scaled [...], in [0, ∞); lower is more similar.

    NaN where values are too large to square.
    """
    squared = root_of_difference(a.scatter.unsqueeze(-1) + b.scatter.unsqueeze(-2), 2.0 * cross).square()
    return each(squared, transport).sqrt()


def soft_matching_correlation(a: Columns, b: Columns, cross: Tensor) -> Tensor:
    """max_P Σ_ij P_ij corr(x_i, y_j) [...], in [-1, 1]; higher is more similar.

    Correlations keep their sign. Constant columns have none and are left out on their side; NaN where all are constant.
    """
    return each(correlations(a, b, cross), _best_correlation)


def _best_correlation(found: Any) -> float:
    import numpy as np

    defined = ~np.isnan(found)
    found = found[defined.any(axis=1)][:, defined.any(axis=0)]
    return -transport(-found) if found.size else math.nan


def transport(cost: Any) -> float:
    """The least Σ_ij P_ij C_ij over all plans of C [p, q]; NaN where C is not finite.

    With every column of X q / g times and every one of Y p / g times, g = gcd(p, q), all have one mass, so that the best plan
    is an assignment. Where that is too large, the linear programme is solved; its vertices are multiples of g / (p q).
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(cost).all():
        return math.nan
    p, q = cost.shape
    size = math.lcm(p, q)
    if size > LARGEST:
        return float((_plan(cost, size) * cost).sum())
    repeated = cost.repeat(size // p, axis=0).repeat(size // q, axis=1)
    return float(repeated[linear_sum_assignment(repeated)].mean())


def _plan(cost: Any, size: int) -> Any:
    """The best plan [p, q], by linear programming."""
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    p, q = cost.shape
    masses = vstack([kron(eye_array(p), np.ones((1, q))), kron(np.ones((1, p)), eye_array(q))]).tocsr()
    wanted = np.concatenate([np.full(p, size // p), np.full(q, size // q)])
    scale = np.abs(cost).max() or 1.0
    done = linprog(cost.ravel() / scale, A_eq=masses, b_eq=wanted, method="highs")
    return np.round(done.x).reshape(p, q) / size


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "soft_matching_distance": lambda options: matching("soft_matching_distance", soft_matching_distance),
    "soft_matching_correlation": lambda options: matching("soft_matching_correlation", soft_matching_correlation),
}
