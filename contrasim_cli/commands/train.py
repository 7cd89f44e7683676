"""`contrasim train`: an encoder from stores."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from contrasim_cli import console, distributed
from contrasim_cli.commands import options as o
from contrasim_cli.commands import recipe as r
from contrasim_cli.commands.emit import EncoderOutput
from contrasim_cli.commands.inputs import SidedRows, note_embeddings
from contrasim_cli.errors import UsageError
from contrasim_cli.recipes import averages, chosen

if TYPE_CHECKING:
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.training import Data

log = logging.getLogger(__name__)

# what an encoder of measures, which reads no rows, does not have
OF_ROWS = [
    "--anchors",
    "--copies",
    "--path",
    "--dim",
    "--similarity",
    "--anchor-side",
    "--encoder-per-view",
    "--precision",
    "--standardize",
    "--shrinkage",
    "--standardize-from",
    "--validation",
    "--patience",
    "--save-every",
    "--layers-a",
    "--layers-b",
    "--holdout",
]
OF_MEASURES = ("--measures", "--match", "--start")
OF_ANCHORS = ("--anchors", "--copies", "--members")
OF_RAW = ("--standardize", "--standardize-from", "--encoder-per-view")


@dataclass(frozen=True, kw_only=True)
class TrainRows(SidedRows):
    """And which rows are left to test on."""

    holdout: Annotated[
        float,
        typer.Option(
            "--holdout",
            min=0,
            max=0.9,
            help="Fraction of the rows to leave out (by id, --seed), for tests by bench --holdout.",
        ),
    ] = 0.0


def train(
    stores: o.Stores,
    task: Annotated[
        Literal["layers", "pairs"],
        typer.Option(
            "--task",
            help="layers: stores are models, same layers attract; pairs: stores are two views, same rows attract.",
        ),
    ],
    output: EncoderOutput,
    rows: TrainRows,
    recipe: r.Recipe,
    unseen: r.Unseen,
    standardizing: r.TrainStandardizing,
    compute: o.SharedCompute,
    recipe_name: Annotated[
        r.RecipeName,
        typer.Option("--recipe", help="Defaults of the other options; paper: as published."),
    ] = "default",
) -> None:
    """Train an encoder whose outputs are similar where representations should match, and dissimilar where not.

    Options that are not given come from the recipe. Without --layers, every layer except hidden_0 (the embeddings) is used.
    During the run, its state is kept beside the output in a file that ends in .partial.
    """
    read = [*stores, *(standardizing.standardize_from or ())]
    flags = o.given(output, rows, recipe, unseen, standardizing)
    parts = r.parts_given(recipe, unseen, standardizing, compute.seed)
    if unseen.inputs == "measures":
        _check_measured(task, recipe_name, flags)
        output.check(read)
        from contrasim_cli.commands.stacked import train_measured

        output.draw(train_measured(stores, output, rows, unseen, chosen(recipe_name, task, parts), compute))
        return
    _check_inputs(unseen.inputs, flags)
    parts = chosen(recipe_name, task, parts)
    _check_parts(task, parts, flags)
    room = compute.memory_asked
    output.check(read)
    from contrasim_cli import training
    from contrasim_cli.cautions import warn_constant
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.locks import only_writer
    from contrasim_cli.training import job

    device, budget = compute.resolve()
    with Inputs(stores, rows, room) as opened:
        data = _data(opened, task, rows.holdout, compute.seed)
        training.check_data(data, task, recipe.encoder_per_view)
        note_embeddings([opened])
        warn_constant(data.views, data.layers)
        config = job.configuration(data, task, recipe_name, parts)
        if task == "layers" and unseen.inputs == "raw":
            log.warning(
                "--task layers on raw inputs learns the neurons of these %d models: the encoder will be valid only for them; "
                "for other models give --inputs measures or anchors",
                len(data.views),
            )
        sources = standardizing.standardize_from or ()
        standardizer = opened.standardizer(sources, [job.standardization_asked(config)], data.layers)
        by = [{"name": p.stem, "rows": v.n_rows} for p, v in zip(sources, standardizer.sources, strict=False)]
        picks_lr = recipe.lr is None and recipe_name == "default"
        files = job.Files(output.encoder, output.log, output.save_every, output.resume, output.force)
        training_job = job.Job(data, config, standardizer, by, picks_lr)
        with only_writer(output.encoder):
            distributed.by_first(files.check_stopped)
            curves = job.train_encoder(training_job, files, device, budget, console.progress)
    output.draw(curves)


def _check_measured(task: str, recipe: str, flags: Mapping[str, Any]) -> None:
    """Refuse what an encoder of measures does not have."""
    if task != "layers":
        raise UsageError("--inputs measures compares whole layers; it goes with --task layers")
    r.check_measured(recipe, [flags.get("--objective")])
    wrong = [flag for flag in OF_ROWS if flag in flags and (flag, flags[flag]) != ("--similarity", "dot")]
    if wrong:
        raise UsageError(f"{wrong[0]} does not go with --inputs measures, which reads no rows")


def _check_inputs(inputs: str, flags: Mapping[str, Any]) -> None:
    """Refuse options that go with the other kinds of inputs."""
    if any(flag in flags for flag in OF_MEASURES):
        raise UsageError("--measures, --match and --start go with --inputs measures")
    foreign, kind = (OF_RAW, "raw") if inputs == "anchors" else (OF_ANCHORS, "anchors")
    if wrong := [flag for flag in foreign if flag in flags]:
        raise UsageError(f"{wrong[0]} goes with --inputs {kind}")


def _check_parts(task: str, parts: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Refuse values that cannot be, and those that do not go together."""
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
    if task == "layers" and parts["standardize"] in ("auto", "within"):
        raise UsageError(
            f"--standardize {parts['standardize']} goes with --task pairs; give none, center, zscore or whiten"
        )
    if task == "layers" and {"--encoder-per-view", "--layers-a", "--layers-b"} & set(flags):
        raise UsageError("--encoder-per-view, --layers-a and --layers-b go with --task pairs")
    if "--shrinkage" in flags and parts["standardize"] not in ("whiten", "within"):
        raise UsageError("--shrinkage goes with --standardize whiten or within")


def _data(inputs: "Inputs", task: str, holdout: float, seed: int) -> "Data":
    """The chosen layers of the stores, without the rows that are held out."""
    from contrasim_cli.trained_rows import hold_out
    from contrasim_cli.training import Data

    if task == "layers":
        layers = inputs.select(embeddings=False)
    else:
        first, second = inputs.select_sides(embeddings=False)
        layers = [*first[:1], *second[1:]]
    if holdout:
        inputs.views = hold_out(inputs.views, holdout, seed)
    return Data(inputs.views, layers)
