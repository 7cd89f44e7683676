"""Whether differences may be noise: flips of clusters' signs, exchanges between sides, Holm's correction."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FLIPS = 10_000  # the one that was observed among them
TOGETHER = 500  # at once
ENUMERATED = 14  # clusters whose signs are flipped in every way

Doubles = npt.NDArray[np.float64]


def sign_flips(differences: Doubles, rng: np.random.Generator) -> float:
    """Two-sided p-value of the sum of the clusters' differences [k], against all flips of their signs or a sample of them."""
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    reached = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) <= ENUMERATED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(differences))))
        return float((np.abs(signs @ differences) >= reached).mean())
    extreme = 0
    for start in range(0, FLIPS - 1, TOGETHER):
        size = min(TOGETHER, FLIPS - 1 - start)
        signs = rng.integers(0, 2, size=(size, len(differences))) * 2.0 - 1.0
        extreme += int((np.abs(signs @ differences) >= reached).sum())
    return (1 + extreme) / FLIPS


def exchanges(
    sums: Doubles, counts: Doubles, strata: npt.NDArray[np.int64], first: int, rng: np.random.Generator
) -> float:
    """Two-sided p-value of the difference of two means when things [k] change sides with others of their stratum.

    The first `first` things are one side. A side's mean is its sums over its counts.
    """
    own = np.arange(len(strata))
    places = np.argsort(strata, kind="stable")  # the places of each stratum, together
    reached = abs(_difference(sums, counts, own[None], first)[0]) - 1e-12
    extreme = 0
    for start in range(0, FLIPS - 1, TOGETHER):
        size = min(TOGETHER, FLIPS - 1 - start)
        shuffled = np.argsort(strata + rng.random((size, len(strata))), axis=1)
        order = np.empty_like(shuffled)
        order[:, places] = shuffled
        extreme += int((np.abs(_difference(sums, counts, order, first)) >= reached).sum())
    return (1 + extreme) / FLIPS


def _difference(sums: Doubles, counts: Doubles, order: npt.NDArray[np.int64], first: int) -> Doubles:
    """[arrangements] the first side's mean minus the second's, of things in the order given."""
    total, count = sums[order], counts[order]
    one: Doubles = total[:, :first].sum(axis=1) / count[:, :first].sum(axis=1)
    two: Doubles = total[:, first:].sum(axis=1) / count[:, first:].sum(axis=1)
    return one - two


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm (1979): p-values of several tests, corrected so that no error among all is more probable than each would be."""
    order = sorted((k for k, p in enumerate(p_values) if p is not None), key=lambda k: p_values[k] or 0.0)
    out: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (p_values[k] or 0.0)))
        out[k] = highest
    return out
