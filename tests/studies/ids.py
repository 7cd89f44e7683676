"""Ids of a sharded store that line up with those of another, and the order of training: memory that no row takes part in.

    python tests/studies/ids.py --rows 100000000 --folder /scratch

Writes a sharded store of so many ids (4 parts, one layer of one column), and prints the peak memory and processor time of each
step.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PARTS = 4


def write(folder: Path, count: int, k: int) -> None:
    """A part."""
    from contrasim_cli.store import LayerSpec, StoreWriter
    from contrasim_cli.store.sharded import part_name

    start, stop = count * k // PARTS, count * (k + 1) // PARTS
    ids = (f"line {row}" for row in range(start, stop))
    provenance = {"config": {"shard": [k, PARTS, start, stop]}}
    with StoreWriter(
        folder / part_name(k, PARTS), [LayerSpec("a", 1, "float16")], stop - start, ids, provenance=provenance
    ) as writer:
        for row in range(start, stop, 1 << 20):
            end = min(row + (1 << 20), stop)
            writer.write("a", row - start, np.full((end - row, 1), row % 7 + 1, np.float16))


def index(folder: Path) -> None:
    """The index of all parts."""
    from contrasim_cli.store.open import open_part
    from contrasim_cli.store.shard_index import write_index

    write_index(folder, PARTS, open_part)


def line_up(folder: Path, other: Path) -> None:
    """Two stores by their ids."""
    from contrasim_cli.store import align, open_stores

    views = align(open_stores([folder, other]))
    assert [view.rows for view in views] == [None, None]


def order(count: int) -> None:
    """Two groups of an epoch."""
    from contrasim_cli.encoder import Config
    from contrasim_cli.training import Order
    from contrasim_cli.training.shuffle import held_out_rows

    config = Config(widths=(1,), task="layers", objective="contrasim")
    groups = Order(count, 1, config, held_out=held_out_rows(count, config)).groups(0)
    assert len(next(groups).rows) == len(next(groups).rows)


def measured(name: str, work: Callable[[], None]) -> None:
    """Work done in a child process, its peak memory and processor time."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        work()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(f"| {name} | {usage.ru_maxrss / 1024:.0f} MB | {usage.ru_utime + usage.ru_stime:.1f} s |", flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"{name} failed")


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    folder, other, count = arguments.folder / "ids.acts", arguments.folder / "other.acts", arguments.rows
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"{count} ids, {time.strftime('%Y-%m-%d')}\n\n| step | peak memory | processor |\n|---|---|---|")
    measured("nothing", lambda: None)
    for k in range(PARTS):
        measured(f"part {k}", lambda k=k: write(folder, count, k))  # type: ignore[misc]
    measured("index", lambda: index(folder))
    subprocess.run(["cp", "-r", "--link", folder, other], check=True)
    measured("line up", lambda: line_up(folder, other))
    measured("order of training", lambda: order(count))


if __name__ == "__main__":
    main()
