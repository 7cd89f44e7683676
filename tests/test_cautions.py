"""Warnings about rows that are too few, zero, or all equal: once per command, with where and what to do."""

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import run

from contrasim_cli.measures import MEASURES

BIASED = [name for name, entry in MEASURES.items() if entry.biased_by_width]


def noise(path: Path, rows: int, widths: dict[str, int], seed: int) -> Path:
    rng = np.random.default_rng(seed)
    return made.store(path, {name: rng.normal(size=(rows, width)) for name, width in widths.items()})


def warnings(stderr: str) -> list[str]:
    return [line.removeprefix("contrasim: warning: ") for line in stderr.splitlines() if ": warning: " in line]


@pytest.fixture
def wide(tmp_path: Path) -> list[Path]:
    return [noise(tmp_path / f"{name}.h5", 32, {"l": 64, "m": 512, "n": 4}, k) for k, name in enumerate("ab")]


def test_fewer_rows_than_neurons_are_told_once_with_the_remedy(wide: list[Path]) -> None:
    done = run("baseline", *wide, "--measure", "cka")
    assert done.code == 0
    assert warnings(done.stderr) == [
        f"cka: 32 rows are fewer than the 512 neurons of layer m of {wide[0]} (and of 3 more layers), where unrelated rows look "
        "alike too; take cka_debiased for cka, or give more rows, or fewer dimensions (a PCA of the rows)"
    ]


def test_components_are_no_neurons_to_match(wide: list[Path]) -> None:
    def told(*measures: str) -> str:
        asked = [word for measure in measures for word in ("--measure", measure)]
        (line,) = warnings(run("baseline", *wide, "--layers", "m", "--null", "0", *asked).stderr)
        return line

    assert told("hard_match").endswith(
        "; give more rows, or fewer neurons (no PCA, which mixes the neurons that are to be matched)"
    )
    assert told("hard_match", "cka").endswith("(a PCA of the rows); no PCA for hard_match, which match neurons")


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_that_is_biased_is_warned_of(wide: list[Path], name: str) -> None:
    done = run("baseline", *wide, "--measure", name, "--layers", "m", "--k", "3", "--null", "0")
    assert bool(warnings(done.stderr)) == (name in BIASED), done.stderr
    assert len(warnings(done.stderr)) <= 1
    narrow = run("baseline", *wide, "--measure", name, "--layers", "n", "--k", "3", "--null", "0")
    assert warnings(narrow.stderr) == []


def test_all_measures_together_take_three_lines(wide: list[Path]) -> None:
    """Those that are high, those that fit exactly, and neighbours of which many are shared by chance."""
    told = [
        line
        for line in warnings(run("baseline", *wide, "--measure", "all", "--null", "0").stderr)
        if "left empty" not in line
    ]
    assert len(told) == 3
    assert "take cka_debiased for cka, rv, cka_rbf and angular_cka, or give more rows" in told[0]
    assert told[1].startswith(
        "cca, svcca, pwcca, pwcca_google, cca_yanai, linear_regression and 2 more: 32 rows span every "
    )
    assert told[2] == (
        "jaccard_knn, mutual_knn, cycle_knn, lcs_knn, edit_distance_knn, cknna and 2 more: of 32 rows, unrelated ones share "
        "0.32 of their 10 nearest by chance; give more rows or a smaller k"
    )


def test_the_cca_family_is_warned_of_where_rows_span_every_direction(tmp_path: Path) -> None:
    """8 rows, centred, have rank 7."""
    stores = [
        noise(tmp_path / f"{name}.h5", 8, {"l": width}, k) for k, (name, width) in enumerate((("a", 7), ("b", 5)))
    ]
    options = ("--measure", "cka", "--measure", "cca", "--measure", "pwcca", "--null", "0")
    done = run("baseline", *stores, *options, "--format", "json")
    assert [row["score"] == pytest.approx(1) for row in json.loads(done.stdout)["results"]] == [False, True, True]
    assert warnings(done.stderr) == [
        f"cca and pwcca: 8 rows span every direction of the 7 neurons of layer l of {stores[0]}, so that whatever they are "
        "compared with fits them exactly, or nearly; give more rows, or fewer dimensions (a PCA of the rows)"
    ]
    assert warnings(run("baseline", stores[1], stores[1], *options).stderr) == []


def test_the_rows_that_count_are_those_that_are_compared(tmp_path: Path) -> None:
    """--max-rows takes some of them."""
    stores = [noise(tmp_path / f"{name}.h5", 100, {"l": 60}, k) for k, name in enumerate("ab")]
    options = ("--measure", "cka", "--measure", "distance_correlation", "--null", "0")
    assert warnings(run("baseline", *stores, *options).stderr) == []
    (told,) = warnings(run("baseline", *stores, *options, "--max-rows", "50").stderr)
    assert told.startswith("cka and distance_correlation: 50 rows are fewer than the 60 neurons of layer l of ")


