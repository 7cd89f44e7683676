"""Kill an extraction at random moments with SIGKILL, resume it, and compare every dataset byte for byte.

Run: python tests/studies/killed.py [--kills 20] [--unit word|item]
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tiny

SENTENCES = 400


def command(folder: Path, output: Path, unit: str) -> list[str]:
    """An extraction of some seconds, in many small shards."""
    source = ["--model", str(folder / "bert"), "--text", str(folder / "s.txt"), "--unit", unit]
    size = ["--batch-size", "8", "--memory", "64k", "--resume", "-q", "-o", str(output)]
    return [sys.executable, "-m", "contrasim_cli", "extract", *source, *size]


def datasets(path: Path) -> dict[str, bytes]:
    """The bytes of every dataset but the provenance, which tells the time of nothing but the run."""
    with h5py.File(path) as file:
        found = {f"layers/{name}": layer[:].tobytes() for name, layer in file["layers"].items()}
        return found | {"ids": b"\n".join(file["ids"][:].tolist())}


def started(folder: Path, output: Path, unit: str) -> "subprocess.Popen[bytes]":
    """An extraction that has begun to write."""
    process = subprocess.Popen(command(folder, output, unit))
    while process.poll() is None and not output.with_name(f"{output.name}.parts").exists():
        time.sleep(0.002)
    return process


def killed(folder: Path, output: Path, unit: str, seconds: float) -> str:
    """Kill an extraction after so many seconds of writing, and say what was there then."""
    process = started(folder, output, unit)
    time.sleep(seconds)
    process.kill()
    process.wait()
    shards = len(list(output.with_name(f"{output.name}.parts").glob("*.npz")))
    return "the finished store" if output.exists() else f"{shards} shards"


def main() -> None:
    """Kill, resume, compare; exit 1 if anything differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--unit", choices=["item", "word"], default="word")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.bert(folder / "bert")
        (folder / "s.txt").write_text("\n".join(tiny.sentences(SENTENCES)) + "\n")
        whole = folder / "whole.h5"
        process = started(folder, whole, options.unit)
        begun = time.perf_counter()
        process.wait()
        seconds, expected = time.perf_counter() - begun, datasets(whole)
        for number in range(options.kills):
            output = folder / f"{number}.h5"
            moment = chance.uniform(0, seconds)
            there = killed(folder, output, options.unit, moment)
            subprocess.run(command(folder, output, options.unit), check=True)
            same = datasets(output) == expected
            print(
                f"killed after {moment:5.2f} of {seconds:.2f} s of writing, with {there}: {'equal' if same else 'DIFFERENT'}",
                flush=True,
            )
            if not same or output.with_name(f"{output.name}.parts").exists():
                sys.exit(1)


if __name__ == "__main__":
    main()
