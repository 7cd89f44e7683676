"""Encoders of anchored rows on the command line: trained, listed, scored and benched, for models of any width."""

import dataclasses
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import weights_digest
from contrasim_cli.training.loop import Run

SMALL = ["--anchors", "24", "--hidden", "32", "--dim", "8", "--batch-size", "32", "--epochs", "4", "-q"]
TRAIN = ["--inputs", "anchors", *SMALL]
ROWS, LAYERS = 160, 3


def models(folder: Path, count: int, widths: Sequence[int], rows: slice = slice(None), seed: int = 0) -> list[Path]:
    """Stores of models that share what their layers say, in bases of their own."""
    folder.mkdir(exist_ok=True)
    layers = made.related(count, LAYERS, ROWS, widths, noise=0.2, seed=seed)
    ids = [f"r{row}" for row in range(ROWS)][rows]
    return [
        made.store(folder / f"m{k}.h5", {name: matrix[rows] for name, matrix in one.items()}, ids)
        for k, one in enumerate(layers)
    ]


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    return models(tmp_path / "all", 6, (14, 14, 14, 14, 9, 20))


def results(text: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = json.loads(text)["results"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_an_encoder_of_some_models_serves_others_of_other_widths(task: str, stores: list[Path], tmp_path: Path) -> None:
    encoder = tmp_path / "e.pt"
    done = run("train", *stores[:4], "--task", task, *TRAIN, "-o", encoder)
    assert (done.code, done.stderr) == (0, "")
    config = encoders.load(encoder).config
    assert (len(config.anchors), config.members, config.copies) == ((72, 3, 1) if task == "layers" else (24, 1, 0))
    done = run("score", *stores[4:], "--encoder", encoder, "--format", "json")
    assert done.code == 0
    grid = np.array([row["score"] for row in results(done.stdout)]).reshape(LAYERS, LAYERS)
    assert np.isfinite(grid).all()
    assert np.abs(grid - grid[0, 0]).max() > 0.01
    done = run("bench", "layers", *stores[4:], "--pairs", "all", "--encoder", encoder, "--format", "json")
    assert done.code == 0
    done = run("bench", "multilingual", *stores[2:], "--encoder", encoder, "--negatives", "faiss", "--format", "json")
    assert done.code == 0
    pairs = {row["pair"] for row in results(done.stdout) if row["pair"] != "all"}
    assert ("m2-m3" in pairs) == (task == "layers")  # both of which the encoder of pairs was trained on
    assert {"m2-m4", "m4-m5"} <= pairs


def test_scores_do_not_depend_on_the_basis(stores: list[Path], tmp_path: Path) -> None:
    """And those of raw rows do: the negative control."""
    turned = tmp_path / "turned.h5"
    layers = made.related(6, LAYERS, ROWS, (14, 14, 14, 14, 9, 20), noise=0.2)[3]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(14, 14)))[0]
    made.store(turned, {name: (5 * matrix @ turn).astype(np.float32) for name, matrix in layers.items()})
    for inputs, atol in (("anchors", 1e-3), ("raw", 1e-3)):
        encoder = tmp_path / f"{inputs}.pt"
        options = TRAIN if inputs == "anchors" else SMALL[2:]
        assert run("train", *stores[:2], "--task", "layers", *options, "-o", encoder).code == 0
        found = []
        for second in (stores[3], turned):
            done = run("score", stores[2], second, "--encoder", encoder, "--format", "json")
            found.append([row["score"] for row in results(done.stdout)])
        assert np.allclose(*found, atol=atol) == (inputs == "anchors")


