"""Training by several ranks against one: losses are those of whole batches, gradients sums over ranks."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import distributed_training as script
import made
import numpy as np
import pytest
from ranks import finish, program, run, start
from stores import write

from contrasim_cli import encoder

TESTS = Path(__file__).parents[1]
ROWS = 33
STEPS = 2  # whose losses have to agree to 1e-6; Adam then divides small gradients by themselves

Found = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of two layers."""
    folder = tmp_path_factory.mktemp("training")
    for name, layers in zip("xyz", made.related(3, 2, ROWS, (6,)), strict=True):
        write(folder / f"{name}.h5", layers)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Found:
    """What one rank comes to."""
    return {name: script.trained(folder, name) for name in script.CASES}


def of_ranks(world: int, *arguments: object) -> list[Found]:
    """What every rank comes to."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = run(world, *arguments, python=(str(TESTS / "distributed_training.py"),), env={"PYTHONPATH": path})
    assert [one.code for one in done] == [0] * world, done
    return [json.loads(one.stdout) for one in done]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, folder: Path) -> list[Found]:
    """What every rank of 2, and of 3, comes to."""
    return of_ranks(request.param, folder)


def gap(one: Any, other: Any) -> float:
    """The largest difference over the largest value."""
    x, y = np.array(one), np.array(other)
    return float(np.abs(x - y).max() / np.abs(x).max())


@pytest.mark.parametrize("case", script.CASES)
def test_gradients_and_losses_are_those_of_one_rank(case: str, alone: Found, together: list[Found]) -> None:
    # gradients of rows in bfloat16 are rounded to 8 bits by every rank
    coarse = "bfloat16" in case
    steep = 5e-5 if case == "layers, norm, supcon" else 2e-6
    for rank in together:
        assert gap(alone[case]["gradient"], rank[case]["gradient"]) < (1e-2 if coarse else steep)
        first, later = (1e-3, 1e-1) if coarse else (1e-6, 1e-4)
        np.testing.assert_allclose(rank[case]["losses"][:STEPS], alone[case]["losses"][:STEPS], rtol=first, atol=first)
        np.testing.assert_allclose(rank[case]["losses"], alone[case]["losses"], rtol=later, atol=later)


def test_all_ranks_end_with_the_same_weights(together: list[Found]) -> None:
    for case, first in together[0].items():
        for rank in together:
            assert {**rank[case], "read": 0} == {**first, "read": 0}, case


def test_every_rank_reads_its_part_of_the_rows(alone: Found, together: list[Found]) -> None:
    """Of rows that are held once; of rows that are streamed, in the first pass and in every epoch, of every group."""
    passes, groups = 1 + script.EPOCHS, -(-ROWS // script.GROUP)
    for case in script.CASES:
        for rank in together:
            assert rank[case]["digests"] == alone[case]["digests"]
            most = alone[case]["read"] / len(together)
            assert rank[case]["read"] <= most + script.BLOCK * (passes * groups if case in script.STREAMED else 1), case
    assert alone["pairs, streamed"]["read"] > passes * ROWS > ROWS == alone["pairs, supcon"]["read"]


@pytest.mark.slow
def test_gradients_that_are_not_summed_are_noticed(folder: Path, alone: Found) -> None:
    first = of_ranks(2, folder, "no-sums")[0]
    for case in script.CASES:
        assert gap(alone[case]["gradient"], first[case]["gradient"]) > 1e-2, case


@pytest.mark.slow
@pytest.mark.parametrize("asked", [["--task", "pairs"], ["--task", "layers", "--inputs", "anchors", "--anchors", 64]])
def test_what_is_chosen_and_made_of_rows_is_what_one_rank_comes_to(asked: list[object], tmp_path: Path) -> None:
    """Rows of which `auto` makes the covariance within rows, in blocks of which some ranks have none."""
    draw = np.random.default_rng(0)
    own, wide = draw.normal(size=(1500, 12)), 6 * draw.normal(size=(2, 12))
    stores = []
    for name in "xy":
        layers = {f"l{k}": own + draw.normal(size=(1500, 2)) @ wide + draw.normal(size=(1500, 12)) / 10 for k in (1, 2)}
        stores.append(write(tmp_path / f"{name}.h5", {key: rows.astype(np.float32) for key, rows in layers.items()}))
    command = ["train", *stores, *asked, "--epochs", 2, "-o"]
    one, many = program(*command, tmp_path / "one.pt"), run(3, *command, tmp_path / "many.pt")
    assert (one.code, [done.code for done in many]) == (0, [0, 0, 0]), (one, many)
    expected, found = (encoder.load(tmp_path / f"{name}.pt") for name in ("one", "many"))
    assert found.config == expected.config
    assert found.provenance["stores"] == expected.provenance["stores"]
    if "pairs" in asked:
        assert "within" in one.stderr
    np.testing.assert_allclose(found.training["loss_curve"], expected.training["loss_curve"], rtol=1e-4)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_with_other_ranks(folder: Path, tmp_path: Path) -> None:
    """A signal to one rank alone stops all of them after the same step."""
    stores = [folder / "x.h5", folder / "y.h5"]
    options = [
        "--task",
        "pairs",
        "--epochs",
        20,
        "--batch-size",
        16,
        "--hidden",
        8,
        "--dim",
        4,
        "--standardize",
        "none",
    ]
    options += ["--recipe", "paper"]
    whole = program("train", *stores, *options, "-o", tmp_path / "whole.pt")
    assert whole.code == 0, whole
    asked = ["train", *stores, *options, "-o", tmp_path / "enc.pt", "--log", tmp_path / "log.jsonl", "--save-every", 1]
    processes = start(2, *asked)
    until = time.monotonic() + 60
    while not (tmp_path / "enc.pt.partial").exists() and time.monotonic() < until:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    done = finish(processes)
    assert [one.code for one in done] == [143, 143], done
    assert "the state is saved, --resume goes on" in done[0].stderr
    assert done[1].stderr == done[1].stdout == ""
    assert not (tmp_path / "enc.pt").exists()
    done = run(3, *asked, "--resume")
    assert [one.code for one in done] == [0] * 3, done
    assert "the run started with 2 processes and continues with 3" in done[0].stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enc.pt", "log.jsonl", "whole.pt"]
    found, expected = (encoder.load(tmp_path / name).training["loss_curve"] for name in ("enc.pt", "whole.pt"))
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_what_goes_wrong_is_one_line_and_leaves_outputs_as_they_were(folder: Path, tmp_path: Path) -> None:
    stores, there = [folder / "x.h5", folder / "y.h5"], tmp_path / "enc.pt"
    there.write_text("kept")
    asked = ["train", *stores, "--task", "pairs", "--epochs", 1, "-o"]
    for arguments, code, words in (
        ([*asked, there], 5, "exists"),
        ([*asked, there, "--force", "--lr", 1e30, "--standardize", "none"], 8, "--lr below 1e+30"),
    ):
        done = run(2, *arguments)
        assert [one.code for one in done] == [code, code], done
        errors = [line for line in done[0].stderr.splitlines() if "error:" in line]
        assert len(errors) == 1, done
        assert words in errors[0]
        assert done[1].stderr == ""
        assert there.read_text() == "kept"


@pytest.mark.slow
def test_encoders_of_measures_are_trained_on_grids_that_ranks_share(folder: Path, tmp_path: Path) -> None:
    stores = [folder / f"{name}.h5" for name in "xyz"]
    options = ["--task", "layers", "--inputs", "measures", "--measures", "cka", "--measures", "gulp", "--start", "none"]
    alone = program("train", *stores, *options, "--epochs", 2, "-o", tmp_path / "one.pt")
    done = run(2, "train", *stores, *options, "--epochs", 2, "-o", tmp_path / "two.pt")
    assert (alone.code, [one.code for one in done]) == (0, [0, 0]), (alone, done)
    found, expected = (encoder.load(tmp_path / name).training["loss_curve"] for name in ("two.pt", "one.pt"))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
