"""Scorers, which compare two aligned matrices: a closed-form measure, or an encoder with a measure behind it.

And the grid: every layer of one store against every layer of another, each layer read and prepared once.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli import encoder
from contrasim_cli.encoder import Checkpoint
from contrasim_cli.errors import ContraSimError, InputError, raise_all
from contrasim_cli.files import quoted
from contrasim_cli.measures import MEASURES, Entry, Options, load
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.progress import Progress
from contrasim_cli.store import Store, View

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scorer:
    """One column of a result: a measure, and the encoder that rows go through before it, if any."""

    name: str
    entry: Entry
    measure: Measure
    checkpoint: Checkpoint | None = None

    def rows(self, matrix: Floats, store: Store, device: torch.device) -> Tensor:
        """Rows [n, p] of a store as the measure takes them: encoded [n, output], or as they are."""
        if self.checkpoint is None:
            return torch.as_tensor(matrix).to(device)
        return self.checkpoint.encode(matrix, self.checkpoint.view_of(store.stem, store.path), device)

    def check(self, store: Store, layers: Sequence[str]) -> list[ContraSimError]:
        """Why these layers cannot go through the encoder."""
        if self.checkpoint is None:
            return []
        problems: list[ContraSimError] = []
        try:
            self.checkpoint.view_of(store.stem, store.path)
        except ContraSimError as problem:
            problems.append(problem)
        for name in layers:
            try:
                self.checkpoint.check_width(store.path, name, store.layer(name).width)
            except ContraSimError as problem:
                problems.append(problem)
        return problems

    @property
    def key(self) -> tuple[int, Callable[[Tensor], Any]]:
        """What a prepared layer depends on besides the layer; scorers that share it share the work."""
        return id(self.checkpoint), self.measure.prepare

    def mismatch(self, width_a: int, width_b: int) -> bool:
        """Whether the measure cannot compare rows of these widths."""
        return self.checkpoint is None and self.entry.needs_equal_widths and width_a != width_b


def closed_form(names: Sequence[str], options: Options = Options()) -> list[Scorer]:
    """Scorers of the registry's measures."""
    return [Scorer(name, MEASURES[name], load(name, options)) for name in names]


def learned(paths: Sequence[Path]) -> list[Scorer]:
    """Scorers of encoder checkpoints, named by their files; the problems of all are reported together."""
    checkpoints: list[Checkpoint] = []
    problems: list[ContraSimError] = []
    for path in paths:
        try:
            checkpoints.append(encoder.load(path))
            if not checkpoints[-1].training.get("finished", False):
                raise InputError(
                    f"{quoted(path)}: the encoder's training has not finished; go on with contrasim train --resume"
                )
        except ContraSimError as problem:
            problems.append(problem)
    raise_all(problems)
    names = distinct_names(paths, suffix=True)
    measures = [checkpoint.config.scored_by for checkpoint in checkpoints]
    return [Scorer(n, MEASURES[m], load(m), c) for n, m, c in zip(names, measures, checkpoints, strict=True)]


def distinct_names(paths: Sequence[Path], suffix: bool = False) -> list[str]:
    """File names as results show them; whole paths where two names are the same."""
    names = [quoted(path.name if suffix else path.stem) for path in paths]
    return names if len(set(names)) == len(names) else [quoted(path) for path in paths]


@dataclass
class Prepared:
    """Prepared layers by scorer key, view and layer; keeps what fits the budget, prepares the rest anew when asked."""

    views: Sequence[View]
    device: torch.device
    budget: int
    _kept: dict[tuple[Any, int, str], Any] = field(default_factory=dict)
    _warned: set[tuple[int, str]] = field(default_factory=set)

    def fill(self, layers: Mapping[int, Sequence[str]], scorers: Sequence[Scorer], progress: Progress) -> None:
        """Read and prepare every layer once; the bad values of all layers are reported together."""
        problems: list[ContraSimError] = []
        with progress("reading", sum(map(len, layers.values())), "layers") as advance:
            for view, names in layers.items():
                for name in names:
                    try:
                        self._prepare(view, name, scorers)
                    except InputError as problem:
                        problems.append(problem)
                    advance(1)
        raise_all(problems)

    def get(self, scorer: Scorer, view: int, layer: str) -> Any:
        """The prepared layer."""
        key = (scorer.key, view, layer)
        return self._kept[key] if key in self._kept else self._prepare(view, layer, [scorer])[scorer.key]

    def _prepare(self, view: int, layer: str, scorers: Sequence[Scorer]) -> dict[Any, Any]:
        self._check_size(view, layer)
        matrix = self.views[view].read(layer)
        made: dict[Any, Any] = {}
        for scorer in scorers:
            if scorer.key not in made:
                rows = scorer.rows(matrix, self.views[view].store, self.device)
                made[scorer.key] = scorer.measure.prepare(rows)
                self._warn_full_rank(scorer, made[scorer.key], view, layer)
        for key, prepared in made.items():
            size = _bytes(prepared)
            if size <= self.budget:
                self.budget -= size
                self._kept[key, view, layer] = prepared
        return made

    def _check_size(self, view: int, layer: str) -> None:
        found = self.views[view]
        need = 4 * 8 * found.n_rows * found.store.layer(layer).width  # rows, centred rows and two factors in float64
        limit = self.budget + sum(map(_bytes, self._kept.values()))
        if need > 2 * limit:
            raise InputError(
                f"{quoted(found.store.path)}: layer {quoted(layer)} needs about {need / 2**30:.1f} GiB to compare, "
                f"--memory allows {limit / 2**30:.1f}; raise it or compare fewer rows"
            )

    def _warn_full_rank(self, scorer: Scorer, prepared: Any, view: int, layer: str) -> None:
        if not scorer.entry.trivial_at_full_rank or (view, layer) in self._warned:
            return
        rows = self.views[view].n_rows
        if int(prepared.rank) >= rows - 1:
            self._warned.add((view, layer))
            log.warning(
                "%s: layer %s: %d rows span every direction (rank %d), so that each canonical correlation is 1 whatever "
                "the other side; the CCA family needs more rows than neurons",
                quoted(self.views[view].store.path),
                quoted(layer),
                rows,
                rows - 1,
            )


def _bytes(prepared: Any) -> int:
    return sum(part.numel() * part.element_size() for part in prepared if isinstance(part, Tensor))


def layer_grid(
    prepared: Prepared, pair: tuple[int, int], layers: tuple[Sequence[str], Sequence[str]], scorer: Scorer
) -> npt.NDArray[np.float64]:
    """Scores [layers of a, layers of b] of one pair of views; NaN where undefined, which a warning names."""
    a, b = pair
    grid = np.full((len(layers[0]), len(layers[1])), np.nan)
    stores = [prepared.views[side].store for side in pair]
    undefined: Counter[str] = Counter()
    for i, first in enumerate(layers[0]):
        for j, second in enumerate(layers[1]):
            widths = stores[0].layer(first).width, stores[1].layer(second).width
            if not scorer.mismatch(*widths):
                grid[i, j] = float(
                    scorer.measure.compare(prepared.get(scorer, a, first), prepared.get(scorer, b, second))
                )
            if np.isnan(grid[i, j]):
                undefined[
                    f"{quoted(first)} of {quoted(stores[0].path)} and {quoted(second)} of {quoted(stores[1].path)}"
                ] += 1
    if undefined:
        more = f" and {len(undefined) - 1} more pairs of layers" if len(undefined) > 1 else ""
        log.warning(
            "%s is undefined (%s) for %s%s; left empty",
            scorer.name,
            scorer.entry.undefined,
            next(iter(undefined)),
            more,
        )
    return grid
