"""Layer prediction (§5.1; Kornblith et al. 2019): is the same layer of another model the most similar one?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from contrasim_cli.benchmarks import model_pairs
from contrasim_cli.benchmarks.outcomes import Judged, Trials, judge
from contrasim_cli.errors import MismatchError, raise_all
from contrasim_cli.files import quoted
from contrasim_cli.grid import Grid, layer_grids
from contrasim_cli.grid.plan import Plan
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


def layer_prediction(
    views: Sequence[View],
    names: Sequence[str],
    layers: Sequence[Sequence[str]],
    scorers: Sequence[Scorer],
    *,
    every_pair: bool,
    device: torch.device,
    budget: int,
    progress: Progress = silent,
    standardizer: Standardizer | None = None,
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
        grid = Grid(replace(plan, views=rows), [scorers[s] for s in members], device, budget, progress=progress)
        grids |= {(members[s], a, b): found for (s, a, b), found in layer_grids(grid).items()}
    labels = [f"{names[a]}-{names[b]}" for a, b in pairs]
    found = []
    for s, scorer in enumerate(scorers):
        by_pair = [predicted(grids[s, a, b], scorer.entry.higher_is_more_similar) for a, b in pairs]
        judged = Judged(*(np.stack(values)[:, :, None] for values in zip(*by_pair, strict=True)))
        chance = 1 / len(layers[0])
        found.append(Trials(scorer, "", labels, layers[0], *judged, chance, clusters_are_pairs=True))
    return found


def check_depth(views: Sequence[View], layers: Sequence[Sequence[str]]) -> None:
    """Refuse views whose numbers of layers differ."""
    first = views[0].store
    raise_all(
        [
            MismatchError(
                f"{quoted(view.store.path)}: {len(chosen)} layers are selected where {quoted(first.path)} has {len(layers[0])}; "
                "select corresponding layers with --layers (or --layers-a and --layers-b)"
            )
            for view, chosen in zip(views, layers, strict=True)
            if len(chosen) != len(layers[0])
        ]
    )
