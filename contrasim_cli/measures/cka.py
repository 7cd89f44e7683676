"""Centred kernel alignment (Kornblith et al. 2019). Higher is more similar.

`cka` is linear (Eq. 8 of the paper), in [0, 1]; `rv`, the RV coefficient (Robert & Escoufier 1976), is the same number.
`cka_debiased` and `cka_minibatch` estimate without bias (Song et al. 2012, Nguyen et al. 2021), in [-1, 1]: what is
unrelated scores about 0 and therefore also below. `cka_rbf` has Gaussian kernels, in [0, 1].

Memory per prepared layer [n, p]: n · min(n, p), of `cka_minibatch` n · min(batch, p), of `cka_rbf` n².
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from contrasim_cli.arrays import Tensor, as_tensor, xp
from contrasim_cli.measures.distances import (
    all_squared_distances,
    double_centred,
    median,
    median_of_tiles,
    scaled,
    scaled_map,
    unit,
)
from contrasim_cli.measures.matrices import cosine_of, double_centring
from contrasim_cli.measures.protocol import BatchForm, Energies, EnergyForm, InnerForm, Measure, PairForm, centred
from contrasim_cli.measures.tiles import Tile, Tiles, upper

FEWEST_ROWS = 4  # of the unbiased estimator, which divides by n - 3
TINY = 16  # rows of batches whose products are made one by one, and centred by one matrix for all
CANCELLED = 8.0  # trace over √n times the norm, beyond which centring after the products costs digits
SQUARES = {  # by bytes of a value: norms of Gram matrices between which no square leaves the type or vanishes that counts
    4: (1e-24, 1e34),
    8: (1e-200, 1e300),
}
ROUNDING = 1e-12  # an unbiased ⟨K, K⟩ below this part of the biased one is rounding


class Centred(NamedTuple):
    """Either side of CKA, scaled so that ‖XᵀX‖_F = 1; NaN where X has no variance."""

    gram: Tensor | None  # [..., n, n], where n < p
    rows: Tensor | None  # [..., n, p] else


def prepare(x: Tensor) -> Centred:
    """X [..., n, p], centred and scaled, in the smaller of its Gram and its feature form."""
    rows = _scaled(x)
    if rows.shape[-2] < rows.shape[-1]:
        gram = rows @ rows.mT
        return Centred(gram / _norm(gram), None)
    return Centred(None, rows / _norm(rows.mT @ rows).sqrt())


def compare(a: Centred, b: Centred) -> Tensor:
    """‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) [...], through whichever forms the sides have."""
    return _kernel_inner(a.gram, a.rows, b.gram, b.rows)


def energy(e: Energies) -> Tensor:
    """`compare` from inner products of Gram matrices."""
    return e.cross / (e.first.sqrt() * e.second.sqrt())


def energy_shuffled(e: Energies) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `energy` over all n! orders of Y's rows (Kazi-Aoual et al. 1995, of the RV coefficient).

    The deviation is undefined below 4 rows. With T = tr K, S = ⟨K, K⟩ and D = Σ_r K_rr² of either side, and K 1 = 0:

        mean of ⟨K, L⟩      T T' / (n - 1)
        variance of ⟨K, L⟩  2 ((n - 1) S - T²) ((n - 1) S' - T'²) / ((n - 1)² (n + 1) (n - 2))
                            + c c' / (n (n + 1) (n - 1) (n - 2) (n - 3)),   c = n (n + 1) D - (n - 1) (T² + 2 S)
    """
    n, norms = float(e.n), e.first.sqrt() * e.second.sqrt()  # n⁵ leaves the integers from 6,208 rows on
    mean = e.trace_first * e.trace_second / norms / max(1, n - 1)
    if n < FEWEST_ROWS:
        return mean, xp.full_like(mean, xp.nan)
    # each side with S = 1, so that no product of fourth powers of the values leaves the type
    sides = ((e.trace_first, e.first, e.diagonal_first), (e.trace_second, e.second, e.diagonal_second))
    spreads = [(n - 1) - trace.square() / own for trace, own, _ in sides]
    kurtoses = [n * (n + 1) * diagonal / own - (n - 1) * (trace.square() / own + 2) for trace, own, diagonal in sides]
    variance = 2 * spreads[0] * spreads[1] / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance = variance + kurtoses[0] * kurtoses[1] / (n * (n + 1) * (n - 1) * (n - 2) * (n - 3))
    return mean, variance.clamp(min=0).sqrt()


