"""From outcomes to accuracies, spreads and intervals."""

import math
from dataclasses import replace
from typing import Any

import made
import numpy as np
import oracles
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contrasim_cli.benchmarks.outcomes import Trials, cluster_interval, judge, models_interval, tabulate
from contrasim_cli.report.results import BenchRow
from contrasim_cli.scoring import Scorer, closed_form


def trials(outcomes: Any, scorer: Scorer | None = None, **options: Any) -> Trials:
    outcomes = np.asarray(outcomes, dtype=float)
    pairs, layers = [f"p{k}" for k in range(outcomes.shape[0])], [f"l{k}" for k in range(outcomes.shape[1])]
    judged = {"reciprocal_ranks": np.where(outcomes == 0, 0.5, outcomes), "margins": outcomes - 0.5} | options
    return Trials(scorer or closed_form(["cka"])[0], "random", pairs, layers, outcomes, chance=1 / 11, **judged)


def rows(*all_trials: Trials) -> dict[tuple[str, str, str], BenchRow]:
    found = tabulate("multilingual", all_trials, 0)
    keyed = {(row.measure, row.pair, row.layer): row for row in found}
    assert len(keyed) == len(found)
    return keyed


def random_outcomes(*shape: int, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).random(shape) < 0.7).astype(float)


SCORES = st.sampled_from([math.nan, -1.0, 0.0, 1e-9, 0.5, 0.5 * (1 + 0.9e-6), 0.5 * (1 + 1.1e-6), 0.9, 1.0])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=SCORES), st.booleans())
@example(np.full((3, 11), 0.7), True)
def test_trials_are_judged_as_by_the_oracle(scores: Any, higher: bool) -> None:
    found = judge(scores, higher)
    for row, outcome, rank, margin in zip(scores.tolist(), *found, strict=True):
        assert outcome == oracles.retrieval_is_right(row[0], row[1:], higher=higher)
        assert rank == oracles.reciprocal_rank(row[0], row[1:], higher=higher)
        np.testing.assert_allclose(margin, oracles.margin(row[0], row[1:], higher=higher), rtol=1e-6, atol=1e-9)


def test_two_measures_that_are_always_right_are_told_apart_by_their_margins() -> None:
    near, far = judge(np.array([[0.6, 0.5, 0.3]])), judge(np.array([[0.9, 0.5, 0.3]]))
    assert near.outcomes == far.outcomes == near.reciprocal_ranks == far.reciprocal_ranks == 1
    assert near.margins == pytest.approx(1.0)
    assert far.margins == pytest.approx(4.0)


def test_a_tie_ranks_after_what_it_ties_with() -> None:
    found = judge(np.array([[0.5, 0.5, 0.5, 0.9, 0.1], [0.9, 0.5, 0.5, 0.9, 0.1]]))
    np.testing.assert_array_equal(found.reciprocal_ranks, [1 / 4, 1 / 2])


@pytest.mark.parametrize("scale", [1e-200, 1e-6, 1.0, 1e6, 1e200])
def test_margins_have_no_scale(scale: float) -> None:
    scores = np.random.default_rng(0).normal(size=(5, 11))
    np.testing.assert_allclose(judge(scores * scale).margins, judge(scores).margins, rtol=1e-9)


def test_candidates_that_tie_have_no_margin() -> None:
    """Rounding would else be their deviation."""
    scores = 0.7 + 1e-9 * np.random.default_rng(0).normal(size=(4, 11))
    scores[:, 0] = 0.9
    found = judge(scores)
    assert np.isnan(found.margins).all()
    assert found.outcomes.tolist() == [1, 1, 1, 1]
    assert np.isnan(judge(np.array([[0.9, 0.1]])).margins)


def test_trials_without_an_answer_have_none_of_the_three() -> None:
    found = judge(np.arange(6.0).reshape(2, 3), higher=False, answered=np.array([True, False]))
    for values in found:
        assert np.isnan(values).tolist() == [False, True]


def test_ranks_and_margins_are_means_of_the_same_trials() -> None:
    outcomes = random_outcomes(3, 2, 50)
    ranks = np.random.default_rng(1).random((3, 2, 50))
    margins = np.random.default_rng(2).normal(size=(3, 2, 50))
    margins[1, 0, :10] = np.nan
    margins[2] = np.nan
    found = rows(trials(outcomes, reciprocal_ranks=ranks, margins=margins))
    row = found["cka", "all", "l0"]
    assert row.mrr == pytest.approx(ranks[:, 0].mean())
    assert row.margin == pytest.approx(np.mean([*margins[0, 0], *margins[1, 0, 10:]]))
    assert (found["cka", "p2", "all"].margin, found["cka", "p2", "all"].mrr) == (None, pytest.approx(ranks[2].mean()))
    undefined = rows(trials(np.full((1, 1, 4), np.nan), reciprocal_ranks=np.full((1, 1, 4), np.nan)))[
        "cka", "all", "l0"
    ]
    assert (undefined.mrr, undefined.margin) == (None, None)


