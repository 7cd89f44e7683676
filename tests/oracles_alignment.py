"""The measures of alignment, subspaces and statistics again, straight from their formulas: slow, in float64, one pair at a time.

Nothing here shares code or derivation with `contrasim_cli`: orthogonal maps and matchings are found and then applied to
the rows, regressions are solved, ridge operators are written out. X is [n, p], Y is [n, q]. Undefined is NaN.
"""

import itertools
import math
import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import oracles
import scipy.linalg
import scipy.optimize
from oracles import Array

RIDGE = 0.1


def without_mean(x: npt.ArrayLike) -> Array:
    """[n, p] → its rows minus their mean, unscaled; the first row is subtracted before, so that constants become 0."""
    values = oracles.widened(x)
    values = values - values[0]
    return values - values.mean(axis=0)


def padded(x: Array, y: Array) -> tuple[Array, Array]:
    """Both matrices with zero columns up to the larger width."""
    width = max(x.shape[1], y.shape[1])
    first, second = (np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (x, y))
    return first, second


def turned(x: Array, y: Array) -> tuple[Array, Array]:
    """X after the orthogonal map that takes it nearest to Y, and Y, both padded to one width."""
    x, y = padded(x, y)
    rotation, _ = scipy.linalg.orthogonal_procrustes(x, y)
    return x @ rotation, y


# --- orthogonal maps ----------------------------------------------------------------------------------------------------


