"""Seconds of retrieval benchmarks, beside the same protocol as a plain loop over batches and candidates, all in one run.

The plain loops are NumPy, float32, rows in memory: for every layer, pair of views and kind of negatives, for every batch,
for the right batch and ten candidates: take the rows, compare. `cka` centres both sides and compares their Gram matrices,
which for 8 rows of width 768 is the cheap form. `encoder` sends the query's batch through the MLP once per batch and each
batch it is compared with once per comparison; `encoder, rows encoded before` takes encoded rows instead. Loops are timed
on the first batches of one pair of one layer and scaled. Candidates are given to both; the search has a line of its own.
Every time is told by the clock and by processor time, which other processes on the machine disturb less.

Run: python tests/studies/retrieval.py [--views 5] [--layers 12] [--rows 5000] [--width 768] [--batch-size 8]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from timing import product_rate

from contrasim_cli.benchmarks import retrieval as run
from contrasim_cli.benchmarks.retrieval import all_pairs, retrieval
from contrasim_cli.benchmarks.retrieval_task import RetrievalTask, batches, random_candidates
from contrasim_cli.encoder import Checkpoint, Config, Encoder
from contrasim_cli.rows.exact_search import Pool, nearest_candidates
from contrasim_cli.scoring import Scorer, closed_form
from contrasim_cli.store import LayerSpec, StoreWriter, View, align, open_stores

SLICE = 60  # batches that plain loops are timed on
REPEATS = 3
BUDGET = 2 << 30

Rows = npt.NDArray[np.float32]


class Spent(NamedTuple):
    """Seconds by the clock, and of the processor."""

    wall: float
    busy: float

    def times(self, factor: float) -> "Spent":
        """As much, so many times."""
        return Spent(self.wall * factor, self.busy * factor)


def spent(work: Callable[[], object], repeats: int = 1) -> Spent:
    """The best of a few runs."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return Spent(*(min(times) for times in zip(*found, strict=True)))


def make_stores(folder: Path, views: int, layers: int, rows: int, width: int) -> list[Path]:
    """Views of the same rows with other noise, float16."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((rows, 64), dtype=np.float32)
    paths = [folder / f"view_{v}.h5" for v in range(views)]
    mixes = [rng.standard_normal((64, width), dtype=np.float32) / 4 for _ in range(layers)]
    for path in paths:
        specs = [LayerSpec(f"hidden_{k}", width, "float16") for k in range(1, layers + 1)]
        with StoreWriter(path, specs, rows, (str(i) for i in range(rows))) as writer:
            for spec, mix in zip(specs, mixes, strict=True):
                writer.write(spec.name, 0, shared @ mix + rng.standard_normal((rows, width), dtype=np.float32))
    return paths


def encoder_scorer(width: int) -> Scorer:
    """A ContraSim encoder of the paper's sizes with random weights, which take as long as others."""
    torch.manual_seed(0)
    config = Config("pairs", "contrasim", (width,))
    (dot,) = closed_form(["dot"])
    return Scorer("contrasim", dot.entry, dot.measure, Checkpoint(Encoder(config)))


# --- the plain loops --------------------------------------------------------------------------------------------------


