"""Groups of options: declared once as dataclasses, shown as panels of --help, and handed to a command as one object each."""

import copy
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

import typer

from contrasim_cli import console, distributed, launch, limits
from contrasim_cli.commands import dash
from contrasim_cli.commands.help import shortened
from contrasim_cli.errors import Interrupted, UsageError

if TYPE_CHECKING:
    import torch

    from contrasim_cli.transforms import Standardization


# panels that --help shows last, so that what most need is on one screen
RARE = (
    "Intervals and p-values",
    "Standardization",
    "Compute",
    "Parameters of measures",
    "Bad rows",
    "Titles and figures",
    "Picture of rows",
    "General",
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A function whose parameters may be groups as a command, which has an option for every annotated field of a group.

    A group is a dataclass with a `PANEL`; where it has `MAIN`, fields that are not in it are in the panel `REST`. A field that is
    not `Annotated` with an option is none, and keeps its default, so that a subclass can take an option away, or change its help.
    Every command has the options of `General` too, by which stderr and limits are set up before it runs.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)} | {"general": General}

    @functools.wraps(function)
    def run(**options: Any) -> None:
        arguments = {name: _group_of(options, name, group) for name, group in groups.items()}
        arguments.pop("general").set_up()
        ranks = next((group.ranks for group in arguments.values() if getattr(group, "ranks", None)), None)
        try:
            if (code := launch.started(ranks, sys.argv[1:])) is not None:
                raise distributed.Quiet(code)
            with distributed.joined():
                function(**options, **arguments)
        except KeyboardInterrupt as stop:
            raise Interrupted(*stop.args) from stop

    own = [p.replace(annotation=_short(hints[p.name])) for p in inspect.signature(function).parameters.values()]
    single = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name not in groups]
    expanded = [parameter for name, group in groups.items() for parameter in _parameters(name, group)]
    expanded.sort(key=_rarity)
    run.__signature__ = inspect.Signature([*single, *expanded])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _rarity(parameter: inspect.Parameter) -> int:
    """Where --help shows an option: behind others, if few need its panel."""
    panel = next(info.rich_help_panel for info in parameter.annotation.__metadata__)
    return RARE.index(panel) + 1 if panel in RARE else 0


def _short(hint: Any) -> Any:
    """An annotated type, its option shown by a word."""
    if not hasattr(hint, "__metadata__"):
        return hint
    shown = (shortened(info, hint.__origin__) for info in hint.__metadata__)
    return Annotated.__class_getitem__((hint.__origin__, *shown))  # type: ignore[attr-defined]


def given(*groups: Any) -> dict[str, Any]:
    """The options that differ from their defaults, by their first long flag."""
    return {
        flag: getattr(group, name)
        for group in groups
        for name, flag, default in _flags(group)
        if getattr(group, name) not in (default, [])
    }


def _flags(group: Any) -> Iterator[tuple[str, str, Any]]:
    for name, info, default in _options(type(group)):
        # Typer keeps the first flag of an option in `Annotated` where a default would be
        declared = (info.default, *(info.param_decls or ()))
        yield name, next(flag for flag in declared if flag.startswith("--")).split("/")[0], default


def _options(group: Any) -> Iterator[tuple[str, Any, Any]]:
    """The fields of a group that are options: name, what Typer is told, and default."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        for info in getattr(hints[field.name], "__metadata__", ()):
            yield field.name, info, inspect.Parameter.empty if field.default is MISSING else field.default


def _parameters(prefix: str, group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group)
    for name, info, default in _options(group):
        shown = copy.copy(shortened(info, hints[name]))
        shown.rich_help_panel = group.PANEL if name in getattr(group, "MAIN", (name,)) else group.REST
        yield inspect.Parameter(
            f"{prefix}__{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated.__class_getitem__((hints[name], shown)),  # type: ignore[attr-defined]
        )


def _group_of(options: dict[str, Any], prefix: str, group: Any) -> Any:
    return group(**{name: options.pop(f"{prefix}__{name}") for name, *_ in _options(group)})


# --- groups of several commands -------------------------------------------------------------------------------------------

_STORES = typer.Argument(
    help="Activation files (HDF5, .npz, .npy, .safetensors, .pt, …); -: read the list of files from stdin.",
    show_default=False,
    callback=dash.stores,
)
Stores = Annotated[list[Path], _STORES]
OptionalStores = Annotated[list[Path] | None, _STORES]
RankTol = Annotated[
    float,
    typer.Option(
        "--rank-tol", min=0, max=1, help="CCA family: drop directions with σ below this fraction of the largest."
    ),
]
ShapeAlpha = Annotated[
    float,
    typer.Option("--shape-alpha", min=0, max=1, help="shape_alpha: from 0 (whitened, as CCA) to 1 (as Procrustes)."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of all random choices.")]
Memory = Annotated[
    str | None, typer.Option("--memory", help="Memory limit, such as 2G; default: half of the free memory.")
]


@dataclass(frozen=True, kw_only=True)
class General:
    """What every command has."""

    PANEL: ClassVar = "General"
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.")] = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="More on stderr.")] = False
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (NO_COLOR does the same).")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
    open_limit: Annotated[
        float,
        typer.Option(
            "--open-limit",
            min=1,
            max=1e6,
            help="Factor for the limits of time and memory of the check of HDF5 files without a seal, MATLAB, Parquet and Arrow "
            "files.",
        ),
    ] = 1.0

    def set_up(self) -> None:
        """Set stderr and limits up."""
        console.configure(quiet=self.quiet, verbose=self.verbose, no_color=self.no_color, debug=self.debug)
        limits.times = self.open_limit


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and in what the arithmetic runs."""

    PANEL: ClassVar = "Compute"
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N; default: cuda if there is one."),
    ] = None
    seed: Seed = 0
    memory: Memory = None
    ranks: str | None = None
    max_rows: int | None = None
    precision: str = "auto"

    @property
    def memory_asked(self) -> int | None:
        """The bytes of --memory; None where it is not given.

        Raises:
            BadParameter: it is no size.
        """
        return parse_memory(self.memory)

    def check(self) -> None:
        """Refuse a device that is none, or is not there."""
        if self.device is not None:
            self.resolve(work=0)

    def resolve(self, work: float = math.inf) -> "tuple[torch.device, int]":
        """The device for so many multiplications of closed forms, and the bytes to work in."""
        from contrasim_cli.device import pick_device

        return pick_device(self.device, work=work), self.budget

    @property
    def budget(self) -> int:
        """The bytes to work in."""
        from contrasim_cli.memory import memory_budget

        return distributed.budget_per_rank(memory_budget(self.memory_asked))


