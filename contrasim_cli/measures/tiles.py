"""Squared distances between the rows of one layer, as tiles of the upper half of an n × n matrix. All in float64."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from contrasim_cli import distributed, seeds
from contrasim_cli.arrays import Tensor, as_tensor, xp

INEXACT = 1e-5  # squared distances below this part of both rows' squared norms are computed from the difference
GATHERED = 1 << 24  # values of rows gathered at once


class RowMap(NamedTuple):
    """What is done to raw rows [k, p] before their distances are taken, by which it scales these."""

    apply: Callable[[Tensor], Tensor]
    scale: Tensor  # a distance of raw rows over one of mapped rows


@dataclass(frozen=True)
class Tile:
    """‖x_r - x_s‖² of a run of rows r and a run of rows s, which are the same on the diagonal and else come later."""

    top: int
    left: int
    shape: tuple[int, int]  # h, w
    find: Callable[[], Tensor]

    @cached_property
    def squared(self) -> Tensor:
        """The squared distances [h, w], found when they are first asked for."""
        return self.find()

    @property
    def on_diagonal(self) -> bool:
        """Whether every pair is in it twice, and each row with itself."""
        return self.top == self.left

    @property
    def rows(self) -> slice:
        """The rows r of the tile."""
        return slice(self.top, self.top + self.shape[0])

    @property
    def columns(self) -> slice:
        """The rows s of the tile."""
        return slice(self.left, self.left + self.shape[1])

    def once(self) -> Tensor:
        """The squared distances of its pairs r < s [pairs]."""
        return upper(self.squared) if self.on_diagonal else self.squared.flatten()

    def without_self(self, values: Tensor) -> Tensor:
        """Values [h, w] with zeros for each row with itself."""
        return values.fill_diagonal_(0.0) if self.on_diagonal else values

    def row_sums(self, values: Tensor, sums: Tensor) -> None:
        """Add the sums of a symmetric matrix's rows [n], of which these values [h, w] are a tile."""
        sums[self.rows] += values.sum(dim=1)
        if not self.on_diagonal:
            sums[self.columns] += values.sum(dim=0)


def upper(matrix: Tensor) -> Tensor:
    """Entries above the diagonal [..., pairs] of [..., n, n], row by row."""
    position = xp.arange(matrix.shape[-1], device=matrix.device)
    return matrix[..., position > position[:, None]]


def between(a: Tensor, b: Tensor) -> Tensor:
    """‖a_r - b_s‖² [..., t, n] of rows [..., t, p] and [..., n, p].

    ‖a_r‖² + ‖b_s‖² - 2 a_r · b_s cancels where rows are close; those distances come from the difference.
    """
    both = a.square().sum(dim=-1)[..., :, None] + b.square().sum(dim=-1)[..., None, :]
    squared = (a @ b.mT).mul_(-2).add_(both).clamp_(min=0.0)
    *lead, first, second = (squared < both.mul_(INEXACT)).nonzero(as_tuple=True)
    step = max(1, GATHERED // max(1, a.shape[-1]))
    for start in range(0, len(first), step):
        of = [index[start : start + step] for index in lead]
        one, other = first[start : start + step], second[start : start + step]
        squared[(*of, one, other)] = (a[(*of, one)] - b[(*of, other)]).square().sum(dim=-1)
    return squared


@dataclass
class Tiles:
    """The tiles of one layer. Made anew in every pass, but for those that fit `room` bytes.

    Ranks share them: each passes over its own, and what it finds there is put together with what others find. `sortable`: whether
    all pairs may be sorted at once, and their places be held.
    """

    n_rows: int
    mapped: Callable[[int, int], Tensor]  # rows [stop - start, p] whose distances are meant
    side: int
    scale: Tensor
    room: int = 0
    sortable: bool = False
    _kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _row: tuple[int, Tensor] | None = None

    @property
    def pairs(self) -> int:
        """How many pairs of rows r < s there are."""
        return self.n_rows * (self.n_rows - 1) // 2

    @property
    def positions(self) -> list[tuple[int, int]]:
        """Top and left of every tile, on the diagonal and above it."""
        starts = range(0, self.n_rows, self.side)
        return [(top, left) for top in starts for left in starts if left >= top]

    @property
    def own_positions(self) -> Sequence[tuple[int, int]]:
        """The positions of this rank's tiles."""
        return distributed.dealt(self.positions)

    def __iter__(self) -> Iterator[Tile]:
        return (self.at(*position) for position in self.own_positions)

    def passing(self) -> Iterator[Tile]:
        """This rank's tiles, none of which is kept: for what needs distances once."""
        return (self.at(*position, keep=False) for position in self.own_positions)

    def pairs_at(self, top: int, left: int) -> int:
        """How many pairs of rows r < s are in a tile."""
        height, width = self._shape(top, left)
        return height * (height - 1) // 2 if top == left else height * width

    def at(self, top: int, left: int, keep: bool = True) -> Tile:
        """The tile at a place; `keep` it, once it is found, while there is room."""
        return Tile(top, left, self._shape(top, left), lambda: self._found(top, left, keep))

    def _shape(self, top: int, left: int) -> tuple[int, int]:
        return min(self.side, self.n_rows - top), min(self.side, self.n_rows - left)

    def _found(self, top: int, left: int, keep: bool) -> Tensor:
        found = self._kept.get((top, left))
        if found is None:
            first = self._first(top)
            found = between(first, first if left == top else self._rows(left))
            if keep and found.nelement() * found.itemsize <= self.room:
                self.room -= found.nelement() * found.itemsize
                self._kept[top, left] = found
        return found

    def _rows(self, start: int) -> Tensor:
        return self.mapped(start, min(start + self.side, self.n_rows))

    def _first(self, top: int) -> Tensor:
        """The rows of a line of tiles, which follow each other."""
        if self._row is None or self._row[0] != top:
            self._row = (top, self._rows(top))
        return self._row[1]

    def sample(self, count: int) -> Tensor:
        """Squared distances [about count] of pairs r < s, of each tile in proportion; of all pairs where there are no more."""
        rng = np.random.default_rng(seeds.SAMPLED_PAIRS)
        found, own = [self.scale.new_empty(0)], set(self.own_positions)
        for position in self.positions:  # those of all ranks, of whose pairs the same are drawn by however many
            pairs = self.pairs_at(*position)
            drawn = (
                None
                if self.pairs <= count
                else rng.integers(pairs, size=max(1, count * pairs // self.pairs) if pairs else 0)
            )
            if position in own:
                values = self.at(*position).once()
                found.append(values if drawn is None else values[as_tensor(drawn, values.device)])
        return distributed.joined_values(xp.cat(found))
