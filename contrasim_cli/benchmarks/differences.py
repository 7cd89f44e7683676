"""Is one measure better than another on the same trials, or is it noise?

Trials share rows (over pairs, layers and encoders), so that they are not independent; clusters of them are: batches (with all
batches of the same items, where rows belong to items), or for layer prediction pairs of models. The verdict rests on two
tests that both must agree, because either is too easily satisfied where the other is strict:

- signs: were the measures equal, each cluster's difference would as often be one way as the other. The p-value is the part of
  all ways to flip the clusters' signs that give a mean difference as large (all of them up to 2^14, else 9,999 at random).
  Where both sides are encoders that were trained alike but for their seed, which of them is on which side is chance too: then
  the p-value is no less than the part of all ways to exchange them. One against one it is 1: the difference is the seed's.
- a 95 % interval of the difference, by resampling clusters and, independently, the encoders of either side, where there are
  several (Owen 2007's pigeonhole bootstrap): what another training would have given counts as noise too. Where models occur
  in several pairs, the models are resampled, not the pairs.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.benchmarks.trials import Context, Recorded, SetFacts, Side, TrialsFile, context_of
from contrasim_cli.errors import MismatchError
from contrasim_cli.names import quoted
from contrasim_cli.report.results import ALL, CompareRow
from contrasim_cli.store.blocks import spans

LEVEL = 0.05
RESAMPLES = 10_000
FLIPS = 10_000  # the one that was observed among them
TOGETHER = 500  # resamples, or flips, at once
ENUMERATED = 14  # clusters whose signs are flipped in every way
DIFFERENT, SAME, FEW, UNDEFINED = "different", "no difference", "too few clusters", "undefined"

Doubles = npt.NDArray[np.float64]


def compare(file: TrialsFile, a: Side, b: Side, seed: int) -> list[CompareRow]:
    """Rows for every kind of negatives, data set and group of models: per layer, then overall.

    Raises:
        MismatchError: the sides share no trials.
    """
    sets = {one.name: one for one in file.facts.tested_on}
    contexts = [c for c in dict.fromkeys(map(context_of, a.members)) if b.of(c)]
    rows: list[CompareRow] = []
    for context in contexts:
        facts = sets.get(context[2])
        common = _Common.of(a.of(context), b.of(context), facts, file.facts.batch_size is None)
        if common is not None:
            rows.extend(_rows(file.facts.benchmark, context, (a.name, b.name), common, seed))
    if not rows:
        raise MismatchError(f"{quoted(a.name)} and {quoted(b.name)} share no trials: other negatives, pairs or layers")
    return rows


@dataclass(frozen=True)
class _Common:
    """The trials that both sides have: sums and counts [encoders, clusters, layers] of either, and what clusters are.

    `trainings` say how each encoder was trained. `nodes` [clusters, 2] are the models of each cluster where clusters are
    pairs of models that share them.
    """

    layers: Sequence[str]
    sums: tuple[Doubles, Doubles]
    counts: tuple[Doubles, Doubles]
    paired: bool
    trainings: tuple[list[str], list[str]]
    nodes: npt.NDArray[np.int64] | None

    @classmethod
    def of(
        cls, a: Sequence[Recorded], b: Sequence[Recorded], facts: SetFacts | None, by_pairs: bool
    ) -> "_Common | None":
        layers = [layer for layer in a[0].layers if layer in b[0].layers]
        of_b = {pair for one in b for pair in one.pairs}
        pairs = [pair for pair in dict.fromkeys(pair for one in a for pair in one.pairs) if pair in of_b]
        if not layers or not pairs:
            return None
        a, b, paired = _lined_up(a, b)
        sides = [np.stack([_at(one, pairs, layers) for one in side]) for side in (a, b)]
        judged = [np.stack([np.isin(pairs, one.pairs) for one in side]) for side in (a, b)]
        # what one encoder of either side has no answer for counts for none
        undefined: list[npt.NDArray[np.bool_]] = [
            np.asarray((np.isnan(side) & there[:, :, None, None]).any(axis=0))
            for side, there in zip(sides, judged, strict=True)
        ]
        kept = np.logical_not(undefined[0] | undefined[1])  # [pairs, layers, batches]
        cells, nodes = _clusters(pairs, facts.stores if facts else []) if by_pairs else (None, None)
        blocks = np.array(facts.blocks) if facts and facts.blocks else None
        sums, counts = [], []
        for side, there in zip(sides, judged, strict=True):
            valid = there[:, :, None, None] & kept[None] & np.ones(side.shape, dtype=bool)
            values = np.where(valid, side, 0.0)
            sums.append(_by_cluster(values, cells, blocks))
            counts.append(_by_cluster(valid.astype(float), cells, blocks))
        trainings = [one.training for one in a], [one.training for one in b]
        return cls(layers, (sums[0], sums[1]), (counts[0], counts[1]), paired, trainings, nodes)


def _at(one: Recorded, pairs: Sequence[str], layers: Sequence[str]) -> Doubles:
    """Outcomes [pairs, layers, batches] of these pairs, NaN where it was not judged on one."""
    out = np.full((len(pairs), len(layers), one.outcomes.shape[2]), np.nan)
    columns = [list(one.layers).index(layer) for layer in layers]
    where = {pair: k for k, pair in enumerate(one.pairs)}
    for k, pair in enumerate(pairs):
        if pair in where:
            out[k] = one.outcomes[where[pair]][columns]
    return out


def _lined_up(a: Sequence[Recorded], b: Sequence[Recorded]) -> tuple[list[Recorded], list[Recorded], bool]:
    """Encoders in an order in which the k-th of both sides belong together, if they do: but for their seed they are alike."""

    def kind(one: Recorded) -> tuple[str, str]:
        return one.train_data, ", ".join(part for part in one.encoder.split(", ") if not part.startswith("seed "))

    first, second = (sorted(side, key=lambda one: (*kind(one), one.encoder)) for side in (a, b))
    return first, second, [kind(one)[1] for one in first] == [kind(one)[1] for one in second]


def _clusters(
    pairs: Sequence[str], stores: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """Which cluster each pair is of: both orders of two models are one; and the models of each, where pairs share some."""
    named: dict[str, tuple[int, int]] = {}
    for i, j in itertools.permutations(range(len(stores)), 2):
        named[f"{stores[i]}-{stores[j]}"] = (min(i, j), max(i, j))
    models = [named.get(pair, (-1 - k, -1 - k)) for k, pair in enumerate(pairs)]
    distinct = list(dict.fromkeys(models))
    cells = np.array([distinct.index(pair) for pair in models])
    nodes = np.array(distinct)
    shared = len(np.unique(nodes)) < nodes.size and nodes.min() >= 0
    return cells, nodes if shared else None


def _by_cluster(values: Doubles, cells: npt.NDArray[np.int64] | None, blocks: npt.NDArray[np.int64] | None) -> Doubles:
    """[encoders, pairs, layers, batches] summed to [encoders, clusters, layers]: by batch or block, or by cluster of pairs."""
    if cells is None:
        by_batch: Doubles = values.sum(axis=1).transpose(0, 2, 1)
        return by_batch if blocks is None else np.eye(int(blocks.max()) + 1)[blocks].T @ by_batch
    of_cluster = np.eye(int(cells.max()) + 1)[cells]  # [pairs, clusters]
    by_pair: Doubles = np.einsum("epl,pc->ecl", values.sum(axis=3), of_cluster)
    return by_pair


class _Found(NamedTuple):
    accuracies: tuple[float, float]
    interval: tuple[float, float] | None
    p_value: float
    clusters: int
    trials: int


def _rows(benchmark: str, context: Context, names: tuple[str, str], common: _Common, seed: int) -> Iterator[CompareRow]:
    places: list[list[int]] = [[k] for k in range(len(common.layers))]
    found = [_compared(common, where, seed) for where in places]
    overall = _compared(common, list(range(len(common.layers))), seed)
    corrected = holm([one.p_value if one else None for one in found])
    labels = [*common.layers, ALL] if len(found) > 1 else [ALL]
    results = [*zip(found, corrected, strict=True), (overall, overall.p_value if overall else None)]
    for label, (one, p_holm) in zip(labels, results if len(found) > 1 else results[-1:], strict=True):
        yield _row(benchmark, context, names, label, one, p_holm)


def _row(
    benchmark: str,
    context: Context,
    names: tuple[str, str],
    layer: str,
    found: _Found | None,
    p_holm: float | None,
) -> CompareRow:
    of: dict[str, Any] = dict(zip(("negatives", "pair", "test_data", "models"), context, strict=True))
    of |= {"benchmark": benchmark, "layer": layer, "measure_a": names[0], "measure_b": names[1]}
    if found is None or p_holm is None:
        of |= dict.fromkeys(("accuracy_a", "accuracy_b", "difference", "ci_low", "ci_high", "p_value", "p_holm"))
        of |= {"clusters": 0, "trials": 0}
        return CompareRow(**of, verdict=UNDEFINED)
    low, high = found.interval or (None, None)
    return CompareRow(
        **of,
        accuracy_a=found.accuracies[0],
        accuracy_b=found.accuracies[1],
        difference=found.accuracies[0] - found.accuracies[1],
        ci_low=low,
        ci_high=high,
        p_value=found.p_value,
        p_holm=p_holm,
        clusters=found.clusters,
        trials=found.trials,
        verdict=_verdict(found, p_holm),
    )


def _verdict(found: _Found, p_holm: float) -> str:
    if 2.0 ** (1 - found.clusters) > LEVEL:
        return FEW
    apart = found.interval is not None and (found.interval[0] > 0 or found.interval[1] < 0)
    return DIFFERENT if apart and p_holm <= LEVEL else SAME


def _compared(common: _Common, layers: Sequence[int], seed: int) -> _Found | None:
    sums = [side[:, :, layers].sum(axis=2) for side in common.sums]  # [encoders, clusters]
    counts = [side[:, :, layers].sum(axis=2) for side in common.counts]
    if not (counts[0].any() and counts[1].any()):
        return None
    totals = [side.sum() for side in counts]
    each = sums[0].sum(axis=0) / totals[0] - sums[1].sum(axis=0) / totals[1]
    there = counts[0].any(axis=0)
    rng = seeds.stream(seed, seeds.DIFFERENCES)
    return _Found(
        accuracies=(float(sums[0].sum() / totals[0]), float(sums[1].sum() / totals[1])),
        interval=_interval(sums, counts, common, rng),
        p_value=max(sign_flips(each[there], rng), _exchanged(sums, counts, common.trainings, rng)),
        clusters=int(there.sum()),
        trials=int(max(totals)),
    )


def _exchanged(
    sums: Sequence[Doubles], counts: Sequence[Doubles], trainings: tuple[list[str], list[str]], rng: np.random.Generator
) -> float:
    """The p-value of exchanging encoders that were trained alike; 0 where the sides were not."""
    if set(trainings[0]) != set(trainings[1]) or "" in trainings[0]:
        return 0.0
    each = [np.concatenate([side.sum(axis=1) for side in values]) for values in (sums, counts)]
    strata = np.unique([*trainings[0], *trainings[1]], return_inverse=True)[1]
    return exchanges(each[0], each[1], strata, len(trainings[0]), rng)


def _interval(
    sums: Sequence[Doubles], counts: Sequence[Doubles], common: _Common, rng: np.random.Generator
) -> tuple[float, float] | None:
    """95 % percentile interval of the difference; None for fewer than two clusters."""
    if sums[0].shape[1] < 2:
        return None
    differences = []
    for start, stop in spans(RESAMPLES, TOGETHER):
        clusters = _cluster_weights(common, sums[0].shape[1], stop - start, rng)
        first = _weights(len(sums[0]), stop - start, rng)
        second = first if common.paired else _weights(len(sums[1]), stop - start, rng)
        means = [
            _ratio((u @ s * clusters).sum(axis=1), (u @ n * clusters).sum(axis=1))
            for u, s, n in zip((first, second), sums, counts, strict=True)
        ]
        differences.append(means[0] - means[1])
    low, high = np.nanquantile(np.concatenate(differences), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _ratio(total: Doubles, count: Doubles) -> Doubles:
    """NaN where nothing was drawn, as where one model was drawn every time."""
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _weights(things: int, size: int, rng: np.random.Generator) -> Doubles:
    """[size, things] how often each is drawn; one thing alone is always there."""
    if things == 1:
        return np.ones((size, 1))
    return rng.multinomial(things, np.full(things, 1 / things), size=size).astype(float)


def _cluster_weights(common: _Common, clusters: int, size: int, rng: np.random.Generator) -> Doubles:
    if common.nodes is None:
        return _weights(clusters, size, rng)
    models, places = np.unique(common.nodes, return_inverse=True)
    drawn = _weights(len(models), size, rng)
    first, second = places.reshape(common.nodes.shape).T
    return drawn[:, first] * drawn[:, second]


def sign_flips(differences: Doubles, rng: np.random.Generator) -> float:
    """Two-sided p-value of the sum of the clusters' differences [k], against all flips of their signs or a sample of them."""
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    reached = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) <= ENUMERATED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(differences))))
        return float((np.abs(signs @ differences) >= reached).mean())
    extreme = 0
    for start, stop in spans(FLIPS - 1, TOGETHER):
        signs = rng.integers(0, 2, size=(stop - start, len(differences))) * 2.0 - 1.0
        extreme += int((np.abs(signs @ differences) >= reached).sum())
    return (1 + extreme) / FLIPS


