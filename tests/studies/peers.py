"""Whole commands beside public packages and plain NumPy on the same stores: processor seconds, memory, and whether numbers agree.

Every contender is a process of its own with one thread, which reads the stores, scores all pairs of layers and prints the scores.
Contenders of one job run in turn, and the best of `--runs` counts; start-up and imports are part of it. Training is measured
within the process, from the second step on. A floor is the shortest NumPy or PyTorch code for a measure, in float32 as most
people write it, and for some in float64, which is what numbers that hold to 1e-9 take; packages that are not installed are left
out. Exit 1 where numbers differ by more than the job allows.

Run: python tests/studies/peers.py [--jobs NAME...] [--runs 2] [--scale 1.0] [--tolerance T] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
COMPILED = "PYTHONDONTWRITEBYTECODE"  # left out: what is installed is compiled once, and not by every start
NEIGHBOURS = 10
PRECISION = "float32"  # of the floors' arithmetic
BATCH = 8  # rows of a batch of the retrieval benchmark
Layers = list[Any]  # arrays [n, p]
Scores = list[float]


class Sizes(NamedTuple):
    """What the stores of a job have."""

    stores: int
    layers: int
    rows: int
    width: int

    def scaled(self, factor: float) -> Sizes:
        """Smaller stores, for a look at whether all of it runs."""
        rows, width = max(48, int(self.rows * factor)), max(6, int(self.width * factor))
        return Sizes(self.stores, max(2, int(self.layers * factor)) if self.layers > 1 else 1, rows, width)


@dataclass(frozen=True)
class Job:
    """One line of the table: our command's options, and who does the same."""

    sizes: Sizes
    options: Sequence[str]
    peers: Sequence[str]
    tolerance: float = 1e-4  # relative, of scores that others make in float32
    command: str = "baseline"


GRID, SMALL = Sizes(2, 4, 5000, 768), Sizes(2, 1, 500, 64)
JOBS = {
    "cka, 500 x 64": Job(SMALL, ["cka"], ["numpy_cka"]),
    "cka, 12 x 12": Job(Sizes(2, 12, 5000, 768), ["cka"], ["numpy_cka"]),
    "cka_debiased, 12 x 12": Job(Sizes(2, 12, 5000, 768), ["cka_debiased"], ["pytorch_cka"]),
    # √(2 - 2 s) doubles what float32 loses of s
    "procrustes": Job(GRID, ["procrustes"], ["numpy_procrustes", "numpy_procrustes_64"], tolerance=1e-3),
    "hard_match": Job(GRID, ["hard_match"], ["numpy_hard_match", "numpy_hard_match_64"]),
    "permutation_procrustes": Job(GRID, ["permutation_procrustes"], ["numpy_permutation", "numpy_permutation_64"]),
    "cca": Job(GRID, ["cca"], ["torch_cca"]),
    "cca, 4 layers of 1000 x 128": Job(Sizes(2, 4, 1000, 128), ["cca"], ["repsim_cca", "torch_cca"]),
    "svcca": Job(GRID, ["svcca"], ["torch_svcca"]),
    "pwcca": Job(GRID, ["pwcca"], ["torch_pwcca"]),
    "rsa": Job(GRID._replace(rows=2000), ["rsa"], ["numpy_rsa", "rsatoolbox_rsa"]),
    "mutual_knn": Job(GRID, ["mutual_knn"], ["faiss_mutual"]),
    "jaccard_knn": Job(GRID, ["jaccard_knn"], ["faiss_jaccard"]),
    "retrieval": Job(
        Sizes(5, 6, 5000, 768),
        ["dot", "--negatives", "faiss", "--batch-size", str(BATCH)],
        ["faiss_retrieval"],
        command="bench multilingual",
    ),
    "train layers, 24 items": Job(Sizes(2, 12, 2048, 768), [], ["torch_layers"], command="step layers"),
    "train layers, 120 items": Job(Sizes(10, 12, 2048, 768), [], ["torch_layers"], command="step layers"),
    "train pairs": Job(Sizes(2, 1, 2048, 768), [], ["torch_pairs"], command="step pairs"),
}


