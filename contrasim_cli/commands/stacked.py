"""`contrasim train --inputs measures`: an encoder of measures from stores of any models."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrasim_cli import console
from contrasim_cli.commands.options import Align, Device, OnNan, parse_memory
from contrasim_cli.errors import UsageError
from contrasim_cli.stacking.measures import SCALED, check_measures

if TYPE_CHECKING:
    from contrasim_cli.training.stacked import Group

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What to train on, and where the encoder goes."""

    stores: Sequence[Path]
    output: Path
    log: Path | None
    measures: Sequence[str] | None
    by_depth: bool
    start: str | None
    layers: Sequence[str] | None
    align: Align
    nan: OnNan


def train(
    asked: Asked, parts: dict[str, Any], device: Device | None, memory: str | None, resume: bool, force: bool
) -> Mapping[str, Sequence[float]]:
    """Train it; what was noted of each epoch."""
    names, budget = check_measures(asked.measures or SCALED), parse_memory(memory)
    if len(asked.stores) < 2:
        raise UsageError("--task layers trains on two or more stores (one per model), 1 given")
    from contrasim_cli.cautions import warn_constant
    from contrasim_cli.device import pick_device
    from contrasim_cli.locks import only_writer
    from contrasim_cli.memory import memory_budget
    from contrasim_cli.training import stacked
    from contrasim_cli.training.job import Files

    where, room = pick_device(device and device.value), memory_budget(budget)
    start = stacked.starting(asked.start, names)
    config = stacked.configuration(parts, names, start)
    with ExitStack() as stack:
        groups = _groups(asked, stack)
        stacked.check_groups(groups, asked.by_depth)
        for group in groups:
            warn_constant(group.views, group.layers)
        files = Files(asked.output, asked.log, resume=resume, force=force)
        with only_writer(asked.output):
            files.check_stopped()
            return stacked.train_encoder(groups, config, start, files, where, room, console.progress)


def _groups(asked: Asked, stack: ExitStack) -> "list[Group]":
    """The stores whose rows line up, together: those with the same ids in the same order, or all with --align ids."""
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.training.stacked import Group

    alike = {"all": list(asked.stores)} if asked.align is Align.ids else _alike(asked.stores)
    groups = []
    for paths in alike.values():
        inputs = stack.enter_context(Inputs(paths, asked.align, asked.nan))
        groups.append(Group(inputs.views, inputs.select(asked.layers, embeddings=False), str(paths[0].parent)))
    return groups


def _alike(paths: Sequence[Path]) -> dict[Any, list[Path]]:
    """Paths by the number of rows and the ids of their stores."""
    from contrasim_cli.store import close_stores, open_stores

    stores = open_stores(paths)
    found: dict[Any, list[Path]] = {}
    try:
        for path, store in zip(paths, stores, strict=True):
            found.setdefault((store.n_rows, store.ids.digest if store.ids else ""), []).append(path)
    finally:
        close_stores(stores)
    return found
