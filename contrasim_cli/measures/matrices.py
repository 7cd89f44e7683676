"""Measures of two n × n matrices of similarities or distances between rows.

Everything is float64. `prepare` holds one n × n matrix per layer, or its n(n - 1)/2 entries above the diagonal, and
`compare` is one inner product of two of them. The pair forms make the same matrices tile by tile.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.distances import (
    above_diagonal,
    all_squared_distances,
    average_ranks,
    centred_directions,
    directions_map,
    double_centred,
    ranks_of_tiles,
    scaled,
    scaled_map,
    sorted_ranks_of_tiles,
    unit,
    upper_squared_distances,
)
from contrasim_cli.measures.kendall import tau_a
from contrasim_cli.measures.protocol import Blocks, Measure, PairForm
from contrasim_cli.measures.repeats import cross_validated, split_half
from contrasim_cli.measures.tiles import RowMap, Tile, Tiles

RSMS = ("pearson", "cosine", "euclidean", "sqeuclidean")
COMPARISONS = ("spearman", "pearson", "cosine", "cosine-rdm", "rho-a", "tau-a", "corr-cov", "cosine-cov")
DISTANCES_AS_THEY_ARE = ("euclidean", "sqeuclidean")  # the similarities of which are distances, with another sign
RANKS = ("spearman", "rho-a", "tau-a")  # see order only
WHITENED = ("corr-cov", "cosine-cov")
CONSTANT = 1e-12  # a deviation below this part of the largest value is rounding
ZERO = 1e-13  # a similarity below this is rounding, of rows scaled to 1


class Pairs(NamedTuple):
    """One number per pair of rows r < s."""

    values: Tensor  # [..., n(n - 1)/2]


class Matrix(NamedTuple):
    """A double-centred n × n matrix of Frobenius norm 1."""

    values: Tensor  # [..., n, n]


def prepare_rsa(x: Tensor, rsm: str, compare: str) -> Pairs:
    """The row-similarity matrix of X [..., n, p] above its diagonal, as the comparison takes it.

    Similarities are Pearson correlations of two rows' entries (a row that is constant has none: undefined, as with one
    column), cosines (undefined with a zero row), or Euclidean distances or their squares, whose sign no comparison of two
    sides sees. Dissimilarities are 1 - r, 1 - cosine, and these distances. `cosine` is of the similarities, `cosine-rdm` of
    the dissimilarities.
    """
    if x.shape[-2] < 2:
        return Pairs(xp.full((*x.shape[:-2], 1), xp.nan, dtype=xp.float64, device=x.device))
    squared = upper_squared_distances(compared_rows(x, rsm))
    if compare in RANKS:  # squared distances have the same order
        return pairs(squared, compare)
    values = dissimilarity(rsm)(squared)
    if compare != "cosine":
        return pairs(values, compare)
    values = values if rsm in DISTANCES_AS_THEY_ARE else 1 - values
    return Pairs(unit(_cleared(values, xp.full_like(_largest(values), ZERO)), dim=-1))


def pairs(values: Tensor, compare: str) -> Pairs:
    """Dissimilarities [..., pairs] as a comparison takes them that needs no matrix."""
    if compare in RANKS:
        return Pairs(ranked(average_ranks(values), compare))
    if compare == "cosine-rdm":
        return Pairs(unit(values, dim=-1))
    deviation = values - values.mean(dim=-1, keepdim=True)  # neither shift nor factor changes a correlation
    return Pairs(unit(_cleared(deviation, CONSTANT * _largest(values)), dim=-1))


def ranked(ranks: Tensor, compare: str) -> Tensor:
    """Ranks [..., m] less their mean, scaled for the comparison, or twice the ranks for τ-a; NaN where all are tied."""
    if compare == "tau-a":
        return (2 * ranks).where((ranks != ranks[..., :1]).any(dim=-1, keepdim=True), xp.nan)
    centred_ranks = ranks - ranks.mean(dim=-1, keepdim=True)
    if compare == "spearman":
        return unit(centred_ranks, dim=-1)
    varies = centred_ranks.any(dim=-1, keepdim=True)
    scale = rho_a_scale(ranks.shape[-1]) if compare == "rho-a" else 1.0
    return (centred_ranks * scale).where(varies, xp.nan)


def rho_a_scale(pairs: int) -> float:
    """√(12 / (m³ - m)), by which ranks of m untied values less their mean have norm 1."""
    return math.sqrt(12 / (pairs**3 - pairs)) if pairs > 1 else math.nan


def prepare_whitened(x: Tensor, rsm: str, compare: str) -> Matrix:
    """The dissimilarities of X [..., n, p] in a space in which their errors are independent and equal; NaN as `whitening` says."""
    return whitening(dissimilarity(rsm)(all_squared_distances(compared_rows(x, rsm))), compare)


def whitening(values: Tensor, compare: str) -> Matrix:
    """Dissimilarities [..., n, n] in a space in which their errors are independent and equal.

    For d estimated from independent patterns the covariance of the d's is V = Ξ∘Ξ with Ξ = C Cᵀ, C the pairwise contrasts of
    rows, and dᵀ V⁻¹ d' is the inner product of the double-centred matrices up to a factor (Diedrichsen et al. 2021).
    `corr-cov` takes the mean over pairs from d before. NaN where d is zero (`corr-cov`: constant).
    """
    if compare == "corr-cov":
        n = values.shape[-1]
        others = ~xp.eye(n, dtype=xp.bool, device=values.device)
        deviation = (values - values.sum(dim=(-2, -1), keepdim=True) / max(n * (n - 1), 1)) * others
        largest = values.abs().amax(dim=(-2, -1), keepdim=True)
        values = deviation * (deviation.abs().amax(dim=(-2, -1), keepdim=True) > CONSTANT * largest)
    return Matrix(unit(double_centred(values), dim=(-2, -1)))


def prepare_across(x: Tensor, repeats: int, distance: str, rsm: str, compare: str) -> Pairs | Matrix:
    """Dissimilarities across the `repeats` measurements of X [..., n, repeats · p], as the comparison takes them.

    The distance is one of `repeats.ACROSS`; `split-half` takes that of `rsm` across halves. Where `compare` is `cosine`, which
    looks at similarities, it has none.
    """
    if x.shape[-2] < 2:
        return prepare_rsa(x, rsm, compare)
    if distance == "split-half":
        values = split_half(x, repeats, partial(compared_rows, rsm=rsm), dissimilarity(rsm))
    else:
        values = cross_validated(x, repeats, distance)
    return whitening(values, compare) if compare in WHITENED else pairs(above_diagonal(values), compare)


def dissimilarity(rsm: str) -> Callable[[Tensor], Tensor]:
    """What makes dissimilarities, in new memory, of the squared distances of the compared rows."""
    if rsm == "euclidean":
        return lambda squared: squared.sqrt()
    return (
        (lambda squared: squared.clone()) if rsm == "sqeuclidean" else _half
    )  # 1 - cosine is half of the squared distance of unit rows


def _half(squared: Tensor) -> Tensor:
    return squared / 2


def compared_rows(x: Tensor, rsm: str) -> Tensor:
    """Rows [..., n, p] whose squared distances are the dissimilarities, up to a factor."""
    if rsm in DISTANCES_AS_THEY_ARE:
        return scaled(x)[0]
    if rsm == "cosine":
        return centred_directions(x)
    return centred_directions(_deviations(x))


def _deviations(x: Tensor) -> Tensor:
    """Entries of each row [..., p] less their mean."""
    shifted = x.double() - x[..., :1].double()  # of a large common offset no digit is lost
    return shifted - shifted.mean(dim=-1, keepdim=True)


def _largest(values: Tensor) -> Tensor:
    if values.shape[-1] == 0:
        return values.new_zeros((*values.shape[:-1], 1))
    return values.abs().amax(dim=-1, keepdim=True)


def _cleared(values: Tensor, rounding: Tensor) -> Tensor:
    """The values, all zero where none is above the rounding."""
    return values * (_largest(values) > rounding)


def inner(a: Pairs, b: Pairs) -> Tensor:
    """RSA [...] (Kriegeskorte et al. 2008): correlation or cosine of two row-similarity matrices' upper triangles, in [-1, 1].

    Higher is more similar. NaN where a side's similarities are undefined or all equal (for cosines: all zero). `rho-a` is
    12 / (m³ - m) Σ r r' of the m pairs' ranks less their mean: Spearman's without a correction for ties, the mean of
    Spearman's over all ways of breaking them (Schütt et al. 2023). X with itself is below 1 where it has ties.
    """
    return (a.values * b.values).sum(dim=-1)


def kendall(a: Pairs, b: Pairs) -> Tensor:
    """RSA [...] by Kendall's τ-a (Nili et al. 2014), in [-1, 1]; X with itself is below 1 where it has ties."""
    return tau_a(a.values, b.values)