# --- stores -----------------------------------------------------------------------------------------------------------


def make_stores(folder: Path, sizes: Sizes) -> list[Path]:
    """Stores of float16 layers that share some structure."""
    from measures import make_stores

    folder.mkdir()
    return make_stores(folder, sizes.stores, sizes.layers, sizes.rows, sizes.width)


def read(path: str) -> Layers:
    """The layers of a store as float32, or as a floor in float64 takes them, in order."""
    import h5py

    with h5py.File(path) as file:
        names = sorted(file["layers"], key=lambda name: int(name.rpartition("_")[2]))
        return [file["layers"][name][()].astype(PRECISION) for name in names]


def grid(paths: Sequence[str], own: Callable[[Any], Any], pair: Callable[[Any, Any], float]) -> Scores:
    """Scores of every layer of the first store with every layer of the second; `own` once per layer."""
    first, second = ([own(x) for x in read(path)] for path in paths)
    return [float(pair(a, b)) for a in first for b in second]


# --- floors -----------------------------------------------------------------------------------------------------------


def numpy_cka(paths: Sequence[str]) -> Scores:
    """‖YᵀX‖² over norms that are kept."""
    import numpy as np

    def own(x: Any) -> Any:
        x -= x.mean(axis=0)
        return x, np.linalg.norm(x.T @ x)

    return grid(paths, own, lambda a, b: np.linalg.norm(b[0].T @ a[0]) ** 2 / (a[1] * b[1]))


def numpy_procrustes(paths: Sequence[str]) -> Scores:
    """√(2 - 2‖XᵀY‖_*) of sides of norm 1."""
    import numpy as np

    def own(x: Any) -> Any:
        x -= x.mean(axis=0)
        return x / np.linalg.norm(x)

    def pair(x: Any, y: Any) -> float:
        return float(np.sqrt(2 - 2 * np.linalg.svd(x.T @ y, compute_uv=False).sum()))

    return grid(paths, own, pair)


def numpy_hard_match(paths: Sequence[str]) -> Scores:
    """Mean correlation under the best assignment."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    def own(x: Any) -> Any:
        x -= x.mean(axis=0)
        return x / np.linalg.norm(x, axis=0)

    def pair(x: Any, y: Any) -> float:
        found = x.T @ y
        return float(found[linear_sum_assignment(found, maximize=True)].mean())

    return grid(paths, own, pair)


def numpy_procrustes_64(paths: Sequence[str]) -> Scores:
    """`numpy_procrustes` in float64."""
    return in_float64(numpy_procrustes, paths)


def numpy_hard_match_64(paths: Sequence[str]) -> Scores:
    """`numpy_hard_match` in float64."""
    return in_float64(numpy_hard_match, paths)


def numpy_permutation_64(paths: Sequence[str]) -> Scores:
    """`numpy_permutation` in float64."""
    return in_float64(numpy_permutation, paths)


def in_float64(floor: Callable[[Sequence[str]], Scores], paths: Sequence[str]) -> Scores:
    """A floor with arithmetic in float64, in this process from now on."""
    global PRECISION  # noqa: PLW0603
    PRECISION = "float64"
    return floor(paths)


def numpy_permutation(paths: Sequence[str]) -> Scores:
    """Least distance over permutations of columns."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    def pair(a: Any, b: Any) -> float:
        found = a[0].T @ b[0]
        return float(np.sqrt(a[1] + b[1] - 2 * found[linear_sum_assignment(found, maximize=True)].sum()))

    return grid(paths, lambda x: (x, np.square(x, dtype=np.float64).sum()), pair)


def _factored(x: Any) -> tuple[Any, Any, Any]:
    import torch

    rows = torch.from_numpy(x)
    return tuple(torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False))  # type: ignore[return-value]


def torch_cca(paths: Sequence[str]) -> Scores:
    """Mean canonical correlation, every side factored once, float32."""
    import torch

    return grid(paths, lambda x: _factored(x)[0], lambda u, v: float(torch.linalg.svdvals(u.T @ v).mean()))


