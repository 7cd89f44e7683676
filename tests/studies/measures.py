"""Seconds per measure for grids of layers, beside the machine's matrix-product rate and a naive loop, all in one run.

Run: python tests/studies/measures.py [--rows 5000] [--width 768] [--layers 12] [--models 10] [--no-memory]
"""

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timing import product_rate, seconds

from contrasim_cli.grid import Grid, layer_grids
from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import MEASURES
from contrasim_cli.scoring import closed_form
from contrasim_cli.store import LayerSpec, StoreWriter, align, open_stores
from contrasim_cli.store.sample import sampled

NAIVE_PAIRS = 2
QUADRATIC_ROWS = 2000


def make_stores(folder: Path, models: int, layers: int, rows: int, width: int) -> list[Path]:
    """Stores of random layers that share some structure, float16."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((rows, 100), dtype=np.float32)
    paths = []
    for model in range(models):
        path = folder / f"model_{model}.h5"
        specs = [LayerSpec(f"hidden_{k}", width, "float16") for k in range(1, layers + 1)]
        with StoreWriter(path, specs, rows, (str(i) for i in range(rows))) as writer:
            for spec in specs:
                mix = rng.standard_normal((100, width), dtype=np.float32) / 3
                writer.write(spec.name, 0, shared @ mix + rng.standard_normal((rows, width), dtype=np.float32))
        paths.append(path)
    return paths


# --- the naive loops: one pair of layers after another, each from its formula, NumPy at full rate ------------------------


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Three products per pair, float32."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def _factors(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = x.astype(np.float64)
    return np.linalg.svd(x - x.mean(0), full_matrices=False)


def naive_cca(x: np.ndarray, y: np.ndarray) -> float:
    """Both sides factored for every pair."""
    return float(np.linalg.svd(_factors(x)[0].T @ _factors(y)[0], compute_uv=False).mean())


def naive_svcca(x: np.ndarray, y: np.ndarray) -> float:
    """The same with truncation."""
    sides = []
    for side in (x, y):
        left, sigma, _ = _factors(side)
        kept = np.searchsorted(np.cumsum(sigma**2) / np.sum(sigma**2), 0.99) + 1
        sides.append(left[:, :kept])
    return float(np.linalg.svd(sides[0].T @ sides[1], compute_uv=False).mean())


def naive_pwcca(x: np.ndarray, y: np.ndarray) -> float:
    """The same with the weights of Eq. 7."""
    left, sigma, right = _factors(x)
    rotation, rho, _ = np.linalg.svd(left.T @ _factors(y)[0])
    alpha = np.abs(rotation.T @ (sigma[:, None] * right)).sum(axis=1)
    return float((alpha * rho).sum() / alpha.sum())


def naive_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """Centre, scale, nuclear norm."""
    x, y = (side.astype(np.float64) - side.mean(0) for side in (x, y))
    nuclear = np.linalg.svd((x / np.linalg.norm(x)).T @ (y / np.linalg.norm(y)), compute_uv=False).sum()
    return float(np.sqrt(max(0.0, 2 - 2 * nuclear)))


NAIVE = {
    "cka": naive_cka,
    "cca": naive_cca,
    "svcca": naive_svcca,
    "pwcca": naive_pwcca,
    "procrustes": naive_procrustes,
}


def grid_seconds(paths: Sequence[Path], name: str) -> tuple[float, float, Plan]:
    """Seconds for reading, seconds for the rest, for all pairs of stores."""
    stores = open_stores(paths)
    views = sampled(align(stores), QUADRATIC_ROWS if MEASURES[name].quadratic else None, 0)
    layers = [list(store.layers) for store in stores]
    plan = Plan(views, list(itertools.combinations(range(len(paths)), 2)), layers, layers)
    grid = Grid(plan, closed_form([name]), torch.device("cpu"), 12 << 30)
    read = seconds(lambda: grid.reader.load(grid.progress))
    grid.reader.load = lambda progress: None  # type: ignore[method-assign]
    return read, seconds(lambda: layer_grids(grid)), plan


def naive_seconds(plan: Plan, name: str) -> float | None:
    """Seconds that the naive loop takes for all pairs of layers: a few pairs timed, scaled."""
    if name not in NAIVE:
        return None
    cells = list(itertools.islice(plan.cells(), NAIVE_PAIRS))
    pairs = [tuple(plan.views[view].read(layer) for view, layer in cell) for cell in cells]
    spent = seconds(lambda: [NAIVE[name](*pair) for pair in pairs])
    return spent / len(pairs) * sum(1 for _ in plan.cells())


def cheaper_operations(plan: Plan) -> float:
    """Operations of linear CKA in its cheaper form: cross products of features, or upper halves of Gram matrices."""
    n = plan.n_rows
    features = sum(2.0 * n * plan.width(a) * plan.width(b) for a, b in plan.cells())
    return min(features, sum(float(n) * n * plan.width(layer) for layer in plan.layers))


def speed(paths: Sequence[Path], names: Sequence[str], rate: float) -> None:
    """A table: measure, seconds, naive seconds, their ratio, and for CKA the fraction of the product rate."""
    print(f"\n{len(paths)} models: {len(paths) * (len(paths) - 1) // 2} grid(s)")
    print(f"{'measure':28}{'reading':>10}{'seconds':>10}{'naive':>10}{'ratio':>8}{'of the rate':>13}")
    for name in names:
        read, spent, plan = grid_seconds(paths, name)
        naive = naive_seconds(plan, name)
        share = f"{cheaper_operations(plan) / spent / rate / 1e9:12.0%}" if name == "cka" else ""
        loop = f"{naive:10.1f}{naive / spent:8.1f}" if naive else f"{'':18}"
        note = f"  ({QUADRATIC_ROWS} rows)" if MEASURES[name].quadratic else ""
        print(f"{name:28}{read:10.2f}{spent:10.2f}{loop} {share}{note}", flush=True)
        for view in plan.views:
            view.store.close()


def peak_memory(folder: Path) -> None:
    """Peak memory of `baseline --measure cka` over 2 layers × 256, float16, at 50,000 and at 1,000,000 rows."""
    print("\npeak memory of cka and pwcca, 2 layers x 256, float16, --memory 1G")
    peaks = []
    for rows in (50_000, 1_000_000):
        paths = [folder / f"{side}_{rows}.h5" for side in "ab"]
        for seed, path in enumerate(paths):
            _write_long(path, rows, seed)
        command = [
            sys.executable,
            "-m",
            "contrasim_cli",
            "baseline",
            *map(str, paths),
            "--memory",
            "1G",
            "--align",
            "position",
        ]
        command += ["--measure", "cka", "--measure", "pwcca", "-q"]
        script = f"import resource, subprocess; subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL); "
        script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        peaks.append(int(ran.stdout) / 1024)
        print(f"{rows:>10} rows: {peaks[-1]:8.0f} MiB", flush=True)
        for path in paths:
            path.unlink()
    print(f"ratio {peaks[1] / peaks[0]:.2f}  (target: at most 1.2)")


def _write_long(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with StoreWriter(
        path, [LayerSpec(f"l{k}", 256, "float16") for k in range(2)], rows, (str(i) for i in range(rows))
    ) as store:
        for start in range(0, rows, 50_000):
            for k in range(2):
                store.write(f"l{k}", start, rng.standard_normal((min(50_000, rows - start), 256), dtype=np.float32))


def main() -> None:
    """Parse the sizes and print the tables."""
    parser = argparse.ArgumentParser()
    for name, value in (("rows", 5000), ("width", 768), ("layers", 12), ("models", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--measures", nargs="*", default=list(MEASURES))
    parser.add_argument("--no-memory", action="store_true")
    given = parser.parse_args()
    rates = {str(t).removeprefix("torch."): product_rate(t) for t in (torch.float32, torch.float64, torch.bfloat16)}
    print("matrix product 4,096²:", ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items()))
    print(f"{given.rows} rows, {given.layers} layers x {given.width}, float16; {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = make_stores(folder, given.models, given.layers, given.rows, given.width)
        speed(paths[:2], given.measures, rates["float32"])
        speed(paths, ["cka"], rates["float32"])
        if not given.no_memory:
            peak_memory(folder)
    print(f"\npeak memory of this run: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
