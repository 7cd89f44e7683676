"""Encoding scores: how well a regression on one side predicts the neurons of the other, in rows that it was not fitted to.

X [..., n, p] predicts Y [..., n, q] in `encoding_…`, and is predicted by Y in `decoding_…`; higher is more similar. Rows are
dealt to folds by a seed, whole groups of rows where there are groups; each fold is predicted from all others, less their means.
Everything is float64.

The training rows of a fold f have the moments Σ_g≠f X_gᵀY_g, so that a pair of layers costs two products of n rows whatever the
number of folds. Predictors with n < p are replaced by their coordinates in the space that their rows span.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.arrays import Tensor, as_tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.distances import median
from contrasim_cli.measures.protocol import Measure

LAMBDAS = 10.0 ** np.arange(-6, 6.5, 0.5)  # over the mean variance of a direction
EQUAL = 1e-9  # errors closer than this part of the least are the least
VANISHED = 1e-10  # a covariance of this part of the first component's is rounding
WIDE = 64  # narrower matrices are decomposed faster than their leading direction is found alone
STEPS = 60

Groups = tuple[int, ...]


class Layer(NamedTuple):
    """One side, as predictor and as predicted."""

    rows: Tensor  # less a common row, up to a factor [..., n, p]
    coordinates: Tensor  # the same up to a rotation [..., n, k], k = min(n, p)
    factors: Any  # what regressions on it need of the training rows of each fold; None where it has to be made anew


class Spectra(NamedTuple):
    """X_fᵀX_f = V diag(s) Vᵀ of the training rows of every fold, less their mean."""

    values: Tensor  # s [..., folds, k], in ascending order
    vectors: Tensor  # V [..., folds, k, k]


class Grams(NamedTuple):
    """Products of rows within the folds."""

    values: Tensor  # [..., folds, k, k]


@dataclass(frozen=True)
class Training:
    """The training rows of one fold: how many there are, and their moments less their means."""

    n: int
    mean_x: Tensor  # [..., 1, k]
    mean_y: Tensor  # [..., 1, q]
    cross: Tensor  # XᵀY [..., k, q]
    total: Tensor  # Σ_r (y_r - ȳ)² [..., q]


# --- folds --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folds:
    """How rows are dealt."""

    count: int
    seed: int
    groups: Groups | None = None  # the group of every row

    def held_out(self, n: int) -> list[npt.NDArray[np.int64]]:
        """Positions of the rows of every fold, in ascending order; fewer folds where there are fewer rows or groups."""
        return [np.flatnonzero(dealt(n, self) == f) for f in range(int(dealt(n, self).max()) + 1)]


@cache
def dealt(n: int, folds: Folds) -> Any:
    """The fold of each of n rows: groups in a random order, larger ones first, each to the fold with the fewest rows."""
    groups = np.arange(n) if folds.groups is None else np.unique(np.array(folds.groups), return_inverse=True)[1]
    sizes = np.bincount(groups)
    order = seeds.stream(folds.seed, seeds.FOLDS).permutation(len(sizes))
    rows, fold = np.zeros(min(folds.count, len(sizes)), dtype=np.int64), np.empty(len(sizes), dtype=np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold[group] = rows.argmin()
        rows[fold[group]] += sizes[group]
    return fold[groups]


def _others(parts: Sequence[Tensor]) -> list[Tensor]:
    """The sum of all parts but one, for each: not the total less that one, which an outlying row would swallow."""
    nothing = xp.zeros_like(parts[0])
    before = list(itertools.accumulate(parts[:-1], initial=nothing))
    behind = list(itertools.accumulate(parts[:0:-1], initial=nothing))[::-1]
    return [one + other for one, other in zip(before, behind, strict=True)]


# --- one layer ----------------------------------------------------------------------------------------------------------


def prepare(x: Tensor, folds: Folds, factor: Callable[[Tensor], Any]) -> Layer:
    """X [..., n, p] and the factors of its training rows."""
    rows = _near(x)
    narrow = xp.linalg.qr(rows.mT).R.mT if rows.shape[-2] < rows.shape[-1] else rows
    return Layer(rows, narrow, factors_of(narrow, folds, factor))


def _near(x: Tensor) -> Tensor:
    """X less the median of each neuron, over the largest entry: one outlying row does not move the rows of folds without it."""
    rows = x.double()
    rows = rows - median(rows.mT).mT
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    return rows / largest.where(largest > 0, 1.0)


def factors_of(coordinates: Tensor, folds: Folds, factor: Callable[[Tensor], Any]) -> Any:
    """The factors of the training rows of every fold."""
    held = folds.held_out(coordinates.shape[-2])
    return factor(xp.stack([one.cross for one in training(coordinates, coordinates, held)], dim=-3))


def training(x: Tensor, y: Tensor, held: Sequence[npt.NDArray[np.int64]]) -> list[Training]:
    """What is known of the training rows of each fold."""
    parts = [(x[..., rows, :], y[..., rows, :]) for rows in held]
    sums_x, sums_y = (_others([part[side].sum(dim=-2, keepdim=True) for part in parts]) for side in (0, 1))
    products = _others([one.mT @ other for one, other in parts])
    squares = _others([other.square().sum(dim=-2) for _, other in parts])
    found = []
    for f, rows in enumerate(held):
        n = x.shape[-2] - len(rows)
        mean_x, mean_y = sums_x[f] / max(n, 1), sums_y[f] / max(n, 1)
        total = (squares[f] - n * mean_y.squeeze(-2).square()).clamp(min=0.0)
        found.append(Training(n, mean_x, mean_y, products[f] - n * (mean_x.mT @ mean_y), total))
    return found


@cache
def spectra(rank_tol: float) -> Callable[[Tensor], Spectra]:
    """The function that makes them of X_fᵀX_f [..., folds, k, k]; directions with √s ≤ rank_tol · √s_max are zeroed."""

    def made(gram: Tensor) -> Spectra:
        values, vectors = xp.linalg.eigh(gram)
        kept = values > rank_tol**2 * values[..., -1:]
        return Spectra(values * kept, vectors * kept.unsqueeze(-2))

    return made


# --- regressions: weights B [..., k, q] with y ≈ ȳ + (x - x̄) B -------------------------------------------------------------


def ridge(factors: Spectra, fold: int, given: Training) -> Tensor:
    """B = (XᵀX + λI)⁻¹ XᵀY, with λ of every neuron by generalised cross-validation (Golub, Heath & Wahba 1979).

    λ is the largest of LAMBDAS · (mean variance of a direction) with the least ‖y - ŷ‖² / (n - 1 - tr H)² in the training rows.
    """
    values, vectors = factors.values[..., fold, :], factors.vectors[..., fold, :, :]
    kept = values > 0
    spare = given.n - 1 - kept.sum(dim=-1, keepdim=True)  # degrees of freedom that no direction of X takes
    mean = values.sum(dim=-1, keepdim=True) / max(min(given.n - 1, values.shape[-1]), 1)
    grid = as_tensor(LAMBDAS, values.device) * mean.where(mean > 0, 1.0)  # [..., λ]
    left = (grid.unsqueeze(-1) / (values.unsqueeze(-2) + grid.unsqueeze(-1))) * kept.unsqueeze(-2)  # [..., λ, k]
    share = vectors.mT @ given.cross
    along = share.square() / values.where(kept, xp.inf).unsqueeze(-1)
    # ‖y - ŷ‖² = ‖y‖² - Σ_i c_i² / s_i + Σ_i (λ / (s_i + λ))² c_i² / s_i; the first part is 0 where directions take all freedom
    across = (given.total - along.sum(dim=-2)).clamp(min=0.0) * (spare > 0)
    errors = across.unsqueeze(-2) + left.square() @ along
    freedom = spare + left.sum(dim=-1)
    errors = errors / freedom.where(freedom > 0, 1.0).square().unsqueeze(-1)  # [..., λ, q]
    least = errors <= (1 + EQUAL) * errors.amin(dim=-2, keepdim=True)
    place = xp.arange(len(LAMBDAS), device=values.device).unsqueeze(-1)
    chosen = (least * place).amax(dim=-2)  # [..., q]
    penalty = grid.expand(*chosen.shape[:-1], len(LAMBDAS)).gather(-1, chosen)
    return vectors @ (share / (values.unsqueeze(-1) + penalty.unsqueeze(-2)))


def pls(factors: Grams, fold: int, given: Training, components: int, rank_tol: float) -> Tensor:
    """B of partial least squares of all neurons together, by moments alone (Dayal & MacGregor 1997, algorithm 2).

    The weights of a component are the first left singular vector of what is left of XᵀY. Components end where X has no more
    directions, up to rank_tol, or no more covariance with Y.
    """
    gram, cross = factors.values[..., fold, :, :], given.cross
    lead = np.broadcast_shapes(gram.shape[:-2], cross.shape[:-2])
    smallest = rank_tol**2 * gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    weights, cross = cross.new_zeros(*lead, *cross.shape[-2:]), cross.expand(*lead, *cross.shape[-2:])
    loadings: list[tuple[Tensor, Tensor]] = []
    going, first = xp.ones(lead, dtype=xp.bool, device=cross.device), None
    for _ in range(min(components, gram.shape[-1], given.n - 1)):
        direction, size = leading(cross)
        first = size if first is None else first
        for loading, before in loadings:
            direction = direction - (loading.mT @ direction) * before
        along = gram @ direction
        variance = (direction.mT @ along).squeeze(-1).squeeze(-1)
        going = going & (variance > smallest) & (size > VANISHED * first)
        if not going.any():
            break
        divisor = variance.where(going, xp.inf)[..., None, None]
        loading, answer = along / divisor, (cross.mT @ direction) / divisor
        loadings.append((loading, direction))
        weights = weights + direction @ answer.mT
        cross = cross - along @ answer.mT
    return weights


def leading(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The first left singular vector [..., p, 1] and singular value [...] of M [..., p, q]; zeros of a zero matrix."""
    largest = matrix.abs().amax(dim=(-2, -1), keepdim=True)
    share = matrix / largest.where(largest > 0, 1.0)
    tall = share.shape[-2] > share.shape[-1]
    narrow = share.mT if tall else share  # [..., m, ·] of which the m × m product is made
    found = _by_krylov(narrow) if narrow.ndim == 2 and len(narrow) > WIDE else None
    if found is None:
        found = xp.linalg.eigh(narrow @ narrow.mT).eigenvectors[..., -1:]
    vector = share @ found if tall else found
    length = xp.linalg.vector_norm(vector, dim=-2, keepdim=True)
    vector = vector / length.where(length > 0, 1.0)
    size = xp.linalg.vector_norm(share.mT @ vector, dim=-2, keepdim=True) * largest
    return vector * (largest > 0), size.squeeze(-1).squeeze(-1)


