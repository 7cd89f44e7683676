"""The measures of kernels, row-similarity matrices and neighbours again, from their formulas: slow, one pair at a time.

Nothing here shares code or derivation with `contrasim_cli`: sums run over explicit n × n matrices, distances come from
differences of rows, ranks are counted, and neighbours are found in decimal arithmetic of 50 digits. X is [n, p], Y is
[n, q]. Undefined is NaN.
"""

import math
import statistics
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import numpy.typing as npt
from oracles import Array, cka, widened

ONE_DIRECTION = 1e-14  # unit rows that are closer differ by rounding
K = 10
BATCH = 256
DIGITS = 50
EQUALLY_NEAR = Decimal("1e-13")  # of the largest squared distance from the mean direction


def shifted(x: npt.ArrayLike) -> Array:
    """Rows minus the first one, over the largest entry: a change that no measure of distances sees, up to scale."""
    values = widened(x)
    values = values - values[0]
    largest = np.abs(values).max()
    return values / largest if largest else values


def distances(x: Array) -> Array:
    """[n, n] Euclidean distances of rows, each from the difference."""
    return np.array([[math.dist(r, s) for s in x.tolist()] for r in x.tolist()])


def above_diagonal(matrix: Array) -> list[float]:
    """The entries of the pairs r < s."""
    return [float(matrix[r, s]) for r in range(len(matrix)) for s in range(r + 1, len(matrix))]


# --- kernels ----------------------------------------------------------------------------------------------------------


def unbiased_hsic(k: Array, m: Array) -> float:
    """Song et al. 2012, Eq. 5, of two n × n kernel matrices."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    trace = np.trace(k @ m)
    sums = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return float(trace + sums - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


def centred_gram(x: Array) -> Array:
    """Gram matrix of rows less their mean, which leaves the unbiased estimator as it is and keeps its digits."""
    x = x - x.mean(axis=0)
    return x @ x.T


def own_hsic(k: Array) -> float:
    """Unbiased HSIC of a kernel with itself; 0 where it is rounding."""
    own = unbiased_hsic(k, k)
    return own if own > 1e-13 * np.square(k).sum() / len(k) ** 2 else 0.0


def cka_minibatch(x: npt.ArrayLike, y: npt.ArrayLike, batch: int = BATCH) -> float:
    """Mean unbiased HSIC over consecutive batches of at least 4 rows, over the roots of the means of either side."""
    x, y = shifted(x), shifted(y)
    cut = [slice(start, start + batch) for start in range(0, len(x), batch) if len(x[start : start + batch]) >= 4]
    grams = [(centred_gram(x[rows]), centred_gram(y[rows])) for rows in cut]
    first, second = (sum(own_hsic(pair[side]) for pair in grams) for side in (0, 1))
    if not first or not second:
        return math.nan
    return sum(unbiased_hsic(k, m) for k, m in grams) / math.sqrt(first * second)


def cka_debiased(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """CKA of linear kernels with the unbiased estimator over all rows."""
    return cka_minibatch(x, y, batch=len(widened(x)))


def gaussian(x: npt.ArrayLike, threshold: float) -> Array | None:
    """The Gaussian kernel with the median distance as its unit of width; nothing where that is zero."""
    d = distances(shifted(x))
    pairs = above_diagonal(d)
    sigma = threshold * statistics.median(pairs) if pairs else 0.0
    return np.exp(-(d**2) / (2 * sigma**2)) if sigma else None


def cka_rbf(x: npt.ArrayLike, y: npt.ArrayLike, threshold: float = 1.0) -> float:
    """tr(K H L H) over the root of tr(K H K H) tr(L H L H)."""
    k, m = gaussian(x, threshold), gaussian(y, threshold)
    if k is None or m is None:
        return math.nan
    h = np.eye(len(k)) - 1 / len(k)

    def hsic(a: Array, b: Array) -> float:
        return float(np.trace(a @ h @ b @ h))

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


# --- row-similarity matrices ------------------------------------------------------------------------------------------


def similarities(x: npt.ArrayLike, rsm: str) -> list[float]:
    """Similarity of the pairs of rows r < s: 1 less half of the squared distance of unit rows is their cosine."""
    rows = widened(x)
    if rsm in ("euclidean", "sqeuclidean"):
        return [-d if rsm == "euclidean" else -(d**2) for d in above_diagonal(distances(shifted(x)))]
    if rsm == "pearson":
        rows = rows - rows[:, :1]
        rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = [math.hypot(*row) for row in rows.tolist()]
    if not all(lengths):
        return [math.nan]
    unit = rows / np.array(lengths)[:, None]
    return [-(d**2) / 2 if d > ONE_DIRECTION else 0.0 for d in above_diagonal(distances(unit))]


def ranks(values: list[float]) -> list[float]:
    """Number of smaller values plus half of that of equal ones; equal up to rounding."""
    tolerance = 1e-12 * max(map(abs, values))
    v = np.array(values)
    return [float((v < one - tolerance).sum() + (abs(v - one) <= tolerance).sum() / 2) for one in values]


def pearson(a: list[float], b: list[float]) -> float:
    """Correlation; NaN where a side is constant up to rounding."""
    for side in (a, b):
        if not side or max(side) - min(side) <= 1e-12 * max(map(abs, side)):
            return math.nan
    u, v = (np.array(side) - math.fsum(side) / len(side) for side in (a, b))
    return float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))


def rsa(x: npt.ArrayLike, y: npt.ArrayLike, rsm: str = "pearson", compare: str = "spearman") -> float:
    """Correlation, rank correlation or cosine of the two sides' similarities."""
    a, b = similarities(x, rsm), similarities(y, rsm)
    if not a or not b or math.isnan(a[0] + b[0]):
        return math.nan
    if compare == "cosine" and rsm in ("pearson", "cosine"):  # of similarities
        a, b = ([v + 1 for v in side] for side in (a, b))
    return compared([-v for v in a], [-v for v in b], compare)


