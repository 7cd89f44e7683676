"""Some of the rows of stores: whole blocks of them, so that of a large file only that part is read."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.store.align import View
from contrasim_cli.store.blocks import RowIndex

log = logging.getLogger(__name__)

BLOCKS = 64  # at least, so that a sample is no single stretch of a file


def sampled(views: Sequence[View], most: int | None, seed: int) -> list[View]:
    """The same rows of every view, `most` of them at most, in their order: a seeded choice of blocks.

    Blocks are the chunks in which the rows lie on disk, or a 64th of the sample where chunks are larger.
    """
    count = views[0].n_rows
    if most is None or most >= count:
        return list(views)
    rows = chosen_blocks(count, most, _chunk_rows(views), seed)
    log.info("--max-rows: %d of %d rows, in blocks chosen at random (--seed %d)", most, count, seed)
    return [replace(view, rows=rows if view.rows is None else view.rows[rows]) for view in views]


def chosen_blocks(count: int, most: int, chunk: int, seed: int) -> RowIndex:
    """[most] rows in ascending order: whole blocks, less a part of the one that was drawn last."""
    size = max(1, min(chunk, most // BLOCKS))
    blocks = -(-count // size)
    rng = seeds.stream(seed, seeds.SAMPLED_ROWS)
    drawn = rng.choice(
        blocks, min(blocks, -(-most // size) + 1), replace=False
    )  # one more: the last of a file may be short
    rows = (drawn[:, None] * size + np.arange(size)).ravel()
    return np.sort(rows[rows < count][:most]).astype(np.int64)


def _chunk_rows(views: Sequence[View]) -> int:
    """Rows of the largest chunk of any layer."""
    return max(layer.chunk_rows for view in views for layer in view.store.layers.values())
