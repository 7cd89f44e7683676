"""What is said of a row by its anchors: everything from inner products with them, so that no basis matters.

Rows and anchors are centred by the anchors' mean and, where components are asked for, projected on the anchors' first principal
components, so that all models that have more neurons than these are described in as many dimensions. There, a_1 … a_A being
the anchors of a store's layer, μ their mean, c_i = a_i - μ, and units such that the mean of ‖c_i‖² is 1, a row x has
y_i = (x - μ) · c_i and ‖x - μ‖², and the anchors among themselves have G_ij = c_i · c_j. Of these are made, per row,

    cosines     y_i / (‖x - μ‖ ‖c_i‖)                                                            [A]
    quantiles   of the cosines, from the least to the largest                                    [QUANTILES]
    whitened    the cosines of rows whitened by Σ + λI, Σ the anchors' covariance, for each λ of SHARP; times UNIT   [A each]
    peaks       squares of these                                                                 [A each]
    whitened_quantiles   of the cosines of rows whitened with each of RIDGES                      [QUANTILES each]
    norms       log ‖x - μ‖², and that of the row whitened with each of RIDGES                   [1 + RIDGES]
    neighbours  log squared distances to the k-th nearest anchors, over their mean               [NEAREST]

and two things that are the same for every row of a layer:

    profile     of each anchor, its log norm whitened with each of SHARP, and the log fourth moment of its whitened cosines
                to the others                                                                    [2 A each]
    spectrum    how the anchors' variance is spread (eigenvalues of Σ, their sums and entropy), quantiles of the anchors'
                cosines and norms, and how far from the origin their mean is

Rotations, orthogonal maps into wider spaces and isotropic scaling of the store change none of them; a translation of rows
and anchors alike changes `spectrum` alone. Whitening needs no [width, width] matrix: with ρ = λA,

    C (Σ + λI)^-1 (x - μ) = A (G + ρI)^-1 y,    ‖x - μ‖²_(Σ+λI) = (‖x - μ‖² - yᵀ (G + ρI)^-1 y) / λ
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.store.blocks import Floats, spans

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

APPLIED_ROWS = (
    256  # described, or standardised, in one product: how a row is rounded must not depend on how many are read with it
)
QUANTILES = 16
RIDGES = (0.1, 0.01, 0.001)  # times the trace of the anchors' covariance
SHARP = RIDGES[1:]  # those that bring out the weak directions, in which networks' layers differ most alike
UNIT = 8.0  # what whitened cosines are multiplied by: in high dimensions they are small
NEAREST = (1, 2, 3, 5, 9, 17, 33, 65)
EIGENVALUES, SHARES = 24, (1, 2, 3, 5, 9, 17, 33, 65)
NEAR = 0.01  # part of the mean squared distance below which distances are one, as rounding would tell them apart
TINY = 1e-9


@dataclass(frozen=True)
class Geometry:
    """The anchors of one layer: mean [p], centred rows [A, p] and Gram matrix [A, A] in units of `scale`.

    Where they are projected, `basis` [p, r] holds the components, and the centred rows are coordinates [A, r] there.
    `factors` [p] are what neurons are scaled by beforehand, where they are.
    """

    mean: Doubles
    centred: Singles
    gram: Doubles
    scale: float
    factors: Doubles | None = None
    basis: Singles | None = None
    _whitenings: dict[float, "Whitening"] = field(default_factory=dict)

    @classmethod
    def of(cls, anchors: Floats, components: int = 0, factors: Doubles | None = None) -> "Geometry":
        """The basis of anchor rows [A, p], in so many of their principal components; 0: in all.

        Raises:
            InputError: all of them are the same.
        """
        mean = anchors.mean(axis=0, dtype=np.float64)
        by = 1.0 if factors is None else factors
        centred = (anchors - mean) * by
        if not np.abs(centred).max(initial=0.0) > TINY * np.abs(mean * by).max(initial=0.0):
            raise InputError(
                "all anchor rows are equal, so they do not distinguish rows; leave the layer out with --layers"
            )
        scale, basis = _length(centred), None
        centred /= scale
        if 0 < components < min(centred.shape):
            centred, basis = _projected(centred, components)
            kept = _length(centred)
            centred /= kept
            scale *= kept
        return cls(mean, centred.astype(np.float32), centred @ centred.T, scale, factors, basis)

    @property
    def norms(self) -> Doubles:
        """[A] of the centred anchors; never 0, so that an anchor at the mean has cosine 0 with everything."""
        found: Doubles = np.sqrt(np.diagonal(self.gram).clip(TINY))
        return found

    def whitening(self, ridge: float) -> "Whitening":
        """The whitening by the anchors' covariance and a ridge."""
        if ridge not in self._whitenings:
            self._whitenings[ridge] = Whitening.of(self.gram, ridge)
        return self._whitenings[ridge]

    def seen(self, rows: Floats) -> "Seen":
        """What rows [n, p] have with the anchors."""
        centred = (rows - self.mean) / self.scale
        if self.factors is not None:
            centred *= self.factors
        centred = centred.astype(np.float32)
        if self.basis is not None:
            centred = centred @ self.basis
        squares = np.square(centred, dtype=np.float64).sum(axis=1, keepdims=True)
        return Seen(self, (centred @ self.centred.T).astype(np.float64), squares)

    @property
    def among_themselves(self) -> "Seen":
        """What the anchors have with each other."""
        return Seen(self, self.gram, np.diagonal(self.gram)[:, None])


