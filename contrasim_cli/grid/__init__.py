"""The grid: every layer of some stores against every layer of others.

Each layer is read in blocks of rows and factored once. Which way a measure goes is in the modules of this package:

- `rowwise`: dot, cosine, norm and learned scores add up over blocks of rows;
- `moments`: measures of second moments add up XᵀX per layer and XᵀY per pair, one matrix product per pair of stores;
- `whitened`: the CCA family adds up moments twice, of the rows, which gives whitening maps, then of the whitened rows;
- `energies`: CKA needs only ‖XᵀY‖², through those moments, or through tiles of Gram matrices where that costs less;
- `batches`: minibatch CKA adds up over batches of rows;
- `kernels`: measures of all pairs of rows work in tiles of n × n matrices;
- `statistics`: differences of one number per layer;
- `whole`: all others, and layers that the other forms do not resolve, are prepared in memory.

Memory is bounded by a budget: what does not fit is worked off in tiles of layers, each with a pass of its own.
"""

from contrasim_cli.grid.compute import compute, layer_grids
from contrasim_cli.grid.grid import Cell, Grid, Layer, Plan

__all__ = ["Cell", "Grid", "Layer", "Plan", "compute", "layer_grids"]
