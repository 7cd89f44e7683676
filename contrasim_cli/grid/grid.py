"""What a grid compares, how its rows are read, and the state that all forms of measures share."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed
from contrasim_cli.arrays import NUMPY, Device, Tensor, xp
from contrasim_cli.device import device_budget, is_little
from contrasim_cli.errors import ContraSimError, InputError, raise_all
from contrasim_cli.measures import work
from contrasim_cli.nulls import Null
from contrasim_cli.progress import Progress, silent
from contrasim_cli.rows import Room, stored_rows
from contrasim_cli.rows import Rows as ReadRows
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import View
from contrasim_cli.store.blocks import spans

BLOCK_BYTES = 64 << 20  # of all layers together in float64, whatever --memory is: other blocks are other roundings
FEWEST_ROWS, MOST_ROWS = 64, 1024  # of a block
FEWEST_BLOCKS = 16  # unless these would be too small: what ranks share

Layer = tuple[int, str]  # view, name
Rows = Callable[[Layer, int, int], Tensor]


@dataclass(frozen=True)
class Plan:
    """Which layers meet which: for every pair of views, the layers of either side."""

    views: Sequence[View]
    pairs: Sequence[tuple[int, int]]
    first: Sequence[Sequence[str]]
    second: Sequence[Sequence[str]]

    @property
    def n_rows(self) -> int:
        """Rows of every view."""
        return self.views[0].n_rows

    @property
    def layers(self) -> list[Layer]:
        """Every layer that some pair needs, once."""
        sides = [((a, self.first[a]), (b, self.second[b])) for a, b in self.pairs]
        return list(dict.fromkeys((view, name) for pair in sides for view, names in pair for name in names))

    def width(self, layer: Layer) -> int:
        """Neurons of a layer."""
        return self.views[layer[0]].store.layer(layer[1]).width

    def repeats(self, layer: Layer) -> int:
        """How many measurements of a layer lie side by side."""
        return self.views[layer[0]].store.layer(layer[1]).repeats

    def problems(self, scorer: Scorer) -> list[ContraSimError]:
        """Why layers cannot go through a scorer's encoder."""
        by_view: dict[int, list[str]] = {}
        for view, name in self.layers:
            by_view.setdefault(view, []).append(name)
        return [problem for view, names in by_view.items() for problem in scorer.check(self.views[view].store, names)]

    def cells(self) -> Iterator[tuple[Layer, Layer]]:
        """Every pair of layers."""
        for a, b in self.pairs:
            for one in self.first[a]:
                for other in self.second[b]:
                    yield (a, one), (b, other)


