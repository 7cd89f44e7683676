"""Is a difference noise? Tests of the tests."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrasim_cli.benchmarks.differences import compare, exchanges, holm, sign_flips
from contrasim_cli.benchmarks.trials import (
    Facts,
    Recorded,
    SetFacts,
    Side,
    TrialsFile,
    caveat,
    check_same_trials,
    select,
    sides,
)
from contrasim_cli.errors import MismatchError, Problems, UsageError
from contrasim_cli.report.results import CompareRow

FACTS = Facts("multilingual", [SetFacts("", 400, "ids", ["en", "ar", "zh"])], batch_size=8, seed=0)
MODELS = [f"m{k}" for k in range(6)]
LAYERS_FACTS = Facts("layers", [SetFacts("", 400, "ids", MODELS)])


def recorded(outcomes: Any, measure: str = "cka", pairs: list[str] | None = None, **more: str) -> Recorded:
    outcomes = np.asarray(outcomes, dtype=float)
    layers = [f"l{k}" for k in range(outcomes.shape[1])]
    names = {"negatives": "random", "train_data": "", "encoder": "", "test_data": "", "models": "", "pair": ""} | more
    training = names.pop("training", "")
    pairs = pairs or ["en-ar", "en-zh", "ar-zh"][: len(outcomes)]
    return Recorded(measure, **names, pairs=pairs, layers=layers, outcomes=outcomes, ranks=outcomes, margins=outcomes,
                    training=training)  # fmt: skip


def compared(*members: list[Recorded], facts: Facts = FACTS, seed: int = 0) -> list[CompareRow]:
    a, b = (Side(side[0].measure, side) for side in members)
    return compare(TrialsFile(Path("a.json"), facts), a, b, seed)


def overall(*members: list[Recorded], **options: Any) -> CompareRow:
    return compared(*members, **options)[-1]


def draws(seed: int, right: float, *shape: int) -> Any:
    return (np.random.default_rng(seed).random(shape) < right).astype(float)


def numbers(row: CompareRow) -> dict[str, float]:
    """What is there of a row's numbers."""
    return {name: float(value) for name, value in vars(row).items() if isinstance(value, int | float)}


# --- tests against their definitions ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_few_clusters_are_flipped_in_every_way(differences: list[int]) -> None:
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(flip, differences, strict=True))) for flip in flips]
    wanted = np.mean([s >= abs(sum(differences)) for s in sums])
    assert sign_flips(np.array(differences, dtype=float), np.random.default_rng(0)) == pytest.approx(wanted)


def test_many_clusters_are_flipped_at_random_and_never_give_0() -> None:
    rng = np.random.default_rng(0)
    assert sign_flips(np.ones(40), rng) == 1e-4
    p_values = [sign_flips(np.random.default_rng(k).normal(size=30), rng) for k in range(200)]
    assert 0.01 < np.mean(np.array(p_values) <= 0.05) < 0.1  # of noise, 5 % of the time


def test_holm_is_the_step_down_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_exchanges_are_of_encoders_that_were_trained_alike() -> None:
    rng = np.random.default_rng(0)
    one = np.ones(2)
    assert exchanges(np.array([1.0, 0.0]), one, np.zeros(2, dtype=int), 1, rng) == 1  # one against one says nothing
    ten = np.array([1.0] * 5 + [0.0] * 5)
    assert exchanges(ten, np.ones(10), np.zeros(10, dtype=int), 5, rng) == pytest.approx(2 / math.comb(10, 5), rel=0.3)
    strata = np.array([0, 1, 2, 0, 1, 2])  # each exchanged with its own kind alone: 2 of 8 ways are as far apart
    apart = exchanges(np.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0]), np.ones(6), strata, 3, rng)
    assert apart == pytest.approx(2 / 8, abs=0.02)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_measure_does_not_differ_from_itself() -> None:
    trials = [recorded(draws(0, 0.7, 3, 2, 50))]
    row = overall(trials, trials)
    assert (row.difference, row.ci_low, row.ci_high, row.p_value) == (0, 0, 0, 1)
    assert row.verdict == "no difference"


