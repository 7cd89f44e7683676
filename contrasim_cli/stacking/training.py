"""How a network over grids learns which layer of another model is the same.

An anchor is a layer of one store, its positives are the same layer of the other (or the nearest in relative depth), its
negatives are all others, and the cells of a grid whose rows are shuffled: scores are of correspondence, not of depth.
Every step cuts some layers out of some pairs of stores, leaves measures out, and moves advantages a little.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli import losses, seeds
from contrasim_cli.stacking.features import advantages

LEFT_OUT, MOVED = 0.1, 0.02  # part of the measures, and standard deviation of what is added to advantages
MATCHED = 0.8  # part of the cuts whose layers correspond


@dataclass(frozen=True)
class Example:
    """A pair of stores: values [K, L, M], the same with rows shuffled [S, K, L, M], and which cells [L, M] are positives."""

    values: Tensor
    shuffled: Tensor
    positives: Tensor
    group: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Layers of both sides."""
        return self.values.shape[-2], self.values.shape[-1]


def same_depth(first: int, second: int) -> Tensor:
    """[first, second] which layers correspond: the same index, or of other depths the nearest in relative depth, both ways."""
    a, b = torch.linspace(0, 1, first, dtype=torch.float64), torch.linspace(0, 1, second, dtype=torch.float64)
    apart = (a[:, None] - b[None]).abs()
    nearest = (apart <= apart.amin(dim=1, keepdim=True) + 1e-9) | (apart <= apart.amin(dim=0, keepdim=True) + 1e-9)
    return nearest


class Batches:
    """Draws of examples for the steps of a run, by seed and step alone; every group of examples is drawn as often."""

    def __init__(self, examples: Sequence[Example], identity: Tensor, size: int, seed: int) -> None:
        self.identity, self.size, self.seed = identity, size, seed
        shapes: dict[tuple[int, int], list[Example]] = {}
        for example in examples:
            upright = example if example.shape[0] <= example.shape[1] else _transpose(example)
            shapes.setdefault(upright.shape, []).append(upright)
        self.shapes = [_Shape.of(shapes[shape]) for shape in sorted(shapes)]
        groups = np.array([len(shape.groups) for shape in self.shapes])
        self.weights = groups / groups.sum()

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages [size, K, l, m], those of shuffled rows, and positives [size, l, m]."""
        rng = seeds.stream(self.seed, seeds.GRID_STEPS, step)
        shape = self.shapes[rng.choice(len(self.shapes), p=self.weights)]
        values, level, null, positives = shape.cut(rng, self.size)
        if rng.random() < 0.5:
            values, level, null, positives = values.mT, level.mT, null.mT, positives.mT
        mask = torch.from_numpy(rng.random((self.size, len(self.identity), 1, 1)) >= LEFT_OUT)
        gone = ~(mask | ~mask.any(dim=1, keepdim=True))
        moved = torch.from_numpy(MOVED * rng.normal(size=(2, *values.shape)))
        u, v = (
            (advantages(x, level, self.identity) + by).masked_fill(gone, torch.nan).float()
            for x, by in zip((values, null), moved, strict=True)
        )
        return u, v, positives


@dataclass(frozen=True)
class _Shape:
    """All examples of one shape, stacked: values [N, K, L, M], shuffled [N, S, K, L, M], positives [N, L, M]."""

    values: Tensor
    shuffled: Tensor
    positives: Tensor
    groups: Sequence[npt.NDArray[np.int64]]  # positions of the examples of each group

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "_Shape":
        names = sorted({example.group for example in examples})
        groups = [np.array([k for k, e in enumerate(examples) if e.group == name]) for name in names]
        least = min(len(e.shuffled) for e in examples)
        return cls(
            torch.stack([e.values for e in examples]),
            torch.stack([e.shuffled[:least] for e in examples]),
            torch.stack([e.positives for e in examples]),
            groups,
        )

    def cut(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some layers of some examples: values, levels and values of shuffled rows [size, K, l, m], positives [size, l, m]."""
        first, second = self.positives.shape[1:]
        down, across = (int(rng.integers(min(2, layers), layers + 1)) for layers in (first, second))
        examples = np.array([rng.choice(self.groups[g]) for g in rng.integers(len(self.groups), size=size)])
        rows = np.sort(rng.random((size, first)).argsort(axis=1)[:, :down], axis=1)
        # mostly the layers that correspond, so that small cuts have positives
        matched = np.take_along_axis(self.positives[examples].numpy(), rows[:, :, None], axis=1).any(axis=1)
        keys = rng.random((size, second)) + ~matched * (rng.random((size, 1)) < MATCHED)
        columns = np.sort(keys.argsort(axis=1)[:, :across], axis=1)
        at, i, j = examples[:, None, None], rows[:, :, None], columns[:, None, :]
        level_index, null_index = rng.permutation(self.shuffled.shape[1])[[0, -1]]
        grids = (self.values, self.shuffled[:, level_index], self.shuffled[:, null_index])
        values, level, null = (grid[at, :, i, j].movedim(-1, 1) for grid in grids)
        return values, level, null, self.positives[at, i, j]


def _transpose(example: Example) -> Example:
    return Example(example.values.mT, example.shuffled.mT, example.positives.mT, example.group)


def loss(objective: str, scores: Tensor, nulls: Tensor, positives: Tensor) -> Tensor:
    """Eq. 3 or SupCon of scores [members, B, L, M], anchors being the layers of both sides; the mean over members."""
    return _of_side(objective, scores, nulls, positives) + _of_side(objective, scores.mT, nulls.mT, positives.mT)


def _of_side(objective: str, scores: Tensor, nulls: Tensor, positives: Tensor) -> Tensor:
    mask = torch.cat([positives, torch.zeros_like(positives)], dim=-1).expand(*scores.shape[:-1], -1).flatten(0, -2)
    s = torch.cat([scores, nulls], dim=-1).flatten(0, -2)
    if objective == "supcon":
        return losses.supcon(s, mask, torch.ones_like(mask))
    return losses.contrasim(s, mask, ~mask) / len(s)
