"""Peak memory of `train --task pairs` on stores that are far larger than `--memory`, by the command itself in a process of its own.

Two stores of float16 rows are written to disk, trained on until so many steps are done, and deleted. The peak is the process's
resident set as the kernel accounts it, interpreter and libraries included; what these take alone is printed beside it.

Run: python tests/studies/memory.py [--gigabytes 20] [--memory 2G] [--steps 300] [--layers 12] [--width 768]
     [--recipe paper|default] [--folder DIR] [TRAIN OPTIONS...]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contrasim_cli.store.writer import LayerSpec, StoreWriter

BLOCK_ROWS = 8192
ALONE = "import contrasim_cli.training, contrasim_cli.encoder, contrasim_cli.store"


def made_rows(seed: list[int], own: list[int], shape: tuple[int, int]) -> npt.NDArray[np.float16]:
    """Numbers in ±[1, 2) whose signs `seed` decides and whose fractions `own` does: rows of two views know each other."""
    signs = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint16) << 15
    fractions = np.random.default_rng(own).integers(0, 1024, shape, dtype=np.uint16)
    made: npt.NDArray[np.float16] = (signs | fractions | np.uint16(0x3C00)).view(np.float16)
    return made


def write_store(path: Path, view: int, arguments: argparse.Namespace, n_rows: int) -> None:
    """One view, a block at a time."""
    specs = [LayerSpec(f"hidden_{k}", arguments.width, "float16") for k in range(1, arguments.layers + 1)]
    with StoreWriter(path, specs, n_rows, (f"r{row}" for row in range(n_rows))) as store:
        for k, spec in enumerate(specs):
            for start in range(0, n_rows, BLOCK_ROWS):
                shape = (min(BLOCK_ROWS, n_rows - start), arguments.width)
                store.write(spec.name, start, made_rows([k, start], [k, start, view + 1], shape))


def peak(command: list[str], log: Path | None = None, steps: int = 0) -> tuple[float, int, str]:
    """Peak resident memory in MiB, exit code and stderr of a process; SIGTERM once the log has so many lines."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stderr=errors)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            if log and log.exists() and log.read_bytes().count(b"\n") >= steps:
                process.send_signal(signal.SIGTERM)
                log = None
            time.sleep(0.2)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        return usage.ru_maxrss / 1024, process.returncode, errors.read().decode()


def main() -> None:
    """Write, train, report, delete; exit 1 where training failed or the peak is above `--memory`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--memory", default="2G")
    for name, default in (("steps", 300), ("layers", 12), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--recipe", choices=["paper", "default"], default="paper")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write the stores; by default a temporary one"
    )
    arguments, options = parser.parse_known_args()
    n_rows = int(arguments.gigabytes * 1e9 / (2 * arguments.layers * arguments.width * 2))
    alone, _, _ = peak([sys.executable, "-c", ALONE])
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder, started = Path(name), time.perf_counter()
        stores = [folder / "a.h5", folder / "b.h5"]
        for view, path in enumerate(stores):
            write_store(path, view, arguments, n_rows)
        size = sum(path.stat().st_size for path in stores) / 1e9
        print(f"2 stores of {n_rows} rows, {size:.2f} GB, written in {time.perf_counter() - started:.0f} s", flush=True)
        log, started = folder / "log.jsonl", time.perf_counter()
        command = [sys.executable, "-m", "contrasim_cli", "train", *map(str, stores), "--task", "pairs"]
        command += ["--recipe", arguments.recipe, "--memory", arguments.memory, "--log", str(log), *options]
        most, code, errors = peak([*command, "-o", str(folder / "e.pt")], log, arguments.steps)
        took, lines = time.perf_counter() - started, [json.loads(line) for line in log.read_text().splitlines()]
    print(errors, end="")
    rates = sorted(line["rows_per_second"] for line in lines)
    print(
        f"exit code {code} after {len(lines)} steps and {took:.0f} s; loss {lines[0]['loss']:.4g} to {lines[-1]['loss']:.4g}"
    )
    print(
        f"median {rates[len(rates) // 2]:.0f} rows/s; peak {most:.0f} MiB, of which {alone:.0f} are interpreter and libraries"
    )
    allowed = parsed(arguments.memory) / 2**20
    print(f"--memory {arguments.memory} is {allowed:.0f} MiB: {'kept' if most <= allowed else 'EXCEEDED'}")
    sys.exit(0 if code in (0, 128 + signal.SIGTERM) and most <= allowed else 1)


def parsed(memory: str) -> int:
    """Bytes, as the command reads them."""
    from contrasim_cli.commands.options import parse_memory

    found = parse_memory(memory)
    assert found is not None
    return found


if __name__ == "__main__":
    main()