def unit_kernels(x: Tensor) -> Tensor:
    """XcXcᵀ / ‖XcXcᵀ‖_F [..., n²] of X [..., n, p], in float64; NaN where X has no variance.

    Products are in the type of the rows, and made again in float64 where that costs digits: inner products of vectors that
    were made in float32 err by some 1e-7.
    """
    kernels, lost = near_kernels(x - x[..., :1, :])
    if bool(lost.any()):
        kernels[lost] = _exact_gram(x[lost].double()).flatten(-2)
    return kernels


def near_kernels(x: Tensor) -> tuple[Tensor, Tensor]:
    """`unit_kernels` of rows near the origin, and where [...] it has cost digits that they are not nearer.

    Centring, which is H XXᵀ H with H = I - 1/n, is done to the small matrix. Its rounding counts where the rows' common
    part is large beside the rest, and where squares leave the type or vanish.
    """
    grams = _products(x.reshape(-1, *x.shape[-2:])).double()
    traces = grams.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    kernels = _double_centred(grams)
    norms = xp.linalg.vector_norm(kernels, dim=-1)
    low, high = SQUARES[x.itemsize]
    lost = ~((norms > low) & (norms < high) & (traces < CANCELLED * grams.shape[-1] ** 0.5 * norms))
    return (kernels / norms.unsqueeze(-1)).reshape(*x.shape[:-2], -1), lost.reshape(x.shape[:-2])


def _products(rows: Tensor) -> Tensor:
    """XXᵀ [k, n, n] of X [k, n, p]."""
    if rows.is_cuda or rows.shape[1] > TINY:
        return xp.bmm(rows, rows.mT)
    one = rows.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        # at such sizes NumPy takes half the time, if it does not know that the factors are the same
        return as_tensor(one @ one.copy().swapaxes(1, 2), rows.device)


def _double_centred(grams: Tensor) -> Tensor:
    """H G H [k, n²], H = I - 1/n, of matrices G [k, n, n]."""
    n = grams.shape[-1]
    if n > TINY:
        rows = grams - grams.mean(dim=-1, keepdim=True)
        return (rows - rows.mean(dim=-2, keepdim=True)).flatten(-2)
    centring = xp.eye(n, dtype=grams.dtype, device=grams.device) - 1 / n
    return grams.flatten(-2) @ xp.kron(centring, centring)


def _exact_gram(x: Tensor) -> Tensor:
    """`prepare` in its Gram form [..., n, n]."""
    gram = gram_form(prepare(x)).gram
    assert gram is not None
    return gram


class Debiased(NamedTuple):
    """Either side of debiased CKA, scaled so that its inner product with itself is 1; NaN where that is zero.

    The Gram form is the U-centred Gram matrix Ũ (Székely & Rizzo 2014), of zero diagonal and zero row sums, with
    ⟨Ũ, Ṽ⟩ / (n (n - 3)) the estimator of Song et al. 2012, Eq. 5.
    """

    gram: Tensor | None  # Ũ [..., n, n], where n < p
    rows: Tensor | None  # [..., n, p] else, centred
    lengths: Tensor | None  # ‖x_r‖² [..., n], with the rows


def prepare_debiased(x: Tensor) -> Debiased:
    """X [..., n, p] in the smaller of its forms; undefined below 4 rows and where K̃ is a sum of a row and a column term."""
    form, own = _unbiased(_scaled(x))
    return _times(form, own.where(own > 0, xp.nan).rsqrt())


