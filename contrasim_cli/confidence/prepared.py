"""Confidence of all other measures, from a subset of rows that is prepared once."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.confidence.resampling import Resampling, Use, Values
from contrasim_cli.grid import Layer
from contrasim_cli.grid.prepared import rows_of
from contrasim_cli.measures.cka import Centred, Debiased, gram_form
from contrasim_cli.measures.permuted import OF_INNER_PRODUCT, flat, permute_rows
from contrasim_cli.rows import Kept, Room, size
from contrasim_cli.scoring import Scorer
from contrasim_cli.store.blocks import spans

log = logging.getLogger(__name__)

# of a scorer and cell: the score of the rows as they are, and of every shuffle
Shuffled = dict[tuple[int, tuple[Layer, Layer]], tuple[float, Values]]

FEWEST_ROWS = 4  # of which half can be drawn
CHUNK_BYTES = 256 << 20  # of replicates worked off at once
GATHER = 150  # multiplications in the time of moving one value of a Gram matrix


def _subset_rows(sampling: Resampling, scorer: Scorer, layer: Layer) -> Tensor:
    """The subset [n, p], read and encoded once."""
    key = (id(scorer.checkpoint), layer)
    if key not in sampling._encoded:
        sampling._encoded[key] = sampling.rows_of(scorer, layer, sampling.subset)
    return sampling._encoded[key]


def compute(sampling: Resampling, members: Sequence[int]) -> None:
    """Intervals from halves of the subset, p-values from its shuffled rows; of measures that share prepared layers."""
    if sampling.asked.bootstrap:
        _draw_halves(sampling, members)
    members = [s for s in members if sampling.shuffles_of(s)]
    if members:
        _shuffle_prepared(sampling, members)


def _draw_halves(sampling: Resampling, members: Sequence[int]) -> None:
    replicates, count = sampling.asked.bootstrap, len(sampling.subset)
    scorers = [sampling.grid.scorers[s] for s in members]
    for scorer in scorers:
        sampling.intervals[scorer.name] = sampling.halves(sampling.grid.plan.n_rows)
        _warn_narrow(sampling, scorer)
    if count < FEWEST_ROWS:
        log.warning("no interval from %d rows for %s: too few to draw from", count, ", ".join(s.name for s in scorers))
        return
    rows = {layer: _subset_rows(sampling, scorers[0], layer) for layer in sampling.grid.plan.layers}
    each = sum(8 * sampling.half * max(side.shape[1], sampling.half) for side in rows.values())
    scores: dict[tuple[int, tuple[Layer, Layer]], list[Tensor]] = {}
    with sampling.grid.progress("subsampling", replicates, "draws") as advance:
        for start, stop in distributed.share(list(spans(replicates, _step(sampling, each)))):
            draws = sampling.draws(start, stop)
            cache = Kept(lambda layer: _prepare(sampling, scorers[0], layer, rows[layer][draws]), Room(sampling.room))  # noqa: B023
            for a, b in sampling.grid.plan.pairs:
                layers_a, layers_b = (
                    [(a, n) for n in sampling.grid.plan.first[a]],
                    [(b, n) for n in sampling.grid.plan.second[b]],
                )
                for s, cell, values in _pair_scores(sampling, members, cache, layers_a, layers_b):
                    scores.setdefault((s, cell), []).append(values)
            advance(stop - start)
    cells = list(sampling.grid.plan.cells())
    drawn = _of_all_ranks(scores, [(s, cell) for s in members for cell in cells])
    for s in members:
        own = {cell: drawn[s, cell] for cell in cells}
        scorer = sampling.grid.scorers[s]
        sampling.set_intervals(
            s, own, sampling.scale(sampling.grid.plan.n_rows, scorer.entry.growth, scorer.measure.drawn)
        )


def _of_all_ranks(scores: Mapping[Any, Sequence[Tensor]], keys: Sequence[Any]) -> dict[Any, Values]:
    """The scores of replicates by key, those of all ranks in order."""
    parts = [xp.cat(list(scores[key])).numpy() if key in scores else np.empty(0) for key in keys]
    return dict(zip(keys, distributed.joined_rows(np.stack(parts), axis=1), strict=True))


def _warn_narrow(sampling: Resampling, scorer: Scorer) -> None:
    widest = max(sampling.width(scorer, a) + sampling.width(scorer, b) for a, b in sampling.grid.plan.cells())
    if scorer.entry.trivial_at_full_rank and sampling.half <= widest:
        log.warning(
            "%s: intervals are from %d rows, fewer than the %d neurons of two layers: they are too narrow; raise "
            "--confidence-rows",
            scorer.name,
            sampling.half,
            widest,
        )


def _step(sampling: Resampling, each: int) -> int:
    """Replicates worked off at once, of so many bytes each."""
    return max(1, min(CHUNK_BYTES, sampling.room // 4) // max(1, each))


def _prepare(sampling: Resampling, scorer: Scorer, layer: Layer, rows: Tensor) -> Any:
    """Rows [n, p], or [c, m, p] of draws, as the measure prepares them; CKA's as Gram matrices where those cost less."""
    prepared = sampling.grid.prepare(scorer, layer, rows)
    if isinstance(prepared, Centred | Debiased) and _gram_is_cheaper(sampling, scorer, rows.shape[-2], rows.ndim > 2):
        return gram_form(prepared)
    return prepared


