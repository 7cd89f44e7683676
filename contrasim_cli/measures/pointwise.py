"""Measures of paired rows. Higher is more similar. The paper's baselines `dot` and `norm` (Eq. 9, 10)."""

from typing import NamedTuple

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures.protocol import Measure, RowForm


class Rows(NamedTuple):
    """Rows [..., n, p] in float64."""

    rows: Tensor


def prepare(x: Tensor) -> Rows:
    """The rows as they are."""
    return Rows(x.double())


def prepare_unit(x: Tensor) -> Rows:
    """The rows scaled to unit length; NaN for a zero row, which has no direction."""
    rows = x.double()
    largest = rows.abs().amax(dim=-1, keepdim=True)
    rows = rows / largest.where(largest > 0, xp.nan)
    return Rows(rows / xp.linalg.vector_norm(rows, dim=-1, keepdim=True))


def dot(a: Rows, b: Rows) -> Tensor:
    """1/n Σ_r x_r · y_r [...]; any real number."""
    return (a.rows * b.rows).sum(dim=-1).mean(dim=-1)


def cosine(a: Rows, b: Rows) -> Tensor:
    """1/n Σ_r cos(x_r, y_r) [...], in [-1, 1], of unit rows."""
    return dot(a, b).clamp(-1.0, 1.0)


def norm(a: Rows, b: Rows) -> Tensor:
    """1/n Σ_r (1 - ‖x_r/‖x_r‖ - y_r/‖y_r‖‖) [...], in [-1, 1]."""
    distance: Tensor = xp.linalg.vector_norm(a.rows - b.rows, dim=-1)
    return (1.0 - distance).mean(dim=-1)


def _as_is(x: Tensor) -> Tensor:
    return prepare(x).rows


def _unit(x: Tensor) -> Tensor:
    return prepare_unit(x).rows


def _products(x: Tensor, y: Tensor) -> Tensor:
    return x.flatten(1) @ y.flatten(1).T


def _product_values(x: Tensor, y: Tensor) -> Tensor:
    return x.transpose(0, 1) @ y.transpose(0, 1).mT


def _closeness(x: Tensor, y: Tensor) -> Tensor:
    return _closeness_values(x, y).sum(dim=0)


def _closeness_values(x: Tensor, y: Tensor) -> Tensor:
    """1 - ‖x_r - y_r‖ of unit rows, for which ‖x - y‖² = 2 - 2 x·y."""
    return 1.0 - (2.0 - 2.0 * _product_values(x, y)).clamp_min(0.0).sqrt()


MEASURES = {
    "dot": lambda options: Measure(prepare, dot, rowwise=RowForm(_as_is, _products, _product_values, bilinear=True)),
    "cosine": lambda options: Measure(
        prepare_unit, cosine, rowwise=RowForm(_unit, _products, _product_values, bilinear=True)
    ),
    "norm": lambda options: Measure(prepare_unit, norm, rowwise=RowForm(_unit, _closeness, _closeness_values)),
}