def test_anchors_are_listed_and_come_from_other_stores(tmp_path: Path) -> None:
    """What another group does: it extracts the anchors of its own models, and scores other rows of them."""
    everything = models(tmp_path / "all", 4, (14,))
    test = models(tmp_path / "test", 4, (14,), slice(100, None))
    train = models(tmp_path / "train", 4, (14,), slice(0, 100))
    encoder = tmp_path / "e.pt"
    assert run("train", *train[:2], "--task", "layers", *TRAIN, "-o", encoder).code == 0
    done = run("inspect", encoder, "--anchor-ids")
    ids = done.stdout.splitlines()
    assert (done.code, len(ids), len(set(ids))) == (0, 72, 72)
    assert set(ids) <= {f"r{row}" for row in range(100)}
    anchors = []
    (tmp_path / "anchors").mkdir()
    for k, layers in enumerate(made.related(4, LAYERS, ROWS, (14,), noise=0.2)):
        where = [int(name[1:]) for name in ids]
        anchors.append(
            made.store(tmp_path / "anchors" / f"m{k}.h5", {name: x[where] for name, x in layers.items()}, ids)
        )
    given = ["--anchor-store", anchors[2], "--anchor-store", anchors[3]]
    apart = run("score", *test[2:], "--encoder", encoder, *given, "--format", "json")
    (tmp_path / "limited").mkdir()
    whole = run("score", *everything[2:], "--encoder", encoder, "--format", "json")
    assert (apart.code, whole.code) == (0, 0)
    # the same anchors, and the rows of either say the same of the layers but for which rows they are
    a, b = ([row["score"] for row in results(done.stdout)] for done in (apart, whole))
    assert np.corrcoef(a, b)[0, 1] > 0.9
    missing = run("score", *test[2:], "--encoder", encoder)
    assert missing.code == 4
    assert missing.stderr.count("72 of the encoder's 72 anchor rows are missing") == 2
    assert "and 62 more; extract the anchors" in missing.stderr
    assert run("score", *test[2:], "--encoder", encoder, *given[:2]).stderr == (
        "contrasim: error: --anchor-store takes one store for each of the 2 stores, in their order; 1 given\n"
    )
    widths = models(tmp_path / "widths", 4, (9,))
    done = run("score", *test[2:], "--encoder", encoder, "--anchor-store", anchors[2], "--anchor-store", widths[3])
    assert (done.code, "layer layer_0 has width 9, that of" in done.stderr) == (4, True)


def test_training_repeats_and_resumes_bit_for_bit(stores: list[Path], tmp_path: Path) -> None:
    for name, memory in (("a", "1G"), ("b", "1G"), ("streamed", "1M")):
        options = ["--task", "layers", *TRAIN, "--copies", "1", "--memory", memory, "-o", tmp_path / f"{name}.pt"]
        assert run("train", *stores[:3], *options).code == 0
    found = [encoders.load(tmp_path / f"{name}.pt") for name in ("a", "b", "streamed")]
    assert len({weights_digest(one.encoder.state_dict()) for one in found}) == 1
    assert [store["name"] for store in found[0].provenance["stores"]] == ["m0", "m1", "m2"]
    done = run("train", *stores[:3], "--task", "layers", *TRAIN, "--copies", "1", "-o", tmp_path / "a.pt", "--resume")
    assert done.code == 0
    done = run("train", *stores[:3], "--task", "layers", *TRAIN, "--copies", "2", "-o", tmp_path / "a.pt", "--resume")
    assert (done.code, "already exists, trained with other options or stores" in done.stderr) == (5, True)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    task: str, stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = Run._step, []

    def stopped(run: Run, *arguments: Any) -> float:
        steps.append(1)
        if len(steps) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run, *arguments)

    line = ["train", *stores[:3], "--task", task, *TRAIN, "--copies", "2", "-o"]
    assert run(*line, tmp_path / "whole.pt").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stopped)
        done = run(*line, tmp_path / "e.pt")
    assert (done.code, "--resume goes on" in done.stderr) == (143, True)
    assert not (tmp_path / "e.pt").exists()
    assert run(*line, tmp_path / "e.pt", "--resume").code == 0
    whole, found = (encoders.load(tmp_path / name) for name in ("whole.pt", "e.pt"))
    assert weights_digest(found.encoder.state_dict()) == weights_digest(whole.encoder.state_dict())
    assert (found.config, found.provenance) == (whole.config, whole.provenance)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--anchors", "24"], 2, "--anchors goes with --inputs anchors"),
        (["--copies", "0"], 2, "--copies goes with --inputs anchors"),
        (["--inputs", "anchors", "--standardize", "center"], 2, "--standardize goes with --inputs raw"),
        (["--inputs", "anchors", "--encoder-per-view"], 2, "--encoder-per-view goes with --inputs raw"),
        (
            ["--inputs", "anchors", "--anchors", "159"],
            2,
            "--anchors 159: {store} has 160 rows, of which at least 2 are",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    options: list[str], code: int, message: str, stores: list[Path], tmp_path: Path
) -> None:
    done = run("train", *stores[:2], "--task", "pairs", *options, "-o", tmp_path / "e.pt", "-q")
    assert done.code == code
    assert done.stderr.startswith(f"contrasim: error: {message.format(store=stores[0])}")


