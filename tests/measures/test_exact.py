"""Every measure against its oracle: values, undefined cells, batches."""

from typing import Any

import numpy as np
import numpy.typing as npt
import oracles
import pytest
from every_oracle import ORACLES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from libraries import tensor
from oracles import Array

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import MEASURES, cca
from contrasim_cli.measures.load import load, similarity

AnyArray = npt.NDArray[Any]
Pair = tuple[AnyArray, AnyArray]

EXACT = ["cka", "cca", "svcca", "pwcca", "dot", "norm"]
CENTRED = ["cka", "cca", "svcca", "pwcca"]
EQUAL_WIDTHS = ["dot", "norm"]


def related(n: int, p: int, q: int, seed: int = 0) -> tuple[Array, Array]:
    """X [n, p] and a noisy linear image Y [n, q] of it, with decaying variances and a common mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * np.geomspace(1, 0.05, p) + 0.5
    y = x @ rng.normal(size=(p, q)) + 0.5 * rng.normal(size=(n, q)) * np.geomspace(1, 0.05, q)
    return x, y + x[:, :1]


def low_rank(n: int, rank: int, width: int, seed: int) -> Array:
    """Return a matrix [n, width] of the given rank."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, width))


def low_rank_pair(n: int, width: int) -> tuple[Array, Array]:
    """X of rank 3 and Y of rank 4 [n, width] that are related, with three different correlations."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(n, 3))
    noisy = factors @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4))
    return factors @ rng.normal(size=(3, width)), noisy @ rng.normal(size=(4, width))


def with_singular_values(sigma: list[float], n: int, seed: int) -> Array:
    """Return a centred matrix [n, len(sigma)] with these singular values, and no column on its own axis."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(n, len(sigma)))
    left = np.linalg.qr(raw - raw.mean(0))[0]
    right = np.linalg.qr(rng.normal(size=(len(sigma), len(sigma))))[0]
    matrix: Array = left * np.array(sigma) @ right
    return matrix


def with_columns(x: Array, columns: dict[int, float]) -> Array:
    """Return a copy of X with some columns made constant."""
    x = x.copy()
    for column, value in columns.items():
        x[:, column] = value
    return x


def cast(pair: tuple[Array, Array], x_type: type[np.floating[Any]], y_type: type[np.floating[Any]]) -> Pair:
    """Return the pair in the given floating types."""
    return pair[0].astype(x_type), pair[1].astype(y_type)


def cases() -> dict[str, Pair]:
    """Inputs of equal widths."""
    x, y = related(40, 6, 6)
    deficient = low_rank_pair(40, 6)
    noise = np.random.default_rng(3).normal(size=(40, 6))
    kept_and_dropped = [1.0, 0.5, 0.2, 1e-5, 1e-7, 1e-9]
    dominant = x * np.array([1, 1, 1e4, 1, 1, 1])
    return {
        "generic": (x, y),
        "weakly related": (x, noise),
        "n < width": related(10, 25, 25),
        "n < width, low rank": low_rank_pair(15, 20),
        "n much larger than width": related(150, 3, 3),
        "rank-deficient": deficient,
        "rank-deficient, float32": cast(deficient, np.float32, np.float32),
        "rank-deficient on one side": (deficient[0], y),
        "directions around rank_tol": (with_singular_values(kept_and_dropped, 40, seed=5), y),
        "constant columns": (with_columns(x, {1: 0.1, 4: 1e5 / 3}), with_columns(y, {0: 0.0})),
        "one dominant column": (dominant, y),
        "dominant columns on both sides": (dominant, y * np.array([3e4, 1, 1, 1, 1, 1])),
        "duplicate rows": (np.repeat(x[:20], 2, axis=0), np.repeat(y[:20], 2, axis=0)),
        "duplicated columns": (x[:, [0, 1, 2, 0, 1, 2]], y[:, [0, 0, 0, 3, 4, 5]]),
        "scales 1e+6 and 1e-6": (x * 1e6, y * 1e-6),
        "scales 1e-6 and 1e-6": (x * 1e-6, y * 1e-6),
        "scales 1e+30 and 1e-30, float32": cast((x * 1e30, y * 1e-30), np.float32, np.float32),
        "scales 1e+160 and 1e-170": (x * 1e160, y * 1e-170),
        "offset 1e4": (x + 1e4, y - 1e4),
        "offset 1e4, float32": cast((x + 1e4, y + 1e4), np.float32, np.float32),
        "float16": cast((x, y), np.float16, np.float16),
        "float32": cast((x, y), np.float32, np.float32),
        "float16 and float32": cast((x, y), np.float16, np.float32),
        "one column": related(40, 1, 1),
        "two rows": related(2, 4, 4),
        "two rows, one column": related(2, 1, 1),
        "X = Y": (x, x),
        "X = Y, n < width": (related(10, 25, 25)[0],) * 2,
    }


