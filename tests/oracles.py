"""Every measure, objective and benchmark rule again: slow, in float64, straight from the formulas.

Nothing here shares code or derivation with `contrasim_cli`: measures go through explicit n × n matrices (centring,
Gram and hat matrices) and pseudo-inverses, objectives and sets through loops over items and rows.

X is [n, p], Y is [n, q]; rows are examples. "§5" and "§6" are sections of the design, "Eq." equations of the paper.
A score that is undefined is NaN. Every measure here is higher for more similar inputs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RANK_TOL = 1e-6
SVCCA_VARIANCE = 0.99
STRICTLY = 1e-6


# --- measures ---------------------------------------------------------------------------------------------------------


def widened(x: npt.ArrayLike) -> Array:
    """Return the same values in float64."""
    return np.array(x, dtype=np.float64)


def centred(x: npt.ArrayLike) -> Array:
    """[n, p] → H X with the centring matrix H = I − 11ᵀ/n, up to a scale that no measure of centred columns sees.

    The first row is subtracted before: it changes nothing in exact arithmetic, and makes a constant column exactly 0.
    The largest entry becomes 1, so that no product of entries leaves the range of float64.
    """
    values = widened(x)
    n = len(values)
    without_mean: Array = (np.eye(n) - np.full((n, n), 1.0 / n)) @ (values - values[0])
    largest = np.abs(without_mean).max()
    return without_mean / largest if largest else without_mean


def cka(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Linear CKA (Eq. 8) as the cosine of the two centred n × n Gram matrices; NaN where a side has no variance.

    ‖YcᵀXc‖²_F = ⟨K, L⟩ and ‖XcᵀXc‖_F = ‖K‖_F, with K = Xc Xcᵀ and L = Yc Ycᵀ.
    """
    xc, yc = centred(x), centred(y)
    if not xc.any() or not yc.any():
        return math.nan
    gram_x, gram_y = xc @ xc.T, yc @ yc.T
    return inner(gram_x, gram_y) / math.sqrt(inner(gram_x, gram_x) * inner(gram_y, gram_y))


def inner(a: Array, b: Array) -> float:
    """Sum of the products of two matrices' entries, row by row."""
    return math.fsum(float(u @ v) for u, v in zip(a, b, strict=True))


def hat(x: npt.ArrayLike, rank_tol: float = RANK_TOL) -> Array:
    """[n, p] → the hat matrix Xc Xc⁺ [n, n], the projection onto the columns with σ ≥ rank_tol · σ_max."""
    xc = centred(x)
    projection = xc @ np.linalg.pinv(xc, rcond=rank_tol)
    return (projection + projection.T) / 2


def svcca_hat(x: npt.ArrayLike, share: float = SVCCA_VARIANCE) -> Array:
    """[n, p] → the projection [n, n] onto the fewest singular directions that explain `share` of the variance (§5).

    The variances σ² and the directions are the eigenvalues and eigenvectors of the centred Gram matrix.
    """
    xc = centred(x)
    variances, directions = np.linalg.eigh(xc @ xc.T)
    projection, explained = np.zeros((len(xc), len(xc))), 0.0
    for variance, direction in sorted(zip(variances, directions.T, strict=True), key=lambda pair: -pair[0]):
        if explained >= share * variances.sum():
            break
        projection += np.outer(direction, direction)
        explained += variance
    return projection


def rank(projection: Array) -> int:
    """Rank of a projection, which is its trace."""
    return round(float(np.trace(projection)))


