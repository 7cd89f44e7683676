"""How clearly rows lie nearer to their own than to what is near it: hard negatives, mined among the rows that are trained on.

A row's margins are its cosine with its own row in another view less its cosines with that row's nearest neighbours, in L2 over
the raw rows as in the retrieval benchmarks, equal rows left out by position and value. Their mean over their standard deviation
tells ways to standardise apart far more finely than counting rows that are found: it is what decides how often means over
batches are right.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contrasim_cli.encoder import Config
from contrasim_cli.training.data import Data
from contrasim_cli.training.order import Rows
from contrasim_cli.training.within import centred_rows, factor, level, scatter, spectrum, trained_scatter
from contrasim_cli.transforms import Doubles, Standardization, Standardizer, transform

NEIGHBOURS = 3
FOLDS = 4
WITHIN = tuple(Standardization("within", shrinkage) for shrinkage in (0.1, 0.03, 0.01))
TILE_ROWS = 256  # compared at once


def nearest(rows: Doubles) -> Tensor:
    """Positions [n, NEIGHBOURS] of each row's nearest others among rows [n, p]; -1 where no unequal ones are left."""
    values = torch.from_numpy(rows)
    squares = values.square().sum(dim=1)
    proposed = min(len(values), NEIGHBOURS + _most_equal(rows))
    found = []
    for start in range(0, len(values), TILE_ROWS):
        tile = values[start : start + TILE_ROWS]
        distance = squares[start : start + TILE_ROWS, None] + squares - 2 * tile @ values.T
        closest = distance.topk(proposed, largest=False).indices
        equal = (values[closest] == tile[:, None]).all(dim=-1)
        ranked = closest.masked_fill(equal, -1).gather(1, equal.long().sort(dim=1, stable=True).indices)
        found.append(functional.pad(ranked, (0, NEIGHBOURS), value=-1)[:, :NEIGHBOURS])
    return torch.cat(found)


def _most_equal(rows: Doubles) -> int:
    """The number of rows that equal each other, where they are the most."""
    return int(np.unique(rows, axis=0, return_counts=True)[1].max())


def margins(unit: Tensor, near: Sequence[Tensor], which: slice) -> Tensor:
    """All margins of some rows of unit-norm rows [views, n, d], over every ordered pair of views."""
    found = []
    for i, first in enumerate(unit):
        for j, second in enumerate(unit):
            if i != j:
                rows, others = first[which], near[j][which]
                own = (rows * second[which]).sum(dim=1, keepdim=True)
                margin = own - torch.einsum("rd,rkd->rk", rows, second[others.clamp_min(0)])
                found.append(margin[others >= 0])
    return torch.cat(found)


def clearness(found: Tensor) -> float:
    """Mean margin over its standard deviation; 0 where there are no margins."""
    return float(found.mean() / found.std(correction=0).clamp_min(1e-12)) if len(found) else 0.0


def compared(
    data: Data, standardizer: Standardizer, config: Config, layers: Sequence[int], rows: Rows, how: Standardization
) -> dict[str, float]:
    """The mean clearness, over layers, of rows standardised in one way, and by how views differ.

    How views differ is estimated without the rows that it is judged by, a fold of them at a time.
    """
    table = [_of_layer(data, standardizer, config, k, rows, how) for k in layers]
    means = np.mean(table, axis=0)
    return {one.text: float(value) for one, value in zip((how, *WITHIN), means, strict=True)}


def _of_layer(
    data: Data, standardizer: Standardizer, config: Config, k: int, rows: Rows, how: Standardization
) -> list[float]:
    centred = centred_rows(data, standardizer, k, rows)
    near = [nearest(view) for view in centred]
    names = [layers[k] for layers in data.layers]
    standardised = [
        transform(how, standardizer.statistics(v, name))(centred[v] + standardizer.statistics(v, name).mean)
        for v, name in enumerate(names)
    ]
    found = [clearness(margins(_unit(np.stack(standardised)), near, slice(None)))]
    total, count = trained_scatter(data, standardizer, k, config)
    variance = level(data, standardizer, k)
    folds = [slice(part[0], part[-1] + 1) for part in np.array_split(np.arange(len(rows)), FOLDS) if len(part)]
    left = [spectrum((total - scatter(centred[:, fold])) / (count - len(rows[fold]))) for fold in folds]
    for one in WITHIN:
        maps = [factor(of, variance, one.shrinkage) for of in left]
        parts = [margins(_unit(centred @ made), near, fold) for made, fold in zip(maps, folds, strict=True)]
        found.append(clearness(torch.cat(parts)))
    return found


def _unit(rows: Doubles) -> Tensor:
    return functional.normalize(torch.from_numpy(rows).float(), dim=-1)
