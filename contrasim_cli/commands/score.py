"""`contrasim score`: learned similarity of every pair of layers of every pair of stores."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.commands.emit import PlottedOutput
from contrasim_cli.commands.figures import Figures
from contrasim_cli.commands.inputs import SidedRows
from contrasim_cli.commands.rows_plot import RowsPlot
from contrasim_cli.report.look import LearnedValues
from contrasim_cli.stacking import universal

if TYPE_CHECKING:
    from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LearnedConfidence(o.Confidence):
    """How sure scores are, and where they lie between chance and identity."""

    null: Annotated[
        int | None,
        typer.Option(
            "--null",
            min=0,
            help="Calibrate each score between chance (0) and a layer with itself (1), with z and p, by N shuffles of the second "
            "side's rows (the same shuffles as --permutations); 0: do not. Default: for universal and other encoders of "
            "measures, as many as make 100 shuffled scores (at most 19); for encoders of raw or anchored rows, 0.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class LearnedFigures(Figures):
    """How figures of learned measures look."""

    values: Annotated[
        LearnedValues,
        typer.Option(
            "--values",
            help="Scores in heat maps of --plot: calibrated (0: unrelated rows, 1: a layer with itself), if every pair of layers "
            "has one, or raw. Raw scores decide which cells are framed.",
        ),
    ] = "calibrated"


def score(
    stores: o.Stores,
    rows: SidedRows,
    confidence: LearnedConfidence,
    standardizing: o.EncoderStandardizing,
    compute: o.SampledCompute,
    output: PlottedOutput,
    figures: LearnedFigures,
    rows_plot: RowsPlot,
    encoder: Annotated[
        list[Path] | None,
        typer.Option(
            "--encoder",
            help="Encoder made by contrasim train; repeat for several; default: universal, the package's encoder.",
        ),
    ] = None,
) -> None:
    """Compare stores by a trained encoder: how similar is each layer of one to each layer of the other?

    There is no --resume: a comparison that is stopped starts again from the beginning.
    """
    standardizing.check()
    from contrasim_cli.commands.layer_scores import Request, compare

    def scorers() -> "list[Scorer]":
        from contrasim_cli.scoring import learned

        if not encoder:
            log.info(universal.ABOUT)
        return learned(encoder or [Path(universal.NAME)], standardizing.how)

    def beside() -> "list[Scorer]":
        from contrasim_cli.scoring import closed_form

        return closed_form(["cka"])

    output = replace(output, figures=figures)
    request = Request("score", stores, rows, standardizing, confidence, compute, output, rows_plot, beside=beside)
    compare(request, scorers)
