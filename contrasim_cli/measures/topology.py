"""Distances of shapes: of the graphs of nearest rows, and of the loops that rows form. Lower is more similar.

X is [..., n, p], Y is [..., n, q]; scores are [...]. Everything is float64. Rows need not be
aligned for `imd` and `geometry_score`.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.arrays import Tensor, as_tensor, pad, xp
from contrasim_cli.measures import Options
from contrasim_cli.measures.barcodes import rips_loops, witness_loops
from contrasim_cli.measures.distances import all_squared_distances, scaled
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.measures.tiles import between

NEIGHBOURS = 5  # of a row in the graph of IMD
TEMPERATURES = np.logspace(-1, 1, 256)
TIE = 1e-13  # of the largest squared distance
QUANTILE = 0.9  # of all distances, that RTD makes 1
LANDMARKS = 64  # of the Geometry Score, of no more than half of the rows
REACH = 1 / 128 / 5000  # relaxation of its complexes per row, over the largest distance of a landmark
LOOPS = 100  # numbers of loops that it tells apart

# --- heat on the graph of nearest rows ----------------------------------------------------------------------------------


class Heat(NamedTuple):
    """Traces of the heat kernel over n, by temperature."""

    traces: Tensor  # [..., 256]


def prepare_heat(x: Tensor) -> Heat:
    """1/n Σ_i exp(-t λ_i) [..., 256] of X [..., n, p]; NaN of NEIGHBOURS rows or fewer, and where all rows are equal.

    λ are all eigenvalues of the normalised Laplacian I - D^-½ A D^-½ of the graph that joins every row
    with its NEIGHBOURS nearest.
    """
    n = x.shape[-2]
    if n <= NEIGHBOURS:
        return Heat(xp.full((*x.shape[:-2], len(TEMPERATURES)), xp.nan, dtype=xp.float64, device=x.device))
    rows = scaled(x)[0]
    graph = _graph(all_squared_distances(rows))
    scale = graph.sum(dim=-1).rsqrt()
    laplacian = xp.eye(n, dtype=graph.dtype, device=graph.device) - scale.unsqueeze(-1) * graph * scale.unsqueeze(-2)
    eigenvalues = xp.linalg.eigvalsh(laplacian)
    traces = [xp.exp(-t * eigenvalues).mean(dim=-1) for t in TEMPERATURES.tolist()]
    varied = (rows != 0).any(dim=-1).any(dim=-1)
    return Heat(xp.stack(traces, dim=-1).where(varied.unsqueeze(-1), xp.nan))


def _graph(squared: Tensor) -> Tensor:
    """Ones where one of two rows is among the NEIGHBOURS nearest of the other [..., n, n]; of equally near rows the first."""
    n = squared.shape[-1]
    squared = squared + xp.diag(squared.new_full((n,), xp.inf))
    finite = squared.masked_fill(squared.isinf(), 0.0)
    ordered, order = squared.sort(dim=-1)
    apart = ordered.diff(dim=-1) > TIE * finite.amax(dim=(-2, -1), keepdim=True)
    group = pad(apart.cumsum(dim=-1), (1, 0))
    nearest = order.gather(-1, (group * n + order).argsort(dim=-1)[..., :NEIGHBOURS])
    joined = xp.zeros_like(squared).scatter_(-1, nearest, 1.0)
    return xp.maximum(joined, joined.mT)


def imd(a: Heat, b: Heat) -> Tensor:
    """max_t exp(-2 (t + 1/t)) |h_X(t) - h_Y(t)| [...], in [0, e⁻⁴]: intrinsic multi-scale distance (Tsitsulin et al. 2020).

    h are the traces of the heat kernel over n, at 256 temperatures t from 0.1 to 10. This is the paper's bound. Its code gives 10⁶
    times as much, and estimates traces by stochastic Lanczos quadrature; here they come from all eigenvalues.
    """
    t = as_tensor(TEMPERATURES, a.traces.device)
    weight = xp.exp(-2 * (t + 1 / t))
    return (weight * (a.traces - b.traces).abs()).amax(dim=-1)


# --- loops that one side has and the other has not ----------------------------------------------------------------------


class Distances(NamedTuple):
    """Distances of the rows of each draw, over their QUANTILE."""

    values: Tensor  # [..., draws, m, m]


def draws(n: int, rows: int, trials: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Positions of so many of n rows, drawn without replacement for every trial; all of them, once, where there are no more."""
    if n <= rows:
        return [np.arange(n)]
    return [seeds.stream(seed, seeds.TOPOLOGY, trial).choice(n, rows, replace=False) for trial in range(trials)]


@cache
def distances_preparer(rows: int, trials: int, seed: int) -> Callable[[Tensor], Distances]:
    """`prepare` of RTD; the same function for the same settings."""

    def prepare(x: Tensor) -> Distances:
        found = []
        for drawn in draws(x.shape[-2], rows, trials, seed):
            distances = all_squared_distances(scaled(x[..., as_tensor(drawn, x.device), :])[0]).sqrt()
            whole = _quantile(distances.flatten(-2))
            found.append(distances / whole.where(whole > 0, xp.nan)[..., None, None])
        return Distances(xp.stack(found, dim=-3))

    return prepare