def spread(rows: Floats) -> float:
    """The root of the mean squared distance of rows [n, p] from their mean."""
    return _length(rows - rows.mean(axis=0, dtype=np.float64))


def _length(rows: Doubles) -> float:
    """The root of the mean squared length of rows [n, p], whose squares may overflow or vanish."""
    largest = float(np.abs(rows).max(initial=0.0)) or 1.0
    return largest * float(np.sqrt(np.square(rows / largest).sum(axis=1).mean()))


def _projected(centred: Doubles, components: int) -> tuple[Doubles, Singles]:
    """Coordinates [A, r] of centred rows [A, p] in their first principal components, and these [p, r]; r where so many vary."""
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[: -components - 1 : -1], vectors[:, : -components - 1 : -1]
    varies = values > TINY * values[0]
    lengths = np.sqrt(values[varies])
    basis = centred.T @ (vectors[:, varies] / lengths)
    return vectors[:, varies] * lengths, basis.astype(np.float32)


@dataclass(frozen=True)
class Whitening:
    """Rows whitened by Σ + λI: (G + ρI)^-1 [A, A], and the norms of the whitened anchors [A]."""

    inverse: Doubles
    norms: Doubles
    ridge: float

    @classmethod
    def of(cls, gram: Doubles, ridge: float) -> "Whitening":
        """The whitening by the covariance of anchors with this Gram matrix [A, A], and a ridge."""
        count = len(gram)
        inverse = np.asarray(np.linalg.inv(gram + ridge * count * np.eye(count)), dtype=np.float64)
        leverage = np.einsum("ij,ji->i", inverse, gram)
        return cls(inverse, np.sqrt((count * leverage).clip(TINY)), ridge)


@dataclass
class Seen:
    """Rows as the anchors see them: y [n, A] and ‖x - μ‖² [n, 1], and what is made of them, once for all features."""

    anchors: Geometry
    y: Doubles
    squares: Doubles
    _whitened: dict[float, tuple[Doubles, Doubles]] = field(default_factory=dict)

    @cached_property
    def cosines(self) -> Doubles:
        """[n, A] to each anchor."""
        found: Doubles = self.y / (np.sqrt(self.squares.clip(TINY)) * self.anchors.norms)
        return found

    def whitened(self, ridge: float) -> tuple[Doubles, Doubles]:
        """Cosines [n, A] of whitened rows to whitened anchors, and the squared norms [n, 1] of these rows."""
        if ridge not in self._whitened:
            by = self.anchors.whitening(ridge)
            inner = self.y @ by.inverse
            squares = ((self.squares - (self.y * inner).sum(axis=1, keepdims=True)) / ridge).clip(TINY)
            self._whitened[ridge] = len(inner.T) * inner / (np.sqrt(squares) * by.norms), squares
        return self._whitened[ridge]


def cosines(seen: Seen) -> Doubles:
    """Cosines of the rows to each anchor."""
    return seen.cosines


def quantiles(seen: Seen) -> Doubles:
    """Quantiles of a row's cosines."""
    return _sorted(seen.cosines)


def whitened(seen: Seen) -> Doubles:
    """UNIT times the cosines of rows whitened with each sharp ridge."""
    return UNIT * np.concatenate([seen.whitened(ridge)[0] for ridge in SHARP], axis=1)


def peaks(seen: Seen) -> Doubles:
    """Squares of the whitened features."""
    found: Doubles = np.square(whitened(seen))
    return found


def whitened_quantiles(seen: Seen) -> Doubles:
    """The quantiles of the cosines of whitened rows, for each ridge."""
    return np.concatenate([_sorted(seen.whitened(ridge)[0]) for ridge in RIDGES], axis=1)


def norms(seen: Seen) -> Doubles:
    """log ‖x - μ‖², against that of the anchors, as it is and whitened with each ridge."""
    found = [seen.squares, *(seen.whitened(ridge)[1] for ridge in RIDGES)]
    return np.asarray(np.log(np.concatenate(found, axis=1).clip(TINY)))


def neighbours(seen: Seen) -> Doubles:
    """log squared distances to the nearest anchors, over the mean of all; ranks past the last anchor repeat it."""
    own = np.diagonal(seen.anchors.gram)
    distances = (seen.squares + own - 2 * seen.y).clip(0)
    nearest = np.sort(distances, axis=1)[:, np.minimum(NEAREST, len(own)) - 1]
    return np.asarray(np.log(nearest / distances.mean(axis=1, keepdims=True).clip(TINY) + NEAR))


