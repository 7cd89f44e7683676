"""The options of `train` that make a recipe; those that are not given are the chosen recipe's."""

from collections.abc import Iterable
from enum import Enum
from typing import Annotated

import typer

from contrasim_cli.errors import UsageError


class Task(str, Enum):
    """How positives and negatives are drawn."""

    layers = "layers"
    pairs = "pairs"


class Recipe(str, Enum):
    """What stands where an option does not say otherwise."""

    default = "default"
    paper = "paper"


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


class Network(str, Enum):
    """What rows go through."""

    mlp = "mlp"
    linear = "linear"
    both = "both"


class Optimizer(str, Enum):
    """How weights are moved."""

    adam = "adam"
    adamw = "adamw"


class Schedule(str, Enum):
    """How the learning rate goes on."""

    constant = "constant"
    cosine = "cosine"


class Standardize(Enum):  # no str, which has a method `center`
    """What is done to the rows of each layer before anything else."""

    none = "none"
    center = "center"
    zscore = "zscore"
    whiten = "whiten"
    within = "within"
    auto = "auto"


class RowsIn(str, Enum):
    """What the encoder reads."""

    raw = "raw"
    anchors = "anchors"
    measures = "measures"


class Match(str, Enum):
    """Which layers of two models correspond."""

    order = "order"
    depth = "depth"


class Precision(str, Enum):
    """Types of the encoder's matrix products."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


WIDEST = 2**20  # neurons of a layer

ObjectiveOption = Annotated[
    Objective | None,
    typer.Option("--objective", help="Loss: Eq. 3, SupCon, or positives only.", show_default=False),
]
SimilarityOption = Annotated[
    Similarity | None,
    typer.Option(
        "--similarity",
        help="Between encoded rows: dot, or norm, 1 - distance; default: norm for layers of raw inputs, else dot.",
        show_default=False,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="How often every row is seen; default: 5 or more, for 320 steps at least (layers), 10 (pairs); recipe paper: 50, 30.",
        show_default=False,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate.", show_default=False),
]
ScheduleOption = Annotated[
    Schedule | None,
    typer.Option("--schedule", help="Learning rate: constant, or falling to 0 like half a cosine.", show_default=False),
]
Warmup = Annotated[
    float | None,
    typer.Option(
        "--warmup", min=0, max=1, help="Part of the steps over which the learning rate rises.", show_default=False
    ),
]
OptimizerOption = Annotated[
    Optimizer | None,
    typer.Option("--optimizer", help="adam, or adamw, whose weight decay is decoupled.", show_default=False),
]
WeightDecay = Annotated[
    float | None,
    typer.Option("--weight-decay", min=0, help="The optimiser's weight decay.", show_default=False),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=2, help="Rows per step.", show_default=False),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="τ of the contrastive objectives.", show_default=False),
]
Hidden = Annotated[
    list[int] | None,
    typer.Option(
        "--hidden",
        min=1,
        max=WIDEST,
        help="Width of a hidden layer; repeat for several; default: 512, 256.",
        show_default=False,
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(
        "--dim",
        min=0,
        max=WIDEST,
        help="Width of the encoder's output; 0: that of the widest rows.",
        show_default=False,
    ),
]
PathOption = Annotated[
    Network | None,
    typer.Option(
        "--path", help="What rows go through: an mlp, a linear map, or both beside each other.", show_default=False
    ),
]
Validation = Annotated[
    float | None,
    typer.Option(
        "--validation", min=0, max=0.5, help="Part of the rows to hold out and validate on.", show_default=False
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        min=0,
        help="Stop after so many epochs in which held-out rows got no better; 0: never.",
        show_default=False,
    ),
]
InputsOption = Annotated[
    RowsIn,
    typer.Option(
        "--inputs",
        help="raw: rows as they are, for the networks at hand; anchors: rows across models, by their likeness to anchor rows; "
        "measures: whole layers of any models, by grids of closed-form measures.",
    ),
]
AnchorCount = Annotated[
    int | None,
    typer.Option(
        "--anchors",
        min=4,
        help="--inputs anchors: how many rows are drawn as such, for each member; default: 128.",
        show_default=False,
    ),
]
Copies = Annotated[
    int | None,
    typer.Option(
        "--copies",
        min=0,
        help="--inputs anchors: blends of every model with another to train on besides; default: 1 (layers), 0 (pairs).",
        show_default=False,
    ),
]
Members = Annotated[
    int | None,
    typer.Option(
        "--members",
        min=1,
        max=100,
        help="--inputs anchors, measures: networks side by side (each with anchors of its own), whose scores are averaged; "
        "default: 3 (anchors of layers), 4 (measures), 1.",
        show_default=False,
    ),
]
MeasuresOption = Annotated[
    list[str] | None,
    typer.Option(
        "--measures",
        help="--inputs measures: a closed form to look at, or scaled (default), or scale_free: those that mind no lengths of rows; "
        "repeat for several.",
        show_default=False,
    ),
]
MatchOption = Annotated[
    Match,
    typer.Option(
        "--match",
        help="--inputs measures: layers correspond by their order, or by relative depth where models differ in depth.",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="--inputs measures: an encoder of the same measures to begin with, or none; default: the one of the package, where "
        "there is one of these measures.",
        show_default=False,
    ),
]
StandardizeOption = Annotated[
    Standardize | None,
    typer.Option(
        "--standardize",
        help="Rows of each store and layer beforehand: none, center, zscore, whiten, or, for pairs, within: by how views differ, "
        "auto: what suits each layer.",
        show_default=False,
    ),
]


def check_measured(recipe: Recipe, objectives: Iterable[str | None]) -> None:
    """Refuse what an encoder of measures cannot be trained by.

    Raises:
        UsageError: such a recipe or objective.
    """
    if recipe is Recipe.paper:
        raise UsageError("--recipe paper is about rows; --inputs measures goes with --recipe default")
    if wrong := [name for name in objectives if name not in (None, "supcon", "contrasim")]:
        raise UsageError(
            f"--objective {wrong[0]} does not go with --inputs measures, which learns from negatives; give supcon or contrasim"
        )
