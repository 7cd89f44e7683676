"""The noise ceiling again, from its definition: repeats one by one, ranks by SciPy, correlations by NumPy. Repeats are [n, p_i]."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.stats
from oracles import Array

Vector = Array

ENDS = ("ceiling_low", "ceiling_high")


def dissimilarities(x: npt.ArrayLike, rsm: str) -> Vector:
    """Of all pairs of rows r < s."""
    rows = np.asarray(x, dtype=np.float64)
    found = []
    for r in range(len(rows)):
        for s in range(r + 1, len(rows)):
            if rsm == "pearson":
                found.append(1 - np.corrcoef(rows[r], rows[s])[0, 1])
            else:
                found.append(math.dist(rows[r], rows[s]) ** (2 if rsm == "sqeuclidean" else 1))
    return np.array(found)


def zscored(vector: Vector) -> Vector:
    """Less its mean, over its standard deviation."""
    z: Vector = (vector - vector.mean()) / vector.std()
    return z


def cosine(a: Vector, b: Vector) -> float:
    """Of two vectors."""
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def tau_a(a: Vector, b: Vector) -> float:
    """Concordant less discordant pairs, over all pairs."""
    signs = [np.sign(np.subtract.outer(side, side)) for side in (a, b)]
    return float((signs[0] * signs[1]).sum() / (len(a) * (len(a) - 1)))


def rho_a(a: Vector, b: Vector) -> float:
    """12 / (m³ - m) Σ of the products of ranks less their means."""
    ranks = [scipy.stats.rankdata(side) - (len(side) + 1) / 2 for side in (a, b)]
    return float(12 * (ranks[0] @ ranks[1]) / (len(a) ** 3 - len(a)))


# what is averaged, and how an average is compared with a repeat
WAYS: dict[str, tuple[Callable[[Vector], Vector], Callable[[Vector, Vector], float]]] = {
    "pearson": (zscored, lambda a, b: float(np.corrcoef(a, b)[0, 1])),
    "cosine-rdm": (lambda v: v / math.sqrt(np.mean(v**2)), cosine),
    "spearman": (scipy.stats.rankdata, lambda a, b: float(scipy.stats.spearmanr(a, b)[0])),
    "rho-a": (scipy.stats.rankdata, rho_a),
    "tau-a": (scipy.stats.rankdata, tau_a),
}


def noise_ceiling(repeats: Sequence[npt.ArrayLike], rsm: str, compare: str) -> tuple[float, float]:
    """(lower, upper)."""
    made, score = WAYS[compare]
    vectors = [dissimilarities(x, rsm) for x in repeats]
    low, high = [], []
    for k, own in enumerate(vectors):
        others = np.mean([made(other) for j, other in enumerate(vectors) if j != k], axis=0)
        low.append(score(own, others))
        high.append(score(own, np.mean([made(other) for other in vectors], axis=0)))
    return math.fsum(low) / len(low), math.fsum(high) / len(high)


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {}
