"""The options of `train` that make a recipe; those that are not given are the chosen recipe's."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.errors import UsageError

WIDEST = 2**20  # neurons of a layer

RecipeName = Literal["default", "paper"]
RowsIn = Literal["raw", "anchors", "measures"]
AnchorSideName = Literal["both", "first"]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="How often every row is seen; default: 5 or more, for 320 steps at least (layers), 10 (pairs); recipe paper: 50, 30.",
    ),
]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
AnchorCount = Annotated[
    int | None,
    typer.Option(
        "--anchors",
        min=4,
        help="--inputs anchors: how many rows are drawn as such, for each member; default: 128.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the encoder is and how it is trained; fields have the names of a recipe's parts."""

    PANEL: ClassVar = "Training"
    objective: Annotated[
        Literal["contrasim", "supcon", "deepdot", "deepcka"] | None,
        typer.Option("--objective", help="Loss: Eq. 3, SupCon, or positives only."),
    ] = None
    similarity: Annotated[
        Literal["dot", "norm"] | None,
        typer.Option(
            "--similarity",
            help="Between encoded rows: dot, or norm, 1 - distance; default: norm for layers of raw inputs, else dot.",
        ),
    ] = None
    epochs: Epochs = None
    lr: LearningRate = None
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        typer.Option("--schedule", help="Learning rate: constant, or falling to 0 like half a cosine."),
    ] = None
    warmup: Annotated[
        float | None,
        typer.Option("--warmup", min=0, max=1, help="Part of the steps over which the learning rate rises."),
    ] = None
    optimizer: Annotated[
        Literal["adam", "adamw"] | None,
        typer.Option("--optimizer", help="adam, or adamw, whose weight decay is decoupled."),
    ] = None
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", min=0, help="The optimiser's weight decay.")
    ] = None
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=2, help="Rows per step.")] = None
    temperature: Annotated[float | None, typer.Option("--temperature", help="τ of the contrastive objectives.")] = None
    hidden: Annotated[
        list[int] | None,
        typer.Option(
            "--hidden", min=1, max=WIDEST, help="Width of a hidden layer; repeat for several; default: 512, 256."
        ),
    ] = None
    output: Annotated[
        int | None,
        typer.Option("--dim", min=0, max=WIDEST, help="Width of the encoder's output; 0: that of the widest rows."),
    ] = None
    path: Annotated[
        Literal["mlp", "linear", "both"] | None,
        typer.Option("--path", help="What rows go through: an mlp, a linear map, or both beside each other."),
    ] = None
    validation: Annotated[
        float | None,
        typer.Option("--validation", min=0, max=0.5, help="Part of the rows to hold out and validate on."),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience", min=0, help="Stop after so many epochs in which held-out rows got no better; 0: never."
        ),
    ] = None
    anchor_side: Annotated[
        AnchorSideName,
        typer.Option("--anchor-side", help="Task pairs: of which view the loss takes the rows i of Eq. 3."),
    ] = "both"
    encoder_per_view: Annotated[
        bool, typer.Option("--encoder-per-view", help="Task pairs: each view has its own first layer.")
    ] = False
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option("--precision", help="Type of the encoder's matrix products."),
    ] = "float32"


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """What the encoder reads, and what goes with inputs that other models have too."""

    PANEL: ClassVar = "Encoders for models they were not trained on"
    inputs: Annotated[
        RowsIn,
        typer.Option(
            "--inputs",
            help="raw: rows as they are, for the networks at hand; anchors: rows across models, by their likeness to anchor "
            "rows; measures: whole layers of any models, by grids of closed-form measures.",
        ),
    ] = "raw"
    n_anchors: AnchorCount = None
    copies: Annotated[
        int | None,
        typer.Option(
            "--copies",
            min=0,
            help="--inputs anchors: blends of every model with another to train on besides; default: 1 (layers), 0 (pairs).",
        ),
    ] = None
    members: Annotated[
        int | None,
        typer.Option(
            "--members",
            min=1,
            max=100,
            help="--inputs anchors, measures: networks side by side (each with anchors of its own), whose scores are averaged; "
            "default: 3 (anchors of layers), 4 (measures), 1.",
        ),
    ] = None
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measures",
            help="--inputs measures: a closed form to look at, or scaled (default), or scale_free: those that mind no lengths of "
            "rows; repeat for several.",
        ),
    ] = None
    match: Annotated[
        Literal["order", "depth"],
        typer.Option(
            "--match",
            help="--inputs measures: layers correspond by their order, or by relative depth where models differ in depth.",
        ),
    ] = "order"
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="--inputs measures: an encoder of the same measures to begin with, or none; default: the one of the package, "
            "where there is one of these measures.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainStandardizing(o.Standardizing):
    """What is done to rows before they are learned from."""

    standardize: Annotated[
        Literal["none", "center", "zscore", "whiten", "within", "auto"] | None,
        typer.Option(
            "--standardize",
            help="Rows of each store and layer beforehand: none, center, zscore, whiten, or, for pairs, within: by how views "
            "differ, auto: what suits each layer.",
        ),
    ] = None  # type: ignore[assignment]


def parts_given(recipe: Recipe, unseen: Unseen, standardizing: TrainStandardizing, seed: int) -> dict[str, Any]:
    """What was said of a recipe's parts; None where nothing was."""
    return {
        **vars(recipe),
        "hidden": tuple(recipe.hidden) if recipe.hidden else None,
        **{name: getattr(unseen, name) for name in ("inputs", "n_anchors", "copies", "members")},
        "standardize": standardizing.standardize,
        "shrinkage": standardizing.shrinkage,
        "seed": seed,
    }


def check_measured(recipe: str, objectives: Iterable[str | None]) -> None:
    """Refuse what an encoder of measures cannot be trained by.

    Raises:
        UsageError: such a recipe or objective.
    """
    if recipe == "paper":
        raise UsageError("--recipe paper is about rows; --inputs measures goes with --recipe default")
    if wrong := [name for name in objectives if name not in (None, "supcon", "contrasim")]:
        raise UsageError(
            f"--objective {wrong[0]} does not go with --inputs measures, which learns from negatives; give supcon or contrasim"
        )
