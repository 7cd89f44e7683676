"""Encoding scores against their oracles, on nasty input; folds, groups, and what they promise."""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import oracles_encoding as oracles
import pytest
from libraries import tensor
from nasty import PAIRS, related
from oracles import Array

from contrasim_cli.arrays import xp
from contrasim_cli.measures import Options, encoding
from contrasim_cli.measures.encoding import Folds, dealt
from contrasim_cli.measures.load import load, similarity

NAMES = list(oracles.MEASURES)
CONSTANT = {"all-equal rows on both sides"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", PAIRS)
def test_score_equals_the_oracle(name: str, case: str) -> None:
    for x, y in (PAIRS[case], PAIRS[case][::-1]):
        half = np.float16 in (x.dtype, y.dtype)
        wanted = pytest.approx(oracles.MEASURES[name](x, y), rel=1e-4 if half else 1e-6, abs=1e-9, nan_ok=True)
        assert similarity(name, x, y) == wanted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", PAIRS)
def test_score_is_undefined_only_where_the_predicted_side_is_constant(name: str, case: str) -> None:
    x, y = PAIRS[case]
    predicted = x if name.startswith("decoding") else y
    assert math.isnan(similarity(name, x, y)) == bool((predicted == predicted[0]).all())


@pytest.mark.parametrize("of", ["r2", "correlation"])
@pytest.mark.parametrize("over", ["median", "mean"])
@pytest.mark.parametrize("case", ["generic", "n < width", "constant columns", "unequal widths", "duplicate rows"])
def test_every_choice_of_score(of: str, over: str, case: str) -> None:
    x, y = PAIRS[case]
    how: Callable[..., float] = {"median": statistics.median, "mean": statistics.fmean}[over]
    options = Options(folds=4, seed=3, encoding_score=of, neurons=over, components=2)
    fits = {"ridge": oracles.ridge, "pls": lambda *given: oracles.pls(*given, components=2)}
    for name, fit in fits.items():
        wanted = oracles.score(x, y, fit, folds=Folds(4, 3), of=of, over=how)
        assert similarity(f"encoding_{name}", x, y, options) == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        assert similarity(f"decoding_{name}", y, x, options) == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "p"), [(20, 4), (5, 8)])
def test_batches_give_what_single_pairs_give(name: str, n: int, p: int) -> None:
    """[batches, 1, n, p] against [batches, candidates, n, p], constant members and those of low rank included."""
    x, y = (xp.stack([tensor(related(n, p, p, seed)[side]) for seed in range(4)]) for side in (0, 1))
    x[1, :, 1:], y[2], x[3] = x[1, :, :1], 0.1, 1e3 * x[3]
    measure = load(name)
    grid = measure.compare(measure.prepare(x[:, None]), measure.prepare(y[None]))
    alone = [[similarity(name, a, b) for b in y] for a in x]
    assert grid.dtype == xp.float64
    np.testing.assert_allclose(grid.numpy(), alone, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_few_rows_and_the_largest_numbers_raise_nothing(name: str) -> None:
    x, y = related(8, 3, 3)
    scores = [similarity(name, a, b) for a, b in ((x * 1e200, y), (x * 1e-200, y), (x * 1e200, y * 1e-200))]
    np.testing.assert_allclose(scores, similarity(name, x, y), rtol=1e-6)
    assert math.isnan(similarity(name, x[:1], y[:1]))
    assert similarity(name, x[:2], y[:2]) == 0  # one training row tells the mean alone


# --- folds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "folds"), [(10, 5), (11, 5), (3, 5), (2, 2), (100, 7)])
def test_every_row_is_held_out_once_in_folds_of_one_size(n: int, folds: int) -> None:
    counts = np.bincount(dealt(n, Folds(folds, 0)))
    assert len(counts) == min(n, folds)
    assert counts.sum() == n
    assert np.ptp(counts) <= 1
    assert n <= folds or (dealt(n, Folds(folds, 0)) != dealt(n, Folds(folds, 1))).any()


def test_groups_are_held_out_whole_in_folds_of_about_one_size() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 23, size=200)
    fold = dealt(200, Folds(5, 0, tuple(groups.tolist())))
    assert all(len(set(fold[groups == g])) == 1 for g in set(groups.tolist()))
    assert np.ptp(np.bincount(fold)) <= np.bincount(groups).max()


def test_copies_of_rows_leak_into_training_unless_they_are_of_one_group() -> None:
    """Noise of 30 rows, each five times: rows of a group tell each other, and nothing else does."""
    rng = np.random.default_rng(1)
    x, y = (np.repeat(rng.normal(size=(30, p)), 5, axis=0) for p in (40, 3))
    measure = load("encoding_ridge")
    assert measure.grouped is not None
    of_groups = measure.grouped(tuple(np.repeat(np.arange(30), 5).tolist()))
    leaked, honest = (float(m.compare(m.prepare(tensor(x)), m.prepare(tensor(y)))) for m in (measure, of_groups))
    assert leaked > 0.9
    assert honest < 0.1
    wanted = oracles.score(x, y, oracles.ridge, folds=Folds(5, 0, tuple(np.repeat(np.arange(30), 5).tolist())))
    assert honest == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_an_outlying_row_does_not_swallow_the_folds_without_it() -> None:
    x, y = related(40, 4, 3)
    x[7] *= 1e8
    assert similarity("encoding_ridge", x, y) == pytest.approx(oracles.MEASURES["encoding_ridge"](x, y), rel=1e-6)


