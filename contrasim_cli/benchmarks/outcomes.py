"""From scores of single trials to rows of results, with spreads and cluster-bootstrap intervals: one way for every benchmark."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed, seeds
from contrasim_cli.measures import STRICTLY
from contrasim_cli.report.results import ALL, BenchRow
from contrasim_cli.scoring import Scorer
from contrasim_cli.store.blocks import spans

RESAMPLES = 2000
LEVEL = 0.95
DRAWN = 1 << 17  # clusters drawn at once, which a cache holds

Outcomes = npt.NDArray[np.floating[Any]]


def mean(values: Outcomes) -> float | None:
    """The mean, or None where a value is missing or there is none."""
    return None if values.size == 0 or bool(np.isnan(values).any()) else float(values.mean())


def defined_mean(values: Outcomes) -> float | None:
    """The mean of the values that there are, or None."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def spread(values: Outcomes) -> float | None:
    """Population standard deviation; None for fewer than two values, of which there is none."""
    return None if values.size < 2 or bool(np.isnan(values).any()) else float(values.std())


def cluster_interval(
    by_cluster: Outcomes, seed: int, sizes: Outcomes | None = None
) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean of clusters [k], resampled whole; None for fewer than two.

    Clusters count alike, or, where they are sums over so many trials (`sizes`), trials do.
    """
    if by_cluster.size < 2 or bool(np.isnan(by_cluster).any()):
        return None, None
    rng = seeds.stream(seed, seeds.INTERVALS)
    count = by_cluster.size
    means = []
    for start, stop in spans(RESAMPLES, max(1, DRAWN // count)):
        drawn = rng.integers(0, count, size=(stop - start, count))
        found = by_cluster[drawn].mean(axis=1)
        means.append(found if sizes is None else found / sizes[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def models_interval(by_pair: Outcomes, models: npt.NDArray[np.int64], seed: int) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean of pairs [k] of `models` [k, 2]; None for fewer than two.

    Where pairs share models, models are resampled, and a pair counts as often as both of its models are drawn together; else pairs.
    """
    known, places = np.unique(models, return_inverse=True)
    if by_pair.size < 2 or bool(np.isnan(by_pair).any()) or known.size == models.size:
        return cluster_interval(by_pair, seed)
    first, second = places.reshape(models.shape).T
    rng = seeds.stream(seed, seeds.INTERVALS)
    means = []
    for start, stop in spans(RESAMPLES, max(1, DRAWN // by_pair.size)):
        drawn = rng.multinomial(known.size, np.full(known.size, 1 / known.size), size=stop - start)
        weights = drawn[:, first] * drawn[:, second]
        total = weights.sum(axis=1)
        means.append((weights @ by_pair)[total > 0] / total[total > 0])
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


class Judged(NamedTuple):
    """How far ahead the right answers of some trials are, three arrays of one shape; NaN where a trial has no answer.

    outcomes: 1 where s_0 is strictly the most similar of all, 0 where it is not. reciprocal_ranks: 1 / rank in (0, 1],
    where rank 1 is the best and every candidate that s_0 is not strictly ahead of is ranked before it, so that a tie
    counts against it. margins: s_0 minus the best candidate over the candidates' population standard deviation, signed
    so that higher is better; NaN also where one of the scores is, and where the candidates tie (they deviate by no more
    than 1e-6 of the largest score), as a single one does.
    """

    outcomes: Outcomes
    reciprocal_ranks: Outcomes
    margins: Outcomes


def judge(scores: Outcomes, higher: bool = True, answered: npt.NDArray[np.bool_] | None = None) -> Judged:
    """Judge trials [...] by their scores [..., 1 + m]: s_0, then wrong candidates; a NaN beats nothing and is not beaten."""
    signed = scores if higher else -scores
    own, candidates = signed[..., :1], signed[..., 1:]
    with np.errstate(invalid="ignore"):
        beaten = own - candidates > STRICTLY * np.maximum(np.abs(own), np.abs(candidates))
    ranks = 1 + (~beaten).sum(axis=-1)
    found = beaten.all(axis=-1).astype(float), 1 / ranks, _margins(signed)
    return Judged(*(np.where(True if answered is None else answered, values, np.nan) for values in found))


def _margins(signed: Outcomes) -> Outcomes:
    if signed.shape[-1] < 3:  # a single candidate does not deviate
        return np.full(signed.shape[:-1], np.nan)
    largest = np.abs(signed).max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = signed / largest  # squares neither overflow nor vanish
        deviation = scaled[..., 1:].std(axis=-1)
        unit = np.where(deviation > STRICTLY, deviation, np.nan)
        margins: Outcomes = (scaled[..., 0] - scaled[..., 1:].max(axis=-1)) / unit
    return margins


@dataclass(frozen=True)
class Origin:
    """What trials are of, beside their scorer, where there is more than one of it.

    `label` names the rows of all encoders that were trained for one measure, and `encoder` tells these apart; `train` is
    what they were trained on. `test` is a data set, `models` seen or unseen; `pair` stands for `all` pairs where there is
    one.
    """

    label: str = ""
    train: str = ""
    encoder: str = ""
    test: str = ""
    models: str = ""
    pair: str = ""


@dataclass(frozen=True)
class Trials:
    """Trials of one scorer under one kind of negatives, judged as in `Judged`; NaN where the measure says nothing.

    The three arrays are [pairs, layers, batches]; trials that share a cluster share rows. Clusters are batches, or pairs of
    models, in either order, where `models` [pairs, 2] numbers these (which have a single batch), or batches of the same
    items, where `blocks` [batches] numbers those. `grids` [pairs, layers, layers] are the scores of layers against layers,
    where trials come from those. `recalls` [pairs, layers] says which part of the exact neighbours an approximate search has
    found, where there was one.
    """

    scorer: Scorer
    negatives: str
    pairs: Sequence[str]
    layers: Sequence[str]
    outcomes: Outcomes
    reciprocal_ranks: Outcomes
    margins: Outcomes
    chance: float
    models: Sequence[tuple[int, int]] = ()
    recalls: Outcomes | None = None
    grids: Outcomes | None = None
    origin: Origin = Origin()
    blocks: npt.NDArray[np.int64] | None = None

    @property
    def name(self) -> str:
        """The name of the rows that these are summed up in."""
        return self.origin.label or self.scorer.name


def tabulate(benchmark: str, all_trials: Sequence[Trials], seed: int) -> list[BenchRow]:
    """Rows per layer, per pair and overall, of every scorer, then of groups of encoders that differ in their seed alone.

    The encoders that were trained for one measure are summed up in the same rows. Ranks share the intervals.
    """
    rows = [row for members in _together(all_trials) for row in _rows(benchmark, members[0].name, members)]
    for name, members in _groups(all_trials):
        rows.extend(_rows(benchmark, name, members))
    found = distributed.gathered([clusters.interval(seed) for _, clusters in distributed.share(rows)])
    intervals = [interval for part in found for interval in part]
    return [
        dataclasses.replace(row, ci_low=low, ci_high=high)
        for (row, _), (low, high) in zip(rows, intervals, strict=True)
    ]


def _together(all_trials: Sequence[Trials]) -> Iterator[list[Trials]]:
    """The trials that make the same rows."""
    groups: dict[tuple[object, ...], list[Trials]] = {}
    for k, trials in enumerate(all_trials):
        alone = k if not trials.origin.label else -1
        where = dataclasses.replace(trials.origin, encoder="")
        groups.setdefault((alone, where, trials.negatives), []).append(trials)
    yield from groups.values()


def _groups(all_trials: Sequence[Trials]) -> Iterator[tuple[str, list[Trials]]]:
    groups: dict[tuple[object, ...], list[Trials]] = {}
    for trials in all_trials:
        checkpoint = trials.scorer.checkpoint
        if checkpoint is not None and not trials.origin.label:
            stores = json.dumps(checkpoint.provenance.get("stores", ()), sort_keys=True)
            config = dataclasses.replace(checkpoint.config, seed=0)
            label = f"{config.objective} {config.similarity}" if config.similarity != "dot" else config.objective
            where = (config, stores, tuple(trials.pairs), trials.origin)
            groups.setdefault((trials.negatives, label, *where), []).append(trials)
    several = {key: members for key, members in groups.items() if len(members) > 1}
    labels = Counter(key[:2] for key in several)
    for key, members in several.items():
        alike = labels[key[:2]] > 1
        which = ", ".join(trials.scorer.name for trials in members) if alike else f"{len(members)} encoders"
        yield f"{key[1]} ({which})", members


class Clusters(NamedTuple):
    """Means of what is resampled whole: [k] clusters; batches [k] with all of their block, where they have one.

    `models` [k, 2]: clusters are pairs of these.
    """

    means: Outcomes
    blocks: npt.NDArray[np.int64] | None
    models: npt.NDArray[np.int64] | None

    def interval(self, seed: int) -> tuple[float | None, float | None]:
        """95 % percentile interval of their mean."""
        if self.models is not None:
            return models_interval(self.means, self.models, seed)
        if self.blocks is None:
            return cluster_interval(self.means, seed)
        places = np.unique(self.blocks, return_inverse=True)[1]
        sums: Outcomes = np.bincount(places, weights=self.means).astype(np.float64)
        counts: Outcomes = np.bincount(places).astype(np.float64)
        return cluster_interval(sums, seed, counts)


def _rows(benchmark: str, name: str, members: Sequence[Trials]) -> Iterator[tuple[BenchRow, Clusters]]:
    """Rows without their intervals, and what these are of."""
    first = members[0]
    # each [encoders and their pairs, layers, batches]
    outcomes, ranks, margins = (
        np.concatenate([getattr(trials, values) for trials in members])
        for values in ("outcomes", "reciprocal_ranks", "margins")
    )
    answered = ~np.isnan(outcomes).all(axis=(0, 1))  # a batch that is too small is left out of all layers
    blocks = first.blocks
    if answered.any():
        blocks = None if blocks is None else blocks[answered]
        outcomes, ranks, margins = (values[..., answered] for values in (outcomes, ranks, margins))
    found = [trials.recalls for trials in members if trials.recalls is not None]
    recalls = np.concatenate(found) if found else None  # all members are of one run, and have them or not
    encoder = np.repeat(np.arange(len(members)), [len(trials.pairs) for trials in members])
    pairs = np.array([pair for trials in members for pair in trials.pairs])
    pooled = len({tuple(trials.pairs) for trials in members}) > 1  # encoders that are judged on different pairs
    models = np.array([np.sort(pair) for trials in members for pair in trials.models])
    everything = first.origin.pair or ALL

    def row(pair: str, layer: str, which: npt.NDArray[np.bool_], layers: slice) -> tuple[BenchRow, Clusters]:
        chosen = outcomes[which, layers]
        by_side = chosen.mean(axis=(1, 2))
        distinct = None
        if models.size:
            distinct, places = np.unique(models[which], axis=0, return_inverse=True)
            clusters = _means(by_side, places.ravel())
        else:
            clusters = chosen.mean(axis=(0, 1))
        parts = by_side if pooled or len(members) == 1 else _means(by_side, encoder[which])
        accuracy = mean(chosen)
        found = BenchRow(
            benchmark=benchmark,
            measure=name,
            negatives=first.negatives,
            pair=pair,
            layer=layer,
            accuracy=accuracy,
            std=spread(parts),
            ci_low=None,
            ci_high=None,
            chance=first.chance,
            trials=0 if accuracy is None else chosen.size,
            mrr=mean(ranks[which, layers]),
            margin=None if accuracy is None else defined_mean(margins[which, layers]),
            test_data=first.origin.test,
            train_data=first.origin.train,
            models=first.origin.models,
            encoders=len(members) if first.scorer.checkpoint else 0,
            recall=None if recalls is None else mean(recalls[which, layers]),
        )
        return found, Clusters(clusters, blocks, distinct)

    every = np.ones(len(pairs), dtype=bool)
    for k, layer in enumerate(first.layers):
        yield row(everything, layer, every, slice(k, k + 1))
    distinct = list(dict.fromkeys(pairs.tolist()))
    if len(distinct) > 1:
        for pair in distinct:
            yield row(pair, ALL, pairs == pair, slice(None))
    yield row(everything, ALL, every, slice(None))


def _means(values: Outcomes, of: npt.NDArray[Any]) -> Outcomes:
    """The mean of the values of each distinct label, in their order."""
    places = np.unique(of, return_inverse=True)[1]
    means: Outcomes = np.bincount(places, weights=values) / np.bincount(places)
    return means
