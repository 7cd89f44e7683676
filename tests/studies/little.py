"""Seconds of every measure by NumPy and by torch over sizes, and whether the library that a command chooses is the faster one.

A command takes NumPy where its estimate (`grid.work`) is at most `device.LITTLE`, without a GPU `device.ON_PROCESSOR` times
that over the cores; torch costs its import besides. Every measure compares one layer with one other, by one thread, in a
process per library. `rate` is estimated multiplications per second of NumPy: where it is the same for all measures and sizes,
the estimates are right. `loss` is the time of the library that is chosen over that of the faster one.

Found on two cores, torch's start 1.4 s: NumPy takes 0.7 to 1.8 times torch's processor seconds, so what decides is whether a
grid takes longer than the start. Choices by `LITTLE` cost at most 1.3 times the better one in 110 of 120 places of 18
measures; the others, at 6e10 to 8e10 multiplications, cost 1.3 to 3.6 times, where estimates of matches, rotations and
neighbours are too high.

Run: python tests/studies/little.py [--measure NAME ...] [--clock process|wall]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from contrasim_cli.arrays import NUMPY, Device
from contrasim_cli.device import LITTLE, ON_PROCESSOR
from contrasim_cli.grid import Grid, Plan, layer_grids
from contrasim_cli.grid.work import multiplications
from contrasim_cli.measures import MEASURES, Options
from contrasim_cli.scoring import Scorer, closed_form
from contrasim_cli.store import Layer, Store, align

SIZES = ((200, 32), (1000, 64), (500, 512), (2000, 256), (2000, 768), (6000, 256), (8000, 1024))
ENOUGH = 3.0  # seconds after which larger sizes of a measure are left out
BUDGET = 8 << 30
CLOCKS = {"process": time.process_time, "wall": time.perf_counter}


def plan_of(n: int, p: int) -> Plan:
    """Two noisy views of the same rows [n, p]."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, p)).astype(np.float32)
    stores = []
    for k in range(2):
        noisy = rows + rng.normal(size=rows.shape).astype(np.float32)
        stores.append(Store(Path(f"{k}.h5"), "arrays", {"x": Layer("x", noisy)}))
    return Plan(align(stores, "order"), [(0, 1)], [["x"], ["x"]], [["x"], ["x"]])


def timed(plan: Plan, scorer: Scorer, device: Device) -> dict[str, float]:
    """Seconds of one grid by every clock."""
    started = {name: clock() for name, clock in CLOCKS.items()}
    layer_grids(Grid(plan, [scorer], device, BUDGET, levels=True))
    return {name: clock() - started[name] for name, clock in CLOCKS.items()}


def measured(library: str, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """What a process of one library finds: its start, and every measure at every size."""
    device: Device = NUMPY
    (cka,) = closed_form(["cka"], Options())
    timed(plan_of(*SIZES[0]), cka, NUMPY)
    started = {name: clock() for name, clock in CLOCKS.items()}
    if library == "torch":
        import torch

        device = torch.device("cpu")
        timed(plan_of(*SIZES[0]), cka, device)
    yield {"start": {name: clock() - started[name] for name, clock in CLOCKS.items()}}
    for name in names:
        (scorer,) = closed_form([name], Options())
        for n, p in SIZES:
            plan = plan_of(n, p)
            taken = timed(plan, scorer, device)
            if taken["wall"] < 0.3:  # once more, without what a first use costs
                taken = min(taken, *(timed(plan, scorer, device) for _ in range(2)), key=lambda found: found["process"])
            yield {"measure": name, "n": n, "p": p, "work": multiplications(plan, [scorer]), **taken}
            if taken["wall"] > ENOUGH:
                break


def child(library: str, names: Sequence[str]) -> list[dict[str, object]]:
    """The same of a process that imports nothing else."""
    command = [
        sys.executable,
        __file__,
        "--library",
        library,
        *(word for name in names for word in ("--measure", name)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Print a line per measure and size, and how many choices are right."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", action="append")
    parser.add_argument("--clock", choices=list(CLOCKS), default="process")
    parser.add_argument("--library", choices=["numpy", "torch"])
    options = parser.parse_args()
    names = options.measure or list(MEASURES)
    if options.library:
        for found in measured(options.library, names):
            print(json.dumps(found), flush=True)
        return
    by_numpy, by_torch = (child(library, names) for library in ("numpy", "torch"))
    start = by_torch.pop(0)["start"][options.clock]  # type: ignore[index]
    by_numpy.pop(0)
    most = LITTLE * max(1.0, ON_PROCESSOR / (os.cpu_count() or 1))
    print(f"torch's start: {start:.2f} s; up to {most:.1e} multiplications are NumPy's")
    print(f"{'measure':28}{'n':>6}{'p':>6}{'work':>10}{'numpy':>9}{'torch':>9}{'rate':>10}{'loss':>7}")
    places = {(row["measure"], row["n"], row["p"]): row for row in by_torch}
    losses = []
    for row in by_numpy:
        other = places.get((row["measure"], row["n"], row["p"]))
        if other is None:
            continue
        numpy, torch, work = row[options.clock], other[options.clock], row["work"]
        chosen = numpy if work <= most else torch + start  # type: ignore[operator]
        losses.append(chosen / min(numpy, torch + start))  # type: ignore[operator,call-overload]
        print(
            f"{row['measure']:28}{row['n']:6}{row['p']:6}{work:10.1e}{numpy:9.3f}{torch:9.3f}"
            f"{work / max(numpy, 1e-9):10.1e}{losses[-1]:7.2f}"  # type: ignore[operator,type-var]
        )
    print(f"{sum(loss <= 1.3 for loss in losses)} of {len(losses)} choices cost at most 1.3 times the better one")


if __name__ == "__main__":
    main()