def _by_krylov(narrow: Tensor) -> Tensor | None:
    """The first left singular vector [m, 1] of a matrix [m, ·] by Lanczos' method; None where that does not converge."""
    start = narrow[:, narrow.square().sum(dim=0).argmax()]
    basis, diagonal, beside = [start / xp.linalg.vector_norm(start)], [], []
    for _ in range(min(STEPS, len(narrow))):
        image = narrow @ (narrow.mT @ basis[-1])
        diagonal.append(image @ basis[-1])
        held = xp.stack(basis)
        for _ in range(2):  # once more: rounding leaves a part of what was taken out
            image = image - held.mT @ (held @ image)
        beside.append(xp.linalg.vector_norm(image))
        matrix = xp.diag(xp.stack(diagonal))
        if len(diagonal) > 1:
            off = xp.stack(beside[:-1])
            matrix = matrix + xp.diag(off, 1) + xp.diag(off, -1)
        values, vectors = xp.linalg.eigh(matrix)
        if beside[-1] * vectors[-1, -1].abs() <= 1e-13 * values[-1]:
            found: Tensor = held.mT @ vectors[:, -1:]
            return found
        basis.append(image / beside[-1])
    return None


# --- scores -------------------------------------------------------------------------------------------------------------


class Predicted(NamedTuple):
    """The scores of every neuron of the predicted side; NaN for those that are constant."""

    r2: Tensor  # [..., q]
    correlation: Tensor  # [..., q]


