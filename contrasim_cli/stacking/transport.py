"""Scores of a grid as a matching: what many layers are similar to is worth less as the match of one.

Of two networks most layers have one counterpart in the other, or none. So the scores of a grid are seen as gains of moving mass
between the layers of both sides (optimal transport with entropy: Cuturi 2013), every layer of a side sending as much as any other,
so that those of a shallower network may have several counterparts; a bin on either side takes what has none (as of keypoints in two
images: Sarlin et al. 2020). The price of a layer there, its potential, tells how sought after it is.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ENTROPY, BIN = 0.1, -1.0  # in standard deviations of the grid; the bin's score, from its mean
CLOSE, ITERATIONS = 1e-5, 3000  # change of the potentials at which they are taken to stand
FARTHEST = 300.0  # exponent, above or below which cells are the same

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def matched(scores: Tensor, whole: bool = True) -> Tensor:
    """Scores [L, M] plus the potentials of their rows and columns, each less its mean; NaN stays NaN and counts for nothing.

    `whole`: the layers are all that two networks have, so that those of the shallower one have several counterparts; if not, every
    layer has one at most, for the others may be among those that were left out.

    The mean of the potentials is left out, so that scores of one grid may be held against those of another. Scores of a single row
    or column stay what they are: no two layers want the same one there, and masses that must be taken up would make all of them
    alike. Equivariant to the order of layers, and the same whichever side is first (Sinkhorn's iterations take
    turns on both sides at once, as in Feydy et al. 2019).
    """
    x = scores.detach().cpu().double().numpy()
    defined = ~np.isnan(x)
    if min(defined.any(axis=1).sum(), defined.any(axis=0).sum()) < 2:
        return scores
    centre, spread = x[defined].mean(), x[defined].std()
    if not spread > 0:
        return scores
    rows, columns = _potentials((x - centre) / spread / ENTROPY, defined, whole)
    return scores + torch.from_numpy(spread * ENTROPY * (rows[:, None] + columns)).to(scores)


def _potentials(x: Floats, defined: Flags, whole: bool) -> tuple[Floats, Floats]:
    """The potentials of the rows and of the columns; 0 for a line without a defined cell."""
    rows_there, columns_there = np.asarray(defined.any(axis=1)), np.asarray(defined.any(axis=0))
    cells = np.where(defined, np.exp(np.clip(x, -FARTHEST, FARTHEST)), 0.0)[rows_there][:, columns_there]
    first, second = cells.shape
    kernel = np.pad(cells, (0, 1), constant_values=np.exp(BIN / ENTROPY))
    most = max(first, second)
    of_row, of_column = (most / first, most / second) if whole else (1.0, 1.0)
    # a bin could take all of the other side
    row_mass = np.append(np.full(first, of_row), of_column * second)
    column_mass = np.append(np.full(second, of_column), of_row * first)
    rows, columns = np.ones(first + 1), np.ones(second + 1)
    for _ in range(ITERATIONS):
        of_rows, of_columns = row_mass / (kernel @ columns) / rows, column_mass / (rows @ kernel) / columns
        rows, columns = rows * np.sqrt(of_rows), columns * np.sqrt(of_columns)
        if max(np.abs(np.log(of_rows)).max(), np.abs(np.log(of_columns)).max()) < 2 * CLOSE:
            break
    return _placed(np.log(rows[:-1]), rows_there), _placed(np.log(columns[:-1]), columns_there)


def _placed(potentials: Floats, there: Flags) -> Floats:
    """Potentials less their mean, at the lines that are there."""
    every = np.zeros(len(there))
    every[there] = potentials - potentials.mean()
    return every
