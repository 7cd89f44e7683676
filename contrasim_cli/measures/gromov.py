"""Gromov-Wasserstein distance of the rows of two sides, which need be neither aligned nor of one width. Lower is more similar.

X is [..., n, p], Y is [..., n, q]; scores are [...]. Everything is float64. Matrices of Euclidean distances are conditionally
negative definite, for which the objective is concave over all couplings of n and n equal masses (Maron & Lipman 2018), so that the
best coupling is a permutation, and each step of the conditional gradient goes all the way to one. Swaps of two rows lead out of
shallow minima.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.alignment import check_scipy
from contrasim_cli.measures.distances import all_squared_distances, scaled
from contrasim_cli.measures.protocol import Measure

STEPS = 200


class Shape(NamedTuple):
    """Distances between rows over their mean."""

    distances: Tensor  # [..., n, n]


def prepare(x: Tensor) -> Shape:
    """The scaled distances of X [..., n, p]; NaN where all rows are equal."""
    distances = all_squared_distances(scaled(x)[0]).sqrt()
    n = x.shape[-2]
    mean = distances.sum(dim=(-2, -1), keepdim=True) / max(n * (n - 1), 1)
    return Shape(distances / mean.where(mean > 0, xp.nan))


def gromov_wasserstein(a: Shape, b: Shape) -> Tensor:
    """√( min_π 1/n² Σ_rs (D_X(r, s) - D_Y(π(r), π(s)))² ) [...] over permutations π, in [0, ∞) (Mémoli 2011).

    A local minimum, from two starts that do not depend on the order of rows: rows in the order of their mean distance to all
    others, which is what the first step from the product coupling gives, and rows matched by their sorted distances.
    """
    lead = np.broadcast_shapes(a.distances.shape[:-2], b.distances.shape[:-2])
    first, second = (
        side.distances.expand(*lead, *side.distances.shape[-2:]).reshape(-1, *side.distances.shape[-2:]).cpu().numpy()
        for side in (a, b)
    )
    found = [_least(x, y) for x, y in zip(first, second, strict=True)]
    return a.distances.new_tensor(found).reshape(lead)


def _least(x: Any, y: Any) -> float:
    """The least of what the starts lead to; NaN where a side is undefined."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    return min(_descend(x, y, start) for start in _starts(x, y))


def _starts(x: Any, y: Any) -> list[Any]:
    """Permutations [n]: the row of Y that each row of X begins with."""
    from scipy.optimize import linear_sum_assignment

    one, other = (np.argsort(side.sum(axis=1), kind="stable") for side in (x, y))
    by_mean = np.empty(len(x), dtype=np.int64)
    by_mean[one] = other
    profiles = [np.sort(side, axis=1) for side in (x, y)]
    by_profile = linear_sum_assignment(
        profiles[0] @ profiles[1].T - np.square(profiles[1]).sum(axis=1) / 2, maximize=True
    )[1]
    return [by_mean, by_profile]


def _descend(x: Any, y: Any, order: Any) -> float:
    """The distance where neither a step of the conditional gradient nor a swap of two rows makes it less."""
    from scipy.optimize import linear_sum_assignment

    distance = math.inf
    for _ in range(STEPS):
        order = _swapped(x, y, linear_sum_assignment(x @ y[order], maximize=True)[1])  # Σ_s D_X(r, s) D_Y(π(s), t)
        last, distance = distance, float(np.linalg.norm(x - y[np.ix_(order, order)])) / len(x)
        if distance >= last * (1 - 1e-12):
            return last
    return distance


def _swapped(x: Any, y: Any, order: Any) -> Any:
    """The order after swaps of two rows, the best one first, until none makes the distance less; at most one swap per row."""
    order, moved = order.copy(), y[np.ix_(order, order)]
    products = x @ moved  # Σ_t D_X(r, t) D_Y(π(s), π(t))
    for _ in range(len(x)):
        own = products.diagonal()
        gain = products + products.T - own[:, None] - own + 2 * x * moved
        r, s = np.unravel_index(gain.argmax(), gain.shape)
        if gain[r, s] <= 1e-12 * abs(own).max():
            break
        products += np.outer(x[:, r] - x[:, s], moved[s] - moved[r])
        order[[r, s]] = order[[s, r]]
        moved = y[np.ix_(order, order)]
        products[:, [r, s]] = x @ moved[:, [r, s]]
    return order


def _measure(options: Options) -> Measure:
    check_scipy("gromov_wasserstein")
    return Measure(prepare, gromov_wasserstein, square=True)


MEASURES: dict[str, Callable[[Options], Measure]] = {"gromov_wasserstein": _measure}
