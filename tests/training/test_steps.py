"""How far layers go towards the trained map: against plain formulas, and what cross-validation must not see."""

from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import Config
from contrasim_cli.errors import Terminated
from contrasim_cli.training import Choice, Data, Run, choose, job, steps
from contrasim_cli.training.state import State
from contrasim_cli.training.steps import with_steps
from contrasim_cli.transforms import Standardizer

CPU = torch.device("cpu")
PLENTY = 1 << 40
TRAIN = ["--task", "pairs", "--epochs", "3", "--batch-size", "32"]


def config(p: int, **options: Any) -> Config:
    given = {"task": "pairs", "objective": "supcon", "widths": (p,), "path": "linear", "output": p, "epochs": 10}
    return Config(**given | {"batch_size": 32, "temperature": 0.2, "standardize": "auto"} | options)


def helped(rows: int = 160, p: int = 8) -> list[dict[str, Any]]:
    """Views whose widest columns, alike in variance to the others, say nothing: a map that drops them helps."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(rows, p))
    return [{"l": np.concatenate([own + 0.7 * rng.normal(size=(rows, p)), 1.2 * rng.normal(size=(rows, p))], 1)}
            for _ in range(2)]  # fmt: skip


def alike(rows: int = 80, p: int = 40) -> list[dict[str, Any]]:
    """Views that differ by noise alike in all directions: as they are, they cannot be compared better."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(rows, p))
    return [{"l": own + 0.5 * rng.normal(size=(rows, p))} for _ in range(2)]


def tried(folder: Path, layers: list[dict[str, Any]], **options: Any) -> Choice:
    data = Data([made.view(folder / f"{k}.h5", one) for k, one in enumerate(layers)], [list(one) for one in layers])
    asked, standardizer = config(data.widths[-1], **options), Standardizer(data.views)
    choice = choose(data, standardizer, asked, PLENTY)
    return with_steps(choice, data, standardizer, asked, CPU, PLENTY)


def test_a_layer_goes_towards_the_map_where_that_helps_and_stays_where_it_does_not(tmp_path: Path) -> None:
    (far,) = tried(tmp_path, helped(), lr=1e-2).layers
    assert far.step > 0
    assert far.steps[f"{far.step:g}"] > far.steps["0"]
    (stays,) = tried(tmp_path, alike(), lr=1e-2).layers
    assert stays.step == 0.0
    assert list(stays.steps) == ["0", "0.1", "0.25", "0.5", "1"]


def test_maps_never_see_the_rows_that_judge_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    judged: list[set[int]] = []
    train, layer = Run.train, steps._layer

    def noted(self: Run) -> Any:
        seen.append(set(self.source.data.views[0].rows.tolist()))
        return train(self)

    def judging(data: Data, encoder: Any, k: int, which: Any, device: Any, softly: bool) -> Any:
        judged.append(set(data.views[0].rows[which].tolist()))
        return layer(data, encoder, k, which, device, softly)

    monkeypatch.setattr(Run, "train", noted)
    monkeypatch.setattr(steps, "_layer", judging)
    tried(tmp_path, alike())
    assert len(seen) == len(judged) == steps.FOLDS
    for trained, held in zip(seen, judged, strict=True):
        assert held
        assert not trained & held
        assert trained | held == set(range(80))
    assert set().union(*judged) == set(range(80))
    monkeypatch.setattr(steps, "JUDGED_ROWS", 30)  # more rows are not worth the time
    seen.clear()
    tried(tmp_path, alike())
    assert len(seen) == 2


def test_what_is_learnt_by_heart_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (held_out,) = tried(tmp_path, alike(), lr=1e-2).layers
    assert held_out.steps["1"] < held_out.steps["0"]
    with monkeypatch.context() as patch:  # no row is left out
        patch.setattr(np, "setdiff1d", lambda rows, _: rows)
        (by_heart,) = tried(tmp_path, alike(), lr=1e-2).layers
    assert by_heart.steps["1"] > by_heart.steps["0"]
    assert by_heart.step > held_out.step == 0


