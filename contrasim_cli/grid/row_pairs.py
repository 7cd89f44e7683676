"""Measures of two n × n matrices that are made of the distances between rows: worked off in tiles of all layers at once."""

from collections.abc import Callable, Mapping

import numpy as np

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.grid.grid import Blocks, Grid, Layer
from contrasim_cli.measures.protocol import PairForm
from contrasim_cli.measures.tiles import Tile, Tiles

FEWEST_ROWS, TILE_SIDE = 256, 1024  # of a tile
TILE_BYTES = 512 << 20  # at most, of the tiles of all layers together
SORTING = 6  # numbers per pair of rows that a sort takes beside the ranks of each layer

Make = Callable[[Tile], Tensor]


def compute(grid: Grid, members: list[int]) -> None:
    """Each layer's matrix is fitted, then compared with all others tile by tile; distances are kept while there is room."""
    by_mapping: dict[object, list[int]] = {}
    for s in members:
        form = grid.scorers[s].measure.pairs
        assert form is not None
        by_mapping.setdefault(form.mapping, []).append(s)
    for same in by_mapping.values():
        form = grid.scorers[same[0]].measure.pairs
        assert form is not None
        tiles = {layer: _tiles(grid, form, layer) for layer in grid.plan.layers}
        for s in same:
            _score(grid, s, tiles)


def _tiles(grid: Grid, form: PairForm, layer: Layer) -> Tiles:
    blocks = Blocks(grid.reader, layer)
    mapping = form.mapping(blocks)
    layers = len(grid.plan.layers)
    fitting = int((min(TILE_BYTES, grid.reader.free // 4) / (8 * layers)) ** 0.5)
    side = _even(blocks.n_rows, max(FEWEST_ROWS, min(TILE_SIDE, fitting)))
    return Tiles(
        blocks.n_rows,
        lambda start, stop: mapping.apply(blocks.rows(start, stop)),
        side,
        mapping.scale,
        room=grid.reader.free // 4 // layers,
        sortable=4 * blocks.n_rows**2 * (layers + SORTING) <= grid.reader.free // 4,
    )


def _even(n_rows: int, most: int) -> int:
    """Rows per tile, so that all tiles are of about one size: the lower halves of those on the diagonal are wasted."""
    return -(-n_rows // -(-n_rows // most))


def _score(grid: Grid, s: int, tiles: Mapping[Layer, Tiles]) -> None:
    form = grid.scorers[s].measure.pairs
    assert form is not None
    layers = grid.plan.layers
    with grid.progress("comparing", 2 * len(layers), "layers") as advance:
        makes: dict[Layer, Make] = {}
        for layer in layers:
            makes[layer] = form.fit(tiles[layer])
            advance(1)
        total = _sums(grid, form, tiles, makes)
        advance(len(layers))
    place = {layer: k for k, layer in enumerate(layers)}
    for one, other in grid.plan.cells():
        i, j = place[one], place[other]
        grid.scores[s, one, other] = float(form.score(total[i, j], total[i, i], total[j, j]))


def _sums(grid: Grid, form: PairForm, tiles: Mapping[Layer, Tiles], makes: Mapping[Layer, Make]) -> Tensor:
    """[layers, layers] inner products of the matrices; or squared norms of the differences that cells need."""
    plan, layers = grid.plan, grid.plan.layers
    place = {layer: k for k, layer in enumerate(layers)}
    sides = [([place[a, n] for n in plan.first[a]], [place[b, n] for n in plan.second[b]]) for a, b in plan.pairs]
    total = xp.zeros(len(layers), len(layers), dtype=xp.float64, device=grid.device)
    for top, left in tiles[layers[0]].own_positions:
        values = xp.stack([makes[layer](tiles[layer].at(top, left)) for layer in layers]).flatten(1)
        weight = 1 if top == left else 2
        if not form.gaps:
            total += weight * (values @ values.T)
            continue
        for ones, others in sides:
            gaps = xp.cdist(values[ones], values[others], compute_mode="donot_use_mm_for_euclid_dist")
            total[np.array(ones)[:, None], np.array(others)] += weight * gaps.square()
    distributed.total(total)
    return total