def test_what_goes_with_other_encoders_is_refused(stores: list[Path], tmp_path: Path) -> None:
    raw, anchored = tmp_path / "raw.pt", tmp_path / "anchored.pt"
    done = run("train", *stores[:2], "--task", "layers", *SMALL[2:-1], "-o", raw)
    assert "the encoder will be valid only for them; for other models give --inputs measures or anchors" in done.stderr
    done = run("train", *stores[:2], "--task", "layers", *TRAIN[:-1], "-o", anchored)
    assert "valid only for them" not in done.stderr
    for arguments, message in (
        (["score", *stores[:2], "--encoder", raw, "--anchor-store", stores[0]], "--anchor-store goes with an encoder"),
        (
            ["score", *stores[:2], "--encoder", anchored, "--standardize", "center"],
            f"{anchored}: is an encoder of anch",
        ),
        (["inspect", raw, "--anchor-ids"], f"{raw}: has no anchors"),
        (["inspect", anchored, "--anchor-ids", "--format", "json"], "--anchor-ids prints the ids of one encoder's"),
        (["bench", "sanity", stores[0], "--encoder", anchored], "anchored.pt: describes rows by anchors"),
    ):
        done = run(*arguments, "-q")
        assert (done.code, done.stderr.startswith(f"contrasim: error: {message}")) == (2, True), done.stderr


def test_inspect_says_what_rows_are_described_by(stores: list[Path], tmp_path: Path) -> None:
    assert run("train", *stores[:2], "--task", "layers", *TRAIN, "-o", tmp_path / "e.pt").code == 0
    facts = {row["name"]: row["value"] for row in results(run("inspect", tmp_path / "e.pt", "--format", "json").stdout)}
    assert facts["inputs"] == "anchors"
    assert facts["anchors"] == "72 rows, 24 for each of 3 members; --anchor-ids lists them"


# --- members ------------------------------------------------------------------------------------------------------------

FEW = ["--inputs", "anchors", *SMALL, "--anchors", "12", "--copies", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pairs", "layers"])
def test_members_learn_as_they_would_alone(stores: list[Path], tmp_path: Path, task: str) -> None:
    for count in (1, 2, 3):
        done = run("train", *stores[:3], "--task", task, *FEW, "--members", count, "-o", tmp_path / f"{count}.pt")
        assert done.code == 0, done.stderr
    found = {count: encoders.load(tmp_path / f"{count}.pt") for count in (1, 2, 3)}
    assert found[3].config.anchors[:24] == found[2].config.anchors
    assert found[2].config.anchors[:12] == found[1].config.anchors
    assert len(set(found[3].config.anchors)) == 36
    alone, two, three = (found[count].encoder.state_dict() for count in (1, 2, 3))
    for name, tensor in alone.items():
        torch.testing.assert_close(two[f"members.0.{name}"], tensor, rtol=1e-3, atol=1e-5)
        for k in (0, 1):
            torch.testing.assert_close(three[f"members.{k}.{name}"], two[f"members.{k}.{name}"], rtol=1e-3, atol=1e-5)
        assert not torch.equal(two[f"members.0.{name}"], two[f"members.1.{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--validation", "0.2", "--patience", "3"], ["--precision", "bfloat16"]])
def test_a_score_is_the_mean_of_the_members(stores: list[Path], tmp_path: Path, options: list[str]) -> None:
    whole = tmp_path / "all.pt"
    done = run("train", *stores[:3], "--task", "layers", *FEW, "--members", "3", *options, "-o", whole)
    assert done.code == 0, done.stderr
    one, paths = encoders.load(whole), []
    for k, member in enumerate(one.encoder.members):
        member.config = dataclasses.replace(member.config, anchors=one.config.anchors[12 * k : 12 * (k + 1)])
        paths.append(tmp_path / f"{k}.pt")
        encoders.save(paths[-1], encoders.Checkpoint(member, one.training, one.provenance), force=True)
    given = [word for path in [whole, *paths] for word in ("--encoder", path)]
    done = run("score", *stores[3:], *given, "--format", "json")
    assert done.code == 0, done.stderr
    found: dict[str, list[float]] = {}
    for row in results(done.stdout):
        found.setdefault(row["measure"], []).append(row["score"])
    together = np.array(found.pop("all.pt"))
    np.testing.assert_allclose(together, np.mean(list(found.values()), axis=0), rtol=0, atol=1e-6)
    assert np.ptp(list(found.values()), axis=0).max() > 1e-3


def test_members_go_with_anchors_that_there_are(stores: list[Path], tmp_path: Path) -> None:
    train = ["train", *stores[:3], "--task", "layers", "-o", tmp_path / "e.pt"]
    done = run(*train, "--members", "2")
    assert (done.code, done.stderr) == (2, "contrasim: error: --members goes with --inputs anchors\n")
    done = run(*train, "--inputs", "anchors", "--anchors", "53", "--members", "3")
    assert (done.code, done.stderr) == (
        2,
        f"contrasim: error: --anchors 53 for each of 3 members: {stores[0]} has 160 rows, of which at least 2 are trained on "
        "and no anchors; give fewer anchors or more rows\n",
    )
