"""A learned measure over measures (stacking: Wolpert 1992): closed forms of all pairs of layers of two stores, seen together.

- `measures`: which closed forms, and what each says of a layer and itself;
- `features`: what the grids of two stores become for a network;
- `network`: the network, which minds neither the order of layers nor which store is first;
- `training`: how it learns which layer of another model is the same;
- `universal`: the one that comes with the package.

Grids are [..., measures, layers of a, layers of b]. The network needs no rows, neurons, widths or ids: one that is trained
serves any models.
"""
