"""`contrasim baseline`: closed-form similarity of every pair of layers of every pair of stores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from contrasim_cli.commands import complete
from contrasim_cli.commands import options as o
from contrasim_cli.commands.emit import PlottedOutput
from contrasim_cli.commands.figures import Figures
from contrasim_cli.commands.inputs import SidedRows
from contrasim_cli.errors import UsageError
from contrasim_cli.measures import INVARIANCES, MEASURES, Entry, Options, check_names
from contrasim_cli.measures.described import described
from contrasim_cli.stacking import universal

if TYPE_CHECKING:
    import torch

    from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)

LISTED = ("name", "family", "range", "more_similar", "invariances", "cost", "source", "summary")


def show_measures(names: Sequence[str], long: bool) -> None:
    """Print what is known of some measures: a line of a table each, or at length."""
    if long:
        for name in names:
            typer.echo(
                "\n".join(
                    f"{heading:14}{text}" if k else f"{heading}: {text}"
                    for k, (heading, text) in enumerate(described(name))
                )
            )
            typer.echo()
        return
    typer.echo("\t".join(LISTED))
    for name in names:
        typer.echo("\t".join(_listed(MEASURES[name])))


def _listed(entry: Entry) -> list[str]:
    direction = "higher" if entry.higher_is_more_similar else "lower"
    invariances = " ".join(name for name in INVARIANCES if name in entry.invariances)
    return [entry.name, entry.family, entry.range, direction, invariances, entry.cost, entry.source, entry.summary]


@dataclass(frozen=True, kw_only=True)
class Closed:
    """Which measures, and their parameters."""

    PANEL: ClassVar = "Measures"
    MAIN: ClassVar = ("measure", "list_measures", "long")
    REST: ClassVar = "Parameters of measures"
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="A name, family:NAME or all; repeat for several; default: cka. --list shows them.",
            autocompletion=complete.measures,
        ),
    ] = None
    list_measures: Annotated[
        bool, typer.Option("--list", help="List the measures, or those named in place of stores, and exit.")
    ] = False
    long: Annotated[
        bool, typer.Option("--long", help="--list: formula, invariances and failures too, as in --list --long pwcca.")
    ] = False
    rank_tol: o.RankTol = 1e-6
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbour measures: number of nearest rows.")] = 10
    clamp: Annotated[
        float,
        typer.Option(
            "--clamp",
            min=0.5,
            max=1,
            help="Neighbour measures: clamp a layer's values at this quantile of their sizes; platonic-rep: 0.95.",
        ),
    ] = 1.0
    rbf_threshold: Annotated[
        float, typer.Option("--rbf-threshold", min=1e-6, help="cka_rbf: bandwidth over the median distance.")
    ] = 1.0
    rsm: Annotated[
        Literal["pearson", "cosine", "euclidean", "sqeuclidean"],
        typer.Option("--rsm", help="rsa: similarity of rows; sqeuclidean is the squared Euclidean distance."),
    ] = "pearson"
    compare: Annotated[
        Literal["spearman", "pearson", "cosine", "cosine-rdm", "rho-a", "tau-a", "corr-cov", "cosine-cov"],
        typer.Option(
            "--compare",
            help="rsa: comparison of the two matrices. cosine: of similarities; cosine-rdm: of dissimilarities (1 - similarity); "
            "rho-a, tau-a: rank correlations without correction for ties; corr-cov, cosine-cov: of whitened dissimilarities.",
        ),
    ] = "spearman"
    ridge: Annotated[float, typer.Option("--ridge", min=0, help="gulp: λ over the mean variance of a neuron.")] = 0.1
    minibatch: Annotated[int, typer.Option("--minibatch", min=4, help="cka_minibatch: rows per batch.")] = 256
    shape_alpha: o.ShapeAlpha = 0.5
    encoding_score: Annotated[
        Literal["r2", "correlation"],
        typer.Option("--encoding-score", help="Encoding scores: R² or correlation of each neuron on held-out rows."),
    ] = "r2"
    neurons: Annotated[
        Literal["median", "mean"], typer.Option("--neurons", help="Encoding scores: summary over neurons.")
    ] = "median"
    folds: Annotated[
        int,
        typer.Option(
            "--folds", min=2, max=50, help="Encoding scores: number of folds; rows are assigned at random (--seed)."
        ),
    ] = 5
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            metavar="SEPARATOR",
            help="Encoding scores: rows whose ids agree up to the last SEPARATOR are held out together.",
        ),
    ] = None
    components: Annotated[
        int, typer.Option("--components", min=1, help="…_pls: components of partial least squares.")
    ] = 25
    topology_rows: Annotated[
        int, typer.Option("--topology-rows", min=4, max=4000, help="rtd: rows per draw (--seed).")
    ] = 500
    topology_trials: Annotated[
        int, typer.Option("--topology-trials", min=1, help="rtd, geometry_score: draws of rows or landmarks (--seed).")
    ] = 10

    repeats: Annotated[
        list[Path] | None,
        typer.Option(
            "--repeats",
            help="rsa: other measurements of the last store's rows, for its noise ceiling or --repeats-distance; may repeat. The "
            "ceiling is the mean score of a measurement with all (upper) or all others (lower); scores are with the last store.",
        ),
    ] = None
    repeats_distance: Annotated[
        Literal["crossnobis", "crossnobis-diag", "cv-sqeuclidean", "split-half"] | None,
        typer.Option(
            "--repeats-distance",
            help="rsa: dissimilarities of the last store, estimated across it and its --repeats without the bias of noise. "
            "cv-sqeuclidean: squared, cross-validated; crossnobis: also normalised by the noise covariance; crossnobis-diag: "
            "only by its variances; split-half: the dissimilarity of --rsm between halves.",
        ),
    ] = None

    def check(self, names: Sequence[str], resampled: bool) -> None:
        """Refuse groups that nothing goes by, or that resampling of rows would tear apart.

        Raises:
            UsageError: no measure holds rows out, rows are resampled, or repeats are given that no measure needs or are missing.
        """
        if self.repeats_distance and not self.repeats:
            raise UsageError(
                f"--repeats-distance {self.repeats_distance} needs --repeats FILE, another measurement of the last store's rows"
            )
        if self.repeats_distance and self.compare == "cosine":
            raise UsageError(
                f"--repeats-distance {self.repeats_distance} gives dissimilarities; give --compare cosine-rdm in place of cosine"
            )
        if self.repeats_distance not in (None, "split-half") and self.rsm != "sqeuclidean":
            log.warning(
                "rsa: --repeats-distance %s gives squared distances of the last store, --rsm %s others of the first; "
                "give --rsm sqeuclidean for the same kind on both sides",
                self.repeats_distance,
                self.rsm,
            )
        if self.repeats and "rsa" not in names:
            raise UsageError("--repeats goes with --measure rsa, whose noise ceiling is estimated from repeats")
        if self.groups is None:
            return
        if not self.groups:
            raise UsageError(
                "--groups: the separator is empty; give what separates the group from the row in ids, such as --groups :"
            )
        if not any(MEASURES[name].family == "encoding" for name in names):
            raise UsageError("--groups goes with an encoding score, such as --measure encoding_ridge")
        if resampled:
            raise UsageError("--groups does not go with --bootstrap and --permutations, which resample rows one by one")

    def settings(self, seed: int) -> Options:
        """The parameters of measures."""
        return Options(
            rank_tol=self.rank_tol,
            k=self.k,
            clamp=self.clamp,
            rbf_threshold=self.rbf_threshold,
            rsm=self.rsm,
            rsm_compare=self.compare,
            ridge=self.ridge,
            minibatch=self.minibatch,
            seed=seed,
            shape_alpha=self.shape_alpha,
            folds=self.folds,
            encoding_score=self.encoding_score,
            neurons=self.neurons,
            components=self.components,
            topology_rows=self.topology_rows,
            topology_trials=self.topology_trials,
        )


@dataclass(frozen=True, kw_only=True)
class ClosedConfidence(o.Confidence):
    """How sure scores are, and what shuffled rows score."""

    levels: ClassVar = True
    null: Annotated[
        int | None,
        typer.Option(
            "--null",
            min=0,
            help="Show the score of shuffled rows for every measure, from N shuffles of the second side's rows; 0: for none. "
            "Default: measures with an exact value: cka, rv, cka_debiased; without z: dot, cosine, cca_yanai, linear_regression.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class GridCompute(o.SampledCompute):
    """Where and in what grids are computed."""

    precision: Annotated[
        Literal["auto", "float32", "float64", "bfloat16"],
        typer.Option(
            "--precision",
            help="Type of the matrix products of cka, rv and cka_debiased; auto: float64 for small jobs, else float32.",
        ),
    ] = "auto"


def baseline(
    *,
    stores: o.OptionalStores = None,
    closed: Closed,
    rows: SidedRows,
    standardizing: o.Standardizing,
    confidence: ClosedConfidence,
    compute: GridCompute,
    output: PlottedOutput,
    figures: Figures,
) -> None:
    """Compare stores by closed-form measures: how similar is each layer of one to each layer of the other?"""
    if closed.long and not closed.list_measures:
        raise UsageError("--long goes with --list, as in contrasim baseline --list --long pwcca")
    if closed.list_measures:
        return show_measures(check_names([str(name) for name in stores or [Path("all")]], "--list"), closed.long)
    names = check_names(closed.measure or ["cka"])
    closed.check(names, bool(confidence.bootstrap or confidence.permutations))
    standardizing.check()
    from contrasim_cli.commands.layer_scores import Request, compare

    def scorers() -> "list[Scorer]":
        from contrasim_cli.scoring import across_repeats, closed_form

        scorers = closed_form(names, closed.settings(compute.seed), standardizing.how)
        return across_repeats(scorers, closed.repeats_distance) if closed.repeats_distance else scorers

    def beside() -> "list[Scorer]":
        from contrasim_cli.scoring import learned

        return learned([Path(universal.NAME)])

    output = replace(output, figures=figures)

    def ceiling(repeats: "Sequence[torch.Tensor]") -> tuple[float, float]:
        from contrasim_cli.measures.ceiling import noise_ceiling

        return noise_ceiling(repeats, closed.rsm, closed.compare)

    request = Request(
        "baseline",
        stores or [],
        rows,
        standardizing,
        confidence,
        compute,
        output,
        repeats=closed.repeats or (),
        ceiling=ceiling if closed.repeats and not closed.repeats_distance else None,
        repeats_distance=closed.repeats_distance,
        groups=closed.groups,
        beside=beside,
    )
    compare(request, scorers)
