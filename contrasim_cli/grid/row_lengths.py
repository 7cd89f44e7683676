"""The lengths of centred rows, added up in the pass over the rows that finds their mean.

With x_r the rows [n, p] less the first one, m their mean, c = ‖m‖² and s_r = ‖x_r‖², the diagonal of the centred Gram matrix is
K_rr = s_r - 2 x_r·m + c, and

    Σ K_rr² = Σ s_r² + 4 Σ (x_r·m)² + n c² - 4 m·Σ s_r x_r + 2 c Σ s_r - 4 c m·Σ x_r
    Σ (x_r·m)² = mᵀ (XcᵀXc) m + n c²,   Σ x_r = n m

so that Σ s_r², Σ s_r and Σ s_r x_r are all that blocks of rows have to leave behind.
"""

from collections.abc import Mapping

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.grid.grid import Grid, Layer
from contrasim_cli.grid.moments import MomentSums

Pair = tuple[Layer, Layer]


class RowLengths:
    """Traces of centred Gram matrices and sums of their squared diagonals, of every layer of a grid."""

    def __init__(self, grid: Grid) -> None:
        self.n_rows, self.plan = grid.plan.n_rows, grid.plan
        self._after = dict.fromkeys(grid.plan.layers, 0)  # the row behind those that were added
        self._sums = {
            layer: xp.zeros(2 + grid.plan.width(layer), dtype=xp.float64, device=grid.device)
            for layer in grid.plan.layers
        }
        self._traces: dict[Layer, Tensor] = {}
        self._diagonals: dict[Layer, Tensor] = {}

    def add(self, layer: Layer, start: int, rows: Tensor) -> None:
        """A block of rows [k, p] less the first row of all; a block that comes once more, in a later pass, is left out."""
        if start < self._after[layer]:
            return
        self._after[layer] = start + len(rows)
        squares = xp.linalg.vector_norm(rows, dim=1, dtype=xp.float64).square()
        sums = self._sums[layer]
        sums[0] += squares.square().sum()
        sums[1] += squares.sum()
        sums[2:] += squares @ rows.double()

    def finish(self, moments: MomentSums) -> None:
        """Take the means and scatters of the layers of a pass, whose blocks have all been added."""
        distributed.total(*(self._sums[layer] for layer in moments.scatter))
        for layer, scatter in moments.scatter.items():
            mean, (fourth, second), third = moments.means[layer], self._sums[layer][:2], self._sums[layer][2:]
            c, n = mean @ mean, self.n_rows
            along = mean @ scatter @ mean + n * c.square()
            diagonal = fourth + 4 * along + n * c.square() - 4 * (mean @ third) + 2 * c * second - 4 * n * c.square()
            self._traces[layer], self._diagonals[layer] = scatter.trace(), diagonal

    def found(self, pairs: Mapping[Pair, Tensor]) -> tuple[dict[Pair, Tensor], dict[Layer, Tensor]]:
        """Diagonals of layers with themselves, 0 for other pairs; and the traces."""
        zero = xp.zeros((), dtype=xp.float64, device=next(iter(self._traces.values())).device)
        return {(a, b): self._diagonals[a] if a == b else zero for a, b in pairs}, self._traces