def _gram_is_cheaper(sampling: Resampling, scorer: Scorer, count: int, drawn: bool) -> bool:
    """Count operations of a replicate: cross products of features, or of Gram matrices, made for a draw or shuffled."""
    plan = sampling.grid.plan
    cells = [(sampling.width(scorer, a), sampling.width(scorer, b)) for a, b in plan.cells()]
    each = [sampling.width(scorer, layer) if drawn else GATHER for layer in plan.layers]
    return count * (sum(each) + len(cells)) < sum(p * q for p, q in cells)


def _pair_scores(
    sampling: Resampling, members: Sequence[int], cache: "Kept", layers_a: Sequence[Layer], layers_b: Sequence[Layer]
) -> Iterator[tuple[int, tuple[Layer, Layer], Tensor]]:
    """Scores [c] of all layers of one side with all of the other, both with a leading dimension c."""
    compares = {s: sampling.grid.scorers[s].measure.compare for s in members}
    products: Tensor | None = None
    if not OF_INNER_PRODUCT.keys().isdisjoint(compares.values()):
        first, second = (_kernels(cache.get(layer) for layer in side) for side in (layers_a, layers_b))
        products = None if first is None or second is None else first @ second.mT
    for (i, layer_a), (j, layer_b) in product(enumerate(layers_a), enumerate(layers_b)):
        for s, compare in compares.items():
            if products is None or compare not in OF_INNER_PRODUCT:
                yield s, (layer_a, layer_b), compare(cache.get(layer_a), cache.get(layer_b)).cpu()
            else:
                yield s, (layer_a, layer_b), OF_INNER_PRODUCT[compare](products[:, i, j]).cpu()


def _shuffle_prepared(sampling: Resampling, members: Sequence[int]) -> None:
    """Shuffles of the subset, for scorers that take as many: those of one measure, or of one encoder."""
    scorer, count = sampling.grid.scorers[members[0]], len(sampling.subset)
    cache = Kept(
        lambda layer: _prepare(sampling, scorer, layer, _subset_rows(sampling, scorer, layer)), Room(sampling.room)
    )
    facing: dict[Layer, list[Layer]] = {}
    for layer_a, layer_b in sampling.grid.plan.cells():
        facing.setdefault(layer_b, []).append(layer_a)
    shuffles: Shuffled = {}
    with sampling.grid.progress("shuffling", sampling.shuffles_of(members[0]) * len(facing), "layers") as advance:
        for layer_b, layers_a in facing.items():
            _shuffle_layer(sampling, members, cache, layers_a, layer_b, shuffles, advance)
    cells = list(sampling.grid.plan.cells())
    for s in members:
        observed = np.array([shuffles[s, cell][0] for cell in cells])
        shuffled = np.stack([shuffles[s, cell][1] for cell in cells], axis=1)
        sampling.set_shuffled(s, Use(count, f"{count} rows of Y"), observed, shuffled, _level(sampling, s))


