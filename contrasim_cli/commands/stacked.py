"""`contrasim train --inputs measures`: an encoder of measures from stores of any models."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrasim_cli import console, distributed
from contrasim_cli.commands.emit import EncoderOutput
from contrasim_cli.commands.inputs import Inputs, Rows, note_embeddings
from contrasim_cli.commands.options import Compute
from contrasim_cli.commands.recipe import Unseen
from contrasim_cli.errors import UsageError
from contrasim_cli.stacking.measures import SCALED, check_measures

if TYPE_CHECKING:
    from contrasim_cli.training.stacked import Group


def train_measured(
    stores: Sequence[Path],
    output: EncoderOutput,
    rows: Rows,
    unseen: Unseen,
    parts: dict[str, Any],
    compute: Compute,
) -> Mapping[str, Sequence[float]]:
    """Train it by the parts of a recipe; what was noted of each epoch."""
    names = check_measures(unseen.measures or SCALED)
    if len(stores) < 2:
        raise UsageError("--task layers trains on two or more stores (one per model), 1 given")
    from contrasim_cli.cautions import warn_constant
    from contrasim_cli.locks import only_writer
    from contrasim_cli.training import stacked
    from contrasim_cli.training.job import Files

    device, budget = compute.resolve()
    start = stacked.starting(unseen.start, names)
    config = stacked.configuration(parts, names, start)
    with ExitStack() as stack:
        groups = _groups(stores, rows, stack)
        stacked.check_groups(groups, unseen.match == "depth")
        for group in groups:
            warn_constant(group.views, group.layers)
        files = Files(output.encoder, output.log, resume=output.resume, force=output.force)
        with only_writer(output.encoder):
            distributed.by_first(files.check_stopped)
            return stacked.train_encoder(groups, config, start, files, device, budget, console.progress)


def _groups(stores: Sequence[Path], rows: Rows, stack: ExitStack) -> "list[Group]":
    """The stores whose rows line up, together: those with the same ids in the same order, or all with --align ids."""
    from contrasim_cli.training.stacked import Group

    alike = {"all": list(stores)} if rows.align == "ids" else _paths_by_rows(stores)
    opened = [stack.enter_context(Inputs(paths, rows)) for paths in alike.values()]
    groups = [Group(one.views, one.select(embeddings=False), str(one.paths[0].parent)) for one in opened]
    note_embeddings(opened)
    return groups


def _paths_by_rows(paths: Sequence[Path]) -> dict[Any, list[Path]]:
    """Paths by the number of rows and the ids of their stores."""
    from contrasim_cli.store import close_stores, open_stores

    stores = open_stores(paths)
    groups: dict[Any, list[Path]] = {}
    try:
        for path, store in zip(paths, stores, strict=True):
            groups.setdefault((store.n_rows, store.ids.digest if store.ids else ""), []).append(path)
    finally:
        close_stores(stores)
    return groups
