"""What a second rank saves: processor seconds of each of two ranks against half of those of one, and their peak memory.

    python tests/studies/ranks.py [--smaller N] [--repeats N] [JOB ...]

Prints a table: seconds of one rank and of the slower one of two, both less what the same command takes of a few rows, which is
start-up; the efficiency, half of the first by the second, with its goal; peak memory; and how far the results are apart,
against the largest of them. One rank is timed alone and beside a second command like it: a processor whose cores are all busy
takes more seconds for the same work, with ranks or without, so the latter counts. Wall times would be those of whatever else runs.
"""

import argparse
import atexit
import functools
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from ranks import start_anew
from stores import write

Command = Callable[[Path, int], list[object]]


@functools.cache
def made() -> Path:
    """A folder for stores that is removed at the end."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def views(count: int, layers: int, rows: int, width: int) -> list[Path]:
    """Stores of rows that have much in common; made once, as all runs only read them."""
    folder = made() / f"{count}-{layers}-{rows}-{width}"
    folder.mkdir()
    with ProcessPoolExecutor(1) as apart:  # what starts a command counts as that command's peak memory
        return apart.submit(_write_views, folder, count, layers, rows, width).result()


def _write_views(folder: Path, count: int, layers: int, rows: int, width: int) -> list[Path]:
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(rows, width)).astype(np.float32)
    paths = []
    for k in range(count):
        noisy = {f"l{n}": shared + draw.normal(size=(rows, width)).astype(np.float32) * (1 + n) for n in range(layers)}
        paths.append(write(folder / f"v{k}.h5", noisy))
    return paths


def grid(folder: Path, rows: int, layers: int = 6) -> list[object]:
    """CKA of two models, by rows."""
    asked = ["--measure", "cka", "--memory", "2G", "-o", folder / "out.tsv"]
    return ["baseline", *views(2, layers, rows, 512), *asked]


def grid12(folder: Path, rows: int) -> list[object]:
    """CKA of two models of twelve layers."""
    return grid(folder, rows, 12)


def retrieval(folder: Path, rows: int) -> list[object]:
    """A retrieval benchmark of three views of four layers, by layers."""
    asked = ["--measure", "cka", "--measure", "dot", "--negatives", "random", "-o", folder / "out.tsv"]
    return ["bench", "multilingual", *views(3, 4, rows, 128), *asked]


def search(folder: Path, rows: int) -> list[object]:
    """The same with nearest neighbours as negatives."""
    asked = ["--measure", "dot", "--negatives", "faiss", "-o", folder / "out.tsv"]
    return ["bench", "multilingual", *views(2, 4, rows, 256), *asked]


def encoders(folder: Path, rows: int) -> list[object]:
    """A benchmark that trains six encoders."""
    stores = views(3, 1, rows, 64)
    trained = [word for view in stores for word in ("--train", view)]
    asked = ["--seeds", 2, "--epochs", 20, "--negatives", "random", "--encoder-dir", folder / "encoders"]
    return ["bench", "multilingual", *stores, *trained, *asked, "-o", folder / "out.tsv"]


def train(folder: Path, rows: int) -> list[object]:
    """One encoder of the layers of two models, by the rows of each batch."""
    asked = ["--task", "layers", "--epochs", 10, "--standardize", "none", "--recipe", "paper"]
    return ["train", *views(2, 6, rows, 512), *asked, "-o", folder / "out.pt"]


# name -> the command, its rows, those of start-up, and the least efficiency
JOBS: dict[str, tuple[Command, int, int, float]] = {
    "grid": (grid, 20_000, 600, 0.85),
    "grid12": (grid12, 20_000, 600, 0.85),
    "retrieval": (retrieval, 40_000, 64, 0.95),
    "search": (search, 8_000, 64, 0.95),
    "encoders": (encoders, 3_000, 64, 0.95),
    "train": (train, 4_096, 64, 0.85),
}


class Run(NamedTuple):
    """Processor seconds and MiB of a command's slowest and largest rank, and the numbers in its output."""

    seconds: float
    peak: float
    numbers: npt.NDArray[np.float64]


def watched(processes: Sequence[subprocess.Popen[str]]) -> tuple[float, float]:
    """Processor seconds of the slowest and MiB of the largest process of a command that is running."""
    used, peaks = [], []
    for process in processes:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read()
        told = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, told
        used.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss / 1024)
    return max(used), max(peaks)


def numbers(folder: Path) -> npt.NDArray[np.float64]:
    """All numbers of a table, or of an encoder."""
    if (folder / "out.pt").exists():
        weights = torch.load(folder / "out.pt", weights_only=True)["state_dict"]
        return np.concatenate([tensor.double().numpy().ravel() for tensor in weights.values()])
    cells = (folder / "out.tsv").read_text().split()
    return np.array([float(cell) for cell in cells if re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)])


def run(world: int, make: Command, rows: int, copies: int = 1) -> Run:
    """What a command takes; the mean of `copies` that run beside each other."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(copy) for copy in range(copies)]
        for one in folders:
            one.mkdir()
        started = [start_anew(world, *make(one, rows), env={"OMP_NUM_THREADS": "1"}) for one in folders]
        taken = [watched(processes) for processes in started]
        seconds, peak = (statistics.mean(values) for values in zip(*taken, strict=True))
        return Run(seconds, peak, numbers(folders[0]))


def measured(job: str, smaller: int, repeats: int) -> list[str]:
    """A line of the table: one rank alone, one beside another command of one rank, two ranks."""
    make, rows, few, goal = JOBS[job]
    ways = {"alone": (1, 1), "beside": (1, 2), "two": (2, 1)}
    used, last = {}, {}
    for way, (world, copies) in ways.items():
        whole = [run(world, make, rows // smaller, copies) for _ in range(repeats)]
        small = [run(world, make, few, copies) for _ in range(repeats)]
        used[way] = min(one.seconds for one in whole) - min(one.seconds for one in small)
        last[way] = whole[-1]
    one, two = last["alone"].numbers, last["two"].numbers
    apart = np.abs(one - two).max() / np.abs(one).max()
    seconds = [f"{used[way]:.1f} s" for way in ways]
    peaks = [f"{last[way].peak:.0f}" for way in ("alone", "two")]
    return [job, *seconds, f"{used['beside'] / 2 / used['two']:.2f}", str(goal), *peaks, f"{apart:.1e}"]


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--smaller", type=int, default=1, help="divide the rows")
    options.add_argument("--repeats", type=int, default=5, help="of which the least counts, as noise only adds")
    options.add_argument("jobs", nargs="*", default=list(JOBS))
    asked = options.parse_args()
    print(
        "| job | 1 rank alone | the other core busy | 2 ranks, the slower | of ideal | goal | MiB of 1 | of 2 | apart |"
    )
    print("|---" * 9 + "|")
    for name in asked.jobs:
        print(f"| {' | '.join(measured(name, asked.smaller, asked.repeats))} |", flush=True)
