"""Kill a training at random moments with SIGKILL, resume it until it is done, and compare all it leaves with an uninterrupted run.

What may break a repetition takes part: float16 and its scaler, a falling learning rate, early stopping, rows that are read
ahead. Compared are the weights, the curves and every line of the log but for its speed.

Run: python tests/studies/killed_train.py [--kills 10] [--rows 40000] [--epochs 4] [--seed 0] [TRAIN OPTIONS...]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import made

from contrasim_cli import encoder
from contrasim_cli.encoder import weights_digest

OPTIONS = ["--task", "pairs", "--recipe", "paper", "--hidden", "32", "--dim", "16", "--schedule", "cosine"]
OPTIONS += ["--validation", "0.1", "--patience", "2", "--precision", "float16", "--standardize", "whiten"]


def write_stores(folder: Path, n_rows: int) -> tuple[list[str], str]:
    """Two views of two layers of 16 neurons, and a budget that holds two groups of their rows and not all of them."""
    paths = [folder / f"{name}.h5" for name in "ab"]
    for path, layers in zip(paths, made.related(2, 2, n_rows, (16,)), strict=True):
        made.store(path, {name: matrix.astype(np.float16) for name, matrix in layers.items()})
    return [str(path) for path in paths], str(2 * 2 * 16 * 2 * 34_000)


def outcome(path: Path, log: Path) -> tuple[Any, ...]:
    """Everything that must repeat."""
    found = encoder.load(path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if name != "rows_per_second"} for line in lines]
    return weights_digest(found.encoder.state_dict()), found.training, kept


def main() -> None:
    """Kill, resume, compare; exit 1 if anything differs."""
    parser = argparse.ArgumentParser()
    for name, default in (("kills", 10), ("rows", 40_000), ("epochs", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments, options = parser.parse_known_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores, memory = write_stores(folder, arguments.rows)
        command = [sys.executable, "-m", "contrasim_cli", "train", *stores, *OPTIONS, *options, "-q"]
        command += ["--epochs", str(arguments.epochs), "--memory", memory, "--save-every", "7"]
        started = time.perf_counter()
        subprocess.run([*command, "-o", folder / "whole.pt", "--log", folder / "whole.jsonl"], check=True)
        took = time.perf_counter() - started
        again = [*command, "--resume", "-o", folder / "e.pt", "--log", folder / "e.jsonl"]
        kills = 0
        while kills < arguments.kills and not (folder / "e.pt").exists():
            process = subprocess.Popen(again)
            try:
                process.wait(rng.uniform(0, took))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                steps = len((folder / "e.jsonl").read_text().splitlines()) if (folder / "e.jsonl").exists() else 0
                print(f"kill {kills}: after {steps} steps", flush=True)
        subprocess.run(again, check=True)
        whole, parts = (outcome(folder / f"{name}.pt", folder / f"{name}.jsonl") for name in ("whole", "e"))
    same = [one == other for one, other in zip(whole, parts, strict=True)]
    print(f"{kills} kills, {len(whole[2])} steps; equal: weights {same[0]}, curves {same[1]}, log {same[2]}")
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