def torch_svcca(paths: Sequence[str]) -> Scores:
    """The same of the directions that hold 99 % of the variance."""
    import torch

    def own(x: Any) -> Any:
        left, sigma, _ = _factored(x)
        variance = sigma.double().square().cumsum(0)
        return left[:, : int((variance < 0.99 * variance[-1]).sum()) + 1]

    return grid(paths, own, lambda u, v: float(torch.linalg.svdvals(u.T @ v).mean()))


def torch_pwcca(paths: Sequence[str]) -> Scores:
    """The same, weighted by Eq. 7 of the paper."""
    import torch

    def pair(a: Any, b: Any) -> float:
        rotation, rho, _ = torch.linalg.svd(a[0].T @ b[0])
        alpha = (rotation.T @ (a[1].unsqueeze(1) * a[2])).abs().sum(dim=1)
        return float((alpha * rho).sum() / alpha.sum())

    return grid(paths, _factored, pair)


def numpy_rsa(paths: Sequence[str]) -> Scores:
    """Spearman's ρ of correlations of rows, every side ranked once."""
    import numpy as np
    from scipy.stats import rankdata

    def own(x: Any) -> Any:
        ranks = rankdata(np.corrcoef(x)[np.triu_indices(len(x), 1)])
        ranks -= ranks.mean()
        return ranks / np.linalg.norm(ranks)

    return grid(paths, own, lambda a, b: float(a @ b))


