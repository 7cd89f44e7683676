"""Scorers, which compare two aligned matrices: a closed-form measure, or an encoder with a measure behind it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.arrays import Device, Tensor, as_tensor
from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, raise_all
from contrasim_cli.measures import MEASURES, Entry, Options
from contrasim_cli.measures.load import load
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.names import distinct_names, quoted
from contrasim_cli.stacking import universal
from contrasim_cli.stacking.measures import entry
from contrasim_cli.store import Store
from contrasim_cli.transforms import AS_THEY_ARE, RowsAs, Standardization

if TYPE_CHECKING:
    from contrasim_cli.encoder import Checkpoint

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scorer:
    """One column of a result: a measure, the encoder that rows go through before it, if any, and what comes before both."""

    name: str
    entry: Entry
    measure: Measure
    checkpoint: "Checkpoint | None" = None
    standardize: RowsAs = AS_THEY_ARE

    @property
    def encoder(self) -> "Checkpoint | None":
        """What rows go through; None of a closed form, and of an encoder of measures, which takes rows as they are."""
        return self.checkpoint if self.encoded else None

    @property
    def stacked(self) -> bool:
        """Whether it is an encoder of measures."""
        return self.checkpoint is not None and self.checkpoint.config.stacked

    @property
    def encoded(self) -> int:
        """How wide the encoder makes rows; 0 without one."""
        return self.checkpoint.config.encoded if self.checkpoint else 0

    @property
    def fewest(self) -> int:
        """Rows below which every score is undefined or the same."""
        return self.measure.k + self.entry.fewest

    def rows(self, rows: Floats | Tensor, store: Store, layer: str, device: Device) -> Tensor:
        """Rows [n, p] of a store's layer, standardised, as the measure takes them: encoded [n, output], or as they are."""
        if self.encoder is None:
            return as_tensor(rows, device)
        return self.encoder.encode(rows, self.encoder.view_of(store.stem, store.path), layer, device)

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
                self._check_within(store, name)
            except ContraSimError as problem:
                problems.append(problem)
        return problems

    def unknown(self, layers: Sequence[str]) -> list[str]:
        """The layers that the encoder, which treats each layer in its own way, was not trained on."""
        if self.checkpoint is None or not (isinstance(self.standardize, Standardization) and self.standardize.by_layer):
            return []
        known = {name for name, *_ in self.checkpoint.config.by_layer}
        return [name for name in layers if known and name not in known]

    def _check_within(self, store: Store, layer: str) -> None:
        how = self.standardize
        maps = how.within if isinstance(how, Standardization) and how.of(layer).kind == "within" else None
        problem = maps.misfit(layer, store.layer(layer).width) if maps else ""
        if problem and self.checkpoint:
            raise MismatchError(
                f"{quoted(store.path)}: layer {quoted(layer)} cannot be standardised as the encoder "
                f"{quoted(self.checkpoint.path)} was trained, which {problem}; train on that layer too, or with "
                "--standardize whiten"
            )

    @property
    def key(self) -> tuple[int, Callable[[Tensor], Any]]:
        """What a prepared layer depends on besides the layer; scorers that share it share the work."""
        return id(self.checkpoint), self.measure.prepare

    def mismatch(self, width_a: int, width_b: int) -> bool:
        """Whether the measure cannot compare rows of these widths."""
        return self.encoder is None and self.entry.needs_equal_widths and width_a != width_b


def by_standardization(scorers: Sequence[Scorer]) -> dict[RowsAs, list[int]]:
    """Positions of the scorers that take rows in the same form."""
    groups: dict[RowsAs, list[int]] = {}
    for s, scorer in enumerate(scorers):
        groups.setdefault(scorer.standardize, []).append(s)
    return groups


def closed_form(
    names: Sequence[str], options: Options = Options(), standardize: Standardization | None = None
) -> list[Scorer]:
    """Scorers of the registry's measures."""
    return [Scorer(n, MEASURES[n], load(n, options), standardize=standardize or AS_THEY_ARE) for n in names]


def by_groups(scorers: Sequence[Scorer], groups: tuple[int, ...]) -> list[Scorer]:
    """The scorers, of which those that hold rows out hold out whole groups; `groups` has the group of every row."""
    of = [scorer.measure.grouped for scorer in scorers]
    return [
        s if grouped is None else replace(s, measure=grouped(groups)) for s, grouped in zip(scorers, of, strict=True)
    ]


def across_repeats(scorers: Sequence[Scorer], distance: str) -> list[Scorer]:
    """The scorers, of which those that know distances across repeated measurements take this one where there are some."""
    of = [scorer.measure.across for scorer in scorers]
    return [
        s if across is None else replace(s, measure=across(distance)) for s, across in zip(scorers, of, strict=True)
    ]


def learned(paths: Sequence[Path], standardize: Standardization | None = None) -> list[Scorer]:
    """Scorers of encoder checkpoints, named by their files; the problems of all are reported together.

    Rows are standardised as each encoder was trained, unless a way is given.
    """
    if not paths:
        return []
    from contrasim_cli import encoder

    checkpoints: list[Checkpoint] = []
    problems: list[ContraSimError] = []
    for path in paths:
        try:
            checkpoints.append(encoder.load(universal.resolve(path)))
            if not checkpoints[-1].training.get("finished", False):
                raise InputError(
                    f"{quoted(path)}: the encoder's training has not finished; go on with contrasim train --resume"
                )
        except ContraSimError as problem:
            problems.append(problem)
    raise_all(problems)
    names = distinct_names(paths, suffix=True)
    return [learned_scorer(n, c, standardize) for n, c in zip(names, checkpoints, strict=True)]


def learned_scorer(name: str, checkpoint: "Checkpoint", standardize: Standardization | None = None) -> Scorer:
    """The scorer of an encoder; rows are standardised as it was trained, unless a way is given.

    Raises:
        UsageError: a way is given to an encoder of anchored rows.
    """
    config = checkpoint.config
    if config.anchoring and standardize is not None:
        raise UsageError(f"{quoted(checkpoint.path)}: is an encoder of anchored rows; --standardize goes with raw ones")
    how = checkpoint.rows_as if standardize is None else standardize
    if config.stacked:
        from contrasim_cli.stacking.single import single

        measure = single(checkpoint.encoder.grids, config.measures)
        return Scorer(name, entry(config.measures), measure, checkpoint, how)
    return Scorer(name, MEASURES[config.scored_by], load(config.scored_by), checkpoint, how)