def test_a_better_measure_is_different_in_every_layer() -> None:
    rows = compared([recorded(draws(0, 0.9, 3, 2, 50))], [recorded(draws(1, 0.4, 3, 2, 50), "dot")])
    assert [(row.layer, row.verdict) for row in rows] == [
        ("l0", "different"),
        ("l1", "different"),
        ("all", "different"),
    ]
    last = rows[-1]
    found = numbers(last)
    assert found["difference"] == pytest.approx(found["accuracy_a"] - found["accuracy_b"])
    assert found["ci_low"] < found["difference"] < found["ci_high"]
    assert (last.trials, last.clusters) == (300, 50)
    assert numbers(rows[0])["p_holm"] > numbers(rows[0])["p_value"]


@pytest.mark.slow
def test_noise_of_few_batches_is_no_difference() -> None:
    """Trials of one batch are all the same: as many trials as pairs and layers, but no more is known."""
    false_alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = (np.broadcast_to((rng.random(20) < 0.5).astype(float), (3, 4, 20)) for _ in range(2))
        row = overall([recorded(a)], [recorded(b, "dot")])
        false_alarms += row.verdict == "different"
    assert false_alarms <= 7  # 5 % of 60 are 3; were trials taken for independent, more than 25


def test_seeds_that_differ_are_noise_where_there_are_several() -> None:
    """Each encoder is far from each other one, though no row makes a difference."""

    def side(measure: str, levels: list[float]) -> list[Recorded]:
        found = []
        for k, right in enumerate(levels):
            outcomes = np.zeros((3, 1, 100))
            outcomes[:, :, : round(100 * right)] = 1
            found.append(recorded(outcomes, measure, encoder=f"seed {k}", training=measure))
        return found

    rows = overall(side("contrasim", [0.5, 0.7, 0.9]), side("deepcka", [0.9, 0.6, 0.4]))
    assert rows.verdict == "no difference"
    assert overall(side("contrasim", [0.7]), side("deepcka", [0.63])).verdict == "different"
    assert overall(side("contrasim", [0.95, 0.9, 0.92]), side("deepcka", [0.4, 0.5, 0.45])).verdict == "different"


def test_one_seed_against_another_of_the_same_training_is_noise() -> None:
    a, b = (recorded(draws(k, right, 3, 2, 80), encoder=f"seed {k}", training="t") for k, right in ((0, 0.9), (1, 0.5)))
    row = overall([a], [b])
    assert (row.verdict, row.p_value) == ("no difference", 1)
    assert numbers(row)["ci_low"] > 0  # rows alone would say more
    assert "trained alike but for their seeds" in (caveat(Side("a", [a]), Side("b", [b])) or "")
    other = recorded(b.outcomes, encoder="seed 1", training="u")
    assert overall([a], [other]).verdict == "different"
    assert "another training" in (caveat(Side("a", [a]), Side("b", [other])) or "")


def test_fewer_than_six_clusters_tell_nothing() -> None:
    row = overall([recorded(np.ones((3, 2, 5)))], [recorded(np.zeros((3, 2, 5)), "dot")])
    assert (row.verdict, row.difference) == ("too few clusters", 1)
    assert overall([recorded(np.ones((3, 2, 6)))], [recorded(np.zeros((3, 2, 6)), "dot")]).verdict == "different"


def test_both_orders_of_two_models_are_one_cluster_and_models_are_resampled() -> None:
    pairs = [f"{a}-{b}" for a, b in itertools.permutations(MODELS, 2)]
    a = recorded(np.ones((30, 2, 1)), pairs=pairs)
    values = np.ones((30, 2, 1))
    values[[k for k, pair in enumerate(pairs) if "m0" in pair]] = 0  # one model alone is behind the difference
    row = overall([a], [recorded(values, "dot", pairs=pairs)], facts=LAYERS_FACTS)
    assert row.clusters == 15
    assert row.ci_low == 0  # the model was not drawn
    assert row.verdict == "no difference"


