"""`contrasim bench`: which measure to trust, by layer prediction and by retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import model_pairs
from contrasim_cli.commands import options as o
from contrasim_cli.commands.emit import check_outputs, emit
from contrasim_cli.errors import UsageError
from contrasim_cli.files import distinct_names
from contrasim_cli.measures import MEASURES, Options, check_names
from contrasim_cli.results import BenchRow, Results

if TYPE_CHECKING:
    from contrasim_cli.benchmarks.outcomes import Trials
    from contrasim_cli.scoring import Scorer

bench = typer.Typer(help="Tell which measure to trust: layer prediction, multilingual and image-caption retrieval.")


class Pairs(str, Enum):
    """Which pairs of models are compared."""

    disjoint = "disjoint"
    all = "all"


class Negatives(str, Enum):
    """Where wrong candidates come from."""

    random = "random"
    faiss = "faiss"


Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        help=f"{', '.join(MEASURES)}; repeat for several; default: cka without --encoder.",
        show_default=False,
    ),
]
Encoders = Annotated[
    list[Path] | None,
    typer.Option("--encoder", help="Encoder made by contrasim train; repeat for several.", show_default=False),
]
NegativesOption = Annotated[
    list[Negatives] | None,
    typer.Option(
        "--negatives",
        help="random or faiss (nearest neighbours); repeat for both; default: random.",
        show_default=False,
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=2, help="Rows per batch.")]


StandardizeMeasures = Annotated[
    o.Standardize | None,
    typer.Option(
        "--standardize",
        help="Rows before --measure: none, center, zscore or whiten; default: none. Encoders bring their own.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Rows:
    """What is done to rows beforehand."""

    standardize: o.Standardize | None
    shrinkage: float | None
    standardize_from: Sequence[Path] | None


@dataclass(frozen=True)
class Common:
    """The options that all benchmarks have."""

    stores: Sequence[Path]
    measure: Sequence[str] | None
    encoder: Sequence[Path] | None
    rank_tol: float
    align: o.Align
    nan: o.OnNan
    rows: Rows
    device: o.Device | None
    seed: int
    memory: str | None
    form: o.Format | None
    output: Path | None
    plot: Path | None
    force: bool

    def check(self) -> tuple[list[str], int | None]:
        """Everything that can be refused before heavy modules are imported; the measures and the memory asked for."""
        o.check_shrinkage(self.rows.standardize, self.rows.shrinkage)
        if self.form is o.Format.value:
            raise UsageError("--format value prints one score; bench has many, give --format tsv")
        names = check_names(self.measure or ([] if self.encoder else ["cka"]))
        check_outputs(self.output, self.plot, self.force)
        return names, o.parse_memory(self.memory)

    def scorers(self, names: Sequence[str]) -> "list[Scorer]":
        """Closed-form measures, then encoders."""
        from contrasim_cli.scoring import closed_form, learned

        how = o.standardization(self.rows.standardize, self.rows.shrinkage)
        options = Options(rank_tol=self.rank_tol, seed=self.seed)
        return [*closed_form(names, options, how), *learned(self.encoder or ())]

    def report(self, benchmark: str, trials: "list[Trials]", about: dict[str, Any]) -> None:
        """Print and write the rows."""
        from contrasim_cli.benchmarks.outcomes import tabulate

        rows = tabulate(benchmark, trials, self.seed)
        emit(Results("bench", BenchRow, rows, about), self.form, self.output, self.plot, self.force)


@bench.command("layers")
@o.common
def layers_command(
    stores: o.Stores,
    measure: Measures = None,
    encoder: Encoders = None,
    pairs: Annotated[
        Pairs, typer.Option("--pairs", help="disjoint: (0,1), (2,3), …; all: every ordered pair.")
    ] = Pairs.disjoint,
    layers: o.Layers = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    rank_tol: o.RankTol = 1e-6,
    standardize: StandardizeMeasures = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    force: o.Force = False,
) -> None:
    """Layer prediction: is the same layer of another model (same data, other seed) the most similar one?"""
    model_pairs(len(stores), pairs is Pairs.all)
    rows = Rows(standardize, shrinkage, standardize_from)
    common = Common(
        stores, measure, encoder, rank_tol, align, nan, rows, device, seed, memory, format, output, plot, force
    )
    names, asked = common.check()
    from contrasim_cli.benchmarks.layers import layer_prediction
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.device import memory_budget, pick_device

    where = pick_device(device and device.value)
    scorers = common.scorers(names)
    with Inputs(stores, align, nan) as inputs:
        chosen = inputs.select(layers, embeddings=False)
        trials = layer_prediction(
            inputs.views,
            distinct_names(stores),
            chosen,
            scorers,
            every_pair=pairs is Pairs.all,
            device=where,
            budget=memory_budget(asked),
            progress=console.progress,
            standardizer=inputs.standardizer_of(standardize_from, scorers, chosen),
        )
        about = inputs.about(seed=seed, device=str(where), standardize=_hows(scorers))
    common.report("layers", trials, about)


@bench.command("multilingual")
@o.common
def multilingual_command(
    stores: o.Stores,
    measure: Measures = None,
    encoder: Encoders = None,
    negatives: NegativesOption = None,
    batch_size: BatchSize = 8,
    layers: o.Layers = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    rank_tol: o.RankTol = 1e-6,
    standardize: StandardizeMeasures = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    force: o.Force = False,
) -> None:
    """Retrieval over every ordered pair of views (languages); an encoder is not judged on the pair it was trained on.

    The trained pair is known by the names of the training stores' files.
    """
    rows = Rows(standardize, shrinkage, standardize_from)
    common = Common(
        stores, measure, encoder, rank_tol, align, nan, rows, device, seed, memory, format, output, plot, force
    )
    _retrieval(common, "multilingual", negatives, batch_size, layers, None, None)


@bench.command("image-caption")
@o.common
def image_caption_command(
    stores: o.Stores,
    measure: Measures = None,
    encoder: Encoders = None,
    negatives: NegativesOption = None,
    batch_size: BatchSize = 64,
    candidates_from: Annotated[
        Path | None,
        typer.Option(
            "--candidates-from", help="Draw nearest neighbours from this larger store of captions.", show_default=False
        ),
    ] = None,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    rank_tol: o.RankTol = 1e-6,
    standardize: StandardizeMeasures = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    force: o.Force = False,
) -> None:
    """Retrieval from the first store (images) into the second (captions)."""
    if len(stores) != 2:
        raise UsageError(f"bench image-caption compares two stores, images and captions, {len(stores)} given")
    if candidates_from and Negatives.faiss not in (negatives or []):
        raise UsageError("--candidates-from is where nearest neighbours come from; give --negatives faiss with it")
    rows = Rows(standardize, shrinkage, standardize_from)
    common = Common(
        stores, measure, encoder, rank_tol, align, nan, rows, device, seed, memory, format, output, plot, force
    )
    _retrieval(common, "image-caption", negatives, batch_size, layers_a or layers, layers_b or layers, candidates_from)


def _retrieval(
    common: Common,
    benchmark: str,
    negatives: Sequence[Negatives] | None,
    batch_size: int,
    layers_a: Sequence[str] | None,
    layers_b: Sequence[str] | None,
    candidates_from: Path | None,
) -> None:
    names, asked = common.check()
    from contrasim_cli.benchmarks.retrieval import Task, all_pairs, retrieval
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.device import memory_budget, pick_device
    from contrasim_cli.store import View, open_store

    where = pick_device(common.device and common.device.value)
    scorers = common.scorers(names)
    one_way = benchmark == "image-caption"
    with Inputs(common.stores, common.align, common.nan) as inputs:
        first, second = inputs.select_sides(layers_a, layers_b if one_way else layers_a, embeddings=False)
        layers = [*first[:1], *second[1:]]
        task = Task(
            views=inputs.views,
            names=distinct_names(common.stores),
            layers=layers,
            pairs=[(0, 1)] if one_way else all_pairs(len(inputs.views)),
            negatives=[kind.value for kind in dict.fromkeys(negatives or [Negatives.random])],
            batch_size=batch_size,
            seed=common.seed,
            candidates_from=View(open_store(candidates_from)) if candidates_from else None,
            standardizer=inputs.standardizer_of(common.rows.standardize_from, scorers, layers),
        )
        trials = retrieval(
            task, scorers, hold_out=not one_way, device=where, budget=memory_budget(asked), progress=console.progress
        )
        about = inputs.about(seed=common.seed, device=str(where), batch_size=batch_size, standardize=_hows(scorers))
    common.report(benchmark, trials, about)


def _hows(scorers: "Sequence[Scorer]") -> dict[str, Any]:
    """How rows were standardised, by scorer."""
    from contrasim_cli.transforms import plain

    return {scorer.name: plain(scorer.standardize) for scorer in scorers}
