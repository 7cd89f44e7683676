"""The oracles themselves, against values worked out by hand."""

import math

import numpy as np
import oracles
import pytest
from oracles import Array

RHO = (0.9, 0.5, 0.2)


def orthonormal(n: int, k: int) -> Array:
    """Return k orthonormal columns [n, k], each with mean zero."""
    raw = np.random.default_rng(0).normal(size=(n, k))
    basis: Array = np.linalg.qr(raw - raw.mean(0))[0]
    return basis


def planted(mix_x: Array, mix_y: Array) -> tuple[Array, Array]:
    """X and Y with canonical correlations `RHO`; column j of X is Σ_i mix_x[i, j] h_i."""
    basis = orthonormal(20, 6)
    rho = np.array(RHO)
    return basis[:, :3] @ mix_x, (basis[:, :3] * rho + basis[:, 3:] * np.sqrt(1 - rho**2)) @ mix_y


MIX = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [1.0, 0.0, -1.0]])


def test_cca_is_the_mean_of_planted_correlations() -> None:
    x, y = planted(MIX, MIX.T)
    assert oracles.cca(x, y) == pytest.approx(sum(RHO) / 3, rel=1e-12)


def test_cca_divides_by_the_smaller_rank() -> None:
    x, y = planted(MIX[:, :2], np.eye(3)[:, 2:] @ np.ones((1, 4)))
    assert oracles.rank(oracles.hat(x)) == 2
    assert oracles.rank(oracles.hat(y)) == 1
    # (1, 1, −2) is normal to both of X's columns in the basis h, so h₃ keeps 1 − 4/6 of its square in their plane.
    assert oracles.cca(x, y) == pytest.approx(RHO[2] * math.sqrt(1 / 3), rel=1e-12)


def test_svcca_drops_what_one_percent_of_variance_holds() -> None:
    x, y = planted(np.diag([10.0, 5.0, 0.1]), np.diag([1.0, 5.0, 5.0]))
    assert oracles.svcca(x, y) == pytest.approx((RHO[0] + RHO[1]) / 2, rel=1e-12)
    x, y = planted(np.diag([10.0, 5.0, 0.1]), np.diag([0.1, 5.0, 5.0]))
    assert oracles.svcca(x, y) == pytest.approx(RHO[1] / 2, rel=1e-12)


def test_pwcca_weights_are_the_rows_of_the_mixing() -> None:
    x, y = planted(MIX, MIX.T)
    alpha = np.abs(MIX).sum(1)
    assert oracles.pwcca(x, y) == pytest.approx(float(alpha @ RHO / alpha.sum()), rel=1e-12)
    assert oracles.pwcca(x, y) != pytest.approx(sum(RHO) / 3, rel=1e-2)


def test_cka_of_orthonormal_columns() -> None:
    x, y = planted(np.eye(3), np.eye(3))
    assert oracles.cka(x, y) == pytest.approx(sum(rho**2 for rho in RHO) / 3, rel=1e-12)


def test_constant_inputs_are_undefined() -> None:
    constant, y = np.full((7, 3), 0.1), orthonormal(7, 3)
    for name in ("cka", "cca", "svcca", "pwcca"):
        assert math.isnan(oracles.MEASURES[name](constant, y))
        assert math.isnan(oracles.MEASURES[name](y, constant))


def test_dot_and_norm_by_hand() -> None:
    x, y = [[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 2.0]]
    assert oracles.dot(x, y) == 12.0
    assert oracles.norm(x, y) == pytest.approx(1 - (math.sqrt(0.08) + math.sqrt(2)) / 2, rel=1e-15)
    assert math.isnan(oracles.norm([[0.0, 0.0], [1.0, 0.0]], y))


def test_objectives_by_hand() -> None:
    """Two rows in two views, (1, 0) and (0, 1) in both: every positive has similarity 1, every negative 0."""
    items = [np.array([row]) for row in ([1.0, 0.0], [0.0, 1.0]) * 2]
    anchors = oracles.pair_sets(2)
    assert anchors[0] == oracles.Anchor(item=0, positives=[2], negatives=[1, 3], others=[1, 2, 3])
    assert oracles.contrasim(items, anchors, 0.5) == pytest.approx(-4 * (2 - math.log(2)), rel=1e-15)
    assert oracles.contrasim(items, oracles.pair_sets(2, "first"), 0.5) == pytest.approx(-2 * (2 - math.log(2)))
    assert oracles.supcon(items, anchors, 0.5) == pytest.approx(math.log(math.exp(2) + 2) - 2, rel=1e-15)
    assert oracles.deepdot(items, anchors) == -1.0
    far = 1 - math.sqrt(2)
    assert oracles.contrasim(items, anchors, 1.0, "norm") == pytest.approx(-4 * (1 - far - math.log(2)), rel=1e-15)


def test_layer_sets_by_hand() -> None:
    anchors = oracles.layer_sets(2, 2)
    assert anchors[1] == oracles.Anchor(item=1, positives=[3], negatives=[0, 2], others=[0, 2, 3])


def test_strictly_needs_more_than_rounding() -> None:
    assert oracles.strictly_more_similar(1.0, 1 - 1e-5)
    assert not oracles.strictly_more_similar(1.0, 1 - 1e-7)
    assert not oracles.strictly_more_similar(0.0, 0.0)
    assert not oracles.strictly_more_similar(math.nan, 0.0)
    assert oracles.strictly_more_similar(-2.0, -1.0, higher=False)
    assert not oracles.strictly_more_similar(-2.0, -1.0)


def test_layer_prediction_by_hand() -> None:
    scores = [[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.8, 0.7]]
    assert oracles.layer_prediction(scores) == pytest.approx(1 / 3)
    assert oracles.layer_prediction(-np.array(scores), higher=False) == pytest.approx(1 / 3)
    assert oracles.layer_prediction(scores, higher=False) == 0
    assert oracles.retrieval_is_right(0.5, [0.1, 0.4])
    assert not oracles.retrieval_is_right(0.5, [0.1, 0.5])


def test_neighbours_leave_out_self_and_duplicates() -> None:
    rows = [[0.0], [3.0], [0.0], [1.0], [-1.0], [1.0]]
    nearest = oracles.nearest_neighbours(rows, rows, 3, own=range(6))
    assert nearest == [[3, 4, 5], [3, 5, 0], [3, 4, 5], [0, 2, 1], [0, 2, 3], [0, 2, 1]]
    assert oracles.nearest_neighbours([[0.9]], rows, 2, own=[None]) == [[3, 5]]
    assert oracles.nearest_neighbours([[0.9]], rows, 2, own=[5]) == [[3, 0]]
    assert oracles.nearest_neighbours([[0.0]], rows, 9, own=[0]) == [[3, 4, 5, 1]]
