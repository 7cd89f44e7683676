"""Measures of two n × n matrices of similarities or distances between rows.

Everything is float64. `prepare` holds one n × n matrix per layer, or its n(n - 1)/2 entries above the diagonal, and
`compare` is one inner product of two of them. The pair forms make the same matrices tile by tile.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from contrasim_cli import distributed
from contrasim_cli.measures import Options
from contrasim_cli.measures.distances import (
    all_squared_distances,
    average_ranks,
    centred_directions,
    directions_map,
    double_centred,
    ranks_of_tiles,
    scaled,
    scaled_map,
    unit,
    upper_squared_distances,
)
from contrasim_cli.measures.protocol import Blocks, Measure, PairForm
from contrasim_cli.measures.tiles import RowMap, Tile, Tiles

RSMS = ("pearson", "cosine", "euclidean")
COMPARISONS = ("spearman", "pearson", "cosine")
CONSTANT = 1e-12  # a deviation below this part of the largest value is rounding
ZERO = 1e-13  # a similarity below this is rounding, of rows scaled to 1


class Pairs(NamedTuple):
    """One number per pair of rows r < s."""

    values: Tensor  # [..., n(n - 1)/2]


class Matrix(NamedTuple):
    """A double-centred n × n matrix of Frobenius norm 1."""

    values: Tensor  # [..., n, n]


def prepare_rsa(x: Tensor, rsm: str, compare: str) -> Pairs:
    """The row-similarity matrix of X [..., n, p] above its diagonal, scaled so that `inner` is the comparison.

    Similarities are Pearson correlations of two rows' entries (a row that is constant has none: undefined, as with one
    column), cosines (undefined with a zero row), or Euclidean distances, whose sign no comparison of two sides sees.
    """
    if x.shape[-2] < 2:
        return Pairs(x.new_full((*x.shape[:-2], 1), torch.nan, dtype=torch.float64))
    squared = upper_squared_distances(_compared_rows(x, rsm))
    if compare == "spearman":  # sees order only, which squared distances have
        ranks = average_ranks(squared)
        return Pairs(unit(ranks - ranks.mean(dim=-1, keepdim=True), dim=-1))
    if compare == "pearson":
        # 1 - cosine = half of the squared distance of unit rows; neither shift nor factor changes a correlation
        values = squared.sqrt() if rsm == "euclidean" else squared
        deviation = values - values.mean(dim=-1, keepdim=True)
        return Pairs(unit(_cleared(deviation, CONSTANT * _largest(values)), dim=-1))
    values = squared.sqrt() if rsm == "euclidean" else 1 - squared / 2
    return Pairs(unit(_cleared(values, torch.full_like(_largest(values), ZERO)), dim=-1))


def _compared_rows(x: Tensor, rsm: str) -> Tensor:
    """Rows [..., n, p] whose squared distances are the dissimilarities, up to a factor."""
    if rsm == "euclidean":
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

    Higher is more similar. NaN where a side's similarities are undefined or all equal (for cosine: all zero).
    """
    return (a.values * b.values).sum(dim=-1)


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
    norm: Tensor = torch.linalg.vector_norm(difference / largest.where(largest > 0, 1.0), dim=-1)
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
def rsa_preparer(rsm: str, compare: str) -> Callable[[Tensor], Pairs]:
    """`prepare_rsa` with its settings; the same function for the same ones.

    Raises:
        ValueError: a setting is unknown.
    """
    if rsm not in RSMS or compare not in COMPARISONS:
        raise ValueError(f"expected one of {RSMS} and one of {COMPARISONS}, found {rsm!r} and {compare!r}")
    return lambda x: prepare_rsa(x, rsm, compare)


# --- the same in tiles --------------------------------------------------------------------------------------------------

Make = Callable[[Tile], Tensor]


