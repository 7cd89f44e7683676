"""The commands on a CUDA device: the numbers of the CPU, runs that repeat and go on, and memory that runs out."""

import csv
import io
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import tiny
import torch
from helpers import Result, run

from contrasim_cli import encoder as encoders
from contrasim_cli import training
from contrasim_cli.measures import MEASURES
from contrasim_cli.rows import rows as rows_compared
from contrasim_cli.store import open_store
from contrasim_cli.training import rows as rows_trained_on

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
ROWS, WIDTH = 60, 20
SMALL = ["--hidden", "16", "--dim", "8", "--batch-size", "16", "--epochs", "3", "-q"]
Matrix = np.ndarray[Any, Any]


def nasty(seed: int, width: int = WIDTH) -> dict[str, Matrix]:
    """Layers of the kinds that break arithmetic; those of other seeds are related to them."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    signal_, mix = shared.normal(size=(ROWS, 12)), rng.normal(size=(12, width))
    plain = signal_ @ mix + 0.5 * rng.normal(size=(ROWS, width))
    constant = plain.copy()
    constant[:, [1, 4]] = 0.1, 1e5 / 3
    layers = {
        "plain": plain,
        "decaying": plain * np.geomspace(1, 1e-3, width),
        "low_rank": signal_[:, :4] @ mix[:4],
        "constant_columns": constant,
        "duplicate_rows": np.repeat(plain[: ROWS // 2], 2, axis=0),
        "large": plain * 1e6,
        "small": plain * 1e-6,
        "offset": plain + 1e3,
    }
    return {name: layer.astype(np.float32) for name, layer in layers.items()} | {"halves": plain.astype(np.float16)}


def on_both(*command: object, **tolerance: float) -> list[Mapping[str, Any]]:
    """The results of a command on either device, which are the same but for rounding; those of cuda come back."""
    done = [run(*command, "--format", "json", "--device", device) for device in ("cpu", "cuda")]
    assert [one.code for one in done] == [0, 0], [one.stderr for one in done]
    on_cpu, on_cuda = (json.loads(one.stdout)["results"] for one in done)
    assert len(on_cpu) == len(on_cuda) > 0
    bounds = {"rel": 1e-4, "abs": 1e-5} | tolerance
    for one, other in zip(on_cpu, on_cuda, strict=True):
        assert set(one) == set(other)
        for name, value in one.items():
            close = pytest.approx(value, **bounds) if isinstance(value, float) else value
            assert other[name] == close, (name, one, other)
    return on_cuda  # type: ignore[no-any-return]


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    layers = made.related(3, 3, 60, (10,))
    return [made.store(tmp_path / f"{name}.h5", x) for name, x in zip(("en", "ar", "zh"), layers, strict=True)]


# --- closed forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [WIDTH, 2 * ROWS], ids=["more rows", "more neurons"])
@pytest.mark.parametrize("measure", list(MEASURES))
def test_every_measure_gives_what_it_gives_on_the_cpu(measure: str, width: int, tmp_path: Path) -> None:
    a, b = (made.store(tmp_path / f"{name}.h5", nasty(seed, width)) for name, seed in (("a", 1), ("b", 2)))
    # components whose variances are all but equal are told apart by rounding alone
    found = on_both("baseline", a, b, "--measure", measure, rel=2e-3, abs=2e-4)
    assert any(row["score"] is not None for row in found)


@pytest.mark.parametrize("memory", ["200K", "1G"])
def test_rows_are_streamed(memory: str, tmp_path: Path) -> None:
    layers = made.related(2, 3, 4000, (24, 17), noise=0.3)
    a, b = (made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers, strict=True))
    on_both(
        "baseline", a, b, "--measure", "cka", "--measure", "svcca", "--measure", "linear_regression", "--memory", memory
    )


def test_intervals_and_p_values(stores: list[Path]) -> None:
    found = on_both(
        "baseline", *stores[:2], "--measure", "cka", "--measure", "rsa", "--bootstrap", "40", "--permutations", "40"
    )
    assert all(0 < row["p_value"] <= 1 for row in found)


# --- training and scores ------------------------------------------------------------------------------------------------


def weights(path: Path) -> Mapping[str, torch.Tensor]:
    state: Mapping[str, torch.Tensor] = encoders.load(path).encoder.state_dict()
    return state


@pytest.mark.parametrize("inputs", ["raw", "anchors"])
@pytest.mark.parametrize("task", ["layers", "pairs"])
def test_training_comes_to_what_it_comes_to_on_the_cpu(
    task: str, inputs: str, stores: list[Path], tmp_path: Path
) -> None:
    options = ["--task", task, "--inputs", inputs, *(["--anchors", "16"] if inputs == "anchors" else []), *SMALL]
    curves = {}
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.pt"
        done = run("train", *stores, *options, "--device", device, "-o", path)
        assert done.code == 0, done.stderr
        curves[device] = encoders.load(path).training["loss_curve"]
        assert {tensor.device.type for tensor in weights(path).values()} == {"cpu"}
    assert curves["cpu"] == pytest.approx(curves["cuda"], rel=1e-3)
    for name in curves:  # an encoder trained on either serves both
        on_both("score", *stores, "--encoder", tmp_path / f"{name}.pt")


def test_rows_lie_on_the_device(stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, list[str]] = {"training": [], "bench": []}
    take, taken = rows_trained_on.Held.take, rows_compared.Rows.take

    def training_rows(self: Any, *where: Any) -> Any:
        held["training"] += [tensor.device.type for tensor in self._tensors]
        return take(self, *where)

    def compared_rows(self: Any, where: torch.Tensor) -> Any:
        if self._held is not None:
            held["bench"].append(self._held.device.type)
        return taken(self, where)

    monkeypatch.setattr(rows_trained_on.Held, "take", training_rows)
    monkeypatch.setattr(rows_compared.Rows, "take", compared_rows)
    train = ["train", *stores, "--task", "pairs", *SMALL, "--validation", "0", "-o", tmp_path / "e.pt"]
    assert run(*train, "--device", "cuda").code == 0
    assert set(held["training"]) == {"cuda"}
    bench = ["bench", "multilingual", *stores, "--measure", "cka", "--batch-size", "8", "--device", "cuda"]
    assert run(*bench).code == 0
    assert held["bench"].count("cuda") > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bits(precision: str, stores: list[Path], tmp_path: Path) -> None:
    digests = set()
    for name in "ab":
        options = ["--task", "layers", "--precision", precision, *SMALL, "--device", "cuda"]
        assert run("train", *stores, *options, "-o", tmp_path / f"{name}.pt").code == 0
        digests.add(encoders.weights_digest(dict(weights(tmp_path / f"{name}.pt"))))
    assert len(digests) == 1


def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", *stores, "--task", "layers", *SMALL, "--device", "cuda", "-o"]
    assert run(*command, tmp_path / "whole.pt").code == 0
    count, check = 0, training.Run._check_loss

    def checked(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        check(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "_check_loss", checked)
        assert run(*command, tmp_path / "parts.pt").code == 143
    assert run(*command, tmp_path / "parts.pt", "--resume").code == 0
    one, other = (encoders.weights_digest(dict(weights(tmp_path / f"{name}.pt"))) for name in ("whole", "parts"))
    assert one == other


# --- benchmarks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["layers", "multilingual", "image-caption"])
def test_benchmarks_agree(kind: str, stores: list[Path], tmp_path: Path) -> None:
    options = ["--measure", "cka", "--measure", "pwcca", "--measure", "linear_regression", "--pairs", "all"]
    if kind != "layers":
        options = [
            "--measure",
            "cka",
            "--measure",
            "dot",
            "--negatives",
            "random",
            "--negatives",
            "faiss",
            "--batch-size",
            "8",
        ]
    encoder = tmp_path / "e.pt"
    trained_on = stores if kind == "layers" else stores[1:]
    assert (
        run("train", *trained_on, "--task", "layers" if kind == "layers" else "pairs", *SMALL, "-o", encoder).code == 0
    )
    tested = stores[:2] if kind == "image-caption" else stores
    # a pair that is on the edge may fall to either side
    on_both("bench", kind, *tested, *options, "--encoder", encoder, abs=0.03)


def test_sanity_agrees(stores: list[Path]) -> None:
    done = [
        run("bench", "sanity", stores[0], "--measure", "all", "--device", d, "--format", "tsv") for d in ("cpu", "cuda")
    ]
    assert [one.code for one in done] == [0, 0], done[1].stderr
    tables = [list(csv.DictReader(io.StringIO(one.stdout), delimiter="\t")) for one in done]
    for one, other in zip(*tables, strict=True):
        assert set(one) == set(other)
        for name, value in one.items():
            try:
                expected: object = pytest.approx(float(value), rel=1e-3, abs=1e-4, nan_ok=True)
            except ValueError:
                assert value == other[name], (name, one, other)
            else:
                assert float(other[name]) == expected, (name, one, other)


# --- extraction ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_text_models_give_the_rows_of_the_cpu(kind: str, tmp_path: Path) -> None:
    model, texts = getattr(tiny, kind)(tmp_path / "model"), tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny.sentences(40)) + "\n")
    _extracted_alike(tmp_path, "--model", model, "--text", texts)


CONVOLVED = """
from torch import nn

