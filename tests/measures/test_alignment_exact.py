"""Alignment, subspaces, statistics and the newer canonical correlations against their oracles, on nasty input."""

import builtins
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracles_alignment as oracles
import pytest
import scipy.linalg
from libraries import assert_close, tensor
from nasty import PAIRS, AnyArray, cases, low_rank, related
from oracles import Array

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.errors import MissingError
from contrasim_cli.measures import MEASURES, Options, alignment, cca, distributions, spectrum, transport
from contrasim_cli.measures.load import load, similarity
from contrasim_cli.measures.protocol import Moments, centred

NAMES = list(oracles.MEASURES)
ANY_WIDTHS = [name for name in NAMES if not MEASURES[name].needs_equal_widths]
STREAMED = [name for name in NAMES if load(name).moments is not None]


CELLS = [(name, case) for name in NAMES for case in PAIRS if name in ANY_WIDTHS or case in cases()]

# What has no value, by case; everything else has one.
CONSTANT = {"all-equal rows", "all-equal rows on both sides"}
ZERO = {"a zero row"}
ONE_DIRECTION = {"one column", "one column against many", "two rows", "two rows, one column"}
UNDEFINED = {
    **dict.fromkeys(
        ["cca_yanai", "pwcca_google", "procrustes", "angular_shape", "gulp", "nbs", "shape_alpha"], CONSTANT
    ),
    **dict.fromkeys(["linear_regression", "linear_regression_symmetric", "hard_match", "soft_match"], CONSTANT),
    **dict.fromkeys(["soft_matching_correlation", "angular_cka", "angular_permutation"], CONSTANT),
    **dict.fromkeys(["aligned_cosine", "cosine"], ZERO),
    **dict.fromkeys(["concentricity_difference", "uniformity_difference"], ZERO),
    "participation_ratio_difference": CONSTANT,
    "eigenspectrum_decay_difference": CONSTANT | ONE_DIRECTION,
}


def expected(name: str, x: AnyArray, y: AnyArray) -> Any:
    """The oracle's value, at the tolerance of the input's type."""
    tolerance = 1e-4 if np.float16 in (x.dtype, y.dtype) else 1e-6
    return pytest.approx(oracles.MEASURES[name](x, y), rel=tolerance, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("name", "case"), CELLS)
def test_score_equals_the_oracle(name: str, case: str) -> None:
    x, y = PAIRS[case]
    assert similarity(name, x, y) == expected(name, x, y)
    assert similarity(name, y, x) == expected(name, y, x)


@pytest.mark.parametrize(("name", "case"), CELLS)
def test_score_is_undefined_only_where_it_is_said(name: str, case: str) -> None:
    x, y = PAIRS[case]
    # the R² of a constant X is undefined, but from a constant Y it is 0
    undefined = case in UNDEFINED.get(name, set())
    assert math.isnan(similarity(name, x, y)) == undefined
    if name == "linear_regression" and case == "all-equal rows":
        assert similarity(name, y, x) == 0


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, case in CELLS if name in STREAMED])
def test_moments_give_the_same(name: str, case: str) -> None:
    """Means, scatters and cross moments alone, to 1e-6 of the oracle too."""
    x, y = PAIRS[case]
    assert through_moments(name, x, y) == expected(name, x, y)


def through_moments(name: str, x: AnyArray, y: AnyArray) -> float:
    form = load(name).moments
    assert form is not None
    sides = [tensor(side.astype(np.float64)) for side in (x, y)]
    rows = [centred(side) for side in sides]
    scatters = [side.mT @ side if form.scatter else None for side in rows]
    moments = zip(rows, sides, scatters, strict=True)
    own = [form.own(Moments(len(r), s.mean(dim=0), r.square().sum(dim=0), scatter)) for r, s, scatter in moments]
    score = float(form.score(own[0], own[1], rows[0].mT @ rows[1]))
    return score if math.isfinite(score) else math.nan


