"""Measures of each row's k nearest rows on both sides. Higher is more similar.

Nearest is by cosine, found as the distance of unit rows, which orders rows alike and keeps its digits where all cosines
are close to 1. A row is no neighbour of itself, by position; its duplicates are neighbours like others. Rows whose squared
distances differ by less than TIE of the largest squared distance from the mean direction are equally near, and then the
lower position is nearer. So no rounding decides, neither of float32 nor of the order of sums.

Undefined where a row is zero, where all rows have one direction (nothing is nearer than anything), and where there are
fewer than k other rows: with k cut to n - 1 the sets would agree for whatever input.

Memory per layer [n, p]: 3 n k, of `second_order_cosine` n (p + 3 k). `prepare` works off n² distances in tiles, `compare`
n k² matches and, of `second_order_cosine`, n k p gathered values.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from contrasim_cli.arrays import Tensor, pad, xp
from contrasim_cli.measures.distances import centred_units, directions, tiles
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.nearest import all_beyond, nearest_within

SPARE = 8  # rows proposed beyond k, which settle the order
TIE = 1e-13
ROUNDING = 1e-15  # of unit rows
VANISHING = 1e-13  # cosines below this are rounding
SINGLE_ROWS = 1024  # a matrix of at least so many rows is searched in float32 first
# values of proposed rows held at once: what a cache holds, and what keeps a device busy
GATHERED = {"cpu": 1 << 18, "cuda": 1 << 26}


class Neighbours(NamedTuple):
    """The k nearest rows of every row, nearest first."""

    rows: Tensor | None  # unit rows [..., n, p], for the measure that takes further cosines of them
    nearest: Tensor  # their positions [..., n, k]
    cosines: Tensor  # cosines with them [..., n, k]
    kernel: Tensor  # those less the row's mean cosine with all n rows [..., n, k]
    defined: Tensor  # 1, or NaN where the measures are undefined [...]


def prepare(x: Tensor, k: int, with_rows: bool = False) -> Neighbours:
    """The k nearest rows in X [..., n, p], and `with_rows` what a side's cosines with other rows are taken of."""
    lead, n = x.shape[:-2], x.shape[-2]
    rows = directions(x)
    if not 1 <= k < n:
        none = rows.new_zeros(*lead, n, 1)
        return Neighbours(rows if with_rows else None, none.long(), none, none, none.new_full(lead, xp.nan))
    first = rows[..., :1, :].clone()
    centred = centred_units(rows, in_place=not with_rows)
    spread = xp.linalg.vector_norm(centred, dim=-1).amax(dim=-1)
    scale = spread.where(spread > 0, 1.0)
    mean = first - centred[..., :1, :]  # of all rows
    centred = _zeros_for_undefined(centred)
    centred /= scale[..., None, None]
    nearest, squared = _nearest(centred, k, TIE + ROUNDING / scale)
    norms = centred.square().sum(dim=-1)
    products = (norms[..., None] + _at(norms, nearest) - squared) / 2 * scale[..., None, None].square()
    # x̄·c_s [..., n] = (1 - ‖x̄‖² - ‖c_s‖²) / 2 of unit rows, whose length is rounded more coarsely than c_s is short
    along = (norms.mean(dim=-1, keepdim=True) - norms) / 2 * scale[..., None].square()
    kernel = products + _at(along, nearest)  # x_r·c_s = c_r·c_s + x̄·c_s
    cosines = kernel + (along + mean.square().sum(dim=(-2, -1))[..., None])[..., None]
    kept = _zeros_for_undefined(rows) if with_rows else None
    return Neighbours(kept, nearest, cosines, kernel, xp.ones_like(spread).where(spread > 0, xp.nan))


def _zeros_for_undefined(rows: Tensor) -> Tensor:
    """Rows with zeros in place of NaN, of which one makes every row's mean NaN."""
    return rows if rows.isfinite().all() else rows.nan_to_num_(nan=0.0)


