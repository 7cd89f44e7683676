"""What `score` and `baseline` share: every layer of every store against every layer of the stores after it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from contrasim_cli import console
from contrasim_cli.commands.emit import check_outputs, emit
from contrasim_cli.commands.inputs import Inputs, at_least
from contrasim_cli.commands.options import Align, Device, Format, OnNan, PrecisionName, parse_memory
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


def compare(request: Request, make_scorers: Callable[[], Sequence["Scorer"]]) -> None:
    """Compare every pair of stores, a before b in the order given, and report."""
    at_least(request.stores, 2, request.command)
    check_outputs(request.output, request.plot, request.force)
    asked = parse_memory(request.memory)
    import torch

    from contrasim_cli.device import memory_budget, pick_device
    from contrasim_cli.errors import raise_all
    from contrasim_cli.grid import Grid, Plan, layer_grids
    from contrasim_cli.scoring import distinct_names

    device, budget = pick_device(request.device and request.device.value), memory_budget(asked)
    scorers = make_scorers()
    with Inputs(request.stores, request.align, request.nan) as inputs:
        first, second = inputs.select_sides(request.layers_a, request.layers_b)
        names = distinct_names(request.stores)
        plan = Plan(inputs.views, list(combinations(range(len(names)), 2)), first, second)
        raise_all([problem for scorer in scorers for problem in plan.problems(scorer)])
        precision = getattr(torch, request.precision.value)
        grids = Grid(plan, scorers, device, budget, precision, request.max_rows, request.seed, console.progress)
        found = layer_grids(grids)
        rows = []
        for a, b in plan.pairs:
            for s, scorer in enumerate(scorers):
                grid = found[s, a, b]
                for i, layer_a in enumerate(first[a]):
                    for j, layer_b in enumerate(second[b]):
                        score = float(grid[i, j])
                        rows.append(
                            ScoreRow(
                                scorer.name, names[a], layer_a, names[b], layer_b, None if math.isnan(score) else score
                            )
                        )
        about = inputs.about(seed=request.seed, device=str(device), max_rows=grids.rows_of_subset)
    emit(Results(request.command, ScoreRow, rows, about), request.form, request.output, request.plot, request.force)
