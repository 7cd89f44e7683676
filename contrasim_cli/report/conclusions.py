"""What follows from results, and what does not: sentences that are made from the numbers by rules.

`RULES` state them, on every page and in the guide; nothing else decides what a page says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contrasim_cli.measures import MEASURES
from contrasim_cli.names import listed
from contrasim_cli.nulls import CLEAR
from contrasim_cli.report.heat_maps import HeatMap
from contrasim_cli.report.results import ALL, MONOTONICITY, BenchRow

NEAR = 10.0  # % of depth by which layers of models of unequal depth may differ and be at the same depth
AMPLE = 4  # rows for each neuron, from which on the scores of unrelated rows are well below those of related ones
FEW_TRIALS = 30
SHOWN = 4  # names or measures that a sentence lists

RULES = (
    "Diagonal: a layer counts as found if the layer of the same position in the other store is strictly the most similar of "
    "its row (by more than 1e-6, relative); ties count as misses. Where stores have different numbers of layers, a best match "
    f"within {NEAR:g} % of depth counts. A choice at random picks every layer of the other store as often. The lead is the score "
    "of the same layer minus the best other score of its row, in the measure's own units, with the sign turned where lower is "
    "more similar; the median over rows is shown.",
    "Contradiction: measures are named if more than half of their best matches are other layers than those of the first measure.",
    f"Shuffled rows: a score clears its null if it is more similar than the mean over shuffled rows by {CLEAR:g} or more of their "
    "standard deviations (null_z). Measures without a null are named.",
    "Too few rows: measures that give unrelated rows a high score where there are fewer rows than neurons are named if some "
    f"compared layer is wider than there are rows, and called uncertain up to {AMPLE} rows for a neuron.",
    "Benchmarks: measures are ordered by their overall accuracy. The first leads if its 95 % interval lies above that of the "
    "second; otherwise the order may be noise, which bench compare tests. A measure is not told from chance if its interval "
    f"begins at or below chance. Fewer than {FEW_TRIALS} trials are said to be few.",
)


class Depths(NamedTuple):
    """Where the layers of the two sides of a grid lie, in % of their stores' depth."""

    down: Sequence[float]
    across: Sequence[float]


class Found(NamedTuple):
    """How the layers of a grid find those of the same depth."""

    measure: str
    found: int
    layers: int
    lead: float | None  # median; None where a layer has no counterpart
    chance: float  # how many a choice at random finds


def learned(measure: str) -> bool:
    """Whether a measure is an encoder."""
    return measure not in MEASURES


def learned_first(measures: Sequence[str]) -> list[str]:
    """The measures, each once, encoders before closed forms."""
    return sorted(dict.fromkeys(measures), key=lambda name: not learned(name))


def matches(grid: HeatMap, depths: Depths) -> Found | None:
    """How many layers of the first side have their counterpart as their best match; None where there is nothing to choose."""
    signed, best = grid.signed(), grid.best()
    if min(signed.shape) < 2:
        return None
    single = best.sum(axis=1) == 1
    if len(grid.down) == len(grid.across):
        own = signed.diagonal()
        others = np.where(np.eye(len(own), dtype=bool), -np.inf, signed).max(axis=1)
        known = np.isfinite(own) & np.isfinite(others)
        lead = float(np.median(own[known] - others[known])) if known.any() else None
        return Found(grid.measure, int((single & best.diagonal()).sum()), len(own), lead, 1.0)
    near = np.abs(np.subtract.outer(np.array(depths.down), np.array(depths.across))) <= NEAR
    found = int((single & (best & near).any(axis=1)).sum())
    return Found(grid.measure, found, len(grid.down), None, float(near.sum() / len(grid.across)))