def test_rows_per_layer_per_pair_and_overall() -> None:
    outcomes = random_outcomes(3, 2, 50)
    found = rows(trials(outcomes))
    assert [key[1:] for key in found] == [
        ("all", "l0"), ("all", "l1"), ("p0", "all"), ("p1", "all"), ("p2", "all"), ("all", "all")
    ]  # fmt: skip
    for k in range(2):
        row = found["cka", "all", f"l{k}"]
        assert row.accuracy == pytest.approx(outcomes[:, k].mean())
        assert row.std == pytest.approx(np.sqrt(np.mean((outcomes[:, k].mean(axis=1) - outcomes[:, k].mean()) ** 2)))
        assert (row.trials, row.chance, row.benchmark, row.negatives) == (150, 1 / 11, "multilingual", "random")
    row = found["cka", "p1", "all"]
    assert (row.accuracy, row.std, row.trials) == (pytest.approx(outcomes[1].mean()), None, 100)
    row = found["cka", "all", "all"]
    assert row.accuracy == pytest.approx(outcomes.mean())
    assert row.std == pytest.approx(outcomes.mean(axis=(1, 2)).std())
    assert row.trials == 300


def test_one_pair_has_no_row_of_its_own_and_no_spread() -> None:
    found = rows(trials(random_outcomes(1, 2, 50)))
    assert [key[1:] for key in found] == [("all", "l0"), ("all", "l1"), ("all", "all")]
    assert found["cka", "all", "all"].std is None
    assert found["cka", "all", "all"].ci_low is not None


def test_what_is_undefined_is_left_empty() -> None:
    outcomes = random_outcomes(2, 2, 20)
    outcomes[0, 1] = np.nan
    found = rows(trials(outcomes))
    row = found["cka", "all", "l1"]
    assert (row.accuracy, row.std, row.ci_low, row.ci_high, row.trials) == (None, None, None, None, 0)
    assert found["cka", "all", "l0"].accuracy is not None
    assert found["cka", "p1", "all"].accuracy is not None
    assert found["cka", "all", "all"].accuracy is None


def test_the_interval_resamples_batches_whole() -> None:
    """Pairs and layers that are right in the same batches are not independent: the interval is that of 40 batches."""
    batches = random_outcomes(40)
    together = np.broadcast_to(batches, (6, 5, 40)).copy()
    row, alone = (rows(trials(x))["cka", "all", "all"] for x in (together, batches[None, None]))
    assert (row.ci_low, row.ci_high) == (pytest.approx(alone.ci_low), pytest.approx(alone.ci_high))
    se = batches.std() / np.sqrt(40)
    assert row.ci_low == pytest.approx(batches.mean() - 1.96 * se, abs=0.03)
    assert row.ci_high == pytest.approx(batches.mean() + 1.96 * se, abs=0.03)
    apart = rows(trials(random_outcomes(6, 5, 40)))["cka", "all", "all"]
    assert apart.ci_high - apart.ci_low < 0.5 * (row.ci_high - row.ci_low)  # type: ignore[operator]


def test_the_interval_resamples_model_pairs_where_there_are_no_batches() -> None:
    by_pair = np.array([0.0, 1.0, 1.0, 1.0])
    outcomes = np.broadcast_to(by_pair[:, None, None], (4, 6, 1)).copy()
    apart = [(0, 1), (2, 3), (4, 5), (6, 7)]
    row = rows(trials(outcomes, models=apart))["cka", "all", "all"]
    assert (row.ci_low, row.ci_high) == (0.25, 1.0)
    assert rows(trials(outcomes, models=apart))["cka", "p0", "all"].ci_low is None


def test_both_orders_of_two_models_are_one_cluster() -> None:
    outcomes = np.array([0.0, 0.0, 1.0, 1.0])[:, None, None]
    row = rows(trials(outcomes, models=[(0, 1), (1, 0), (2, 3), (3, 2)]))["cka", "all", "all"]
    assert (row.accuracy, row.ci_low, row.ci_high) == (0.5, 0.0, 1.0)
    assert rows(trials(outcomes[2:], models=[(2, 3), (3, 2)]))["cka", "all", "all"].ci_low is None


