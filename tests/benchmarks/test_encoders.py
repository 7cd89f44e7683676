"""The encoders that a benchmark trains: their names, their cache, what is reused and what is not."""

import contextlib
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import made
import numpy as np
import pytest
import torch

from contrasim_cli import encoder
from contrasim_cli.benchmarks import by_stem, data_sets, encoders, expanded
from contrasim_cli.benchmarks.encoders import Training, TrainingSet, obtain, plan, wanted
from contrasim_cli.errors import InputError, Terminated, UsageError
from contrasim_cli.locks import only_writer
from contrasim_cli.store import open_store
from contrasim_cli.store.align import View
from contrasim_cli.training import Data, partial_path
from contrasim_cli.training.loop import Run

ONCE = {"epochs": 2, "hidden": (8,), "output": 4, "batch_size": 16}


def models(folder: Path, count: int = 3, seed: int = 0, **options: Any) -> Data:
    stores = made.related(count, 2, 40, (7,), seed=seed, **options)
    paths = [made.store(folder / f"m{k}.h5", layers) for k, layers in enumerate(stores)]
    views = [View(open_store(path)) for path in paths]
    return Data(views, [list(view.store.layers) for view in views])


def training(folder: Path, **changes: Any) -> Training:
    options = {"task": "layers", "recipe": "paper", "objectives": ["contrasim"], "seeds": [0], "given": ONCE}
    return Training(**options | {"folder": folder / "enc", "device": torch.device("cpu"), "budget": 1 << 30} | changes)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return models(tmp_path)


def name(data: Data, folder: Path, **changes: Any) -> str:
    return wanted([TrainingSet("set", data)], training(folder, **changes))[0].path.name


def test_the_name_says_what_it_is_and_changes_with_all_that_it_depends_on(data: Data, tmp_path: Path) -> None:
    usual = name(data, tmp_path)
    assert usual.startswith("contrasim-layers-seed0-")
    assert usual == name(data, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "moved").mkdir()
    assert usual == name(models(tmp_path / "moved"), tmp_path)  # wherever the files are
    other = [
        name(models(tmp_path / "other", seed=1), tmp_path),  # values
        name(Data(data.views, [names[::-1] for names in data.layers]), tmp_path),
        name(Data(data.views[:2], data.layers[:2]), tmp_path),
        name(Data(data.views[::-1], data.layers), tmp_path),
        name(Data([View(v.store, np.arange(30)) for v in data.views], data.layers), tmp_path),
        *(
            name(data, tmp_path, **change)
            for change in (
                {"seeds": [1]},
                {"recipe": "default"},
                {"objectives": ["contrasim_norm"]},
                {"objectives": ["deepcka"]},
                {"given": ONCE | {"lr": 1e-2}},
                {"given": ONCE | {"epochs": 3}},
                {"given": ONCE | {"batch_size": 17}},
                {"device": torch.device("meta")},
            )
        ),
    ]
    assert len({usual, *other}) == 1 + len(other)