def procrustes(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Frobenius distance of X Q and Y, both centred and of unit norm, Q the best orthogonal map."""
    xc, yc = without_mean(x), without_mean(y)
    if not xc.any() or not yc.any():
        return math.nan
    moved, target = turned(xc / np.linalg.norm(xc), yc / np.linalg.norm(yc))
    return float(np.linalg.norm(moved - target))


def angular_shape(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Angle of X Q and Y as vectors of R^(n p), from their chord: 2 arcsin(d / 2)."""
    return 2 * math.asin(procrustes(x, y) / 2)


def procrustes_size_shape(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Frobenius distance of X Q and Y, both centred."""
    moved, target = turned(without_mean(x), without_mean(y))
    return float(np.linalg.norm(moved - target))


def root(gram: Array) -> Array:
    """K^½ of a positive semi-definite matrix [n, n]; eigenvalues that are rounding are 0."""
    values, vectors = np.linalg.eigh(gram)
    kept: Array = (vectors * np.sqrt(np.where(values > 1e-13 * values[-1], values, 0.0))) @ vectors.T
    return kept


def fidelity(k: Array, m: Array) -> float:
    """tr (K^½ L K^½)^½ of two Gram matrices [n, n]."""
    return float(np.trace(root(root(k) @ m @ root(k))))


def nbs(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """tr (K^½ L K^½)^½ / √(tr K tr L) of the centred Gram matrices."""
    k, m = (side @ side.T for side in map(oracles.centred, (x, y)))
    size = math.sqrt(np.trace(k) * np.trace(m))
    return fidelity(k, m) / size if size else math.nan


def shape_alpha(x: npt.ArrayLike, y: npt.ArrayLike, alpha: float = 0.5) -> float:
    """Angle of α X / s + (1 - α) X (XᵀX)^-½ and the same of Y after the best orthogonal map, from their chord."""
    sides = []
    for xc in map(oracles.centred, (x, y)):
        if not xc.any():
            return math.nan
        s = np.linalg.norm(xc) / math.sqrt(oracles.rank(oracles.hat(xc)))
        mixed = alpha * xc / s + (1 - alpha) * xc @ inverse_root(xc)
        sides.append(mixed / np.linalg.norm(mixed))
    moved, target = turned(sides[0], sides[1])
    return 2 * math.asin(min(float(np.linalg.norm(moved - target)) / 2, 1.0))


def aligned_cosine(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean cosine of the rows of X Q and of Y, not centred; defined only where the best Q is unique on the rows of X."""
    moved, target = turned(oracles.widened(x), oracles.widened(y))
    return cosine(moved, target)


def cosine(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean over rows of x_r · y_r / (‖x_r‖ ‖y_r‖); NaN where a row is zero."""
    found = []
    for u, v in zip(oracles.widened(x).tolist(), oracles.widened(y).tolist(), strict=True):
        length_u, length_v = math.hypot(*u), math.hypot(*v)
        if length_u == 0 or length_v == 0:
            return math.nan
        found.append(math.fsum(a / length_u * (b / length_v) for a, b in zip(u, v, strict=True)))
    return math.fsum(found) / len(found)


# --- linear maps --------------------------------------------------------------------------------------------------------


def linear_regression(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """1 - (residual / total sum of squares) of the least-squares fit of centred X by centred Y."""
    xc, yc = oracles.centred(x), oracles.centred(y)
    total = np.sum(xc**2)
    if total == 0:
        return math.nan
    fit, *_ = np.linalg.lstsq(yc, xc, rcond=oracles.RANK_TOL)
    return float(np.sum((yc @ fit) ** 2) / total)


def linear_regression_symmetric(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean of both directions."""
    return (linear_regression(x, y) + linear_regression(y, x)) / 2


def eigenspace_overlap(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """tr(P_X P_Y) / max(rank), with the projections onto the columns of X and Y, not centred."""
    projections = [side @ np.linalg.pinv(side, rcond=oracles.RANK_TOL) for side in map(scaled, (x, y))]
    ranks = [oracles.rank(projection) for projection in projections]
    return float(np.sum(projections[0] * projections[1].T)) / max(ranks) if max(ranks) else math.nan


def scaled(x: npt.ArrayLike) -> Array:
    """The matrix over its largest entry."""
    values = oracles.widened(x)
    largest = np.abs(values).max()
    return values / largest if largest else values


def gulp(x: npt.ArrayLike, y: npt.ArrayLike, ridge: float = RIDGE) -> float:
    """‖A_X - A_Y‖_F of the ridge operators A = Xc (XcᵀXc + n λ I)^-1 Xcᵀ [n, n], λ over the mean variance of a column."""
    operators = []
    for side in map(without_mean, (x, y)):
        penalty = ridge * np.sum(side**2) / side.shape[1]
        if penalty == 0:
            return math.nan
        operators.append(side @ np.linalg.solve(side.T @ side + penalty * np.eye(side.shape[1]), side.T))
    return float(np.linalg.norm(operators[0] - operators[1]))


# --- matchings ----------------------------------------------------------------------------------------------------------


def angular_cka(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Angle of the centred Gram matrices, from their chord: 2 arcsin(d / 2)."""
    grams = [side @ side.T for side in (oracles.centred(x), oracles.centred(y))]
    if not all(gram.any() for gram in grams):
        return math.nan
    first, second = (gram / np.linalg.norm(gram) for gram in grams)
    return 2 * math.asin(float(np.linalg.norm(first - second)) / 2)


def angular_permutation(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Angle of X P and Y, both centred and of unit norm, from their least chord over permutations P."""
    xc, yc = without_mean(x), without_mean(y)
    if not xc.any() or not yc.any():
        return math.nan
    return 2 * math.asin(permutation_procrustes(xc / np.linalg.norm(xc), yc / np.linalg.norm(yc)) / 2)


def permutation_procrustes(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """min ‖X P - Y‖_F over permutations P of columns, padded with zero columns; every P for narrow matrices."""
    x, y = padded(oracles.widened(x), oracles.widened(y))
    width = x.shape[1]
    if width <= 6:
        return min(float(np.linalg.norm(x[:, order] - y)) for order in map(list, itertools.permutations(range(width))))
    cost = np.array([[np.sum((u - v) ** 2) for u in x.T] for v in y.T])
    _, order = scipy.optimize.linear_sum_assignment(cost)
    return float(np.linalg.norm(x[:, order] - y))


def correlation_table(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Correlations of all columns that vary, one pair at a time."""
    sides = [[column / np.linalg.norm(column) for column in without_mean(side).T if column.any()] for side in (x, y)]
    return np.array([[float(u @ v) for v in sides[1]] for u in sides[0]]).reshape(len(sides[0]), len(sides[1]))


def hard_match(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean over the min(p, q) pairs of the best one-to-one assignment, by linear programming."""
    table = correlation_table(x, y)
    if not table.size:
        return math.nan
    p, q = table.shape
    taken = np.vstack([np.kron(np.eye(p), np.ones(q)), np.kron(np.ones(p), np.eye(q))])
    best = scipy.optimize.linprog(
        -table.ravel(), A_ub=taken, b_ub=np.ones(p + q), A_eq=np.ones((1, p * q)), b_eq=[min(p, q)], method="highs-ds"
    )
    return float(table.ravel() @ np.round(best.x)) / min(p, q)


def soft_match(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean of the means of the row-wise and of the column-wise maxima."""
    table = correlation_table(x, y).tolist()
    if not table or not table[0]:
        return math.nan
    best_of_x, best_of_y = [max(row) for row in table], [max(column) for column in zip(*table, strict=True)]
    return (math.fsum(best_of_x) / len(best_of_x) + math.fsum(best_of_y) / len(best_of_y)) / 2


def least_transport(cost: Array) -> float:
    """min Σ P C over plans with rows of mass 1 / p and columns of mass 1 / q, by linear programming."""
    p, q = cost.shape
    masses = np.vstack([np.kron(np.eye(p), np.ones(q)), np.kron(np.ones(p), np.eye(q))])
    best = scipy.optimize.linprog(
        cost.ravel() / (np.abs(cost).max() or 1.0), A_eq=masses, b_eq=[q] * p + [p] * q, method="highs-ds"
    )
    return float(np.round(best.x) @ cost.ravel()) / (p * q)


def soft_matching_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Root of the least mean squared distance of centred columns, each from the difference."""
    columns = [without_mean(side).T for side in (x, y)]
    return math.sqrt(least_transport(np.array([[np.sum((u - v) ** 2) for v in columns[1]] for u in columns[0]])))


def soft_matching_correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The greatest mean correlation of columns that vary."""
    table = correlation_table(x, y)
    return -least_transport(-table) if table.size else math.nan


# --- canonical correlations ---------------------------------------------------------------------------------------------


def cca_yanai(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean of ρ² over the min(rank) canonical correlations, tr(H_X H_Y) / min(rank)."""
    hats = oracles.hat(x), oracles.hat(y)
    smaller = min(map(oracles.rank, hats))
    return float(np.sum(hats[0] * hats[1])) / smaller if smaller else math.nan


def pwcca_google(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The weights of github.com/google/svcca on centred columns, by Gram-Schmidt on Xc uᵢ in the order of falling ρᵢ.

    The min(rank X, rank Y) leading directions count. Defined only where their ρᵢ differ.
    """
    sides = [oracles.centred(x), oracles.centred(y)]
    if sides[1].shape[1] < sides[0].shape[1]:
        sides.reverse()
    if not sides[0].any() or not sides[1].any():
        return math.nan
    root_x, root_y = (inverse_root(side) for side in sides)
    left, rho, _ = np.linalg.svd(root_x @ sides[0].T @ sides[1] @ root_y)
    rank = min(oracles.rank(oracles.hat(side)) for side in sides)
    done: list[Array] = []
    weighted, total = 0.0, 0.0
    for i in range(rank):
        direction = sides[0] @ left[:, i]
        for _ in range(2):
            direction = direction - sum((h * (h @ direction) for h in done), np.zeros(len(direction)))
        done.append(direction / np.linalg.norm(direction))
        alpha = math.fsum(abs(float(done[-1] @ column)) for column in sides[0].T)
        weighted += alpha * min(float(rho[i]), 1.0)
        total += alpha
    return weighted / total


def inverse_root(xc: Array) -> Array:
    """(XcᵀXc)^-½ on the directions that X has, by way of the singular vectors of Xc."""
    _, sigma, right = np.linalg.svd(xc, full_matrices=False)
    kept = sigma > oracles.RANK_TOL * sigma[0]
    root: Array = (right[kept].T / sigma[kept]) @ right[kept]
    return root


# --- statistics ---------------------------------------------------------------------------------------------------------


def centroid(x: npt.ArrayLike) -> list[float]:
    """Mean row, each column summed without rounding."""
    rows = oracles.widened(x)
    return [math.fsum(column) / len(rows) for column in rows.T.tolist()]


def magnitude_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """|‖x̄‖ - ‖ȳ‖|."""
    return abs(math.hypot(*centroid(x)) - math.hypot(*centroid(y)))


def concentricity(x: npt.ArrayLike) -> float:
    """Mean cosine of rows to their centroid, less 1, in extended precision; NaN where one of them is zero."""
    rows = oracles.widened(x).astype(np.longdouble)
    mean = rows.mean(axis=0)
    lengths, length = np.sqrt((rows**2).sum(axis=1)), np.sqrt((mean**2).sum())
    if not lengths.all() or length <= 1e-12 * lengths.max():
        return math.nan
    return float((rows @ mean / lengths / length - 1).mean())


def concentricity_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Difference of both sides' concentricity."""
    return abs(concentricity(x) - concentricity(y))


def uniformity(x: npt.ArrayLike) -> float:
    """log mean exp(-2‖u_r - u_s‖²) over pairs r < s of unit rows; the exponentials less 1, which log1p gives back."""
    rows = oracles.widened(x).tolist()
    lengths = [math.hypot(*row) for row in rows]
    if 0.0 in lengths or len(rows) < 2:
        return math.nan
    unit = [[value / length for value in row] for row, length in zip(rows, lengths, strict=True)]
    terms = [math.expm1(-2 * math.dist(u, v) ** 2) for u, v in itertools.combinations(unit, 2)]
    return math.log1p(math.fsum(terms) / len(terms))


def uniformity_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Difference of both sides' uniformity."""
    return abs(uniformity(x) - uniformity(y))


def variances(x: npt.ArrayLike) -> list[float]:
    """Squared singular values of the centred rows, largest first, up to a factor."""
    sigma = np.linalg.svd(oracles.centred(x), compute_uv=False)
    return [float(s) ** 2 for s in sigma]


def eigenspectrum_decay(x: npt.ArrayLike, rank_tol: float = oracles.RANK_TOL) -> float:
    """Weighted regression of log λ_i on log i by the normal equations, sums without rounding."""
    found = variances(x)
    points = [(math.log(i), math.log(v), 1 / i) for i, v in enumerate(found, 1) if v > rank_tol**2 * found[0]]
    if len(points) < 2:
        return math.nan
    w, wx, wy, wxx, wxy = (
        math.fsum(term) for term in zip(*((w, w * x, w * y, w * x * x, w * x * y) for x, y, w in points), strict=True)
    )
    return -(w * wxy - wx * wy) / (w * wxx - wx * wx)


def eigenspectrum_decay_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Difference of both sides' exponents."""
    return abs(eigenspectrum_decay(x) - eigenspectrum_decay(y))


def participation_ratio(x: npt.ArrayLike) -> float:
    """tr(C)² / tr(C²) of the covariance C, without its eigenvalues."""
    xc = oracles.centred(x)
    covariance = xc.T @ xc
    squares = float(np.sum(covariance**2))
    return float(np.trace(covariance)) ** 2 / squares if squares else math.nan


def participation_ratio_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Difference of both sides' participation ratios."""
    return abs(participation_ratio(x) - participation_ratio(y))


def mmd(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Gretton et al. 2012, Eq. 3, with k - 1 for k, whose ones cancel; σ is the median distance in both samples."""
    rows = [oracles.widened(side).tolist() for side in (x, y)]
    n = len(rows[0])
    sigma = statistics.median([math.dist(u, v) for u, v in itertools.combinations([*rows[0], *rows[1]], 2)])
    if n < 2 or sigma == 0:
        return math.nan

    def kernel(u: list[float], v: list[float]) -> float:
        return math.expm1(-((math.dist(u, v) / sigma) ** 2) / 2)

    within = [math.fsum(kernel(u, v) for u, v in itertools.permutations(side, 2)) / (n * (n - 1)) for side in rows]
    return math.fsum([*within, -2 * math.fsum(kernel(u, v) for u in rows[0] for v in rows[1]) / n**2])


def bures_covariance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """min ‖R_X - Q R_Y‖_F over orthogonal Q of roots with Σ = RᵀR, the covariance of neurons; the rows are roots."""
    if len(oracles.widened(x)) < 2:
        return math.nan
    roots = [without_mean(side) / math.sqrt(len(side) - 1) for side in map(oracles.widened, (x, y))]
    moved, target = turned(roots[0].T, roots[1].T)
    return float(np.linalg.norm(moved - target))


def frechet_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Squared distance of the means plus that of the covariances."""
    return math.dist(centroid(x), centroid(y)) ** 2 + bures_covariance(x, y) ** 2


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "cca_yanai": cca_yanai,
    "pwcca_google": pwcca_google,
    "procrustes": procrustes,
    "angular_shape": angular_shape,
    "procrustes_size_shape": procrustes_size_shape,
    "nbs": nbs,
    "bures_distance": procrustes_size_shape,
    "shape_alpha": shape_alpha,
    "angular_cka": angular_cka,
    "angular_permutation": angular_permutation,
    "permutation_procrustes": permutation_procrustes,
    "aligned_cosine": aligned_cosine,
    "linear_regression": linear_regression,
    "linear_regression_symmetric": linear_regression_symmetric,
    "hard_match": hard_match,
    "soft_match": soft_match,
    "soft_matching_distance": soft_matching_distance,
    "soft_matching_correlation": soft_matching_correlation,
    "eigenspace_overlap": eigenspace_overlap,
    "gulp": gulp,
    "cosine": cosine,
    "magnitude_difference": magnitude_difference,
    "concentricity_difference": concentricity_difference,
    "uniformity_difference": uniformity_difference,
    "mmd": mmd,
    "frechet_distance": frechet_distance,
    "bures_covariance": bures_covariance,
    "eigenspectrum_decay_difference": eigenspectrum_decay_difference,
    "participation_ratio_difference": participation_ratio_difference,
}