def _level(sampling: Resampling, s: int) -> Values | None:
    """[cells] the mean of CKA over all shuffles of all rows: tr K tr L / (n - 1), K and L its centred kernels of norm 1.

    None of what has no null.
    """
    grid = sampling.grid
    if grid.scorers[s].entry.name != "cka" or not (sampling.asked.nulls and grid.scorers[s].checkpoint):
        return None
    traces = {}
    for layer in grid.plan.layers:
        prepared = grid.scorers[s].measure.prepare(rows_of(grid, grid.scorers[s], layer))
        traces[layer] = float(prepared.rows.square().sum() if prepared.gram is None else prepared.gram.trace())
    return np.array([traces[a] * traces[b] / (grid.plan.n_rows - 1) for a, b in grid.plan.cells()])


def _shuffle_layer(
    sampling: Resampling,
    members: Sequence[int],
    cache: "Kept",
    layers_a: Sequence[Layer],
    layer_b: Layer,
    into: Shuffled,
    advance: Callable[[int], None],
) -> None:
    """Shuffle one layer's rows, and compare with every layer that faces it."""
    scorer, prepared = sampling.grid.scorers[members[0]], cache.get(layer_b)
    rows = _subset_rows(sampling, scorer, layer_b)
    widest = max(sampling.width(scorer, a) for a in layers_a)
    each = 2 * size(prepared) + 8 * widest * (len(rows) + rows.shape[1])
    scores: dict[tuple[int, Layer], list[Tensor]] = {}
    for start, stop in distributed.share(list(spans(sampling.shuffles_of(members[0]), _step(sampling, each)))):
        orders = sampling.orders(len(rows), start, stop)
        shuffled = permute_rows(prepared, orders)
        if shuffled is None:
            shuffled = sampling.grid.prepare(scorer, layer_b, rows[orders])
        for s, layer_a, values in _shuffled_scores(sampling, members, cache, layers_a, shuffled):
            scores.setdefault((s, layer_a), []).append(values.cpu().expand(stop - start))
        advance(stop - start)
    for (s, layer_a), shuffles in _of_all_ranks(scores, [(s, a) for s in members for a in layers_a]).items():
        observed = sampling.grid.scorers[s].measure.compare(cache.get(layer_a), prepared)
        into[s, (layer_a, layer_b)] = float(observed), shuffles


def _shuffled_scores(
    sampling: Resampling, members: Sequence[int], cache: "Kept", layers_a: Sequence[Layer], shuffled: Any
) -> Iterator[tuple[int, Layer, Tensor]]:
    """Scores [c] of layers with a shuffled one."""
    values = flat(shuffled)
    for some in _fitting(sampling, layers_a, 0 if values is None else values.shape[-1]):
        side = None if values is None else _kernels(cache.get(layer) for layer in some)
        products = None if values is None or side is None else side @ values.mT
        for s in members:
            compare = sampling.grid.scorers[s].measure.compare
            for i, layer_a in enumerate(some):
                if products is None or compare not in OF_INNER_PRODUCT:
                    yield s, layer_a, compare(cache.get(layer_a), shuffled)
                else:
                    yield s, layer_a, OF_INNER_PRODUCT[compare](products[i])


def _fitting(sampling: Resampling, layers: Sequence[Layer], each: int) -> Iterator[Sequence[Layer]]:
    """Runs of layers whose float64 values, so many each, take no more than CHUNK_BYTES; one layer at least."""
    step = max(1, min(CHUNK_BYTES, sampling.room // 4) // (8 * each)) if each else len(layers)
    return (layers[slice(*span)] for span in spans(len(layers), step))


def _kernels(prepared: Iterable[Any]) -> Tensor | None:
    """The kernels of prepared layers [..., layers, d]; None where one has none."""
    values = [flat(layer) for layer in prepared]
    kernels = [value for value in values if value is not None]
    return xp.stack(kernels, dim=-2) if len(kernels) == len(values) else None