def network():
    import torch
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4608, 9))
"""


def test_convolutions_are_not_rounded_to_ten_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "convolved.py").write_text(CONVOLVED)
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(70, 3, 16, 16)).astype(np.float32))
    _extracted_alike(
        tmp_path, "--model", f"{tmp_path}/convolved.py:network", "--arrays", tmp_path / "images.npy", "--layers", "*"
    )


def _extracted_alike(folder: Path, *options: object) -> None:
    rows = []
    for device in ("cpu", "cuda"):
        done = run("extract", *options, "--device", device, "-o", folder / f"{device}.h5", "-q")
        assert done.code == 0, done.stderr
        store = open_store(folder / f"{device}.h5")
        rows.append({name: store.read(name, 0, store.n_rows) for name in store.layers})
    assert set(rows[0]) == set(rows[1])
    for name, expected in rows[0].items():
        np.testing.assert_allclose(rows[1][name], expected, rtol=2e-5, atol=2e-5, err_msg=name)


# --- memory -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def little_memory() -> Iterator[int]:
    """For a while, this process may take 64 MB of the device's memory."""
    total, little = torch.cuda.get_device_properties(0).total_memory, 64 << 20
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + little) / total)
    yield little
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def _says_that_memory_ran_out(done: Result) -> None:
    assert done.code == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("contrasim: error: the CUDA device's memory ran out")


@pytest.mark.usefixtures("little_memory")
def test_memory_that_runs_out_is_one_line(tmp_path: Path) -> None:
    layers: Sequence[Mapping[str, Matrix]] = made.related(2, 1, 6000, (64,))
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", layers, strict=True)]
    _says_that_memory_ran_out(run("baseline", *stores, "--measure", "rsa", "--device", "cuda", "--memory", "8G"))
    wide = ["--task", "pairs", "--hidden", "6000", "--batch-size", "4000"]
    _says_that_memory_ran_out(run("train", *stores, *wide, "--device", "cuda", "-o", tmp_path / "e.pt", "-q"))
    assert not (tmp_path / "e.pt").exists()


@pytest.mark.usefixtures("little_memory")
def test_extraction_goes_on_with_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "convolved.py").write_text(CONVOLVED)
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "images.npy", np.zeros((600, 3, 16, 16), np.float32))
    options = ["--model", f"{tmp_path}/convolved.py:network", "--arrays", tmp_path / "images.npy", "--layers", "*"]
    done = run("extract", *options, "--device", "cuda", "-o", tmp_path / "a.h5")
    assert done.code == 0, done.stderr