def exchanges(
    sums: Doubles, counts: Doubles, strata: npt.NDArray[np.int64], first: int, rng: np.random.Generator
) -> float:
    """Two-sided p-value of the difference of two means when things [k] change sides with others of their stratum.

    The first `first` things are one side. A side's mean is its sums over its counts.
    """
    own = np.arange(len(strata))
    places = np.argsort(strata, kind="stable")  # the places of each stratum, together
    reached = abs(_difference(sums, counts, own[None], first)[0]) - 1e-12
    extreme = 0
    for start, stop in spans(FLIPS - 1, TOGETHER):
        shuffled = np.argsort(strata + rng.random((stop - start, len(strata))), axis=1)
        order = np.empty_like(shuffled)
        order[:, places] = shuffled
        extreme += int((np.abs(_difference(sums, counts, order, first)) >= reached).sum())
    return (1 + extreme) / FLIPS


def _difference(sums: Doubles, counts: Doubles, order: npt.NDArray[np.int64], first: int) -> Doubles:
    """[arrangements] the first side's mean minus the second's, of things in the order given."""
    total, count = sums[order], counts[order]
    one: Doubles = total[:, :first].sum(axis=1) / count[:, :first].sum(axis=1)
    two: Doubles = total[:, first:].sum(axis=1) / count[:, first:].sum(axis=1)
    return one - two


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm (1979): p-values of several tests, corrected so that no error among all is more probable than each would be."""
    order = sorted((k for k, p in enumerate(p_values) if p is not None), key=lambda k: p_values[k] or 0.0)
    out: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (p_values[k] or 0.0)))
        out[k] = highest
    return out
