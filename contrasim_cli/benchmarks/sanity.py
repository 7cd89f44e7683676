"""Does a measure respond as claimed on the user's own rows? Changes of which it is known what they should do.

X [n, p] are rows of one layer, and Y a noisy copy of them: every neuron gets Gaussian noise of half its standard deviation.

invariances     what the registry says of the measure (`measures.INVARIANCES`): s(X, Y) must not change when either side, in turn,
                or both sides are changed. What is not claimed is shown and not judged.
neuron-scale    every neuron of a side times its own factor, 0.1 to 10; claimed with `linear`
outlier         one neuron of a side becomes noise of ten times the rows' standard deviation; nothing is claimed
noise           s(X, X + noise) of 0.1 to 5 standard deviations of every neuron must fall from level to level, until it is at
                chance; the mean over the noise and its opposite, between which a measure that noise does not move is even
shuffle         s(X, Y with its rows in another order) must be at chance: s(X, Y) lies CLEAR standard deviations over orders above
                it, and where the measure has a score of no similarity (`Entry.unrelated`), it is nearer to that than to s(X, X).
                Of measures that compare one number per side, whatever the order of rows (the family `statistics`), it must be
                the same
width           s(X, half, a quarter, an eighth of its neurons) must not rise from level to level; the other neurons are 0 where a
                measure needs equal widths, or an encoder takes one width

Changes up to TOLERANCE of the measure's range on these rows (how far noise and shuffling move it) are none. Rows are standardised
after they are changed, by their own statistics, and then encoded: it is the whole way from rows to a number that is examined.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.anchors import Anchoring
from contrasim_cli.arrays import Device
from contrasim_cli.errors import UsageError
from contrasim_cli.grid.work import of_layers
from contrasim_cli.measures import INVARIANCES, STRICTLY
from contrasim_cli.names import quoted
from contrasim_cli.nulls import CLEAR
from contrasim_cli.progress import Progress, silent
from contrasim_cli.report.results import SanityRow
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import Store
from contrasim_cli.transforms import Standardization, statistics_of, transform

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
NOISE = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # standard deviations of each neuron
WIDTHS = (0.5, 0.25, 0.125)  # parts of the neurons that are left
BEFORE = 0.5  # noise of Y
SHUFFLES = 5
OUTLIER = 10.0
COMPARED = 39  # pairs of sides of every layer, each with a side that is prepared for it

UNCHANGED, FALLS, CHANCE, NO_RISE, MAY_CHANGE = "unchanged", "falls", "chance", "no rise", "may change"
OK, FAILS = "ok", "fails"

Doubles = npt.NDArray[np.float64]
Sides = tuple[Doubles, Doubles]
Key = tuple[str, float | None]  # check, level


class Changes:
    """Rows X [n, p], their noisy copy, and what is done to them; everything drawn from one seed."""

    def __init__(self, x: Doubles, seed: int, keep_width: bool = False) -> None:
        n, p = x.shape
        rng = seeds.stream(seed, seeds.SANITY_CHANGES)
        self.x, self.keep_width = x, keep_width
        unit = float(np.abs(x).max()) or 1.0  # squares of what is left neither overflow nor vanish
        self.spread = unit * (x / unit).std(axis=0)
        whole = unit * float(np.sqrt((x / unit).var(axis=0).sum()))
        self.noise = rng.normal(size=x.shape)
        self.y = self.noisy(BEFORE, rng.normal(size=x.shape))
        self.order = rng.permutation(p)
        self.rotation = np.linalg.qr(rng.normal(size=(p, p)))[0]
        # orthogonal, stretched, orthogonal: its condition number is 4 at most
        self.linear = self.rotation * np.exp2(rng.uniform(-1, 1, size=p)) @ self.rotation[self.order].T
        self.factors = 10 ** rng.uniform(-1, 1, size=p)
        self.offset = rng.normal(size=p) * whole / math.sqrt(p)
        self.shuffles = [rng.permutation(n) for _ in range(SHUFFLES)]
        self.outlier = rng.normal(size=n) * OUTLIER * whole

    def noisy(self, level: float, noise: Doubles | None = None) -> Doubles:
        """X with noise of so many standard deviations of each neuron."""
        added: Doubles = level * self.spread * (self.noise if noise is None else noise)
        return self.x + added

    def narrowed(self, part: float) -> Doubles:
        """X with that part of its neurons, one at least."""
        kept = self.order[: max(1, round(part * len(self.order)))]
        if not self.keep_width:
            return self.x[:, np.sort(kept)]
        out = np.zeros_like(self.x)
        out[:, kept] = self.x[:, kept]
        return out

    def with_outlier(self, rows: Doubles) -> Doubles:
        """Rows whose first neuron in a random order is noise that outweighs all others."""
        out = rows.copy()
        out[:, self.order[0]] = self.outlier
        return out

    def of_a_side(self) -> Mapping[str, Callable[[Doubles], Doubles]]:
        """What is done to one side, and then to the other."""
        return {
            "scale": lambda rows: 3.0 * rows,
            "rotation": lambda rows: rows @ self.rotation,
            "linear": lambda rows: rows @ self.linear,
            "permutation": lambda rows: rows[:, self.order],
            "offset": lambda rows: rows + self.offset,
            "neuron-scale": lambda rows: rows * self.factors,
            "outlier": self.with_outlier,
        }

    def probes(self) -> Iterator[tuple[Key, Sides]]:
        """Every pair of sides that is compared; a check that changes either side has two."""
        x, y = self.x, self.y
        yield ("itself", None), (x, x)
        yield ("before", None), (x, y)
        for name, change in self.of_a_side().items():
            yield (name, None), (change(x), y)
            yield (name, None), (x, change(y))
        yield ("both-rotation", None), (x @ self.rotation, y @ self.rotation)
        yield ("both-permutation", None), (x[:, self.order], y[:, self.order])
        yield ("symmetric", None), (y, x)
        for level in NOISE:
            yield ("noise", level), (x, self.noisy(level))
            yield ("noise", level), (x, self.noisy(-level))
        for order in self.shuffles:
            yield ("shuffle", None), (x, y[order])
        for part in WIDTHS:
            yield ("width", part), (x, self.narrowed(part))


def examine(
    layers: Mapping[str, Doubles],
    store: Store,
    scorers: Sequence[Scorer],
    *,
    device: Device,
    seed: int = 0,
    progress: Progress = silent,
) -> list[SanityRow]:
    """Every check of every scorer on rows [n, p] of every layer, which come from `store`; scores are None where undefined."""
    found: dict[tuple[str, int], list[SanityRow]] = {}
    groups = _alike(scorers)
    with progress("examining", len(layers) * len(groups), "measures") as advance, np.errstate(all="ignore"):
        for layer, x in layers.items():
            made = {keep: Changes(x, seed, keep) for keep in {keep for keep, _ in groups}}
            for keep_width, members in groups:
                changes = made[keep_width]
                for s, scores in _scores(changes, [scorers[s] for s in members], store, layer, device).items():
                    found[layer, members[s]] = _judge(scorers[members[s]], layer, scores, x)
                    _warn(scorers[members[s]], layer, found[layer, members[s]])
                advance(1)
    return [row for s in range(len(scorers)) for layer in layers for row in found[layer, s]]


def multiplications(n_rows: int, widths: Sequence[int], scorers: Sequence[Scorer]) -> float:
    """About as many as the checks of layers of these widths take; ∞ where they need torch."""
    return of_layers(n_rows, [*widths] * COMPARED, [(width, width) for width in widths] * COMPARED, scorers)


def _warn(scorer: Scorer, layer: str, rows: Sequence[SanityRow]) -> None:
    empty = list(dict.fromkeys(row.check for row in rows if row.score is None))
    if empty:
        text = "%s is undefined (%s) in layer %s under %s; left empty"
        log.warning(text, scorer.name, scorer.entry.undefined, quoted(layer), ", ".join(empty))


def _alike(scorers: Sequence[Scorer]) -> list[tuple[bool, list[int]]]:
    """Positions of the scorers that prepare rows alike, with whether neurons that are left out become 0."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for s, scorer in enumerate(scorers):
        keep = scorer.encoder is not None or scorer.entry.needs_equal_widths
        groups.setdefault((keep, scorer.standardize, scorer.key), []).append(s)
    return [(key[0], members) for key, members in groups.items()]