def test_what_can_be_streamed() -> None:
    assert set(NAMES) - set(STREAMED) == {
        *("angular_cka", "cca_yanai", "pwcca_google", "aligned_cosine", "cosine", "shape_alpha"),
        *("magnitude_difference", "concentricity_difference", "uniformity_difference"),
        *("eigenspectrum_decay_difference", "participation_ratio_difference"),
        *("mmd", "frechet_distance", "bures_covariance"),
    }


def batch(n: int, p: int) -> tuple[Tensor, Tensor]:
    """X and Y [5, n, p] of mixed ranks and scales, constant members included."""
    pairs = [related(n, p, p, seed) for seed in range(5)]
    x, y = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    x[1] = low_rank(n, p, p)[0]
    x[2] *= 1e3
    y[3] = 0.1
    x[4, :, 0] = 1 / 3
    return tensor(x), tensor(y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "p"), [(20, 4), (5, 8)])
def test_batches_give_what_single_pairs_give(name: str, n: int, p: int) -> None:
    """[batches, 1, n, p] against [batches, candidates, n, p], as the retrieval benchmarks compare."""
    measure = load(name)
    x, y = batch(n, p)
    grid = measure.compare(measure.prepare(x[:, None]), measure.prepare(y[None]))
    assert grid.shape == (5, 5)
    assert grid.dtype == xp.float64
    alone = [[similarity(name, a, b) for b in y] for a in x]
    np.testing.assert_allclose(grid.numpy(), alone, rtol=1e-8, atol=1e-12)
    together = measure.compare(measure.prepare(x), measure.prepare(y))
    np.testing.assert_allclose(together.numpy(), np.diagonal(alone), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_raises_nothing(name: str) -> None:
    x, y = np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]])
    assert similarity(name, x, y) == pytest.approx(oracles.MEASURES[name](x, y), nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_numbers_raise_nothing(name: str) -> None:
    """Squares of 1e200 are not finite: some measures have no value there, but none fails."""
    x, y = related(8, 3, 3)
    scores = [similarity(name, a, b) for a, b in ((x * 1e200, y), (x * 1e-200, y), (x * 1e200, y * 1e-200))]
    assert not np.isinf(scores).any()


# --- cases with a known answer ------------------------------------------------------------------------------------------


def test_two_halves_of_a_plane() -> None:
    """Orthogonal unit columns: X and Y share one of two directions."""
    raw = np.random.default_rng(0).normal(size=(12, 4))
    q = np.linalg.qr(raw - raw.mean(axis=0))[0]
    x, y = q[:, :2], q[:, 1:3]
    assert similarity("procrustes", x, y) == pytest.approx(math.sqrt(2 - 2 * 0.5))
    assert similarity("angular_shape", x, y) == pytest.approx(math.pi / 3)
    assert similarity("procrustes_size_shape", x, y) == pytest.approx(math.sqrt(2))
    assert similarity("linear_regression", x, y) == pytest.approx(0.5)
    assert similarity("eigenspace_overlap", x, y) == pytest.approx(0.5)
    assert similarity("eigenspace_overlap", x, q[:, 1:4]) == pytest.approx(1 / 3)
    assert similarity("cca_yanai", x, y) == pytest.approx(0.5)
    assert similarity("hard_match", x, y) == pytest.approx(0.5)
    assert similarity("permutation_procrustes", x, y) == pytest.approx(math.sqrt(2))
    # four shrinkage factors of 1 / (1 + λ), and one shared direction
    assert similarity("gulp", x, y) == pytest.approx(math.sqrt(2) / 1.1)


@pytest.mark.parametrize("noise", [1e-9, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize("lowest", [1.0, 1e-3, 1e-9])
def test_short_cut_through_squares_loses_nothing(noise: float, lowest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near and far sides, flat and steep spectra; the short cut is taken for some and left for others."""
    monkeypatch.setattr(alignment, "WIDE", 1)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 6)) * np.geomspace(1, lowest, 6)
    y = x + noise * rng.normal(size=(30, 6))
    for name in ("procrustes", "angular_shape", "procrustes_size_shape"):
        assert similarity(name, x, y) == pytest.approx(oracles.MEASURES[name](x, y), rel=1e-6, abs=1e-7)


def test_when_squares_are_safe() -> None:
    flat = tensor(np.diag([0.2, 0.1, 0.1]))
    assert alignment._nuclear_by_squares(flat) == pytest.approx(0.4)
    assert alignment._nuclear_by_squares(2.495 * flat) is None
    assert alignment._nuclear_by_squares(flat @ xp.diag(tensor([1, 1, 1e-9]))) is None


def test_bures_distance_is_that_of_gram_matrices() -> None:
    """And not of the matrices of neurons, which are compared as they are only where columns correspond."""
    x, y = related(20, 5, 4)
    k, m = (side @ side.T for side in map(oracles.without_mean, (x, y)))
    wanted = math.sqrt(np.trace(k) + np.trace(m) - 2 * oracles.fidelity(k, m))
    assert similarity("bures_distance", x, y) == pytest.approx(wanted, rel=1e-9)
    assert similarity("nbs", x, y) == pytest.approx(math.cos(similarity("angular_shape", x, y)), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("case", ["generic", "rank-deficient", "n < width", "unequal widths", "scales 1e+6 and 1e-6"])
def test_shape_alpha_at_other_alphas(alpha: float, case: str) -> None:
    x, y = PAIRS[case]
    expected = pytest.approx(oracles.shape_alpha(x, y, alpha), rel=1e-6, abs=1e-7)
    assert similarity("shape_alpha", x, y, Options(shape_alpha=alpha)) == expected


def test_shape_alpha_goes_from_canonical_correlations_to_procrustes() -> None:
    x, y = related(40, 4, 4)
    one, none = (similarity("shape_alpha", x, y, Options(shape_alpha=alpha)) for alpha in (1.0, 0.0))
    assert one == pytest.approx(similarity("angular_shape", x, y), rel=1e-9)
    assert none == pytest.approx(math.acos(similarity("cca", x, y)), rel=1e-9)
    linear = np.diag([1.0, 5.0, 0.1, 3.0]) @ np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    assert similarity("shape_alpha", x @ linear, y, Options(shape_alpha=0.0)) == pytest.approx(none, rel=1e-9)
    assert similarity("shape_alpha", x @ linear, y) != pytest.approx(similarity("shape_alpha", x, y), rel=1e-3)


def test_shape_alpha_mixes_as_netrep_does_with_sides_of_unit_mean_variance() -> None:
    """Z = V (α + (1 - α) λ^-½) Vᵀ with the eigenvalues λ of XᵀX, which the scaling makes 1 in the mean."""
    moved = []
    for side in map(oracles.without_mean, related(40, 4, 4)):
        x = side / math.sqrt(np.linalg.eigvalsh(side.T @ side).mean())
        values, vectors = np.linalg.eigh(x.T @ x)
        moved.append(x @ (vectors * (0.3 + 0.7 * values**-0.5)) @ vectors.T)
    overlap = np.linalg.svd(moved[0].T @ moved[1], compute_uv=False).sum()
    wanted = math.acos(overlap / np.linalg.norm(moved[0]) / np.linalg.norm(moved[1]))
    assert similarity("shape_alpha", *related(40, 4, 4), Options(shape_alpha=0.3)) == pytest.approx(wanted, rel=1e-9)


def test_gulp_without_ridge_is_a_distance_of_projections() -> None:
    x, y = related(20, 3, 4)
    rho = 3 * similarity("cca_yanai", x, y)
    assert similarity("gulp", x, y, Options(ridge=0.0)) == pytest.approx(math.sqrt(3 + 4 - 2 * rho))


def test_gulp_is_the_root_of_what_the_papers_code_gives() -> None:
    """Sides of a total variance of 1, and λ = ridge / width."""
    x, y = related(40, 5, 5)
    sides = [oracles.without_mean(side) for side in (x, y)]
    first, second = (side / np.linalg.norm(side) for side in sides)
    inverse = [np.linalg.inv(side.T @ side + 0.1 / 5 * np.eye(5)) for side in (first, second)]
    own = [np.trace(np.linalg.matrix_power(i @ s.T @ s, 2)) for i, s in zip(inverse, (first, second), strict=True)]
    cross = first.T @ second
    wanted = sum(own) - 2 * np.trace(inverse[0] @ cross @ inverse[1] @ cross.T)
    assert similarity("gulp", x, y) ** 2 == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 10.0])
def test_gulp_at_other_ridges(ridge: float) -> None:
    x, y = related(20, 5, 4)
    assert similarity("gulp", x, y, Options(ridge=ridge)) == pytest.approx(oracles.gulp(x, y, ridge), rel=1e-6)


def test_matches_keep_the_sign_and_leave_constants_out() -> None:
    x = related(20, 3, 3)[0]
    with_constant = np.insert(x, 1, 7.0, axis=1)
    assert similarity("hard_match", with_constant, x[:, [2, 0, 1]]) == pytest.approx(1)
    assert similarity("soft_match", with_constant, x[:, [2, 0, 1]]) == pytest.approx(1)
    assert similarity("hard_match", x[:, :1], -x[:, :1]) == pytest.approx(-1)
    assert similarity("soft_match", x[:, :1], -x[:, :1]) == pytest.approx(-1)


def test_soft_matching_is_a_metric_that_duplicated_columns_do_not_change() -> None:
    """Two copies of each column share its mass; another number of copies of one column does not."""
    x, y = related(20, 3, 4)
    z = related(20, 5, 5, seed=1)[0]
    assert similarity("soft_matching_distance", x, np.repeat(x, 2, axis=1)) == pytest.approx(0, abs=1e-9)
    assert similarity("soft_matching_distance", x, np.hstack([x, x[:, :1]])) > 0.01
    xy, yz, xz = (similarity("soft_matching_distance", *pair) for pair in ((x, y), (y, z), (x, z)))
    assert xz <= xy + yz
    assert similarity("soft_matching_correlation", x, np.repeat(x, 4, axis=1)[:, ::-1]) == pytest.approx(1)


def test_soft_matching_of_equal_widths_is_a_permutation() -> None:
    x, y = related(20, 4, 4)
    assert similarity("soft_matching_correlation", x, y) == pytest.approx(similarity("hard_match", x, y), rel=1e-12)
    centred_pair = [oracles.without_mean(side) for side in (x, y)]
    assert 2 * similarity("soft_matching_distance", x, y) == pytest.approx(
        similarity("permutation_procrustes", *centred_pair), rel=1e-9
    )
    x, y = related(20, 4, 6)
    assert similarity("soft_matching_correlation", x, y) < similarity("hard_match", x, y)


@pytest.mark.parametrize(("p", "q"), [(3, 7), (6, 4), (5, 5), (1, 4)])
def test_the_linear_programme_finds_what_the_assignment_finds(p: int, q: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = np.random.default_rng(p * q).normal(size=(p, q)) * 1e3
    assigned = transport.transport(cost)
    assert assigned == pytest.approx(oracles.least_transport(cost), rel=1e-9)
    assert assigned < cost.mean() or 1 in (p, q)
    monkeypatch.setattr(transport, "LARGEST", 0)
    assert transport.transport(cost) == pytest.approx(assigned, rel=1e-9)


def test_aligned_cosine_leaves_unmatched_directions_out() -> None:
    """XᵀY = 0: no orthogonal map is better than another, and none is pretended."""
    x, y = np.array([[1.0, 0], [1, 0]]), np.array([[1.0, 0], [-1, 0]])
    assert similarity("aligned_cosine", x, y) == 0


def test_statistics_by_hand() -> None:
    x, y = np.array([[3.0, 4.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert similarity("magnitude_difference", x, y) == pytest.approx(5 - math.sqrt(0.5))
    assert similarity("concentricity_difference", x, y) == pytest.approx(1 - math.sqrt(0.5))
    assert similarity("uniformity_difference", x, y) == pytest.approx(4)


def test_a_centred_side_has_no_centroid_to_point_to() -> None:
    x, y = related(20, 3, 3)
    assert math.isnan(similarity("concentricity_difference", x - x.mean(axis=0), y))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_the_decay_of_a_power_law_is_its_exponent(alpha: float) -> None:
    """λ_i = i^-α along orthonormal columns; and a flat spectrum has none, and as many dimensions as columns."""
    raw = np.random.default_rng(0).normal(size=(40, 12))
    flat = np.linalg.qr(raw - raw.mean(axis=0))[0]
    x = flat * np.arange(1, 13) ** (-alpha / 2)
    assert similarity("eigenspectrum_decay_difference", x, flat) == pytest.approx(alpha, rel=1e-9)
    assert similarity("eigenspectrum_decay_difference", 7 * x + 3, x[:, ::-1]) == pytest.approx(0, abs=1e-9)
    assert similarity("participation_ratio_difference", flat, flat[:, :5]) == pytest.approx(7, rel=1e-9)
    assert similarity("participation_ratio_difference", x, flat) > 0.5


def test_rank_tol_decides_which_directions_the_decay_is_fitted_to() -> None:
    raw = np.random.default_rng(0).normal(size=(40, 4))
    flat = np.linalg.qr(raw - raw.mean(axis=0))[0]
    x = flat * [1, 0.5, 0.25, 1e-4]
    kept = Options(rank_tol=1e-3)
    assert similarity("eigenspectrum_decay_difference", x, flat, kept) == pytest.approx(
        oracles.eigenspectrum_decay(x[:, :3]), rel=1e-9
    )
    assert similarity("eigenspectrum_decay_difference", x, flat) == pytest.approx(
        oracles.eigenspectrum_decay(x), rel=1e-9
    )


@pytest.mark.parametrize("shape", [(40, 7), (300, 3), (9, 30)])
@pytest.mark.parametrize("block", [1, 5, 400])
def test_spectra_of_blocks_equal_those_of_whole_layers(shape: tuple[int, int], block: int) -> None:
    """A condition of 1e10, which a covariance would lose."""
    rng = np.random.default_rng(3)
    x = tensor(rng.normal(size=shape) * np.geomspace(1, 1e-10, shape[1]))
    found = spectrum.triangular(x[start : start + block] for start in range(0, len(x), block))
    assert len(found) <= max(2 * shape[1], min(block, shape[0]))
    assert_close(alignment.singular_values(found), alignment.singular_values(x), rtol=1e-4, atol=1e-14)


def test_distances_of_gaussians_by_hand() -> None:
    """Covariances diag(4, 1) and diag(1, 9), means that are 3 apart; and against FID's formula with SciPy's matrix root."""
    raw = np.random.default_rng(0).normal(size=(40, 2))
    flat = np.linalg.qr(raw - raw.mean(axis=0))[0] * math.sqrt(39)
    x, y = flat * [2, 1], flat[::-1] * [1, 3] + [3, 0]
    assert similarity("bures_covariance", x, y) == pytest.approx(math.sqrt(1 + 4), rel=1e-9)
    assert similarity("frechet_distance", x, y) == pytest.approx(9 + 1 + 4, rel=1e-9)
    x, y = related(30, 4, 4)
    first, second = np.cov(x.T), np.cov(y.T)
    fid = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + np.trace(
        first + second - 2 * scipy.linalg.sqrtm(first @ second).real
    )
    assert similarity("frechet_distance", x, y) == pytest.approx(fid, rel=1e-9)


def test_what_differs_only_beyond_covariances_is_seen_by_mmd_alone() -> None:
    """Half of the rows at each of two points, and most at one, of one mean and variance.

    Of two samples of one distribution the mean MMD is 0.
    """
    x = np.repeat([[-1.0], [1.0]], 25, axis=0)
    y = np.array([[-5.0], [5.0], *[[0.0]] * 48])
    assert similarity("frechet_distance", x, y) == pytest.approx(0, abs=1e-12)
    assert similarity("mmd", x, y) > 0.1
    rng = np.random.default_rng(0)
    same = [similarity("mmd", *rng.normal(size=(2, 25, 3))) for _ in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(40)
    assert min(same) < 0


@pytest.mark.parametrize("n", [2, 7, 60])
def test_mmd_in_tiles(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, 3, n, 4))
    y[0] = x[0][::-1]
    sides = [distributions.prepare(tensor(side)) for side in (x, y)]
    whole = distributions.mmd(*sides)
    monkeypatch.setattr(distributions, "WHOLE", 1)
    monkeypatch.setattr(distributions, "SIDE", 16)
    assert_close(distributions.mmd(*sides), whole, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(40, 7), (9, 30)])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_gaussians_of_blocks_equal_those_of_whole_layers(shape: tuple[int, int], size: int) -> None:
    x, y = (tensor(side) for side in related(shape[0], shape[1], shape[1]))
    whole, other = distributions.fit(x), distributions.fit(y)
    found = distributions.fit_blocks(SomeRows(x, size))
    assert float(distributions.frechet(whole, found)) == pytest.approx(0, abs=1e-12)
    assert_close(distributions.frechet(found, other), distributions.frechet(whole, other))


class SomeRows:
    """Rows of a matrix in blocks."""

    def __init__(self, matrix: Tensor, size: int) -> None:
        self.matrix, self.size, self.n_rows = matrix, size, len(matrix)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.matrix[start:stop]

    def __iter__(self) -> Iterator[Tensor]:
        return (self.rows(start, start + self.size) for start in range(0, len(self.matrix), self.size))


@pytest.mark.parametrize("block", [1, 7, 30])
def test_uniformity_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrasim_cli.measures.statistics.BLOCK", block)
    x, y = PAIRS["generic"]
    assert similarity("uniformity_difference", x, y) == pytest.approx(oracles.uniformity_difference(x, y), rel=1e-9)


def test_google_weights_are_not_those_of_the_paper() -> None:
    """And are those of the narrower side, whichever it is."""
    x, y = PAIRS["unequal widths"]
    assert similarity("pwcca_google", x, y) == similarity("pwcca_google", y, x)
    assert similarity("pwcca_google", y, x) != pytest.approx(similarity("pwcca", y, x), rel=1e-3)


@pytest.mark.parametrize("rank_tol", [1e-10, 1e-3, 0.2])
def test_rank_tol_decides_what_predicts(rank_tol: float) -> None:
    """Directions of Y below the tolerance explain nothing, in both forms."""
    rng = np.random.default_rng(5)
    y = np.linalg.qr(rng.normal(size=(30, 4)) - 0.3)[0]
    y = (y - y.mean(axis=0)) @ np.diag([1, 0.5, 0.05, 1e-4]) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    x = rng.normal(size=(30, 3))
    kept = cca.prepare(tensor(y), rank_tol)
    assert int(kept.rank) == {1e-10: 4, 1e-3: 3, 0.2: 2}[rank_tol]
    basis = kept.left.numpy()
    xc = x - x.mean(axis=0)
    wanted = np.sum((basis.T @ xc) ** 2) / np.sum(xc**2)
    options = Options(rank_tol=rank_tol)
    assert similarity("linear_regression", x, y, options) == pytest.approx(wanted, rel=1e-9)
    scatters = [centred(t).mT @ centred(t) for t in tensors(x, y)]
    own = [alignment.whitening(rank_tol)(Moments(30, tensor([0.0]), one.diagonal(), one)) for one in scatters]
    form = load("linear_regression", Options(rank_tol=max(rank_tol, cca.RESOLVED))).moments  # below, none is offered
    assert form is not None
    cross = centred(tensors(x)[0]).mT @ centred(tensors(y)[0])
    assert float(form.score(own[0], own[1], cross)) == pytest.approx(wanted, rel=1e-6)


def tensors(*matrices: Array) -> list[Tensor]:
    return [tensor(matrix) for matrix in matrices]


@pytest.mark.parametrize("name", [name for name in NAMES if MEASURES[name].extra])
def test_without_scipy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrasim_cli.measures.alignment.find_spec", lambda module: None)
    assert MEASURES[name].extra == "match"
    with pytest.raises(
        MissingError, match=rf"^--measure {name}: needs the extra match: pip install 'contrasim\[match\]'$"
    ):
        load(name)


def test_only_the_assignments_import_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *more: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "scipy":
            raise ImportError(name)
        return original(name, *more, **named)

    x, y = PAIRS["generic"]
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        scores = {name: similarity(name, x, y) for name in NAMES if not MEASURES[name].extra}
    assert scores == {name: similarity(name, x, y) for name in scores}
