"""The grid: every layer of some stores against every layer of others.

Each layer is read in blocks of rows and factored once. `compute` says which way a measure goes, and makes learned measures over
measures of closed forms; the ways are

- `rowwise`: dot, cosine, norm, learned scores and minibatch CKA add up over blocks of rows;
- `moments`: measures of second moments add up XᵀX per layer and XᵀY per pair, one matrix product per pair of stores; the CCA family
  does so twice, of the rows, which gives whitening maps, then of the whitened rows;
- `gram_products`: CKA needs only ‖XᵀY‖², through those moments, or through tiles of Gram matrices where that costs less;
- `row_pairs`: measures of all pairs of rows work in tiles of n × n matrices;
- `prepared`: differences of one number per layer, all other measures, and layers that the other forms do not resolve.

Memory is bounded by a budget: what does not fit is worked off in tiles of layers, each with a pass of its own.
"""

from contrasim_cli.grid.compute import compute, layer_grids
from contrasim_cli.grid.grid import Cell, Grid, Layer, Plan

__all__ = ["Cell", "Grid", "Layer", "Plan", "compute", "layer_grids"]
