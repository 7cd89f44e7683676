"""What leaves each measure unchanged, and what must not: the table `HOLDS` against every measure of the registry."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from oracles import Array

from contrasim_cli.measures import MEASURES
from contrasim_cli.measures.protocol import similarity

N, WIDTH = 30, 5
SEEDS = range(4)


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


Score = Callable[[Array, Array], float]


class Claim(NamedTuple):
    """Two numbers of a measure and an example that are equal if the property holds."""

    of: Callable[[Score, Example], tuple[float, float]]


def against_original(change: Callable[[Example], tuple[Array, Array]]) -> Claim:
    """Claim that the score of the changed matrices is the score of the original ones."""
    return Claim(lambda s, e: (s(*change(e)), s(e.x, e.y)))


PROPERTIES: dict[str, Claim] = {
    "scale X": against_original(lambda e: (3.7 * e.x, e.y)),
    "scale Y": against_original(lambda e: (e.x, 3.7 * e.y)),
    "rotate X": against_original(lambda e: (e.x @ e.rotation, e.y)),
    "rotate Y": against_original(lambda e: (e.x, e.y @ e.rotation)),
    "rotate both alike": against_original(lambda e: (e.x @ e.rotation, e.y @ e.rotation)),
    "invertible map of X": against_original(lambda e: (e.x @ e.linear, e.y)),
    "invertible map of Y": against_original(lambda e: (e.x, e.y @ e.linear)),
    "permute columns of X": against_original(lambda e: (e.x[:, e.columns], e.y)),
    "permute columns of Y": against_original(lambda e: (e.x, e.y[:, e.columns])),
    "permute rows of both alike": against_original(lambda e: (e.x[e.rows], e.y[e.rows])),
    "permute rows of X": against_original(lambda e: (e.x[e.rows], e.y)),
    "offset X": against_original(lambda e: (e.x + e.offset, e.y)),
    "offset Y": against_original(lambda e: (e.x, e.y + e.offset)),
    "symmetric": against_original(lambda e: (e.y, e.x)),
    "s(X, X) = 1": Claim(lambda s, e: (s(e.x, e.x), 1.0)),
    "s(X, -X) = 1": Claim(lambda s, e: (s(e.x, -e.x), 1.0)),
}

_ALWAYS = {"permute rows of both alike"}
_SCALE = {"scale X", "scale Y"}
_ORTHOGONAL_X = {"rotate X", "permute columns of X"}
_ORTHOGONAL_Y = {"rotate Y", "permute columns of Y"}
_OFFSET = {"offset X", "offset Y"}
_SELF = {"s(X, X) = 1", "s(X, -X) = 1"}
_CENTRED = _ALWAYS | _SCALE | _OFFSET | _SELF
_ORTHOGONAL = _ORTHOGONAL_X | _ORTHOGONAL_Y | {"rotate both alike"}

# Every property that is not listed for a measure must fail for it, on every seed.
HOLDS: dict[str, set[str]] = {
    "cka": _CENTRED | _ORTHOGONAL | {"symmetric"},
    "cca": _CENTRED | _ORTHOGONAL | {"symmetric", "invertible map of X", "invertible map of Y"},
    "svcca": _CENTRED | _ORTHOGONAL | {"symmetric"},
    "pwcca": _CENTRED | _ORTHOGONAL_Y | {"permute columns of X", "invertible map of Y"},
    "dot": _ALWAYS | {"rotate both alike", "symmetric"},
    "norm": _ALWAYS | _SCALE | {"rotate both alike", "symmetric", "s(X, X) = 1"},
}

RANGES: dict[str, tuple[float, float]] = {
    "cka": (0, 1),
    "cca": (0, 1),
    "svcca": (0, 1),
    "pwcca": (0, 1),
    "dot": (-math.inf, math.inf),
    "norm": (-1, 1),
}


def test_no_measure_and_no_property_is_forgotten() -> None:
    assert set(HOLDS) == set(MEASURES)
    assert set(RANGES) == set(MEASURES)
    assert set.union(*HOLDS.values()) | {"permute rows of X"} == set(PROPERTIES)


@pytest.mark.parametrize("name", HOLDS)
@pytest.mark.parametrize("what", PROPERTIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_table(name: str, what: str, seed: int) -> None:
    score, expected = PROPERTIES[what].of(lambda x, y: similarity(name, x, y), example(seed))
    if what in HOLDS[name]:
        assert score == pytest.approx(expected, rel=1e-9)
    else:
        assert score != pytest.approx(expected, rel=1e-5)


def extremes(seed: int) -> list[tuple[Array, Array]]:
    """Pairs of matrices from equal to opposite to unrelated, plain and with large rows."""
    e = example(seed)
    noise = np.random.default_rng(seed + 100).normal(size=e.x.shape)
    return [(e.x, e.y), (e.x, e.x), (e.x, -e.x), (e.x, noise), (9 * e.x + 9, 9 * e.x + 9), (9 * e.x, -9 * e.x)]


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_range(name: str, seed: int) -> None:
    low, high = RANGES[name]
    scores = [similarity(name, x, y) for x, y in extremes(seed)]
    assert all(low - 1e-12 <= score <= high + 1e-12 for score in scores)
    if low < 0:
        assert min(scores) < -0.9
    if high > 1:
        assert max(scores) > 10


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("seed", SEEDS)
def test_related_inputs_score_as_more_similar_than_shuffled_ones(name: str, seed: int) -> None:
    """The direction that the registry states."""
    e = example(seed)
    near = e.x + 0.1 * np.random.default_rng(seed).normal(size=e.x.shape)
    direction = 1 if MEASURES[name].higher_is_more_similar else -1
    assert direction * similarity(name, e.x, near) > direction * similarity(name, e.x, near[e.rows])
