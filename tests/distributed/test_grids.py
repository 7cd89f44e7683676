"""Grids by several ranks, which share rows, tiles, layers or cells, against one rank: every form that a measure can have."""

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import distributed_grids as grids
import made
import numpy as np
import pytest
from ranks import run
from stores import write

from contrasim_cli.measures.protocol import Measure
from contrasim_cli.scoring import closed_form

ROWS = 307  # a prime, in five blocks
TESTS = Path(__file__).parents[1]

# forms of a measure, and the function that makes scores of it
WAYS = {
    "prepare": "prepared.compute",
    "moments": "moments.compute",
    "rowwise": "rowwise.compute",
    "energy": "gram_products.compute",
    "whiten": "moments.compute_whitened",
    "own": "prepared.compute_numbers",
    "batches": "rowwise.compute_batches",
    "pairs": "row_pairs.compute",
}
NO_FORMS = {
    "across",
    "at_once",
    "compare",
    "diagonals",
    "drawn",
    "grams",
    "grouped",
    "inner",
    "k",
    "prepare_repeats",
    "shuffled_mean",
    "square",
}  # parts of others, and what retrieval takes
SUMMED = {"moments", "rowwise", "energy", "whiten", "batches", "pairs"}

Found = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores a and b of few neurons, c and d of more neurons than rows, e with widths of a; and an encoder."""
    folder, rng = tmp_path_factory.mktemp("grids"), np.random.default_rng(0)
    a, b = made.related(2, 2, ROWS, (7, 9))
    a |= {"nine": rng.normal(size=(ROWS, 9)).astype(np.float32)}
    b |= {"double": b["layer_0"].astype(np.float64) * 3 + 1e3, "seven": a["layer_0"][:, ::-1] + np.float32(2)}
    c, d = made.related(2, 2, ROWS, (400, 330))
    for name, layers in {"a": a, "b": b, "c": c, "d": d, "e": {"seven": b["seven"]}}.items():
        write(folder / f"{name}.h5", layers)
    made.encoder_file(folder / "enc.pt", widths=(7, 9))
    return folder


def of_ranks(world: int, *arguments: object) -> list[Found]:
    """What every rank found."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = run(world, *arguments, python=(str(TESTS / "distributed_grids.py"),), env={"PYTHONPATH": path})
    assert [one.code for one in done] == [0] * world, done
    return [json.loads(one.stdout) for one in done]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Found:
    """What one rank found."""
    return grids.found(folder)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, folder: Path) -> list[Found]:
    """What every rank of 2, and of 3, found."""
    return of_ranks(request.param, folder)


def apart(case: str, one: Found, other: Found) -> Iterator[tuple[str, float]]:
    """How far the scores of every scorer of a case are apart, over their size where that is more than 1."""
    for name in one[case]:
        x, y = (np.array(found[case][name]["scores"], dtype=np.float64) for found in (one, other))
        np.testing.assert_array_equal(np.isnan(x), np.isnan(y), err_msg=name)
        yield name, float(np.nanmax(np.abs(x - y) / np.maximum(1, np.abs(x)), initial=0))


def test_every_form_of_a_measure_is_computed_by_ranks(alone: Found) -> None:
    forms = {field.name for field in fields(Measure)} - NO_FORMS
    assert forms == WAYS.keys(), "a form is missing here; say how ranks share it"
    seen = {one["way"] for case in alone.values() if isinstance(case, dict) for one in case.values()}
    assert set(WAYS.values()) <= seen
    for scorer in closed_form(grids.STREAMED):
        possible = [
            way for form, way in WAYS.items() if form != "prepare" and getattr(scorer.measure, form) is not None
        ]
        assert alone["streamed"][scorer.name]["way"] in possible, scorer.name


@pytest.mark.parametrize("case", ["kept", "streamed", "encoders", "encoders, at the edge"])
def test_they_find_what_one_rank_finds_in_single_precision(case: str, alone: Found, together: list[Found]) -> None:
    for rank in together:
        for name, gap in apart(case, alone, rank):
            assert gap < 1e-6, name
        assert {name: one["way"] for name, one in rank[case].items()} == {n: o["way"] for n, o in alone[case].items()}


@pytest.mark.parametrize("case", ["kept, exact", "streamed, exact", "wide", "wide, streamed"])
def test_they_find_it_to_nine_digits_in_double_precision(case: str, alone: Found, together: list[Found]) -> None:
    for rank in together:
        for name, gap in apart(case, alone, rank):
            assert gap < 1e-9, name


@pytest.mark.parametrize("case", ["kept", "streamed", "wide", "wide, streamed"])
def test_what_shuffled_rows_score_is_the_same(case: str, alone: Found, together: list[Found]) -> None:
    names = [name for name, one in alone[case].items() if one["shuffled"]]
    assert {"cka", "cka_debiased"} <= set(names)
    for rank in together:
        for name in names:
            np.testing.assert_allclose(
                rank[case][name]["shuffled"], alone[case][name]["shuffled"], rtol=1e-5, atol=1e-9
            )


def test_all_ranks_find_the_same_bits(together: list[Found]) -> None:
    first, *others = ({name: one for name, one in rank.items() if name not in ("read", "made")} for rank in together)
    assert all(rank == first for rank in others)


def test_each_rank_reads_its_own_rows(together: list[Found]) -> None:
    """And the first row, less which all are taken, and the end of a batch that another rank's rows begin in."""
    block, batch = 64, 16
    for counts in zip(*(rank["read"] for rank in together), strict=True):
        assert max(counts) <= ROWS / len(together) + block + batch
        assert ROWS <= sum(counts) <= ROWS + len(together) * (1 + block + batch)


def test_each_rank_prepares_its_own_layers(folder: Path, alone: Found, together: list[Found]) -> None:
    made, scores = zip(*(rank["made"] for rank in together), strict=True)
    layers = sum(np.shape(alone["kept"]["frechet_distance"]["scores"]))
    assert (sum(made), max(made) - min(made)) == (layers, layers % len(together) > 0)
    one = grids.layers_made(folder)[1]
    for each in scores:
        np.testing.assert_array_equal(each, one)  # the same bits, and NaN


@pytest.mark.parametrize("case", ["whitened rows", "scaled rows"])
def test_rows_are_standardised_by_statistics_of_all_of_them(case: str, alone: Found, together: list[Found]) -> None:
    for rank in together:
        for one, other in zip(alone[case], rank[case], strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_rows_that_are_zero_are_those_that_no_rank_saw_otherwise(together: list[Found]) -> None:
    assert together[0]["zero rows"] == [list(range(len(together))), list(range(1, len(together)))]


@pytest.mark.slow
def test_sums_that_are_left_out_are_noticed(folder: Path, alone: Found) -> None:
    """The comparisons above can fail, for every form that is summed over ranks."""
    first = of_ranks(2, folder, "no-sums")[0]
    wrong = {name: one for name, one in first["streamed"].items() if one is not None}
    gaps = dict(apart("streamed", {"streamed": {name: alone["streamed"][name] for name in wrong}}, {"streamed": wrong}))
    for form in SUMMED:
        names = [scorer.name for scorer in closed_form(grids.STREAMED) if getattr(scorer.measure, form)]
        assert names
        assert all(gaps.get(name, 1) > 1e-6 for name in names), (form, gaps)
    assert first["whitened rows"] != alone["whitened rows"]