def test_encoded_rows_lie_part_of_the_way_to_the_map(tmp_path: Path) -> None:
    by_layer = (("l", "center", 0.01, 0.25), ("m", "none", 0.01, 0.0), ("n", "whiten", 0.1, 1.0))
    checkpoint = made.checkpoint(widths=(4,), path="linear", output=6, standardize="center", by_layer=by_layer)
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    with torch.no_grad():
        weight = checkpoint.encoder.linear["view0_width4"].normal_().numpy()
    identity = np.eye(6, 4)
    for layer, step in (("l", 0.25), ("m", 0.0), ("n", 1.0), ("another", 0.0)):
        expected = rows @ (identity + step * (weight - identity)).T
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(checkpoint.encode(rows, 0, layer, CPU).numpy(), expected, atol=1e-6)
    encoders.save(tmp_path / "e.pt", checkpoint, force=False)
    found = encoders.load(tmp_path / "e.pt")
    assert found.config == checkpoint.config
    ways = {name: found.standardization.of(name).text for name in ("l", "m", "n", "another")}
    assert ways == {"l": "center", "m": "none", "n": "whiten, shrinkage 0.1", "another": "center"}


def test_a_narrower_output_or_a_network_has_no_steps(tmp_path: Path) -> None:
    for options in ({"output": 3}, {"path": "mlp", "hidden": (8,)}):
        (layer,) = tried(tmp_path, alike(rows=40, p=8), **options).layers
        assert (layer.step, layer.steps) == (1.0, {})


def test_a_layer_that_was_not_trained_on_is_centred_and_told_of(tmp_path: Path) -> None:
    layers = [{"l": one["l"], "m": 3 + one["l"] ** 2} for one in alike(p=8)]
    stores = [made.store(tmp_path / f"{name}.h5", one) for name, one in zip("ab", layers, strict=True)]
    encoder = tmp_path / "e.pt"
    assert run("train", *stores, *TRAIN, "--layers", "l", "-o", encoder, "-q").code == 0
    done = run("score", *stores, "--encoder", encoder, "--layers", "m", "--format", "value")
    assert [line for line in done.stderr.splitlines() if "warning" in line] == [
        f"contrasim: warning: e.pt: was not trained on m of {stores[0]} and {stores[1]}; rows of such layers are centred and "
        "compared untrained; choose others with --layers, or train on them too"
    ]
    every = run("score", *stores, "--encoder", encoder, "--format", "tsv")
    (warning,) = [line for line in every.stderr.splitlines() if "warning" in line]
    assert warning.endswith("; leave them out with --layers l, or train on them too")
    first, second = (one["m"] - one["m"].mean(0) for one in layers)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert float(done.stdout) == pytest.approx(float(np.mean((first * second).sum(1) / norms)), rel=1e-5)
    assert "warning" not in run("score", *stores, "--encoder", encoder, "--layers", "l").stderr


def test_a_signal_while_steps_are_tried_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: Run) -> None:
        raise Terminated("stopped")

    monkeypatch.setattr(Run, "train", stopped)
    stores = [made.store(tmp_path / f"{k}.h5", one) for k, one in enumerate(alike(rows=40, p=8))]
    done = run("train", *stores, *TRAIN, "-o", tmp_path / "e.pt", "-q")
    assert done.code == 143
    assert "stopped while trying steps; nothing of this is kept, --resume starts over" in done.stderr
    assert not list(tmp_path.glob("e.pt*"))


def test_what_was_chosen_is_saved_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", one) for k, one in enumerate(alike(rows=40, p=8))]
    train = ["train", *stores, *TRAIN, "-q"]
    assert run(*train, "-o", tmp_path / "whole.pt").code == 0

    whole, output = Run.train, tmp_path / "e.pt"

    def stopped(one: Run) -> State:
        if output.with_name("e.pt.partial").exists():
            raise KeyboardInterrupt
        return whole(one)  # of a fold

    def again(*_: Any) -> None:
        raise AssertionError("chosen again")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "train", stopped)
        assert run(*train, "-o", output).code == 130
    assert encoders.load(output.with_name("e.pt.partial")).training["step"] == 0
    monkeypatch.setattr(job, "choose", again)
    assert run(*train, "-o", output, "--resume").code == 0
    first, second = (encoders.load(path) for path in (tmp_path / "whole.pt", output))
    for name, weights in first.encoder.state_dict().items():
        assert torch.equal(weights, second.encoder.state_dict()[name])
    assert first.provenance["choice"] == second.provenance["choice"]
