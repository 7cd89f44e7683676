"""Encoding scores again, from their formulas: slow, in float64, one fold, neuron and λ after the other.

Nothing here shares code or derivation with `contrasim_cli` but how rows are dealt to folds, which is no formula: hat matrices
are n × n, partial least squares goes through rows and their deflation. X is [n, p], Y is [n, q]. Undefined is NaN.
"""

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from oracles import Array, widened

from contrasim_cli.measures.encoding import Folds, dealt

LAMBDAS = [10 ** (k / 2) for k in range(-12, 13)]
COMPONENTS = 25
RANK_TOL = 1e-6
FIVE = Folds(5, seed=0)

Fit = Callable[[Array, Array, Array], Array]  # training X and Y less their means, rows to predict: their prediction


def centred(x: npt.ArrayLike) -> Array:
    """Rows minus the first and then the mean, over the largest entry."""
    values = widened(x)
    values = values - values[0]
    values = values - values.mean(axis=0)
    largest = np.abs(values).max()
    return values / largest if largest else values


def ridge(x: Array, y: Array, rows: Array) -> Array:
    """Each neuron with its own λ, the largest of those with the least generalised cross-validation error."""
    n, gram = len(x), x @ x.T
    directions = min(n - 1, x.shape[1])
    mean = np.trace(gram) / max(directions, 1) or 1.0
    hats = {g: np.linalg.solve(gram + g * mean * np.eye(n), gram) for g in LAMBDAS}
    duals = {g: np.linalg.solve(gram + g * mean * np.eye(n), y) for g in LAMBDAS}
    found = np.empty((len(rows), y.shape[1]))
    for j in range(y.shape[1]):
        errors = {}
        for g in LAMBDAS:
            spare = n - 1 - np.trace(hats[g])
            residual = y[:, j] - hats[g] @ y[:, j]
            errors[g] = residual @ residual / spare**2 if spare > 0 else 0.0
        least = min(errors.values())
        best = max(g for g in LAMBDAS if errors[g] <= least * (1 + 1e-9))
        found[:, j] = rows @ x.T @ duals[best][:, j]
    return found


def pls(x: Array, y: Array, rows: Array, components: int = COMPONENTS) -> Array:
    """Nonlinear iterative partial least squares: rows less what every component explains of them."""
    smallest, first = RANK_TOL**2 * np.sum(x**2), None
    left_x, left_y, left_rows = x.copy(), y.copy(), rows.copy()
    found = np.zeros((len(rows), y.shape[1]))
    for _ in range(min(components, len(x) - 1, x.shape[1])):
        u, sigma, _ = np.linalg.svd(left_x.T @ left_y)
        first = sigma[0] if first is None else first
        score = left_x @ u[:, 0]
        size = score @ score
        if size <= smallest or sigma[0] <= 1e-10 * first:
            break
        loading, answer = left_x.T @ score / size, left_y.T @ score / size
        new = left_rows @ u[:, 0]
        found += np.outer(new, answer)
        left_rows -= np.outer(new, loading)
        left_x -= np.outer(score, loading)
        left_y -= np.outer(score, answer)
    return found


def predicted(x: npt.ArrayLike, y: npt.ArrayLike, fit: Fit, folds: Folds) -> tuple[list[float], list[float]]:
    """R² and correlation of every neuron of Y that is not constant."""
    x, y = centred(x), centred(y)
    fold = dealt(len(x), folds)
    if fold.max() == 0:
        return [], []
    neurons = [j for j in range(y.shape[1]) if y[:, j].any()]
    errors, spread = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    correlations: dict[int, list[float]] = {j: [] for j in neurons}
    for f in range(fold.max() + 1):
        train, test = fold != f, fold == f
        mean_x, mean_y = x[train].mean(axis=0), y[train].mean(axis=0)
        found = fit(x[train] - mean_x, y[train] - mean_y, x[test] - mean_x)
        wanted = y[test] - mean_y
        for j in neurons:
            errors[j] += math.fsum((wanted[:, j] - found[:, j]) ** 2)
            spread[j] += math.fsum(wanted[:, j] ** 2)
            correlations[j] += correlation(wanted[:, j], found[:, j])
    means = [statistics.fmean(correlations[j]) for j in neurons if correlations[j]]
    return [1 - errors[j] / spread[j] for j in neurons], means


def correlation(wanted: Array, found: Array) -> list[float]:
    """One number, 0 of a constant prediction; none where what is wanted is constant."""
    if np.linalg.norm(wanted - wanted.mean()) <= 1e-12 * np.linalg.norm(wanted):
        return []
    if np.linalg.norm(found - found.mean()) <= 1e-12 * np.linalg.norm(found):
        return [0.0]
    return [float(np.corrcoef(wanted, found)[0, 1])]


def score(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    fit: Fit,
    *,
    folds: Folds = FIVE,
    of: str = "r2",
    over: Callable[[Sequence[float]], float] = statistics.median,
) -> float:
    """One number over the neurons."""
    values = predicted(x, y, fit, folds)[of == "correlation"]
    return over(values) if values else math.nan


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "encoding_ridge": lambda x, y: score(x, y, ridge),
    "decoding_ridge": lambda x, y: score(y, x, ridge),
    "encoding_pls": lambda x, y: score(x, y, pls),
    "decoding_pls": lambda x, y: score(y, x, pls),
}
