"""`contrasim bench layers`: layer prediction."""

from enum import Enum
from typing import Annotated

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import model_pairs
from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.options import Common, Encoders, Measures, Rows, StandardizeMeasures, hows
from contrasim_cli.files import distinct_names


class Pairs(str, Enum):
    """Which pairs of models are compared."""

    disjoint = "disjoint"
    all = "all"


def layers_benchmark(
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
        about = inputs.about(seed=seed, device=str(where), standardize=hows(scorers))
    common.report("layers", trials, about)