def cosine_of(cross: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """⟨A, B⟩ / (‖A‖ ‖B‖) from the inner products."""
    return cross / (first.sqrt() * second.sqrt())


def _rsa_mapping(rsm: str) -> Callable[[Blocks], RowMap]:
    if rsm == "euclidean":
        return scaled_map
    return directions_map if rsm == "cosine" else _deviations_map


def _deviations_map(blocks: Blocks) -> RowMap:
    return directions_map(blocks, _deviations)


def _fit_rsa(tiles: Tiles, rsm: str, compare: str) -> Make:
    """What `prepare_rsa` makes of all pairs, up to a factor."""
    if compare == "spearman":
        ranks, mean = ranks_of_tiles(tiles), (tiles.pairs - 1) / 2
        return lambda tile: tile.without_self(ranks.of(tile.squared) - mean)
    if compare == "cosine":
        value = Tensor.sqrt if rsm == "euclidean" else _half_complement
        seen = _seen(tiles, value)
        return lambda tile: tile.without_self(value(tile.squared) * (seen.largest > ZERO))
    value = Tensor.sqrt if rsm == "euclidean" else Tensor.clone
    seen = _seen(tiles, value)
    varies = seen.deviation > CONSTANT * seen.largest
    return lambda tile: tile.without_self((value(tile.squared) - seen.mean) * varies)


def _half_complement(squared: Tensor) -> Tensor:
    return 1 - squared / 2


class _Seen(NamedTuple):
    """Of the values of all pairs r < s."""

    mean: Tensor
    largest: Tensor  # in absolute value
    deviation: Tensor  # the largest from the mean


def _seen(tiles: Tiles, value: Callable[[Tensor], Tensor]) -> _Seen:
    total = tiles.scale.new_zeros(())
    low, high = total + torch.inf, total - torch.inf
    for tile in tiles:
        values = value(tile.once())
        if len(values):
            total += values.sum()
            low, high = torch.minimum(low, values.amin()), torch.maximum(high, values.amax())
    if not tiles.pairs:
        return _Seen(total, total, total)
    distributed.total(total)
    low, high, mean = -distributed.largest(-low), distributed.largest(high), total / tiles.pairs
    return _Seen(mean, torch.maximum(low.abs(), high.abs()), torch.maximum(mean - low, high - mean))


def _fit_distances(tiles: Tiles) -> Make:
    return lambda tile: tile.squared.sqrt() * tiles.scale


def double_centring(tiles: Tiles, value: Callable[[Tensor], Tensor]) -> Make:
    """H M H, tile by tile, of the n × n matrix M of values of the squared distances."""
    sums = tiles.scale.new_zeros(tiles.n_rows)
    for tile in tiles:
        tile.row_sums(value(tile.squared), sums)
    distributed.total(sums)
    means = sums / tiles.n_rows
    whole = means.mean()
    return lambda tile: value(tile.squared) - means[tile.rows, None] - means[tile.columns] + whole


DISTANCES = PairForm(scaled_map, _fit_distances, lambda gap, first, second: gap.sqrt(), gaps=True)
CENTRED_DISTANCES = PairForm(
    scaled_map,
    lambda tiles: double_centring(tiles, Tensor.sqrt),
    lambda cross, first, second: cosine_of(cross, first, second).clamp(min=0.0).sqrt(),
)


@cache
def rsa_pairs(rsm: str, compare: str) -> PairForm:
    """The pair form of `rsa`; the same for the same settings."""
    return PairForm(_rsa_mapping(rsm), lambda tiles: _fit_rsa(tiles, rsm, compare), cosine_of)


def _rsa(options: Options) -> Measure:
    prepare = rsa_preparer(options.rsm, options.rsm_compare)
    return Measure(prepare, inner, pairs=rsa_pairs(options.rsm, options.rsm_compare))


MEASURES = {
    "rsa": _rsa,
    "rsm_norm_difference": lambda options: Measure(prepare_distances, rsm_norm_difference, pairs=DISTANCES),
    "distance_correlation": lambda options: Measure(
        prepare_distance_correlation, distance_correlation, pairs=CENTRED_DISTANCES
    ),
}