def _unbiased(rows: Tensor) -> tuple[Debiased, Tensor]:
    """Centred rows [..., n, p] in the smaller of their forms, and its inner product with itself [...], 0 where that is rounding."""
    n, p = rows.shape[-2:]
    if n < FEWEST_ROWS:
        nothing = rows.new_full((*rows.shape[:-2], n, n), xp.nan)
        return Debiased(nothing, None, None), rows.new_zeros(rows.shape[:-2])
    if n < p:
        gram = rows @ rows.mT
        form = Debiased(_u_centred(gram), None, None)
        biased, rounding = _squared(gram), ROUNDING**2  # Ũ itself is rounded, not its square
    else:
        form = Debiased(None, rows, rows.square().sum(dim=-1))
        biased, rounding = _squared(rows.mT @ rows), ROUNDING
    own = compare_debiased(form, form)
    return form, own.where(~(own <= rounding * biased), 0.0)


def _times(form: Debiased, factor: Tensor) -> Debiased:
    """The form of the kernel times a factor [...]."""
    each = factor[..., None, None]
    return Debiased(
        None if form.gram is None else form.gram * each,
        None if form.rows is None else form.rows * each.sqrt(),
        None if form.lengths is None else form.lengths * factor[..., None],
    )


def _u_centred(gram: Tensor) -> Tensor:
    """K̃ less its row and column means over n - 2 and its mean over (n - 1)(n - 2), off the diagonal [..., n, n]."""
    n = gram.shape[-1]
    off = gram - xp.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    sums = off.sum(dim=-1, keepdim=True)
    total = sums.sum(dim=-2, keepdim=True)
    off = off - sums / (n - 2) - sums.mT / (n - 2) + total / ((n - 1) * (n - 2))
    return off - xp.diag_embed(off.diagonal(dim1=-2, dim2=-1))


def compare_debiased(a: Debiased, b: Debiased) -> Tensor:
    """HSIC₁(K, L) / √(HSIC₁(K, K) HSIC₁(L, L)) [...], with linear kernels and Song et al. 2012, Eq. 5; never clamped.

    Undefined where HSIC₁(K, K) is zero: all rows equal, or equally far from each other, or all but one equal.
    """
    biased = _kernel_inner(a.gram, a.rows, b.gram, b.rows)
    if a.rows is None or b.rows is None:
        return biased  # Ũ is orthogonal to everything that centring takes from the other side
    assert a.lengths is not None
    assert b.lengths is not None
    traces = a.lengths.sum(dim=-1) * b.lengths.sum(dim=-1)
    return _without_diagonal(a.rows.shape[-2], biased, (a.lengths * b.lengths).sum(dim=-1), traces)


def gram_form(side: Centred | Debiased) -> Centred | Debiased:
    """A side in its Gram form, whichever is the smaller one."""
    if side.rows is None:
        return side
    gram = side.rows @ side.rows.mT
    return Centred(gram, None) if isinstance(side, Centred) else Debiased(_u_centred(gram), None, None)


def _debiased_kernels(x: Tensor) -> Tensor:
    """`prepare_debiased` in its Gram form [..., n²]."""
    gram = gram_form(prepare_debiased(x)).gram
    assert gram is not None
    return gram.flatten(-2)


def _without_diagonal(n: int, biased: Tensor, diagonals: Tensor, traces: Tensor) -> Tensor:
    """n (n - 3) HSIC₁ from ⟨K, L⟩, Σ_r K_rr L_rr and tr K · tr L of centred K, L, whose rows sum to zero.

    tr(K̃L̃) + 1ᵀK̃1 1ᵀL̃1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1ᵀK̃L̃1, where K̃1 is minus the diagonal of K.
    """
    return biased - n / (n - 2) * diagonals + traces / ((n - 1) * (n - 2))


def energy_debiased(e: Energies) -> Tensor:
    """`compare_debiased` from inner products of Gram matrices and of their diagonals."""
    if e.n < FEWEST_ROWS:
        return xp.full_like(e.cross, xp.nan)
    cross = _without_diagonal(e.n, e.cross, e.diagonal_cross, e.trace_first * e.trace_second)
    first = _without_diagonal(e.n, e.first, e.diagonal_first, e.trace_first * e.trace_first)
    second = _without_diagonal(e.n, e.second, e.diagonal_second, e.trace_second * e.trace_second)
    first = first.where(first > e.rounding * e.first, xp.nan)
    second = second.where(second > e.rounding * e.second, xp.nan)
    return cross / (first.sqrt() * second.sqrt())