def _scores(
    changes: Changes, scorers: Sequence[Scorer], store: Store, layer: str, device: Device
) -> dict[int, dict[Key, list[float]]]:
    """Scores of scorers that prepare rows alike, by position and check."""
    prepared: dict[int, Any] = {}

    def side(rows: Doubles) -> Any:
        if rows is changes.x or rows is changes.y:  # which are compared again and again
            if id(rows) not in prepared:
                prepared[id(rows)] = _prepared(scorers[0], rows, store, layer, device)
            return prepared[id(rows)]
        return _prepared(scorers[0], rows, store, layer, device)

    found: dict[int, dict[Key, list[float]]] = {s: {} for s in range(len(scorers))}
    for key, (one, other) in changes.probes():
        first, second = side(one), side(other)
        for s, scorer in enumerate(scorers):
            score = float(scorer.measure.compare(first, second))
            found[s].setdefault(key, []).append(score if math.isfinite(score) else math.nan)
    for scores in found.values():
        scores |= {key: [sum(values) / len(values)] for key, values in scores.items() if key[0] == "noise"}
    return found


def _prepared(scorer: Scorer, rows: Doubles, store: Store, layer: str, device: Device) -> Any:
    how = scorer.standardize
    if isinstance(how, Anchoring):
        raise UsageError(
            f"{scorer.name}: describes rows by anchors, which these checks do not change with the rows; leave it out"
        )
    return scorer.measure.prepare(scorer.rows(standardized(rows, how, layer), store, layer, device))


def standardized(rows: Doubles, how: Standardization, layer: str) -> Doubles:
    """Rows [n, p] standardised by their own statistics."""
    how = how.of(layer)
    if not how:
        return rows
    return transform(how, statistics_of([rows], how.kind == "whiten", layer))(rows).astype(np.float64)