def variates(hat_x: Array, hat_y: Array) -> list[tuple[float, Array]]:
    """Pairs (ρ_i, h_i) of the canonical correlations and unit-norm variates of X (Eq. 5), largest ρ first.

    Two hat matrices [n, n] → min(rank X, rank Y) pairs. The variates are the eigenvectors of H_X H_Y H_X in the range
    of H_X, and ρ_i = ‖H_Y h_i‖ is the correlation of h_i with its best prediction from Y. Adding H_X lifts that
    range to eigenvalues 1 + ρ² ≥ 1, away from the zeros of its complement.
    """
    values, vectors = np.linalg.eigh(hat_x + hat_x @ hat_y @ hat_x)
    inside = vectors[:, np.argsort(-values)[: rank(hat_x)]].T
    pairs = [(min(float(np.linalg.norm(hat_y @ h)), 1.0), h) for h in inside]
    return sorted(pairs, key=lambda pair: -pair[0])[: min(rank(hat_x), rank(hat_y))]


def mean_correlation(hat_x: Array, hat_y: Array) -> float:
    """Mean of the min(rank X, rank Y) canonical correlations (Eq. 6); NaN where a side has rank 0."""
    correlations = [rho for rho, _ in variates(hat_x, hat_y)]
    return math.fsum(correlations) / len(correlations) if correlations else math.nan


def cca(x: npt.ArrayLike, y: npt.ArrayLike, rank_tol: float = RANK_TOL) -> float:
    """Mean canonical correlation of all numerically present directions (Eq. 5, 6)."""
    return mean_correlation(hat(x, rank_tol), hat(y, rank_tol))


