"""Prepared layers whose rows are permuted: what `prepare` would make of the permuted rows, without preparing them.

A factorisation permutes with its left factor, a kernel with its rows and columns; what is a statistic of all rows stays.
"""

from collections.abc import Callable
from typing import Any

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import cka, matrices
from contrasim_cli.measures.alignment import Raw
from contrasim_cli.measures.cca import Factored
from contrasim_cli.measures.cka import Centred, Debiased, Kernel
from contrasim_cli.measures.distributions import Gaussian
from contrasim_cli.measures.encoding import Layer
from contrasim_cli.measures.gromov import Shape
from contrasim_cli.measures.matrices import Matrix, Pairs
from contrasim_cli.measures.neighbours import Neighbours
from contrasim_cli.measures.pointwise import Rows
from contrasim_cli.measures.protocol import MomentPrepared, expand
from contrasim_cli.measures.statistics import Statistic
from contrasim_cli.measures.subspace import Basis
from contrasim_cli.measures.topology import Heat, Living

BY_ROW = {
    Factored: ("left",),
    Basis: ("left",),
    MomentPrepared: ("rows",),
    Raw: ("rows",),
    Rows: ("rows",),
    Centred: ("rows",),
    Debiased: ("rows", "lengths"),
    Neighbours: ("rows", "cosines", "kernel"),
    Statistic: (),
    Gaussian: (),
    Heat: (),
    Shape: (),
    Living: (),
    Layer: ("rows", "coordinates"),
}
BY_PAIR = {Centred: "gram", Debiased: "gram", Kernel: "values", Matrix: "values"}
KINDS = (*BY_ROW, *BY_PAIR, Pairs)


def _same(inner: Tensor) -> Tensor:
    return inner


# measures that are a function of the inner product of two prepared layers' `flat` values
OF_INNER_PRODUCT: dict[Any, Callable[[Tensor], Tensor]] = {
    cka.compare: _same,
    cka.compare_debiased: _same,
    cka.compare_rbf: _same,
    matrices.inner: _same,
    matrices.whitened: _same,
    matrices.distance_correlation: lambda inner: inner.clamp(min=0.0).sqrt(),
}


def flat(prepared: Any) -> Tensor | None:
    """The values [..., d] of a prepared kernel; None of what is none, such as CKA's side in its feature form."""
    if isinstance(prepared, Pairs):
        return prepared.values
    matrix = getattr(prepared, BY_PAIR.get(type(prepared), ""), None)
    return None if matrix is None else matrix.flatten(-2)


def permute_rows(prepared: Any, orders: Tensor) -> Any | None:
    """A prepared layer of n rows under the orders [c, n], with a new leading dimension c (or 1, where no order matters).

    None for kinds that rows cannot be permuted in, such as batches of rows.
    """
    kind = type(prepared)
    if kind not in KINDS:
        return None
    changed = {}
    for name in BY_ROW.get(kind, ()):
        changed[name] = _rows(getattr(prepared, name), orders)
    if kind in BY_PAIR:
        changed[BY_PAIR[kind]] = _both(getattr(prepared, BY_PAIR[kind]), orders)
    if kind is Pairs:
        changed["values"] = prepared.values[_positions(orders)]
    if kind is Layer:  # the training rows of a fold are others
        changed["factors"] = None
    if kind is Neighbours:
        changed["nearest"] = _renamed(prepared.nearest, orders)
    return kind(*(changed.get(name, expand(getattr(prepared, name), 0)) for name in kind._fields))


def _rows(values: Tensor | None, orders: Tensor) -> Tensor | None:
    """[c, n, ...] of [n, ...]."""
    return None if values is None else values[orders]


def _both(matrix: Tensor | None, orders: Tensor) -> Tensor | None:
    """[c, n, n] of [n, n]."""
    if matrix is None:
        return None
    n, values = len(matrix), matrix.flatten()
    # one gather of the flat matrix takes a third of the time of one of its rows and one of its columns
    return xp.stack([values[(order.unsqueeze(1) * n + order).flatten()].reshape(n, n) for order in orders])


def _positions(orders: Tensor) -> Tensor:
    """Where the pairs r < s of permuted rows are among the n(n - 1)/2 pairs [c, pairs]."""
    n = orders.shape[-1]
    first, second = xp.triu_indices(n, n, 1, device=orders.device)
    one, other = orders[:, first], orders[:, second]
    low, high = xp.minimum(one, other), xp.maximum(one, other)
    return low * (2 * n - low - 1) // 2 + high - low - 1


def _renamed(nearest: Tensor, orders: Tensor) -> Tensor:
    """Positions of neighbours [c, n, k]: row r is now what row orders[r] was, so that its neighbours have new positions."""
    place = xp.argsort(orders, dim=-1)
    found: Tensor = place.gather(-1, nearest[orders].flatten(1)).reshape(*orders.shape, -1)
    return found
