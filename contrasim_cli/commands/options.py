"""The options that several commands share, so that they are spelt and explained once."""

import functools
import inspect
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console, limits
from contrasim_cli.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from contrasim_cli.transforms import Standardization


class Format(str, Enum):
    """How results are written."""

    table = "table"
    tsv = "tsv"
    csv = "csv"
    json = "json"
    value = "value"


class Device(str, Enum):
    """Where the arithmetic runs."""

    cuda = "cuda"
    cpu = "cpu"


class Align(str, Enum):
    """How rows of two stores are matched."""

    order = "order"
    ids = "ids"
    position = "position"


class OnNan(str, Enum):
    """What a NaN or Inf does."""

    error = "error"
    drop = "drop"


class ZeroRows(str, Enum):
    """What is done with rows that are zero in every layer."""

    keep = "keep"
    drop = "drop"


class PrecisionName(str, Enum):
    """Types of matrix products."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"


class Standardize(Enum):  # no str, which has a method `center`
    """What is done to the rows of each layer before anything else."""

    none = "none"
    center = "center"
    zscore = "zscore"
    whiten = "whiten"


Stores = Annotated[
    list[Path], typer.Argument(help="Activation files (HDF5, .npz, .npy, .safetensors, .pt).", show_default=False)
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        help="Layers by name, index (-1 is the last), range (2-5) or glob; repeat for several.",
        show_default=False,
    ),
]
LayersA = Annotated[
    list[str] | None, typer.Option("--layers-a", help="As --layers, for the first side only.", show_default=False)
]
LayersB = Annotated[
    list[str] | None, typer.Option("--layers-b", help="As --layers, for the second side only.", show_default=False)
]
AlignRows = Annotated[
    Align,
    typer.Option(
        "--align",
        help="order: ids must agree in order; ids: keep and reorder the common ones; position: row by row whatever they say.",
    ),
]
NanRule = Annotated[
    OnNan, typer.Option("--nan", help="error: refuse NaN and Inf; drop: drop such rows from every store.")
]
ZeroRowsRule = Annotated[
    ZeroRows | None,
    typer.Option(
        "--zero-rows",
        help="Rows that are zero in every layer: keep them, or drop them from every store; default: more than 1 % are refused.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="cuda or cpu; default: cuda if there is one.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Makes a run repeat.")]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Memory to work in, such as 2G; default: half of what is free.", show_default=False),
]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Default: table on a terminal, tsv elsewhere.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="Write the result to this file too (.tsv .csv .json .txt).", show_default=False
    ),
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw the result (.png .svg .pdf; extra: plot).", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
RankTol = Annotated[
    float,
    typer.Option("--rank-tol", min=0, max=1, help="CCA family: drop directions with σ below this times the largest."),
]

Precision = Annotated[
    PrecisionName, typer.Option("--precision", help="Type of the matrix products of cka, rv and cka_debiased.")
]
MaxRows = Annotated[
    int | None,
    typer.Option(
        "--max-rows",
        min=4,
        help="Measures that cost n², and encoders of measures, take a random subset (--seed) of this many rows.",
        show_default=False,
    ),
]
Bootstrap = Annotated[
    int | None,
    typer.Option("--bootstrap", min=1, help="95 % intervals from so many resamplings of rows.", show_default=False),
]
Permutations = Annotated[
    int | None,
    typer.Option(
        "--permutations",
        min=1,
        help="p-values and z-scores from so many shufflings of the second side's rows.",
        show_default=False,
    ),
]
ConfidenceRows = Annotated[
    int,
    typer.Option("--confidence-rows", min=4, help="--bootstrap, --permutations: rows used where not all are."),
]

StandardizeOption = Annotated[
    Standardize | None,
    typer.Option(
        "--standardize",
        help="Rows of each store and layer beforehand: none, center, zscore or whiten; default: none.",
        show_default=False,
    ),
]
Shrinkage = Annotated[
    float | None,
    typer.Option(
        "--shrinkage",
        min=0,
        max=1,
        help="--standardize whiten: weight of the mean variance against the covariance; default: 0.01.",
        show_default=False,
    ),
]
StandardizeFrom = Annotated[
    list[Path] | None,
    typer.Option(
        "--standardize-from",
        help="Take the statistics from this store instead; repeat, one per store in their order.",
        show_default=False,
    ),
]
AnchorStores = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchor-store",
        help="Take the anchor rows from this store of the same model; repeat, one per store in their order.",
        show_default=False,
    ),
]

_COMMON = {
    "quiet": (("-q", "--quiet"), "Only errors on stderr."),
    "verbose": (("-v", "--verbose"), "More on stderr."),
    "no_color": (("--no-color",), "No colours (NO_COLOR does the same)."),
    "debug": (("--debug",), "Show tracebacks."),
}


OpenLimit = Annotated[
    float,
    typer.Option(
        "--open-limit",
        min=1,
        max=1e6,
        help="Times the usual processor time and memory for trying HDF5 files that have no seal, MATLAB, Parquet and Arrow files.",
    ),
]


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that every command has, and set stderr and limits up before it runs."""

    @functools.wraps(function)
    def run(**options: Any) -> None:
        console.configure(**{name: options.pop(name) for name in _COMMON})
        limits.times = options.pop("open_limit")
        try:
            function(**options)
        except KeyboardInterrupt as stop:
            raise Interrupted(*stop.args) from stop

    extra = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option(*flags, help=text)],
        )
        for name, (flags, text) in _COMMON.items()
    ]
    extra.append(inspect.Parameter("open_limit", inspect.Parameter.KEYWORD_ONLY, default=1.0, annotation=OpenLimit))
    signature = inspect.signature(function)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *extra])  # type: ignore[attr-defined]
    return run


def check_shrinkage(kind: Standardize | None, shrinkage: float | None) -> None:
    """Refuse a shrinkage that nothing shrinks by.

    Raises:
        UsageError: rows are not whitened.
    """
    if shrinkage is not None and kind is not Standardize.whiten:
        raise UsageError("--shrinkage goes with --standardize whiten")


def standardization(kind: Standardize | None, shrinkage: float | None) -> "Standardization | None":
    """What was asked for; None where nothing was."""
    from contrasim_cli.transforms import Standardization

    if kind is None:
        return None
    return Standardization(kind.value) if shrinkage is None else Standardization(kind.value, shrinkage)


def parse_memory(text: str | None) -> int | None:
    """`2G`, `512M`, `1.5GiB` in bytes; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is no size; write it as 2G or 512M", param_hint="--memory")
    return size