Weights = Callable[[Any, int, Training], Tensor]


@dataclass(frozen=True)
class Regression:
    """How a side is predicted: what is made of the Gram matrices [..., folds, k, k] of training rows, and weights from that."""

    factor: Callable[[Tensor], Any]
    weights: Weights


def predict(x: Layer, y: Layer, folds: Folds, regression: Regression) -> Predicted:
    """R² and correlation of the neurons of Y with what X predicts of them in the rows held out.

    R² is 1 - Σ (y - ŷ)² / Σ (y - ȳ)² over the rows of all folds, with the mean ȳ of each fold's training rows: 0 for a prediction
    no better than the mean, below it for a worse one. The correlation is the mean over folds of the correlation within the fold,
    without those in which the neuron is constant; a constant prediction counts 0.
    """
    held = folds.held_out(y.rows.shape[-2])
    lead = np.broadcast_shapes(x.rows.shape[:-2], y.rows.shape[:-2])
    none = y.rows.new_zeros(*lead, y.rows.shape[-1])
    if len(held) < 2:
        return Predicted(none + xp.nan, none + xp.nan)
    factors = factors_of(x.coordinates, folds, regression.factor) if x.factors is None else x.factors
    errors, spread, correlations, counted = none, none, none, none
    for f, (given, rows) in enumerate(zip(training(x.coordinates, y.rows, held), held, strict=True)):
        wanted = y.rows[..., rows, :] - given.mean_y
        found = (x.coordinates[..., rows, :] - given.mean_x) @ regression.weights(factors, f, given)
        errors = errors + (wanted - found).square().sum(dim=-2)
        spread = spread + wanted.square().sum(dim=-2)
        own, varies = _correlation(wanted, found)
        correlations, counted = correlations + own, counted + varies
    constant = (y.rows == 0).all(dim=-2)
    return Predicted(
        (1 - errors / spread).masked_fill(constant, xp.nan),
        (correlations / counted).masked_fill(constant, xp.nan),
    )