def _quantile(values: Tensor) -> Tensor:
    """The QUANTILE of values [..., count], linear between the two nearest, as NumPy's."""
    at = QUANTILE * (values.shape[-1] - 1)
    low, high = (values.kthvalue(min(int(at) + k, values.shape[-1] - 1) + 1, dim=-1).values for k in (0, 1))
    return low + (at - int(at)) * (high - low)


def rtd(a: Distances, b: Distances) -> Tensor:
    """Representation topology divergence [...], in [0, ∞) (Barannikov et al. 2022), the mean over draws and both directions.

    A direction is the total length of the loops of 2m vertices with the distances [[0, D_X], [D_X, min(D_X, D_Y)]]: of those that
    appear in X and are not yet there in the union of both. NaN where more than QUANTILE of a draw's distances are 0. Grows with m.
    """
    lead = np.broadcast_shapes(a.values.shape[:-3], b.values.shape[:-3])
    first, second = (
        side.values.expand(*lead, *side.values.shape[-3:]).flatten(end_dim=-4).cpu().numpy()
        if lead
        else side.values.unsqueeze(0).cpu().numpy()
        for side in (a, b)
    )
    found = [
        np.mean([_both_ways(x, y) for x, y in zip(xs, ys, strict=True)]) for xs, ys in zip(first, second, strict=True)
    ]
    return a.values.new_tensor(np.array(found)).reshape(lead)


def _both_ways(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    return (_divergence(x, y) + _divergence(y, x)) / 2


def _divergence(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    loops = rips_loops(np.block([[np.zeros_like(x), x], [x, np.minimum(x, y)]]))
    return float((loops[:, 1] - loops[:, 0]).sum())


# --- how many loops, for how long ---------------------------------------------------------------------------------------


class Living(NamedTuple):
    """Relative living times: for what part of the relaxations there are 0, 1, 2, … loops."""

    times: Tensor  # [..., LOOPS]


@cache
def living_preparer(trials: int, seed: int) -> Callable[[Tensor], Living]:
    """`prepare` of the Geometry Score; the same function for the same settings."""

    def prepare(x: Tensor) -> Living:
        rows = scaled(x)[0]
        matrices = rows.reshape(-1, *rows.shape[-2:])
        found = [_living_times(matrix, trials, seed) for matrix in matrices]
        return Living(rows.new_tensor(np.array(found)).reshape(*x.shape[:-2], LOOPS))

    return prepare


def _living_times(rows: Tensor, trials: int, seed: int) -> npt.NDArray[np.float64]:
    """The mean over draws of landmarks [LOOPS]; NaN where all rows are equal."""
    found = []
    rows = rows[rows.square().sum(dim=-1).argsort()]  # so that the order in which rows come decides nothing
    for drawn in draws(len(rows), min(LANDMARKS, len(rows) // 2), trials, seed):
        places = as_tensor(drawn, rows.device)
        distances = between(rows, rows[places]).sqrt().cpu().numpy()
        most = REACH * len(rows) * distances.max(initial=0.0)
        found.append(living_times(witness_loops(distances, most), most) if most else np.full(LOOPS, np.nan))
    mean: npt.NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def living_times(loops: npt.NDArray[np.float64], most: float) -> npt.NDArray[np.float64]:
    """For what part of [0, most] so many loops are there [LOOPS]; LOOPS or more are left out."""
    steps = np.unique(np.concatenate([[0.0, most], loops.ravel()]))
    middle = (steps[1:] + steps[:-1]) / 2
    count = ((loops[:, 0] <= middle[:, None]) & (middle[:, None] < loops[:, 1])).sum(axis=1)
    return np.bincount(count, weights=np.diff(steps), minlength=LOOPS)[:LOOPS] / most


def geometry_score(a: Living, b: Living) -> Tensor:
    """Σ_i (RLT_X(i) - RLT_Y(i))² [...], in [0, 2] (Khrulkov & Oseledets 2018), RLT the mean relative living times of i loops.

    The complexes have all n rows as witnesses and LANDMARKS of them (at most half) as vertices, drawn without replacement in every
    trial (their code draws with it), and relaxations up to n / 640,000 of the largest distance.
    """
    return (a.times - b.times).square().sum(dim=-1)


MEASURES: dict[str, Callable[[Options], Measure]] = {
    "imd": lambda options: Measure(prepare_heat, imd, square=True),
    "rtd": lambda options: Measure(
        distances_preparer(options.topology_rows, options.topology_trials, options.seed),
        rtd,
        drawn=options.topology_rows,
    ),
    "geometry_score": lambda options: Measure(living_preparer(options.topology_trials, options.seed), geometry_score),
}
