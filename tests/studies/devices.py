"""Seconds of whole commands on a CUDA device beside the processor, on the same stores, in one run.

Run: python tests/studies/devices.py [--models 4] [--layers 12] [--rows 5000] [--width 768] [--only WORD]
     [--model FOLDER --text FILE]

Reading and writing are in the times, and so is what a command does on the processor whatever the device. What torch does once
per process to get the device ready is done before. Results of both are compared: the last column is the largest difference
between scores or losses.
"""

import argparse
import contextlib
import io
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from retrieval import make_stores

from contrasim_cli import encoder as encoders
from contrasim_cli.cli import main as contrasim

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


def command(*arguments: object) -> tuple[float, str]:
    """Seconds of one command, and what it printed."""
    said, notes = io.StringIO(), io.StringIO()
    started = time.perf_counter()
    try:
        line = ["contrasim", *map(str, arguments)]
        with mock.patch("sys.argv", line), contextlib.redirect_stdout(said), contextlib.redirect_stderr(notes):
            contrasim()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(notes.getvalue()) from stop
    return time.perf_counter() - started, said.getvalue()


def scores(text: str) -> np.ndarray:
    """Scores or accuracies in JSON results."""
    found = [row.get("score", row.get("accuracy")) for row in json.loads(text)["results"]]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def compared(title: str, *arguments: object) -> None:
    """One line: a command that prints results, on both devices."""
    took, found = {}, {}
    for device in DEVICES:
        took[device], text = command(*arguments, "--device", device, "--format", "json", "-q")
        found[device] = scores(text)
    report(title, took, float(np.nanmax(np.abs(found["cpu"] - found["cuda"]))))


def trained(title: str, folder: Path, *arguments: object) -> None:
    """One line: training on both devices."""
    took, curves = {}, {}
    for device in DEVICES:
        path = folder / f"{device}.pt"
        took[device], _ = command("train", *arguments, "--device", device, "-o", path, "--force", "-q")
        curves[device] = np.array(encoders.load(path).training["loss_curve"])
    report(title, took, float(np.abs(curves["cpu"] - curves["cuda"]).max()))


def report(title: str, took: dict[str, float], difference: float) -> None:
    """One line."""
    cells = "".join(f"{took[device]:>9.2f}" for device in DEVICES)
    print(f"{title:<46}{cells}{took['cpu'] / took['cuda']:>8.1f}{difference:>12.1e}", flush=True)


def lines(stores: Sequence[Path], folder: Path, options: argparse.Namespace) -> None:
    """Every line of the table."""
    wanted = options.only or ""
    for names in (
        ("cka",),
        ("pwcca",),
        ("svcca",),
        ("procrustes",),
        ("rsa",),
        ("mutual_knn",),
        ("gulp",),
        ("cka_rbf",),
    ):
        measures = [word for name in names for word in ("--measure", name)]
        if wanted in f"baseline {names[0]}":
            compared(f"baseline {' '.join(names)}", "baseline", *stores, *measures)
    if wanted in "baseline cka, 20 resamples":
        compared("baseline cka, 20 resamples", "baseline", *stores[:2], "--measure", "cka", "--bootstrap", 20)
    for task, inputs, precision in (
        *itertools.product(("layers", "pairs"), ("raw",), PRECISIONS),
        ("layers", "anchors", "float32"),
    ):
        title = f"train {task}, {inputs}, {precision}, 5 epochs"
        if wanted in title:
            more = ["--inputs", inputs, "--recipe", "paper" if inputs == "raw" else "default", "--precision", precision]
            given = stores if (task, inputs) == ("layers", "raw") else stores[:2]
            trained(title, folder, *given, "--task", task, *more, "--epochs", 5)
    if wanted in "score":
        encoder = folder / "score.pt"
        command(
            "train", *stores, "--task", "layers", "--recipe", "paper", "--epochs", 1, "-o", encoder, "--force", "-q"
        )
        compared("score", "score", *stores, "--encoder", encoder)
    if wanted in "bench layers":
        compared(
            "bench layers, cka and pwcca",
            "bench",
            "layers",
            *stores,
            "--pairs",
            "all",
            "--measure",
            "cka",
            "--measure",
            "pwcca",
        )
    for name in ("cka", "dot"):
        if wanted in f"bench multilingual {name}":
            compared(f"bench multilingual {name}, random", "bench", "multilingual", *stores, "--measure", name)
    if options.model and wanted in "extract":
        took = {}
        for device in DEVICES:
            given = ["--model", options.model, "--text", options.text, "--limit", options.rows, "--device", device]
            took[device], _ = command("extract", *given, "-o", folder / f"{device}.h5", "--force", "-q")
        report("extract", took, float("nan"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("models", 4), ("layers", 12), ("rows", 5000), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--only", help="lines whose titles hold this")
    options = parser.parse_args()
    torch.ones(2, device="cuda") @ torch.ones(2, device="cuda")
    print(f"{torch.cuda.get_device_name()}; threads {torch.get_num_threads()}")
    print(f"{'':<46}" + "".join(f"{name:>9}" for name in (*DEVICES,)) + f"{'ratio':>8}{'difference':>12}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = make_stores(folder, options.models, options.layers, options.rows, options.width)
        lines(stores, folder, options)


if __name__ == "__main__":
    main()
