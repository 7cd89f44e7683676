"""`contrasim train`: an encoder from stores."""

import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console
from contrasim_cli.commands import options as o
from contrasim_cli.errors import OutputExistsError, UsageError
from contrasim_cli.files import check_output, quoted

if TYPE_CHECKING:
    import torch

    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.encoder import Config
    from contrasim_cli.training import Data

log = logging.getLogger(__name__)

EPOCHS = {"layers": 50, "pairs": 30}


class Task(str, Enum):
    """How positives and negatives are drawn."""

    layers = "layers"
    pairs = "pairs"


class Objective(str, Enum):
    """What the encoder is trained to do."""

    contrasim = "contrasim"
    supcon = "supcon"
    deepdot = "deepdot"
    deepcka = "deepcka"


class Similarity(str, Enum):
    """How two encoded rows are compared."""

    dot = "dot"
    norm = "norm"


class AnchorSide(str, Enum):
    """Whose rows are anchors."""

    both = "both"
    first = "first"


def train(
    stores: o.Stores,
    task: Annotated[
        Task,
        typer.Option(
            "--task",
            help="layers: stores are models, same layers attract; pairs: stores are two views, same rows attract.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The encoder to write.", show_default=False)],
    objective: Annotated[
        Objective, typer.Option("--objective", help="Loss: Eq. 3, SupCon, or positives only.")
    ] = Objective.contrasim,
    similarity: Annotated[
        Similarity, typer.Option("--similarity", help="Between encoded rows: dot or 1 - distance.")
    ] = Similarity.dot,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Default: 50 for layers, 30 for pairs.", show_default=False)
    ] = None,
    lr: Annotated[float, typer.Option("--lr", help="Adam's learning rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0, help="Adam's weight decay.")] = 0.0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Rows per step.")] = 1024,
    temperature: Annotated[float, typer.Option("--temperature", help="τ of the contrastive objectives.")] = 0.07,
    hidden: Annotated[
        list[int] | None,
        typer.Option(
            "--hidden",
            min=1,
            help="Width of a hidden layer; repeat for several; default: 512, 256.",
            show_default=False,
        ),
    ] = None,
    dim: Annotated[int, typer.Option("--dim", min=1, help="Width of the encoder's output.")] = 128,
    anchor_side: Annotated[
        AnchorSide, typer.Option("--anchor-side", help="Task pairs: whose rows are anchors.")
    ] = AnchorSide.both,
    encoder_per_view: Annotated[
        bool, typer.Option("--encoder-per-view", help="Task pairs: each view has its own first layer.")
    ] = False,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")] = False,
    force: o.Force = False,
) -> None:
    """Train an encoder whose outputs are similar where representations should match, and dissimilar where not.

    Without --layers every layer is trained on but hidden_0, the embeddings. While it runs, its state is kept beside the
    output in a file that ends in .partial.
    """
    _check_options(task, encoder_per_view, lr, temperature, layers_a or layers_b)
    budget = o.parse_memory(memory)
    if not resume:
        check_output(output, force)
    from contrasim_cli import encoder as encoders
    from contrasim_cli import training
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.device import memory_budget, pick_device

    where = pick_device(device and device.value)
    with Inputs(stores, align, nan) as inputs:
        data = _data(inputs, task, layers, layers_a, layers_b)
        training.check_data(data, task.value, encoder_per_view)
        config = encoders.Config(
            task=task.value,
            objective=objective.value,
            widths=data.widths,
            views=tuple(store.stem for store in inputs.stores) if encoder_per_view else (),
            view_widths=data.view_widths if encoder_per_view else (),
            similarity=similarity.value,
            hidden=tuple(hidden) if hidden else (512, 256),
            output=dim,
            temperature=temperature,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            epochs=epochs or EPOCHS[task.value],
            anchor_side=anchor_side.value,
            encoder_per_view=encoder_per_view,
            seed=seed,
        )
        _run(output, data, config, memory_budget(budget), where, resume, force)


def _check_options(task: Task, per_view: bool, lr: float, temperature: float, sides: list[str] | None) -> None:
    if not lr > 0:
        raise UsageError(f"--lr {lr:g}: must be greater than 0")
    if not temperature > 0:
        raise UsageError(f"--temperature {temperature:g}: must be greater than 0")
    if task is Task.layers and (per_view or sides):
        raise UsageError("--encoder-per-view, --layers-a and --layers-b go with --task pairs")


def _data(
    inputs: "Inputs", task: Task, layers: list[str] | None, layers_a: list[str] | None, layers_b: list[str] | None
) -> "Data":
    from contrasim_cli.training import Data

    if task is Task.layers:
        return Data(inputs.views, inputs.select(layers, embeddings=False))
    first, second = inputs.select_sides(layers_a or layers, layers_b or layers, embeddings=False)
    return Data(inputs.views, [*first[:1], *second[1:]])


def _check_complete(output: Path, config: "Config", about: dict[str, Any]) -> None:
    """Refuse to take the output that is there for that of this run where it is another's."""
    from contrasim_cli import encoder as encoders

    found = encoders.load(output)
    if found.config != config or found.provenance.get("stores") != about["stores"]:
        raise OutputExistsError(
            f"{quoted(output)}: already exists, trained with other options or stores; give --force to replace it"
        )


def _run(
    output: Path, data: "Data", config: "Config", budget: int, device: "torch.device", resume: bool, force: bool
) -> None:
    from contrasim_cli import encoder as encoders
    from contrasim_cli import training

    partial = training.partial_path(output)
    check_output(partial, force=True)
    source = training.Source(data, budget, device, console.progress)
    about = training.provenance(source)
    if resume and not force and output.exists():
        _check_complete(output, config, about)
        log.info("%s is complete already", quoted(output))
        return
    if resume and partial.exists():
        found = encoders.load(partial)
        training.check_resumable(found, about)
        state = training.resumed_state(found, config, device)
        log.info("going on in epoch %d of %d after %d steps", state.epoch + 1, config.epochs, state.step)
    else:
        state = training.new_state(config, device)

    def save(state: training.State, finished: bool) -> None:
        checkpoint = encoders.Checkpoint(state.encoder, state.record(finished), about)
        encoders.save(output if finished else partial, checkpoint, force=force or not finished)

    training.train(source, config, state, save, console.progress)
    partial.unlink(missing_ok=True)
    log.info(
        "wrote %s: %s, %d epochs, last loss %.4g", quoted(output), config.objective, config.epochs, state.curve[-1]
    )
