"""Where scores lie between chance and identity: the three columns against plain formulas."""

import numpy as np
import pytest

from contrasim_cli.nulls import Null

SCORES = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, np.nan]])


def shuffled(count: int = 40) -> np.ndarray:
    return 0.2 + 0.05 * np.random.default_rng(0).normal(size=(count, 2, 3))


def test_columns_are_those_of_the_formulas() -> None:
    null = Null(shuffled(), identity=np.array([[1.0, 0.9, 0.8], [0.9, 0.8, 0.7]]))
    found = null.standing(SCORES)
    for i, j in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        values, score = shuffled()[:, i, j], SCORES[i, j]
        mean = values.mean()
        assert found.calibrated[i, j] == pytest.approx((score - mean) / (null.identity[i, j] - mean))
        assert found.null_z[i, j] == pytest.approx((score - mean) / values.std(ddof=1))
        assert found.null_p[i, j] == (1 + (values >= score).sum()) / 41
    assert np.isnan([part[1, 2] for part in found]).all()


def test_identity_is_1_and_the_level_is_0() -> None:
    null = Null(shuffled(), level=np.full((2, 3), 0.2))
    assert null.standing(np.ones((2, 3))).calibrated == pytest.approx(np.ones((2, 3)))
    assert null.standing(np.full((2, 3), 0.2)).calibrated == pytest.approx(np.zeros((2, 3)))
    assert null.standing(np.full((2, 3), 0.2)).null_z == pytest.approx(np.zeros((2, 3)), abs=1e-12)


def test_pooled_cells_are_one_population() -> None:
    values = shuffled(3)
    found = Null(values, pooled=True).standing(SCORES)
    assert found.null_z[0, 0] == pytest.approx((0.9 - values.mean()) / values.std(ddof=1))
    assert found.null_p[0, 1] == (1 + (values >= 0.2).sum()) / 19
    level = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    found = Null(values, level=level, pooled=True).standing(SCORES)
    assert found.null_p[1, 0] == (1 + ((values - level) >= 0.3 - 0.4).sum()) / 19
    assert found.calibrated[1, 0] == pytest.approx((0.3 - 0.4) / (1 - 0.4))


def test_what_says_the_same_of_everything_is_not_calibrated() -> None:
    constant = Null(np.full((9, 2, 3), 1 - 3e-8)).standing(np.ones((2, 3)))
    assert np.isnan(constant.calibrated).all()
    assert np.isnan(constant.null_z).all()
    assert (constant.null_p == 1.0).all()


def test_one_shuffle_has_a_level_and_no_spread() -> None:
    found = Null(shuffled(1)).standing(SCORES)
    assert np.isfinite(found.calibrated[0, 0])
    assert np.isnan(found.null_z).all()
    assert found.null_p[0, 0] == 0.5


def test_undefined_shuffles_leave_their_cell_empty() -> None:
    values = shuffled()
    values[7, 0, 0] = np.nan
    found = Null(values).standing(SCORES)
    assert all(np.isnan(part[0, 0]) and np.isfinite(part[0, 1]) for part in found)


def test_p_is_uniform_where_rows_are_unrelated() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(100, 30, 30))
    p = Null(values[1:]).standing(values[0]).null_p
    assert [np.mean(p <= at) for at in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.05)
    related = Null(values[1:]).standing(values[0] + 2).null_p
    assert np.mean(related <= 0.1) > 0.5
