"""`contrasim train`: an encoder from stores."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console
from contrasim_cli.commands import options as o
from contrasim_cli.commands import recipe as r
from contrasim_cli.commands.emit import check_plot
from contrasim_cli.errors import OutputExistsError, UsageError
from contrasim_cli.files import check_output, quoted
from contrasim_cli.recipes import RECIPES

if TYPE_CHECKING:
    import torch

    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.encoder import Checkpoint, Config
    from contrasim_cli.training import Choice, Data

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """What a run writes."""

    encoder: Path
    log: Path | None
    plot: Path | None
    save_every: int | None
    resume: bool
    force: bool

    def check(self) -> None:
        """Refuse what cannot be written, before any work is done for it.

        Raises:
            UsageError, OutputExistsError, OutputError, MissingError: as for results of other commands.
        """
        for path in (self.encoder, self.log):
            if path is not None:
                check_output(path, self.force or self.resume)
        if self.plot is not None:
            check_plot(self.plot)
            check_output(self.plot, self.force or self.resume)

    def earlier_choice(self) -> "Choice | None":
        """What the run that is resumed chose, if there is one and it did."""
        from contrasim_cli import encoder as encoders
        from contrasim_cli.training import Choice, partial_path

        partial = partial_path(self.encoder)
        paths = [path for path in ([] if self.force else [self.encoder]) + [partial] if path.exists()]
        if not self.resume or not paths:
            return None
        found = encoders.load(paths[0]).provenance.get("choice")
        return Choice(**found) if found else None


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
    similarity: Annotated[
        r.Similarity, typer.Option("--similarity", help="Between encoded rows: dot or 1 - distance.")
    ] = r.Similarity.dot,
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
        "standardize": standardize and standardize.value,
        "shrinkage": shrinkage,
    }
    parts = RECIPES[recipe.value][task.value] | {name: value for name, value in given.items() if value is not None}
    _check_options(task, encoder_per_view, parts, layers_a or layers_b)
    if shrinkage is not None and parts["standardize"] != "whiten":
        raise UsageError("--shrinkage goes with --standardize whiten")
    budget = o.parse_memory(memory)
    outputs = Outputs(output, log_file, plot, save_every, resume, force)
    outputs.check()
    from contrasim_cli import encoder as encoders
    from contrasim_cli import training
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.device import memory_budget, pick_device

    where, room = pick_device(device and device.value), memory_budget(budget)
    with Inputs(stores, align, nan) as inputs:
        data = _data(inputs, task, layers, layers_a, layers_b)
        training.check_data(data, task.value, encoder_per_view)
        config = encoders.Config(
            task=task.value,
            recipe=recipe.value,
            widths=data.widths,
            views=tuple(store.stem for store in inputs.stores) if encoder_per_view else (),
            view_widths=data.view_widths if encoder_per_view else (),
            similarity=similarity.value,
            hidden=tuple(hidden) if hidden else (512, 256),
            anchor_side=anchor_side.value,
            encoder_per_view=encoder_per_view,
            precision=precision.value,
            seed=seed,
            **parts | {"output": parts["output"] or data.widths[-1]},
        )
        picks_lr = lr is None and recipe is r.Recipe.default
        made = _standardized(inputs, data, config, standardize_from or (), room, picks_lr, outputs.earlier_choice)
        _run(outputs, made, room, where)


def _check_options(task: r.Task, per_view: bool, parts: dict[str, Any], sides: list[str] | None) -> None:
    if not parts["lr"] > 0:
        raise UsageError(f"--lr {parts['lr']:g}: must be greater than 0")
    if not parts["temperature"] > 0:
        raise UsageError(f"--temperature {parts['temperature']:g}: must be greater than 0")
    if parts["patience"] and not parts["validation"]:
        raise UsageError("--patience needs rows to validate on; give --validation, such as 0.1")
    if task is r.Task.layers and parts["standardize"] == "auto":
        raise UsageError("--standardize auto goes with --task pairs; give none, center, zscore or whiten")
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


@dataclass(frozen=True)
class Prepared:
    """Data with what standardises them, the configuration, the stores whose statistics are taken, and what was chosen."""

    data: "Data"
    config: "Config"
    by: list[dict[str, Any]]
    choice: "Choice | None" = None


def _standardized(
    inputs: "Inputs",
    data: "Data",
    config: "Config",
    sources: Sequence[Path],
    budget: int,
    picks_lr: bool,
    earlier: "Callable[[], Choice | None]",
) -> Prepared:
    """What is trained on, and by what; where the data decide, they do so once for a run and all that resume it."""
    from contrasim_cli.training import choose
    from contrasim_cli.transforms import Standardization

    asks = config.standardize == "auto"
    standardizer = inputs.standardizer(
        sources, [Standardization("whiten") if asks else config.standardization], data.layers
    )
    choice = None
    if asks:
        before = earlier()
        choice = before or choose(data, standardizer, config, budget, console.progress)
        config = choice.of(config, picks_lr)
        standardizer.whitens = config.standardize == "whiten"
        if before is None:
            log.info("%s; learning rate %g", choice.text, config.lr)
    transforms = standardizer.transforms(config.standardization, data.layers, budget, console.progress)
    by = [{"name": path.stem, "rows": view.n_rows} for path, view in zip(sources, standardizer.sources, strict=False)]
    return Prepared(replace(data, transforms=transforms), config, by, choice)


def _check_complete(output: Path, config: "Config", about: dict[str, Any]) -> "Checkpoint":
    """The output that is there; refused where it is another run's."""
    from contrasim_cli import encoder as encoders

    found = encoders.load(output)
    if found.config != config or any(
        found.provenance.get(name, []) != about[name] for name in ("stores", "standardized_by")
    ):
        raise OutputExistsError(
            f"{quoted(output)}: already exists, trained with other options or stores; give --force to replace it"
        )
    return found