@dataclass
class Reader:
    """Rows of layers as tensors; kept in memory as they are stored where all fit, so that later passes read nothing.

    Of several ranks each works on its blocks of rows, and keeps those alone; the rows of others are read from disk when asked for.
    `encoded` is how wide an encoder makes rows, where that may be more than they are.
    """

    plan: Plan
    device: Device
    budget: int
    encoded: int = 0
    _first: dict[Layer, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.size = sum(self.plan.n_rows * self.plan.width(layer) * self._itemsize(layer) for layer in self.plan.layers)
        self._bytes_held = self.size * self._most_rows // self.plan.n_rows
        self.in_memory = self._bytes_held <= self.budget // 2
        self._held: dict[Layer, ReadRows] = {}
        self._rows = {(v, name): self._stored(self.plan.views[v], name) for v, name in self.plan.layers}

    def _stored(self, view: View, name: str) -> ReadRows:
        # what a view changes, such as by standardising, has digits that the stored type may not have
        return stored_rows(view, name, self.device, widened=type(view) is not View)

    def _itemsize(self, layer: Layer) -> int:
        return self.plan.views[layer[0]].store.layer(layer[1]).read_dtype.itemsize

    def load(self, progress: Progress) -> None:
        """Read what fits once; the bad values of all layers are reported together."""
        if self.in_memory and len(self._held) < len(self._rows):
            distributed.agreed(lambda: self._load(progress))

    def _load(self, progress: Progress) -> None:
        problems: list[ContraSimError] = []
        self._start, self._stop = self.span
        every = self._stop - self._start == self.plan.n_rows
        missing = {layer: rows for layer, rows in self._rows.items() if layer not in self._held}
        with progress("reading", len(missing), "layers") as advance:
            for layer, rows in missing.items():
                own = rows if every else rows.within(np.arange(self._start, self._stop))
                try:
                    self._held[layer] = own.hold(Room(self.size))
                except InputError as problem:
                    problems.append(problem)
                advance(1)
        raise_all(problems)

    def release(self, layer: Layer) -> None:
        """Keep a layer's rows no longer; `load` does again."""
        if layer in self._held:
            self._held.pop(layer).release()

    def rows(self, layer: Layer, start: int, stop: int) -> Tensor:
        """Raw rows [stop - start, p]."""
        if layer in self._held and self._start <= start and stop <= self._stop:
            return self._held[layer].span(start - self._start, stop - self._start)
        return self._rows[layer].span(start, stop)

    def chosen(self, layer: Layer, rows: npt.NDArray[np.int64]) -> Tensor:
        """The given raw rows [len(rows), p]."""
        return self._rows[layer].take(rows)

    def shifted(self, layer: Layer, start: int, stop: int, double: bool = False) -> Tensor:
        """Rows minus the layer's first row: of a large common offset no digit is lost, a constant column is zero."""
        rows, first = self.rows(layer, start, stop), self.first(layer)
        return rows.double() - first.double() if double else rows - first

    def squares_fit(self, layer: Layer) -> bool:
        """Whether fourth powers of the values neither overflow nor vanish in float64, as those of a float64 store may."""
        if self._itemsize(layer) < 8:
            return True
        own = max((float(self.shifted(layer, *block).abs().amax()) for block in self.blocks), default=0.0)
        largest = float(distributed.largest(xp.tensor(own, dtype=xp.float64, device=self.device)))
        return largest == 0 or 1e-60 < largest < 1e60

    def first(self, layer: Layer) -> Tensor:
        """The layer's first row [1, p]."""
        if layer not in self._first:
            self._first[layer] = self.rows(layer, 0, 1).clone()
        return self._first[layer]

    @cached_property
    def block_rows(self) -> int:
        """Rows per block, whose values of all layers take about BLOCK_BYTES; the same for every pass over the rows."""
        values = sum(max(self.encoded, self.plan.width(layer)) for layer in self.plan.layers)
        most = min(MOST_ROWS, -(-self.plan.n_rows // FEWEST_BLOCKS), BLOCK_BYTES // max(1, 8 * values))
        return max(FEWEST_ROWS, most)

    @property
    def blocks(self) -> Sequence[tuple[int, int]]:
        """Where this rank's blocks of rows begin and end; the cut of all rows follows from data and options alone."""
        return distributed.share(list(spans(self.plan.n_rows, self.block_rows)))

    @property
    def span(self) -> tuple[int, int]:
        """Where this rank's rows begin and end."""
        blocks = self.blocks
        return (blocks[0][0], blocks[-1][1]) if blocks else (0, 0)

    @property
    def _most_rows(self) -> int:
        """Rows of the rank that has most, or a few more."""
        blocks = -(-self.plan.n_rows // self.block_rows)
        return min(self.plan.n_rows, -(-blocks // distributed.world()) * self.block_rows)

    def each_block(self, progress: Progress, doing: str = "comparing") -> Iterator[tuple[int, int]]:
        """The blocks of rows, one after another, with progress."""
        start, stop = self.span
        with progress(doing, stop - start, "rows") as advance:
            for block in self.blocks:
                yield block
                advance(block[1] - block[0])

    @property
    def free(self) -> int:
        """What the budget leaves beside the rows kept."""
        return max(0, self.budget - (self._bytes_held if self.in_memory else 0))


@dataclass(frozen=True)
class Blocks:
    """Raw rows [n, p] of one layer, block by block and as often as asked."""

    reader: Reader
    layer: Layer

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.reader.plan.n_rows

    def rows(self, start: int, stop: int) -> Tensor:
        """Some of the rows."""
        return self.reader.rows(self.layer, start, stop)

    def __iter__(self) -> Iterator[Tensor]:
        return (self.rows(start, stop) for start, stop in spans(self.n_rows, self.reader.block_rows))


Cell = tuple[int, Layer, Layer]  # position of the scorer, both layers
Scores = dict[Cell, float]


@dataclass
class Grid:
    """Scores of every scorer for every pair of layers of a plan."""

    plan: Plan
    scorers: Sequence[Scorer]
    device: Device
    budget: int
    precision: str = "auto"  # of products; `auto`: float64 where NumPy has little work, else float32
    seed: int = 0
    progress: Progress = silent
    shuffles: int | None = (
        None  # that encoders of measures are judged by, besides the one that is their level; None: one
    )
    levels: bool = False  # whether the scores of shuffled rows are found, where they have a closed form

    def __post_init__(self) -> None:
        if self.precision == "auto":
            little = self.device is NUMPY and is_little(self._multiplications())
            self.precision = "float64" if little else "float32"
        # ranks that differed in it would pass over the rows in different ways
        self.budget = min(distributed.gathered(device_budget(self.budget, self.device)))
        encoded = max((scorer.encoded for scorer in self.scorers), default=0)
        self.reader = Reader(self.plan, self.device, self.budget, encoded)
        self.scores: Scores = {}
        self.shuffled: dict[Cell, tuple[float, float]] = {}  # mean and standard deviation over all shuffles
        self.nulls: dict[tuple[int, int, int], Null] = {}  # by scorer and pair of views (s, a, b), where there are any

    def _multiplications(self) -> float:
        """About as many as all cells take of the closed forms."""
        pairs = [(self.plan.width(one), self.plan.width(other)) for one, other in self.plan.cells()]
        entries = [scorer.entry for scorer in self.scorers if scorer.measure.energy is not None]
        return work.multiplications(entries, self.plan.n_rows, [self.plan.width(la) for la in self.plan.layers], pairs)

    @cached_property
    def squares_fit(self) -> bool:
        """Whether no square of a value leaves float64."""
        return all(map(self.reader.squares_fit, self.plan.layers))

    def encoded(self, scorer: Scorer, layer: Layer, rows: Tensor) -> Tensor:
        """Rows as the scorer's measure takes them: through its encoder, if it has one."""
        return scorer.rows(rows, self.plan.views[layer[0]].store, layer[1], self.device)

    def prepare(self, scorer: Scorer, layer: Layer, rows: Tensor) -> Any:
        """Rows [..., n, p] of a layer as the scorer's measure prepares them."""
        repeats, measure = self.plan.repeats(layer), scorer.measure
        if repeats == 1 or measure.prepare_repeats is None:
            return measure.prepare(rows)
        return measure.prepare_repeats(rows, repeats)

    def note_shuffled(self, s: int, one: Layer, other: Layer, sides: tuple[Any, Any]) -> None:
        """Keep the mean over all shuffles that two prepared layers tell, where it is asked for; the deviation is not known."""
        mean = self.scorers[s].measure.shuffled_mean
        if self.levels and mean is not None:
            self.shuffled[s, one, other] = float(mean(*sides, self.plan.n_rows)), math.nan

    def shuffled_of(self, s: int, a: int, b: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Mean and standard deviation over all shuffles [layers of a, layers of b]; None where the mean has no closed form.

        The deviation is NaN where it has none.
        """
        cells = [[(s, (a, i), (b, j)) for j in self.plan.second[b]] for i in self.plan.first[a]]
        if not all(cell in self.shuffled for row in cells for cell in row):
            return None
        found = np.array([[self.shuffled[cell] for cell in row] for row in cells])
        return found[..., 0], found[..., 1]

    def scores_of(self, s: int, a: int, b: int) -> npt.NDArray[np.float64]:
        """What a scorer found for a pair of views [layers of a, layers of b]; NaN where it is not finite."""
        first, second = self.plan.first[a], self.plan.second[b]
        values = np.array([[self.scores[s, (a, i), (b, j)] for j in second] for i in first])
        values[~np.isfinite(values)] = np.nan
        return values
