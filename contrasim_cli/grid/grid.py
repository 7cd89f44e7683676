"""What a grid compares, how its rows are read, and the state that all forms of measures share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli import distributed, seeds
from contrasim_cli.device import device_budget
from contrasim_cli.errors import ContraSimError, InputError, raise_all
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
    device: torch.device
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
        return self._rows[layer].take(torch.from_numpy(rows))

    def shifted(self, layer: Layer, start: int, stop: int, dtype: torch.dtype | None = None) -> Tensor:
        """Rows minus the layer's first row: of a large common offset no digit is lost, a constant column is zero."""
        rows = self.rows(layer, start, stop)
        return rows.to(dtype or rows.dtype) - self.first(layer).to(dtype or rows.dtype)

    def squares_fit(self, layer: Layer) -> bool:
        """Whether fourth powers of the values neither overflow nor vanish in float64, as those of a float64 store may."""
        if self._itemsize(layer) < 8:
            return True
        own = max((float(self.shifted(layer, *block).abs().amax()) for block in self.blocks), default=0.0)
        largest = float(distributed.largest(torch.tensor(own, dtype=torch.float64)))
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
        """The same blocks, one after another."""
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
    """Raw rows [k, p] of one layer, or of a subset of its rows, block by block and as often as asked."""

    reader: Reader
    layer: Layer
    chosen: npt.NDArray[np.int64] | None = None

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.reader.plan.n_rows if self.chosen is None else len(self.chosen)

    def rows(self, start: int, stop: int) -> Tensor:
        """Some of them."""
        if self.chosen is None:
            return self.reader.rows(self.layer, start, stop)
        return self.reader.chosen(self.layer, self.chosen[start:stop])

    def __iter__(self) -> Iterator[Tensor]:
        return (self.rows(start, stop) for start, stop in spans(self.n_rows, self.reader.block_rows))


Cell = tuple[int, Layer, Layer]  # position of the scorer, both layers
Scores = dict[Cell, float]


@dataclass
class Grid:
    """Scores of every scorer for every pair of layers of a plan."""

    plan: Plan
    scorers: Sequence[Scorer]
    device: torch.device
    budget: int
    precision: torch.dtype = torch.float32
    max_rows: int | None = None  # of measures that cost n², and of encoders of measures
    seed: int = 0
    progress: Progress = silent
    shuffles: int | None = (
        None  # that encoders of measures are judged by, besides the one that is their level; None: one
    )
    levels: bool = False  # whether the scores of shuffled rows are found, where they have a closed form

    def __post_init__(self) -> None:
        # ranks that differed in it would pass over the rows in different ways
        self.budget = min(distributed.gathered(device_budget(self.budget, self.device)))
        encoded = max((scorer.encoded for scorer in self.scorers), default=0)
        self.reader = Reader(self.plan, self.device, self.budget, encoded)
        self.scores: Scores = {}
        self.shuffled: dict[Cell, tuple[float, float]] = {}  # mean and standard deviation over all shuffles
        self.nulls: dict[tuple[int, int, int], Null] = {}  # by scorer and pair of views (s, a, b), where there are any

    @cached_property
    def squares_fit(self) -> bool:
        """Whether no square of a value leaves float64."""
        return all(map(self.reader.squares_fit, self.plan.layers))

    @property
    def rows_of_subset(self) -> int | None:
        """How many rows measures that cost n² take, if not all."""
        limited = any(scorer.entry.quadratic or scorer.stacked for scorer in self.scorers)
        return self.max_rows if limited and self.max_rows is not None and self.max_rows < self.plan.n_rows else None

    @property
    def scored_rows(self) -> int:
        """How many rows encoders of measures take."""
        return min(self.plan.n_rows, self.max_rows or self.plan.n_rows)

    def chosen(self, scorer: Scorer) -> npt.NDArray[np.int64] | None:
        """The rows of the seeded subset, where the scorer takes it."""
        if self.rows_of_subset is None or not scorer.entry.quadratic:
            return None
        rng = seeds.stream(self.seed, seeds.QUADRATIC_ROWS)
        return np.sort(rng.choice(self.plan.n_rows, self.rows_of_subset, replace=False))

    def blocks(self, scorer: Scorer, layer: Layer) -> Blocks:
        """The raw rows of a layer that a scorer takes."""
        return Blocks(self.reader, layer, self.chosen(scorer))

    def encoded(self, scorer: Scorer, layer: Layer, rows: Tensor) -> Tensor:
        """Rows as the scorer's measure takes them: through its encoder, if it has one."""
        return scorer.rows(rows, self.plan.views[layer[0]].store, layer[1], self.device)

    def shuffled_of(self, s: int, a: int, b: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Mean and standard deviation over all shuffles [layers of a, layers of b]; None where they have no closed form."""
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