def _nearest(x: Any) -> Any:
    """Boolean [n, n]: which rows are the nearest of each by cosine."""
    import faiss
    import numpy as np

    x /= np.linalg.norm(x, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    _, found = index.search(x, NEIGHBOURS + 1)
    near = np.zeros((len(x), len(x)), dtype=bool)
    np.put_along_axis(near, found, True, axis=1)
    np.fill_diagonal(near, False)
    return near


def faiss_mutual(paths: Sequence[str]) -> Scores:
    """Mean share of neighbours that both sides have."""
    return grid(paths, _nearest, lambda a, b: float((a & b).sum(axis=1).mean() / NEIGHBOURS))


def faiss_jaccard(paths: Sequence[str]) -> Scores:
    """Mean intersection over union of the neighbours of both sides."""
    return grid(paths, _nearest, lambda a, b: float(((a & b).sum(axis=1) / (a | b).sum(axis=1)).mean()))


def faiss_retrieval(paths: Sequence[str]) -> Scores:
    """Accuracy by layer: is a batch's mean dot product with its own rows above those with ten sets of near ones?"""
    import faiss
    import numpy as np

    views = [read(path) for path in paths]
    right: dict[int, list[float]] = {}
    for k in range(len(views[0])):
        near = []
        for view in views:
            index = faiss.IndexFlatL2(view[k].shape[1])
            index.add(view[k])
            _, found = index.search(view[k], 11)
            own = found == np.arange(len(found))[:, None]
            own[~own.any(axis=1), -1] = True
            near.append(found[~own].reshape(len(found), 10))
        for i, j in itertools.permutations(range(len(views)), 2):
            x, y = views[i][k], views[j][k]
            scores = np.stack([np.einsum("rp,rp->r", x, y[rows]) for rows in (np.arange(len(x)), *near[j].T)])
            starts = np.arange(0, len(x), BATCH)
            starts = starts[len(x) - starts >= 2]
            sizes = np.diff([*starts, len(x)])
            means = np.add.reduceat(scores.astype(np.float64), starts, axis=1) / sizes
            best = means[1:].max(axis=0)
            right.setdefault(k, []).append(float((means[0] > best + 1e-6 * np.abs(best)).mean()))
    return [float(np.mean(right[k])) for k in right]


# --- packages ---------------------------------------------------------------------------------------------------------


def pytorch_cka(paths: Sequence[str]) -> Scores:
    """github.com/ryusudol/Centered-Kernel-Alignment: the unbiased estimator, clamped to [0, 1]."""
    import torch
    from cka import cka_from_features

    first, second = ([torch.from_numpy(x) for x in read(path)] for path in paths)
    found: Scores = cka_from_features(first, second).flatten().tolist()
    return found


def repsim_cca(paths: Sequence[str]) -> Scores:
    """github.com/kisungyou/repsim: mean canonical correlations of all pairs of a list of layers."""
    import numpy as np
    import repsim

    first, second = (read(path) for path in paths)
    found = repsim.cca([x.astype(np.float64) for x in (*first, *second)], summary_type="pillai")
    return [float(value) for value in found[: len(first), len(first) :].ravel()]


def rsatoolbox_rsa(paths: Sequence[str]) -> Scores:
    """github.com/rsagroup/rsatoolbox: correlation distances, compared by Spearman's ρ."""
    import numpy as np
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    sides = [calc_rdm([Dataset(x.astype(np.float64)) for x in read(path)], method="correlation") for path in paths]
    return [float(value) for value in compare(*sides, method="spearman").ravel()]


PACKAGES = {"pytorch_cka": "cka", "repsim_cca": "repsim", "rsatoolbox_rsa": "rsatoolbox"}
NEEDED = dict.fromkeys(
    ("numpy_hard_match", "numpy_hard_match_64", "numpy_permutation", "numpy_permutation_64", "numpy_rsa"), "scipy"
)


# --- training ---------------------------------------------------------------------------------------------------------


def steps(step: Callable[[], object], count: int = 3) -> Scores:
    """Processor seconds of the best step but the first, and how much longer the first took."""
    spent = []
    for _ in range(1 + count):
        started = time.process_time()
        step()
        spent.append(time.process_time() - started)
    return [min(spent[1:]), spent[0] - min(spent[1:])]


def _training(paths: Sequence[str], task: str) -> tuple[Any, Any]:
    """The rows of the stores and the configuration of a run."""
    from contrasim_cli.encoder import Config
    from contrasim_cli.store import align, open_stores
    from contrasim_cli.training import Data

    views = align(open_stores([Path(path) for path in paths]))
    data = Data(views, [list(view.store.layers) for view in views])
    batch = min(1024, data.n_rows)
    return data, Config(task=task, objective="contrasim", widths=data.widths, batch_size=batch)


def our_step(paths: Sequence[str], task: str) -> Scores:
    """A step of `contrasim train`."""
    import torch

    from contrasim_cli.training import Order, Run, Source
    from contrasim_cli.training.state import new_state

    data, config = _training(paths, task)
    cpu = torch.device("cpu")
    source = Source(data, Order.of(data, config), 1 << 62, device=cpu)
    run = Run(source, config, new_state(config, cpu), cpu)
    with source.groups(0, 0) as groups:
        group, held, _ = next(groups)
        return steps(lambda: run._step(group.steps[0], held))


def _loop(paths: Sequence[str], task: str) -> Scores:
    import torch
    from train import plain_step

    data, config = _training(paths, task)
    rows = [torch.from_numpy(x[: config.batch_size]) for path in paths for x in read(path)]
    return steps(plain_step(config, rows, data.n_layers if task == "layers" else 1))


def torch_layers(paths: Sequence[str]) -> Scores:
    """A loop over models and layers, as anybody would write it."""
    return _loop(paths, "layers")


def torch_pairs(paths: Sequence[str]) -> Scores:
    """The same of the rows of two views."""
    return _loop(paths, "pairs")


# --- the table --------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """What a process came to."""

    seconds: float
    mebibytes: float
    scores: Scores


def run(command: Sequence[str], scores_of: Callable[[str], Scores]) -> Run:
    """Processor seconds and peak memory of a process and its children, and the scores that it printed."""
    script = f"import resource, subprocess, sys; done = subprocess.run({list(command)!r}); "
    script += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    script += "print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr); sys.exit(done.returncode)"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != COMPILED} | dict.fromkeys(THREADS, "1"),
    )
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ran.stderr}")
    peak, seconds = ran.stderr.split()[-2:]
    return Run(float(seconds), float(peak) / 1024, scores_of(ran.stdout))


