"""What a second rank saves: processor seconds of each of two ranks against half of those of one, and the rows that a rank reads.

    python tests/studies/ranks.py [--smaller N] [JOB ...]

Prints a table: seconds of one rank and of the slower one of two, both less what the same command takes of a few rows, which is
start-up; and the efficiency, half of the first by the second, with its goal. Wall times would be those of whatever else runs.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from ranks import start
from stores import write

Command = Callable[[Path], list[object]]


def views(folder: Path, count: int, layers: int, rows: int, width: int) -> list[Path]:
    """Stores of rows that have much in common."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(rows, width)).astype(np.float32)
    paths = []
    for k in range(count):
        noisy = {f"l{n}": shared + draw.normal(size=(rows, width)).astype(np.float32) * (1 + n) for n in range(layers)}
        paths.append(write(folder / f"v{k}.h5", noisy))
    return paths


def grid(folder: Path, rows: int) -> list[object]:
    """CKA of two models of six layers, by rows."""
    return ["baseline", *views(folder, 2, 6, rows, 512), "--measure", "cka", "--memory", "2G"]


def retrieval(folder: Path, rows: int) -> list[object]:
    """A retrieval benchmark of three views of four layers, by layers."""
    asked = ["--measure", "cka", "--measure", "dot", "--negatives", "random"]
    return ["bench", "multilingual", *views(folder, 3, 4, rows, 128), *asked]


def search(folder: Path, rows: int) -> list[object]:
    """The same with nearest neighbours as negatives."""
    return ["bench", "multilingual", *views(folder, 2, 4, rows, 256), "--measure", "dot", "--negatives", "faiss"]


def encoders(folder: Path, rows: int) -> list[object]:
    """A benchmark that trains six encoders."""
    made = views(folder, 3, 1, rows, 64)
    trained = [word for view in made for word in ("--train", view)]
    asked = ["--seeds", 2, "--epochs", 20, "--negatives", "random", "--encoder-dir", folder / "encoders"]
    return ["bench", "multilingual", *made, *trained, *asked]


def train(folder: Path, rows: int) -> list[object]:
    """One encoder of the layers of two models, by the rows of each batch."""
    asked = ["--task", "layers", "--epochs", 10, "--standardize", "none", "--recipe", "paper"]
    return ["train", *views(folder, 2, 6, rows, 512), *asked, "-o", folder / "enc.pt"]


# name -> the command, its rows, those of start-up, and the least efficiency
JOBS: dict[str, tuple[Callable[[Path, int], list[object]], int, int, float]] = {
    "grid": (grid, 20_000, 600, 0.85),
    "retrieval": (retrieval, 6_000, 64, 0.95),
    "search": (search, 8_000, 64, 0.95),
    "encoders": (encoders, 3_000, 64, 0.95),
    "train": (train, 4_096, 64, 0.85),
}


def seconds(world: int, arguments: list[object]) -> list[float]:
    """Processor seconds of every rank of a command."""
    processes = start(world, *arguments, env={"OMP_NUM_THREADS": "1"})
    found = []
    for process in processes:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read()
        told = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, told
        found.append(usage.ru_utime + usage.ru_stime)
    return found


def measured(job: str, smaller: int) -> tuple[float, float, float]:
    """Seconds of one rank and of the slower of two, beyond start-up, and the efficiency."""
    make, rows, few, _ = JOBS[job]
    found = {}
    for size, n in (("all", rows // smaller), ("few", few)):
        for world in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                found[size, world] = max(seconds(world, make(Path(folder) / "views", n)))
    one, two = (found["all", world] - found["few", world] for world in (1, 2))
    return one, two, one / 2 / two


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--smaller", type=int, default=1, help="divide the rows")
    options.add_argument("jobs", nargs="*", default=list(JOBS))
    asked = options.parse_args()
    print("| job | 1 rank | 2 ranks, the slower | of ideal | goal |\n|---|---|---|---|---|")
    for name in asked.jobs:
        one, two, efficiency = measured(name, asked.smaller)
        print(f"| {name} | {one:.1f} s | {two:.1f} s | {efficiency:.2f} | {JOBS[name][3]} |", flush=True)
