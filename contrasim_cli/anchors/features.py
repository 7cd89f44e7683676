"""What is said of a row by its anchors: everything from inner products with them, so that no basis matters.

With the anchors a_1 … a_A of a store's layer, μ their mean, c_i = a_i - μ, and units such that the mean of ‖c_i‖² is 1, a row
x has y_i = (x - μ) · c_i and ‖x - μ‖², and the anchors among themselves have G_ij = c_i · c_j. Of these are made, per row,

    cosines     y_i / (‖x - μ‖ ‖c_i‖)                                                            [A]
    quantiles   of the cosines, from the least to the largest                                    [QUANTILES]
    whitened    the cosines of rows whitened by Σ + λI, Σ the anchors' covariance, λ the least of RIDGES; times UNIT   [A]
    peaks       squares of these                                                                 [A]
    whitened_quantiles   of the cosines of rows whitened with each of RIDGES                      [QUANTILES each]
    norms       log ‖x - μ‖², and that of the row whitened with each of RIDGES                   [1 + RIDGES]
    neighbours  log squared distances to the k-th nearest anchors, over their mean               [NEAREST]

and two things that are the same for every row of a layer:

    profile     of each anchor, its log norm whitened by the least of RIDGES, and the log fourth moment of its whitened cosines
                to the others                                                                    [2 A]
    spectrum    how the anchors' variance is spread (eigenvalues of Σ, their sums and entropy), quantiles of the anchors'
                cosines and norms, and how far from the origin their mean is

Rotations, orthogonal maps into wider spaces and isotropic scaling of the store change none of them; a translation of rows
and anchors alike changes `spectrum` alone. Whitening needs no [width, width] matrix: with ρ = λA,

    C (Σ + λI)^-1 (x - μ) = A (G + ρI)^-1 y,    ‖x - μ‖²_(Σ+λI) = (‖x - μ‖² - yᵀ (G + ρI)^-1 y) / λ
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.store.blocks import Floats

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

APPLIED_ROWS = 256  # described in one product: how a row is rounded must not depend on how many are read with it
QUANTILES = 16
RIDGES = (0.1, 0.01, 0.001)  # times the trace of the anchors' covariance
UNIT = 8.0  # what whitened cosines are multiplied by: in high dimensions they are small
NEAREST = (1, 2, 3, 5, 9, 17, 33, 65)
EIGENVALUES, SHARES = 24, (1, 2, 3, 5, 9, 17, 33, 65)
NEAR = 0.01  # part of the mean squared distance below which distances are one, as rounding would tell them apart
TINY = 1e-9


@dataclass(frozen=True)
class Geometry:
    """The anchors of one layer: mean [p], centred rows [A, p] and Gram matrix [A, A] in units of `scale`.

    `factors` [p] are what neurons are scaled by beforehand, where they are.
    """

    mean: Doubles
    centred: Singles
    gram: Doubles
    scale: float
    factors: Doubles | None = None

    @classmethod
    def of(cls, anchors: Floats, factors: Doubles | None = None) -> "Geometry":
        """That of anchor rows [A, p].

        Raises:
            InputError: all of them are the same.
        """
        mean = anchors.mean(axis=0, dtype=np.float64)
        centred = (anchors - mean) * (1.0 if factors is None else factors)
        largest = np.abs(centred).max(initial=0.0)
        if not largest > TINY * np.abs(mean).max(initial=0.0):
            raise InputError("all anchor rows are the same, and tell no rows apart; leave the layer out with --layers")
        centred /= largest  # squares neither overflow nor vanish
        spread = float(np.sqrt(np.square(centred).sum(axis=1).mean()))
        centred /= spread
        return cls(mean, centred.astype(np.float32), centred @ centred.T, float(largest * spread), factors)

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.mean.nbytes + self.centred.nbytes + self.gram.nbytes

    @property
    def norms(self) -> Doubles:
        """[A] of the centred anchors; never 0, so that an anchor at the mean has cosine 0 with everything."""
        found: Doubles = np.sqrt(np.diagonal(self.gram).clip(TINY))
        return found

    def products(self, rows: Floats) -> tuple[Doubles, Doubles]:
        """Of rows [n, p]: y [n, A] and ‖x - μ‖² [n, 1]."""
        centred = (rows - self.mean) / self.scale
        if self.factors is not None:
            centred *= self.factors
        centred = centred.astype(np.float32)
        squares = np.square(centred, dtype=np.float64).sum(axis=1, keepdims=True)
        return (centred @ self.centred.T).astype(np.float64), squares


Described = Callable[[Doubles, Doubles], Doubles]  # y [n, A], ‖x - μ‖² [n, 1] to [n, k]


def cosines(anchors: Geometry) -> Described:
    """To each anchor."""
    norms = anchors.norms
    return lambda y, squares: y / (np.sqrt(squares.clip(TINY)) * norms)


def quantiles(anchors: Geometry) -> Described:
    """Of the cosines."""
    return _sorted(cosines(anchors))


def whitened(anchors: Geometry) -> Described:
    """UNIT times the cosines of rows whitened with the least ridge."""
    described = Whitening.of(anchors, RIDGES[-1]).cosines
    return lambda y, squares: UNIT * described(y, squares)


def peaks(anchors: Geometry) -> Described:
    """Squares of these."""
    described = whitened(anchors)
    return lambda y, squares: np.square(described(y, squares))


def whitened_quantiles(anchors: Geometry) -> Described:
    """Of the cosines of whitened rows, for each ridge."""
    parts = [_sorted(Whitening.of(anchors, ridge).cosines) for ridge in RIDGES]
    return lambda y, squares: np.concatenate([part(y, squares) for part in parts], axis=1)


def norms(anchors: Geometry) -> Described:
    """log ‖x - μ‖², against that of the anchors, as it is and whitened with each ridge."""
    whitenings = [Whitening.of(anchors, ridge) for ridge in RIDGES]

    def describe(y: Doubles, squares: Doubles) -> Doubles:
        found = [squares, *(whitening.squares(y, squares) for whitening in whitenings)]
        logs: Doubles = np.log(np.concatenate(found, axis=1).clip(TINY))
        return logs

    return describe


@dataclass(frozen=True)
class Whitening:
    """Rows whitened by Σ + λI: (G + ρI)^-1 [A, A], and the norms of the whitened anchors [A]."""

    inverse: Doubles
    norms: Doubles
    ridge: float

    @classmethod
    def of(cls, anchors: Geometry, ridge: float) -> "Whitening":
        """That of the anchors' covariance and a ridge."""
        count = len(anchors.gram)
        inverse = np.linalg.inv(anchors.gram + ridge * count * np.eye(count)).astype(np.float64, copy=False)
        leverage = np.einsum("ij,ji->i", inverse, anchors.gram)
        return cls(inverse, np.sqrt((count * leverage).clip(TINY)), ridge)

    def squares(self, y: Doubles, squares: Doubles) -> Doubles:
        """[n, 1] squared norms of whitened rows."""
        inner = (y * (y @ self.inverse)).sum(axis=1, keepdims=True)
        found: Doubles = ((squares - inner) / self.ridge).clip(TINY)
        return found

    def cosines(self, y: Doubles, squares: Doubles) -> Doubles:
        """[n, A] cosines of whitened rows to whitened anchors."""
        inner = len(self.inverse) * (y @ self.inverse)
        found: Doubles = inner / (np.sqrt(self.squares(y, squares)) * self.norms)
        return found


