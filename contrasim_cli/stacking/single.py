"""A learned measure over measures of two layers alone, as a pair of functions like any measure's.

It is the network's score of a grid of one cell: the calibrated one, as nothing stands beside it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from contrasim_cli.measures import Options
from contrasim_cli.measures.load import load
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.stacking.measures import identity
from contrasim_cli.stacking.network import GridNetwork


class Sides(NamedTuple):
    """A layer as every measure prepares it, its rows as they are and shuffled."""

    ahead: tuple[object, ...]
    shuffled: tuple[object, ...]


def single(network: GridNetwork, names: Sequence[str], options: Options = Options()) -> Measure:
    """The measure of two layers [n, p] and [n, q]."""
    measures = [load(name, options) for name in names]

    def prepare(x: Tensor) -> Sides:
        x = x / x.shape[-1] ** 0.5  # as grids do: lengths of rows that do not depend on how wide models are
        order = torch.randperm(x.shape[-2], generator=torch.Generator().manual_seed(options.seed)).to(x.device)
        prepared = {id(m.prepare): (m.prepare(x), m.prepare(x[..., order, :])) for m in measures}
        sides = [prepared[id(m.prepare)] for m in measures]
        return Sides(tuple(ahead for ahead, _ in sides), tuple(shuffled for _, shuffled in sides))

    def compare(a: Sides, b: Sides) -> Tensor:
        """Symmetric: the level is the mean of both sides' shuffles."""
        values = _values(measures, a.ahead, b.ahead)
        levels = (_values(measures, a.ahead, b.shuffled) + _values(measures, a.shuffled, b.ahead)) / 2
        of = torch.tensor(identity(names), dtype=values.dtype)
        return network.judge(values[:, None, None], levels[None, :, None, None], of).scores[0, 0]

    return Measure(prepare, compare)


def _values(measures: Sequence[Measure], a: Sequence[object], b: Sequence[object]) -> Tensor:
    """[measures] of one pair."""
    values = [m.compare(x, y).cpu().double() for m, x, y in zip(measures, a, b, strict=True)]
    return torch.stack(values)
