"""`contrasim baseline`: closed-form similarity of every pair of layers of every pair of stores."""

from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.measures import MEASURES, Options, check_names

if TYPE_CHECKING:
    from contrasim_cli.scoring import Scorer


def _list(asked: bool) -> None:
    if asked:
        typer.echo("name\tfamily\tmore_similar\tsummary")
        for entry in MEASURES.values():
            typer.echo(
                f"{entry.name}\t{entry.family}\t{'higher' if entry.higher_is_more_similar else 'lower'}\t{entry.summary}"
            )
        raise typer.Exit


def baseline(
    stores: o.Stores,
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", help=f"{', '.join(MEASURES)}; repeat for several; default: cka.", show_default=False),
    ] = None,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    rank_tol: o.RankTol = 1e-6,
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
    from contrasim_cli.commands.compare import Request, compare

    def scorers() -> "list[Scorer]":
        from contrasim_cli.scoring import closed_form

        return closed_form(names, Options(rank_tol=rank_tol, seed=seed))

    request = Request(
        "baseline",
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
    )
    compare(request, scorers)