def neighbours(anchors: Geometry) -> Described:
    """log squared distances to the nearest anchors, over the mean of all; ranks past the last anchor repeat it."""
    own = np.diagonal(anchors.gram)
    ranks = np.minimum(NEAREST, len(own)) - 1

    def describe(y: Doubles, squares: Doubles) -> Doubles:
        distances = (squares + own - 2 * y).clip(0)
        nearest = np.sort(distances, axis=1)[:, ranks]
        found: Doubles = np.log(nearest / distances.mean(axis=1, keepdims=True).clip(TINY) + NEAR)
        return found

    return describe


def profile(anchors: Geometry) -> Described:
    """Of each anchor, how it lies among the others; the same for every row of a layer."""
    whitening = Whitening.of(anchors, RIDGES[-1])
    found = whitening.cosines(anchors.gram, np.diagonal(anchors.gram)[:, None])
    np.fill_diagonal(found, 0)
    moments = np.sum(found**4, axis=1) / max(1, len(found) - 1)
    values = np.concatenate([np.log(whitening.norms), np.log(moments + 1e-6) / 4 + 2])
    return lambda y, squares: np.broadcast_to(values, (len(y), len(values)))


def spectrum(anchors: Geometry) -> Described:
    """What is the same for every row of a layer."""
    values = _layer_values(anchors)
    return lambda y, squares: np.broadcast_to(values, (len(y), len(values)))


