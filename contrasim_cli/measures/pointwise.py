"""Measures of paired rows. Higher is more similar. The paper's baselines `dot` and `norm` (Eq. 9, 10)."""

from typing import NamedTuple

import torch
from torch import Tensor

from contrasim_cli.measures.protocol import Measure


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
    rows = rows / largest.where(largest > 0, torch.nan)
    return Rows(rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True))


def dot(a: Rows, b: Rows) -> Tensor:
    """1/n Σ_r x_r · y_r [...]; any real number."""
    return (a.rows * b.rows).sum(dim=-1).mean(dim=-1)


def cosine(a: Rows, b: Rows) -> Tensor:
    """1/n Σ_r cos(x_r, y_r) [...], in [-1, 1], of unit rows."""
    return dot(a, b).clamp(-1.0, 1.0)


def norm(a: Rows, b: Rows) -> Tensor:
    """1/n Σ_r (1 - ‖x_r/‖x_r‖ - y_r/‖y_r‖‖) [...], in [-1, 1]."""
    distance: Tensor = torch.linalg.vector_norm(a.rows - b.rows, dim=-1)
    return (1.0 - distance).mean(dim=-1)


MEASURES = {
    "dot": lambda options: Measure(prepare, dot),
    "cosine": lambda options: Measure(prepare_unit, cosine),
    "norm": lambda options: Measure(prepare_unit, norm),
}