def _correlation(wanted: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation of columns [..., q], 0 where one is constant, and whether the first varies."""
    one, other = (side - side.mean(dim=-2, keepdim=True) for side in (wanted, found))
    sizes = [xp.linalg.vector_norm(side, dim=-2) for side in (one, other)]
    # equal values differ from their mean by rounding
    varies = [
        size > 1e-12 * xp.linalg.vector_norm(side, dim=-2) for size, side in zip(sizes, (wanted, found), strict=True)
    ]
    product = (one * other).sum(dim=-2) / (sizes[0] * sizes[1]).where(varies[0] & varies[1], xp.inf)
    return product.clamp(-1.0, 1.0), varies[0].double()


def over_neurons(values: Tensor, how: str) -> Tensor:
    """Median or mean [...] of values [..., q] that are not NaN; NaN where all are."""
    count = (~values.isnan()).sum(dim=-1, keepdim=True)
    if how == "mean":
        return values.nansum(dim=-1) / count.squeeze(-1)
    ordered = values.sort(dim=-1).values  # NaN last
    last = values.shape[-1] - 1
    middle = [ordered.gather(-1, place.clamp(0, last)) for place in ((count - 1) // 2, count // 2)]
    return ((middle[0] + middle[1]) / 2).squeeze(-1)


@cache
def preparer(folds: Folds, factor: Callable[[Tensor], Any]) -> Callable[[Tensor], Layer]:
    """`prepare` of some folds; the same function for the same ones, so that both directions factor once."""
    return lambda x: prepare(x, folds, factor)


def _measure(of: Callable[[Options], Regression], decoding: bool) -> Callable[[Options], Measure]:
    return lambda options: _of_folds(options, of(options), decoding, Folds(options.folds, options.seed))


def _of_folds(options: Options, regression: Regression, decoding: bool, folds: Folds) -> Measure:
    def compare(a: Layer, b: Layer) -> Tensor:
        found = predict(b, a, folds, regression) if decoding else predict(a, b, folds, regression)
        values = found.r2 if options.encoding_score == "r2" else found.correlation
        return over_neurons(values, options.neurons)

    def grouped(groups: Groups) -> Measure:
        return _of_folds(options, regression, decoding, replace(folds, groups=groups))

    return Measure(preparer(folds, regression.factor), compare, grouped=grouped, grams=3 * options.folds)


def _ridge(options: Options) -> Regression:
    return Regression(spectra(options.rank_tol), ridge)


def _pls(options: Options) -> Regression:
    return Regression(
        Grams, lambda factors, fold, given: pls(factors, fold, given, options.components, options.rank_tol)
    )


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "encoding_ridge": _measure(_ridge, decoding=False),
    "decoding_ridge": _measure(_ridge, decoding=True),
    "encoding_pls": _measure(_pls, decoding=False),
    "decoding_pls": _measure(_pls, decoding=True),
}
