"""Measures of kernels, row-similarity matrices and neighbours against their oracles: values, options, ties, batches."""

import dataclasses
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import oracles_matrices as oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from libraries import assert_close, tensor
from oracles import Array

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import MEASURES, Options, cka, distances, neighbours
from contrasim_cli.measures.kendall import inversions, tau_a
from contrasim_cli.measures.load import load, similarity
from contrasim_cli.measures.matrices import COMPARISONS, RSMS

AnyArray = npt.NDArray[Any]
Pair = tuple[AnyArray, AnyArray]

NAMES = list(oracles.MEASURES)
NEIGHBOURS = [name for name in NAMES if MEASURES[name].family == "neighbours"]
N, K = 24, 4


def related(n: int, p: int, q: int, seed: int = 0) -> tuple[Array, Array]:
    """X [n, p] and a noisy linear image Y [n, q] of it, with a common mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * np.geomspace(1, 0.2, p) + 0.4
    return x, x @ rng.normal(size=(p, q)) + 0.5 * rng.normal(size=(n, q)) + 0.3


def cases() -> dict[str, Pair]:
    """The inputs of the exactness table."""
    x, y = related(N, 5, 5)
    rng = np.random.default_rng(1)
    low = rng.normal(size=(N, 2)) @ rng.normal(size=(2, 5))
    constant_column = x.copy()
    constant_column[:, 2] = 1e5 / 3
    return {
        "generic": (x, y),
        "n < width": related(12, 30, 30),
        "n < one width": related(12, 30, 4),
        "rank-deficient": (low, y),
        "constant column": (constant_column, y),
        "all-equal rows": (np.full((N, 5), [0.1, 1 / 3, 3e4 / 7, 0.0, -2.0]), y),
        "duplicate rows": (np.repeat(x[: N // 2], 2, axis=0), np.repeat(y[: N // 2], 2, axis=0)),
        "duplicates on one side": (np.tile(x[: N // 4], (4, 1)), y),
        "scales 1e+6 and 1e-6": (x * 1e6, y * 1e-6),
        "offset 1e4": (x + 1e4, y - 1e4),
        "float16": (x.astype(np.float16), y.astype(np.float16)),
        "float32": (x.astype(np.float32), y.astype(np.float32)),
        "widths differ": related(N, 7, 3),
        "one column": related(N, 1, 1),
        "one column against many": related(N, 1, 6),
        "four rows": related(4, 5, 5),
        "three rows": related(3, 5, 5),
        "two rows": related(2, 5, 5),
        "one row": related(1, 5, 5),
        "X = Y": (x, x),
        "X = Y, n < width": (related(12, 30, 3)[0],) * 2,
        "unrelated": (x, rng.normal(size=(N, 5))),
        "zero row": (np.where(np.arange(N)[:, None] == 3, 0.0, x), y),
        "orthogonal rows": (np.eye(12), related(12, 5, 5)[1]),
        "lattice": (rng.integers(-1, 3, size=(N, 3)) + 0.25, rng.integers(1, 4, size=(N, 3)) * 1.0),
    }


CASES = cases()


def exact(score: float, expected: float, case: str) -> None:
    tolerance = 1e-4 if case == "float16" else 1e-6
    assert score == pytest.approx(expected, rel=tolerance, abs=1e-9, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_score_equals_the_oracle(name: str, case: str) -> None:
    x, y = CASES[case]
    exact(similarity(name, x, y), oracles.MEASURES[name](x, y), case)
    exact(similarity(name, y, x), oracles.MEASURES[name](y, x), case)


SETTINGS = [
    *[(name, {"k": k}) for name in NEIGHBOURS for k in (1, 3, N - 1)],
    *[("cka_rbf", {"threshold": threshold}) for threshold in (0.2, 5.0)],
    *[("cka_minibatch", {"batch": batch}) for batch in (3, 4, 5, 11, 24, 100)],
    *[("rsa", {"rsm": rsm, "compare": compare}) for rsm in RSMS for compare in COMPARISONS],
]
OPTION = {"threshold": "rbf_threshold", "batch": "minibatch", "compare": "rsm_compare"}


def options(chosen: dict[str, Any]) -> Options:
    """The options that an oracle calls by shorter names."""
    return dataclasses.replace(Options(), **{OPTION.get(key, key): value for key, value in chosen.items()})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), SETTINGS, ids=str)
def test_options_are_honoured(name: str, chosen: dict[str, Any]) -> None:
    oracle = getattr(oracles, name)
    for case, (x, y) in CASES.items():
        exact(similarity(name, x, y, options(chosen)), oracle(x, y, **chosen), case)


@pytest.mark.parametrize("chosen", [{"rsm": "person"}, {"compare": "euclidean"}])
def test_unknown_settings_are_refused(chosen: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(chosen.values()))):
        load("rsa", options(chosen))


def integers(n: int) -> st.SearchStrategy[Array]:
    """Matrices of n rows that are often rank-deficient, constant, zero, or have equal or equally far rows."""
    return st.integers(1, 5).flatmap(
        lambda width: hnp.arrays(np.float64, (n, width), elements=st.integers(-2, 2).map(float))
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_degenerate_matrices(data: st.DataObject) -> None:
    """NaN exactly where the oracle is undefined, ties as the oracle has them, and never an exception."""
    n, scale = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([1.0, 0.1]))
    x, y = data.draw(integers(n)) * scale, data.draw(integers(n)) * scale
    choices = (
        [(name, {}) for name in NAMES if name not in NEIGHBOURS] + [(name, {"k": 2}) for name in NEIGHBOURS] + SETTINGS
    )
    for name, chosen in choices:
        exact(similarity(name, x, y, options(chosen)), oracles.MEASURES[name](x, y, **chosen), "")


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"rsm_norm_difference"}))
def test_no_square_overflows_or_vanishes(name: str) -> None:
    x, y = CASES["generic"]
    expected = similarity(name, x, y)
    assert similarity(name, x * 1e160, y * 1e-170) == pytest.approx(expected, rel=1e-9)
    single = (x * 1e30).astype(np.float32), (y * 1e-30).astype(np.float32)
    assert similarity(name, *single) == pytest.approx(expected, rel=1e-5)


def test_a_difference_of_distances_does_not_overflow() -> None:
    x, y = CASES["generic"]
    assert similarity("rsm_norm_difference", x * 1e160, y * 1e160) == pytest.approx(
        1e160 * similarity("rsm_norm_difference", x, y), rel=1e-9
    )


def test_a_wide_kernel_keeps_its_digits() -> None:
    """exp(-d²/2σ²) is 1 - d²/2σ² by then, and centring of -d²/2 gives the linear kernel."""
    x, y = CASES["generic"]
    assert similarity("cka_rbf", x, y, Options(rbf_threshold=1e5)) == pytest.approx(similarity("cka", x, y), rel=1e-9)


def test_undefined_and_only_there() -> None:
    """The cells of the table that are empty."""
    empty = {(name, case) for name in NAMES for case, (x, y) in CASES.items() if np.isnan(similarity(name, x, y))}
    few = {"four rows", "three rows", "two rows", "one row"}
    never = {"rsm_norm_difference"}
    expected = {(name, "all-equal rows") for name in set(NAMES) - never}
    expected |= {(name, "one row") for name in set(NAMES) - never}
    expected |= {(name, case) for name in NEIGHBOURS for case in few | {"zero row"}}
    expected |= {(name, case) for name in ("cka_debiased", "cka_minibatch") for case in few - {"four rows"}}
    expected |= {(name, "orthogonal rows") for name in ("cka_debiased", "cka_minibatch", "rsa")}
    expected |= {("rsa", case) for case in ("two rows", "zero row", "one column", "one column against many", "lattice")}
    assert empty == expected | {("second_order_cosine", "orthogonal rows")}


def rsa(pair: Pair, rsm: str, compare: str) -> float:
    return similarity("rsa", *pair, Options(rsm=rsm, rsm_compare=compare))


def test_cosines_of_similarities_and_of_dissimilarities_differ() -> None:
    """By hand: unit rows at angles of 0, 60 and 90 degrees against ones at 0, 90 and 180."""
    x = np.array([[1.0, 0.0], [0.5, 3**0.5 / 2], [0.0, 1.0]])
    y = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    u, v = np.array([0.5, 0.0, 3**0.5 / 2]), np.array([0.0, -1.0, 0.0])
    assert rsa((x, y), "cosine", "cosine") == pytest.approx(0, abs=1e-12)
    wanted = (1 - u) @ (1 - v) / np.linalg.norm(1 - u) / np.linalg.norm(1 - v)
    assert rsa((x, y), "cosine", "cosine-rdm") == pytest.approx(wanted, rel=1e-12)
    assert wanted > 0.9


def test_whitened_cosine_of_squared_distances_is_cka() -> None:
    pair = CASES["generic"]
    assert rsa(pair, "sqeuclidean", "cosine-cov") == pytest.approx(similarity("cka", *pair), rel=1e-9)
    assert rsa(pair, "euclidean", "cosine-cov") == pytest.approx(
        similarity("distance_correlation", *pair) ** 2, rel=1e-9
    )
    assert rsa(pair, "sqeuclidean", "corr-cov") != pytest.approx(similarity("cka", *pair), rel=1e-3)
    assert rsa(pair, "sqeuclidean", "pearson") != pytest.approx(rsa(pair, "euclidean", "pearson"), rel=1e-3)


def test_rank_correlations_without_a_correction_for_ties() -> None:
    """Without ties rho-a is Spearman's; with them a layer is less than 1 similar to itself, and tau-b and ρ would be 1."""
    pair = CASES["generic"]
    assert rsa(pair, "euclidean", "rho-a") == pytest.approx(rsa(pair, "euclidean", "spearman"), rel=1e-12)
    assert rsa(pair, "euclidean", "tau-a") != pytest.approx(rsa(pair, "euclidean", "spearman"), rel=1e-2)
    lattice = (CASES["lattice"][0],) * 2
    assert rsa(lattice, "euclidean", "spearman") == pytest.approx(1)
    assert 0.5 < rsa(lattice, "euclidean", "tau-a") < 0.99
    assert rsa(lattice, "euclidean", "tau-a") < rsa(lattice, "euclidean", "rho-a") < 0.9999


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 100])
@pytest.mark.parametrize("kinds", [1, 3, 1000])
def test_kendall_equals_counting(count: int, kinds: int) -> None:
    rng = np.random.default_rng([count, kinds])
    x, y = rng.integers(0, min(kinds, 2 * count), size=(2, 4, count))
    places = [(i, j) for i in range(count) for j in range(i + 1, count)]
    assert inversions(x).tolist() == [sum(side[i] > side[j] for i, j in places) for side in x]
    found = tau_a(tensor(x[:, None]).double(), tensor(y[None]).double()).numpy()
    assert found.shape == (4, 4)
    for one, row in zip(x, found, strict=True):
        for other, score in zip(y, row, strict=True):
            signs = [np.sign(one[i] - one[j]) * np.sign(other[i] - other[j]) for i, j in places]
            assert score == pytest.approx(np.mean(signs) if signs else np.nan, rel=1e-12, nan_ok=True)