def _sorted(values: Doubles) -> Doubles:
    """Some of the values of each row, from the least to the largest."""
    ranks = np.linspace(0, values.shape[1] - 1, QUANTILES).astype(np.int64)
    return np.asarray(np.sort(values, axis=1)[:, ranks])


def profile(anchors: Geometry) -> Doubles:
    """How each anchor lies among the others."""
    return np.concatenate([_profile(anchors, ridge) for ridge in SHARP])


def _profile(anchors: Geometry, ridge: float) -> Doubles:
    found = anchors.among_themselves.whitened(ridge)[0].copy()
    np.fill_diagonal(found, 0)
    moments = np.sum(found**4, axis=1) / max(1, len(found) - 1)
    return np.concatenate([np.log(anchors.whitening(ridge).norms), np.log(moments + 1e-6) / 4 + 2])


def spectrum(anchors: Geometry) -> Doubles:
    """How the anchors' variance is spread."""
    count = len(anchors.gram)
    shares = np.linalg.eigvalsh(anchors.gram)[::-1].clip(0) / count  # sum to 1
    shares = np.pad(shares, (0, max(0, EIGENVALUES - count)))
    entropy = -(shares * np.log(shares + TINY)).sum()
    angles = anchors.among_themselves.cosines[~np.eye(count, dtype=bool)]
    spread = np.quantile(anchors.norms**2, np.linspace(0.02, 0.98, 9)).clip(TINY)
    return np.concatenate(
        [
            np.log(shares[:EIGENVALUES] + 1e-5) / 3,
            np.cumsum(shares)[np.minimum(SHARES, count) - 1],
            [entropy / 2],
            np.quantile(angles, np.linspace(0, 1, QUANTILES)),
            np.log(spread),
            [np.log(float(np.square(anchors.mean / anchors.scale).sum()) + TINY) / 2],
        ]
    )


OF_ROWS: dict[str, Callable[[Seen], Doubles]] = {
    "cosines": cosines,
    "quantiles": quantiles,
    "whitened": whitened,
    "peaks": peaks,
    "whitened_quantiles": whitened_quantiles,
    "norms": norms,
    "neighbours": neighbours,
}
OF_LAYERS: dict[str, Callable[[Geometry], Doubles]] = {"profile": profile, "spectrum": spectrum}
FEATURES = (*OF_ROWS, *OF_LAYERS)


class Anchored:
    """Rows [n, p] to anchored rows [n, features], float32, by the anchors of one layer."""

    def __init__(self, anchors: Geometry, features: Sequence[str]) -> None:
        self._anchors = anchors
        self._of_rows = [OF_ROWS[name] for name in features if name in OF_ROWS]
        self._of_layer = [OF_LAYERS[name](anchors) for name in features if name in OF_LAYERS]
        self.width = self(anchors.mean[None]).shape[1]

    @property
    def nbytes(self) -> int:
        """Its size: centred anchors, and a matrix [A, A] per ridge beside their Gram matrix."""
        kept = self._anchors
        basis = 0 if kept.basis is None else kept.basis.nbytes
        return kept.mean.nbytes + kept.centred.nbytes + basis + (1 + len(RIDGES)) * kept.gram.nbytes

    def __call__(self, rows: Floats) -> Singles:
        """Describe rows by their anchors."""
        blocks = [self._block(rows[start:stop]) for start, stop in spans(len(rows), APPLIED_ROWS)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.width), np.float32)

    def _block(self, rows: Floats) -> Singles:
        seen = self._anchors.seen(rows)
        alike = [np.broadcast_to(values, (len(rows), len(values))) for values in self._of_layer]
        return np.concatenate([*(feature(seen) for feature in self._of_rows), *alike], axis=1).astype(np.float32)


class Members(Anchored):
    """Rows [n, p] described by the anchors of each member in turn, [n, members · features]."""

    def __init__(self, members: Sequence[Anchored]) -> None:
        self._members = members
        self.width = sum(member.width for member in members)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return sum(member.nbytes for member in self._members)

    def __call__(self, rows: Floats) -> Singles:
        """Describe rows by their anchors."""
        return np.concatenate([member(rows) for member in self._members], axis=1)


def described(geometries: Sequence[Geometry], features: Sequence[str]) -> Anchored:
    """How rows are described by the anchors of one layer, those of each member."""
    members = [Anchored(geometry, features) for geometry in geometries]
    return members[0] if len(members) == 1 else Members(members)


def width_of(features: Sequence[str], count: int, members: int = 1) -> int:
    """How many numbers describe a row by so many anchors of each member."""
    return members * int(Anchored(Geometry.of(np.eye(count)), features).width)
