"""Means, spreads and cluster-bootstrap intervals of outcomes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds

RESAMPLES = 2000
LEVEL = 0.95
DRAWN = 1 << 22  # clusters drawn at once

Outcomes = npt.NDArray[np.floating[Any]]


def mean(values: Outcomes) -> float | None:
    """The mean, or None where a value is missing or there is none."""
    return None if values.size == 0 or bool(np.isnan(values).any()) else float(values.mean())


def defined_mean(values: Outcomes) -> float | None:
    """The mean of the values that there are, or None."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def spread(values: Outcomes) -> float | None:
    """Population standard deviation; None for fewer than two values, of which there is none."""
    return None if values.size < 2 or bool(np.isnan(values).any()) else float(values.std())


def cluster_interval(
    by_cluster: Outcomes, seed: int, sizes: Outcomes | None = None
) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean of clusters [k], resampled whole; None for fewer than two.

    Clusters count alike, or, where they are sums over so many trials (`sizes`), trials do.
    """
    if by_cluster.size < 2 or bool(np.isnan(by_cluster).any()):
        return None, None
    rng = seeds.stream(seed, seeds.INTERVALS)
    count = by_cluster.size
    together = max(1, DRAWN // count)
    means = []
    for done in range(0, RESAMPLES, together):
        drawn = rng.integers(0, count, size=(min(together, RESAMPLES - done), count))
        found = by_cluster[drawn].mean(axis=1)
        means.append(found if sizes is None else found / sizes[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