def test_unbiased_is_not_clamped() -> None:
    x, y = CASES["unrelated"]
    scores = [similarity("cka_debiased", x, np.random.default_rng(seed).normal(size=(N, 5))) for seed in range(20)]
    assert min(scores) < -0.01
    assert abs(np.mean(scores)) < 0.1
    assert similarity("cka", x, y) > 0.05


def test_a_batch_of_all_rows_is_the_debiased_estimator() -> None:
    for x, y in CASES.values():
        assert similarity("cka_minibatch", x, y) == pytest.approx(
            similarity("cka_debiased", x, y), rel=1e-9, nan_ok=True
        )


def test_a_last_batch_below_four_rows_is_left_out() -> None:
    x, y = related(15, 5, 5)
    options = Options(minibatch=6)
    without = similarity("cka_minibatch", x[:12], y[:12], options)
    assert similarity("cka_minibatch", x, y, options) == pytest.approx(without, rel=1e-12)
    options = Options(minibatch=11)
    without = similarity("cka_minibatch", x[:11], y[:11], options)
    assert similarity("cka_minibatch", x, y, options) != pytest.approx(without, rel=1e-3)


def test_a_row_that_has_duplicates_is_not_its_own_neighbour() -> None:
    x = np.repeat(related(6, 3, 3)[0], 4, axis=0)
    nearest = neighbours.prepare(tensor(x), 3).nearest
    assert nearest[:4].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert nearest[20:].tolist() == [[21, 22, 23], [20, 22, 23], [20, 21, 23], [20, 21, 22]]