def plain_cka(x: Rows, y: Rows) -> float:
    """Linear CKA of two batches by their Gram matrices."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return float((k * l).sum() / (np.linalg.norm(k) * np.linalg.norm(l)))


def plain_encoder(encoder: Encoder) -> Callable[[Rows], Rows]:
    """The forward pass of an MLP in NumPy."""
    linear = [m for m in [*encoder.first.values(), *encoder.rest.modules()] if isinstance(m, torch.nn.Linear)]
    weights = [(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy()) for m in linear]

    def encode(x: Rows) -> Rows:
        for k, (matrix, bias) in enumerate(weights):
            x = (np.maximum(x, 0) if k else x) @ matrix + bias
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    return encode


def plain_dot(x: Rows, y: Rows) -> float:
    """Mean dot product of paired rows."""
    return float((x * y).sum(axis=1).mean())


def plain_loop(
    x: Rows,
    y: Rows,
    chosen: npt.NDArray[np.int64],
    cut: list[npt.NDArray[np.int64]],
    made: Callable[[Rows], Rows],
    score: Callable[[Rows, Rows], float],
) -> list[bool]:
    """Whether the right batch scores highest, batch by batch."""
    right = []
    for batch in cut:
        query = made(x[batch])
        own = score(query, made(y[batch]))
        right.append(own > max([score(query, made(y[candidate])) for candidate in chosen[batch].T]))
    return right


def main() -> None:
    """Parse the sizes and print the table."""
    parser = argparse.ArgumentParser()
    for name, value in (("views", 5), ("layers", 12), ("rows", 5000), ("width", 768), ("batch-size", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        views = align(open_stores(make_stores(Path(folder), given.views, given.layers, given.rows, given.width)))
        compare(views, given.batch_size)
    print(f"peak memory of this run: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def compare(views: list[View], batch_size: int) -> None:
    """Search, then both scorers, each beside its plain loop."""
    names = [list(view.store.layers) for view in views]
    kinds = ["random", "faiss"]
    task = RetrievalTask(views, [view.store.stem for view in views], names, all_pairs(len(views)), kinds, batch_size)
    width, n_rows = views[0].store.layer(names[0][0]).width, task.n_rows
    print(
        f"{len(views)} views x {len(names[0])} layers x {n_rows} rows x {width}, batches of {batch_size}; "
        f"{torch.get_num_threads()} threads"
    )
    found: dict[tuple[str, str], npt.NDArray[np.int64]] = {}

    def search() -> None:
        for view in views:
            for name in names[0]:
                found[view.store.stem, name] = nearest_candidates(Pool(view, name), Pool(view, name), budget=BUDGET)

    rate = spent(lambda: product_rate(torch.float32)).times(1 / (3 * 2 * 4096**3))
    searching = spent(search)
    operations = 2.0 * n_rows**2 * width * len(found)
    print(f"{'':34}{'seconds':>9}{'plain':>10}{'ratio':>8}   processor: {'seconds':>8}{'plain':>10}{'ratio':>8}")
    print(f"{'search of nearest neighbours':34}{searching.wall:9.2f}{'':18}{searching.busy:23.2f}")
    print(
        f"{'  as part of the product rate':34}{operations * rate.wall / searching.wall:9.0%}"
        f"{operations * rate.busy / searching.busy:41.0%}"
    )
    run.nearest_candidates = lambda queries, pool, **options: found[queries.view.store.stem, queries.layer]
    cut = batches(n_rows, batch_size)
    x, y = (views[v].read(names[v][0]) for v in range(2))
    chosen = {"random": random_candidates(n_rows, cut, 0), "faiss": found[views[1].store.stem, names[1][0]]}
    scale = len(task.pairs) * len(names[0]) * len(cut) / min(SLICE, len(cut))
    learned = encoder_scorer(width)
    assert learned.checkpoint is not None
    encode = plain_encoder(learned.checkpoint.encoder)
    encoded = [encode(side) for side in (x, y)]
    rows = [
        ("cka", closed_form(["cka"])[0], (x, y), lambda side: side, plain_cka),
        ("encoder", learned, (x, y), encode, plain_dot),
        ("encoder, rows encoded before", learned, encoded, lambda side: side, plain_dot),
    ]
    fast: dict[str, tuple[Spent, list[object]]] = {}
    for label, scorer, (first, second), made, score in rows:
        if scorer.name not in fast:
            kept: list[object] = []
            options = {"hold_out": False, "device": torch.device("cpu"), "budget": BUDGET}
            ours = spent(lambda: kept.append(retrieval(task, [scorer], **options)), REPEATS)  # noqa: B023
            fast[scorer.name] = ours, kept[-1]
        ours, trials = fast[scorer.name]
        plain = Spent(0.0, 0.0)
        for kind, candidates in chosen.items():
            right: list[list[bool]] = []
            loop = spent(lambda: right.append(plain_loop(first, second, candidates, cut[:SLICE], made, score)))  # noqa: B023
            plain = Spent(plain.wall + loop.wall * scale, plain.busy + loop.busy * scale)
            (same,) = [t for t in trials if t.negatives == kind]
            agree = np.mean(np.array(right[0]) == same.outcomes[0, 0, :SLICE])
            assert agree == 1, f"{label}, {kind}: {agree:.1%} of the outcomes agree"
        print(
            f"{label:34}{ours.wall:9.2f}{plain.wall:10.1f}{plain.wall / ours.wall:8.1f}"
            f"{ours.busy:23.2f}{plain.busy:10.1f}{plain.busy / ours.busy:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