def whitened(a: Matrix, b: Matrix) -> Tensor:
    """RSA [...] by whitened dissimilarities, in [-1, 1]; of squared Euclidean ones `cosine-cov` is `cka`."""
    return (a.values * b.values).sum(dim=(-2, -1))


def prepare_distances(x: Tensor) -> Pairs:
    """Euclidean distances of the pairs of rows of X [..., n, p]."""
    rows, scale = scaled(x)
    return Pairs(upper_squared_distances(rows).sqrt() * scale.squeeze(-1))


def rsm_norm_difference(a: Pairs, b: Pairs) -> Tensor:
    """‖D_X - D_Y‖_F [...] of the n × n Euclidean distance matrices, in [0, ∞); lower is more similar. Always defined.

    Yin & Shen 2018, Pairwise Inner Product loss, with distances for inner products. Grows with n and with the scale.
    """
    difference = a.values - b.values
    largest = _largest(difference)
    norm: Tensor = xp.linalg.vector_norm(difference / largest.where(largest > 0, 1.0), dim=-1)
    return 2**0.5 * norm * largest.squeeze(-1)  # each pair is twice in the matrix


def prepare_distance_correlation(x: Tensor) -> Matrix:
    """The double-centred Euclidean distance matrix of X [..., n, p]; NaN where all rows are equal."""
    distances = all_squared_distances(scaled(x)[0]).sqrt()
    return Matrix(unit(double_centred(distances), dim=(-2, -1)))


