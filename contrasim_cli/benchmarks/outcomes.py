"""From outcomes of single trials to rows of results: one way for every benchmark."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contrasim_cli.benchmarks.intervals import Outcomes, cluster_interval, mean, spread
from contrasim_cli.results import ALL, BenchRow
from contrasim_cli.scoring import Scorer


@dataclass(frozen=True)
class Trials:
    """Outcomes of one scorer under one kind of negatives: 1 right, 0 wrong, NaN not defined.

    `outcomes` [pairs, layers, batches]; trials that share a cluster share rows. Clusters are batches, or pairs where
    `clusters_are_pairs` (which have a single batch).
    """

    scorer: Scorer
    negatives: str
    pairs: Sequence[str]
    layers: Sequence[str]
    outcomes: Outcomes
    chance: float
    clusters_are_pairs: bool = False


def tabulate(benchmark: str, all_trials: Sequence[Trials], seed: int) -> list[BenchRow]:
    """Rows per layer, per pair and overall, of every scorer, then of groups of encoders that differ in their seed alone."""
    rows = [row for trials in all_trials for row in _rows(benchmark, trials.scorer.name, [trials], seed)]
    for name, members in _groups(all_trials):
        rows.extend(_rows(benchmark, name, members, seed))
    return rows


def _groups(all_trials: Sequence[Trials]) -> Iterator[tuple[str, list[Trials]]]:
    groups: dict[tuple[object, ...], list[Trials]] = {}
    for trials in all_trials:
        checkpoint = trials.scorer.checkpoint
        if checkpoint is not None:
            stores = json.dumps(checkpoint.provenance.get("stores", ()), sort_keys=True)
            config = dataclasses.replace(checkpoint.config, seed=0)
            label = f"{config.objective} {config.similarity}" if config.similarity != "dot" else config.objective
            groups.setdefault((trials.negatives, label, config, stores, tuple(trials.pairs)), []).append(trials)
    several = {key: members for key, members in groups.items() if len(members) > 1}
    labels = Counter(key[:2] for key in several)
    for key, members in several.items():
        alike = labels[key[:2]] > 1
        which = ", ".join(trials.scorer.name for trials in members) if alike else f"{len(members)} encoders"
        yield f"{key[1]} ({which})", members


def _rows(benchmark: str, name: str, members: Sequence[Trials], seed: int) -> Iterator[BenchRow]:
    first = members[0]
    stacked = np.stack([trials.outcomes for trials in members])  # [encoders, pairs, layers, batches]

    def row(pair: str, layer: str, chosen: Outcomes) -> BenchRow:
        by_pair = chosen.mean(axis=(0, 2, 3))
        clusters = by_pair if first.clusters_are_pairs else chosen.mean(axis=(0, 1, 2))
        low, high = cluster_interval(clusters, seed)
        parts = by_pair if len(members) == 1 else chosen.mean(axis=(1, 2, 3))
        accuracy = mean(chosen)
        trials = 0 if accuracy is None else chosen.size
        return BenchRow(
            benchmark, name, first.negatives, pair, layer, accuracy, spread(parts), low, high, first.chance, trials
        )

    for k, layer in enumerate(first.layers):
        yield row(ALL, layer, stacked[:, :, k : k + 1])
    if len(first.pairs) > 1:
        for k, pair in enumerate(first.pairs):
            yield row(pair, ALL, stacked[:, k : k + 1])
    yield row(ALL, ALL, stacked)