def test_an_encoder_counts_as_wide_as_it_makes_rows(tmp_path: Path) -> None:
    stores = [noise(tmp_path / f"{name}.h5", 20, {"l": 64}, k) for k, name in enumerate("ab")]
    by_cka = made.encoder_file(tmp_path / "k.pt", widths=(64,), output=32, objective="deepcka")
    by_dot = made.encoder_file(tmp_path / "d.pt", widths=(64,), output=32)
    narrow = made.encoder_file(tmp_path / "n.pt", widths=(64,), output=16, objective="deepcka")

    def few(encoder: Path) -> list[str]:
        return [line for line in warnings(run("score", *stores, "--encoder", encoder).stderr) if "rows are" in line]

    assert few(by_cka) == [
        "k.pt: 20 rows are fewer than the 32 dimensions of encoded rows, where unrelated rows look alike too; give more rows"
    ]
    assert few(by_dot) == few(narrow) == []


def test_a_learned_measure_is_held_against_shuffled_rows_and_not_warned_of(wide: list[Path]) -> None:
    done = run("score", *wide)
    assert done.code == 0
    assert "fewer than" not in done.stderr
    assert "span every direction" not in done.stderr


def test_benchmarks_warn_too(wide: list[Path], tmp_path: Path) -> None:
    layers = run("bench", "layers", *wide, "--measure", "cka", "--measure", "cca")
    assert [line.split(":")[0] for line in warnings(layers.stderr)] == ["cka", "cca", "3 trials"]
    sanity = run("bench", "sanity", wide[0], "--measure", "cka", "--layers", "m")
    assert warnings(sanity.stderr)[0].startswith("cka: 32 rows are fewer than the 512 neurons of layer m of ")
    batches = run("bench", "image-caption", *wide, "--batch-size", "8", "--measure", "cka", "--layers", "m")
    assert [line.split(":")[0] for line in warnings(batches.stderr)] == [
        "4 trials"
    ]  # right and wrong batches are biased alike


# --- zero rows --------------------------------------------------------------------------------------------------------


def zero_at(path: Path, row: int, layers: dict[str, Any], which: str) -> Path:
    layers[which][row] = 0
    return made.store(path, layers, [f"s{k}" for k in range(len(layers[which]))])


@pytest.mark.parametrize("name", [name for name, entry in MEASURES.items() if entry.empty_on_zero_rows])
def test_a_zero_row_that_empties_a_cell_is_told_with_its_place(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    a, b = ({n: rng.normal(size=(40, 6)) for n in ("l", "m")} for _ in range(2))
    a["l"][30] = 0
    stores = [zero_at(tmp_path / "a.h5", 17, a, "l"), made.store(tmp_path / "b.h5", b, [f"s{k}" for k in range(40)])]
    done = run("baseline", *stores, "--measure", name, "--k", "3")
    (told,) = warnings(done.stderr)
    assert told == (
        f"{name} is undefined ({MEASURES[name].undefined}) for l of {stores[0]} and l of {stores[1]} and 1 more pairs of layers; "
        f"left empty; row 17 (id s17) of layer l of {stores[0]} is zero"
    )


def test_a_zero_row_is_told_by_its_place_in_the_store(tmp_path: Path) -> None:
    """Also where rows are matched by ids; and what empties a cell for another reason names no row."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 6))
    rows[4] = 0
    ids = [f"s{k}" for k in range(20)]
    a = made.store(tmp_path / "a.h5", {"l": rng.normal(size=(20, 6))}, ids)
    b = made.store(tmp_path / "b.h5", {"l": rows, "narrow": rows[:, :3]}, ids[::-1])
    done = run("baseline", a, b, "--measure", "cosine", "--align", "ids", "--layers-b", "l", "--zero-rows", "keep")
    assert done.stderr.endswith(f"; left empty; row 4 (id s15) of layer l of {b} is zero\n")
    done = run("baseline", a, b, "--measure", "cosine", "--align", "ids", "--layers-b", "narrow", "--zero-rows", "keep")
    assert done.stderr.endswith(f"and narrow of {b}; left empty\n")


# --- constant layers --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["raw", "measures"])
def test_training_tells_of_layers_whose_rows_are_all_equal(tmp_path: Path, inputs: str) -> None:
    stores = []
    for k, layers in enumerate(made.related(2, 3, 40, (7,))):
        layers["layer_1"][:] = 0.25
        if k:
            layers["layer_2"][:-1] = layers["layer_2"][0]  # the last row alone differs
        stores.append(made.store(tmp_path / f"{k}.h5", layers))
    options = ("--task", "layers", "--inputs", inputs, "--epochs", "1", "-o", tmp_path / "e.pt")
    done = run("train", *stores, *options)
    told = [line for line in warnings(done.stderr) if "all rows" in line]
    assert told == [
        f"all rows are equal in layer layer_1 of {stores[0]} and layer layer_1 of {stores[1]}: nothing is learned there; choose "
        "others with --layers"
    ]
    done = run("train", *stores, *options, "--force", "--layers", "layer_0", "--layers", "layer_2")
    assert "all rows" not in done.stderr
