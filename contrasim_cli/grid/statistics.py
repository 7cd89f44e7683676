"""Measures that compare one number per layer, which comes from a few reads of its rows."""

from typing import Any

from contrasim_cli.grid.grid import Grid


def compute(grid: Grid, members: list[int]) -> None:
    """Every layer's number once, then every pair."""
    layers = grid.plan.layers
    with grid.progress("comparing", len(members) * len(layers), "layers") as advance:
        for s in members:
            scorer, own = grid.scorers[s], grid.scorers[s].measure.own
            assert own is not None
            made: dict[Any, Any] = {}
            for layer in layers:
                made[layer] = own(grid.blocks(scorer, layer))
                advance(1)
            for one, other in grid.plan.cells():
                grid.scores[s, one, other] = float(scorer.measure.compare(made[one], made[other]))
