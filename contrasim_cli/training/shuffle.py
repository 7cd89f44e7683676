"""Which rows a step sees: one shuffle, whether or not the rows fit in memory.

Blocks of rows in random order make groups, which are read together, and rows are shuffled within their group. How many
rows a group has follows from the data alone, never from the memory there is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.encoder import Config
from contrasim_cli.store.blocks import spans
from contrasim_cli.training.data import Data

BLOCK_ROWS = 256
GROUP_ROWS = 16_384
GROUP_BYTES = 256 << 20  # of which two are held where rows are streamed: the one in use and the next
HELD_OUT_ROWS = 1024  # at most: validation compares each with each

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One optimiser step: rows (positions in the views) and, for task `pairs`, which layer."""

    rows: Rows
    layer: int


@dataclass(frozen=True)
class Group:
    """Rows that are read together, and the steps that are made of them."""

    rows: Rows
    steps: list[Step]


@dataclass(frozen=True)
class Order:
    """The steps of every epoch."""

    n_rows: int
    n_layers: int
    config: Config
    row_bytes: int = 1
    held_out: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, data: Data, config: Config) -> "Order":
        """The order in which a run sees these data."""
        return cls(data.n_rows, data.n_layers, config, data.row_bytes, held_out_rows(data.n_rows, config))

    @property
    def group_rows(self) -> int:
        """Rows of a group: whole batches, one at least, of no more than GROUP_ROWS and GROUP_BYTES."""
        batch = self.config.batch_size
        return max(1, min(GROUP_ROWS, GROUP_BYTES // self.row_bytes) // batch) * batch

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        rows, batch = self.n_rows - len(self.held_out), self.config.batch_size
        if self.config.task == "layers":
            return math.ceil(rows / batch)
        return self.n_layers * (math.ceil(rows / batch) - (rows % batch == 1))

    def groups(self, epoch: int) -> Iterator[Group]:
        """The steps of an epoch; every row once that is not held out, the last batch partial.

        Task `pairs` leaves out a last batch of a single row, which has no negatives.
        """
        config = self.config
        rng = seeds.stream(config.seed, epoch)
        layers = range(self.n_layers) if config.task == "pairs" else range(1)
        for some in self._runs(rng.permutation(math.ceil(self.n_rows / BLOCK_ROWS))):
            rows = rng.permutation(some)
            batches = [rows[slice(*batch)] for batch in spans(len(rows), config.batch_size)]
            steps = [
                Step(batch, layer) for batch in batches for layer in layers if len(batch) > 1 or config.task == "layers"
            ]
            yield Group(rows, [steps[i] for i in rng.permutation(len(steps))])

    def _runs(self, blocks: Rows) -> Iterator[Rows]:
        """The rows of blocks in their order, less those that are held out, `group_rows` at a time: no more are in memory."""
        kept: list[Rows] = []
        count = 0
        for block in blocks:
            rows = rows_of_block(int(block), self.n_rows)
            start, stop = np.searchsorted(self.held_out, [rows[0], rows[-1] + 1])
            kept.append(rows if start == stop else np.setdiff1d(rows, self.held_out[start:stop], assume_unique=True))
            count += len(kept[-1])
            while count >= self.group_rows:
                whole = np.concatenate(kept)
                yield whole[: self.group_rows]
                kept, count = [whole[self.group_rows :]], count - self.group_rows
        if count:
            yield np.concatenate(kept)


def rows_of_block(block: int, n_rows: int) -> Rows:
    """The rows of a block."""
    return np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, n_rows))


def held_out_rows(n_rows: int, config: Config) -> Rows:
    """Rows [k], sorted, that are validated on and never trained on."""
    count = min(HELD_OUT_ROWS, math.ceil(config.validation * n_rows), n_rows - 2)
    rng = seeds.stream(config.seed, 0, seeds.HOLD_OUT)
    return np.sort(rng.choice(n_rows, max(0, count), replace=False))