def _at(values: Tensor, nearest: Tensor) -> Tensor:
    """Values [..., n] of the rows at the positions [..., n, k]."""
    return values.gather(-1, nearest.flatten(-2)).reshape(nearest.shape)


def _nearest(rows: Tensor, k: int, tie: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and squared distances [..., n, k] of the nearest other rows among [..., n, p], of norms up to 1; `tie` is [...]."""
    lead, (n, p) = rows.shape[:-2], rows.shape[-2:]
    if n >= SINGLE_ROWS and k + SPARE + 1 < n:
        matrices = zip(rows.reshape(-1, n, p), tie.reshape(-1), strict=True)
        found = zip(*(_nearest_by_proposal(matrix, k, t) for matrix, t in matrices), strict=True)
        nearest, squared = (xp.stack(side).reshape(*lead, n, k) for side in found)
        return nearest, squared
    every = xp.arange(n, device=rows.device)
    parts = zip(*(_nearest_of(rows, every[at], k, tie) for at in tiles(n, n * math.prod(lead))), strict=True)
    nearest, squared = (xp.cat(side, dim=-2) for side in parts)
    return nearest, squared


def _nearest_of(rows: Tensor, queries: Tensor, k: int, tie: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and squared distances [..., queries, k] of the nearest other rows of the rows at these positions."""
    norms, n = rows.square().sum(dim=-1), rows.shape[-2]
    # TIE is far above what ‖q‖² + ‖r‖² - 2 q·r cancels, of norms up to 1
    table = norms[..., queries, None] + norms[..., None, :] - 2 * (rows[..., queries, :] @ rows.mT)
    table[..., xp.arange(len(queries), device=rows.device), queries] = xp.inf
    near, squared, settled = _by_position(*table.topk(min(k + SPARE, n - 1), largest=False), k, tie[..., None, None])
    if k + SPARE < n - 1 and not settled.all():
        left = ~settled
        ties = tie[..., None].expand(settled.shape)[left][:, None]
        near[left], squared[left], _ = _by_position(*table[left].sort(dim=-1), k, ties)
    return near, squared


def _by_position(squared: Tensor, near: Tensor, k: int, tie: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first k of candidates [..., m] in ascending distance, equally near ones by position, and their squared distances.

    Also whether none beyond the candidates may be as near as the k-th [...].
    """
    group = (squared.diff(dim=-1) > tie).cumsum(dim=-1)
    group = xp.cat([xp.zeros_like(near[..., :1]), group], dim=-1)
    order = (group * (near.amax() + 1) + near).argsort(dim=-1)[..., :k]
    return near.gather(-1, order), squared.gather(-1, order), group[..., -1] != group[..., k - 1]


def _nearest_by_proposal(rows: Tensor, k: int, tie: Tensor) -> tuple[Tensor, Tensor]:
    """[n, k]: products in float32 propose, float64 distances decide; where they cannot, all rows are searched in float64."""
    n, p = rows.shape
    proposed = nearest_within(rows.float(), k + SPARE + 1)
    norms, positions = rows.square().sum(dim=-1), proposed.positions
    beyond = all_beyond(proposed.squared[:, -1].double(), norms, float(norms.amax()), p, np.float32)
    table = norms[:, None] + norms[positions] - 2 * _with_gathered(rows, positions)
    table[positions == xp.arange(n, device=rows.device)[:, None]] = xp.inf
    table, order = table.sort(dim=-1)
    nearest, squared, settled = _by_position(table, positions.gather(-1, order), k, tie)
    settled &= table[:, k - 1] + positions.shape[1] * tie < beyond
    queries = (~settled).nonzero().squeeze(-1)
    for some in tiles(len(queries), n):
        nearest[queries[some]], squared[queries[some]] = _nearest_of(rows, queries[some], k, tie)
    return nearest, squared


def _with_gathered(rows: Tensor, positions: Tensor) -> Tensor:
    """x_r · x_s [n, m] of rows [n, p] with those at the positions [n, m]."""
    (n, m), p = positions.shape, rows.shape[1]
    found = rows.new_empty(n, m)
    for at in tiles(n, m * p, GATHERED[rows.device.type]):
        there = rows.index_select(0, positions[at].flatten()).reshape(-1, m, p)
        found[at] = (there @ rows[at, :, None]).squeeze(-1)
    return found


def _products(rows: Tensor, others: Tensor, nearest: Tensor) -> Tensor:
    """x_r · o_s [..., n, k] of rows [..., n, p] with those of the others [..., n, p] at the positions [..., n, k]."""
    lead = np.broadcast_shapes(rows.shape[:-2], nearest.shape[:-2])
    (n, k), p = nearest.shape[-2:], rows.shape[-1]
    rows, others, nearest = (side.expand(*lead, *side.shape[-2:]) for side in (rows, others, nearest))
    found = []
    for at in tiles(n, math.prod(lead) * k * p):
        where = nearest[..., at, :].flatten(-2).unsqueeze(-1).expand(*lead, -1, p)
        gathered = others.gather(-2, where).reshape(*lead, -1, k, p)
        found.append((gathered @ rows[..., at, :, None]).squeeze(-1))
    return xp.cat(found, dim=-2)


def _over_rows(a: Neighbours, b: Neighbours, function: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """A function of matches [..., t, k, k], for all rows [..., n, ·]; i, j of a match: a's i-th neighbour is b's j-th."""
    n, k = a.nearest.shape[-2:]
    lead = np.broadcast_shapes(a.nearest.shape[:-2], b.nearest.shape[:-2])
    found = []
    for at in tiles(n, math.prod(lead) * k * k):
        found.append(function(a.nearest[..., at, :, None] == b.nearest[..., at, None, :], at))
    return xp.cat(found, dim=len(lead))


def _shared(a: Neighbours, b: Neighbours) -> Tensor:
    """Neighbours that both sides have, per row [..., n]."""
    return _over_rows(a, b, lambda match, at: match.sum(dim=(-2, -1))).double()


def jaccard_knn(a: Neighbours, b: Neighbours) -> Tensor:
    """Mean over rows of |N_X ∩ N_Y| / |N_X ∪ N_Y| [...], in [0, 1] (Schumacher et al. 2021).

    Public implementations leave out the first column of a search as the row itself, which drops a duplicate instead.
    """
    shared = _shared(a, b)
    return (shared / (2 * a.nearest.shape[-1] - shared)).mean(dim=-1) * a.defined * b.defined


def mutual_knn(a: Neighbours, b: Neighbours) -> Tensor:
    """Mean over rows of |N_X ∩ N_Y| / k [...], in [0, 1] (Huh et al. 2024, App. A).

    The published code clamps entries at their 95 % quantile, then scales rows to unit length.
    """
    return (_shared(a, b) / a.nearest.shape[-1]).mean(dim=-1) * a.defined * b.defined


def cycle_knn(a: Neighbours, b: Neighbours) -> Tensor:
    """Share of the rows r that are among the neighbours in X of one of their neighbours in Y [...], in [0, 1] (Huh et al. 2024).

    r ∈ N_X(s) for some s ∈ N_Y(r). X with itself is below 1 where a row is near to none of its neighbours.
    """
    n, k = a.nearest.shape[-2:]
    lead = np.broadcast_shapes(a.nearest.shape[:-2], b.nearest.shape[:-2])
    there, back = b.nearest.expand(*lead, n, k), a.nearest.expand(*lead, n, k)
    found = []
    for at in tiles(n, math.prod(lead) * k * k):
        through = there[..., at, :].flatten(-2).unsqueeze(-1).expand(*lead, -1, k)
        reached = back.gather(-2, through).reshape(*lead, -1, k, k)
        own = xp.arange(n, device=reached.device)[at, None, None]
        found.append((reached == own).any(dim=-1).any(dim=-1))
    return xp.cat(found, dim=-1).double().mean(dim=-1) * a.defined * b.defined


def lcs_knn(a: Neighbours, b: Neighbours) -> Tensor:
    """Mean over rows of the longest common subsequence of both sides' neighbours, nearest first, over k [...], in [0, 1].

    Huh et al. 2024, whose code does not divide by k.
    """
    return _in_order(a, b, _longest_common_subsequence) / a.nearest.shape[-1]


def edit_distance_knn(a: Neighbours, b: Neighbours) -> Tensor:
    """1 - mean over rows of the edit distance of both sides' neighbours, nearest first, over k [...], in [0, 1].

    Levenshtein's distance: insertions, deletions and substitutions (Huh et al. 2024).
    """
    return 1 - _in_order(a, b, _edit_distance) / a.nearest.shape[-1]


def _in_order(a: Neighbours, b: Neighbours, length: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over rows [...] of a length that matches [..., t, k, k] give."""
    return _over_rows(a, b, lambda match, at: length(match)).mean(dim=-1) * a.defined * b.defined


def _longest_common_subsequence(match: Tensor) -> Tensor:
    """[...] of matches [..., k, k]; line by line of L_ij = max(L_i-1,j, L_i,j-1, L_i-1,j-1 + match_ij)."""
    lengths = xp.zeros(match.shape[:-1], dtype=xp.float64, device=match.device)  # [..., k]: those of the last line
    for line in match.unbind(dim=-2):
        before = pad(lengths[..., :-1], (1, 0))
        lengths = xp.maximum(lengths, before + line).cummax(dim=-1).values
    return lengths[..., -1]


def _edit_distance(match: Tensor) -> Tensor:
    """[...] of matches [..., k, k]; line by line of D_ij = min(D_i-1,j + 1, D_i,j-1 + 1, D_i-1,j-1 + 1 - match_ij)."""
    k = match.shape[-1]
    place = xp.arange(k + 1, dtype=xp.float64, device=match.device)
    distances = place.expand(*match.shape[:-2], k + 1)  # D_0j = j
    for i, line in enumerate(match.unbind(dim=-2)):
        substituted = distances[..., :-1] + (1 - line.double())
        first = xp.full_like(distances[..., :1], i + 1)  # D_i0 = i
        along = xp.cat([first, xp.minimum(distances[..., 1:] + 1, substituted)], dim=-1)
        distances = (along - place).cummin(dim=-1).values + place
    return distances[..., -1]


def cknna(a: Neighbours, b: Neighbours) -> Tensor:
    """Align(K, L) / √(Align(K, K) Align(L, L)) [...], in [-1, 1] (Huh et al. 2024, Eq. 12, 16-18).

    Align(K, L) = Σ_r Σ_s∈N_X(r)∩N_Y(r) K̄_rs L̄_rs, with K̄_rs = cos(x_r, x_s) - mean_t cos(x_r, x_t) over all n rows t. The published
    code masks the kernel first and then centres it in the unbiased HSIC, which can exceed 1.
    """

    def aligned(match: Tensor, at: slice) -> Tensor:
        matched = match.double() @ b.kernel[..., at, :, None]
        return (a.kernel[..., at, None, :] @ matched).flatten(-3)

    cross = _over_rows(a, b, aligned).sum(dim=-1)
    return cross / (_norm(a.kernel) * _norm(b.kernel)) * a.defined * b.defined


def _norm(kernel: Tensor) -> Tensor:
    norm: Tensor = xp.linalg.vector_norm(kernel, dim=(-2, -1))
    return norm.where(norm > ROUNDING, xp.nan)


def second_order_cosine(a: Neighbours, b: Neighbours) -> Tensor:
    """Mean over rows of cos(c_X, c_Y) [...], c the row's cosines with N_X ∪ N_Y on either side, in [-1, 1] (Hamilton et al. 2016).

    Undefined too where such a vector is zero. The public survey implementation takes the vectors of cosine *distances*.
    """
    assert a.rows is not None
    assert b.rows is not None
    a_at_b, b_at_a = _products(a.rows, a.rows, b.nearest), _products(b.rows, b.rows, a.nearest)
    only_b = ~_over_rows(a, b, lambda match, at: match.any(dim=-2))
    product = (a.cosines * b_at_a).sum(dim=-1) + (a_at_b * b.cosines * only_b).sum(dim=-1)
    first = a.cosines.square().sum(dim=-1) + (a_at_b.square() * only_b).sum(dim=-1)
    second = b_at_a.square().sum(dim=-1) + (b.cosines.square() * only_b).sum(dim=-1)
    lengths = first.sqrt() * second.sqrt()
    defined = xp.minimum(first, second) > VANISHING**2
    return (product / lengths.where(defined, xp.nan)).mean(dim=-1) * a.defined * b.defined


def rank_similarity(a: Neighbours, b: Neighbours) -> Tensor:
    """Mean over rows of Σ_s∈N_X∩N_Y 2 / ((1 + |r_X - r_Y|)(r_X + r_Y)) over its best possible value [...], in [0, 1].

    r are the ranks of s among the neighbours, from 1; the best is Σ_i 1/i over as many shared neighbours, and a row without
    any counts 0 (Wang et al. 2022).
    """
    k = a.nearest.shape[-1]
    rank = xp.arange(1, k + 1, device=a.nearest.device, dtype=xp.float64)
    weight = 2 / ((1 + (rank[:, None] - rank).abs()) * (rank[:, None] + rank))
    best = xp.cat([rank.new_ones(1), (1 / rank).cumsum(dim=0)])

    def similarity(match: Tensor, at: slice) -> Tensor:
        return (match * weight).sum(dim=(-2, -1)) / best[match.sum(dim=(-2, -1))]

    return _over_rows(a, b, similarity).mean(dim=-1) * a.defined * b.defined


def clamped(x: Tensor, quantile: float) -> Tensor:
    """X [..., n, p] with its values clamped to ± the one at place ⌊quantile · n p⌋ of their absolute values in order.

    What the code of Huh et al. 2024 does with `exact=True` to all layers of a model together, here to each layer.
    """
    if quantile >= 1:
        return x
    values = x.double()
    count = values.shape[-2] * values.shape[-1]
    limit = values.abs().flatten(-2).kthvalue(min(int(quantile * count) + 1, count), dim=-1).values[..., None, None]
    return xp.minimum(xp.maximum(values, -limit), limit)


@cache
def preparer(k: int, clamp: float = 1.0, with_rows: bool = False) -> Callable[[Tensor], Neighbours]:
    """`prepare` with a k, of clamped values; the same function for the same ones, so that those without rows search once."""
    return lambda x: prepare(clamped(x, clamp), k, with_rows)


MEASURES = {
    "jaccard_knn": lambda options: Measure(preparer(options.k, options.clamp), jaccard_knn, k=options.k),
    "mutual_knn": lambda options: Measure(preparer(options.k, options.clamp), mutual_knn, k=options.k),
    "cycle_knn": lambda options: Measure(preparer(options.k, options.clamp), cycle_knn, k=options.k),
    "lcs_knn": lambda options: Measure(preparer(options.k, options.clamp), lcs_knn, k=options.k),
    "edit_distance_knn": lambda options: Measure(preparer(options.k, options.clamp), edit_distance_knn, k=options.k),
    "cknna": lambda options: Measure(preparer(options.k, options.clamp), cknna, k=options.k),
    "second_order_cosine": lambda options: Measure(
        preparer(options.k, options.clamp, with_rows=True), second_order_cosine, k=options.k
    ),
    "rank_similarity": lambda options: Measure(preparer(options.k, options.clamp), rank_similarity, k=options.k),
}
