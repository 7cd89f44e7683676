"""`contrasim train`: an encoder from stores."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console
from contrasim_cli.commands import options as o
from contrasim_cli.commands import recipe as r
from contrasim_cli.commands.emit import check_plot
from contrasim_cli.errors import UsageError
from contrasim_cli.output_files import check_output
from contrasim_cli.recipes import averages, chosen

if TYPE_CHECKING:
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.training import Data

log = logging.getLogger(__name__)


def train(
    stores: o.Stores,
    task: Annotated[
        r.Task,
        typer.Option(
            "--task",
            help="layers: stores are models, same layers attract; pairs: stores are two views, same rows attract.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The encoder to write.", show_default=False)],
    recipe: Annotated[
        r.Recipe,
        typer.Option("--recipe", help="What stands where options do not say otherwise; paper: as published."),
    ] = r.Recipe.default,
    objective: r.ObjectiveOption = None,
    similarity: r.SimilarityOption = None,
    epochs: r.Epochs = None,
    lr: r.LearningRate = None,
    schedule: r.ScheduleOption = None,
    warmup: r.Warmup = None,
    optimizer: r.OptimizerOption = None,
    weight_decay: r.WeightDecay = None,
    batch_size: r.BatchSize = None,
    temperature: r.Temperature = None,
    hidden: r.Hidden = None,
    dim: r.Dim = None,
    path: r.PathOption = None,
    validation: r.Validation = None,
    patience: r.Patience = None,
    inputs: r.InputsOption = r.RowsIn.raw,
    anchors: r.AnchorCount = None,
    copies: r.Copies = None,
    members: r.Members = None,
    measures: r.MeasuresOption = None,
    match: r.MatchOption = r.Match.order,
    start: r.StartOption = None,
    standardize: r.StandardizeOption = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    anchor_side: Annotated[
        r.AnchorSide, typer.Option("--anchor-side", help="Task pairs: whose rows are anchors.")
    ] = r.AnchorSide.both,
    encoder_per_view: Annotated[
        bool, typer.Option("--encoder-per-view", help="Task pairs: each view has its own first layer.")
    ] = False,
    precision: Annotated[
        r.Precision, typer.Option("--precision", help="Type of the encoder's matrix products.")
    ] = r.Precision.float32,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    zero_rows: o.ZeroRowsRule = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    log_file: Annotated[
        Path | None,
        typer.Option("--log", help="Write a JSON line per step to this file.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the curves (.png .svg .pdf; extra: plot).", show_default=False),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            "--save-every", min=1, help="Steps between saved states; default: each epoch.", show_default=False
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")] = False,
    force: o.Force = False,
) -> None:
    """Train an encoder whose outputs are similar where representations should match, and dissimilar where not.

    Options that are not given are the recipe's. Without --layers every layer is trained on but hidden_0, the embeddings.
    While it runs, its state is kept beside the output in a file that ends in .partial.
    """
    given = {
        "objective": objective and objective.value,
        "epochs": epochs,
        "lr": lr,
        "schedule": schedule and schedule.value,
        "warmup": warmup,
        "optimizer": optimizer and optimizer.value,
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        "temperature": temperature,
        "output": dim,
        "path": path and path.value,
        "validation": validation,
        "patience": patience,
        "inputs": inputs.value,
        "n_anchors": anchors,
        "copies": copies,
        "members": members,
        "standardize": standardize and standardize.value,
        "shrinkage": shrinkage,
        "similarity": similarity and similarity.value,
        "hidden": tuple(hidden) if hidden else None,
        "anchor_side": anchor_side.value,
        "encoder_per_view": encoder_per_view,
        "precision": precision.value,
        "seed": seed,
    }
    if inputs is r.RowsIn.measures:
        _check_stacked(task, recipe, given, standardize_from, save_every, layers_a or layers_b)
        _check_outputs([output, log_file], plot, force or resume)
        from contrasim_cli.commands import stacked

        asked = stacked.Asked(stores, output, log_file, measures, match is r.Match.depth, start, layers, align, nan)
        curves = stacked.train(asked, chosen(recipe.value, task.value, given), device, memory, resume, force)
        _draw(curves, plot, force or resume)
        return
    if measures or start or match is r.Match.depth:
        raise UsageError("--measures, --match and --start go with --inputs measures")
    _check_inputs(inputs, given, standardize_from)
    parts = chosen(recipe.value, task.value, given)
    _check_options(task, encoder_per_view, parts, layers_a or layers_b)
    if shrinkage is not None and parts["standardize"] not in ("whiten", "within"):
        raise UsageError("--shrinkage goes with --standardize whiten or within")
    budget = o.parse_memory(memory)
    _check_outputs([output, log_file], plot, force or resume)
    from contrasim_cli import training
    from contrasim_cli.cautions import warn_constant
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.device import pick_device
    from contrasim_cli.locks import only_writer
    from contrasim_cli.memory import memory_budget
    from contrasim_cli.training import job

    where, room = pick_device(device and device.value), memory_budget(budget)
    sides = [layers_a or layers, layers_b or layers]
    with Inputs(stores, align, nan, zero_rows, sides, budget) as opened:
        data = _data(opened, task, layers, layers_a, layers_b)
        training.check_data(data, task.value, encoder_per_view)
        warn_constant(data.views, data.layers)
        config = job.configuration(data, task.value, recipe.value, parts)
        if task is r.Task.layers and inputs is r.RowsIn.raw:
            log.warning(
                "--task layers on raw inputs learns the neurons of these %d models: the encoder will be valid for them alone; "
                "--inputs measures or anchors makes one for others",
                len(data.views),
            )
        sources = standardize_from or ()
        standardizer = opened.standardizer(sources, [job.standardization_asked(config)], data.layers)
        by = [{"name": p.stem, "rows": v.n_rows} for p, v in zip(sources, standardizer.sources, strict=False)]
        picks_lr = lr is None and recipe is r.Recipe.default
        files = job.Files(output, log_file, save_every, resume, force)
        made = job.Job(data, config, standardizer, by, picks_lr)
        with only_writer(output):
            files.check_stopped()
            curves = job.train_encoder(made, files, where, room, console.progress)
    _draw(curves, plot, force or resume)


def _draw(curves: Mapping[str, Sequence[float]], plot: Path | None, replaces: bool) -> None:
    if plot is not None:
        from contrasim_cli.plots import draw_training

        draw_training(curves, plot, replaces)


def _check_stacked(
    task: r.Task,
    recipe: r.Recipe,
    given: dict[str, Any],
    standardize_from: list[Path] | None,
    save_every: int | None,
    sides: list[str] | None,
) -> None:
    """Refuse what an encoder of measures does not have."""
    if task is not r.Task.layers:
        raise UsageError("--inputs measures compares whole layers; it goes with --task layers")
    r.check_measured(recipe, [given["objective"]])
    asked = {
        "--anchors": given["n_anchors"],
        "--copies": given["copies"] is not None,
        "--path": given["path"],
        "--dim": given["output"] is not None,
        "--similarity": given["similarity"] not in (None, "dot"),
        "--anchor-side": given["anchor_side"] != "both",
        "--encoder-per-view": given["encoder_per_view"],
        "--precision": given["precision"] != "float32",
        "--standardize": given["standardize"],
        "--shrinkage": given["shrinkage"] is not None,
        "--standardize-from": standardize_from,
        "--validation": given["validation"],
        "--patience": given["patience"],
        "--save-every": save_every,
        "--layers-a": sides,
    }
    if wrong := [name for name, value in asked.items() if value]:
        raise UsageError(f"{wrong[0]} does not go with --inputs measures, which reads no rows")


def _check_outputs(files: Sequence[Path | None], plot: Path | None, replaces: bool) -> None:
    """Refuse what cannot be written, before any work is done for it."""
    for path in files:
        if path is not None:
            check_output(path, replaces)
    if plot is not None:
        check_plot(plot)
        check_output(plot, replaces)


def _check_inputs(inputs: r.RowsIn, given: dict[str, Any], standardize_from: list[Path] | None) -> None:
    """Refuse options that go with the other kind of inputs."""
    asked = {
        "--anchors": given["n_anchors"],
        "--copies": given["copies"] is not None,
        "--members": given["members"],
    }
    if inputs is r.RowsIn.anchors:
        asked = {
            "--standardize": given["standardize"],
            "--standardize-from": standardize_from,
            "--encoder-per-view": given["encoder_per_view"],
        }
    wrong = [name for name, value in asked.items() if value]
    if wrong:
        other = r.RowsIn.raw if inputs is r.RowsIn.anchors else r.RowsIn.anchors
        raise UsageError(f"{wrong[0]} goes with --inputs {other.value}")


def _check_options(task: r.Task, per_view: bool, parts: dict[str, Any], sides: list[str] | None) -> None:
    for option, name in (("--lr", "lr"), ("--temperature", "temperature")):
        if not parts[name] > 0:
            raise UsageError(f"{option} {parts[name]:g}: must be greater than 0")
    for option, name in (("--lr", "lr"), ("--temperature", "temperature"), ("--weight-decay", "weight_decay")):
        if not parts[name] < math.inf:
            raise UsageError(f"{option} {parts[name]:g}: must be finite")
    if parts["patience"] and not parts["validation"]:
        raise UsageError("--patience needs rows to validate on; give --validation, such as 0.1")
    if parts.get("members", 1) > 1 and not averages(parts):
        raise UsageError(
            f"--members {parts['members']} averages dot products; give it without --similarity norm and --objective deepcka"
        )
    if task is r.Task.layers and parts["standardize"] in ("auto", "within"):
        raise UsageError(
            f"--standardize {parts['standardize']} goes with --task pairs; give none, center, zscore or whiten"
        )
    if task is r.Task.layers and (per_view or sides):
        raise UsageError("--encoder-per-view, --layers-a and --layers-b go with --task pairs")


def _data(
    inputs: "Inputs", task: r.Task, layers: list[str] | None, layers_a: list[str] | None, layers_b: list[str] | None
) -> "Data":
    from contrasim_cli.training import Data

    if task is r.Task.layers:
        return Data(inputs.views, inputs.select(layers, embeddings=False))
    first, second = inputs.select_sides(layers_a or layers, layers_b or layers, embeddings=False)
    return Data(inputs.views, [*first[:1], *second[1:]])