@dataclass(frozen=True, kw_only=True)
class SharedCompute(Compute):
    """Options of computing, where several processes share the work."""

    ranks: Annotated[
        str | None,
        typer.Option(
            "--ranks",
            help="Number of processes on this machine that share the work, with the same results; auto: one per CUDA device.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SampledCompute(SharedCompute):
    """Options of computing, with a sample of the rows where all are too many."""

    max_rows: Annotated[
        int | None,
        typer.Option(
            "--max-rows",
            min=4,
            help="Compare at most N rows: random blocks of rows (--seed); only these are read.",
        ),
    ] = None


StandardizeName = Literal["none", "center", "zscore", "whiten"]


@dataclass(frozen=True, kw_only=True)
class Standardizing:
    """What is done to the rows of each layer beforehand."""

    PANEL: ClassVar = "Standardization"
    standardize: Annotated[
        StandardizeName | None,
        typer.Option(
            "--standardize",
            help="Standardise rows of each store and layer first: none, center, zscore or whiten; default: none.",
        ),
    ] = None
    shrinkage: Annotated[
        float | None,
        typer.Option(
            "--shrinkage",
            min=0,
            max=1,
            help="--standardize whiten: weight of the mean variance, from 0 to 1, in the covariance; default: 0.01.",
        ),
    ] = None
    standardize_from: Annotated[
        list[Path] | None,
        typer.Option(
            "--standardize-from",
            help="Use the statistics of this store; repeat, one per compared store, in the same order.",
        ),
    ] = None
    anchor_stores: list[Path] | None = None

    def check(self) -> None:
        """Refuse a shrinkage that nothing shrinks by.

        Raises:
            UsageError: rows are not whitened.
        """
        if self.shrinkage is not None and self.standardize != "whiten":
            raise UsageError("--shrinkage goes with --standardize whiten")

    @property
    def how(self) -> "Standardization | None":
        """What was asked for; None where nothing was."""
        from contrasim_cli.transforms import Standardization

        if self.standardize is None:
            return None
        if self.shrinkage is None:
            return Standardization(self.standardize)
        return Standardization(self.standardize, self.shrinkage)


@dataclass(frozen=True, kw_only=True)
class EncoderStandardizing(Standardizing):
    """Options of standardising, where encoders say how, with the stores of their anchors."""

    standardize: Annotated[
        StandardizeName | None,
        typer.Option("--standardize", help="none, center, zscore or whiten; default: as each encoder was trained."),
    ] = None
    anchor_stores: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchor-store",
            help="Use the anchor rows of this store of the same model; repeat, one per compared store, in the same order.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How sure scores are."""

    PANEL: ClassVar = "Intervals and p-values"
    bootstrap: Annotated[
        int | None, typer.Option("--bootstrap", min=1, help="95 % intervals from N resamplings of rows.")
    ] = None
    permutations: Annotated[
        int | None,
        typer.Option(
            "--permutations",
            min=1,
            help="p-values and z-scores from N shuffles of the second side's rows.",
        ),
    ] = None
    confidence_rows: Annotated[
        int,
        typer.Option(
            "--confidence-rows", min=4, help="--bootstrap, --permutations: number of rows used, if not all rows are."
        ),
    ] = 2000
    null: int | None = None
    levels: ClassVar = False  # whether scores of shuffled rows that have a closed form are shown unasked

    @property
    def replicates(self) -> int:
        """How often rows are drawn or shuffled."""
        return (self.bootstrap or 0) + max(self.permutations or 0, self.null or 0)


def parse_memory(text: str | None) -> int | None:
    """`2G`, `512M`, `1.5GiB` in bytes; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is not a size; write it as 2G or 512M", param_hint="--memory")
    return size


def at_least(paths: Sequence[Path], count: int, command: str) -> None:
    """Refuse too few stores.

    Raises:
        UsageError: fewer than `count`.
    """
    if len(paths) < count:
        twice = "; to compare a store's layers with each other, give it twice" if len(paths) == 1 < count else ""
        raise UsageError(f"{command} compares {count} or more stores, {len(paths)} given{twice}")