def claims(scorer: Scorer) -> frozenset[str]:
    """What must not change the scores: the registry's invariances, as far as they survive standardisation and encoding."""
    claimed = set(scorer.entry.invariances)
    if scorer.encoder is not None:
        return frozenset(claimed & {"symmetric"})
    kind = scorer.standardize.kind
    if kind != "none":
        claimed |= {"offset"}
    if kind in ("zscore", "whiten"):
        claimed = claimed - {"linear"} | {"scale"}
    if kind == "zscore":  # a column's scale depends on the axes
        claimed -= {"rotation", "both-rotation"}
    if "linear" in claimed or kind == "zscore":
        claimed |= {"neuron-scale"}
    return frozenset(claimed)


@dataclass(frozen=True)
class _Scale:
    """What differences of a measure's scores mean on these rows."""

    sign: float  # of scores, so that higher is more similar
    range: float
    chance: float  # the most similar of the shuffled; none where it is no less similar than X is to itself
    rounding: float
    unrelated: float | None  # the score of no similarity

    @classmethod
    def of(cls, scorer: Scorer, scores: Mapping[Key, Sequence[float]], rounding: float) -> "_Scale":
        sign = 1.0 if scorer.entry.higher_is_more_similar else -1.0
        itself, shuffled = scores["itself", None][0], scores["shuffle", None]
        moved = [abs(value - itself) for value in (*shuffled, *(scores["noise", level][0] for level in NOISE))]
        chance = max(sign * value for value in shuffled)
        below = sign * itself - chance > max(TOLERANCE * max(moved), rounding)
        return cls(sign, max(moved), chance if below else -math.inf, rounding, scorer.entry.unrelated)

    def same(self, value: float, before: float) -> bool:
        return abs(value - before) <= max(TOLERANCE * self.range, STRICTLY * abs(before), self.rounding)

    def clears(self, value: float, shuffled: Sequence[float]) -> bool:
        """Whether a score is told from shuffled ones by their standard deviation."""
        ahead = self.sign * (value - float(np.mean(shuffled)))
        return ahead > max(TOLERANCE * self.range, CLEAR * float(np.std(shuffled, ddof=1)))

    def near_none(self, value: float, itself: float) -> bool:
        """Whether a score is nearer to that of no similarity than to that of a layer with itself."""
        return self.unrelated is None or abs(value - self.unrelated) < abs(value - itself)

    def falls(self, value: float, before: float) -> bool:
        """Strictly, or both are at chance."""
        least = max(STRICTLY * max(abs(value), abs(before)), self.rounding)
        at_chance = self.sign * before <= self.chance + TOLERANCE * self.range
        return self.sign * (before - value) > least or at_chance

    def no_rise(self, value: float, before: float) -> bool:
        return self.same(value, before) or self.sign * (before - value) > 0


def _there(score: float) -> float | None:
    return None if math.isnan(score) else score


def _rounding(scorer: Scorer, layer: str, x: Doubles) -> float:
    """Below which a difference of scores is none: 1e-12, of the rows' length where the measure has their unit."""
    how = scorer.standardize
    if "∞" not in scorer.entry.range or scorer.checkpoint is not None or isinstance(how, Anchoring):
        return 1e-12
    rows = standardized(x, how, layer)
    unit = float(np.abs(rows).max()) or 1.0
    return 1e-12 * unit * float(np.sqrt(np.square(rows / unit).sum(axis=1).mean()))


def _judge(scorer: Scorer, layer: str, scores: Mapping[Key, Sequence[float]], x: Doubles) -> list[SanityRow]:
    scale, claimed = _Scale.of(scorer, scores, _rounding(scorer, layer, x)), claims(scorer)
    before, itself = scores["before", None][0], scores["itself", None][0]
    rows = []

    def add(key: Key, expected: str, reference: float, holds: Callable[[float, float], bool] | None) -> float:
        values = scores[key]
        # the one that goes furthest from what it was before; of shuffled ones the most similar
        worst = max(values, key=lambda v: scale.sign * v if key[0] == "shuffle" else abs(v - reference))
        defined = not math.isnan(reference) and not any(map(math.isnan, values))
        verdict = "" if holds is None or not defined else OK if all(holds(v, reference) for v in values) else FAILS
        score = worst if defined else None
        rows.append(SanityRow(scorer.name, layer, *key, expected, _there(reference), score, verdict))
        return values[0]

    for name in (*INVARIANCES, "neuron-scale", "outlier"):
        said = name in claimed
        add((name, None), UNCHANGED if said else MAY_CHANGE, before, scale.same if said else None)
    last = itself
    for level in NOISE:
        last = add(("noise", level), FALLS, last, scale.falls)
    blind = scorer.checkpoint is None and scorer.entry.family == "statistics"
    if blind:
        add(("shuffle", None), UNCHANGED, before, scale.same)
    else:
        clear = scale.clears(before, scores["shuffle", None])
        add(("shuffle", None), CHANCE, before, lambda value, _: clear and scale.near_none(value, itself))
    last = itself
    for part in WIDTHS:
        last = add(("width", part), NO_RISE, last, scale.no_rise)
    return rows
