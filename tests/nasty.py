"""Pairs of matrices on which measures go wrong: few rows, low rank, constants, copies, far scales and offsets, half precision."""

from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
Pair = tuple[AnyArray, AnyArray]


def related(n: int, p: int, q: int, seed: int = 0) -> Pair:
    """X [n, p] and a noisy linear image Y [n, q] of it, with decaying variances and a common mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * np.geomspace(1, 0.05, p) + 0.5
    y = x @ rng.normal(size=(p, q)) + 0.5 * rng.normal(size=(n, q)) * np.geomspace(1, 0.05, q)
    return x, y + x[:, :1]


def low_rank(n: int, p: int, q: int) -> Pair:
    """X of rank 3 and Y of rank 4, not centred, that are related."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(n, 3)) + 0.2
    noisy = factors @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4))
    return factors @ rng.normal(size=(3, p)), noisy @ rng.normal(size=(4, q))


def with_constant_columns(pair: Pair) -> Pair:
    """The same with columns 1 and 4 of X and 0 of Y made constant."""
    x, y = pair[0].copy(), pair[1].copy()
    x[:, 1], x[:, 4], y[:, 0] = 0.1, 1e5 / 3, 0.0
    return x, y


def cases() -> dict[str, Pair]:
    """Inputs of equal widths."""
    x, y = related(30, 5, 5)
    return {
        "generic": (x, y),
        "n < width": related(8, 12, 12),
        "n < width by one": related(8, 9, 9),
        "rank-deficient": low_rank(30, 6, 6),
        "rank-deficient on one side": (low_rank(30, 5, 5)[0], y),
        "n < width, rank-deficient": low_rank(7, 9, 9),
        "constant columns": with_constant_columns((x, y)),
        "all-equal rows": (np.tile(x[:1], (30, 1)), y),
        "all-equal rows on both sides": (np.tile(x[:1], (30, 1)), np.tile(y[:1], (30, 1))),
        "duplicate rows": (np.repeat(x[:15], 2, axis=0), np.repeat(y[:15], 2, axis=0)),
        "scale 1e+6": (x * 1e6, y * 1e6),
        "scale 1e-6": (x * 1e-6, y * 1e-6),
        "scales 1e+6 and 1e-6": (x * 1e6, y * 1e-6),
        "offset 1e4": (x + 1e4, y + 1e4),
        "offsets 1e4 and -1e4": (x + 1e4, y - 1e4),
        "float16": (x.astype(np.float16), y.astype(np.float16)),
        "float32, scales 1e+30 and 1e-30": ((x * 1e30).astype(np.float32), (y * 1e-30).astype(np.float32)),
        "one column": related(30, 1, 1),
        "two rows": related(2, 4, 4),
        "two rows, one column": related(2, 1, 1),
        "X = Y": (x, x),
        "X = Y, n < width": (related(8, 12, 12)[0],) * 2,
        "a zero row": (np.vstack([x[:9], np.zeros((1, 5))]), y[:10]),
    }


def cases_of_unequal_widths() -> dict[str, Pair]:
    """Inputs that only some of the measures take."""
    return {
        "unequal widths": related(30, 6, 4),
        "n < one width": related(8, 12, 4),
        "one column against many": related(30, 1, 5),
        "float16, unequal widths": tuple(side.astype(np.float16) for side in related(30, 6, 4)),  # type: ignore[dict-item]
    }


PAIRS = cases() | cases_of_unequal_widths()
