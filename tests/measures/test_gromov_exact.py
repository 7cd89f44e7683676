"""Gromov-Wasserstein against all permutations of few rows, against POT, and what it is blind to."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import oracles_topology as oracles
import pytest
from libraries import tensor
from nasty import PAIRS, related

from contrasim_cli.arrays import xp
from contrasim_cli.measures.load import load, similarity

ROWS = 6


def exact(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The least over all permutations of the rows."""
    sides = [oracles.distances(side, side) for side in map(oracles.scaled, (x, y))]
    n = len(sides[0])
    if not all(side.any() for side in sides):
        return math.nan
    d, e = (side / (side.sum() / (n * (n - 1))) for side in sides)
    return min(
        float(np.linalg.norm(d - e[np.ix_(order, order)])) / n for order in map(list, itertools.permutations(range(n)))
    )


@pytest.mark.parametrize("case", PAIRS)
def test_few_rows_reach_the_least_of_all_permutations(case: str) -> None:
    x, y = (side[:ROWS] for side in PAIRS[case])
    wanted = pytest.approx(exact(x, y), rel=1e-6, abs=1e-7, nan_ok=True)
    assert similarity("gromov_wasserstein", x, y) == wanted
    assert similarity("gromov_wasserstein", y, x) == wanted


def test_a_local_minimum_is_near_the_least() -> None:
    found = [
        (similarity("gromov_wasserstein", *pair), exact(*pair)) for pair in (related(ROWS, 3, 4, s) for s in range(9))
    ]
    assert all(wanted * (1 - 1e-9) <= score <= 1.1 * wanted for score, wanted in found)


def test_it_is_never_above_what_pot_finds() -> None:
    ot = pytest.importorskip("ot")
    for seed in range(5):
        x, y = related(40, 4, 5, seed)
        d, e = (oracles.distances(side, side) for side in (x, y))
        d, e = (side / (side.sum() / (40 * 39)) for side in (d, e))
        theirs = math.sqrt(ot.gromov.gromov_wasserstein2(d, e, loss_fun="square_loss", max_iter=1000))
        assert similarity("gromov_wasserstein", x, y) <= theirs + 1e-9


def test_neither_order_nor_basis_nor_unit_matters() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    turned = 3 * x[rng.permutation(50)] @ np.linalg.qr(rng.normal(size=(4, 4)))[0] + 7
    assert similarity("gromov_wasserstein", x, turned) == pytest.approx(0, abs=1e-9)
    assert similarity("gromov_wasserstein", x, rng.normal(size=(50, 4))) > 0.1


def test_batches_give_what_single_pairs_give() -> None:
    x, y = (xp.stack([tensor(related(9, 3, 3, seed)[side]) for seed in range(3)]) for side in (0, 1))
    y[1] = 0.1
    measure = load("gromov_wasserstein")
    grid = measure.compare(measure.prepare(x[:, None]), measure.prepare(y[None]))
    alone = [[similarity("gromov_wasserstein", a, b) for b in y] for a in x]
    np.testing.assert_allclose(grid.numpy(), alone, rtol=1e-9)