def cases_of_unequal_widths() -> dict[str, Pair]:
    """Inputs that only some of the measures take."""
    return {
        "widths differ": related(40, 7, 4),
        "n < one width": related(12, 20, 4),
        "n between the widths, low rank": (low_rank(15, 4, 30, seed=6), related(15, 4, 3)[1]),
        "one column against many": related(40, 1, 6),
        "float16, widths differ": cast(related(40, 7, 4), np.float16, np.float16),
    }


PAIRS = cases() | cases_of_unequal_widths()
CELLS = [(name, case) for name in EXACT for case in cases()] + [
    (name, case) for name in CENTRED for case in cases_of_unequal_widths()
]


@pytest.mark.parametrize(("name", "case"), CELLS)
def test_score_equals_the_oracle(name: str, case: str) -> None:
    x, y = PAIRS[case]
    tolerance = 1e-4 if np.float16 in (x.dtype, y.dtype) else 1e-6
    assert similarity(name, x, y) == pytest.approx(oracles.MEASURES[name](x, y), rel=tolerance, abs=0)
    assert similarity(name, y, x) == pytest.approx(oracles.MEASURES[name](y, x), rel=tolerance, abs=0)


def test_no_measure_is_without_an_oracle() -> None:
    assert list(oracles.MEASURES) == EXACT
    in_closed_form = set(MEASURES) - {"gromov_wasserstein"}  # a local minimum: see test_gromov_exact
    assert set(ORACLES) == in_closed_form


def test_cases_are_what_their_names_say() -> None:
    """Ranks that the cases are about; a case that lost its rank would test nothing."""
    ranks = {
        "n < width": (9, 9),
        "n < width, low rank": (3, 4),
        "rank-deficient": (3, 4),
        "rank-deficient, float32": (3, 4),
        "directions around rank_tol": (4, 6),
        "constant columns": (4, 5),
        "duplicated columns": (3, 4),
        "two rows": (1, 1),
    }
    assert {case: tuple(oracles.rank(oracles.hat(side)) for side in PAIRS[case]) for case in ranks} == ranks


@pytest.mark.parametrize("name", ["cca", "svcca"])
def test_subspaces_that_must_meet_correlate_perfectly(name: str) -> None:
    """Rank 6 and rank 6 in 9 centred dimensions share at least 3, so the ρ tie at 1 (where pwcca has no one value)."""
    x, y = np.random.default_rng(8).normal(size=(2, 10, 6))
    assert similarity(name, x, y) == pytest.approx(oracles.MEASURES[name](x, y), rel=1e-6)
    assert 0 < similarity("pwcca", x, y) <= 1


@pytest.mark.parametrize("case", ["n < width", "two rows", "X = Y", "X = Y, n < width", "n < one width"])
def test_cca_family_is_never_above_one(case: str) -> None:
    x, y = PAIRS[case]
    for name in ("cca", "svcca", "pwcca"):
        assert similarity(name, x, y) <= 1
    assert similarity("cca", x, y) == pytest.approx(1, rel=1e-12)
    assert similarity("pwcca", x, y) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("n", [2, 7, 10, 49])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_input_is_undefined(name: str, n: int, dtype: type[np.floating[Any]]) -> None:
    """The mean of n equal numbers is often not that number in floating point; its residue is no variance."""
    constant = np.tile(np.array([0.1, 1 / 3, 3e4 / 7, 0.0]), (n, 1)).astype(dtype)
    varied = related(n, 4, 4)[0].astype(dtype)
    assert np.isnan(similarity(name, constant, varied))
    assert np.isnan(similarity(name, varied, constant))
    assert np.isnan(similarity(name, constant, constant))
    assert np.isfinite(similarity(name, varied, varied))


@pytest.mark.parametrize("name", CENTRED)
def test_one_row_is_undefined(name: str) -> None:
    assert np.isnan(similarity(name, [[1.0, 2.0]], [[2.0, 1.0]]))


def test_pwcca_counts_the_weight_of_an_uncorrelated_direction() -> None:
    """Ranks 2 in widths 3 with ρ = (1/√2, 0): the direction of ρ = 0 is one of X, not one that the rank left out."""
    h = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).repeat(2, axis=0) / np.sqrt(8)
    h = np.column_stack([h[:, 1:], np.tile([1, -1], 4) / np.sqrt(8)])
    assert h.T @ h == pytest.approx(np.eye(4))
    x = np.column_stack([h[:, 0], h[:, 1], h[:, 0] + h[:, 1]])
    y = np.column_stack([h[:, 0] + h[:, 2], h[:, 3], h[:, 0] + h[:, 2] + h[:, 3]])
    assert similarity("pwcca", x, y) == pytest.approx(1 / np.sqrt(8), rel=1e-6)


@pytest.mark.parametrize("rank_tol", [1e-10, 1e-8, 1e-6, 1e-3, 0.3])
def test_rank_tol_decides_which_directions_count(rank_tol: float) -> None:
    x, y = PAIRS["directions around rank_tol"]
    factored = cca.prepare(tensor(x), rank_tol), cca.prepare(tensor(y), rank_tol)
    assert cca.cca(*factored).item() == pytest.approx(oracles.cca(x, y, rank_tol), rel=1e-6)
    assert cca.pwcca(*factored).item() == pytest.approx(oracles.pwcca(x, y, rank_tol), rel=1e-6)
    assert factored[0].rank.item() == {1e-10: 6, 1e-8: 5, 1e-6: 4, 1e-3: 3, 0.3: 2}[rank_tol]


