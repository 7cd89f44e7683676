"""How much work a grid is, before anything is read: by it small grids are told from those that are worth a library's start."""

import math
from collections.abc import Sequence

from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import work
from contrasim_cli.scoring import Scorer


def multiplications(plan: Plan, scorers: Sequence[Scorer], replicates: int = 0, precision: str = "auto") -> float:
    """About as many as all cells take of all scorers, and of as many replicates; ∞ where they need torch."""
    if precision == "bfloat16":
        return math.inf
    widths = [plan.width(layer) for layer in plan.layers]
    pairs = [(plan.width(one), plan.width(other)) for one, other in plan.cells()]
    return of_layers(plan.n_rows, widths, pairs, scorers) * (1 + replicates)


def of_layers(n_rows: int, widths: Sequence[int], pairs: Sequence[tuple[int, int]], scorers: Sequence[Scorer]) -> float:
    """About as many as preparing layers of these widths takes, and comparing pairs of them; ∞ where scorers need torch."""
    if any(scorer.checkpoint for scorer in scorers):
        return math.inf
    return work.multiplications((scorer.entry for scorer in scorers), n_rows, widths, pairs)
