"""`contrasim bench multilingual` and `image-caption`: one retrieval protocol."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from contrasim_cli import console
from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.options import Common, Encoders, Measures, Rows, StandardizeMeasures, hows
from contrasim_cli.errors import UsageError
from contrasim_cli.files import distinct_names


class Negatives(str, Enum):
    """Where wrong candidates come from."""

    random = "random"
    faiss = "faiss"


class Index(str, Enum):
    """How nearest neighbours are searched."""

    exact = "exact"
    ivf = "ivf"
    ivfpq = "ivfpq"
    hnsw = "hnsw"


IndexOption = Annotated[
    Index,
    typer.Option(
        "--index", help="Search of --negatives faiss; the others than exact are approximate, for large pools."
    ),
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


def multilingual(
    stores: o.Stores,
    measure: Measures = None,
    encoder: Encoders = None,
    negatives: NegativesOption = None,
    batch_size: BatchSize = 8,
    index: IndexOption = Index.exact,
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
    _retrieval(common, "multilingual", negatives, batch_size, layers, None, None, index)


def image_caption(
    stores: o.Stores,
    measure: Measures = None,
    encoder: Encoders = None,
    negatives: NegativesOption = None,
    batch_size: BatchSize = 64,
    index: IndexOption = Index.exact,
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
    _retrieval(
        common, "image-caption", negatives, batch_size, layers_a or layers, layers_b or layers, candidates_from, index
    )


def _retrieval(
    common: Common,
    benchmark: str,
    negatives: Sequence[Negatives] | None,
    batch_size: int,
    layers_a: Sequence[str] | None,
    layers_b: Sequence[str] | None,
    candidates_from: Path | None,
    index: Index,
) -> None:
    if index is not Index.exact and Negatives.faiss not in (negatives or []):
        raise UsageError(
            f"--index {index.value} is how nearest neighbours are searched; give --negatives faiss with it"
        )
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
            index=index.value,
            candidates_from=View(open_store(candidates_from)) if candidates_from else None,
            standardizer=inputs.standardizer_of(common.rows.standardize_from, scorers, layers),
        )
        trials = retrieval(
            task, scorers, hold_out=not one_way, device=where, budget=memory_budget(asked), progress=console.progress
        )
        about = inputs.about(seed=common.seed, device=str(where), batch_size=batch_size, standardize=hows(scorers))
        about |= {} if index is Index.exact else {"index": index.value}
    common.report(benchmark, trials, about, [] if index is Index.exact else ["recall"])