def test_norm_of_a_zero_row_is_undefined() -> None:
    x, y = related(5, 3, 3)
    x[2] = 0
    assert np.isnan(similarity("norm", x, y))
    assert np.isnan(similarity("norm", y, x))
    assert np.isfinite(similarity("dot", x, y))


@pytest.mark.parametrize("name", EXACT)
def test_unequal_widths_are_refused_where_rows_are_compared(name: str) -> None:
    x, y = related(12, 5, 4)
    assert MEASURES[name].needs_equal_widths == (name in EQUAL_WIDTHS)
    if name in EQUAL_WIDTHS:
        with pytest.raises(ValueError, match=r"5.*4"):
            similarity(name, x, y)
    else:
        assert np.isfinite(similarity(name, x, y))


@pytest.mark.parametrize("name", EXACT)
def test_unequal_rows_are_refused(name: str) -> None:
    x, y = related(12, 4, 4)
    with pytest.raises(ValueError, match=r"12.*11"):
        similarity(name, x, y[:11])


def batch(n: int, p: int) -> tuple[Tensor, Tensor]:
    """X and Y [6, n, p] of mixed ranks and scales, one constant member on each side included."""
    pairs = [related(n, p, p, seed) for seed in range(6)]
    x, y = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    x[1] = low_rank(n, 2, p, seed=1)
    x[2] *= 1e3
    y[3] = 0.1
    x[4] = low_rank(n, 1, p, seed=4)
    x[5] = 1 / 3
    return tensor(x), tensor(y)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("n", "p"), [(20, 4), (6, 9)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_batched_equals_one_by_one(name: str, n: int, p: int, dtype: str) -> None:
    measure = load(name)
    x, y = (tensor(side.numpy().astype(dtype)) for side in batch(n, p))
    together = measure.compare(measure.prepare(x), measure.prepare(y))
    alone = [similarity(name, a, b) for a, b in zip(x, y, strict=True)]
    assert together.shape == (6,)
    assert together.dtype == xp.float64
    np.testing.assert_allclose(together.numpy(), alone, rtol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_leading_dimensions_broadcast(name: str) -> None:
    measure = load(name)
    x, y = batch(20, 4)
    grid = measure.compare(measure.prepare(x[:, None]), measure.prepare(y[None]))
    alone = [[similarity(name, a, b) for b in y] for a in x]
    assert grid.shape == (6, 6)
    np.testing.assert_allclose(grid.numpy(), alone, rtol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_candidates_of_many_batches_in_one_call(name: str) -> None:
    """[batches, 1, n, p] against [batches, candidates, n, p], as the retrieval benchmarks compare."""
    measure = load(name)
    rng = np.random.default_rng(11)
    x, candidates = tensor(rng.normal(size=(3, 1, 8, 3))), tensor(rng.normal(size=(3, 4, 8, 3)))
    scores = measure.compare(measure.prepare(x), measure.prepare(candidates))
    alone = [[similarity(name, x[b, 0], candidates[b, c]) for c in range(4)] for b in range(3)]
    np.testing.assert_allclose(scores.numpy(), alone, rtol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_inputs_are_left_as_they_were(name: str) -> None:
    x, y = related(12, 4, 4)
    before = x.copy(), y.copy()
    similarity(name, x, y)
    measure = load(name)
    measure.compare(measure.prepare(tensor(x)), measure.prepare(tensor(y)))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


@pytest.mark.parametrize("name", EXACT)
def test_arrays_and_tensors_are_alike(name: str) -> None:
    x, y = cast(related(12, 4, 4), np.float32, np.float16)
    assert similarity(name, tensor(x), tensor(y)) == similarity(name, x, y)


def small_integers(n: int, width: int) -> st.SearchStrategy[Array]:
    """Matrices [n, width] that are often rank-deficient, constant, or have equal rows."""
    return hnp.arrays(np.float64, (n, width), elements=st.integers(-2, 2).map(float))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_degenerate_matrices(data: st.DataObject) -> None:
    """NaN exactly where the oracle is undefined, and never an exception."""
    n, width = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 6))
    x, y = data.draw(small_integers(n, width)), data.draw(small_integers(n, width))
    for name in EXACT:
        score, expected = similarity(name, x, y), oracles.MEASURES[name](x, y)
        assert np.isnan(score) == np.isnan(expected)
        if np.isnan(score):
            continue
        if name in CENTRED:
            assert -1e-12 <= score <= 1 + 1e-12
        # Integers often tie: equal ρ leave pwcca's weights open, equal σ leave open which direction svcca drops.
        if name not in ("pwcca", "svcca"):
            assert score == pytest.approx(expected, rel=1e-6, abs=1e-7)