def distance_correlation(a: Matrix, b: Matrix) -> Tensor:
    """√(dCov² / √(dVar_X dVar_Y)) [...], the V-statistics of Székely et al. 2007 (Def. 4, 5), in [0, 1].

    Higher is more similar. NaN where all rows of a side are equal. Public implementations that report the square, or
    the bias-corrected U-statistic, give other numbers.
    """
    return (a.values * b.values).sum(dim=(-2, -1)).clamp(min=0.0).sqrt()


@cache
def rsa_preparer(rsm: str, compare: str) -> Callable[[Tensor], Pairs | Matrix]:
    """`prepare` of `rsa` with its settings; the same function for the same ones.

    Raises:
        ValueError: a setting is unknown.
    """
    if rsm not in RSMS or compare not in COMPARISONS:
        raise ValueError(f"expected one of {RSMS} and one of {COMPARISONS}, found {rsm!r} and {compare!r}")
    prepare = prepare_whitened if compare in WHITENED else prepare_rsa
    return lambda x: prepare(x, rsm, compare)


# --- the same in tiles --------------------------------------------------------------------------------------------------

Make = Callable[[Tile], Tensor]


def cosine_of(cross: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """⟨A, B⟩ / (‖A‖ ‖B‖) from the inner products."""
    return cross / (first.sqrt() * second.sqrt())


def _rsa_mapping(rsm: str) -> Callable[[Blocks], RowMap]:
    if rsm in DISTANCES_AS_THEY_ARE:
        return scaled_map
    return directions_map if rsm == "cosine" else _deviations_map


def _deviations_map(blocks: Blocks) -> RowMap:
    return directions_map(blocks, _deviations)


def _fit_rsa(tiles: Tiles, rsm: str, compare: str) -> Make:
    """What `prepare` of `rsa` makes of all pairs, up to a factor."""
    if compare in ("spearman", "rho-a"):
        return _fit_ranks(tiles, compare)
    value = dissimilarity(rsm)
    if compare == "cosine-rdm":
        return lambda tile: tile.without_self(value(tile.squared))
    if compare == "cosine-cov":
        return double_centring(tiles, lambda tile: tile.without_self(value(tile.squared)))
    if compare == "cosine":
        similar = value if rsm in DISTANCES_AS_THEY_ARE else lambda squared: 1 - value(squared)
        seen = _seen(tiles, similar)
        return lambda tile: tile.without_self(similar(tile.squared) * (seen.largest > ZERO))
    seen = _seen(tiles, value)
    varies = seen.deviation > CONSTANT * seen.largest

    def deviation(tile: Tile) -> Tensor:
        return tile.without_self((value(tile.squared) - seen.mean) * varies)

    return double_centring(tiles, deviation) if compare == "corr-cov" else deviation


def _fit_ranks(tiles: Tiles, compare: str) -> Make:
    scale = rho_a_scale(tiles.pairs) / math.sqrt(2) if compare == "rho-a" else 1.0  # the matrix holds every pair twice
    mean = (tiles.pairs - 1) / 2
    if tiles.sortable:
        return _sorted_ranks(tiles, mean, scale)
    ranks = ranks_of_tiles(tiles)
    if not len(ranks.edges):
        scale = math.nan
    return lambda tile: tile.without_self((ranks.of(tile.squared) - mean) * scale)


def _sorted_ranks(tiles: Tiles, mean: float, scale: float) -> Make:
    """Ranks of all pairs, where these are held."""
    values = sorted_ranks_of_tiles(tiles) - mean
    varies = bool(distributed.largest(values.abs().amax() if len(values) else tiles.scale.new_zeros(())))
    values *= scale if varies else math.nan
    parts: dict[tuple[int, int], Tensor] = {}
    start = 0
    for position in tiles.own_positions:
        stop = start + tiles.pairs_at(*position)
        parts[position] = values[start:stop]
        start = stop

    def make(tile: Tile) -> Tensor:
        once = parts[tile.top, tile.left]
        if not tile.on_diagonal:
            return once.reshape(tile.shape)
        whole = once.new_zeros(tile.shape)
        position = xp.arange(len(whole), device=whole.device)
        whole[position > position[:, None]] = once
        return whole + whole.mT

    return make


class _Seen(NamedTuple):
    """What is known of the values of all pairs r < s."""

    mean: Tensor
    largest: Tensor  # in absolute value
    deviation: Tensor  # the largest from the mean


def _seen(tiles: Tiles, value: Callable[[Tensor], Tensor]) -> _Seen:
    total = tiles.scale.new_zeros(())
    low, high = total + xp.inf, total - xp.inf
    for tile in tiles:
        values = value(tile.once())
        if len(values):
            total += values.sum()
            low, high = xp.minimum(low, values.amin()), xp.maximum(high, values.amax())
    if not tiles.pairs:
        return _Seen(total, total, total)
    distributed.total(total)
    low, high, mean = -distributed.largest(-low), distributed.largest(high), total / tiles.pairs
    return _Seen(mean, xp.maximum(low.abs(), high.abs()), xp.maximum(mean - low, high - mean))


def _fit_distances(tiles: Tiles) -> Make:
    return lambda tile: tile.squared.sqrt() * tiles.scale


def double_centring(tiles: Tiles, make: Make) -> Make:
    """H M H, tile by tile, of the n × n matrix M that is made of the squared distances."""
    sums = tiles.scale.new_zeros(tiles.n_rows)
    for tile in tiles:
        tile.row_sums(make(tile), sums)
    distributed.total(sums)
    means = sums / tiles.n_rows
    whole = means.mean()
    return lambda tile: make(tile) - means[tile.rows, None] - means[tile.columns] + whole


DISTANCES = PairForm(scaled_map, _fit_distances, lambda gap, first, second: gap.sqrt(), gaps=True)
CENTRED_DISTANCES = PairForm(
    scaled_map,
    lambda tiles: double_centring(tiles, lambda tile: tile.squared.sqrt()),
    lambda cross, first, second: cosine_of(cross, first, second).clamp(min=0.0).sqrt(),
)


@cache
def rsa_pairs(rsm: str, compare: str) -> PairForm | None:
    """The pair form of `rsa`, the same for the same settings; None of τ-a, which is no inner product of two matrices."""
    if compare == "tau-a":
        return None
    score = (lambda cross, first, second: cross) if compare == "rho-a" else cosine_of
    return PairForm(_rsa_mapping(rsm), lambda tiles: _fit_rsa(tiles, rsm, compare), score)


def _rsa(options: Options) -> Measure:
    """RSA, and as `across` RSA with a side that was measured repeatedly, whose covariance of noise is [p, p]."""
    prepare = rsa_preparer(options.rsm, options.rsm_compare)
    compare = whitened if options.rsm_compare in WHITENED else kendall if options.rsm_compare == "tau-a" else inner
    form = rsa_pairs(options.rsm, options.rsm_compare)

    def across(distance: str) -> Measure:
        made = partial(prepare_across, distance=distance, rsm=options.rsm, compare=options.rsm_compare)
        return Measure(prepare, compare, at_once=lambda n, p: 6 * n * n + 6 * n * p + p * p, prepare_repeats=made)

    held = None if form else lambda n, p: 6 * n * n + 4 * n * p
    return Measure(prepare, compare, pairs=form, at_once=held, across=across)


MEASURES = {
    "rsa": _rsa,
    "rsm_norm_difference": lambda options: Measure(prepare_distances, rsm_norm_difference, pairs=DISTANCES),
    "distance_correlation": lambda options: Measure(
        prepare_distance_correlation, distance_correlation, pairs=CENTRED_DISTANCES
    ),
}
