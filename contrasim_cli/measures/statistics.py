"""Differences of one number per side. Lower is more similar; rows need not be aligned, nor widths equal.

X is [..., n, p], Y is [..., n, q]; scores are [...]. Everything is float64.
"""

from typing import NamedTuple

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures.distances import directions_map, largest_of, sum_of
from contrasim_cli.measures.pointwise import prepare_unit
from contrasim_cli.measures.protocol import Blocks, Measure
from contrasim_cli.measures.tiles import Tiles

NO_CENTROID = 1e-12  # a centroid shorter than this times the longest row is rounding, and has no direction
BLOCK = 1024  # rows whose distances to all rows are held at a time


class Statistic(NamedTuple):
    """One number per matrix."""

    value: Tensor  # [...]


def difference(a: Statistic, b: Statistic) -> Tensor:
    """|s(X) - s(Y)| [...]."""
    return (a.value - b.value).abs()


def magnitude(x: Tensor) -> Statistic:
    """‖x̄‖ of X [..., n, p], the length of the centroid (Wang et al. 2020); in [0, ∞)."""
    return Statistic(_length(centroid(x)))


def magnitude_of_blocks(blocks: Blocks) -> Statistic:
    """The magnitude of rows in blocks."""
    return Statistic(_length(centroid_of_blocks(blocks)))


def concentricity(x: Tensor) -> Statistic:
    """1/n Σ_r cos(x_r, x̄) - 1 of X [..., n, p] (Wang et al. 2020); NaN where a row is zero or the centroid is.

    1 - cos is half the squared distance of unit vectors, which keeps its digits where all rows point the same way.
    """
    mean = centroid(x)
    longest = _length(x.double()).amax(dim=-1)
    length = _length(mean)
    centre = mean / length.where(length > NO_CENTROID * longest, xp.nan).unsqueeze(-1)
    apart = (prepare_unit(x).rows - centre.unsqueeze(-2)).square().sum(dim=-1)
    return Statistic(-apart.mean(dim=-1) / 2)


def concentricity_of_blocks(blocks: Blocks) -> Statistic:
    """The concentricity of rows in blocks."""
    mean = centroid_of_blocks(blocks)
    longest = largest_of(_length(rows.double()).amax() for rows in blocks)
    length = _length(mean)
    centre = mean / length.where(length > NO_CENTROID * longest, xp.nan)
    apart = sum_of((prepare_unit(rows).rows - centre).square().sum() for rows in blocks)
    return Statistic(-apart / blocks.n_rows / 2)


def uniformity(x: Tensor) -> Statistic:
    """Log mean exp(-2‖u_r - u_s‖²) over the pairs r < s of unit rows u of X [..., n, p], in [-8, 0].

    Wang and Isola 2020, whose code takes distinct pairs; the n pairs of a row with itself would only add a bias of
    order 1/n. NaN where a row is zero or alone.
    """
    unit = prepare_unit(x).rows
    n = unit.shape[-2]
    # less their mean, which distances do not see, and summed as exp - 1: near rows keep their digits
    rows = unit - unit.mean(dim=-2, keepdim=True)
    squares = rows.square().sum(dim=-1)
    total = xp.zeros_like(squares[..., 0])
    for start in range(0, n, BLOCK):
        block = rows[..., start : start + BLOCK, :]
        own = squares[..., start : start + BLOCK].unsqueeze(-1)
        squared = (own + squares.unsqueeze(-2) - 2.0 * block @ rows.mT).clamp(min=0.0)
        total = total + xp.expm1(-2.0 * squared).sum(dim=(-2, -1))
    return Statistic(xp.log1p(total / total.new_tensor(n * (n - 1))))


def uniformity_of_blocks(blocks: Blocks) -> Statistic:
    """The uniformity of rows in blocks; n² distances in tiles."""
    mapping = directions_map(blocks)
    tiles = Tiles(blocks.n_rows, lambda start, stop: mapping.apply(blocks.rows(start, stop)), BLOCK, mapping.scale)
    total = sum_of(xp.expm1(-2.0 * tile.once()).sum() for tile in tiles)
    return Statistic(xp.log1p(total / total.new_tensor(tiles.pairs)))


def centroid(x: Tensor) -> Tensor:
    """x̄ [..., p]; from the first row on, so that equal rows have exactly their own mean."""
    first = x[..., 0, :].double()
    return first + (x.double() - first.unsqueeze(-2)).mean(dim=-2)


def centroid_of_blocks(blocks: Blocks) -> Tensor:
    """The centroid of rows in blocks."""
    first = blocks.rows(0, 1)[0].double()
    return first + sum_of((rows.double() - first).sum(dim=0) for rows in blocks) / blocks.n_rows


def _length(x: Tensor) -> Tensor:
    length: Tensor = xp.linalg.vector_norm(x, dim=-1)
    return length


MEASURES = {
    "magnitude_difference": lambda options: Measure(magnitude, difference, own=magnitude_of_blocks),
    "concentricity_difference": lambda options: Measure(concentricity, difference, own=concentricity_of_blocks),
    "uniformity_difference": lambda options: Measure(uniformity, difference, own=uniformity_of_blocks),
}
