"""What the benchmark scripts measure time with, and compare it to."""

import time
from collections.abc import Callable

import torch


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """The best of a few runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def product_rate(dtype: torch.dtype, side: int = 4096) -> float:
    """GFLOP/s of a square matrix product."""
    a = torch.randn(side, side).to(dtype)
    return 2 * side**3 / seconds(lambda: a @ a, 3) / 1e9