def of_scores(
    grids: Sequence[HeatMap], depths: Sequence[Depths], unclear: dict[str, tuple[int, int]], rows: int, widest: int
) -> list[str]:
    """Sentences about scores of layers of different stores.

    `grids`: with their depths, measures in the order of the page. `unclear`: by measure, how many scores do not clear their null,
    and how many have one. `rows`: those compared. `widest`: neurons of the widest layer.
    """
    sentences = [*_diagonal(grids, depths), *_shuffled(grids, unclear), *_few_rows(grids, rows, widest)]
    return sentences or ["Nothing follows: no score is defined."]


def _diagonal(grids: Sequence[HeatMap], depths: Sequence[Depths]) -> list[str]:
    by_measure: dict[str, list[Found]] = {}
    for grid, places in zip(grids, depths, strict=True):
        if (found := matches(grid, places)) is not None:
            by_measure.setdefault(grid.measure, []).append(found)
    if not by_measure:
        return ["There is one layer on a side, so that no best match can be told from others."] if grids else []
    equal = all(len(grid.down) == len(grid.across) for grid in grids)
    pairs = len({grid.stores for grid in grids})
    parts = [_counted(name, found) for name, found in by_measure.items()]
    kind = (
        "the same layer of the other store" if equal else f"a layer within {NEAR:g} % of its depth in the other store"
    )
    over = f" (over {pairs} pairs of stores)" if pairs > 1 else ""
    chance = sum(found.chance for found in next(iter(by_measure.values())))
    sentences = [
        f"The best match of a layer is {kind}: {listed(parts, SHOWN)}{over}; a choice at random would find {chance:.1f}.",
        *_disagreement(grids),
    ]
    leads = {name: [f.lead for f in found if f.lead is not None] for name, found in by_measure.items()}
    told = [f"{_signed(float(np.median(values)))} by {name}" for name, values in leads.items() if values]
    if told:
        sentences.append(
            f"The diagonal leads the best other layer of its row by {listed(told, SHOWN)} in the median; below 0 it is behind."
        )
    return sentences


def _disagreement(grids: Sequence[HeatMap]) -> list[str]:
    """Which measures choose other layers than the first one for more than half of the layers."""
    first = {grid.stores: grid.best() for grid in grids if grid.measure == grids[0].measure}
    same: dict[str, list[int]] = {}
    for grid in grids:
        if grid.measure != grids[0].measure and grid.stores in first:
            count = same.setdefault(grid.measure, [0, 0])
            count[0] += int(np.sum((grid.best() & first[grid.stores]).any(axis=1)))
            count[1] += len(grid.down)
    told = [f"{name} (the same layer for {agreed} of {of})" for name, (agreed, of) in same.items() if 2 * agreed < of]
    if not told:
        return []
    return [
        f"Measures contradict each other: most best matches of {grids[0].measure} are not those of {listed(told, SHOWN)}."
    ]


def _counted(name: str, found: Sequence[Found]) -> str:
    return f"for {sum(f.found for f in found)} of {sum(f.layers for f in found)} layers by {name}"


def _signed(value: float) -> str:
    text = f"{value:+.3f}" if abs(value) < 100 else f"{value:+.3g}"
    return text.replace("-", "−")


def _shuffled(grids: Sequence[HeatMap], unclear: dict[str, tuple[int, int]]) -> list[str]:
    measures = list(dict.fromkeys(grid.measure for grid in grids))
    held = [f"{count - below} of {count} by {name}" for name, (below, count) in unclear.items() if count]
    sentences = []
    if held:
        sentences.append(
            f"Pairs of layers that are more similar than shuffled rows by {CLEAR:g} standard deviations or more: "
            f"{listed(held, SHOWN)}."
        )
    unknown = [name for name in measures if not unclear.get(name, (0, 0))[1]]
    if unknown:
        sentences.append(
            f"What shuffled rows score is not known for {listed(unknown, SHOWN)}: from a high score alone it does not follow that "
            "rows correspond (--null 99 counts it)."
        )
    return sentences