def ours(job: Job, paths: Sequence[Path]) -> tuple[list[str], Callable[[str], Scores]]:
    """Our command of a job, and how to read what it prints."""
    names = list(map(str, paths))
    kind, _, task = job.command.partition(" ")
    if kind == "step":
        return [sys.executable, __file__, "--run", f"step {task}", *names], json.loads
    command = [sys.executable, "-m", "contrasim_cli", *job.command.split(), *names, "--device", "cpu"]
    command += ["--format", "json", "-q", "--measure", *job.options]
    return command, retrieved if kind == "bench" else scored


def scored(printed: str) -> Scores:
    """Scores in the order of the grid."""
    return [row["score"] for row in json.loads(printed)["results"]]


def retrieved(printed: str) -> Scores:
    """Accuracies by layer."""
    rows = [row for row in json.loads(printed)["results"] if row["pair"] == "all" and row["layer"] != "all"]
    return [row["accuracy"] for row in rows]


def contenders(job: Job) -> Iterator[str]:
    """Who of a job's peers is installed."""
    for name in job.peers:
        needed = PACKAGES.get(name) or NEEDED.get(name, "numpy")
        if importlib.util.find_spec(needed) is None:
            print(f"{name}: {needed} is not installed", file=sys.stderr)
        else:
            yield name


def compared(job: Job, paths: Sequence[Path], runs: int) -> dict[str, Run]:
    """The best run of every contender, ours first; they take turns."""
    asked = {"contrasim": ours(job, paths)}
    for name in contenders(job):
        asked[name] = [sys.executable, __file__, "--run", name, *map(str, paths)], json.loads
    found: dict[str, list[Run]] = {name: [] for name in asked}
    for _ in range(runs):
        for name, (command, scores_of) in asked.items():
            found[name].append(run(command, scores_of))
    if job.command.startswith("step"):  # seconds of a step are what was printed
        return {name: min(one._replace(seconds=one.scores[0]) for one in those) for name, those in found.items()}
    return {name: min(those) for name, those in found.items()}


def difference(own: Scores, other: Scores) -> float:
    """The largest relative difference of two contenders' scores; infinite where their numbers differ."""
    if len(own) != len(other):
        return float("inf")
    return max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in zip(own, other, strict=True))


def lines(name: str, job: Job, found: dict[str, Run]) -> Iterator[tuple[str, bool]]:
    """A line of the table per peer, and whether its numbers agree with ours."""
    own = found["contrasim"]
    training = job.command.startswith("step")
    if training:
        print(f"{name}: our first step took {own.scores[1]:.2f} s more than the next", file=sys.stderr)
    for peer in list(found)[1:]:
        other = found[peer]
        apart = 0.0 if training else difference(own.scores, other.scores)
        cells = [name, f"{own.seconds:.2f}", f"{own.mebibytes:.0f}", peer, f"{other.seconds:.2f}"]
        cells += [f"{other.mebibytes:.0f}", f"{own.seconds / other.seconds:.2f}", "" if training else f"{apart:.0e}"]
        yield f"| {' | '.join(cells)} |", apart <= job.tolerance


def main() -> None:
    """Run a contender, or all of them and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument(
        "--tolerance", type=float, help="relative difference of scores that is let pass, instead of the job's"
    )
    parser.add_argument("--folder", type=Path, help="where the stores are made, and deleted")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        name, *paths = given.run
        with contextlib.redirect_stdout(sys.stderr):  # what packages tell
            kind, _, task = name.partition(" ")
            scores = our_step(paths, task) if kind == "step" else globals()[name](paths)
        print(json.dumps(scores))
        return
    agree, made = True, dict[Sizes, list[Path]]()
    print("| job | s | MiB | peer | s | MiB | ratio | difference |\n|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        for name in given.jobs:
            job = JOBS[name] if given.tolerance is None else replace(JOBS[name], tolerance=given.tolerance)
            sizes = job.sizes.scaled(given.scale) if given.scale != 1 else job.sizes
            if sizes not in made:
                made[sizes] = make_stores(Path(temporary) / f"stores_{len(made)}", sizes)
            for line, same in lines(name, job, compared(job, made[sizes], given.runs)):
                print(line + ("" if same else " DIFFERS"), flush=True)
                agree &= same
    print(
        f"peak memory of this script: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB",
        file=sys.stderr,
    )
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
