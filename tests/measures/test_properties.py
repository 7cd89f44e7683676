"""What leaves each measure unchanged and what must not, its range and its direction: all as the registry says them.

Every measure of the registry is tested, and every one of `INVARIANCES`: those that its entry names hold on every example,
each of the others is refuted by an example. So a line of the registry that claims too much fails, and so does one that
claims too little.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from oracles import Array

from contrasim_cli.measures import INVARIANCES, MEASURES, Options
from contrasim_cli.measures import load as loading
from contrasim_cli.measures.load import load

N, WIDTH = 30, 5
SEEDS = range(4)
PAIRS_OF_ROWS_DO_NOT_MATTER = "statistics"  # the family that compares one number per side

OPTIONS = {"cycle_knn": Options(k=2)}  # with ten neighbours of thirty rows nearly every row has a cycle
BELOW_ONE_WITH_ITSELF = {"cycle_knn"}  # a row that none of its neighbours is near to has no cycle
ALIKE_HOWEVER_UNRELATED = {"geometry_score"}  # of any two clouds without holes
HELD_OUT = "encoding"  # the family that deals rows to folds by position

Pair = tuple[Array, Array]


def similarity(name: str, x: Array, y: Array) -> float:
    """The score with options in which the measure tells these rows apart."""
    return loading.similarity(name, x, y, OPTIONS.get(name, Options()))


class Example(NamedTuple):
    """Two related matrices [N, WIDTH] and the random maps to apply to them."""

    x: Array
    y: Array
    rotation: Array
    linear: Array
    columns: list[int]
    rows: list[int]
    offset: Array


def example(seed: int) -> Example:
    """X with decaying variances in a random basis, Y a noisy image of it, and maps far from the identity."""
    rng = np.random.default_rng(seed)

    def rotation() -> Array:
        q: Array = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
        return q

    spectrum = np.array([2.0, 1.0, 0.5, 0.2, 0.05])
    x = (rng.normal(size=(N, WIDTH)) * spectrum) @ rotation() + 0.3
    y = x @ rng.normal(size=(WIDTH, WIDTH)) + 0.4 * rng.normal(size=(N, WIDTH))
    return Example(
        x=x,
        y=y,
        rotation=rotation(),
        linear=rotation() @ np.diag([1.0, 3.0, 10.0, 30.0, 100.0]) @ rotation(),
        columns=[*range(1, WIDTH), 0],
        rows=[*range(N // 2, N), *range(N // 2)],
        offset=rng.normal(size=WIDTH) * 5,
    )


def either(change: Callable[[Array, Example], Array]) -> Callable[[Example], list[Pair]]:
    """A change of X alone, and of Y alone."""
    return lambda e: [(change(e.x, e), e.y), (e.x, change(e.y, e))]


def both(change: Callable[[Array, Example], Array]) -> Callable[[Example], list[Pair]]:
    """The same change of X and of Y."""
    return lambda e: [(change(e.x, e), change(e.y, e))]


CHANGES: dict[str, Callable[[Example], list[Pair]]] = {
    "scale": either(lambda side, e: 3.7 * side),
    "rotation": either(lambda side, e: side @ e.rotation),
    "linear": either(lambda side, e: side @ e.linear),
    "permutation": either(lambda side, e: side[:, e.columns]),
    "offset": either(lambda side, e: side + e.offset),
    "both-rotation": both(lambda side, e: side @ e.rotation),
    "both-permutation": both(lambda side, e: side[:, e.columns]),
    "symmetric": lambda e: [(e.y, e.x)],
}

IMPLIED = {
    "rotation": ("permutation", "both-rotation"),
    "linear": ("rotation",),
    "permutation": ("both-permutation",),
    "both-rotation": ("both-permutation",),
}


def test_every_invariance_has_its_change() -> None:
    assert tuple(CHANGES) == INVARIANCES


@pytest.mark.parametrize("name", MEASURES)
def test_invariances_are_known_and_complete(name: str) -> None:
    claimed = MEASURES[name].invariances
    assert claimed <= set(INVARIANCES)
    assert all(weaker in claimed for strong in claimed for weaker in IMPLIED.get(strong, ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("what", INVARIANCES)
def test_invariances_are_those_of_the_registry(name: str, what: str) -> None:
    differences = list(relative_differences(name, what))
    if what in MEASURES[name].invariances:
        assert max(differences) < 1e-8
    else:
        assert max(differences) > 1e-4, "no counterexample: the registry claims too little"


def relative_differences(name: str, what: str) -> Iterator[float]:
    """How much the score changes under every form of the change, on every example."""
    for seed in SEEDS:
        e = example(seed)
        before = similarity(name, e.x, e.y)
        for x, y in CHANGES[what](e):
            yield abs(similarity(name, x, y) - before) / max(abs(before), 1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_order_of_rows(name: str) -> None:
    """The same new order on both sides changes nothing (but which rows share a fold), one of one side all but the statistics."""
    e = example(0)
    before = similarity(name, e.x, e.y)
    same = {"abs": 0.1} if MEASURES[name].family == HELD_OUT else {"rel": 1e-9}
    assert similarity(name, e.x[e.rows], e.y[e.rows]) == pytest.approx(before, **same)
    shuffled = similarity(name, e.x[e.rows], e.y)
    assert (shuffled == pytest.approx(before, rel=1e-6)) == (MEASURES[name].family == PAIRS_OF_ROWS_DO_NOT_MATTER)


BOUNDS = {"∞": math.inf, "-∞": -math.inf, "√2": math.sqrt(2), "π/2": math.pi / 2, "e⁻⁴": math.exp(-4), "π": math.pi}


def limits(name: str) -> tuple[float, float]:
    """The registry's range of a measure, such as "[0, ∞)", as two numbers."""
    low, high = MEASURES[name].range[1:-1].split(", ")
    return tuple(BOUNDS.get(bound) if bound in BOUNDS else float(bound) for bound in (low, high))  # type: ignore[return-value]


