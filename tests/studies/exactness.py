"""Largest relative error of every measure against its oracle, on nasty input.

    PYTHONPATH=tests python tests/studies/exactness.py [NAME ...]

A cell is the larger error of s(X, Y) and s(Y, X); of scores that the oracle puts at 0, the absolute error. `undefined` is
where measure and oracle agree that there is no value, `?` where only one of them does.
"""

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from every_oracle import ORACLES
from oracles import Array

from contrasim_cli.measures import MEASURES
from contrasim_cli.measures.load import similarity

AnyArray = npt.NDArray[Any]
AT_ZERO = 1e-9  # scores of the oracle that are smaller are 0 but for rounding


def related(n: int, width: int) -> tuple[Array, Array]:
    """X and a noisy linear image Y of it [n, width], with decaying variances and a common mean."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, width)) * np.geomspace(1, 0.05, width) + 0.5
    y = x @ rng.normal(size=(width, width)) + 0.5 * rng.normal(size=(n, width)) * np.geomspace(1, 0.05, width)
    return x, y


def low_rank(n: int, width: int) -> tuple[Array, Array]:
    """X of rank 3 and Y of rank 4 [n, width]."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(n, 3)) + 0.2
    noisy = factors @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4))
    return factors @ rng.normal(size=(3, width)), noisy @ rng.normal(size=(4, width))


def inputs() -> dict[str, tuple[AnyArray, AnyArray]]:
    """The columns of the table."""
    x, y = related(40, 6)
    constant_x, constant_y = x.copy(), y.copy()
    constant_x[:, 1], constant_y[:, 0] = 0.1, 0.0
    return {
        "generic": (x, y),
        "n < width": related(16, 25),
        "rank-deficient": low_rank(40, 6),
        "constant column": (constant_x, constant_y),
        "all-equal rows": (np.tile(x[:1], (40, 1)), y),
        "duplicate rows": (np.repeat(x[:20], 2, axis=0), np.repeat(y[:20], 2, axis=0)),
        "scale 1e6": (x * 1e6, y * 1e6),
        "scale 1e-6": (x * 1e-6, y * 1e-6),
        "offset 1e4": (x + 1e4, y + 1e4),
        "float16": (x.astype(np.float16), y.astype(np.float16)),
    }


def error(name: str, x: AnyArray, y: AnyArray) -> float | None:
    """Error of one score; NaN where it is undefined, None where measure and oracle disagree on that."""
    score, exact = similarity(name, x, y), ORACLES[name](x, y)
    if math.isnan(score) != math.isnan(exact):
        return None
    return abs(score - exact) / (abs(exact) if abs(exact) > AT_ZERO else 1.0)


def cell(name: str, x: AnyArray, y: AnyArray) -> str:
    """The larger of both directions' errors."""
    errors = [error(name, x, y), error(name, y, x)]
    if None in errors:
        return "?"
    defined = [one for one in errors if one is not None and not math.isnan(one)]
    return f"{max(defined):.0e}" if defined else "undefined"


def main(names: list[str]) -> None:
    """Print the table; measures without an oracle say so."""
    columns = inputs()
    print(f"{'':28}" + "".join(f"{column:>17}" for column in columns))
    for name in names or MEASURES:
        cells = [cell(name, x, y) if name in ORACLES else "no oracle" for x, y in columns.values()]
        print(f"{name:28}" + "".join(f"{text:>17}" for text in cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