def test_equally_near_rows_are_taken_by_position() -> None:
    """Many more than were asked for, in directions that are equal up to rounding."""
    rng = np.random.default_rng(0)
    x = np.outer(rng.uniform(0.5, 2, size=60), [1.0, 1 / 3, 0.1])
    x[50] = [1.0, -1.0, 3.0]
    nearest = neighbours.prepare(tensor(x), 2).nearest
    assert nearest[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert nearest[40].tolist() == nearest[50].tolist() == [0, 1]


def test_orders_of_neighbours_by_hand() -> None:
    """[1, 2, 3, 4] against its last first, its reverse, and one that is new."""
    first = tensor([[1, 2, 3, 4]] * 4)
    second = tensor([[4, 1, 2, 3], [4, 3, 2, 1], [1, 9, 3, 4], [5, 6, 7, 8]])
    match = first[:, :, None] == second[:, None, :]
    assert neighbours._longest_common_subsequence(match).tolist() == [3, 1, 3, 0]
    assert neighbours._edit_distance(match).tolist() == [2, 4, 1, 4]


def test_cycles_by_hand() -> None:
    """From row 0 a step in Y leads to 1, and one in X to 2; X with itself has no cycles through 0 and 1."""
    angles = np.array([[0.0, 2.0, 2.5, 2.7], [0.0, 0.4, 3.0, 3.1]])
    x, y = (np.column_stack([np.cos(side), np.sin(side)]) for side in angles)
    nearest = [neighbours.prepare(tensor(side), 1).nearest.flatten().tolist() for side in (x, y)]
    assert nearest == [[1, 2, 3, 2], [1, 0, 3, 2]]
    assert similarity("cycle_knn", x, y, Options(k=1)) == 3 / 4
    assert similarity("cycle_knn", x, x, Options(k=1)) == 2 / 4


def test_a_row_that_no_other_is_near_to_has_no_cycle() -> None:
    """Of twelve rows, ten neighbours each: all but the one in the opposite direction."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(loc=[9, 0, 0], size=(2, 12, 3))
    assert similarity("cycle_knn", x, y) == 1
    x[4] *= -1
    assert similarity("cycle_knn", x, y) == pytest.approx(11 / 12)


def test_what_is_equally_near() -> None:
    """Squared distances of 4e-14 and 1e-14, and of 4e-10 and 1e-10, where the largest from the mean is about 1."""
    for turn, expected in ((1e-7, [1, 2]), (1e-5, [2, 1])):
        angles = np.array([0.0, 2 * turn, turn, np.pi, np.pi - 0.1])
        x = tensor(np.column_stack([np.cos(angles), np.sin(angles)]))
        assert neighbours.prepare(x, 2).nearest[0].tolist() == expected


def cknna_of_decimals(x: Array, y: Array, k: int) -> float:
    """The oracle's formula in 40 digits."""
    sides = []
    with localcontext(Context(prec=40)):
        for side in (x, y):
            rows = np.array([[Decimal(value) for value in row] for row in side.tolist()])
            rows = rows / np.array([sum(row * row).sqrt() for row in rows])[:, None]
            cosines = rows @ rows.T
            near = np.zeros(cosines.shape, dtype=bool)
            for r in range(len(rows)):
                near[r, sorted(set(range(len(rows))) - {r}, key=lambda s, r=r: -cosines[r, s])[:k]] = True
            sides.append((cosines - cosines.sum(axis=1)[:, None] / len(rows), near))
        (a, near_a), (b, near_b) = sides
        return float((a * b)[near_a & near_b].sum() / ((a * a)[near_a].sum() * (b * b)[near_b].sum()).sqrt())


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_cknna_keeps_its_digits_whatever_the_common_offset(offset: float) -> None:
    """Rows are rounded to eps of the offset, and directions turn by as much: 20 times that is the bound."""
    x, y = (side + offset for side in related(N, 6, 8))
    expected = cknna_of_decimals(x, y, K)
    assert similarity("cknna", x, y, Options(k=K)) == pytest.approx(expected, rel=20 * 2.3e-16 * max(1.0, offset))


def hard_to_search() -> dict[str, Array]:
    """Rows whose neighbours float32 cannot tell apart, or that have many equally near ones."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(70, 6))
    crowd = np.concatenate([np.tile(x[:2], (20, 1)), x[2:32]])
    return {
        "generic": x,
        "offset 1e4": x + 1e4,
        "hardly different": x[0] + 1e-8 * x,
        "duplicates": crowd,
        "one far row": np.concatenate([1 + 1e-4 * x, -np.ones((1, 6))]),
        "lattice": rng.integers(0, 2, size=(70, 4)) + 1.0,
        "with a zero row": np.concatenate([x, np.zeros((1, 6))]),
    }


@pytest.mark.parametrize("case", hard_to_search())
def test_a_search_in_float32_first_changes_no_set(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tensor(hard_to_search()[case])
    plain = neighbours.prepare(x, 5, with_rows=True)
    monkeypatch.setattr(neighbours, "SINGLE_ROWS", 2)
    searched = neighbours.prepare(x, 5, with_rows=True)
    assert (searched.nearest == plain.nearest).all()
    assert_close(searched, plain, rtol=0, atol=1e-15)
    together = neighbours.prepare(xp.stack([x, x.flip(0)]), 5)
    assert_close(together.nearest[0], plain.nearest)


@pytest.mark.parametrize("case", hard_to_search())
def test_nearest_rows_equal_the_oracle(case: str) -> None:
    x = hard_to_search()[case]
    side = oracles.Side(x, 5)
    prepared = neighbours.prepare(tensor(x), 5)
    assert side.defined == (case != "with a zero row") == bool(prepared.defined.isfinite())
    if side.defined:
        assert prepared.nearest.tolist() == side.nearest


def test_rows_are_kept_by_the_measure_that_needs_them_alone() -> None:
    x = tensor(np.random.default_rng(0).normal(size=(40, 6)))
    kept = {name for name, make in neighbours.MEASURES.items() if make(Options(k=3)).prepare(x).rows is not None}
    assert kept == {"second_order_cosine"}


def batch(n: int, p: int, seed: int) -> Tensor:
    """X [5, n, p]: generic ones, a scaled one, one with duplicates, a constant one."""
    x = np.stack([related(n, p, p, seed + i)[seed % 2] for i in range(5)])
    x[1] *= 1e3
    x[2, n // 2 :] = x[2, : n - n // 2]
    x[3] = 1 / 3
    return tensor(x)


SMALL = Options(k=3, minibatch=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "p", "q"), [(16, 4, 3), (8, 12, 9), (10, 4, 20)])
@pytest.mark.parametrize("tile", [1, distances.TILE])
def test_batched_equals_one_by_one(
    name: str, n: int, p: int, q: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = batch(n, p, 0), batch(n, q, 1)
    alone = [[similarity(name, a, b, SMALL) for b in y] for a in x]
    monkeypatch.setattr(distances, "TILE", tile)
    measure = load(name, SMALL)
    grid = measure.compare(measure.prepare(x[:, None]), measure.prepare(y[None]))
    assert grid.dtype == xp.float64
    np.testing.assert_allclose(grid.numpy(), alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["cka", "rv", "cka_debiased"])
@pytest.mark.parametrize("case", CASES)
def test_energies_give_the_same(name: str, case: str) -> None:
    x, y = CASES[case]
    a, b = (tensor(np.asarray(side, dtype=np.float64)) for side in (x, y))
    grams = [side @ side.T for side in (cka.centred(a), cka.centred(b))]
    first, second = (gram.diagonal() for gram in grams)
    given = cka.Energies(
        len(x),
        *((u * v).sum() for u, v in ((grams[0], grams[1]), (grams[0], grams[0]), (grams[1], grams[1]))),
        *((u * v).sum() for u, v in ((first, second), (first, first), (second, second))),
        first.sum(),
        second.sum(),
    )
    energy = load(name).energy
    assert energy is not None
    assert float(energy.score(given)) == pytest.approx(similarity(name, x, y), rel=1e-8, nan_ok=True)
