"""Linear centred kernel alignment (Kornblith et al. 2019), Eq. 8 of the paper. Higher is more similar, range [0, 1]."""

from typing import NamedTuple

import torch
from torch import Tensor

from contrasim_cli.measures.protocol import Measure, centred


class Centred(NamedTuple):
    """Either side of CKA, scaled so that ‖XᵀX‖_F = 1; NaN where X has no variance."""

    gram: Tensor | None  # [..., n, n], where n < p
    rows: Tensor | None  # [..., n, p] else


def prepare(x: Tensor) -> Centred:
    """X [..., n, p], centred and scaled, in the smaller of its Gram and its feature form."""
    rows = centred(x)
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    # the norm of XᵀX is a fourth power of the data: after scaling it neither overflows nor vanishes
    rows = rows / largest.where(largest > 0, torch.nan)
    rows = rows / torch.linalg.vector_norm(rows, dim=(-2, -1), keepdim=True)
    if rows.shape[-2] < rows.shape[-1]:
        gram = rows @ rows.mT
        return Centred(gram / _norm(gram), None)
    return Centred(None, rows / _norm(rows.mT @ rows).sqrt())


def compare(a: Centred, b: Centred) -> Tensor:
    """‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) [...], through whichever forms the sides have."""
    if a.gram is not None and b.gram is not None:
        return (a.gram * b.gram).sum(dim=(-2, -1))
    if a.gram is not None:
        return compare(b, a)
    assert a.rows is not None
    if b.gram is not None:
        return ((b.gram @ a.rows) * a.rows).sum(dim=(-2, -1))  # tr(Xᵀ YYᵀ X)
    assert b.rows is not None
    return (b.rows.mT @ a.rows).square().sum(dim=(-2, -1))


def _norm(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True)
    return norm


MEASURES = {"cka": lambda options: Measure(prepare, compare)}