def test_layers_without_an_answer_are_left_out_of_both_sides() -> None:
    values = draws(0, 0.5, 3, 2, 50)
    undefined = values.copy()
    undefined[:, 1] = np.nan
    rows = compared([recorded(values)], [recorded(undefined, "svcca")])
    assert [row.verdict for row in rows] == ["no difference", "undefined", "no difference"]
    assert (rows[1].accuracy_a, rows[1].trials, rows[2].trials) == (None, 0, 150)
    nothing = compared([recorded(values)], [recorded(np.full((3, 2, 50), np.nan), "svcca")])
    assert {row.verdict for row in nothing} == {"undefined"}


def test_encoders_are_compared_on_the_pairs_that_they_were_judged_on() -> None:
    everywhere = np.ones((3, 1, 40))
    everywhere[0] = 0
    left_out = recorded(
        np.ones((2, 1, 40)), "contrasim", pairs=["en-zh", "ar-zh"], encoder="en-ar, seed 0", training="t"
    )
    row = overall([left_out], [recorded(everywhere)])
    assert (row.accuracy_a, row.accuracy_b, row.trials) == (1, 1, 80)


# --- what is compared -------------------------------------------------------------------------------------------------


def test_measures_are_selected_by_name_and_by_words() -> None:
    members = [
        recorded(draws(0, 0.5, 3, 1, 9), "contrasim", train_data=data, encoder=f"seed {k}")
        for data in ("ptb", "wiki")
        for k in range(2)
    ]
    file = TrialsFile(Path("a.json"), FACTS, [*members, recorded(draws(0, 0.5, 3, 1, 9))])
    assert len(select(file, "contrasim, ptb").members) == 2
    assert select(file, "contrasim, wiki, seed 1").members == [members[3]]
    with pytest.raises(UsageError, match="was trained on several data sets; give --measure 'contrasim, ptb' or"):
        select(file, "contrasim")
    with pytest.raises(UsageError, match=r"--measure dot: a\.json has contrasim, cka"):
        select(file, "dot")
    with pytest.raises(UsageError, match=r"say which two to compare, with --measure twice"):
        sides(TrialsFile(Path("a.json"), FACTS, [members[0]]), None, [])
    assert [a.name for a, _ in sides(file, file, ["cka"])] == ["cka"]


def test_files_of_other_trials_are_refused_with_all_that_differs() -> None:
    a = TrialsFile(Path("a.json"), FACTS)
    b = TrialsFile(Path("b.json"), Facts("multilingual", [SetFacts("", 300, "ids", [])], batch_size=4, seed=1))
    with pytest.raises(Problems) as caught:
        check_same_trials(a, b)
    assert caught.value.exit_code == 4
    assert list(caught.value.lines) == [
        "b.json: batch size: 4, a.json has 8",
        "b.json: seed of the candidates: 1, a.json has 0",
        "b.json: rows: 300, a.json has 400",
    ]
    d = TrialsFile(Path("d.json"), LAYERS_FACTS)
    with pytest.raises(MismatchError, match=r"d\.json: has trials of the benchmark layers, a\.json of multilingual"):
        check_same_trials(a, d)
    c = TrialsFile(Path("c.json"), Facts("multilingual", [SetFacts("", 400, "other", [])], batch_size=8, seed=0))
    with pytest.raises(MismatchError, match=r"c\.json: the rows' ids are not those of a\.json"):
        check_same_trials(a, c)
    check_same_trials(a, a)


def test_sides_without_a_trial_in_common_are_refused() -> None:
    with pytest.raises(MismatchError, match="cka and dot share no trials"):
        overall([recorded(np.ones((1, 1, 9)))], [recorded(np.ones((1, 1, 9)), "dot", negatives="faiss")])
