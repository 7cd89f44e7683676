"""`contrasim baseline`: closed-form similarity of every pair of layers of every pair of stores."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.measures import INVARIANCES, MEASURES, Entry, Options, check_names

if TYPE_CHECKING:
    from contrasim_cli.scoring import Scorer


class Rsm(str, Enum):
    """How rows are compared in `rsa`."""

    pearson = "pearson"
    cosine = "cosine"
    euclidean = "euclidean"


class RsmCompare(str, Enum):
    """How two row-similarity matrices are compared in `rsa`."""

    spearman = "spearman"
    pearson = "pearson"
    cosine = "cosine"


LISTED = ("name", "family", "range", "more_similar", "invariances", "cost", "source", "summary")


def _list(asked: bool) -> None:
    if asked:
        typer.echo("\t".join(LISTED))
        for entry in MEASURES.values():
            typer.echo("\t".join(_listed(entry)))
        raise typer.Exit


def _listed(entry: Entry) -> list[str]:
    direction = "higher" if entry.higher_is_more_similar else "lower"
    invariances = " ".join(name for name in INVARIANCES if name in entry.invariances)
    return [entry.name, entry.family, entry.range, direction, invariances, entry.cost, entry.source, entry.summary]


def baseline(
    stores: o.Stores,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="A name, family:NAME or all; repeat for several; default: cka. --list shows them.",
            show_default=False,
        ),
    ] = None,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    zero_rows: o.ZeroRowsRule = None,
    rank_tol: o.RankTol = 1e-6,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbour measures: how many nearest rows.")] = 10,
    rbf_threshold: Annotated[
        float, typer.Option("--rbf-threshold", min=1e-6, help="cka_rbf: bandwidth over the median distance.")
    ] = 1.0,
    rsm: Annotated[Rsm, typer.Option("--rsm", help="rsa: similarity of rows.")] = Rsm.pearson,
    rsm_compare: Annotated[
        RsmCompare, typer.Option("--compare", help="rsa: comparison of the two similarity matrices.")
    ] = RsmCompare.spearman,
    ridge: Annotated[float, typer.Option("--ridge", min=0, help="gulp: λ over the mean variance of a neuron.")] = 0.1,
    minibatch: Annotated[int, typer.Option("--minibatch", min=4, help="cka_minibatch: rows per batch.")] = 256,
    precision: o.Precision = o.PrecisionName.float32,
    max_rows: o.MaxRows = None,
    bootstrap: o.Bootstrap = None,
    permutations: o.Permutations = None,
    confidence_rows: o.ConfidenceRows = 2000,
    standardize: o.StandardizeOption = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    force: o.Force = False,
    list_measures: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="List the measures and exit.")
    ] = False,
) -> None:
    """Compare stores by closed-form measures: how similar is each layer of one to each layer of the other?"""
    names = check_names(measure or ["cka"])
    o.check_shrinkage(standardize, shrinkage)
    settings = Options(rank_tol, k, rbf_threshold, rsm.value, rsm_compare.value, ridge, minibatch, seed)
    from contrasim_cli.commands.layer_scores import Request, compare

    def scorers() -> "list[Scorer]":
        from contrasim_cli.scoring import closed_form

        return closed_form(names, settings, o.standardization(standardize, shrinkage))

    request = Request(
        command="baseline",
        stores=stores,
        layers_a=layers_a or layers,
        layers_b=layers_b or layers,
        align=align,
        nan=nan,
        device=device,
        seed=seed,
        memory=memory,
        form=format,
        output=output,
        plot=plot,
        force=force,
        precision=precision,
        max_rows=max_rows,
        bootstrap=bootstrap,
        permutations=permutations,
        confidence_rows=confidence_rows,
        standardize_from=standardize_from,
        zero_rows=zero_rows,
    )
    compare(request, scorers)