def svcca(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean canonical correlation of the directions that explain 99 % of each side's variance (§5)."""
    return mean_correlation(svcca_hat(x), svcca_hat(y))


def pwcca(x: npt.ArrayLike, y: npt.ArrayLike, rank_tol: float = RANK_TOL) -> float:
    """Projection-weighted CCA (Eq. 7): Σ α_i ρ_i / Σ α_i with α_i = Σ_j |⟨h_i, x_j⟩|, x_j the centred columns of X.

    Defined only where the ρ_i differ from each other, or all equal 1: within a group of equal ρ_i the variates may
    be rotated freely, and the group's Σ α_i with them.
    """
    columns = centred(x).T
    weighted, total = 0.0, 0.0
    for rho, h in variates(hat(x, rank_tol), hat(y, rank_tol)):
        alpha = math.fsum(abs(float(h @ column)) for column in columns)
        weighted += alpha * rho
        total += alpha
    return weighted / total if total else math.nan


def dot(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean over rows of x_r · y_r (Eq. 2); both [n, d]."""
    rows = list(zip(widened(x).tolist(), widened(y).tolist(), strict=True))
    return math.fsum(a * b for u, v in rows for a, b in zip(u, v, strict=True)) / len(rows)


def norm(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean over rows of 1 − ‖x_r/‖x_r‖ − y_r/‖y_r‖‖ (Eq. 9, 10); both [n, d]; NaN where a row is zero."""
    similarities = []
    for u, v in zip(widened(x).tolist(), widened(y).tolist(), strict=True):
        length_u, length_v = math.hypot(*u), math.hypot(*v)
        if length_u == 0 or length_v == 0:
            return math.nan
        similarities.append(1 - math.hypot(*(a / length_u - b / length_v for a, b in zip(u, v, strict=True))))
    return math.fsum(similarities) / len(similarities)


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "cka": cka,
    "cca": cca,
    "svcca": svcca,
    "pwcca": pwcca,
    "dot": dot,
    "norm": norm,
}


# --- items and sets ---------------------------------------------------------------------------------------------------


class Anchor(NamedTuple):
    """One anchor i with the items that it is compared to, all as positions in the list of items."""

    item: int
    positives: list[int]
    negatives: list[int]
    others: list[int]


def layer_sets(n_models: int, n_layers: int) -> list[Anchor]:
    """Sets of the task `layers` (§5, §6.1.1); items are (model, layer), all layers of model 0 first."""
    items = [(model, layer) for model in range(n_models) for layer in range(n_layers)]
    anchors = []
    for i, (model, layer) in enumerate(items):
        positives = [j for j, (m, k) in enumerate(items) if k == layer and m != model]
        negatives = [j for j, (_, k) in enumerate(items) if k != layer]
        anchors.append(Anchor(i, positives, negatives, [j for j in range(len(items)) if j != i]))
    return anchors


def pair_sets(n_rows: int, anchor_side: str = "both") -> list[Anchor]:
    """Sets of the task `pairs` (§5, §6.2.1, §6.3.1); items are (view, row), all rows of the first view first."""
    items = [(view, row) for view in range(2) for row in range(n_rows)]
    anchors = []
    for i, (view, row) in enumerate(items):
        if anchor_side == "first" and view != 0:
            continue
        positives = [j for j, (v, r) in enumerate(items) if r == row and v != view]
        negatives = [j for j, (_, r) in enumerate(items) if r != row]
        anchors.append(Anchor(i, positives, negatives, [j for j in range(len(items)) if j != i]))
    return anchors


# --- objectives -------------------------------------------------------------------------------------------------------


def batch_similarity(z: Array, w: Array, similarity: str = "dot") -> float:
    """Similarity of two items, each n encoded unit-norm rows [n, d]: Eq. 2 for `dot`, Eq. 9 and 10 for `norm`."""
    of_rows: dict[str, Callable[[Array, Array], float]] = {
        "dot": lambda a, b: float(a @ b),
        "norm": lambda a, b: 1 - float(np.linalg.norm(a - b)),
    }
    return sum(of_rows[similarity](a, b) for a, b in zip(z, w, strict=True)) / len(z)


def log_sum_exp(values: Iterable[float]) -> float:
    """Log of the sum of exponentials, of at least one value."""
    values = list(values)
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def contrasim(items: Sequence[Array], anchors: Sequence[Anchor], temperature: float, similarity: str = "dot") -> float:
    """Σ_i −1/|P(i)| · log( Σ_{p∈P(i)} exp(s_ip) / Σ_{n∈N(i)} exp(s_in) ), s over the temperature (Eq. 3).

    `items` are [n, d] each. An anchor without positives or without negatives contributes nothing.
    """
    loss = 0.0
    for i, positives, negatives, _ in anchors:
        if not positives or not negatives:
            continue
        near = log_sum_exp(batch_similarity(items[i], items[p], similarity) / temperature for p in positives)
        far = log_sum_exp(batch_similarity(items[i], items[n], similarity) / temperature for n in negatives)
        loss += -(near - far) / len(positives)
    return loss


def supcon(items: Sequence[Array], anchors: Sequence[Anchor], temperature: float, similarity: str = "dot") -> float:
    """Mean over anchors of the mean over positives of −( s_ip − log Σ_{a≠i} exp(s_ia) ) (§5).

    `items` are [n, d] each. Anchors without positives do not count.
    """
    losses = []
    for i, positives, _, others in anchors:
        if not positives:
            continue
        every = log_sum_exp(batch_similarity(items[i], items[a], similarity) / temperature for a in others)
        terms = [every - batch_similarity(items[i], items[p], similarity) / temperature for p in positives]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses) if losses else 0.0


def deepdot(items: Sequence[Array], anchors: Sequence[Anchor], similarity: str = "dot") -> float:
    """Minus the mean similarity of an anchor and a positive (Eq. 4); `items` are [n, d] each."""
    similarities = [batch_similarity(items[i], items[p], similarity) for i, ps, _, _ in anchors for p in ps]
    return -sum(similarities) / len(similarities)


def deepcka(items: Sequence[Array], pairs: Iterable[tuple[int, int]]) -> float:
    """Minus the mean CKA of the given pairs of items (Eq. 4); `items` are [n, d] each."""
    similarities = [cka(items[i], items[j]) for i, j in pairs]
    return -sum(similarities) / len(similarities)


# --- benchmarks -------------------------------------------------------------------------------------------------------


def strictly_more_similar(own: float, other: float, *, higher: bool = True) -> bool:
    """Return whether `own` beats `other` by more than 1e-6 of the larger of their sizes (§6); NaN beats nothing."""
    ahead = own - other if higher else other - own
    return ahead > STRICTLY * max(abs(own), abs(other))


