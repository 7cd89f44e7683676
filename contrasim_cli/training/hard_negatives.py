"""How clearly rows lie nearer to their own than to what is near it: hard negatives, mined among the rows that are trained on.

A row's margin is its cosine with its own row in another view less its largest cosine with that row's nearest neighbours, in L2
over the raw rows as in the retrieval benchmarks, equal rows left out by position and value. The margins' mean over their
standard deviation, their clearness, tells ways to treat rows apart far more finely than counting rows that are found: it is
what decides how often means over batches are right. Ways are compared on the same rows, so that what is hard about a row for
all of them drops out of the error of their difference.

Where rows lie nearer to a neighbour of their own than to their own whatever is done to them, clearness is negative, and the
noisiest margins have the one nearest to 0. There margins are taken softly, less the mean cosine with the neighbours: what means
over batches come to where single rows fail.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contrasim_cli.nearest import nearest_rows
from contrasim_cli.store.blocks import spans
from contrasim_cli.training.shuffle import Rows
from contrasim_cli.transforms import Doubles

NEIGHBOURS = 10
TILE_ROWS = 256  # compared at once


def nearest(rows: Doubles, which: Rows | None = None) -> Tensor:
    """Positions [k, NEIGHBOURS] of the nearest others, among rows [n, p], of those at `which` [k], or of all.

    -1 where no unequal ones are left.
    """
    queries = rows if which is None else rows[which]
    proposed = min(len(rows), NEIGHBOURS + _most_equal(rows))
    found, pool = [], torch.from_numpy(rows)
    for start, stop in spans(len(queries), TILE_ROWS):
        closest = nearest_rows(torch.from_numpy(queries[start:stop]), pool, proposed).positions
        equal = torch.from_numpy((rows[closest] == queries[start:stop, None]).all(axis=-1))
        ranked = closest.masked_fill(equal, -1).gather(1, equal.long().sort(dim=1, stable=True).indices)
        found.append(functional.pad(ranked, (0, NEIGHBOURS), value=-1)[:, :NEIGHBOURS])
    return torch.cat(found)


def _most_equal(rows: Doubles) -> int:
    """The number of rows that equal each other, where they are the most."""
    return int(np.unique(rows, axis=0, return_counts=True)[1].max())


def margins(unit: Tensor, near: Sequence[Tensor], which: Rows | None = None, softly: bool = False) -> Tensor:
    """Margins [ordered pairs of views, k] of unit-norm rows [views, n, d], of those at `which` [k], or of all.

    `near` [k, neighbours] has, of each view, the neighbours of these rows; a neighbour that is missing counts as opposite, and
    a row that has none has a margin of 0. `softly`: less the mean of the cosines, not the largest.
    """
    at: Any = slice(None) if which is None else which
    found = []
    for i, first in enumerate(unit):
        for j, second in enumerate(unit):
            if i != j:
                rows, others = first[at], near[j]
                own = (rows * second[at]).sum(dim=1)
                cosines = torch.einsum("rd,rkd->rk", rows, second[others.clamp_min(0)])
                cosines = cosines.masked_fill(others < 0, -1)
                margin = own - (cosines.mean(dim=1) if softly else cosines.amax(dim=1))
                found.append(margin.masked_fill((others < 0).all(dim=1), 0))
    return torch.stack(found)


def clearness(found: Tensor) -> float:
    """Mean margin over the margins' standard deviation."""
    return float(found.mean() / _deviation(found))


def weakest(ways: Sequence[Tensor]) -> int:
    """The first of some ways, in order of strength, that the clearest does not clearly beat, by their margins of the same rows.

    It does where the difference of their clearness is more than its standard error.
    """
    values = [clearness(found) for found in ways]
    best = values.index(max(values))
    return next(k for k, found in enumerate(ways) if values[best] - values[k] <= _error(ways[best], found))


def _error(one: Tensor, other: Tensor) -> float:
    """The standard error of the difference of two ways' clearness, by the influence of each row on it.

    Where margins have mean m and deviation s, a margin of m + zs moves m / s by (z - m / s · (z² - 1) / 2) / n.
    """
    apart = _influence(one) - _influence(other)
    return float(apart.std() / len(apart) ** 0.5) if len(apart) > 1 else 0.0


def _influence(found: Tensor) -> Tensor:
    scores = (found - found.mean()) / _deviation(found)
    return (scores - clearness(found) * (scores.square() - 1) / 2).mean(dim=0)


def _deviation(found: Tensor) -> Tensor:
    return found.std(correction=0).clamp_min(1e-12)