def extremes(seed: int) -> list[Pair]:
    """Pairs of matrices from equal to opposite to unrelated, plain, of one column, of few rows and with large rows."""
    e = example(seed)
    noise = np.random.default_rng(seed + 100).normal(size=e.x.shape)
    large = 9 * e.x + 9
    return [
        *((e.x, e.y), (e.x, e.x), (e.x, -e.x), (e.x, noise), (noise, e.x), (large, large), (9 * e.x, -9 * e.x)),
        *((large, noise), (e.x[:, :1], noise[:, :1]), (e.x[:, :1], -e.x[:, :1]), (e.x[:4], noise[:4])),
    ]


@pytest.mark.parametrize("name", MEASURES)
def test_range(name: str) -> None:
    """Scores stay inside; closed ends are finite, and open ends are where nothing bounds the score."""
    low, high = limits(name)
    assert MEASURES[name].range[0] == ("(" if math.isinf(low) else "[")
    assert MEASURES[name].range[-1] == (")" if math.isinf(high) else "]")
    scores = [similarity(name, x, y) for seed in SEEDS for x, y in extremes(seed)]
    assert all(low - 1e-12 <= score <= high + 1e-12 for score in scores if not math.isnan(score))
    assert np.isfinite(scores[:4]).all()


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_side_is_most_similar_to_itself(name: str, seed: int) -> None:
    """s(X, X) is the end of the range that the direction states, if that end is finite; nothing tried is more similar."""
    e = example(seed)
    entry = MEASURES[name]
    best = limits(name)[entry.higher_is_more_similar]
    itself = similarity(name, e.x, e.x)
    if math.isfinite(best):
        assert (itself == pytest.approx(best, abs=1e-9)) == (name not in BELOW_ONE_WITH_ITSELF)
    others = [similarity(name, e.x, other) for other in (e.x[e.rows], e.x[::-1], -e.x, e.x @ e.rotation)]
    direction = 1 if entry.higher_is_more_similar else -1
    assert all(direction * itself >= direction * other - 1e-9 for other in others)


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in ALIKE_HOWEVER_UNRELATED])
@pytest.mark.parametrize("seed", SEEDS)
def test_related_inputs_score_as_more_similar_than_unrelated_ones(name: str, seed: int) -> None:
    """The direction that the registry states; `far` shares neither rows nor centre nor directions with X."""
    e = example(seed)
    rng = np.random.default_rng(seed)
    near = e.x + 0.05 * rng.normal(size=e.x.shape)
    far = -e.x[e.rows] + 3 * rng.normal(size=e.x.shape) - 6
    direction = 1 if MEASURES[name].higher_is_more_similar else -1
    assert direction * similarity(name, e.x, near) > direction * similarity(name, e.x, far)


@pytest.mark.parametrize("name", MEASURES)
def test_unequal_widths(name: str) -> None:
    e = example(0)
    if MEASURES[name].needs_equal_widths:
        with pytest.raises(ValueError, match=r"5.*4"):
            similarity(name, e.x, e.y[:, :4])
    else:
        assert math.isfinite(similarity(name, e.x, e.y[:, :4]))
        assert math.isfinite(similarity(name, e.x[:, :4], e.y))


@pytest.mark.parametrize("name", MEASURES)
def test_entry_says_everything(name: str) -> None:
    entry = MEASURES[name]
    assert entry.name == name
    assert all((entry.family, entry.summary, entry.undefined, entry.range, entry.cost, entry.source or name in PLAIN))
    assert load(name) is not None


@pytest.mark.parametrize("name", MEASURES)
def test_cost_names_decompositions(name: str) -> None:
    measure = load(name)
    scatter = measure.moments is not None and measure.moments.scatter
    if measure.whiten is not None or scatter:  # whose eigenvectors are taken
        assert any(power in MEASURES[name].cost for power in ("p²", "q²", "³"))


PLAIN = {"dot", "norm", "cosine"}  # nobody's invention