def _layer_values(anchors: Geometry) -> Doubles:
    count = len(anchors.gram)
    shares = np.linalg.eigvalsh(anchors.gram)[::-1].clip(0) / count  # sum to 1
    shares = np.pad(shares, (0, max(0, EIGENVALUES - count)))
    places = np.minimum(SHARES, count) - 1
    entropy = -(shares * np.log(shares + TINY)).sum()
    others = ~np.eye(count, dtype=bool)
    angles = (anchors.gram / np.outer(anchors.norms, anchors.norms))[others]
    return np.concatenate(
        [
            np.log(shares[:EIGENVALUES] + 1e-5) / 3,
            np.cumsum(shares)[places],
            [entropy / 2],
            np.quantile(angles, np.linspace(0, 1, QUANTILES)),
            np.log(np.quantile(anchors.norms**2, np.linspace(0.02, 0.98, 9)).clip(TINY)),
            [np.log(float(np.square(anchors.mean / anchors.scale).sum()) + TINY) / 2],
        ]
    )


def _sorted(described: Described) -> Described:
    """Quantiles of values that are made."""

    def describe(y: Doubles, squares: Doubles) -> Doubles:
        values = np.sort(described(y, squares), axis=1)
        return values[:, np.linspace(0, values.shape[1] - 1, QUANTILES).astype(np.int64)]

    return describe


MAKE: dict[str, Callable[[Geometry], Described]] = {
    "cosines": cosines,
    "quantiles": quantiles,
    "whitened": whitened,
    "peaks": peaks,
    "whitened_quantiles": whitened_quantiles,
    "norms": norms,
    "neighbours": neighbours,
    "profile": profile,
    "spectrum": spectrum,
}
FEATURES = tuple(MAKE)


class Anchored:
    """Rows [n, p] to anchored rows [n, features], float32, by the anchors of one layer."""

    def __init__(self, anchors: Geometry, features: Sequence[str]) -> None:
        self._anchors = anchors
        self._described = [MAKE[name](anchors) for name in features]
        self.width = self(anchors.mean[None].astype(np.float32)).shape[1]

    @property
    def nbytes(self) -> int:
        """Its size in memory; every ridge has an inverse [A, A] of its own."""
        return self._anchors.nbytes + len(RIDGES) * self._anchors.gram.nbytes

    def __call__(self, rows: Floats) -> Singles:
        """The rows described."""
        blocks = [self._block(rows[start : start + APPLIED_ROWS]) for start in range(0, len(rows), APPLIED_ROWS)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.width), np.float32)

    def _block(self, rows: Floats) -> Singles:
        y, squares = self._anchors.products(rows)
        parts = [described(y, squares) for described in self._described]
        return np.concatenate(parts, axis=1).astype(np.float32)


def width_of(features: Sequence[str], count: int) -> int:
    """How many numbers describe a row by so many anchors."""
    return sum(Anchored(Geometry.of(np.eye(count)), [name]).width for name in features)
