"""What follows from results: each rule on numbers for which it speaks, and on numbers for which it does not."""

from typing import Any

import numpy as np
import pytest
from pages import diagonal

from contrasim_cli.report import conclusions
from contrasim_cli.report.conclusions import Depths, learned_first, matches, of_benchmark, of_scores
from contrasim_cli.report.heat_maps import HeatMap
from contrasim_cli.report.results import BenchRow


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
        "The best match of a layer is the same layer of the other store: for 2 of 2 layers by enc.pt and for 1 of 2 layers by cka; "
        "a choice at random would find 1.0.",
        "The diagonal leads the best other layer of its row by +0.350 by enc.pt and +0.150 by cka in the median; below 0 it is "
        "behind.",
        "Pairs of layers that are more similar than shuffled rows by 3 standard deviations or more: 3 of 4 by enc.pt.",
        "What shuffled rows score is not known for cka: from a high score alone it does not follow that rows correspond (--null 99 "
        "counts it).",
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
        "Not told from chance: dot.",
    ]


def test_what_may_be_noise_is_called_so() -> None:
    told = of_benchmark([row("cka", 0.5, 0.4, 0.82), row("enc.pt", 0.9, 0.8, 1.0, trials=9)])
    assert "by 40.0 points, which may be noise: that it is better does not follow (bench compare tests it)" in told[1]
    assert told[2] == "9 trials are few: differences of a few points do not mean anything."
    assert "which may be noise" in of_benchmark([row("cka", 0.5, None, None), row("enc.pt", 0.9, None, None)])[1]
    assert of_benchmark([row("cka", 0.5, 0.4, 0.6), row("dot", 0.5, 0.4, 0.6)])[1] == "dot has as many right."


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
    for number in (conclusions.NEAR, conclusions.CLEAR, conclusions.AMPLE, conclusions.FEW_TRIALS):
        assert f" {number:g} " in text


def test_measures_that_choose_other_layers_are_said_to_contradict_each_other() -> None:
    """More than half of them, of all pairs of stores together."""
    first, other = heat_map(np.eye(4), "enc.pt"), heat_map(np.roll(np.eye(4), 1, axis=1), "cka")
    sentences = of_scores([first, other], [even(first)] * 2, {}, 100, 10)
    assert "most best matches of enc.pt are not those of cka (the same layer for 0 of 4)" in " ".join(sentences)
    half = heat_map(np.eye(4)[[0, 1, 3, 2]], "cka")
    assert "contradict" not in " ".join(of_scores([first, half], [even(first)] * 2, {}, 100, 10))