def test_the_name_changes_with_the_versions(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = name(data, tmp_path)
    for where, what, value in (
        (encoders, "__version__", "9"),
        (torch, "__version__", "9"),
        (np, "__version__", "9"),
        (encoder, "FORMAT_VERSION", 9),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, value)
            assert name(data, tmp_path) != usual


@pytest.mark.slow
def test_what_is_there_is_not_trained_again(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = training(tmp_path, objectives=["contrasim", "contrasim_norm", "deepcka"], seeds=[3, 4])
    needed = wanted([TrainingSet("set", data)], asked)
    assert [(one.objective, one.config.seed) for one in needed] == [
        ("contrasim", 3), ("contrasim", 4), ("contrasim_norm", 3), ("contrasim_norm", 4), ("deepcka", 3), ("deepcka", 4)
    ]  # fmt: skip
    scorers = obtain(needed, asked)
    assert [scorer.checkpoint.config.scored_by for scorer in scorers if scorer.checkpoint] == [
        "dot", "dot", "norm", "norm", "cka", "cka"
    ]  # fmt: skip
    stored = needed[0].path.read_bytes()
    found = encoder.load(needed[0].path).provenance["stores"]
    assert [store["content"] for store in found] == [
        encoders.content_digest(view, names) for view, names in zip(data.views, data.layers, strict=True)
    ]
    monkeypatch.setattr(Run, "train", lambda run: pytest.fail("was trained again"))
    again = obtain(needed, asked)
    assert needed[0].path.read_bytes() == stored
    assert len(again) == 6


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = training(tmp_path)
    needed = wanted([TrainingSet("set", data)], asked)
    real, steps = Run._step, []

    def stopped(run: Run, *arguments: Any) -> float:
        steps.append(1)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stopped)
        with pytest.raises(Terminated, match="stopped while training contrasim on set, seed 0; what is done is kept"):
            obtain(needed, asked)
    assert partial_path(needed[0].path).exists()
    row = plan(needed, asked)[0]
    assert (row.state, row.steps) == ("unfinished", 6)
    counted = []
    monkeypatch.setattr(Run, "_step", lambda run, *arguments: counted.append(1) or real(run, *arguments))
    obtain(needed, asked)
    assert len(counted) == 2  # of 6
    monkeypatch.undo()
    whole = dataclasses.replace(needed[0], path=needed[0].path.with_name("whole.pt"))
    obtain([whole], asked)
    weights = [encoder.load(path).encoder.state_dict() for path in (needed[0].path, whole.path)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not partial_path(needed[0].path).exists()


def test_the_plan_times_a_step_and_trains_nothing(data: Data, tmp_path: Path) -> None:
    asked = training(tmp_path, objectives=["contrasim", "deepdot"], seeds=[0, 1])
    needed = wanted([TrainingSet("set", data)], asked)
    rows = plan(needed, asked)
    assert [(row.state, row.trained_on, row.rows, row.steps) for row in rows] == [("missing", "set", 40, 6)] * 4
    assert all(row.seconds > 0 for row in rows)
    assert rows[0].seconds == rows[1].seconds  # seeds take as long
    assert not asked.folder.exists()
    obtain(needed[:1], asked)
    assert [row.state for row in plan(needed, asked)] == ["trained", "missing", "missing", "missing"]
    assert plan(needed, asked)[0].seconds == 0


def test_a_file_that_is_not_what_its_name_says_is_refused(data: Data, tmp_path: Path) -> None:
    asked = training(tmp_path, seeds=[0, 1])
    needed = wanted([TrainingSet("set", data)], asked)
    obtain(needed, asked)
    needed[0].path.write_bytes(needed[1].path.read_bytes())
    with pytest.raises(InputError, match="is not the encoder that its name says; remove it"):
        obtain(needed, asked)
    needed[0].path.write_bytes(b"PK broken")
    with pytest.raises(InputError, match="is damaged"):
        obtain(needed, asked)


def test_one_that_another_run_finished_meanwhile_is_taken(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = training(tmp_path)
    needed = wanted([TrainingSet("set", data)], asked)
    real = Run.train

    def overtaken(run: Run) -> Any:
        if not needed[0].path.exists():
            made.encoder_file(needed[0].path, widths=(7,), task="layers", objective="contrasim")
        return real(run)

    monkeypatch.setattr(Run, "train", overtaken)
    assert obtain(needed, asked)[0].checkpoint is not None


def test_what_another_run_trains_is_put_off_and_what_it_leaves_is_trained(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = training(tmp_path, seeds=[0, 1, 2])
    needed = wanted([TrainingSet("set", data)], asked)
    asked.folder.mkdir()
    others = contextlib.ExitStack()
    for one in needed[:2]:
        others.enter_context(only_writer(one.path))
    trained, looks, real = [], [], encoders.train_encoder
    monkeypatch.setattr(
        encoders, "train_encoder", lambda job, *more: trained.append(job.config.seed) or real(job, *more)
    )

    def look(seconds: float) -> None:
        """The other run finishes its first encoder, and is killed while it trains the second."""
        looks.append(list(trained))
        if len(looks) == 2:
            made.encoder_file(needed[0].path, widths=(7,), task="layers", objective="contrasim")
            others.close()

    monkeypatch.setattr(encoders.time, "sleep", look)
    with caplog.at_level("INFO", "contrasim_cli"):
        scorers = obtain(needed, asked)
    assert looks == [[2], [2]]  # the one that nobody else was at came first
    assert trained == [2, 1]
    assert [scorer.checkpoint is not None for scorer in scorers] == [True] * 3
    assert caplog.messages.count(f"waiting for 2 encoders that other runs are training in {asked.folder}") == 1
    assert sorted(path.name for path in asked.folder.iterdir()) == sorted(one.path.name for one in needed)


def test_runs_that_share_a_folder_train_each_encoder_once(data: Data, tmp_path: Path) -> None:
    """In processes of their own; a fork each, as threads share the main thread's signals."""
    asked = training(tmp_path, seeds=[0, 1, 2, 3])
    needed = wanted([TrainingSet("set", data)], asked)
    torch.set_num_threads(1)
    log, children = tmp_path / "log", []
    for _ in range(3):
        if not (child := os.fork()):
            code = 1
            with contextlib.suppress(BaseException), mock.patch.object(encoders, "PAUSE", 0.05):
                real = encoders.train_encoder

                def counted(job: Any, *more: Any, real: Any = real) -> Any:
                    with log.open("a") as stream:
                        stream.write(f"{job.config.seed}\n")
                    return real(job, *more)

                with mock.patch.object(encoders, "train_encoder", counted):
                    code = int(len(obtain(needed, asked)) != 4)
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3"]


# --- which stores make a data set -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["ptb/train/a.h5", "ptb/train/b.h5", "wiki/train/a.h5", "wiki/train/b.h5"], ["ptb", "wiki"]),
        (["train/wiki/a.h5", "train/ptb/a.h5", "train/wiki/b.h5", "train/ptb/b.h5"], ["wiki", "ptb"]),
        (["x/layers/test/a.h5", "x/layers/test/b.h5"], ["layers"]),
        (["one/v1/test/a.h5", "one/v1/test/b.h5", "two/v1/test/a.h5", "two/v1/test/b.h5"], ["one", "two"]),
        (["d/a/b/x.h5", "d/a/b/y.h5", "d/a/x.h5", "d/a/y.h5"], ["b", "a"]),
        (["runs/m0/acts.h5", "runs/m1/acts.h5"], ["runs"]),  # a folder per model
        (["runs/a/m0.h5", "runs/a/m1.h5", "runs/b/m2.h5", "runs/b/m3.h5"], ["runs"]),  # other models
        (["/a.h5"], ["data"]),
        ([], []),
    ],
)
def test_the_stores_of_a_folder_are_a_data_set(paths: list[str], names: list[str]) -> None:
    found = data_sets([Path(path) for path in paths])
    assert list(found) == names
    assert sorted(str(path) for group in found.values() for path in group) == sorted(paths)


def test_patterns_are_expanded_in_order(tmp_path: Path) -> None:
    for stem in ("b", "a", "c"):
        (tmp_path / f"{stem}.h5").touch()
    assert [path.stem for path in expanded([tmp_path / "*.h5", tmp_path / "b.h5"])] == ["a", "b", "c", "b"]
    (tmp_path / "odd[1].h5").touch()
    assert expanded([tmp_path / "odd[1].h5"]) == [tmp_path / "odd[1].h5"]
    with pytest.raises(UsageError, match="matches no file"):
        expanded([tmp_path / "*.npz"])
    with pytest.raises(UsageError, match="have the same"):
        by_stem([Path("x/a.h5"), Path("y/a.h5")], "training stores")