def compared(a: list[float], b: list[float], compare: str) -> float:
    """Two sides' dissimilarities of all pairs r < s."""
    if compare in ("spearman", "rho-a", "tau-a"):
        return of_ranks(ranks(a), ranks(b), compare)
    if compare == "pearson":
        return pearson(a, b)
    if compare.endswith("-cov"):
        return whitened(a, b, without_mean=compare == "corr-cov")
    u, v = (np.array(side) for side in (a, b))
    if min(abs(u).max(), abs(v).max()) < (1e-13 if compare == "cosine" else 1e-300):
        return math.nan
    return float(u @ v) / (float(np.linalg.norm(u)) * float(np.linalg.norm(v)))


def of_ranks(a: list[float], b: list[float], compare: str) -> float:
    """Spearman's ρ; without a correction for ties; Kendall's τ-a, of every two pairs of rows."""
    if len(set(a)) == 1 or len(set(b)) == 1:
        return math.nan
    m = len(a)
    if compare == "spearman":
        return pearson(a, b)
    if compare == "rho-a":
        mean = math.fsum(a) / m
        return 12 / (m**3 - m) * math.fsum((u - mean) * (v - mean) for u, v in zip(a, b, strict=True))
    signs = [np.sign(np.subtract.outer(side, side)) for side in (a, b)]
    return float((signs[0] * signs[1]).sum()) / (m * (m - 1))


def whitened(a: list[float], b: list[float], without_mean: bool) -> float:
    """aᵀ V⁻¹ b over its norms, V = Ξ∘Ξ and Ξ = C Cᵀ with the contrasts C of all pairs of rows (Diedrichsen et al. 2021)."""
    n = round((1 + math.sqrt(1 + 8 * len(a))) / 2)
    contrasts = np.array([np.eye(n)[r] - np.eye(n)[s] for r in range(n) for s in range(r + 1, n)])
    covariance = (contrasts @ contrasts.T) ** 2
    sides = []
    for side in (a, b):
        values = np.array(side)
        if without_mean:
            values = values - math.fsum(side) / len(side)
        if not abs(values).max() > 1e-12 * max(map(abs, side)):
            return math.nan
        sides.append(values / abs(values).max())
    u, v = sides

    def product(one: Array, other: Array) -> float:
        return float(one @ np.linalg.solve(covariance, other))

    return product(u, v) / math.sqrt(product(u, u) * product(v, v))


def rsm_norm_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Root of the sum over all pairs of rows of squared differences of distances."""
    d, e = (distances(widened(side) - widened(side)[0]) for side in (x, y))
    return math.hypot(*(d - e).ravel().tolist())


def distance_correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Székely et al. 2007 without double centring: S₁ + S₂ - 2 S₃ of their remark 3."""
    d, e = (distances(shifted(side)) for side in (x, y))

    def covariance(a: Array, b: Array) -> float:
        products = (a * b).mean() + a.mean() * b.mean()
        return float(products - 2 * (a.mean(axis=1) @ b.mean(axis=1)) / len(a))

    if not d.any() or not e.any():
        return math.nan
    return math.sqrt(max(covariance(d, e), 0.0) / math.sqrt(covariance(d, d) * covariance(e, e)))


# --- neighbours -------------------------------------------------------------------------------------------------------


class Side:
    """Exact cosines of the rows of one side and the k nearest rows of each."""

    def __init__(self, x: npt.ArrayLike, k: int) -> None:
        with localcontext() as context:
            context.prec = DIGITS
            rows = [[Decimal(v) for v in row] for row in widened(x).tolist()]
            lengths = [sum(v * v for v in row).sqrt() for row in rows]
            self.defined = k < len(rows) and all(lengths)
            if not self.defined:
                return
            unit = [[v / length for v in row] for row, length in zip(rows, lengths, strict=True)]
            mean = [sum(column) / len(unit) for column in zip(*unit, strict=True)]
            spread = max(sum((v - m) ** 2 for v, m in zip(row, mean, strict=True)) for row in unit)
            self.defined = spread > Decimal("1e-28")
            self.cosine = [[sum(a * b for a, b in zip(r, s, strict=True)) for s in unit] for r in unit]
            self.kernel = [[float(c - sum(row) / len(row)) for c in row] for row in self.cosine]
            self.nearest = [self.order(r, EQUALLY_NEAR * spread)[:k] for r in range(len(unit))]

    def order(self, r: int, tie: Decimal) -> list[int]:
        """The other rows, nearest first; of rows equally near the lower position."""
        farther = sorted((2 - 2 * c, s) for s, c in enumerate(self.cosine[r]) if s != r)
        groups: list[list[int]] = []
        before = -Decimal(1)
        for squared, s in farther:
            if squared - before > tie:
                groups.append([])
            groups[-1].append(s)
            before = squared
        return [s for group in groups for s in sorted(group)]