def test_unrelated_sides_of_few_rows_score_nothing_and_a_linear_image_all() -> None:
    """Where `linear_regression` is 1 for both."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 60))
    noise, image = rng.normal(size=(40, 5)), x[:, :10] @ rng.normal(size=(10, 5))
    assert similarity("linear_regression", noise, x) == pytest.approx(1)
    assert similarity("encoding_ridge", x, noise) < 0.05
    assert similarity("encoding_ridge", x[:, :10], image) > 0.999
    assert similarity("encoding_pls", x[:, :10], image) > 0.999


def test_the_direction_matters() -> None:
    """Two of ten neurons are predicted by all ten, and not the other way round."""
    x = np.random.default_rng(0).normal(size=(100, 10))
    assert similarity("encoding_ridge", x, x[:, :2]) > 0.999
    assert similarity("decoding_ridge", x, x[:, :2]) < 0.1


# --- the parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(90, 70), (70, 200), (200, 80), (3, 2)])
def test_the_leading_direction_is_that_of_the_decomposition(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=shape) * 1e-120
    matrix += 1e-120 * np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
    vector, size = encoding.leading(tensor(matrix))
    u, sigma, _ = np.linalg.svd(matrix * 1e120)
    assert float(size) * 1e120 == pytest.approx(sigma[0], rel=1e-12)
    assert abs(float(vector[:, 0] @ tensor(u[:, 0]))) == pytest.approx(1, rel=1e-12)


def test_where_lanczos_does_not_converge_all_is_decomposed() -> None:
    """Singular values that are all but equal."""
    first, second = (np.linalg.qr(np.random.default_rng(seed).normal(size=(150, 150)))[0] for seed in (0, 1))
    near = first * np.linspace(1, 0.9999, 150) @ second
    assert encoding._by_krylov(tensor(near)) is None
    vector, size = encoding.leading(tensor(near))
    assert float(size) == pytest.approx(1, rel=1e-12)
    assert abs(float(vector[:, 0] @ tensor(first[:, 0]))) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("components", [1, 3, 25])
def test_partial_least_squares_is_that_of_scikit_learn(components: int) -> None:
    learn = pytest.importorskip("sklearn.cross_decomposition")
    x, y = related(60, 40, 7)
    fold = dealt(60, Folds(5, 0))
    errors, spread = 0.0, 0.0
    for f in range(5):
        fitted = learn.PLSRegression(components, scale=False, tol=1e-14, max_iter=10000).fit(x[fold != f], y[fold != f])
        errors += np.square(y[fold == f] - fitted.predict(x[fold == f])).sum(axis=0)
        spread += np.square(y[fold == f] - y[fold != f].mean(axis=0)).sum(axis=0)
    found = similarity("encoding_pls", x, y, Options(components=components))
    assert found == pytest.approx(np.median(1 - errors / spread), rel=1e-6)


def test_lambda_is_that_of_generalised_cross_validation() -> None:
    """Neurons of a fold choose for themselves: a clean one nearly none, noise a large one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8))
    y = np.stack([x[:, 0], rng.normal(size=50)], axis=1)
    folds = Folds(5, 0)
    layer = encoding.prepare(tensor(x), folds, encoding.spectra(1e-6))
    given = encoding.training(layer.coordinates, tensor(y - y.mean(axis=0)), folds.held_out(50))[0]
    weights = encoding.ridge(layer.factors, 0, given)
    free = np.linalg.pinv(np.asarray(layer.coordinates)[dealt(50, folds) > 0])
    assert weights.shape == (8, 2)
    assert np.linalg.norm(weights[:, 1].numpy()) < 0.2 * np.linalg.norm(free)


@pytest.mark.slow
def test_a_pair_costs_little_more_than_its_products() -> None:
    """Whatever the number of folds: ten cost less than twice of two."""
    x, y = (tensor(np.random.default_rng(0).normal(size=(4000, 128))) for _ in "xy")
    spent: dict[int, float] = {}
    for folds in (2, 10):
        measure = load("encoding_ridge", Options(folds=folds))
        a, b = measure.prepare(x), measure.prepare(y)
        start = time.process_time()
        for _ in range(3):
            measure.compare(a, b)
        spent[folds] = time.process_time() - start
    assert spent[10] < 4 * spent[2]


def over(values: list[float], how: str) -> float:
    return float(encoding.over_neurons(tensor(values), how))


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 9.0], [1.0, 7.0, 3.0, 4.0]])
def test_over_neurons_leaves_out_what_is_undefined(values: list[float]) -> None:
    padded: Array = np.array([math.nan, *values, math.nan])
    assert over(padded.tolist(), "median") == np.median(values)
    assert over(padded.tolist(), "mean") == np.mean(values)
    assert math.isnan(over([math.nan, math.nan], "median"))
    assert math.isnan(over([math.nan], "mean"))
