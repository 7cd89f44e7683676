"""Are the numbers of two versions the same? Every command on the sample data, with either checkout, JSON against JSON.

Run: python tests/studies/unchanged.py BEFORE AFTER      (two checkouts; python is that of an environment with the dependencies)

Prints the largest relative difference of the numbers of every command; texts, and which cells are empty, must be equal. What a
version adds to a row is named and left out.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAYERS = [f"sample_data/layers/test/seed_{k}.h5" for k in range(3)]
VIEWS = [f"sample_data/multilingual/test/{name}.h5" for name in ("ar", "en", "ru")]
TIMES = ("created", "command", "date", "seconds", "contrasim_version", "file", "versions")
COMMANDS: dict[str, list[str]] = {
    "inspect": ["inspect", *LAYERS],
    "baseline, all measures": ["baseline", *LAYERS[:2], "--measure", "all", "--layers", "1-3"],
    "baseline, intervals": ["baseline", *LAYERS[:2], "--measure", "cka", "--measure", "pwcca", "--measure", "mutual_knn",
                            "--layers", "1-3", "--bootstrap", "16", "--permutations", "9"],
    "train layers": ["train", *LAYERS, "--task", "layers", "--epochs", "2", "-o", "{folder}/layers.pt"],
    "train anchors": ["train", *LAYERS, "--task", "layers", "--inputs", "anchors", "--anchors", "32", "--epochs", "1",
                      "-o", "{folder}/anchors.pt"],
    "train pairs": ["train", *VIEWS[:2], "--task", "pairs", "--epochs", "2", "-o", "{folder}/pairs.pt"],
    "score": ["score", *LAYERS[:2], "--encoder", "{folder}/layers.pt", "--null", "9", "--bootstrap", "8"],
    "score, anchors": ["score", *LAYERS[:2], "--encoder", "{folder}/anchors.pt"],
    "score, universal": ["score", *LAYERS[:2], "--encoder", "universal_scale_free"],
    "bench layers": ["bench", "layers", *LAYERS[:2], "--measure", "cka", "--measure", "rsa"],
    "bench multilingual": ["bench", "multilingual", *VIEWS, "--measure", "cka", "--measure", "dot",
                           "--encoder", "{folder}/pairs.pt"],
    "bench sanity": ["bench", "sanity", LAYERS[0], "--measure", "cka", "--measure", "procrustes", "--layers", "1-2"],
}  # fmt: skip


def run(checkout: Path, folder: Path, words: list[str]) -> Any:
    """What a command prints as JSON; nothing for commands that print none."""
    form = [] if words[0] == "train" else ["--format", "json"]
    command = [sys.executable, "-m", "contrasim_cli", *(word.format(folder=folder) for word in words), *form, "-q"]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 8):
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout) if form else None


def differences(one: Any, other: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Relative differences of numbers, infinite where texts, lengths or empty cells differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() & other.keys():
            if name not in TIMES:
                yield from differences(one[name], other[name], f"{where}.{name}")
        yield from ((f"{where}.{name} is gone", math.inf) for name in one.keys() - other.keys())
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{where}[{k}]")
    elif isinstance(one, float) and isinstance(other, float):
        yield where, abs(one - other) / max(abs(one), abs(other), 1e-300)
    elif one != other:
        yield where, math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    print("| command | largest relative difference | where |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        for name, words in COMMANDS.items():
            one = run(options.before.resolve(), Path(first), words)
            other = run(options.after.resolve(), Path(second), words)
            found = sorted(differences(one, other), key=lambda pair: -pair[1])
            where, most = found[0] if found else ("", 0.0)
            print(f"| {name} | {most:.1e} | {where if most else ''} |", flush=True)


if __name__ == "__main__":
    main()
