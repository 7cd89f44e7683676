"""Layer prediction against the oracle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import every_oracle
import made
import numpy as np
import oracles
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contrasim_cli.benchmarks import model_pairs
from contrasim_cli.benchmarks.layers import falling, layer_prediction, monotonicity, predicted
from contrasim_cli.benchmarks.outcomes import tabulate
from contrasim_cli.errors import MismatchError, UsageError
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.scoring import Scorer, closed_form

CPU = torch.device("cpu")
SCORES = st.sampled_from([-1.0, 0.0, 0.5, 0.5 * (1 + 0.9e-6), 0.5 * (1 + 1.1e-6), 0.9, 1.0])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 5).flatmap(lambda k: hnp.arrays(np.float64, (k, k), elements=SCORES)), st.booleans())
@example(np.full((3, 3), 0.7), True)
def test_outcomes_equal_the_oracle_also_where_scores_tie(grid: Any, higher: bool) -> None:
    assert predicted(grid, higher).outcomes.mean() == oracles.layer_prediction(grid, higher=higher)


@pytest.mark.parametrize(("gap", "right"), [(0.0, 0.0), (0.9e-6, 0.0), (1.1e-6, 1.0)])
@pytest.mark.parametrize("size", [1e-8, 0.5, 1e8, -1.0])
def test_a_tie_is_wrong_and_a_hair_is_a_tie(gap: float, right: float, size: float) -> None:
    own = size + abs(size) * gap
    assert predicted(np.array([[own, size], [0, size]])).outcomes[0] == right
    lower = size - abs(size) * gap
    assert predicted(np.array([[lower, size], [0, size]]), higher=False).outcomes[0] == right


def test_a_row_with_an_undefined_score_has_no_outcome() -> None:
    found = predicted(np.array([[1.0, np.nan, 0.0], [0.0, 1.0, 0.5], [0.2, 0.1, 0.0]]))
    np.testing.assert_array_equal(found.outcomes, [np.nan, 1, 0])
    np.testing.assert_array_equal(found.reciprocal_ranks, [np.nan, 1, 1 / 3])
    np.testing.assert_allclose(found.margins, [np.nan, 2, -4])


def test_pairs_of_models() -> None:
    assert model_pairs(6, every=False) == [(0, 1), (2, 3), (4, 5)]
    assert model_pairs(3, every=True) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    with pytest.raises(UsageError, match="3 is odd; leave one out or give --pairs all"):
        model_pairs(3, every=False)
    with pytest.raises(UsageError, match="two or more stores"):
        model_pairs(1, every=True)


def bench(folder: Path, scorers: list[Scorer], count: int = 4, **options: Any) -> Any:
    stores = made.related(count, 4, 40, (7,), noise=2.0)
    views = [made.view(folder / f"{k}.h5", layers) for k, layers in enumerate(stores)]
    layers = [list(view.store.layers) for view in views]
    names = [f"m{k}" for k in range(count)]
    options = {"every_pair": False, "device": CPU, "budget": 1 << 40} | options
    return stores, layer_prediction(views, names, layers, scorers, **options)


@pytest.mark.torch_only
@pytest.mark.parametrize("every_pair", [False, True])
def test_the_benchmark_equals_a_loop_over_models_and_layers(tmp_path: Path, every_pair: bool) -> None:
    stores, found = bench(tmp_path, closed_form(["cka", "pwcca", "dot"]), every_pair=every_pair)
    pairs = [(0, 1), (2, 3)] if not every_pair else [(a, b) for a in range(4) for b in range(4) if a != b]
    accuracies = []
    for trials in found:
        assert trials.pairs == [f"m{a}-m{b}" for a, b in pairs]
        assert (trials.chance, trials.negatives, trials.outcomes.shape) == (1 / 4, "", (len(pairs), 4, 1))
        for k, (a, b) in enumerate(pairs):
            measure = oracles.MEASURES[trials.scorer.name]
            scores = [[measure(x, y) for y in stores[b].values()] for x in stores[a].values()]
            assert trials.outcomes[k].mean() == oracles.layer_prediction(scores)
            for i, row in enumerate(scores):
                own, others = row[i], row[:i] + row[i + 1 :]
                assert trials.reciprocal_ranks[k, i, 0] == oracles.reciprocal_rank(own, others)
                assert trials.margins[k, i, 0] == pytest.approx(oracles.margin(own, others), abs=1e-4)
        accuracies.append(trials.outcomes.mean())
    assert 0.2 < max(accuracies) < 1  # hard enough to tell


def test_lower_is_more_similar_where_the_registry_says_so(tmp_path: Path) -> None:
    (cka,) = closed_form(["cka"])
    turned = Measure(cka.measure.prepare, lambda a, b: 1 - cka.measure.compare(a, b))
    distance = replace(cka, name="distance", measure=turned, entry=replace(cka.entry, higher_is_more_similar=False))
    wrong = replace(distance, name="wrong", entry=cka.entry)
    _, (first, second, third) = bench(tmp_path, [cka, distance, wrong])
    np.testing.assert_array_equal(first.outcomes, second.outcomes)
    assert not np.array_equal(first.outcomes, third.outcomes)


def test_models_of_unequal_depth_are_refused(tmp_path: Path) -> None:
    views = [made.view(tmp_path / f"{k}.h5", made.related(1, 2 + k, 20, (5,))[0]) for k in range(2)]
    layers = [list(view.store.layers) for view in views]
    with pytest.raises(MismatchError, match=r"1\.h5: 3 layers are selected where .*0\.h5 has 2; select corresponding"):
        layer_prediction(views, ["a", "b"], layers, closed_form(["cka"]), every_pair=False, device=CPU, budget=1 << 40)


# monotonicity

APART = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 0.9, 1.0, 1e9])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 6).flatmap(lambda k: hnp.arrays(np.float64, (k, k), elements=APART)), st.booleans())
@example(np.full((3, 3), 0.7), True)
def test_monotonicity_equals_the_oracle_also_where_scores_tie(grid: Any, higher: bool) -> None:
    np.testing.assert_allclose(falling(grid, higher), oracles.layer_monotonicity(grid, higher=higher), atol=1e-12)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_similarity_that_falls_with_the_distance_is_1_and_that_rises_is_minus_1(size: float) -> None:
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) * size
    np.testing.assert_allclose(falling(-distance), 1)
    np.testing.assert_allclose(falling(distance), -1)
    np.testing.assert_allclose(falling(distance, higher=False), 1)
    one_sided = np.arange(25.0).reshape(5, 5) * size  # falls to the left of i, rises to the right
    np.testing.assert_allclose(falling(one_sided), [-1, 0, 0, 0, 1], atol=1e-12)


def test_monotonicity_says_nothing_where_scores_do_not() -> None:
    np.testing.assert_array_equal(falling(np.ones((4, 4))), 0)
    np.testing.assert_array_equal(falling(1 + 1e-7 * np.eye(4)), 0)  # rounding is no difference
    assert (falling(1 + 1e-5 * np.eye(4)) > 0).all()
    np.testing.assert_array_equal(falling(np.ones((1, 1))), np.nan)
    np.testing.assert_array_equal(falling(np.array([[1, np.nan], [0, 1]])), [np.nan, 1])


def test_monotonicity_is_asked_of_the_same_grids(tmp_path: Path) -> None:
    stores, found = bench(tmp_path, closed_form(["cka", "procrustes"]), every_pair=True)
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    for trials in monotonicity(found):
        name = trials.scorer.name
        measure = every_oracle.ORACLES[name]
        assert (trials.chance, trials.outcomes.shape) == (0.0, (12, 4, 1))
        for values, grid, (a, b) in zip(trials.outcomes, trials.grids, pairs, strict=True):
            scores = [[measure(x, y) for y in stores[b].values()] for x in stores[a].values()]
            np.testing.assert_allclose(grid, scores, atol=1e-6)
            wanted = oracles.layer_monotonicity(scores, higher=name == "cka")
            np.testing.assert_allclose(values[:, 0], wanted, atol=1e-12)
    assert 0 < trials.outcomes.mean() < 1  # hard enough to tell


def test_rows_of_monotonicity_have_values_and_no_ranks(tmp_path: Path) -> None:
    _, found = bench(tmp_path, closed_form(["cka"]), every_pair=True)
    (trials,) = monotonicity(found)
    rows = tabulate("layers-monotonicity", [trials], seed=0)
    overall = rows[-1]
    by_pair = trials.outcomes.mean(axis=(1, 2))
    assert overall.accuracy == pytest.approx(by_pair.mean())
    assert overall.std == pytest.approx(by_pair.std())
    assert overall.ci_low is not None
    assert overall.ci_high is not None
    assert overall.ci_low < overall.accuracy < overall.ci_high
    assert (overall.chance, overall.trials, overall.mrr, overall.margin) == (0.0, 48, None, None)