def energy_debiased_shuffled(e: Energies) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `energy_debiased` over all n! orders of Y's rows: 0 and √(2 / (n (n - 3))).

    U-centred matrices have rows that sum to 0 and no diagonal, so that T = D = 0 in the formulas of `energy_shuffled`.
    """
    spread = math.sqrt(2 / (e.n * (e.n - 3))) if e.n >= FEWEST_ROWS else math.nan
    return xp.zeros_like(e.cross), xp.full_like(e.cross, spread)


class Batches(NamedTuple):
    """Batches of rows as `Debiased` holds them, scaled so that Σ_b HSIC₁(K_b, K_b) = 1; NaN where that is zero."""

    full: Debiased | None  # [..., batches, batch, ·]
    last: Debiased | None  # [..., 1, rest, ·]


def prepare_minibatch(x: Tensor, batch: int) -> Batches:
    """X [..., n, p] cut into consecutive batches of rows; a last one below 4 rows is left out."""
    if min(batch, x.shape[-2]) < FEWEST_ROWS:
        return Batches(None, prepare_debiased(x[..., None, : FEWEST_ROWS - 1, :]))
    rows = _scaled(x)
    whole = rows.shape[-2] // batch * batch
    cut = [rows[..., :whole, :].reshape(*rows.shape[:-2], -1, batch, rows.shape[-1])] if whole else []
    if rows.shape[-2] - whole >= FEWEST_ROWS:
        cut.append(rows[..., None, whole:, :])
    made = [(*_unbiased(centred(part)), part.shape[-2] * (part.shape[-2] - 3)) for part in cut]
    total = xp.stack([own.sum(dim=-1) / times for _, own, times in made]).sum(dim=0)
    total = total.where(total > 0, xp.nan).unsqueeze(-1)
    forms = [_times(form, (total * times).rsqrt()) for form, _, times in made]
    return Batches(forms[0] if whole else None, forms[-1] if len(forms) > bool(whole) else None)


def compare_minibatch(a: Batches, b: Batches) -> Tensor:
    """Σ_b HSIC₁(K_b, L_b) / √(Σ_b HSIC₁(K_b, K_b) Σ_b HSIC₁(L_b, L_b)) [...] (Nguyen et al. 2021); never clamped.

    One batch of all rows is `cka_debiased`. Public implementations differ in shuffling rows, and in dropping a last
    batch or counting it like a full one.
    """
    pairs = ((a.full, b.full), (a.last, b.last))
    found = [compare_debiased(one, other).sum(dim=-1) for one, other in pairs if one is not None and other is not None]
    return xp.stack(found).sum(dim=0)


@cache
def minibatches(batch: int) -> BatchForm:
    """`compare_minibatch` with batches that follow each other; the same form for the same size."""
    return BatchForm(batch, FEWEST_ROWS, _u_kernel, _of_sums)


def _u_kernel(x: Tensor) -> Tensor:
    """Ũ [n²] of rows [n, p] over √(n (n - 3)), so that inner products are HSIC₁; zero where it is rounding."""
    rows = centred(x)
    gram = rows @ rows.mT
    kernel = _u_centred(gram)
    enough = _squared(kernel) > ROUNDING**2 * _squared(gram)
    return (kernel * enough / math.sqrt(len(x) * (len(x) - 3))).flatten()


def _of_sums(cross: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return cosine_of(cross, first.where(first > 0, xp.nan), second.where(second > 0, xp.nan))


class Kernel(NamedTuple):
    """A centred kernel matrix of Frobenius norm 1."""

    values: Tensor  # [..., n, n]


def prepare_rbf(x: Tensor, threshold: float) -> Kernel:
    """exp(-‖x_r - x_s‖² / 2σ²) of X [..., n, p], centred; σ is the threshold times the median distance of two rows r < s.

    Undefined where more than half of these pairs are of equal rows. Kornblith et al. publish code that takes the root of
    the median of squared distances, with the zeros of r = s among them: a slightly smaller σ.
    """
    rows, _ = scaled(x)
    squared = all_squared_distances(rows)
    sigma = threshold * median(upper(squared).sqrt())
    # less 1, which centring takes away: a wide kernel is 1 but for its last digits
    kernel = xp.expm1(-squared / (2 * sigma.where(sigma > 0, xp.nan).square()).unsqueeze(-1))
    return Kernel(unit(double_centred(kernel), dim=(-2, -1)))


@cache
def rbf_pairs(threshold: float) -> PairForm:
    """The pair form of `cka_rbf` with a threshold; the same for the same one."""

    def fit(tiles: Tiles) -> Callable[[Tile], Tensor]:
        sigma = threshold * median_of_tiles(tiles)
        doubled = 2 * sigma.where(sigma > 0, xp.nan).square()
        return double_centring(tiles, lambda tile: xp.expm1(-tile.squared / doubled))

    return PairForm(scaled_map, fit, cosine_of)


def compare_rbf(a: Kernel, b: Kernel) -> Tensor:
    """HSIC₀(K, L) / √(HSIC₀(K, K) HSIC₀(L, L)) [...] of Gaussian kernels, the biased estimator (Kornblith et al. 2019)."""
    return (a.values * b.values).sum(dim=(-2, -1))


def _kernel_inner(a_gram: Tensor | None, a_rows: Tensor | None, b_gram: Tensor | None, b_rows: Tensor | None) -> Tensor:
    """⟨K, L⟩ [...], each side a kernel [..., n, n] or rows with K = XXᵀ."""
    if a_gram is not None and b_gram is not None:
        return (a_gram * b_gram).sum(dim=(-2, -1))
    if a_gram is not None:
        return _kernel_inner(b_gram, b_rows, a_gram, a_rows)
    assert a_rows is not None
    if b_gram is not None:
        return ((b_gram @ a_rows) * a_rows).sum(dim=(-2, -1))  # tr(Xᵀ YYᵀ X)
    assert b_rows is not None
    return _squared(b_rows.mT @ a_rows)


def _scaled(x: Tensor) -> Tensor:
    """X [..., n, p], centred and of Frobenius norm 1; NaN where it has no variance."""
    rows = centred(x)
    largest = rows.abs().amax(dim=(-2, -1), keepdim=True)
    # the norm of XᵀX is a fourth power of the data: after scaling it neither overflows nor vanishes
    rows = rows / largest.where(largest > 0, xp.nan)
    return rows / _norm(rows)


def _norm(matrix: Tensor) -> Tensor:
    norm: Tensor = xp.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True)
    return norm


def _squared(matrix: Tensor) -> Tensor:
    return matrix.square().sum(dim=(-2, -1))


@cache
def minibatch_preparer(batch: int) -> Callable[[Tensor], Batches]:
    """`prepare_minibatch` with a batch size; the same function for the same one."""
    return lambda x: prepare_minibatch(x, batch)


@cache
def rbf_preparer(threshold: float) -> Callable[[Tensor], Kernel]:
    """`prepare_rbf` with a threshold; the same function for the same one."""
    return lambda x: prepare_rbf(x, threshold)


def _as_it_is(product: Tensor) -> Tensor:
    return product


ENERGY = EnergyForm(energy, energy_shuffled)
ENERGY_DEBIASED = EnergyForm(energy_debiased, energy_debiased_shuffled, diagonals=True)
UNIT_KERNELS = InnerForm(unit_kernels, _as_it_is, near_kernels)
DEBIASED_KERNELS = InnerForm(_debiased_kernels, _as_it_is)

MEASURES = {
    "cka": lambda options: Measure(prepare, compare, energy=ENERGY, inner=UNIT_KERNELS),
    "rv": lambda options: Measure(prepare, compare, energy=ENERGY, inner=UNIT_KERNELS),
    "cka_debiased": lambda options: Measure(
        prepare_debiased, compare_debiased, energy=ENERGY_DEBIASED, inner=DEBIASED_KERNELS
    ),
    "cka_minibatch": lambda options: Measure(
        minibatch_preparer(options.minibatch), compare_minibatch, batches=minibatches(options.minibatch)
    ),
    "cka_rbf": lambda options: Measure(
        rbf_preparer(options.rbf_threshold), compare_rbf, pairs=rbf_pairs(options.rbf_threshold)
    ),
}
