"""Processor seconds of nearest rows by products beside FAISS, of the decision between the proposed rows, and of ranks.

Everything is on one thread, in turn in one run. `alone` is the matrix product alone. Ranks of all pairs of rows are those that are
sorted, beside those of bins, which stand where the pairs do not fit the memory; τ-a is of two permutations of as many values.

Run: python tests/studies/nearest.py [--count 19]
"""

import argparse
import time
from collections.abc import Callable

import faiss
import torch
from timing import seconds

from contrasim_cli.measures import neighbours
from contrasim_cli.measures.distances import ranks_of_tiles, sorted_ranks_of_tiles
from contrasim_cli.measures.kendall import tau_a
from contrasim_cli.measures.tiles import Tiles
from contrasim_cli.nearest import nearest_rows, nearest_within

SIZES = ((5000, 768), (20_000, 768), (20_000, 256), (20_000, 64), (2500, 4096))
RANKED_ROWS = 2000


def busy(work: Callable[[], object]) -> float:
    """Processor seconds, the best of three."""
    return seconds(work, 3, time.process_time)


def search(n: int, width: int, count: int) -> None:
    """One line: the search of a store of this size in itself."""
    rows = torch.randn(n, width)
    alone = busy(lambda: [rows[start : start + 200] @ rows.mT for start in range(0, n, 200)])
    pool, within = busy(lambda: nearest_rows(rows, rows, count)), busy(lambda: nearest_within(rows, count))
    theirs = busy(lambda: faiss.knn(rows.numpy(), rows.numpy(), count))
    whole = busy(lambda: neighbours.prepare(rows, 10))
    print(
        f"{n:8} x {width:<6}{alone:9.2f}{pool:9.2f}{within:9.2f}{theirs:9.2f}{theirs / within:9.2f}{whole:12.2f}",
        flush=True,
    )


def ranks() -> None:
    """Ranks of all pairs of rows, in both ways, and τ-a."""
    rows = torch.randn(RANKED_ROWS, 64, dtype=torch.float64)
    tiles = Tiles(RANKED_ROWS, lambda start, stop: rows[start:stop], 1000, torch.ones(()).double(), room=1 << 30)
    pairs = torch.cat([tile.once() for tile in tiles])
    by_bins = busy(lambda: [found.of(tile.squared) for found in [ranks_of_tiles(tiles)] for tile in tiles])
    by_sorting = busy(lambda: sorted_ranks_of_tiles(tiles))
    print(f"ranks of {len(pairs)} pairs: bins {by_bins:.2f}, sorted {by_sorting:.2f}, ratio {by_bins / by_sorting:.1f}")
    first, second = (2.0 * torch.randperm(len(pairs)).double() for _ in range(2))
    print(f"τ-a of as many: {busy(lambda: tau_a(first, second)):.2f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=19)
    given = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(f"{'rows x width':17}{'alone':>9}{'pool':>9}{'within':>9}{'FAISS':>9}{'ratio':>9}{'and decided':>12}")
    for size in SIZES:
        search(*size, given.count)
    ranks()


if __name__ == "__main__":
    main()
