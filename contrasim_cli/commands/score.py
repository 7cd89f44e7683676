"""`contrasim score`: learned similarity of every pair of layers of every pair of stores."""

import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.commands.rows import COUNT, RowsPlot
from contrasim_cli.errors import UsageError
from contrasim_cli.stacking import universal

if TYPE_CHECKING:
    from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)


class Projection(str, Enum):
    """How rows are laid on a plane."""

    umap = "umap"
    pca = "pca"


def score(
    stores: o.Stores,
    encoder: Annotated[
        list[Path] | None,
        typer.Option(
            "--encoder",
            help="Encoder made by contrasim train; repeat for several; default: universal, the one of the package.",
            show_default=False,
        ),
    ] = None,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    zero_rows: o.ZeroRowsRule = None,
    bootstrap: o.Bootstrap = None,
    permutations: o.Permutations = None,
    confidence_rows: o.ConfidenceRows = 2000,
    null: Annotated[
        int | None,
        typer.Option(
            "--null",
            min=0,
            help="Say where each score lies between chance (0) and a layer with itself (1), with z and p, from so many "
            "shufflings of the second side's rows, the same that --permutations counts; 0: do not. Default: as many as an "
            "encoder brings; encoders of raw or anchored rows bring none.",
            show_default=False,
        ),
    ] = None,
    standardize: Annotated[
        o.Standardize | None,
        typer.Option(
            "--standardize",
            help="none, center, zscore or whiten; default: as each encoder was trained.",
            show_default=False,
        ),
    ] = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    anchor_store: o.AnchorStores = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    max_rows: o.MaxRows = None,
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    plot_rows: Annotated[
        Path | None,
        typer.Option(
            "--plot-rows",
            help="Draw a few rows of the last selected layer on a plane, before and after the encoder (.png .svg .pdf).",
            show_default=False,
        ),
    ] = None,
    plot_rows_count: Annotated[
        int | None, typer.Option("--plot-rows-count", min=1, help="How many; default: 5.", show_default=False)
    ] = None,
    projection: Annotated[
        Projection | None,
        typer.Option(
            "--projection",
            help="--plot-rows: umap (extra: umap) or pca; default: umap if it is installed.",
            show_default=False,
        ),
    ] = None,
    force: o.Force = False,
) -> None:
    """Compare stores by a trained encoder: how similar is each layer of one to each layer of the other?"""
    o.check_shrinkage(standardize, shrinkage)
    if plot_rows is None and (plot_rows_count is not None or projection is not None):
        raise UsageError("--plot-rows-count and --projection go with --plot-rows")
    from contrasim_cli.commands.layer_scores import Request, compare

    def scorers() -> "list[Scorer]":
        from contrasim_cli.scoring import learned

        if not encoder:
            log.info(universal.ABOUT)
        return learned(encoder or [Path(universal.NAME)], o.standardization(standardize, shrinkage))

    request = Request(
        "score",
        stores,
        layers_a or layers,
        layers_b or layers,
        align,
        nan,
        device,
        seed,
        memory,
        format,
        output,
        plot,
        force,
        max_rows=max_rows,
        bootstrap=bootstrap,
        permutations=permutations,
        confidence_rows=confidence_rows,
        standardize_from=standardize_from,
        zero_rows=zero_rows,
        plot_rows=RowsPlot(plot_rows, plot_rows_count or COUNT, projection and projection.value) if plot_rows else None,
        anchor_stores=anchor_store,
        null=null,
    )
    compare(request, scorers)