def test_models_that_pairs_share_are_resampled() -> None:
    """Where one odd model fails in all of its pairs, its luck is that of a model and not of five pairs."""
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    outcomes = np.array([float(0 not in pair) for pair in pairs])[:, None, None]
    row = rows(trials(outcomes, models=pairs))["cka", "all", "all"]
    as_pairs = cluster_interval(np.array([float(0 not in pair) for pair in pairs if pair[0] < pair[1]]), 0)
    assert row.ci_low < as_pairs[0]  # type: ignore[operator]
    assert row.ci_high == 1.0
    rng, hits, too_narrow = np.random.default_rng(0), 0, 0
    pairs = [(a, b) for a in range(10) for b in range(a)]
    for seed in range(200):  # what a pair scores is the mean of two models' own luck
        luck = rng.random(10)
        values = np.array([(luck[a] + luck[b]) / 2 for a, b in pairs])
        low, high = models_interval(values, np.array(pairs), seed)
        hits += low <= 0.5 <= high  # type: ignore[operator]
        low, high = cluster_interval(values, seed)
        too_narrow += low <= 0.5 <= high  # type: ignore[operator]
    assert 170 <= hits <= 198
    assert too_narrow < 150


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        low, high = cluster_interval((rng.random(80) < 0.7).astype(float), seed)
        assert low is not None
        assert high is not None
        hits += low <= 0.7 <= high
    assert 0.88 < hits / 200 < 0.99


def test_the_interval_repeats_with_the_seed() -> None:
    values = np.random.default_rng(0).random(31)
    assert cluster_interval(values, 3) == cluster_interval(values, 3)
    assert cluster_interval(values, 3) != cluster_interval(values, 4)


def encoder(name: str, seed: int, **options: Any) -> Scorer:
    checkpoint = made.checkpoint(seed=seed, stores=options.pop("stores", ("en", "ar")), widths=(5,), **options)
    (scorer,) = closed_form(["dot"])
    return replace(scorer, name=name, checkpoint=checkpoint)


def test_encoders_that_differ_in_their_seed_alone_are_summed_up() -> None:
    outcomes = [random_outcomes(3, 2, 50, seed=seed) for seed in range(3)]
    found = rows(*(trials(x, encoder(f"e{k}.pt", k)) for k, x in enumerate(outcomes)))
    assert {key[0] for key in found} == {"e0.pt", "e1.pt", "e2.pt", "contrasim (3 encoders)"}
    for layer, chosen in [("all", slice(None)), ("l1", slice(1, 2))]:
        row = found["contrasim (3 encoders)", "all", layer]
        means = [x[:, chosen].mean() for x in outcomes]
        assert row.accuracy == pytest.approx(np.mean(means))
        assert row.std == pytest.approx(np.std(means))
        assert row.trials == sum(x[:, chosen].size for x in outcomes)


@pytest.mark.parametrize(
    "other", [{"temperature": 0.1}, {"objective": "supcon"}, {"stores": ("en", "zh")}, {"task": "layers"}]
)
def test_other_encoders_are_not_summed_up(other: dict[str, Any]) -> None:
    found = rows(*(trials(random_outcomes(2, 2, 9), encoder(f"e{k}.pt", k, **o)) for k, o in enumerate([{}, other])))
    assert {key[0] for key in found} == {"e0.pt", "e1.pt"}


def test_encoders_of_other_content_or_layers_are_not_summed_up() -> None:
    first, second = encoder("a.pt", 0), encoder("b.pt", 1)
    second.checkpoint.provenance["stores"][0]["content"] = "other"  # type: ignore[union-attr]
    assert {key[0] for key in rows(*(trials(random_outcomes(2, 2, 9), s) for s in (first, second)))} == {"a.pt", "b.pt"}


def test_groups_of_one_objective_are_told_apart() -> None:
    scorers = [encoder(f"{t}-{s}.pt", s, temperature=t) for t in (0.1, 0.2) for s in range(2)]
    scorers += [encoder(f"norm-{s}.pt", s, similarity="norm") for s in range(2)]
    names = {key[0] for key in rows(*(trials(random_outcomes(2, 2, 9), scorer) for scorer in scorers))}
    assert {name for name in names if "(" in name} == {
        "contrasim (0.1-0.pt, 0.1-1.pt)",
        "contrasim (0.2-0.pt, 0.2-1.pt)",
        "contrasim norm (2 encoders)",
    }
