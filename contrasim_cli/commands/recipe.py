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
        help="Passes over the rows. Default: layers 5, or more for at least 320 steps; pairs 10; recipe paper: 50 and 30.",
    ),
]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
AnchorCount = Annotated[
    int | None,
    typer.Option(
        "--anchors",
        min=4,
        help="--inputs anchors: number of anchor rows of each member; default: 128.",
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
            help="Similarity of encoded rows: dot, or norm (1 - distance); default: norm for layers of raw inputs, else dot.",
        ),
    ] = None
    epochs: Epochs = None
    lr: LearningRate = None
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        typer.Option("--schedule", help="Learning rate: constant, or falling to 0 along half a cosine."),
    ] = None
    warmup: Annotated[
        float | None,
        typer.Option("--warmup", min=0, max=1, help="Fraction of the steps in which the learning rate rises."),
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
        typer.Option(
            "--dim", min=0, max=WIDEST, help="Width of the encoder's output; 0: the width of the widest rows."
        ),
    ] = None
    path: Annotated[
        Literal["mlp", "linear", "both"] | None,
        typer.Option("--path", help="Encoder: an MLP, a linear map, or the sum of both."),
    ] = None
    validation: Annotated[
        float | None,
        typer.Option("--validation", min=0, max=0.5, help="Fraction of the rows to hold out for validation."),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=0, help="Stop after N epochs without improvement on held-out rows; 0: never."),
    ] = None
    anchor_side: Annotated[
        AnchorSideName,
        typer.Option("--anchor-side", help="Task pairs: the view whose rows are the rows i of Eq. 3."),
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
            help="raw: raw rows, for the models trained on only; anchors: rows described by their similarity to anchor rows, for "
            "any models; measures: grids of closed-form measures of whole layers, for any models.",
        ),
    ] = "raw"
    n_anchors: AnchorCount = None
    copies: Annotated[
        int | None,
        typer.Option(
            "--copies",
            min=0,
            help="--inputs anchors: artificial models for each model, blended with another one; default: 1 (layers), 0 (pairs).",
        ),
    ] = None
    members: Annotated[
        int | None,
        typer.Option(
            "--members",
            min=1,
            max=100,
            help="--inputs anchors, measures: number of networks whose scores are averaged, each with its own anchors; "
            "default: 3 (anchors, layers), 1 (anchors, pairs), 4 (measures).",
        ),
    ] = None
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measures",
            help="--inputs measures: a closed form to use, or a set: scaled (default), or scale_free, which ignores the length of "
            "rows; repeat for several.",
        ),
    ] = None
    match: Annotated[
        Literal["order", "depth"],
        typer.Option(
            "--match",
            help="--inputs measures: layers correspond by order, or by relative depth (for models of different depths).",
        ),
    ] = "order"
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="--inputs measures: encoder of the same measures to start from, or none; default: the package's encoder of these "
            "measures, if there is one.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainStandardizing(o.Standardizing):
    """What is done to rows before they are learned from."""

    standardize: Annotated[
        Literal["none", "center", "zscore", "whiten", "within", "auto"] | None,
        typer.Option(
            "--standardize",
            help="Standardise rows of each store and layer first: none, center, zscore, whiten; for pairs also within (whiten by "
            "the differences of views) or auto (choose for each layer).",
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
        raise UsageError("--recipe paper compares rows; --inputs measures goes with --recipe default")
    if wrong := [name for name in objectives if name not in (None, "supcon", "contrasim")]:
        raise UsageError(
            f"--objective {wrong[0]} does not go with --inputs measures, which learns from negatives; give supcon or contrasim"
        )
