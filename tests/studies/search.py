"""Exact search of a large pool by `bench image-caption --candidates-from`: seconds, peak memory, part of the product rate.

The pool is a generated float16 store with ids, in which the queries themselves occur, by id and by value, and rows that
equal them under other ids. The command runs in a process of its own, so that its peak memory is its own. Rates are told
by the clock and by processor time, which other processes on the machine disturb less.

Run: python tests/studies/search.py [--rows 3300000] [--queries 5000] [--width 768] [--memory 2G] [--index exact]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from timing import product_rate

from contrasim_cli.store import LayerSpec, StoreWriter

FACTORS = 32  # dimensions that rows share
WRITTEN = 1 << 14
EQUAL_EVERY = 10  # of how many queries one has a double under another id

Rows = npt.NDArray[np.float32]


def generated(rng: np.random.Generator, mix: Rows, count: int) -> Rows:
    """Rows [count, width] with something in common, far from the origin, as text models make them."""
    shared = rng.standard_normal((count, len(mix)), dtype=np.float32) @ mix
    return shared + rng.standard_normal((count, mix.shape[1]), dtype=np.float32) + np.float32(3)


def make_stores(folder: Path, rows: int, queries: int, width: int) -> tuple[list[Path], Path]:
    """Images and captions [queries, width], and the pool [rows, width]."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((FACTORS, width), dtype=np.float32) / 3
    captions = generated(rng, mix, queries).astype(np.float16)
    ids = [f"caption {k}" for k in range(queries)]
    paths = [folder / "images.h5", folder / "captions.h5"]
    images = captions + rng.standard_normal(captions.shape, dtype=np.float32) / 2
    for path, values in zip(paths, (images, captions), strict=True):
        with StoreWriter(path, [LayerSpec("l", width, "float16")], queries, ids) as store:
            store.write("l", 0, values)
    pool = folder / "pool.h5"
    places = rng.permutation(rows)[: queries + queries // EQUAL_EVERY]
    own = dict(zip(places.tolist(), [*range(queries), *range(0, queries, EQUAL_EVERY)], strict=False))
    named = dict(zip(places[:queries].tolist(), ids, strict=True))
    names = (named.get(k) or f"pool {k}" for k in range(rows))
    with StoreWriter(pool, [LayerSpec("l", width, "float16")], rows, names) as store:
        for start in range(0, rows, WRITTEN):
            block = generated(rng, mix, min(WRITTEN, rows - start)).astype(np.float16)
            for k in [k for k in range(len(block)) if start + k in own]:
                block[k] = captions[own[start + k]]
            store.write("l", start, block)
    return paths, pool


def product_seconds(flops: float) -> tuple[float, float]:
    """Seconds, and seconds of processor time, that so many operations of a matrix product take here and now."""
    started = time.process_time()
    rate = product_rate(torch.float32) * 1e9
    spent = time.process_time() - started
    return flops / rate, flops / (3 * 2 * 4096**3) * spent


def searched(paths: list[Path], pool: Path, memory: str, index: str) -> tuple[float, float, float, dict[str, object]]:
    """Seconds, seconds of processor time and peak MiB of the command, and its JSON."""
    command = [sys.executable, "-m", "contrasim_cli", "bench", "image-caption", *map(str, paths)]
    command += ["--candidates-from", str(pool), "--negatives", "faiss", "--memory", memory, "--format", "json"]
    command += [] if index == "exact" else ["--index", index]
    script = f"import resource, subprocess, sys; done = subprocess.run({command!r}); "
    script += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    script += "print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr); sys.exit(done.returncode)"
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    spent = time.perf_counter() - started
    notes, _, used = ran.stderr.rstrip("\n").rpartition("\n")
    print(notes, flush=True)
    if ran.returncode:
        raise SystemExit(ran.returncode)
    peak, processor = used.split()
    return spent, float(processor), float(peak) / 1024, json.loads(ran.stdout)


def main() -> None:
    """Parse the sizes, make the stores, search, and print the table."""
    parser = argparse.ArgumentParser()
    for name, value in (("rows", 3_300_000), ("queries", 5000), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--index", default="exact")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and deleted")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        started = time.perf_counter()
        paths, pool = make_stores(Path(temporary), given.rows, given.queries, given.width)
        size = pool.stat().st_size / 2**30
        print(
            f"pool {given.rows} x {given.width}, float16, {size:.2f} GiB, made in {time.perf_counter() - started:.0f} s"
        )
        print(f"{given.queries} queries, --index {given.index}, --memory {given.memory}", flush=True)
        flops = 2.0 * given.rows * given.queries * given.width
        before = product_seconds(flops)
        spent, processor, peak, content = searched(paths, pool, given.memory, given.index)
        after = product_seconds(flops)
    wall, busy = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    print(f"{'':24}{'command':>12}{'product alone':>16}{'part of the rate':>18}")
    print(f"{'seconds by the clock':24}{spent:12.1f}{wall:16.1f}{wall / spent:17.0%}")
    print(f"{'processor seconds':24}{processor:12.1f}{busy:16.1f}{busy / processor:17.0%}")
    print(f"peak memory {peak:.0f} MiB (target: below 4,096)")
    print(json.dumps(content["results"]))
    print(f"peak memory of this script: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
