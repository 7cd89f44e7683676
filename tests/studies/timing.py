"""What the benchmark scripts measure time with, and compare it to."""

import time
from collections.abc import Callable

import torch


def seconds(run: Callable[[], object], repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """The best of a few runs."""
    times = []
    for _ in range(repeats):
        started = clock()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times)


def product_rate(
    dtype: torch.dtype,
    side: int = 4096,
    clock: Callable[[], float] = time.perf_counter,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> float:
    """GFLOP/s of a square matrix product."""
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / seconds(lambda: a @ a, 3 if device.type == "cpu" else 10, clock) / 1e9
