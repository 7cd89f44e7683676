"""What follows from results, and what does not: sentences that are made from the numbers by rules.

`RULES` state them, on every page and in the guide; nothing else decides what a page says.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contrasim_cli.measures import MEASURES
from contrasim_cli.names import listed
from contrasim_cli.nulls import AMPLE, CLEAR
from contrasim_cli.report.heat_maps import AT_ODDS, EVEN_ODDS, NEARLY, HeatMap
from contrasim_cli.report.results import ALL, MONOTONICITY, BenchRow, SanityRow

NEAR = 10.0  # % of depth by which layers of models of unequal depth may differ and be at the same depth
FEW_TRIALS = 30
ALL_ALIKE = 3  # layers from which on it is said that one layer is the best match of all
LOW = 0.1  # the level of shuffled rows from which on few rows are spoken of
SHOWN = 4  # names or measures that a sentence lists

RULES = (
    "Nearly identical: the scores of a row are nearly identical if the best one leads the median of the row's other scores by "
    f"less than {100 * NEARLY:g} % of the scale. The scale runs from the level of shuffled rows (0 where it is not known) to 1; "
    "that of distances from 0 to this level (or to the largest distance of the heat map); where a measure has no upper end, the "
    "largest score of the heat map is the length of the scale. Learned measures are judged by their calibrated scores, and those "
    f"whose raw scores are log odds (universal) also by these: the best one leads the next by less than {EVEN_ODDS:g}. No best "
    "match is framed in such a row. A measure with more than half of its rows such is left out of the sentences on best matches.",
    "Calibrated scores: rows are counted whose best match, which is by raw score, has a calibrated score that another layer of the "
    f"row exceeds by more than {AT_ODDS:g}.",
    "Diagonal: a layer counts as found if the layer of the same position in the other store is strictly the most similar of "
    "its row (by more than 1e-6, relative); ties and rows of nearly identical scores count as misses. Where stores have "
    f"different numbers of layers, a best match within {NEAR:g} % of depth counts. A choice at random picks every layer of the "
    "other store as often. The lead is the score of the same layer minus the best other score of its row, in the measure's own "
    "units (raw scores of learned measures), with the sign turned where lower is more similar; the median over rows is shown, "
    "over the pairs of stores that have equally many layers. Below 0 the same layer trails.",
    "Layers alike: the layers of a store are nearly identical by a closed form if any two of them score less than "
    f"{100 * NEARLY:g} % of the scale below a layer with itself.",
    f"One layer for all: said if all layers of a store that have a best match, {ALL_ALIKE} or more, have the same one.",
    "Contradiction: measures are named if more than half of their best matches are other layers than those of the first measure. "
    "Rows that are nearly identical by either measure do not count.",
    f"Shuffled rows: a score clears its null if it is more similar than the mean over shuffled rows by {CLEAR:g} or more of their "
    "standard deviations (null_z). Measures without a null are named. null_p is (1 + s) / (1 + m): of m scores of shuffled rows, "
    "s are at least as similar. m is the number of shuffles (--null N). Learned measures over measures (universal) hold a score "
    "against all cells of the shuffled heat maps: m = N x cells, with N x cells of about 100 unless --null N is given. So the "
    "smallest possible null_p is 1 / (1 + m): 0.0088 of 7 shuffles of 16 cells.",
    "Too few rows: measures that give unrelated rows a high score where there are fewer rows than neurons are named if some "
    f"compared layer is wider than there are rows, and called uncertain up to {AMPLE} rows for a neuron; not if shuffled rows are "
    f"known to score below {LOW:g}.",
    "Benchmarks: measures are ordered by their overall accuracy. The first leads if its 95 % interval lies above that of the "
    "second; otherwise the order may be noise, which bench compare tests. A measure is no better than chance if its interval "
    f"begins at or below chance, and below chance if it ends below. Fewer than {FEW_TRIALS} trials are said to be few.",
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
    defined = {grid.measure for grid in grids if np.isfinite(grid.values).any()}
    if not defined:
        return ["Nothing follows: no score is defined."]
    undefined = [name for name in dict.fromkeys(grid.measure for grid in grids) if name not in defined]
    kept = [k for k, grid in enumerate(grids) if grid.measure in defined]
    grids, depths = [grids[k] for k in kept], [depths[k] for k in kept]
    sentences = [*_diagonal(grids, depths), *_shuffled(grids, unclear), *_few_rows(grids, unclear, rows, widest)]
    return [*sentences, *([f"No score is defined by {listed(undefined, SHOWN)}."] if undefined else [])]


def of_layers_alike(within: Sequence[HeatMap]) -> list[str]:
    """Which measures give all layers of a store nearly the same score as a layer with itself: there no match means much."""
    alike: dict[str, list[str]] = {}
    for grid in within:
        scores = grid.signed()
        if grid.measure not in MEASURES or len(scores) < 2 or not np.isfinite(scores).all():
            continue
        if float((np.median(scores.diagonal()) - scores).max()) < NEARLY * grid.span:
            alike.setdefault(grid.measure, []).append(grid.stores[0])
    return [
        f"All layers of {listed(stores, SHOWN)} are nearly identical by {measure}: it cannot tell which of them matches a layer "
        "of another store."
        for measure, stores in alike.items()
    ]


def _diagonal(grids: Sequence[HeatMap], depths: Sequence[Depths]) -> list[str]:
    chosen = [grid for grid in grids if min(grid.values.shape) > 1]
    if not chosen:
        return ["There is one layer on a side, so that no best match can be told from others."]
    near = _nearly_identical(chosen)
    unread = [name for name, counts in near.items() if 2 * counts.rows > counts.of]
    read = [grid for grid in chosen if grid.measure not in unread]
    by_measure: dict[str, list[Found]] = {}
    for grid, places in zip(grids, depths, strict=True):
        if grid.measure not in unread and (found := matches(grid, places)) is not None:
            by_measure.setdefault(grid.measure, []).append(found)
    sentences = [*_found(read, by_measure), *_one_for_all(read), *_disagreement(read)] if by_measure else []
    calibrated = {grid.measure for grid in grids if grid.is_calibrated}
    if told := [_undecided(name, counts, name in calibrated) for name, counts in near.items() if counts.rows]:
        sentences.append(
            f"Scores of a row are nearly identical for {listed(told, SHOWN)}: which layer "
            "matches best is not to be read from them."
        )
    return [*sentences, *_at_odds(read), *_leads(read, by_measure, calibrated)]


def _at_odds(grids: Sequence[HeatMap]) -> list[str]:
    """In how many rows another layer than the best match has the largest calibrated score."""
    counts: dict[str, list[int]] = {}
    for grid in grids:
        count = counts.setdefault(grid.measure, [0, 0])
        count[0], count[1] = count[0] + grid.at_odds(), count[1] + len(grid.down)
    told = [f"{name} ({rows} of {of} rows)" for name, (rows, of) in counts.items() if rows]
    if not told:
        return []
    return [
        f"Another layer than the best match has the largest calibrated score by {listed(told, SHOWN)}: between models of one kind "
        "hold to the match; between different architectures compare it with closed forms."
    ]


class _Near(NamedTuple):
    """How many rows of a measure are nearly identical, how many of these by raw scores alone, and how many rows there are."""

    rows: int = 0
    raw: int = 0
    of: int = 0


def _nearly_identical(grids: Sequence[HeatMap]) -> dict[str, _Near]:
    """The counts by measure."""
    counts: dict[str, _Near] = {}
    for grid in grids:
        before, near = counts.get(grid.measure, _Near()), grid.nearly_identical()
        raw = int((near & ~grid.leads_little()).sum())
        counts[grid.measure] = _Near(before.rows + int(near.sum()), before.raw + raw, before.of + len(grid.down))
    return counts


def _undecided(name: str, counts: _Near, calibrated: bool) -> str:
    """A measure, how many of its rows are nearly identical, and by which rule."""
    rules = {"calibrated scores": counts.rows - counts.raw, f"best two raw scores within {EVEN_ODDS:g}": counts.raw}
    held = [f"{rows} by {rule}" if counts.raw not in (0, counts.rows) else rule for rule, rows in rules.items() if rows]
    why = f": {listed(held)}" if calibrated else ""
    return f"{name} ({counts.rows} of {counts.of} rows{why})"


def _found(grids: Sequence[HeatMap], by_measure: Mapping[str, Sequence[Found]]) -> list[str]:
    """How many layers have their counterpart as their best match, by measure."""
    equal = {len(grid.down) == len(grid.across) for grid in grids}
    pairs = len({grid.stores for grid in grids})
    parts = [_counted(name, found) for name, found in by_measure.items()]
    kind = {
        frozenset([True]): "the layer at the same position in the other store",
        frozenset([False]): f"a layer of about the same depth in the other store (within {NEAR:g} %)",
    }.get(
        frozenset(equal),
        "the layer at the same position in the other store (where stores differ in their number of layers, one of about the same "
        f"depth, within {NEAR:g} %)",
    )
    over = f", over {pairs} pairs of stores" if pairs > 1 else ""
    first = next(iter(by_measure.values()))
    chance, layers = sum(found.chance for found in first), sum(found.layers for found in first)
    return [
        f"Layers whose best match is {kind}: {listed(parts, SHOWN)}{over}. Matches drawn at random would give {chance:.1f} of "
        f"{layers} on average."
    ]


def _one_for_all(grids: Sequence[HeatMap]) -> list[str]:
    """Which measures match every layer of a store with one and the same layer of another."""
    told = []
    for grid in grids:
        best = grid.best()
        rows = best[best.any(axis=1)]
        if len(rows) >= ALL_ALIKE and min(best.shape) > 1 and rows.all(axis=0).any():
            one = grid.across[int(np.flatnonzero(rows.all(axis=0))[0])]
            told.append(
                f"{one} of {grid.stores[1]} for {len(rows)} of {len(best)} of {grid.stores[0]} by {grid.measure}"
            )
    if not told:
        return []
    return [
        f"One layer is the best match of every layer that has one: {listed(told, SHOWN)}. Which layers correspond does not follow "
        "from that."
    ]


def _leads(
    grids: Sequence[HeatMap], by_measure: Mapping[str, Sequence[Found]], calibrated: Collection[str]
) -> list[str]:
    """By how much the diagonal leads or trails, over the pairs of stores that have one.

    `calibrated` are the measures of which a page shows calibrated scores, but leads are raw.
    """
    leads = {name: [f.lead for f in found if f.lead is not None] for name, found in by_measure.items()}
    told: dict[str, list[str]] = {"leads": [], "trails": [], "ties with": []}
    for name, values in leads.items():
        if values:
            lead = float(np.median(values))
            verb = "leads" if lead > 0 else "trails" if lead < 0 else "ties with"
            number = f"by {_amount(lead)} " if lead else ""
            told[verb].append(f"{number}by {name}{' (raw scores)' * (name in calibrated)}")
    parts = [f"{verb} the best other layer of its row {listed(names, SHOWN)}" for verb, names in told.items() if names]
    if not parts:
        return []
    pairs = {grid.stores: len(grid.down) == len(grid.across) for grid in grids}
    square = [" – ".join(stores) for stores, is_square in pairs.items() if is_square]
    over = ""
    if len(square) < len(pairs):
        over = f" over the {len(square)} of {len(pairs)} pairs of stores that have equally many layers ({listed(square, SHOWN)})"
    return [f"In the median{over}, the layer at the same position {', and '.join(parts)}."]


def _disagreement(grids: Sequence[HeatMap]) -> list[str]:
    """Which measures choose other layers than the first one for more than half of the layers of which both choose one."""
    first = {grid.stores: grid.best() for grid in grids if grid.measure == grids[0].measure}
    same: dict[str, list[int]] = {}
    for grid in grids:
        if grid.measure != grids[0].measure and grid.stores in first:
            best, other = grid.best(), first[grid.stores]
            count = same.setdefault(grid.measure, [0, 0])
            count[0] += int(np.sum((best & other).any(axis=1)))
            count[1] += int(np.sum(best.any(axis=1) & other.any(axis=1)))
    told = [f"{name} (the same layer for {agreed} of {of})" for name, (agreed, of) in same.items() if 2 * agreed < of]
    if not told:
        return []
    return [
        f"Measures contradict each other: most best matches of {grids[0].measure} are not those of {listed(told, SHOWN)}."
    ]


def _counted(name: str, found: Sequence[Found]) -> str:
    return f"{sum(f.found for f in found)} of {sum(f.layers for f in found)} by {name}"


def _amount(value: float) -> str:
    """The size of a number that is not 0, which it does not become."""
    size = abs(value)
    return f"{size:.1g}" if size < 0.0005 else f"{size:.3f}" if size < 100 else f"{size:.3g}"


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
            f"What shuffled rows score is not known well enough for {listed(unknown, SHOWN)}: that rows correspond does not follow "
            "from a high score alone (--null 99 tells)."
        )
    return sentences


def _few_rows(grids: Sequence[HeatMap], unclear: Mapping[str, tuple[int, int]], rows: int, widest: int) -> list[str]:
    """Which measures unrelated rows score high by; where their level is known, scores are to be read from it."""
    if rows >= AMPLE * widest:
        return []
    measures = dict.fromkeys(grid.measure for grid in grids)
    biased = [name for name in measures if name in MEASURES and MEASURES[name].biased_by_width]
    known = [name for name in biased if unclear.get(name, (0, 0))[1]]
    unknown = [name for name in biased if name not in known]
    low = {grid.measure for grid in grids if grid.level is not None and grid.level < LOW}
    high = {grid.measure for grid in grids if grid.level is None or grid.level >= LOW}
    known = [name for name in known if name not in low - high]
    few = f"Rows are few for {{}}: {rows} for up to {widest} neurons, where unrelated rows may look alike too"
    if rows < widest:
        few = (
            f"There are too few rows for {{}}: {rows} are fewer than the {widest} neurons of the widest layer, where unrelated "
            "rows look alike too"
        )
    not_known = "that layers are similar does not follow from these scores" if rows < widest else "--null 99 tells"
    ends = {"read these scores from the level of shuffled rows, not from 0": known, not_known: unknown}
    return [f"{few.format(listed(names, SHOWN))}; {end}." for end, names in ends.items() if names]


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


def against_chance(rows: Mapping[str, BenchRow]) -> list[str]:
    """Which accuracies, by name, are no better than chance, and which are below."""
    below = [name for name, row in rows.items() if row.ci_high is not None and row.ci_high < row.chance]
    dim = [
        name for name, row in rows.items() if row.ci_low is not None and row.ci_low <= row.chance and name not in below
    ]
    sentences = []
    if dim:
        sentences.append(f"No better than chance, which lies in the 95 % interval: {listed(dim, SHOWN)}.")
    if below:
        sentences.append(f"Below chance: {listed(below, SHOWN)}.")
    return sentences


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
        sentence = f"{where}: {named(first)} orders layers by their distance with a rank correlation of {best}"
    sentences = [f"{sentence}; chance is {_value(first, first.chance)}."]
    if others:
        sentences.append(_lead(first, others[0]))
    sentences += against_chance({named(row): row for row in order})
    if 0 < first.trials < FEW_TRIALS:
        trials = f"{first.trials} trials are" if first.trials > 1 else "1 trial is"
        sentences.append(f"{trials} few: differences of a few points do not mean anything.")
    return sentences


def named(row: BenchRow) -> str:
    """A measure, with what it was trained on where that is said."""
    return f"{row.measure} (trained on {row.train_data})" if row.train_data else row.measure


def _lead(first: BenchRow, second: BenchRow) -> str:
    lead = (first.accuracy or 0.0) - (second.accuracy or 0.0)
    if lead == 0:
        return f"{named(second)} does as well."
    is_correlation = first.benchmark == MONOTONICITY
    points = (
        _amount(lead) if is_correlation else f"{100 * lead:.1f} points" if lead >= 0.0005 else "less than 0.1 points"
    )
    if first.ci_low is not None and second.ci_high is not None and first.ci_low > second.ci_high:
        return f"It leads the next, {named(second)}, by {points}; their 95 % intervals are apart."
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


# --- checks on one's own rows -------------------------------------------------------------------------------------------

DECISIVE = ("noise", "shuffle")  # checks that every measure of similarity has to pass


def of_sanity(checks: Sequence[SanityRow]) -> list[str]:
    """Which measures to take on the rows of a layer.

    A measure that fails `noise` or `shuffle` at any level does not tell these rows from others: do not use it. One that fails
    another check is to be used with care, one that passes all that were judged can be used. Where shuffling was not judged,
    nothing follows.
    """
    failed: dict[str, list[str]] = {}
    judged: dict[str, set[str]] = {}
    for row in checks:
        judged.setdefault(row.measure, set()).update([row.check] if row.verdict else [])
        failed.setdefault(row.measure, []).extend([row.check] if row.verdict == "fails" else [])
    fails = {name: list(dict.fromkeys(kinds)) for name, kinds in failed.items()}
    unknown = [name for name in fails if "shuffle" not in judged[name]]
    bad = [name for name in fails if set(fails[name]) & set(DECISIVE)]
    doubtful = [name for name in fails if fails[name] and name not in (*bad, *unknown)]
    good = [name for name in fails if name not in (*bad, *doubtful, *unknown)]
    told = {
        "passes every judged check, use": good,
        "use with care, fails in brackets": [f"{name} ({', '.join(fails[name])})" for name in doubtful],
        "do not use on these rows, fails in brackets": [f"{name} ({', '.join(fails[name])})" for name in bad],
        "nothing follows, shuffled rows were not judged": [name for name in unknown if name not in bad],
    }
    return [f"{verdict}: {', '.join(names)}" for verdict, names in told.items() if names]
