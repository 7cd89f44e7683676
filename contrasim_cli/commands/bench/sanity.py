"""`contrasim bench sanity`: do measures respond as claimed, on the user's own rows?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli import console
from contrasim_cli.commands import complete, record
from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.options import MANY, BenchStandardizing, Judged, hows
from contrasim_cli.commands.emit import Output
from contrasim_cli.commands.inputs import Align, Inputs, Rows
from contrasim_cli.errors import InputError
from contrasim_cli.measures import check_names
from contrasim_cli.names import quoted
from contrasim_cli.report.results import Results, SanityRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from contrasim_cli.scoring import Scorer
    from contrasim_cli.store import View

OF_THE_PAPER = ("cka", "cca", "svcca", "pwcca", "dot", "norm")
COPIES = 10  # of rows in float64, and of n × n matrices of measures that have them, held at a time
LEAST_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class OwnJudged(Judged):
    """Which measures and encoders are examined."""

    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="A name, family:NAME or all; repeat for several; default: those of the paper, without --encoder.",
            autocompletion=complete.measures,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class OwnRows(Rows):
    """Layers and rows of one store."""

    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", help="As for the other commands; default: the last layer."),
    ] = None
    align: Align = "order"


@dataclass(frozen=True, kw_only=True)
class OwnStandardizing(BenchStandardizing):
    """By the statistics of the store itself."""

    standardize_from: list[Path] | None = None
    anchor_stores: list[Path] | None = None


def sanity(
    store: Annotated[Path, typer.Argument(help="A file of activations.", show_default=False)],
    judged: OwnJudged,
    rows: OwnRows,
    standardizing: OwnStandardizing,
    compute: o.Compute,
    output: Output,
    max_rows: Annotated[
        int,
        typer.Option("--max-rows", min=LEAST_ROWS, help="Use at most N rows: random blocks of rows (--seed)."),
    ] = 2000,
) -> None:
    """Do measures respond as claimed on these rows? Invariances, noise, shuffled rows, fewer neurons.

    A layer is compared with changed copies of itself.
    """
    standardizing.check()
    names = check_names(judged.measure or ([] if judged.encoder else OF_THE_PAPER))
    output.check(MANY, [store, *(judged.encoder or ())])
    room, seed = compute.memory_asked, compute.seed
    from contrasim_cli.benchmarks.sanity import examine, multiplications
    from contrasim_cli.cautions import compared, warn_few_rows, warn_unknown_layers
    from contrasim_cli.device import device_budget
    from contrasim_cli.errors import raise_all
    from contrasim_cli.scoring import closed_form, learned

    compute.check()
    scorers = [*closed_form(names, judged.settings(seed), standardizing.how), *learned(judged.encoder or ())]
    with Inputs([store], replace(rows, layers=rows.layers or ["-1"]), room, max_rows, seed) as inputs:
        (layers,) = inputs.select()
        view = inputs.views[0]
        raise_all([problem for scorer in scorers for problem in scorer.check(view.store, layers)])
        for scorer in scorers:
            warn_unknown_layers(scorer, [view], [layers])
        widths = [view.store.layer(name).width for name in layers]
        device, budget = compute.resolve(multiplications(view.n_rows, widths, scorers))
        sample = _rows(view, layers, scorers, device_budget(budget, device))
        warn_few_rows(scorers, compared([view], [layers]), len(sample[layers[0]]))
        results = examine(sample, view.store, scorers, device=device, seed=seed, progress=console.progress)
        about = inputs.about(
            seed=seed, device=str(device), sampled_rows=len(sample[layers[0]]), standardize=hows(scorers)
        )
        if output.records:
            about |= record.of_inputs(inputs.stores, scorers)
    output.emit(Results("bench", SanityRow, results, about))


def _rows(
    view: "View", layers: Sequence[str], scorers: "Sequence[Scorer]", budget: int
) -> "dict[str, npt.NDArray[np.float64]]":
    """The rows [n, p] of every layer, in float64.

    Raises:
        InputError: there are too few, they hold a bad value, or the examination does not fit the budget.
    """
    import numpy as np

    count = view.n_rows
    if count < LEAST_ROWS:
        raise InputError(f"{quoted(view.store.path)}: has {count} rows; bench sanity takes {LEAST_ROWS} or more")
    width = sum(view.store.layer(name).width for name in layers)
    widest = max(view.store.layer(name).width for name in layers)
    square = count if any(scorer.entry.quadratic for scorer in scorers) else 0
    need = 8 * (count * width + COPIES * (count * widest + square**2) + 3 * widest**2)
    if need > budget:
        raise InputError(
            f"bench sanity on {count} rows takes {need / 2**20:.1f} MiB, --memory allows {budget / 2**20:.1f}; raise it, or "
            "give fewer rows (--max-rows) or layers"
        )
    return {name: view.read(name).astype(np.float64) for name in layers}
