"""Confidence of row-wise measures and learned scores, from their values per row."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed
from contrasim_cli.arrays import Tensor, as_tensor, host, xp
from contrasim_cli.confidence.resampling import Resampling, Use, Values
from contrasim_cli.grid import Layer
from contrasim_cli.grid.rowwise import by_pair
from contrasim_cli.store.blocks import spans

DRAWN_ROWS = 1024  # whose bootstrap weights are drawn together
DRAWN_TOGETHER = 256  # replicates whose weights are drawn together
CHUNK_BYTES = 256 << 20  # of rows mapped at once
WEIGHTS, ROLL = 3, 4  # what a seed is for
ROLLS = 8  # of rows that do not fit in memory, which are read and encoded once for each


def compute(sampling: Resampling, members: Sequence[int]) -> None:
    """Intervals from weighted sums over all rows, p-values from shuffled pairs of rows."""
    plan, cells = sampling.grid.plan, list(sampling.grid.plan.cells())
    if sampling.asked.bootstrap:
        means = _bootstrap_means(sampling, members)
        for k, s in enumerate(members):
            part = means[:, k * len(cells) : (k + 1) * len(cells)]
            sampling.set_intervals(s, dict(zip(cells, part.T, strict=True)), None)
            sampling.intervals[sampling.grid.scorers[s].name] = Use(
                plan.n_rows, f"bootstrap of {plan.n_rows} rows, percentiles"
            )
    for s in members:
        if sampling.shuffles_of(s):
            _shuffle(sampling, s)


def _shuffle(sampling: Resampling, s: int) -> None:
    """Shuffles of all rows: in memory where these fit there as the measure takes them, else block by block."""
    grid = sampling.grid
    n_rows = grid.plan.n_rows
    fit = grid.reader.in_memory and _mapped_bytes(sampling, s) <= grid.reader.free // 2
    observed, shuffled, means = _shuffle_pairs(sampling, s) if fit else _shuffle_blocks(sampling, s)
    level = None
    if grid.scorers[s].entry.bilinear:  # the mean of x_r · y_π(r) over all π is that of x · that of y
        level = _cells(sampling, s, means, means).numpy()
    how = f"{n_rows} rows of Y" if fit else f"{n_rows} rows of Y, within blocks that are {ROLLS} times rolled"
    sampling.set_shuffled(s, Use(n_rows, how), observed.numpy(), shuffled.numpy(), level)


def _mapped_bytes(sampling: Resampling, s: int) -> int:
    widths = [sampling.width(sampling.grid.scorers[s], layer) for layer in sampling.grid.plan.layers]
    return 8 * sampling.grid.plan.n_rows * sum(widths)


def _bootstrap_means(sampling: Resampling, members: Sequence[int]) -> Values:
    """[B, scorers · cells] means over rows drawn with replacement, as weighted sums over blocks of rows."""
    plan = sampling.grid.plan
    rows, replicates = plan.n_rows, sampling.asked.bootstrap
    blocks = list(spans(rows, DRAWN_ROWS))
    sizes = np.array([stop - start for start, stop in blocks])
    drawn = sampling.rng(WEIGHTS).multinomial(rows, sizes / rows, size=replicates)  # rows of each block
    on = host(sampling.grid.device)
    total = xp.zeros(replicates, len(members) * sum(1 for _ in plan.cells()), dtype=xp.float64, device=on)
    with sampling.grid.progress("bootstrap", rows, "rows") as advance:
        for k, (start, stop) in distributed.share(list(enumerate(blocks))):
            values = _row_values(sampling, members, start, stop)
            for first, last in spans(replicates, DRAWN_TOGETHER):
                rng = sampling.rng(WEIGHTS, k, first)
                total[first:last] += as_tensor(_weights(rng, drawn[first:last, k], stop - start), on) @ values
            advance(stop - start)
    distributed.total(total)
    return (total / rows).numpy()


def _row_values(sampling: Resampling, members: Sequence[int], start: int, stop: int) -> Tensor:
    """f(x_r, y_r) [rows, scorers · cells] of a block, in smaller ones where that does not fit."""
    grid = sampling.grid
    found = []
    for first, last in spans(stop - start, grid.reader.block_rows):
        raw = {
            layer: sampling.grid.reader.rows(layer, start + first, start + last) for layer in sampling.grid.plan.layers
        }
        found.append(xp.cat([_values_of(sampling, s, raw, last - first) for s in members], dim=1))
    return xp.cat(found)


def _values_of(sampling: Resampling, s: int, raw: Mapping[Layer, Tensor], count: int) -> Tensor:
    scorer = sampling.grid.scorers[s]
    form = scorer.measure.rowwise
    assert form is not None
    mapped = {layer: form.map(sampling.grid.encoded(scorer, layer, rows)) for layer, rows in raw.items()}
    pairs = by_pair(sampling.grid.plan, mapped, mapped, form.values, (count,))
    return xp.cat([values.flatten(1) for values in pairs], dim=1)


def _cells(sampling: Resampling, s: int, first: Mapping[Layer, Tensor], second: Mapping[Layer, Tensor]) -> Tensor:
    """[cells] Σ_r f(x_r, y_r) of mapped rows."""
    form = sampling.grid.scorers[s].measure.rowwise
    assert form is not None
    return xp.cat([values.flatten() for values in by_pair(sampling.grid.plan, first, second, form.sums)])


def _shuffle_pairs(sampling: Resampling, s: int) -> tuple[Tensor, Tensor, dict[Layer, Tensor]]:
    """Mean of f(x_r, y_r) [cells], that of f(x_r, y_π(r)) for every shuffle π [B, cells], and mean rows [1, p]; mapped once."""
    scorer, plan = sampling.grid.scorers[s], sampling.grid.plan
    form = scorer.measure.rowwise
    assert form is not None
    count = plan.n_rows
    mapped = {layer: form.map(sampling.rows_of(scorer, layer, np.arange(count))) for layer in plan.layers}
    step = max(64, CHUNK_BYTES // (16 * sum(side.shape[1] for side in mapped.values())))

    def means(order: Tensor) -> Tensor:
        total = xp.zeros((), dtype=xp.float64, device=host(sampling.grid.device))
        for start, stop in spans(count, step):
            ahead = {layer: side[start:stop] for layer, side in mapped.items()}
            shuffled = {layer: side[order[start:stop]] for layer, side in mapped.items()}
            total = total + _cells(sampling, s, ahead, shuffled) / count
        return total

    observed = means(xp.arange(count, device=sampling.grid.device))
    found = []
    with sampling.grid.progress("shuffling", sampling.shuffles_of(s), "times") as advance:
        for replicate in distributed.share(range(sampling.shuffles_of(s))):
            found.append(means(sampling.orders(count, replicate, replicate + 1)[0]).numpy())
            advance(1)
    shuffled = distributed.joined_rows(np.array(found).reshape(-1, len(observed)))
    return (
        observed,
        as_tensor(shuffled, observed.device),
        {layer: side.mean(dim=0, keepdim=True) for layer, side in mapped.items()},
    )


def _shuffle_blocks(sampling: Resampling, s: int) -> tuple[Tensor, Tensor, dict[Layer, Tensor]]:
    """Shuffle rows that do not fit into memory, mapped once and again for each roll.

    Ranks share the blocks. The rows of Y are rolled by a seeded offset, which reads them in order, and shuffled within each block:
    so that what lies together in a store does not meet, however small the blocks are.
    """
    grid, plan, count = sampling.grid, sampling.grid.plan, sampling.shuffles_of(s)
    scores = xp.tensor([grid.scores[(s, *cell)] for cell in plan.cells()], dtype=xp.float64, device=host(grid.device))
    total = xp.zeros(count, len(scores), dtype=xp.float64, device=scores.device)
    sums = {layer: 0 * rows.sum(dim=0, keepdim=True) for layer, rows in _mapped(sampling, s, 0, 1).items()}
    offsets = sampling.offsets(plan.n_rows, min(ROLLS, count))
    for start, stop in grid.reader.each_block(grid.progress, "shuffling"):
        ahead = _mapped(sampling, s, start, stop)
        for layer, rows in ahead.items():
            sums[layer] += rows.sum(dim=0, keepdim=True)
        for k, offset in enumerate(offsets):
            behind = _mapped(sampling, s, start + offset, stop + offset)
            for replicate in range(k, count, len(offsets)):
                order = sampling.rng(ROLL, replicate, start).permutation(stop - start)
                shuffled = {layer: rows[as_tensor(order, rows.device)] for layer, rows in behind.items()}
                total[replicate] += _cells(sampling, s, ahead, shuffled)
    distributed.total(total, *sums.values())
    return scores, total / plan.n_rows, {layer: rows / plan.n_rows for layer, rows in sums.items()}


def _mapped(sampling: Resampling, s: int, start: int, stop: int) -> dict[Layer, Tensor]:
    """Rows of all layers as the measure takes them; behind the last row comes the first."""
    grid, n_rows = sampling.grid, sampling.grid.plan.n_rows
    form = grid.scorers[s].measure.rowwise
    assert form is not None
    parts = [(start % n_rows, min(start % n_rows + stop - start, n_rows))]
    if left := stop - start - (parts[0][1] - parts[0][0]):
        parts.append((0, left))
    return {
        layer: xp.cat(
            [form.map(grid.encoded(grid.scorers[s], layer, grid.reader.rows(layer, *part))) for part in parts]
        )
        for layer in grid.plan.layers
    }


def _weights(rng: np.random.Generator, drawn: npt.NDArray[np.int64], rows: int) -> Values:
    """How often each row of a block is drawn [replicates, rows], given how many rows each replicate draws of it."""
    replicate = np.repeat(np.arange(len(drawn)), drawn)
    places = replicate * rows + rng.integers(0, rows, size=len(replicate))
    return np.bincount(places, minlength=len(drawn) * rows).reshape(len(drawn), rows).astype(np.float64)