def _leave(outputs: Outputs, partial: Path, losses: Sequence[float], accuracies: Sequence[float] | None) -> None:
    """What remains to be done once the encoder is written; a run that was killed at just that moment makes up for it."""
    partial.unlink(missing_ok=True)
    if outputs.plot is not None:
        from contrasim_cli.plots import draw_training

        curves = {"loss": losses} | ({"validation_accuracy": accuracies} if accuracies else {})
        draw_training(curves, outputs.plot, outputs.force or outputs.resume)


def _run(outputs: Outputs, made: Prepared, budget: int, device: "torch.device") -> None:
    from contrasim_cli import encoder as encoders
    from contrasim_cli import training
    from contrasim_cli.training.journal import Journal

    output, resume, force = outputs.encoder, outputs.resume, outputs.force
    data, config = made.data, made.config
    partial = training.partial_path(output)
    check_output(partial, force=True)
    source = training.Source(data, training.Order.of(data, config), budget, console.progress)
    about = training.provenance(source, made.by, made.choice)
    if resume and not force and output.exists():
        found = _check_complete(output, config, about)
        log.info("%s is complete already", quoted(output))
        _leave(outputs, partial, found.training["loss_curve"], found.training.get("validation_accuracy_curve"))
        return
    if resume and partial.exists():
        found = encoders.load(partial)
        training.check_resumable(found, about)
        state = training.resumed_state(found, config, device)
        log.info("going on in epoch %d of %d after %d steps", state.epoch + 1, config.epochs, state.step)
    else:
        state = training.new_state(config, device)

    def save(state: training.State, finished: bool) -> None:
        encoders.save(output if finished else partial, state.checkpoint(about, finished), force=force or not finished)

    run = training.Run(source, config, state, device, save, outputs.save_every, progress=console.progress)
    with Journal(outputs.log, run.steps_done) as run.journal:
        run.train()
    _leave(outputs, partial, state.curves["loss"], state.curves.get("validation_accuracy"))
    losses = state.curves["loss"]
    log.info("wrote %s: %s, %d epochs, last loss %.4g", quoted(output), config.objective, len(losses), losses[-1])
