"""What a measure is: `prepare` once per layer, `compare` per pair.

Both work on batched tensors: X [..., n, p] is prepared over its leading dimensions, and `compare` broadcasts the
leading dimensions of its two sides, so that a grid factors each layer once and a benchmark compares thousands of small
matrices in one call. Scores are float64 and NaN where the measure is undefined.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from contrasim_cli.arrays import Tensor, is_tensor, xp
from contrasim_cli.measures.tiles import RowMap, Tile, Tiles


class Moments(NamedTuple):
    """What moment-based measures need of a layer [..., n, p], in float64."""

    n: int
    mean: Tensor  # [..., p]
    squares: Tensor  # Σ_r (x_r - x̄)² of each column [..., p], the diagonal of the scatter
    scatter: Tensor | None  # XcᵀXc [..., p, p]; None where no measure looks at more than its diagonal


@dataclass(frozen=True)
class MomentForm:
    """A measure through second moments, so that rows can be streamed: `own` once per layer, `pair` per pair.

    `pair` gets both sides' `own` and the cross moment XcᵀYc [..., p, q], or what `of_cross`, given the same, makes of it:
    measures whose `own` and `of_cross` are the same share one result per pair. Whether `own` looks at the scatter, which costs
    half as much as a cross moment, says `scatter`.
    """

    own: Callable[[Moments], Any]
    pair: Callable[[Any, Any, Tensor], Tensor]
    scatter: bool = True
    of_cross: Callable[[Any, Any, Tensor], Tensor] | None = None

    def score(self, a: Any, b: Any, cross: Tensor) -> Tensor:
        """The score [...] of two sides."""
        return self.pair(a, b, cross if self.of_cross is None else self.of_cross(a, b, cross))


@dataclass(frozen=True)
class RowForm:
    """A measure that is the mean over rows of a function of paired rows.

    `map` goes over rows [k, p] of one layer; `sums` takes mapped rows [l, k, p] and [m, k, p] of layers of equal width and
    gives Σ_r f(x_r, y_r) [l, m]; `values` gives f(x_r, y_r) [k, l, m]. `bilinear`: f is so in mapped rows, whose means thus
    give the mean over all shuffles of the rows.
    """

    map: Callable[[Tensor], Tensor]
    sums: Callable[[Tensor, Tensor], Tensor]
    values: Callable[[Tensor, Tensor], Tensor]
    bilinear: bool = False


class Energies(NamedTuple):
    """Inner products of the Gram matrices K = XcXcᵀ and L = YcYcᵀ, and of their diagonals; any common shape, float64."""

    n: int
    cross: Tensor  # ⟨K, L⟩ = ‖XcᵀYc‖²_F
    first: Tensor  # ⟨K, K⟩
    second: Tensor  # ⟨L, L⟩
    diagonal_cross: Tensor  # Σ_r K_rr L_rr
    diagonal_first: Tensor
    diagonal_second: Tensor
    trace_first: Tensor  # Σ_r K_rr
    trace_second: Tensor
    rounding: float = 1e-12  # a difference below this part of its terms is lost in their rounding


@dataclass(frozen=True)
class EnergyForm:
    """A measure that is a function of the inner products of Gram matrices.

    `diagonals`: whether `score` looks at the diagonals of Gram matrices, which cost two passes over the rows. `shuffled` gives the
    exact mean and standard deviation of the score over all orders of one side's rows; it looks at the traces and at the diagonals
    with themselves.
    """

    score: Callable[[Energies], Tensor]
    shuffled: Callable[[Energies], tuple[Tensor, Tensor]]
    diagonals: bool = False


class Blocks(Protocol):
    """Raw rows of one layer, block by block and as often as asked."""

    @property
    def n_rows(self) -> int:
        """How many rows there are."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Some of them [stop - start, p]."""

    def __iter__(self) -> Iterator[Tensor]:
        """All of them, in order."""


@dataclass(frozen=True)
class InnerForm:
    """A measure that is a function of the inner product of two vectors, one per side.

    `vector` makes of rows [..., n, p] values [..., m], where m hangs on n alone; `score` goes over inner products. Made for
    many small matrices, each of which is compared with many others. `near` is that of measures to which a row added to all
    rows is nothing: it does the same with rows that have been taken relative to some common row, faster, and tells for
    which matrices [...] rounding was too much, so that `vector` has to see them as they were.
    """

    vector: Callable[[Tensor], Tensor]
    score: Callable[[Tensor], Tensor]
    near: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class BatchForm:
    """A measure made of inner products of kernels of `rows` consecutive rows, which are added up over batches.

    `kernel` makes of rows [k, p], k ≤ `rows`, values [m] whose inner product over two layers is the batch's term; batches
    of fewer than `fewest` rows are left out. `score` gets ΣK·L, ΣK·K and ΣL·L.
    """

    rows: int
    fewest: int
    kernel: Callable[[Tensor], Tensor]
    score: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PairForm:
    """A measure of two n × n matrices that are made of the squared distances between rows, tile by tile.

    `mapping` says between which rows: it makes a map of raw rows. `fit` passes over a layer's squared distances and gives
    the function that makes a tile of the matrix. Tiles are compared by their inner product, or with `gaps` by the sum of
    their squared differences; `score` gets that, and the same of either side with itself.
    """

    mapping: Callable[[Blocks], RowMap]
    fit: Callable[[Tiles], Callable[[Tile], Tensor]]
    score: Callable[[Tensor, Tensor, Tensor], Tensor]
    gaps: bool = False