def over_rows(x: npt.ArrayLike, y: npt.ArrayLike, k: int, score: Callable[[Side, Side, int], float]) -> float:
    """Mean of a score of every row, NaN where a side is undefined."""
    a, b = Side(x, k), Side(y, k)
    if not a.defined or not b.defined:
        return math.nan
    scores = [score(a, b, r) for r in range(len(a.nearest))]
    return math.fsum(scores) / len(scores)


def jaccard_knn(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Mean of intersection over union."""

    def score(a: Side, b: Side, r: int) -> float:
        one, other = set(a.nearest[r]), set(b.nearest[r])
        return len(one & other) / len(one | other)

    return over_rows(x, y, k, score)


def mutual_knn(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Mean of intersection over k."""
    return over_rows(x, y, k, lambda a, b, r: len(set(a.nearest[r]) & set(b.nearest[r])) / k)


def cycle_knn(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Share of rows that a step to a neighbour in Y and one to a neighbour in X can lead back to."""
    return over_rows(x, y, k, lambda a, b, r: float(any(r in a.nearest[s] for s in b.nearest[r])))


def edits(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Levenshtein's distance by its recursion."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        substituted = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, substituted)

    return distance(len(a), len(b))


def lcs_knn(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Mean length of the longest common subsequence over k; neighbours have no duplicates, so their order is a permutation."""
    return over_rows(x, y, k, lambda a, b, r: in_one_order(a.nearest[r], b.nearest[r]) / k)


def in_one_order(a: list[int], b: list[int]) -> int:
    """The longest rising run of places in b of what is in both, in the order of a: all runs that end at each."""
    places = [b.index(s) for s in a if s in b]
    longest: list[int] = []
    for i, place in enumerate(places):
        longest.append(1 + max((longest[j] for j in range(i) if places[j] < place), default=0))
    return max(longest, default=0)


def edit_distance_knn(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """1 less the mean edit distance over k."""
    return over_rows(x, y, k, lambda a, b, r: 1 - edits(tuple(a.nearest[r]), tuple(b.nearest[r])) / k)


def cknna(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Huh et al. 2024, Eq. 16-18, with cosines as the kernels."""

    def align(one: Side, other: Side, r: int) -> float:
        pairs = set(one.nearest[r]) & set(other.nearest[r])
        return math.fsum(one.kernel[r][s] * other.kernel[r][s] for s in pairs)

    own = [over_rows(side, side, k, align) for side in (x, y)]
    return over_rows(x, y, k, align) / math.sqrt(own[0] * own[1])


def second_order_cosine(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Mean cosine of the vectors of cosines with the union of the neighbours."""

    def score(a: Side, b: Side, r: int) -> float:
        union = set(a.nearest[r]) | set(b.nearest[r])
        u, v = ([float(side.cosine[r][s]) for s in union] for side in (a, b))
        if min(math.hypot(*u), math.hypot(*v)) < 1e-13:
            return math.nan
        return math.fsum(p * q for p, q in zip(u, v, strict=True)) / (math.hypot(*u) * math.hypot(*v))

    return over_rows(x, y, k, score)


def rank_similarity(x: npt.ArrayLike, y: npt.ArrayLike, k: int = K) -> float:
    """Mean of weighted shared neighbours over the best sum that as many could have."""

    def score(a: Side, b: Side, r: int) -> float:
        total, shared = 0.0, 0
        for i, s in enumerate(a.nearest[r], start=1):
            for j, t in enumerate(b.nearest[r], start=1):
                if s == t:
                    total += 2 / ((1 + abs(i - j)) * (i + j))
                    shared += 1
        return total / math.fsum(1 / i for i in range(1, shared + 1)) if shared else 0.0

    return over_rows(x, y, k, score)


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "rv": cka,
    "cka_debiased": cka_debiased,
    "cka_minibatch": cka_minibatch,
    "cka_rbf": cka_rbf,
    "rsa": rsa,
    "rsm_norm_difference": rsm_norm_difference,
    "distance_correlation": distance_correlation,
    "jaccard_knn": jaccard_knn,
    "mutual_knn": mutual_knn,
    "cycle_knn": cycle_knn,
    "lcs_knn": lcs_knn,
    "edit_distance_knn": edit_distance_knn,
    "cknna": cknna,
    "second_order_cosine": second_order_cosine,
    "rank_similarity": rank_similarity,
}
