"""Two questions to a grid of the layers of one model against those of another.

Layer prediction (§5.1; Kornblith et al. 2019): is the same layer of the other model the most similar one?

Monotonicity (Klabunde et al. 2024, test 6 of ReSi): does similarity fall with the distance between layers? For layer i, the
Spearman correlation of s(f_i, g_j) with -|i - j|, over the layers j from i to the last, and over those from i to the first;
the mean of the two, or the one that there is of the first and of the last layer. ReSi compares the layers of one model, so
that j = i is left out there, and takes one mean over all layers and directions.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from contrasim_cli.arrays import Device
from contrasim_cli.benchmarks import check_depth, model_pairs
from contrasim_cli.benchmarks.outcomes import Judged, Trials, judge
from contrasim_cli.errors import raise_all
from contrasim_cli.grid import Grid, layer_grids
from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import STRICTLY
from contrasim_cli.progress import Progress, silent
from contrasim_cli.scoring import Scorer, by_standardization
from contrasim_cli.store import View
from contrasim_cli.transforms import Standardizer


def predicted(grid: npt.NDArray[np.float64], higher: bool = True) -> Judged:
    """[layers] s(f_i, g_i) judged against the rest of row i; NaN where row i has a NaN."""
    others = grid[~np.eye(len(grid), dtype=bool)].reshape(len(grid), -1)
    scores = np.concatenate([np.diagonal(grid)[:, None], others], axis=1)
    answered: npt.NDArray[np.bool_] = np.logical_not(np.isnan(grid).any(axis=1))
    return judge(scores, higher, answered)


def falling(grid: npt.NDArray[np.float64], higher: bool = True) -> npt.NDArray[np.float64]:
    """[layers] in [-1, 1], 1 where similarity to g_j falls with |i - j| on both sides of i; NaN where row i has a NaN.

    Scores that differ by no more than 1e-6 relative tie, and where all do the correlation is 0.
    """
    signed = grid if higher else -grid
    found = np.full(len(grid), np.nan)
    for i, row in enumerate(signed):
        sides = [side for side in (row[i:], row[i::-1]) if len(side) > 1]
        if sides and not np.isnan(row).any():
            found[i] = np.mean([_rank_correlation(side) for side in sides])
    return found


def _rank_correlation(similarities: npt.NDArray[np.float64]) -> float:
    """Spearman correlation of similarities [k] with their distances' -0, -1, …, -(k - 1)."""
    ranks = _ranks(similarities)
    ranks -= ranks.mean()
    distances = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    size = float(np.sqrt(np.square(ranks).sum() * np.square(distances).sum()))
    return -float(ranks @ distances) / size if size else 0.0


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks [k] from 0; those that tie share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    bigger = np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1]))
    group = np.concatenate([[0], np.cumsum(np.diff(ordered) > STRICTLY * bigger)])
    means = np.bincount(group, np.arange(len(values))) / np.bincount(group)
    ranks = np.empty(len(values))
    ranks[order] = means[group]
    return ranks


def monotonicity(trials: Sequence[Trials]) -> list[Trials]:
    """How well scores of the same comparisons fall with the distance of layers; values are rank correlations, chance is 0."""
    found = []
    for one in trials:
        assert one.grids is not None
        higher = one.scorer.entry.higher_is_more_similar
        values = np.stack([falling(grid, higher) for grid in one.grids])[:, :, None]
        none = np.full_like(values, np.nan)
        found.append(replace(one, outcomes=values, reciprocal_ranks=none, margins=none, chance=0.0))
    return found


def layer_prediction(
    views: Sequence[View],
    names: Sequence[str],
    layers: Sequence[Sequence[str]],
    scorers: Sequence[Scorer],
    *,
    every_pair: bool,
    device: Device,
    budget: int,
    progress: Progress = silent,
    standardizer: Standardizer | None = None,
    seed: int = 0,
) -> list[Trials]:
    """Outcomes [pairs, layers, 1] of every scorer.

    Raises:
        MismatchError: models differ in their number of layers, or a width does not fit an encoder.
    """
    pairs = model_pairs(len(views), every_pair)
    check_depth(views, layers)
    plan = Plan(views, pairs, layers, layers)
    raise_all([problem for scorer in scorers for problem in plan.problems(scorer)])
    grids: dict[tuple[int, int, int], npt.NDArray[np.float64]] = {}
    for how, members in by_standardization(scorers).items():
        rows = (standardizer or Standardizer(views)).views(how, layers, budget, progress)
        grid = Grid(
            replace(plan, views=rows),
            [scorers[s] for s in members],
            device,
            budget,
            seed=seed,
            progress=progress,
            shuffles=0,
        )
        grids |= {(members[s], a, b): found for (s, a, b), found in layer_grids(grid).items()}
    labels = [f"{names[a]}-{names[b]}" for a, b in pairs]
    found = []
    for s, scorer in enumerate(scorers):
        by_pair = [grids[s, a, b] for a, b in pairs]
        each = [predicted(grid, scorer.entry.higher_is_more_similar) for grid in by_pair]
        judged = Judged(*(np.stack(values)[:, :, None] for values in zip(*each, strict=True)))
        found.append(
            Trials(
                scorer,
                "",
                labels,
                layers[0],
                *judged,
                chance=1 / len(layers[0]),
                models=pairs,
                grids=np.stack(by_pair),
            )
        )
    return found