def _few_rows(grids: Sequence[HeatMap], rows: int, widest: int) -> list[str]:
    measures = list(dict.fromkeys(grid.measure for grid in grids))
    biased = [name for name in measures if name in MEASURES and MEASURES[name].biased_by_width]
    if not biased:
        return []
    names = listed(biased, SHOWN)
    if rows < widest:
        return [
            f"There are too few rows for {names}: {rows} are fewer than the {widest} neurons of the widest layer, where "
            "unrelated rows look alike too; that layers are similar does not follow from these scores."
        ]
    if rows < AMPLE * widest:
        return [
            f"Rows are few for {names}: {rows} for up to {widest} neurons; hold the scores against those of shuffled rows."
        ]
    return []


# --- benchmarks -------------------------------------------------------------------------------------------------------


def of_benchmark(rows: Sequence[BenchRow]) -> list[str]:
    """Sentences about the overall accuracies of each benchmark and kind of negatives."""
    groups: dict[tuple[str, ...], list[BenchRow]] = {}
    for row in rows:
        if row.layer == ALL and row.pair == ALL and row.accuracy is not None:
            groups.setdefault((row.benchmark, row.negatives, row.test_data, row.models), []).append(row)
    if not groups:  # of one pair
        for row in rows:
            if row.layer == ALL and row.accuracy is not None:
                groups.setdefault((row.benchmark, row.negatives, row.pair, ""), []).append(row)
    sentences = [sentence for key, members in groups.items() for sentence in _ranked(key, members)]
    return sentences or ["Nothing follows: no accuracy is defined."]


def _ranked(key: Sequence[str], members: Sequence[BenchRow]) -> list[str]:
    order = sorted(members, key=lambda row: -(row.accuracy or 0.0))
    first, *others = order
    negatives = f"{key[1]} negatives" if key[1] else ""
    where = ", ".join(part for part in (key[0], negatives, *key[2:]) if part)
    sentence = (
        f"{where}: {named(first)} has {_value(first, first.accuracy)}{_interval(first)} of {first.trials} trials right"
    )
    if first.benchmark == MONOTONICITY:
        best = _value(first, first.accuracy)
        sentence = f"{where}: {named(first)} falls with the distance of layers most, by a rank correlation of {best}"
    sentences = [f"{sentence}; chance is {_value(first, first.chance)}."]
    if others:
        sentences.append(_lead(first, others[0]))
    dim = [named(row) for row in order if row.ci_low is not None and row.ci_low <= row.chance]
    if dim:
        sentences.append(f"Not told from chance: {listed(dim, SHOWN)}.")
    if 0 < first.trials < FEW_TRIALS:
        sentences.append(f"{first.trials} trials are few: differences of a few points do not mean anything.")
    return sentences


def named(row: BenchRow) -> str:
    """A measure, with what it was trained on where that is said."""
    return f"{row.measure} (trained on {row.train_data})" if row.train_data else row.measure


def _lead(first: BenchRow, second: BenchRow) -> str:
    lead = (first.accuracy or 0.0) - (second.accuracy or 0.0)
    points = f"{lead:.3f}" if first.benchmark == MONOTONICITY else f"{100 * lead:.1f} points"
    if first.ci_low is not None and second.ci_high is not None and first.ci_low > second.ci_high:
        return f"It leads the next, {named(second)}, by {points}; their 95 % intervals are apart."
    if lead == 0:
        return f"{named(second)} has as many right."
    return (
        f"It is ahead of the next, {named(second)}, by {points}, which may be noise: that it is better does not follow "
        "(bench compare tests it)."
    )


def _value(row: BenchRow, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.3f}" if row.benchmark == MONOTONICITY else f"{100 * value:.1f} %"


def _interval(row: BenchRow) -> str:
    if row.ci_low is None or row.ci_high is None:
        return ""
    return f" (95 % interval {_value(row, row.ci_low).removesuffix(' %')} to {_value(row, row.ci_high)})"
