"""What the registry says of few rows and of zero rows, tried on every measure: a line that says too much or too little fails."""

import math

import numpy as np
import pytest
from libraries import tensor
from oracles import Array

from contrasim_cli.measures import MEASURES, Options
from contrasim_cli.measures.load import load, similarity
from contrasim_cli.scoring import closed_form

FEW, MANY, WIDTH = 24, 1200, 96
TOLD = 0.15  # of the way from chance to identity


def noise(rows: int, seed: int, name: str, width: int = WIDTH) -> Array:
    """Unrelated rows [rows, width], of a size at which distances do not depend on how many there are."""
    x: Array = np.random.default_rng(seed).normal(size=(rows, width)) / np.sqrt(rows * width)
    return x / np.sqrt(rows) if name == "rsm_norm_difference" else x


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_says_whether_unrelated_rows_look_alike_where_they_are_few(name: str) -> None:
    """Of noise of fewer rows than neurons the score is nearer to a layer's with itself than that of many rows is, or it is not.

    In few rows many neighbours are shared by chance, but as many where there are few neurons.
    """
    options = Options(k=1, topology_rows=FEW)  # loops of as many rows: more rows have more
    many = MANY // 4 if "steps n³" in MEASURES[name].cost else MANY
    other = (FEW, 3, 9) if MEASURES[name].family == "neighbours" else (many, WIDTH, 1)
    few, many = (
        np.mean([similarity(name, *(noise(n, s + k, name, p) for s in (0, 9)), options) for k in range(seeds)])
        for n, p, seeds in ((FEW, WIDTH, 9), other)
    )
    itself = similarity(name, noise(FEW, 0, name), noise(FEW, 0, name), options)
    assert ((few - many) / (itself - many) > TOLD) == MEASURES[name].biased_by_width


def test_the_measure_that_is_offered_instead_is_not_biased() -> None:
    offered = {entry.debiased for entry in MEASURES.values() if entry.debiased}
    assert offered == {"cka_debiased"}
    assert not any(MEASURES[name].biased_by_width for name in offered)
    assert all(entry.biased_by_width for entry in MEASURES.values() if entry.debiased or entry.trivial_at_full_rank)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_says_whether_a_zero_row_makes_it_undefined(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 6))
    assert math.isfinite(similarity(name, x, y))
    x[7] = 0
    assert math.isnan(similarity(name, x, y)) == MEASURES[name].empty_on_zero_rows
    assert math.isnan(similarity(name, y, x)) == MEASURES[name].empty_on_zero_rows


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("name", MEASURES)
def test_below_the_fewest_rows_all_scores_are_one_or_none(name: str, k: int) -> None:
    (scorer,) = closed_form([name], Options(k=k))
    assert scorer.measure.k == (k if MEASURES[name].family == "neighbours" else 0)

    def differ(rows: int) -> bool:
        """Whether a score tells one pair from another; narrow, so that rows do not span every direction."""
        found = np.array([_score(name, rows, seed, k) for seed in range(6)])
        return bool(np.isfinite(found).all() and np.ptp(found) > 1e-6 * np.abs(found).max())

    for rows in range(2, scorer.fewest):
        assert not differ(rows), rows
    fewest = max(scorer.fewest, 6 if MEASURES[name].trivial_at_full_rank else 2)
    if (name, k) != ("cycle_knn", 10):  # without a cycle is only a row like none of the others, which noise has not
        assert differ(fewest)


def _score(name: str, rows: int, seed: int, k: int) -> float:
    rng = np.random.default_rng(seed)
    measure = load(name, Options(k=k))
    x, y = rng.normal(size=(2, rows, 3))
    return float(measure.compare(*(measure.prepare(tensor(side)) for side in (x, y))))
