"""Distances of shapes again, from their definitions: slow, one pair at a time.

Nothing here shares code or derivation with `contrasim_cli` but which rows are drawn: neighbours come from exact rational distances,
barcodes from the reduction of whole boundary matrices. X is [n, p], Y is [n, q]. Undefined is NaN.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from oracles import Array, widened

from contrasim_cli.measures.topology import draws

Simplex = tuple[int, ...]
Loops = list[tuple[float, float]]

REACH = 1 / 5000 / 128


# --- heat ---------------------------------------------------------------------------------------------------------------


def heat(x: npt.ArrayLike) -> Array:
    """1/n tr exp(-t L) at 256 temperatures, by the eigenvalues of the random walk's Laplacian I - D⁻¹A."""
    rows = [[Fraction(value) for value in row] for row in widened(x).tolist()]
    n = len(rows)
    if n < 6 or all(row == rows[0] for row in rows):
        return np.full(256, math.nan)
    joined = np.zeros((n, n))
    for r in range(n):
        squared = {s: sum((a - b) ** 2 for a, b in zip(rows[r], rows[s], strict=True)) for s in range(n) if s != r}
        for s in sorted(squared, key=lambda s: (squared[s], s))[:5]:
            joined[r, s] = joined[s, r] = 1
    walk = np.eye(n) - joined / joined.sum(axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvals(walk).real
    return np.array([math.fsum(math.exp(-t * value) for value in eigenvalues) / n for t in np.logspace(-1, 1, 256)])


def imd(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The largest weighted difference."""
    a, b = heat(x), heat(y)
    if math.isnan(a[0]) or math.isnan(b[0]):
        return math.nan
    ts = np.logspace(-1, 1, 256).tolist()
    return max(math.exp(-2 * (t + 1 / t)) * abs(u - v) for t, u, v in zip(ts, a.tolist(), b.tolist(), strict=True))


# --- barcodes -----------------------------------------------------------------------------------------------------------


def loops_of(filtration: dict[Simplex, float], most: float = math.inf) -> Loops:
    """When loops appear and are filled: columns of the boundary matrix of all simplices, reduced from left to right."""
    order = sorted(filtration, key=lambda s: (filtration[s], len(s), s))
    place = {simplex: k for k, simplex in enumerate(order)}
    lowest: dict[int, set[int]] = {}
    empty: set[Simplex] = set()
    pairs: list[tuple[Simplex, Simplex]] = []
    for simplex in order:
        column = {place[face] for face in itertools.combinations(simplex, len(simplex) - 1) if face}
        while column and max(column) in lowest:
            column ^= lowest[max(column)]
        if column:
            lowest[max(column)] = column
            pairs.append((order[max(column)], simplex))
        else:
            empty.add(simplex)
    killed = {born for born, _ in pairs}
    lasting = [(filtration[s], most) for s in empty if len(s) == 2 and s not in killed]
    found = [(filtration[born], filtration[dead]) for born, dead in pairs if len(born) == 2]
    return sorted((start, stop) for start, stop in found + lasting if start < stop)


def rips(distances: Array) -> dict[Simplex, float]:
    """Vertices, edges and triangles with their longest distance."""
    n = len(distances)
    return {
        simplex: max((float(distances[i, j]) for i, j in itertools.combinations(simplex, 2)), default=0.0)
        for size in (1, 2, 3)
        for simplex in itertools.combinations(range(n), size)
    }


def witnessed(distances: Array, most: float) -> dict[Simplex, float]:
    """Simplices of landmarks with the least relaxation at which they and all their faces have a witness."""
    count = distances.shape[1]
    found: dict[Simplex, float] = {}
    for size in (1, 2, 3):
        for simplex in itertools.combinations(range(count), size):
            others = [q for q in range(count) if q not in simplex]
            own = min(
                max(0.0, max(row[p] for p in simplex) - min((row[q] for q in others), default=math.inf))
                for row in distances.tolist()
            )
            faces = [found.get(face, math.inf) for face in itertools.combinations(simplex, size - 1) if face]
            if max([own, *faces]) <= most:
                found[simplex] = max([own, *faces])
    return found


def distances(x: Array, y: Array) -> Array:
    """Euclidean distances of rows, each from the difference."""
    return np.array([[math.dist(r, s) for s in y.tolist()] for r in x.tolist()])


def scaled(x: npt.ArrayLike) -> Array:
    """Rows less the first one, over the largest entry."""
    values = widened(x)
    values = values - values[0]
    largest = np.abs(values).max()
    return values / largest if largest else values


def rtd(x: npt.ArrayLike, y: npt.ArrayLike, rows: int = 500, trials: int = 10, seed: int = 0) -> float:
    """The mean total length over draws and directions."""
    x, y = scaled(x), scaled(y)
    lengths = []
    for drawn in draws(len(x), rows, trials, seed):
        sides = [distances(side[drawn], side[drawn]) for side in (x, y)]
        quantiles = [np.quantile(side, 0.9) for side in sides]
        if not all(quantiles):
            return math.nan
        d, e = (side / quantile for side, quantile in zip(sides, quantiles, strict=True))
        for one, other in ((d, e), (e, d)):
            matrix = np.block([[np.zeros_like(one), one], [one, np.minimum(one, other)]])
            lengths.append(math.fsum(stop - start for start, stop in loops_of(rips(matrix))))
    return math.fsum(lengths) / len(lengths)


def living_times(loops: Sequence[tuple[float, float]], most: float) -> Array:
    """The part of [0, most] in which there are 0, 1, … 99 loops."""
    times = np.zeros(100)
    ends = sorted({0.0, most, *(end for loop in loops for end in loop)})
    for start, stop in itertools.pairwise(ends):
        there = sum(born <= start and stop <= dead for born, dead in loops)
        if there < 100:
            times[there] += (stop - start) / most
    return times


def mean_times(x: npt.ArrayLike, trials: int, seed: int, landmarks: int) -> Array:
    """Of all draws of landmarks."""
    x = scaled(x)
    x = x - x.mean(axis=0)
    x = x[np.argsort(np.sum(x**2, axis=1))]
    if not x.any():
        return np.full(100, math.nan)
    found = []
    for drawn in draws(len(x), min(landmarks, len(x) // 2), trials, seed):
        between = distances(x, x[drawn])
        most = REACH * len(x) * between.max()
        found.append(living_times(loops_of(witnessed(between, most), most), most))
    mean: Array = np.mean(found, axis=0)
    return mean


def geometry_score(x: npt.ArrayLike, y: npt.ArrayLike, trials: int = 10, seed: int = 0, landmarks: int = 64) -> float:
    """The squared distance of the mean living times."""
    first, second = (mean_times(side, trials, seed, landmarks) for side in (x, y))
    return float(np.sum((first - second) ** 2))


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "imd": imd,
    "rtd": rtd,
    "geometry_score": geometry_score,
}
