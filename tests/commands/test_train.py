"""`contrasim train` through the real entry point: outputs that are whole or absent, and runs that go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli import training
from contrasim_cli.errors import TrainingError
from contrasim_cli.locks import only_writer
from contrasim_cli.recipes import PAPER, RECIPES

SMALL = ["--recipe", "paper", "--task", "pairs", "--hidden", "16", "--dim", "8", "--batch-size", "16"]


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    layers = made.related(2, 3, 50, (10,))
    return [made.store(tmp_path / f"{name}.h5", x) for name, x in zip(("en", "ar"), layers, strict=True)]


def digest(path: Path) -> str:
    return encoders.weights_digest(encoders.load(path).encoder.state_dict())


def stopped(monkeypatch: pytest.MonkeyPatch, at: int, number: int = signal.SIGTERM) -> None:
    """From now on the process gets a signal at every `at`-th loss."""
    count = 0
    check = training.Run._check_loss

    def checked(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), number)
        check(*args)

    monkeypatch.setattr(training.Run, "_check_loss", checked)


def test_an_encoder_comes_out_and_nothing_else(stores: list[Path], tmp_path: Path) -> None:
    done = run("train", *stores, *SMALL, "--epochs", "2", "-o", tmp_path / "e.pt")
    assert (done.code, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert lines[-1].startswith(f"contrasim: note: wrote {tmp_path}/e.pt: contrasim, 2 epochs, last loss ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ar.h5", "e.pt", "en.h5"]


@pytest.mark.parametrize(("task", "epochs"), [("layers", 50), ("pairs", 30)])
def test_the_papers_recipe_is_the_papers(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, epochs: int
) -> None:
    asked: list[encoders.Config] = []

    def train(self: training.Run) -> None:
        asked.append(self.config)
        raise TrainingError("enough")

    monkeypatch.setattr(training.Run, "train", train)
    assert run("train", *stores, "--task", task, "--recipe", "paper", "-o", tmp_path / "e.pt").code == 8
    paper = {"objective": "contrasim", "similarity": "dot", "hidden": (512, 256), "output": 128, "temperature": 0.07}
    paper |= {"lr": 1e-3, "weight_decay": 0.0, "batch_size": 1024, "anchor_side": "both", "seed": 0}
    paper |= {"recipe": "paper", "standardize": "none", "optimizer": "adam", "schedule": "constant", "path": "mlp"}
    assert asked == [encoders.Config(task=task, epochs=epochs, widths=(10,), **paper)]


def test_the_same_seed_gives_the_same_bits(stores: list[Path], tmp_path: Path) -> None:
    for name, options in {"a": [], "b": [], "c": ["--seed", "1"], "d": ["--memory", "1K"]}.items():
        assert run("train", *stores, *SMALL, "--epochs", "2", "-o", tmp_path / f"{name}.pt", *options).code == 0
    assert digest(tmp_path / "a.pt") == digest(tmp_path / "b.pt") == digest(tmp_path / "d.pt")
    assert digest(tmp_path / "a.pt") != digest(tmp_path / "c.pt")


def test_every_option_reaches_the_encoder(stores: list[Path], tmp_path: Path) -> None:
    options = ["--objective", "supcon", "--similarity", "norm", "--lr", "0.01", "--weight-decay", "0.1", "--seed", "7"]
    options += ["--temperature", "0.2", "--anchor-side", "first", "--encoder-per-view", "--hidden", "12"]
    options += ["--layers-a", "0", "--layers-a", "2", "--layers-b", "1-2", "--epochs", "1"]
    assert run("train", *stores, *SMALL, *options, "-o", tmp_path / "e.pt").code == 0
    checkpoint = encoders.load(tmp_path / "e.pt")
    assert checkpoint.config == encoders.Config(
        task="pairs",
        objective="supcon",
        widths=(10,),
        views=("en", "ar"),
        view_widths=((10,), (10,)),
        similarity="norm",
        hidden=(16, 12),
        output=8,
        temperature=0.2,
        lr=0.01,
        weight_decay=0.1,
        batch_size=16,
        epochs=1,
        anchor_side="first",
        encoder_per_view=True,
        seed=7,
    )
    assert [store["layers"] for store in checkpoint.provenance["stores"]] == [
        ["layer_0", "layer_2"],
        ["layer_1", "layer_2"],
    ]


def test_embeddings_are_trained_on_only_if_asked_for(tmp_path: Path) -> None:
    layers = [{"hidden_0": x["layer_0"], "hidden_1": x["layer_1"]} for x in made.related(2, 2, 20, (6,))]
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers, strict=True)]
    plain = run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "e.pt")
    chosen = run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "f.pt", "--layers", "*")
    assert ["the embeddings" in result.stderr for result in (plain, chosen)] == [True, False]
    found = [encoders.load(tmp_path / name).provenance["stores"][0]["layers"] for name in ("e.pt", "f.pt")]
    assert found == [["hidden_1"], ["hidden_0", "hidden_1"]]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_existing_output_is_refused_before_any_work(stores: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "e.pt"
    output.write_text("mine")
    done = run("train", "none.h5", *SMALL, "-o", output)
    assert (done.code, done.stderr) == (5, f"contrasim: error: {output}: already exists; give --force to replace it\n")
    assert output.read_text() == "mine"
    assert run("train", *stores, *SMALL, "--epochs", "1", "-o", output, "--force").code == 0
    assert encoders.load(output).training["finished"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--lr", "0"], 2, "--lr 0: must be greater than 0"),
        (["--lr", "nan"], 2, "--lr nan: must be greater than 0"),
        (["--temperature", "-1"], 2, "--temperature -1: must be greater than 0"),
        (["--task", "layers", "--layers-a", "0"], 2, "--encoder-per-view, --layers-a and --layers-b go with --task pairs"),
        (["--layers-a", "0"], 4, "{b}: 3 layers are selected where {a} has 1; "
                                 "select as many on both sides with --layers-a and --layers-b, "
                                 "such as --layers-a 0 --layers-b 2"),
        (["--layers-a", "0", "--layers-a", "2"], 4, "{b}: 3 layers are selected where {a} has 2; "
                                 "select as many on both sides with --layers-a and --layers-b"),
        (["--lr", "1e30"], 8, "the loss is nan in epoch 1, step 2; give --lr below 1e+30 or --temperature above 0.07"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    stores: list[Path], tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    done = run("train", *stores, *SMALL, *options, "-o", tmp_path / "e.pt")
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr == f"contrasim: error: {message.format(a=stores[0], b=stores[1])}\n"
    assert not list(tmp_path.glob("*.pt*"))


def test_stores_of_unequal_depth_are_told_what_is_left_out_and_how_to_select(tmp_path: Path) -> None:
    (rows,) = made.related(1, 5, 20, (6,))
    layers = [{f"hidden_{k}": rows[f"layer_{k}"] for k in range(depth)} for depth in (4, 5)]
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip(("bert", "gpt"), layers, strict=True)]
    small = [*SMALL, "--epochs", "1", "-o", tmp_path / "e.pt"]
    done = run("train", *stores, *small)
    ranges = ["--layers-a", "1-3", "--layers-b", "2-4"]
    assert (done.code, done.stderr) == (
        4,
        f"contrasim: error: {stores[1]}: 4 layers are selected where {stores[0]} has 3 (hidden_0, the embeddings, is left out); "
        f"select as many on both sides with --layers-a and --layers-b, such as {' '.join(ranges)}\n",
    )
    assert run("train", *stores, *small, *ranges).code == 0
    found = [store["layers"] for store in encoders.load(tmp_path / "e.pt").provenance["stores"]]
    assert found == [["hidden_1", "hidden_2", "hidden_3"], ["hidden_2", "hidden_3", "hidden_4"]]


def test_a_collapse_is_an_error_with_negatives_and_a_warning_without(tmp_path: Path) -> None:
    rows = 1 + 1e-6 * np.random.default_rng(0).normal(size=(40, 10))
    stores = [made.store(tmp_path / f"{name}.h5", {"l": rows}) for name in "ab"]
    done = run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "e.pt")
    assert done.code == 8
    assert done.stderr.startswith("contrasim: error: the encoder has collapsed: after epoch 1 all outputs lie within ")
    assert not (tmp_path / "e.pt").exists()
    done = run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "e.pt", "--objective", "deepdot")
    assert done.code == 0
    assert done.stderr.splitlines()[0].startswith("contrasim: warning: the encoder has collapsed: after epoch 1")
    assert (tmp_path / "e.pt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_never_replaced(stores: list[Path], tmp_path: Path) -> None:
    done = run("train", *stores, *SMALL, "-o", tmp_path / "e.pt", "--device", "cuda")
    assert done.code == 6
    assert not (tmp_path / "e.pt").exists()


# --- stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_stopped_run_says_how_to_go_on_and_goes_on_to_the_same_bits(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    whole, output = tmp_path / "whole.pt", tmp_path / "e.pt"
    arguments = ["train", *stores, *SMALL, "--epochs", "3"]
    assert run(*arguments, "-o", whole).code == 0
    with monkeypatch.context() as patch:
        stopped(patch, 17, number)
        done = run(*arguments, "-o", output)
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1] == (
        "contrasim: error: stopped in epoch 2 after 5 steps; the state is saved, --resume goes on"
    )
    assert not output.exists()
    partial = encoders.load(tmp_path / "e.pt.partial")
    assert (partial.training["finished"], partial.training["epochs_done"], partial.training["step"]) == (False, 1, 5)
    done = run(*arguments, "-o", output, "--resume")
    assert done.code == 0
    assert "contrasim: note: continuing in epoch 2 of 3 after 5 steps" in done.stderr
    assert digest(output) == digest(whole)
    assert encoders.load(output).training == encoders.load(whole).training
    assert not (tmp_path / "e.pt.partial").exists()


def test_resume_without_anything_to_resume_starts(stores: list[Path], tmp_path: Path) -> None:
    assert run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "e.pt", "--resume").code == 0
    assert encoders.load(tmp_path / "e.pt").training["finished"]


def test_a_run_killed_after_its_encoder_was_written_still_draws_its_curves(stores: list[Path], tmp_path: Path) -> None:
    arguments = ["train", *stores, *SMALL, "--epochs", "2", "--validation", "0.2", "-o", tmp_path / "e.pt"]
    plot, drawn = ["--plot", tmp_path / "late.svg"], ["--plot", tmp_path / "whole.svg"]
    assert run(*arguments, *drawn).code == 0
    partial = tmp_path / "e.pt.partial"
    partial.write_bytes(b"")
    assert run(*arguments, *plot, "--resume").code == 0
    assert not partial.exists()
    late, whole = ((tmp_path / name).read_text() for name in ("late.svg", "whole.svg"))
    assert late.count("<path") == whole.count("<path")
    assert "accuracy in % on held-out rows" in late


def test_resume_of_a_complete_run_leaves_it(stores: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "e.pt"
    assert run("train", *stores, *SMALL, "--epochs", "1", "-o", output).code == 0
    before = output.read_bytes(), output.stat().st_mtime_ns
    done = run("train", *stores, *SMALL, "--epochs", "1", "-o", output, "--resume")
    assert (done.code, done.stderr) == (0, f"contrasim: note: {output} is complete already\n")
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    other = made.store(tmp_path / "zh.h5", made.related(1, 3, 50, (10,), seed=9)[0])
    for arguments in ([*stores, "--lr", "0.01"], [stores[0], other]):
        done = run("train", *arguments, *SMALL, "--epochs", "1", "-o", output, "--resume")
        assert done.code == 5
        assert done.stderr == (
            f"contrasim: error: {output}: already exists, trained with other options or stores; give --force to replace it\n"
        )


def test_other_options_and_other_data_are_not_resumed(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "e.pt"
    with monkeypatch.context() as patch:
        stopped(patch, 3)
        assert run("train", *stores, *SMALL, "-o", output).code == 143
    done = run("train", *stores, *SMALL, "-o", output, "--resume", "--lr", "0.01")
    assert done.code == 2
    assert done.stderr == (
        f"contrasim: error: {output}.partial: --resume needs the options of the run it resumes; these differ: lr; "
        "leave it out and give --force to start over\n"
    )
    done = run("train", *stores[::-1], *SMALL, "-o", output, "--resume")
    assert done.code == 2
    assert done.stderr == (
        f"contrasim: error: {output}.partial: --resume needs the stores, rows and layers of the run it resumes, these differ; "
        "leave it out and give --force to start over\n"
    )


@pytest.mark.slow
def test_the_state_of_a_stopped_run_is_not_written_over_unasked(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, whole = tmp_path / "e.pt", tmp_path / "whole.pt"
    arguments = ["train", *stores, *SMALL, "--epochs", "2"]
    with monkeypatch.context() as patch:
        stopped(patch, 3)
        assert run(*arguments, "-o", output).code == 143
    state = (tmp_path / "e.pt.partial").read_bytes()
    done = run(*arguments, "-o", output)
    assert (done.code, done.stdout) == (5, "")
    assert done.stderr == (
        f"contrasim: error: {output}.partial: holds the state of a run that was stopped; give --resume to go on with it, or "
        "--force to start over\n"
    )
    assert (tmp_path / "e.pt.partial").read_bytes() == state
    again = run(*arguments, "-o", output, "--force")
    assert again.code == 0
    assert "going on" not in again.stderr
    assert run(*arguments, "-o", whole).code == 0
    assert digest(output) == digest(whole)
    assert not (tmp_path / "e.pt.partial").exists()


def test_two_runs_do_not_write_one_encoder(stores: list[Path], tmp_path: Path) -> None:
    with only_writer(tmp_path / "e.pt"):
        done = run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "e.pt")
    assert (done.code, done.stderr) == (
        7,
        f"contrasim: error: {tmp_path / 'e.pt'}: another process is writing this output; wait until it has finished\n",
    )
    assert run("train", *stores, *SMALL, "--epochs", "1", "-o", tmp_path / "e.pt").code == 0


def test_a_damaged_state_is_refused(stores: list[Path], tmp_path: Path) -> None:
    (tmp_path / "e.pt.partial").write_bytes(b"PK\x03\x04 and then nothing")
    done = run("train", *stores, *SMALL, "-o", tmp_path / "e.pt", "--resume")
    assert done.code == 3
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_no_output_or_a_complete_one(stores: list[Path], tmp_path: Path) -> None:
    """One real process, killed between two saves, and resumed."""
    output, whole = tmp_path / "e.pt", tmp_path / "whole.pt"
    arguments = ["train", *map(str, stores), *SMALL, "--epochs", "60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "contrasim_cli", *arguments, "-o", str(output)], stderr=subprocess.PIPE, text=True
    )
    partial = tmp_path / "e.pt.partial"
    deadline = time.monotonic() + 300
    while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    if process.returncode == -signal.SIGKILL:
        assert not output.exists()
        assert not encoders.load(partial).training["finished"]
    assert run(*arguments, "-o", output, "--resume").code == 0
    assert run(*arguments, "-o", whole).code == 0
    assert digest(output) == digest(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ar.h5", "e.pt", "en.h5", "whole.pt"]


# --- recipes, logs and curves -----------------------------------------------------------------------------------------


def test_options_overrule_the_recipe(stores: list[Path], tmp_path: Path) -> None:
    options = ["--task", "pairs", "--hidden", "16", "--batch-size", "16", "-q"]
    ours = ["--epochs", "1", "--lr", "0.01", "--schedule", "cosine", "--warmup", "0.2", "--optimizer", "adamw"]
    ours += ["--weight-decay", "0.3", "--temperature", "0.5", "--dim", "0", "--path", "both", "--validation", "0.2"]
    ours += ["--patience", "3", "--standardize", "whiten", "--shrinkage", "0.4", "--objective", "supcon"]
    for recipe in ("default", "paper"):
        path = tmp_path / f"{recipe}.pt"
        assert run("train", *stores, *options, *ours, "--recipe", recipe, "-o", path).code == 0
        config = encoders.load(path).config
        assert config == encoders.Config(
            task="pairs", objective="supcon", widths=(10,), hidden=(16,), output=10, temperature=0.5, lr=0.01,
            weight_decay=0.3, batch_size=16, epochs=1, recipe=recipe, standardize="whiten", shrinkage=0.4, path="both",
            optimizer="adamw", schedule="cosine", warmup=0.2, validation=0.2, patience=3,
        )  # fmt: skip


@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_the_default_recipe_is_the_default(stores: list[Path], tmp_path: Path, task: str) -> None:
    assert run("train", *stores, "--task", task, "--epochs", "1", "-q", "-o", tmp_path / "e.pt").code == 0
    checkpoint = encoders.load(tmp_path / "e.pt")
    config, chosen = checkpoint.config, checkpoint.provenance.get("choice")
    expected = RECIPES["default"][task] | {"epochs": 1, "output": RECIPES["default"][task]["output"] or 10}
    assert (expected["standardize"] == "auto") == bool(chosen)
    if chosen:
        expected |= {"standardize": chosen["kind"], "shrinkage": chosen["shrinkage"], "lr": chosen["lr"]}
    expected.pop("least_steps", None)  # which --epochs overrules
    assert config.recipe == "default"
    assert {name: getattr(config, name) for name in expected} == expected


def test_recipes_name_what_a_configuration_has() -> None:
    for tasks in RECIPES.values():
        assert set(tasks) == {"layers", "pairs"}
        for parts in tasks.values():
            assert set(parts) - {"least_steps"} == (set(PAPER) | {"epochs"}) - {"least_steps"}
            assert set(parts) - {"least_steps"} <= set(encoders.Config.__dataclass_fields__)


def test_a_log_and_curves_come_out(stores: list[Path], tmp_path: Path) -> None:
    log, plot = tmp_path / "log.jsonl", tmp_path / "curves.svg"
    arguments = ["train", *stores, *SMALL, "--epochs", "3", "--validation", "0.2", "-o", tmp_path / "e.pt"]
    again = plot.with_suffix(".png")
    assert run(*arguments, "--log", log, "--plot", plot, "--plot", again).code == 0
    assert again.read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 28))
    curves = encoders.load(tmp_path / "e.pt").training
    ends = [line for line in lines if "validation_accuracy" in line]
    assert [line["validation_accuracy"] for line in ends] == curves["validation_accuracy_curve"]
    assert [np.mean([x["loss"] for x in lines if x["epoch"] == k]) for k in (1, 2, 3)] == pytest.approx(
        curves["loss_curve"]
    )
    text = plot.read_text()
    assert all(word in text for word in ("loss", "epoch", "accuracy in % on held-out rows"))
    for option, path in (("--log", log), ("--plot", plot), ("--plot", again)):
        done = run(*arguments[:-1], tmp_path / "f.pt", option, path)
        assert done == (5, "", f"contrasim: error: {path}: already exists; give --force to replace it\n")


def test_a_plot_of_another_kind_is_refused(stores: list[Path], tmp_path: Path) -> None:
    done = run("train", *stores, *SMALL, "-o", tmp_path / "e.pt", "--plot", tmp_path / "curves.bmp")
    assert (done.code, done.stderr) == (
        2,
        f"contrasim: error: --plot {tmp_path}/curves.bmp: the format follows the suffix, which is one of .png, .svg, .pdf\n",
    )


def test_the_last_good_state_is_kept_where_training_fails(stores: list[Path], tmp_path: Path) -> None:
    arguments = ["train", *stores, *SMALL, "--epochs", "2", "--save-every", "5", "-o", tmp_path / "e.pt"]
    with pytest.MonkeyPatch.context() as patch:
        step, count = training.Run._step, 0

        def broken(self: training.Run, *args: Any) -> float:
            nonlocal count
            count += 1
            if count == 8:
                next(self.state.encoder.parameters()).data.fill_(float("nan"))
            return step(self, *args)

        patch.setattr(training.Run, "_step", broken)
        done = run(*arguments)
    assert (done.code, done.stdout) == (8, "")
    assert done.stderr == (
        "contrasim: error: the loss is nan in epoch 1, step 8; give --lr below 0.001 or --temperature above 0.07; "
        "the state after epoch 1, step 5 is kept\n"
    )
    assert encoders.load(tmp_path / "e.pt.partial").training["step"] == 5
    assert run(*arguments, "--resume").code == 0


@pytest.mark.parametrize(("task", "path"), [("layers", "mlp"), ("pairs", "mlp"), ("pairs", "both")])
def test_stores_of_384_against_128_columns(tmp_path: Path, task: str, path: str) -> None:
    """Trained on, and scored better on held-out rows than chance."""
    layers = made.related(2, 3, 170, (384, 128), noise=0.1)
    paths = [[], []]
    for part, where in enumerate((slice(0, 130), slice(130, 170))):
        for name, one in zip("ab", layers, strict=True):
            folder = tmp_path / str(part)
            folder.mkdir(exist_ok=True)
            ids = [f"r{row}" for row in range(where.start, where.stop)]
            paths[part].append(made.store(folder / f"{name}.h5", {n: m[where] for n, m in one.items()}, ids))
    options = [
        "--task",
        task,
        "--recipe",
        "paper",
        "--standardize",
        "zscore",
        "--batch-size",
        "64",
        "--epochs",
        "6",
        "--path",
        path,
    ]
    assert run("train", *paths[0], *options, "--hidden", "64", "--dim", "128", "-q", "-o", tmp_path / "e.pt").code == 0
    assert encoders.load(tmp_path / "e.pt").config.widths == (128, 384)
    command = ["layers"] if task == "layers" else ["image-caption", "--batch-size", "8"]
    done = run("bench", *command, *paths[1], "--encoder", tmp_path / "e.pt", "-q")
    overall = done.stdout.splitlines()[-1].split("\t")
    assert overall[3:5] == ["all", "all"]
    assert float(overall[5]) > 2 * float(overall[9])
