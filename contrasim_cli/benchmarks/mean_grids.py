"""The grids of layers against layers that layer prediction is about, as means over pairs of models."""

from collections.abc import Sequence

import numpy as np

from contrasim_cli.benchmarks.outcomes import Trials
from contrasim_cli.report.heat_maps import HeatMap


def mean_grids(all_trials: Sequence[Trials]) -> list[HeatMap]:
    """One map per measure and set of pairs: the mean over pairs, and over encoders that were trained for one measure."""
    together: dict[tuple[str, str, str, str], list[Trials]] = {}
    for trials in all_trials:
        origin = trials.origin
        together.setdefault((trials.name, origin.train, origin.test, origin.models), []).append(trials)
    maps = []
    for (name, train, test, models), members in together.items():
        stacked = np.concatenate([trials.grids for trials in members if trials.grids is not None])
        trained = f", trained on {train}" if train and len({key[1] for key in together if key[1]}) > 1 else ""
        pairs = len({pair for trials in members for pair in trials.pairs})
        scope = ", ".join(part for part in (test, models, f"mean of {pairs} pair{'s' * (pairs > 1)}") if part)
        layers, higher = members[0].layers, members[0].scorer.entry.higher_is_more_similar
        sides = ("layer of the first", f"layer of the second\n({scope})")
        maps.append(HeatMap(f"{name}{trained}", sides, layers, layers, stacked.mean(axis=0), higher))
    return maps
