"""What `score` and `baseline` share: every layer of every store against every layer of the stores after it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING

from contrasim_cli import console
from contrasim_cli.commands.emit import check_outputs, emit
from contrasim_cli.commands.inputs import Inputs, at_least
from contrasim_cli.commands.options import Align, Device, Format, OnNan, PrecisionName, parse_memory
from contrasim_cli.files import distinct_names
from contrasim_cli.results import Results, ScoreRow

if TYPE_CHECKING:
    from contrasim_cli.scoring import Scorer


@dataclass(frozen=True)
class Request:
    """The options of a comparison."""

    command: str
    stores: Sequence[Path]
    layers_a: Sequence[str] | None
    layers_b: Sequence[str] | None
    align: Align
    nan: OnNan
    device: Device | None
    seed: int
    memory: str | None
    form: Format | None
    output: Path | None
    plot: Path | None
    force: bool
    precision: PrecisionName = PrecisionName.float32
    max_rows: int | None = None
    bootstrap: int | None = None
    permutations: int | None = None
    confidence_rows: int = 2000


def compare(request: Request, make_scorers: Callable[[], Sequence["Scorer"]]) -> None:
    """Compare every pair of stores, a before b in the order given, and report."""
    at_least(request.stores, 2, request.command)
    check_outputs(request.output, request.plot, request.force)
    asked = parse_memory(request.memory)
    import torch

    from contrasim_cli.confidence import Asked, Resampling
    from contrasim_cli.device import memory_budget, pick_device
    from contrasim_cli.errors import raise_all
    from contrasim_cli.grid import Grid, layer_grids
    from contrasim_cli.grid.plan import Plan

    device, budget = pick_device(request.device and request.device.value), memory_budget(asked)
    scorers = make_scorers()
    with Inputs(request.stores, request.align, request.nan) as inputs:
        first, second = inputs.select_sides(request.layers_a, request.layers_b)
        names = distinct_names(request.stores)
        plan = Plan(inputs.views, list(combinations(range(len(names)), 2)), first, second)
        raise_all([problem for scorer in scorers for problem in plan.problems(scorer)])
        precision = getattr(torch, request.precision.value)
        grids = Grid(plan, scorers, device, budget, precision, request.max_rows, request.seed, console.progress)
        asked_for = Asked(request.bootstrap or 0, request.permutations or 0, request.confidence_rows, request.seed)
        resampling = Resampling(grids, asked_for) if asked_for.columns else None
        found = layer_grids(grids)
        confidence = resampling.compute() if resampling else {}
        rows = []
        for a, b in plan.pairs:
            for s, scorer in enumerate(scorers):
                for (i, layer_a), (j, layer_b) in product(enumerate(first[a]), enumerate(second[b])):
                    score = float(found[s, a, b][i, j])
                    rows.append(
                        ScoreRow(
                            scorer.name,
                            names[a],
                            layer_a,
                            names[b],
                            layer_b,
                            None if math.isnan(score) else score,
                            *confidence.get((s, (a, layer_a), (b, layer_b)), ()),
                        )
                    )
        about = inputs.about(seed=request.seed, device=str(device), max_rows=grids.rows_of_subset)
        if resampling:
            about |= resampling.about
            resampling.note()
    results = Results(request.command, ScoreRow, rows, about, asked_for.columns)
    emit(results, request.form, request.output, request.plot, request.force)