def layer_prediction(scores: npt.ArrayLike, *, higher: bool = True) -> float:
    """Fraction of the layers i of f with s(f_i, g_i) strictly ahead of s(f_i, g_j) for all j ≠ i (§5.1).

    `scores` [k, k] holds s(f_i, g_j) in row i, column j; `higher` says whether higher means more similar.
    """
    grid = widened(scores)
    right = [
        all(strictly_more_similar(float(row[i]), float(row[j]), higher=higher) for j in range(len(row)) if j != i)
        for i, row in enumerate(grid)
    ]
    return sum(right) / len(right)


def layer_monotonicity(scores: npt.ArrayLike, *, higher: bool = True) -> list[float]:
    """Spearman correlation of similarity with closeness, for each layer i of f; scores equal up to 1e-6 share their rank.

    Spearman's is Pearson's of ranks (Spearman 1904). To the right of i (j = i, i + 1, …) and to the left (j = i, i - 1, …),
    and the mean of both where there are two layers at least on either side; 0 where all scores of a side are equal.
    """
    grid = widened(scores)

    def rank(value: float, values: list[float]) -> float:
        below = sum(strictly_more_similar(value, other, higher=higher) for other in values)
        above = sum(strictly_more_similar(other, value, higher=higher) for other in values)
        return below + (len(values) - above - below + 1) / 2

    def correlation(side: list[float]) -> float:
        ranks = [rank(value, side) for value in side]
        closeness = [-distance for distance in range(len(side))]
        if len(set(ranks)) == 1:
            return 0.0
        return float(np.corrcoef(ranks, closeness)[0, 1])

    found = []
    for i, row in enumerate(grid.tolist()):
        sides = [side for side in (row[i:], row[: i + 1][::-1]) if len(side) > 1]
        found.append(sum(map(correlation, sides)) / len(sides) if sides else float("nan"))
    return found


def retrieval_is_right(own: float, candidates: Iterable[float], *, higher: bool = True) -> bool:
    """Return whether the matching batch's score is strictly ahead of every candidate's (§6, A.1.1)."""
    return all(strictly_more_similar(own, candidate, higher=higher) for candidate in candidates)


def reciprocal_rank(own: float, candidates: Iterable[float], *, higher: bool = True) -> float:
    """Return 1 / (1 + the number of candidates that `own` is not strictly ahead of)."""
    return 1 / (1 + sum(not strictly_more_similar(own, candidate, higher=higher) for candidate in candidates))


def margin(own: float, candidates: Sequence[float], *, higher: bool = True) -> float:
    """Return how far `own` is ahead of the best candidate over the candidates' population standard deviation.

    NaN where a score is, and where that deviation is no more than 1e-6 of the largest score.
    """
    if any(math.isnan(score) for score in (own, *candidates)):
        return math.nan
    mean = math.fsum(candidates) / len(candidates)
    deviation = math.sqrt(math.fsum((c - mean) ** 2 for c in candidates) / len(candidates))
    if deviation <= STRICTLY * max(map(abs, (own, *candidates))):
        return math.nan
    return (own - max(candidates) if higher else min(candidates) - own) / deviation


def nearest_neighbours(
    queries: npt.ArrayLike, rows: npt.ArrayLike, k: int, own: Sequence[int | None]
) -> list[list[int]]:
    """Positions in `rows` [m, d] of the (at most) k nearest in L2 of every query [b, d], nearest first (§6).

    Left out are the row at `own[i]`, which is query i itself (None where no row is), and every row that equals the
    query. Ties go to the lower position.
    """
    queries, rows = widened(queries), widened(rows)
    found = []
    for query, itself in zip(queries, own, strict=True):
        distances = [
            (math.fsum((a - b) ** 2 for a, b in zip(query.tolist(), row.tolist(), strict=True)), j)
            for j, row in enumerate(rows)
            if j != itself and not np.array_equal(query, row)
        ]
        found.append([j for _, j in sorted(distances)[:k]])
    return found
