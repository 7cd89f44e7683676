"""What follows from results: each rule on numbers for which it speaks, and on numbers for which it does not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pages import diagonal

from contrasim_cli.report import conclusions
from contrasim_cli.report.conclusions import (
    Depths,
    learned_first,
    matches,
    of_benchmark,
    of_layers_alike,
    of_sanity,
    of_scores,
)
from contrasim_cli.report.heat_maps import NEARLY, HeatMap
from contrasim_cli.report.results import BenchRow, SanityRow


def heat_map(values: Any, measure: str = "cka", higher: bool = True) -> HeatMap:
    values = np.asarray(values, dtype=float)
    names = [[f"{side}{k}" for k in range(size)] for side, size in zip("xy", values.shape, strict=True)]
    return HeatMap(measure, ("a", "b"), *names, values, higher)


def even(grid: HeatMap) -> Depths:
    return Depths(*(list(np.linspace(0, 100, size)) for size in grid.values.shape))


def test_the_diagonal_is_found_where_it_is_strictly_ahead_in_its_row() -> None:
    grid = heat_map(diagonal([0.9, 0.5, 0.4, 0.7]))
    found = matches(grid, even(grid))
    assert found == ("cka", 2, 4, pytest.approx(0.1), 1.0)  # of 0.4, 0, -0.1, 0.2
    turned = heat_map(-grid.values, higher=False)
    assert matches(turned, even(turned)) == found


def test_depths_count_where_stores_are_of_unequal_depth() -> None:
    values = np.zeros((3, 5))
    values[0, 0] = values[1, 2] = values[2, 2] = 1.0
    grid = heat_map(values)
    assert matches(grid, even(grid)) == ("cka", 2, 3, None, pytest.approx(0.6))
    values[0, 1] = 1.0  # a tie is a miss
    assert matches(heat_map(values), even(grid)) == ("cka", 1, 3, None, pytest.approx(0.6))


@pytest.mark.parametrize("values", [[[1.0]], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_one_layer_is_no_choice(values: Any) -> None:
    grid = heat_map(values)
    assert matches(grid, even(grid)) is None
    assert of_scores([grid], [even(grid)], {}, 100, 10)[0] == (
        "There is one layer on a side, so that no best match can be told from others."
    )


def test_scores_that_are_not_there_are_no_matches() -> None:
    grid = heat_map(np.full((3, 3), np.nan))
    assert matches(grid, even(grid)) == ("cka", 0, 3, None, 1.0)
    grid = heat_map([[1, np.nan, 0], [np.nan, np.nan, np.nan], [0, 0.5, np.nan]])
    assert matches(grid, even(grid)) == ("cka", 1, 3, pytest.approx(1.0), 1.0)


def test_sentences_about_scores() -> None:
    grids = [heat_map(diagonal([0.9, 0.8]), "enc.pt"), heat_map(diagonal([0.4, 0.9]), "cka")]
    sentences = of_scores(grids, [even(grid) for grid in grids], {"enc.pt": (1, 4), "cka": (0, 0)}, 30, 64)
    assert sentences == [
        "Layers whose best match is the layer at the same position in the other store: 2 of 2 by enc.pt and 1 of 2 by cka. Matches "
        "drawn at random would give 1.0 of 2 on average.",
        "In the median, the layer at the same position leads the best other layer of its row by 0.350 by enc.pt and by 0.150 "
        "by cka.",
        "Pairs of layers that are more similar than shuffled rows by 3 standard deviations or more: 3 of 4 by enc.pt.",
        "What shuffled rows score is not known well enough for cka: that rows correspond does not follow from a high score alone "
        "(--null 99 tells).",
        "There are too few rows for cka: 30 are fewer than the 64 neurons of the widest layer, where unrelated rows look alike "
        "too; that layers are similar does not follow from these scores.",
    ]


@pytest.mark.parametrize(
    ("rows", "said"), [(63, "too few rows"), (64, "Rows are few"), (255, "Rows are few"), (256, "")]
)
def test_rows_are_few_for_measures_that_mind_it(rows: int, said: str) -> None:
    for measure, minds in (("cka", True), ("cka_debiased", False), ("enc.pt", False)):
        grid = heat_map(diagonal([1.0, 1.0]), measure)
        text = " ".join(of_scores([grid], [even(grid)], {measure: (0, 4)}, rows, 64))
        assert ("few" in text) == bool(minds and said)
        assert said in text or not minds


@pytest.mark.parametrize("rows", [63, 64])
def test_where_rows_are_few_scores_are_read_from_the_level_of_shuffled_rows_if_it_is_known(rows: int) -> None:
    grids = [heat_map(diagonal([1.0, 1.0]), measure) for measure in ("cka", "pwcca")]
    *_, known, unknown = of_scores(grids, [even(grids[0])] * 2, {"cka": (0, 4)}, rows, 64)
    assert known.endswith("; read these scores from the level of shuffled rows, not from 0.")
    assert " for cka: " in known
    assert " for pwcca: " in unknown
    assert unknown.endswith(
        "; --null 99 tells." if rows == 64 else "; that layers are similar does not follow from these scores."
    )


@pytest.mark.parametrize(("level", "said"), [(0.05, False), (0.3, True), (None, True)])
def test_few_rows_are_not_spoken_of_where_shuffled_rows_score_low(level: float | None, said: bool) -> None:
    for rows in (63, 64):
        grid = heat_map(diagonal([1.0, 1.0]))
        grid = grid if level is None else replace(grid, null=np.full((2, 2), level))
        assert ("few" in " ".join(of_scores([grid], [even(grid)], {"cka": (0, 4)}, rows, 64))) == said


def test_one_layer_that_matches_all_is_named() -> None:
    same = np.full((4, 4), 0.2)
    same[:, 2] = 0.9
    text = " ".join(of_scores([heat_map(same)], [even(heat_map(same))], {}, 100, 10))
    assert (
        "One layer is the best match of every layer that has one: y2 of b for 4 of 4 of a by cka. Which layers correspond does not "
        "follow from that."
    ) in text
    same[0] = 0.3  # has no best match
    text = " ".join(of_scores([heat_map(same)], [even(heat_map(same))], {}, 100, 10))
    assert "y2 of b for 3 of 4 of a by cka" in text
    for other in (same[1:3], np.eye(4)):
        text = " ".join(of_scores([heat_map(other)], [even(heat_map(other))], {}, 100, 10))
        assert "One layer is" not in text


def test_encoders_come_first_and_closed_forms_keep_their_order() -> None:
    assert learned_first(["pwcca", "cka", "enc.pt", "cka", "universal"]) == ["enc.pt", "universal", "pwcca", "cka"]


def row(
    measure: str, value: float | None, low: float | None, high: float | None, trials: int = 60, **more: Any
) -> BenchRow:
    words = {"benchmark": "layers", "negatives": "", "pair": "all", "layer": "all"} | more
    numbers = {"accuracy": value, "std": None, "ci_low": low, "ci_high": high, "chance": 0.25, "trials": trials}
    return BenchRow(measure=measure, mrr=None, margin=None, **words, **numbers)


def test_the_first_leads_where_intervals_are_apart() -> None:
    rows = [row("cka", 0.5, 0.4, 0.6), row("enc.pt", 0.9, 0.8, 1.0), row("dot", 0.3, 0.25, 0.4)]
    assert of_benchmark(rows) == [
        "layers: enc.pt has 90.0 % (95 % interval 80.0 to 100.0 %) of 60 trials right; chance is 25.0 %.",
        "It leads the next, cka, by 40.0 points; their 95 % intervals are apart.",
        "No better than chance, which lies in the 95 % interval: dot.",
    ]


def test_what_may_be_noise_is_called_so() -> None:
    told = of_benchmark([row("cka", 0.5, 0.4, 0.82), row("enc.pt", 0.9, 0.8, 1.0, trials=9)])
    assert "by 40.0 points, which may be noise: that it is better does not follow (bench compare tests it)" in told[1]
    assert told[2] == "9 trials are few: differences of a few points do not mean anything."
    assert "which may be noise" in of_benchmark([row("cka", 0.5, None, None), row("enc.pt", 0.9, None, None)])[1]
    assert of_benchmark([row("cka", 0.5, 0.4, 0.6), row("dot", 0.5, 0.4, 0.6)])[1] == "dot does as well."


def test_kinds_of_negatives_and_pairs_are_told_apart() -> None:
    rows = [row("cka", 0.5, 0.4, 0.6, benchmark="multilingual", negatives=kind) for kind in ("random", "faiss")]
    assert [line.split(":")[0] for line in of_benchmark(rows)] == [
        "multilingual, random negatives",
        "multilingual, faiss negatives",
    ]
    assert of_benchmark([row("cka", 0.5, 0.4, 0.6, pair="en-ar")])[0].startswith("layers, en-ar: cka has 50.0 %")


def test_of_nothing_nothing_follows() -> None:
    assert of_benchmark([row("cka", None, None, None)]) == ["Nothing follows: no accuracy is defined."]
    assert of_scores([], [], {}, 10, 10) == ["Nothing follows: no score is defined."]


def test_every_rule_is_stated_with_its_numbers() -> None:
    text = " ".join(conclusions.RULES)
    for number in (conclusions.NEAR, conclusions.CLEAR, conclusions.AMPLE, conclusions.FEW_TRIALS, 100 * NEARLY):
        assert f" {number:g} " in text
    assert f"smallest possible null_p is 1 / (1 + m): {1 / (1 + 7 * 16):.2g} of 7 shuffles of 16 cells" in text


def test_measures_that_choose_other_layers_are_said_to_contradict_each_other() -> None:
    """More than half of them, of all pairs of stores together."""
    first, other = heat_map(np.eye(4), "enc.pt"), heat_map(np.roll(np.eye(4), 1, axis=1), "cka")
    sentences = of_scores([first, other], [even(first)] * 2, {}, 100, 10)
    assert "most best matches of enc.pt are not those of cka (the same layer for 0 of 4)" in " ".join(sentences)
    half = heat_map(np.eye(4)[[0, 1, 3, 2]], "cka")
    assert "contradict" not in " ".join(of_scores([first, half], [even(first)] * 2, {}, 100, 10))


def near(gap: float, **more: Any) -> HeatMap:
    """Four rows of which the last layer leads the others by `gap`."""
    values = np.full((4, 4), 0.9)
    values[:, 3] += gap
    return replace(heat_map(values), **more)


@pytest.mark.parametrize(
    ("more", "threshold"),
    [
        ({}, 0.02),  # of 0 to 1
        ({"null": np.full((4, 4), 0.5)}, 0.01),  # of 0.5 to 1
        ({"measure": "dot"}, 0.02 * 0.92),  # of the largest score
        ({"measure": "enc.pt"}, 0.02 * 0.92),
        ({"measure": "procrustes", "higher": False, "null": np.full((4, 4), 0.7)}, 0.02 * 0.7),  # of 0 to 0.7
    ],
)
def test_rows_are_nearly_identical_within_a_part_of_the_scale(more: dict[str, Any], threshold: float) -> None:
    sign = 1 if more.get("higher", True) else -1
    below, above = near(sign * 0.98 * threshold, **more), near(sign * 1.02 * threshold, **more)
    assert below.nearly_identical().tolist() == [True] * 4
    assert not below.best().any()
    assert not above.nearly_identical().any()
    assert above.best().sum() == 4


def test_learned_measures_are_judged_by_calibrated_scores() -> None:
    raw = heat_map(10 * np.eye(3), "enc.pt")
    assert raw.best().sum() == 3
    alike = replace(raw, calibrated=0.9 + 0.01 * np.eye(3))
    assert alike.nearly_identical().all()
    assert not alike.best().any()


def test_layers_of_one_store_that_are_alike_are_named() -> None:
    alike = replace(heat_map(np.full((3, 3), 0.99) + 0.01 * np.eye(3)), stores=("a", "a"))
    apart = replace(heat_map(np.full((3, 3), 0.9) + 0.1 * np.eye(3)), stores=("b", "b"))
    (sentence,) = of_layers_alike([alike, apart])
    assert sentence.startswith(
        "All layers of a are nearly identical by cka: it cannot tell which of them matches a layer"
    )
    assert of_layers_alike([apart, replace(alike, measure="enc.pt")]) == []


def test_log_odds_tell_the_best_match_from_the_next() -> None:
    values = np.array([[2.16, 2.195, 1.0], [2.16, 2.4, 1.0], [0.9, 0.2, 0.1]])
    odds = replace(heat_map(values, "universal"), calibrated=np.eye(3))
    assert odds.nearly_identical().tolist() == [True, False, False]
    assert odds.best().sum(axis=1).tolist() == [0, 1, 1]
    bounded = replace(heat_map(values / 3, "enc.pt"), calibrated=np.eye(3))
    assert not bounded.nearly_identical().any()


@pytest.mark.parametrize(
    ("calibrated", "why"),
    [
        ([[0, 1, 0]], "1 of 3 rows: best two raw scores within 0.2"),
        ([[0.5, 0.51, 0.5]], "1 of 3 rows: calibrated scores"),  # by both
        (
            [[0, 1, 0], [0.5, 0.51, 0.5]],
            "2 of 3 rows: 1 by calibrated scores and 1 by best two raw scores within 0.2",
        ),
    ],
)
def test_rows_without_a_best_match_are_told_with_the_rule_that_holds(calibrated: list[list[float]], why: str) -> None:
    values = np.array([[2.16, 2.195, 1.0], [1.0, 2.4, 1.0], [0.9, 0.2, 0.1]])
    odds = replace(heat_map(values, "universal"), calibrated=np.vstack([calibrated, np.eye(3)[len(calibrated) :]]))
    text = " ".join(of_scores([odds], [even(odds)], {}, 100, 10))
    if "2 of 3" in why:  # left out of the other sentences
        assert "The best match" not in text
    assert f"Scores of a row are nearly identical for universal ({why}): which layer" in text


def test_a_row_with_an_odd_layer_is_nearly_identical_and_one_with_a_neighbour_is_not() -> None:
    odd, neighbour = [0.98, 0.97, 0.975, 0.1], [0.98, 0.975, 0.5, 0.1]
    assert heat_map([odd, neighbour]).nearly_identical().tolist() == [True, False]
    assert heat_map([[0.9, np.nan, np.nan], [0.9, 0.89, np.nan]]).nearly_identical().tolist() == [False, True]


def test_measures_that_are_nearly_identical_find_and_contradict_nothing() -> None:
    first, alike = heat_map(np.eye(4), "enc.pt"), near(0.001)
    sentences = of_scores([first, alike], [even(first)] * 2, {}, 100, 10)
    assert sentences[:3] == [
        "Layers whose best match is the layer at the same position in the other store: 4 of 4 by enc.pt. Matches drawn at random "
        "would give 1.0 of 4 on average.",
        "Scores of a row are nearly identical for cka (4 of 4 rows): which layer matches best is not to "
        "be read from them.",
        "In the median, the layer at the same position leads the best other layer of its row by 1.000 by enc.pt.",
    ]
    assert of_scores([alike], [even(alike)], {}, 100, 10)[0].startswith("Scores of a row are nearly identical")
    told_apart = heat_map(np.roll(np.eye(4), 1, axis=1), "cka")
    assert "contradict" in " ".join(of_scores([first, told_apart], [even(first)] * 2, {}, 100, 10))


def test_rows_that_are_nearly_identical_do_not_count_as_contradictions() -> None:
    values = np.eye(5)[[1, 0, 2, 3, 4]]  # two rows of five choose another layer
    first, other = heat_map(np.eye(5), "enc.pt"), heat_map(values, "cka")
    sides = [even(first)] * 2
    assert "contradict" not in " ".join(of_scores([first, other], sides, {}, 100, 10))
    values[3:] = 0.5
    text = " ".join(of_scores([first, heat_map(values, "cka")], sides, {}, 100, 10))
    assert "not those of cka (the same layer for 1 of 3)" in text
    assert "for cka (2 of 5 rows)" in text


def test_leads_of_learned_measures_are_called_raw_beside_calibrated_scores() -> None:
    grid = replace(heat_map(np.eye(2), "enc.pt"), calibrated=np.eye(2))
    assert "by 1.000 by enc.pt (raw scores)." in " ".join(of_scores([grid], [even(grid)], {}, 100, 10))


def test_calibrated_scores_that_disagree_with_the_match_are_counted() -> None:
    raw = 5 * np.eye(4)
    calibrated = 0.4 + 0.2 * np.eye(4)
    grid = replace(heat_map(raw, "universal"), calibrated=calibrated)
    assert "Another layer" not in " ".join(of_scores([grid], [even(grid)], {}, 100, 10))
    calibrated[1, 3], calibrated[2, 0] = 0.65, 0.615  # by more than 0.02, and by less
    grid = replace(heat_map(raw, "universal"), calibrated=calibrated)
    assert grid.at_odds() == 1
    assert (
        "Another layer than the best match has the largest calibrated score by universal (1 of 4 rows): between models of one kind "
        "hold to the match; between different architectures compare it with closed forms."
    ) in of_scores([grid], [even(grid)], {}, 100, 10)
    raw[1] = 0  # a row without a best match
    assert replace(heat_map(raw, "universal"), calibrated=calibrated).at_odds() == 0
    assert replace(heat_map(np.eye(4), "enc.pt"), calibrated=calibrated).at_odds() == 0  # of no log odds


def checks(measure: str, **verdicts: str) -> list[SanityRow]:
    """Checks of a measure by name, with their verdicts."""
    return [SanityRow(measure, "l", name, None, "", 0.5, 0.5, verdict) for name, verdict in verdicts.items()]


def test_measures_are_recommended_by_the_checks_that_they_pass() -> None:
    rows = [
        *checks("good", rotation="ok", linear="", noise="ok", shuffle="ok"),
        *checks("careful", rotation="fails", noise="ok", shuffle="ok", width="fails"),
        *checks("deaf", rotation="fails", noise="fails", shuffle="ok"),
        *checks("trivial", noise="ok", shuffle="fails"),
        *checks("undefined", noise="", shuffle=""),
    ]
    assert of_sanity(rows) == [
        "passes every judged check, use: good",
        "use with care, fails in brackets: careful (rotation, width)",
        "do not use on these rows, fails in brackets: deaf (rotation, noise), trivial (shuffle)",
        "nothing follows, shuffled rows were not judged: undefined",
    ]
    assert of_sanity([]) == []


def test_the_same_layer_trails_where_it_is_behind_and_ties_where_it_is_level() -> None:
    behind, level = np.eye(4)[[1, 2, 3, 0]], np.zeros((4, 4))
    level[:, :2] = 1.0
    level[2:, 2:] = 1.0
    grids = [
        heat_map(np.eye(4), "enc.pt"),
        heat_map(0.047 * behind),
        heat_map(level, "dot"),
        heat_map(np.eye(4) * 1e-5, "rv"),
    ]
    text = of_scores(grids, [even(grid) for grid in grids], {}, 1000, 10)
    (told,) = [sentence for sentence in text if sentence.startswith("In the median")]
    assert told == (
        "In the median, the layer at the same position leads the best other layer of its row by 1.000 by enc.pt, "
        "and trails the best other layer of its row by 0.047 by cka, and ties with the best other layer of its row by dot."
    )


def test_the_pairs_that_a_lead_is_of_are_named_where_some_have_no_diagonal() -> None:
    square = heat_map(np.eye(3), "enc.pt")
    wide = replace(heat_map(np.eye(3, 5), "enc.pt"), stores=("a", "c"))
    text = of_scores([square, wide], [even(square), even(wide)], {}, 100, 10)
    assert text[0].startswith(
        "Layers whose best match is the layer at the same position in the other store (where stores differ in their number of "
        "layers, one of about the same depth, within 10 %): 4 of 6 by enc.pt, over 2 pairs of stores. Matches"
    )
    assert "In the median over the 1 of 2 pairs of stores that have equally many layers (a – b), the layer" in text[1]
    alone = of_scores([wide], [even(wide)], {}, 100, 10)
    assert alone[0].startswith(
        "Layers whose best match is a layer of about the same depth in the other store (within 10 %): "
    )
    assert "In the median" not in " ".join(alone)


def test_measures_without_a_defined_score_are_named() -> None:
    nothing, cka = heat_map(np.full((3, 3), np.nan), "rv"), heat_map(np.eye(3))
    assert of_scores([nothing], [even(nothing)], {}, 100, 10) == ["Nothing follows: no score is defined."]
    text = of_scores([cka, nothing], [even(cka)] * 2, {}, 100, 10)
    assert text[-1] == "No score is defined by rv."
    assert not any("rv" in sentence for sentence in text[:-1])


def test_benchmarks_of_one_trial_of_correlations_and_below_chance() -> None:
    assert of_benchmark([row("cka", 1.0, None, None, trials=1)])[-1].startswith("1 trial is few: ")
    told = of_benchmark([row("cka", 0.4, 0.3, 0.5), row("dot", 0.1, 0.05, 0.2), row("norm", 0.3, 0.2, 0.4)])
    assert told[-2:] == ["No better than chance, which lies in the 95 % interval: norm.", "Below chance: dot."]
    told = of_benchmark([replace(row("cka", 0.5, None, None, benchmark=conclusions.MONOTONICITY), chance=0.0)])
    assert told[0].endswith("cka orders layers by their distance with a rank correlation of 0.500; chance is 0.000.")
    told = of_benchmark([row("cka", 0.5, 0.4, 0.6), row("dot", 0.4999, 0.4, 0.6)])
    assert "by less than 0.1 points, which may be noise" in told[1]
