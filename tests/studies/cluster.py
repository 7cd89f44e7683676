"""A stand-in for a big study: sharded stores that do not fit the memory given, by two processes that are killed and started again.

    python tests/studies/cluster.py --folder /scratch [--rows 200000] [--ranks 2] [--memory 2G]

Makes four stores of six layers of float16, 512 wide, each a folder of four parts (about 5 GB in all). Then, by some
processes within `--memory`: CKA of all six pairs, killed once and started again; an encoder, killed twice, with signals 9
and 15, and resumed; and 2,000 rows that look for their own among their nearest neighbours in the whole pool. Prints a row
for each command: its wall time, and of every process the processor time, the bytes read and the largest memory.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from ranks import start_anew

from contrasim_cli.store import LayerSpec, StoreWriter

STORES, LAYERS, WIDTH, PARTS, QUERIES = 4, 6, 512, 4, 2000
BLOCK = 8192  # rows made at once
OWN = 0.7  # of the variance of a row in a layer, what is not common to all stores

Stop = tuple[Callable[[], bool], int]  # when a run is killed, and by which signal


def write(path: Path, k: int, count: int) -> Path:
    """A store: what all stores have in common, turned by each layer its own way, and noise that grows with the layer's depth."""
    turns = [np.linalg.qr(np.random.default_rng([k, n]).normal(size=(WIDTH, WIDTH)))[0] for n in range(LAYERS)]
    specs = [LayerSpec(f"layer{n}", WIDTH, "float16") for n in range(LAYERS)]
    scales = np.geomspace(1, 0.05, WIDTH)
    with StoreWriter(path, specs, count, (f"row {row}" for row in range(count))) as writer:
        for block in range(0, count, BLOCK):
            rows = min(BLOCK, count - block)
            common = np.random.default_rng([99, block]).normal(size=(rows, WIDTH)) * scales
            for n, turn in enumerate(turns):
                noise = np.random.default_rng([k, n, block]).normal(size=(rows, WIDTH)) * scales
                mixed = common @ turn + OWN * (1 + n / LAYERS) * noise
                writer.write(f"layer{n}", block, mixed.astype(np.float16))
    return path


def made(folder: Path, rows: int) -> list[Path]:
    """The sharded stores."""
    found = []
    for k in range(STORES):
        whole, parts = folder / f"model{k}.h5", folder / f"model{k}.acts"
        if not parts.exists():
            contrasim("extract", "--from", write(whole, k, rows), "--parts", PARTS, "-o", parts)
            whole.unlink()
        found.append(parts)
    return found


def contrasim(*arguments: object) -> None:
    """A command that is not measured."""
    subprocess.run([sys.executable, "-m", "contrasim_cli", *map(str, arguments)], check=True, capture_output=True)


@dataclass
class Used:
    """What a process took."""

    seconds: float
    read: float  # bytes
    memory: float  # bytes
    code: int


def used(processes: Sequence["subprocess.Popen[str]"], stop: Stop | None) -> list[Used]:
    """What every process took, to its end; killed when it is time."""
    while stop is not None and not stop[0]() and processes[0].poll() is None:
        time.sleep(0.05)
    if stop is not None:
        victims = processes[-1:] if stop[1] == signal.SIGKILL else processes
        for process in victims:
            process.send_signal(stop[1])
    found = []
    for process in processes:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        counted = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        found.append(
            Used(usage.ru_utime + usage.ru_stime, float(counted["rchar"]), usage.ru_maxrss * 1024.0, process.returncode)
        )
    return found


def measured(job: str, ranks: int, *arguments: object, stop: Stop | None = None) -> None:
    """Run a command by some processes and print what each took."""
    begun = time.perf_counter()
    processes = start_anew(ranks, *arguments, env={"OMP_NUM_THREADS": "1"})
    taken = used(processes, stop)
    wall = time.perf_counter() - begun
    errors = [process.stderr.read().strip() for process in processes if process.stderr is not None]
    if stop is None and any(one.code for one in taken):
        sys.exit(f"{job}: {errors}")
    cells = [
        " · ".join(f"{getattr(one, what) / unit:.{digits}f}" for one in taken)
        for what, unit, digits in (("seconds", 1, 0), ("read", 1e9, 2), ("memory", 2**20, 0))
    ]
    codes = ", ".join(str(one.code) for one in taken)
    print(f"| {job} | {codes} | {wall:.0f} s | {cells[0]} s | {cells[1]} GB | {cells[2]} MiB |", flush=True)


def study(folder: Path, rows: int, ranks: int, memory: str) -> None:
    """All of it."""
    stores = made(folder, rows)
    total = sum(path.stat().st_size for store in stores for path in store.iterdir())
    print(f"{STORES} stores of {PARTS} parts, {LAYERS} layers × {rows:,} rows × {WIDTH}: {total / 1e9:.2f} GB")
    print("\n| job | exit codes | wall | processor | read | peak memory |\n|---|---|---|---|---|---|", flush=True)
    shared = ["--memory", memory]

    grid = ["baseline", *stores, "--measure", "cka", "-o", folder / "cka.tsv", "--force", *shared]
    late = time.monotonic() + 30
    measured("CKA of 6 pairs, killed", ranks, *grid, stop=(lambda: time.monotonic() > late, signal.SIGKILL))
    measured("CKA of 6 pairs", ranks, *grid)

    encoder = folder / "enc.pt"
    log = folder / "log.jsonl"
    train = ["train", *stores, "--task", "layers", "--epochs", 1, "--standardize", "zscore", "-o", encoder, *shared]
    train += ["--save-every", 10, "--log", log]

    def after(steps: int) -> Callable[[], bool]:
        return lambda: log.exists() and len(log.read_bytes().splitlines()) >= steps

    for path in (encoder, log, encoder.with_name("enc.pt.partial")):
        path.unlink(missing_ok=True)
    measured("encoder, killed (9)", ranks, *train, stop=(after(25), signal.SIGKILL))
    measured("resumed, stopped (15)", ranks, *train, "--resume", stop=(after(60), signal.SIGTERM))
    measured("resumed to its end", ranks, *train, "--resume")

    queries = [folder / f"queries{k}.h5" for k in range(2)]
    for store, path in zip(stores, queries, strict=False):
        contrasim("extract", "--from", store, "--limit", QUERIES, "-o", path, "--force")
    search = ["bench", "image-caption", *queries, "--candidates-from", stores[1], "--negatives", "faiss"]
    measured("2,000 queries in the pool", ranks, *search, "--encoder", encoder, "--measure", "cka", *shared)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--memory", default="2G")
    asked = options.parse_args()
    study(asked.folder, asked.rows, asked.ranks, asked.memory)
