"""Measures of which every layer is prepared once, and pairs of prepared layers compared.

Layers are prepared from all their rows in memory, where measures need them whole or their other forms do not resolve the layers; or
from a few reads of blocks, where one number per layer is compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np

from contrasim_cli import distributed
from contrasim_cli.arrays import Device, Tensor, as_tensor, xp
from contrasim_cli.errors import InputError
from contrasim_cli.grid.grid import Blocks, Grid, Layer
from contrasim_cli.names import quoted
from contrasim_cli.progress import Advance
from contrasim_cli.rows import Kept, Room, size
from contrasim_cli.scoring import Scorer
from contrasim_cli.store.blocks import spans

Pairs = Sequence[tuple[Layer, Layer]]
FEW = 1 << 20  # numbers for which there is room beside any budget


def compute(grid: Grid, members: list[int], cells: Pairs | None = None) -> None:
    """Prepare every layer once, where they fit, and compare pair by pair; ranks share the pairs."""
    cells = cells or list(grid.plan.cells())
    own = distributed.share(cells)
    with distributed.alone():
        _compute(grid, members, own)
    found = np.array([[grid.scores[s, one, other] for s in members] for one, other in own])
    for (one, other), scores in zip(cells, distributed.joined_rows(found.reshape(-1, len(members))), strict=True):
        grid.scores |= {(s, one, other): float(score) for s, score in zip(members, scores, strict=True)}
    if not grid.levels:
        return
    for s in [s for s in members if grid.scorers[s].measure.shuffled_mean is not None]:
        means = np.array([[grid.shuffled.get((s, *cell), (np.nan,))[0]] for cell in own]).reshape(-1, 1)
        for cell, (mean,) in zip(cells, distributed.joined_rows(means), strict=True):
            grid.shuffled[(s, *cell)] = float(mean), np.nan


def _compute(grid: Grid, members: list[int], cells: Pairs) -> None:
    by_preparation: dict[Any, list[int]] = {}
    for s in members:
        by_preparation.setdefault(grid.scorers[s].key, []).append(s)
    with grid.progress("comparing", len(cells) * len(by_preparation), "pairs") as advance:
        for same in by_preparation.values():
            prepared = Prepared(grid, grid.scorers[same[0]])
            for one, other in prepared.ordered(cells):
                _compare(grid, same, prepared, one, other)
                advance(1)


def _compare(grid: Grid, members: list[int], prepared: "Prepared", one: Layer, other: Layer) -> None:
    """One cell of measures that prepare layers alike."""
    mismatch = prepared.scorer.mismatch(grid.plan.width(one), grid.plan.width(other))
    sides = None if mismatch else (prepared.first(one), prepared.second(other))
    for s in members:
        score = float("nan") if sides is None else float(grid.scorers[s].measure.compare(*sides))
        grid.scores[s, one, other] = score
        if sides is not None:
            grid.note_shuffled(s, one, other, sides)


def rows_of(grid: Grid, scorer: Scorer, layer: Layer) -> Tensor:
    """All rows of a layer as the scorer's measure takes them.

    Raises:
        InputError: they do not fit the budget.
    """
    rows = grid.plan.n_rows
    need = 8 * _values_at_once(scorer, rows, scorer.encoded or grid.plan.width(layer))
    if need > 2 * grid.budget:
        limit = (
            "--memory allows" if grid.device.type == "cpu" else "--memory and half of what is free on the device allow"
        )
        advice = "give --max-rows" if scorer.entry.quadratic else "raise it or compare fewer rows"
        raise InputError(
            f"{quoted(grid.plan.views[layer[0]].store.path)}: layer {quoted(layer[1])} needs about {need / 2**30:.1f} GiB "
            f"at once for {scorer.name}, {limit} {grid.budget / 2**30:.1f}; {advice}"
        )
    if scorer.encoder is None:
        return grid.reader.rows(layer, 0, rows)
    blocks = spans(rows, grid.reader.block_rows)
    return xp.cat([grid.encoded(scorer, layer, grid.reader.rows(layer, *block)) for block in blocks])


def _values_at_once(scorer: Scorer, rows: int, width: int) -> int:
    """How many numbers in float64 a measure holds of layers of a size."""
    if scorer.measure.at_once is not None and (values := scorer.measure.at_once(rows, width)) > FEW:
        return values
    # rows, centred rows and two factors; or two matrices of all pairs of rows
    pairs = 2 * rows if scorer.measure.pairs is not None or scorer.measure.square else 0
    return scorer.measure.grams * min(rows, width) ** 2 + rows * max(4 * width, pairs)


@dataclass
class Prepared:
    """Layers as a measure prepares them; keeps what fits, and prepares the rest as few times as that allows."""

    grid: Grid
    scorer: Scorer
    _pinned: dict[Layer, Any] = field(default_factory=dict)
    _last: tuple[Layer, Any] | None = None

    def __post_init__(self) -> None:
        self._kept = Kept(self._make, Room(self.grid.reader.free // 2))

    def ordered(self, cells: Pairs) -> Iterator[tuple[Layer, Layer]]:
        """The cells in an order in which every second layer meets as many first ones as fit, which are pinned meanwhile."""
        facing: dict[Layer, list[Layer]] = {}
        for one, other in cells:
            facing.setdefault(one, []).append(other)
        for ones in self._runs(list(facing)):
            others = dict.fromkeys(other for one in ones for other in facing[one])
            for other in others:
                for one in ones:
                    if other in facing[one]:
                        yield one, other
            self._pinned.clear()

    def _runs(self, layers: Sequence[Layer]) -> Iterator[list[Layer]]:
        """Runs of layers that fit, prepared, into half of what is free; one at least."""
        run: list[Layer] = []
        room = self.grid.reader.free // 2
        for layer in layers:
            run.append(layer)
            room -= self._pinned_size(layer)
            if room < self._pinned_size(layer):
                yield run
                run, room = [], self.grid.reader.free // 2
        if run:
            yield run

    def _pinned_size(self, layer: Layer) -> int:
        return size(self.first(layer))

    def first(self, layer: Layer) -> Any:
        """The prepared layer as the first of a pair."""
        if layer not in self._pinned:
            self._pinned[layer] = self._kept.get(layer)
        return self._pinned[layer]

    def second(self, layer: Layer) -> Any:
        """The prepared layer as the second of a pair; the last one stays."""
        if self._last is None or self._last[0] != layer:
            self._last = (layer, self._pinned[layer] if layer in self._pinned else self._kept.get(layer))
        return self._last[1]

    def _make(self, layer: Layer) -> Any:
        return self.grid.prepare(self.scorer, layer, rows_of(self.grid, self.scorer, layer))


def compute_numbers(grid: Grid, members: list[int]) -> None:
    """What `own` makes of every layer once, by ranks that share the layers; then every pair, by ranks that share the pairs."""
    layers, cells = grid.plan.layers, list(grid.plan.cells())
    mine, pairs = distributed.share(layers), distributed.share(cells)
    with grid.progress("comparing", len(members) * len(mine), "layers") as advance:
        for s in members:
            scorer = grid.scorers[s]
            made = _of_all_ranks(layers, [_own(grid, scorer, layer, advance) for layer in mine], grid.device)
            found = [float(scorer.measure.compare(made[one], made[other])) for one, other in pairs]
            scores = distributed.joined_rows(np.array(found, dtype=np.float64))
            grid.scores |= {(s, *cell): score for cell, score in zip(cells, scores.tolist(), strict=True)}


def _of_all_ranks(layers: Sequence[Layer], mine: Sequence[Any], device: Device) -> dict[Layer, Any]:
    """What `own` made of all layers, tuples of tensors with names, of which a rank has those of its share."""
    if distributed.world() == 1:
        return dict(zip(layers, mine, strict=True))
    names = next(names for names in distributed.gathered([*mine[0]._fields] if mine else []) if names)
    counts = distributed.gathered(len(mine))
    by_rank: list[list[Any]] = [[] for _ in counts]
    for k in range(max(counts)):
        fields = [getattr(mine[k], name).cpu().numpy() if k < len(mine) else np.empty(0) for name in names]
        parts = [distributed.gathered_arrays(one) for one in fields]
        for made, count, *values in zip(by_rank, counts, *parts, strict=True):
            if k < count:
                tensors = [as_tensor(value, device) for value in values]
                made.append(SimpleNamespace(**dict(zip(names, tensors, strict=True))))
    return dict(zip(layers, chain(*by_rank), strict=True))


def _own(grid: Grid, scorer: Scorer, layer: Layer, advance: Advance) -> Any:
    own = scorer.measure.own
    assert own is not None
    with distributed.alone():
        found = own(Blocks(grid.reader, layer))
    advance(1)
    return found
