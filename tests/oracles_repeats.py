"""Dissimilarities across repeated measurements again, from their formulas: one pair of rows and of measurements at a time.

`each` holds k measurements [n, p] of the same rows. Undefined is NaN.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from oracles import Array
from oracles_matrices import compared, similarities


def noise_covariance(each: Sequence[Array], shrunk: bool) -> Array:
    """[p, p] of what measurements differ by, shrunk towards its diagonal (Schäfer & Strimmer 2005), or its diagonal alone."""
    mean = np.mean(each, axis=0)
    residuals = np.concatenate([x - mean for x in each])
    count, p = residuals.shape
    freedom = len(mean) * (len(each) - 1)
    covariance = residuals.T @ residuals / freedom
    of_correlation, of_square = 0.0, 0.0
    for i, j in itertools.permutations(range(p), 2) if shrunk else ():
        products = residuals[:, i] * residuals[:, j] / math.sqrt(covariance[i, i] * covariance[j, j])
        r = products.sum() / (count - 1)
        of_square += r**2
        of_correlation += count / freedom**2 * ((products**2).sum() / (count - 1) - r**2)
    kept = 1 - min(1.0, max(0.0, of_correlation / of_square)) if of_square else 0.0
    found: Array = np.where(np.eye(p, dtype=bool), covariance, kept * covariance)
    return found


def cross_validated(measured: Sequence[npt.ArrayLike], noise: str) -> list[float]:
    """Of all pairs r < s: mean over a ≠ b of (x_r - x_s)ᵃ Σ⁻¹ (x_r - x_s)ᵇ."""
    each = [np.asarray(x, dtype=np.float64) for x in measured]
    alive = [j for j in range(each[0].shape[1]) if len({float(v) for x in each for v in x[:, j]}) > 1]
    each = [x[:, alive] for x in each]
    if noise == "cv-sqeuclidean":
        precision = np.eye(len(alive))
    elif any(all((x[:, j] == each[0][:, j]).all() for x in each) for j in range(len(alive))):
        precision = np.full((len(alive), len(alive)), math.nan)
    else:
        precision = np.linalg.inv(noise_covariance(each, noise == "crossnobis"))
    found = []
    for r, s in itertools.combinations(range(len(each[0])), 2):
        apart = [x[r] - x[s] for x in each]
        found.append(float(np.mean([a @ precision @ b for a, b in itertools.permutations(apart, 2)])))
    return found


def split_half(measured: Sequence[npt.ArrayLike], rsm: str) -> list[float]:
    """Of all pairs r < s: the dissimilarity of r in one half and s in the other, and the other way round."""
    each = [np.asarray(x, dtype=np.float64) for x in measured]
    first, second = np.mean(each[::2], axis=0), np.mean(each[1::2], axis=0)

    def dissimilarity(x: Array, y: Array) -> float:
        if rsm in ("euclidean", "sqeuclidean"):
            return math.dist(x, y) ** (1 if rsm == "euclidean" else 2)
        return -similarities(np.stack([x, y]), rsm)[0]

    pairs = itertools.combinations(range(len(first)), 2)
    return [(dissimilarity(first[r], second[s]) + dissimilarity(first[s], second[r])) / 2 for r, s in pairs]


DISTANCES: dict[str, Callable[[Sequence[npt.ArrayLike], str], list[float]]] = {
    "crossnobis": lambda each, rsm: cross_validated(each, "crossnobis"),
    "crossnobis-diag": lambda each, rsm: cross_validated(each, "crossnobis-diag"),
    "cv-sqeuclidean": lambda each, rsm: cross_validated(each, "cv-sqeuclidean"),
    "split-half": split_half,
}


def rsa(model: npt.ArrayLike, each: Sequence[npt.ArrayLike], distance: str, rsm: str, compare: str) -> float:
    """Of a model's dissimilarities and those across measurements."""
    across = DISTANCES[distance](each, rsm)
    if any(map(math.isnan, across)):
        return math.nan
    return compared([-v for v in similarities(model, rsm)], across, compare)


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {}