@dataclass(frozen=True)
class Measure:
    """A pair of functions; measures that share `prepare` share its result, a named tuple of tensors.

    The other forms give the same number in a way in which rows can be streamed; a measure has those that it can have.
    `whiten` is that of measures whose `prepare` is a factorisation Xc = U diag(σ) Vᵀ: from the moments of a layer it
    gives the map of centred rows to U, with σ and Vᵀ; `compare` needs no more of U and U' than their product. `own` is that
    of measures that compare one number per layer: it makes what `prepare` does of blocks of rows. `k` is how many nearest rows
    it looks for, if it does. `grouped` is that of measures that hold rows out: from the group of every row it makes the measure
    that holds out whole groups. `square` says that `prepare` holds n × n matrices; `at_once` how many float64 values two layers
    [n, p] and their comparison hold, where that is more. `drawn` is how many rows a score is of at most, 0 for all; `grams` how
    many Gram matrices of a layer `prepare` holds. `across` is that of measures that know distances across repeated measurements:
    from the name of one it makes the measure whose `prepare_repeats` takes rows [..., n, repeats · p] and the number of repeats.
    `shuffled_mean` is the mean over all shuffles of n rows, of measures that know it from two prepared layers.
    """

    prepare: Callable[[Tensor], Any]
    compare: Callable[[Any, Any], Tensor]
    moments: MomentForm | None = None
    rowwise: RowForm | None = None
    energy: EnergyForm | None = None
    whiten: Callable[[Moments], Any] | None = None
    own: Callable[[Blocks], Any] | None = None
    batches: BatchForm | None = None
    pairs: PairForm | None = None
    inner: InnerForm | None = None
    k: int = 0
    square: bool = False
    drawn: int = 0
    grams: int = 0
    at_once: Callable[[int, int], int] | None = None
    grouped: "Callable[[tuple[int, ...]], Measure] | None" = None
    across: "Callable[[str], Measure] | None" = None
    prepare_repeats: Callable[[Tensor, int], Any] | None = None
    shuffled_mean: Callable[[Any, Any, int], Tensor] | None = None


class MomentPrepared(NamedTuple):
    """Centred rows [..., n, p] (or fewer, rotated columns) and what `own` made of their moments."""

    rows: Tensor
    own: Any


def moment_measure(form: MomentForm, rotation_invariant: bool) -> Measure:
    """The measure that a moment form defines.

    Where a rotation of columns changes nothing, X with n < p is replaced by its coordinates in its own row space.
    """

    def prepare(x: Tensor) -> MomentPrepared:
        rows, mean = centred(x), x.double().mean(dim=-2)
        if rotation_invariant and rows.shape[-2] + 1 < rows.shape[-1]:
            # coordinates of the rows and of their mean in the space that they span
            together = xp.linalg.qr(xp.cat([rows, mean.unsqueeze(-2)], dim=-2).mT).R.mT
            rows, mean = together[..., :-1, :], together[..., -1, :]
        scatter = rows.mT @ rows if form.scatter else None
        return MomentPrepared(rows, form.own(Moments(x.shape[-2], mean, rows.square().sum(dim=-2), scatter)))

    def compare(a: MomentPrepared, b: MomentPrepared) -> Tensor:
        return form.score(a.own, b.own, a.rows.mT @ b.rows)

    return Measure(prepare, compare, form)


def expand(prepared: Any, dim: int) -> Any:
    """Prepared tensors (nested in named tuples) with a new leading dimension, against which another side broadcasts."""
    if is_tensor(prepared):
        return prepared.unsqueeze(dim)
    if isinstance(prepared, tuple):
        return type(prepared)(*(expand(part, dim) for part in prepared))
    return prepared


def centred(x: Tensor) -> Tensor:
    """X [..., n, p] minus its column means, in float64.

    Columns are shifted by their first row before the mean is taken: of a large common offset no digit is lost, and a
    constant column becomes exactly zero.
    """
    shifted = x - x[..., :1, :].double()
    shifted -= shifted.mean(dim=-2, keepdim=True)
    return shifted


def centred_in_place(x: Tensor) -> Tensor:
    """X [..., n, p] in float64 less its column means, written over X."""
    x -= x[..., :1, :].clone()
    x -= x.mean(dim=-2, keepdim=True)
    return x
