"""What a run will write, before it does: rows, layers, bytes, shards, and whether the disk has room."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from contrasim_cli.errors import InputError, OutputError
from contrasim_cli.extraction.batching import ROW
from contrasim_cli.extraction.networks.network import Network
from contrasim_cli.extraction.shards import Sizes
from contrasim_cli.extraction.sources.source import BadItem, Source
from contrasim_cli.names import counted, quoted
from contrasim_cli.store import LayerSpec

SHARD_ROWS = 4096
SHARD_BYTES = 256 << 20
NO_SHARDS = Sizes(0, 0)
SAMPLE = 256  # items whose rows are counted, where an item has several
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Estimate:
    """A store to be written: its layers and rows; `exact` unless an item has several rows.

    `items` are what the rows are made of. `sizes` are those of the shards, where rows are kept in shards until all are made.
    `span`: of a part, where its items begin and end in the source.
    """

    output: Path
    layers: Sequence[LayerSpec]
    rows: int
    exact: bool = True
    sizes: Sizes = NO_SHARDS
    items: int = 0
    span: tuple[int, int] | None = None

    @property
    def widths(self) -> dict[str, int]:
        """The width of every layer."""
        return {layer.name: layer.width for layer in self.layers}

    def layer_bytes(self, layer: LayerSpec) -> int:
        """The values of a layer."""
        return self.rows * layer.width * np.dtype(layer.dtype).itemsize

    @property
    def bytes(self) -> int:
        """The values of the store."""
        return sum(map(self.layer_bytes, self.layers))

    @property
    def disk(self) -> int:
        """What is on the disk at most: shards and the final file are there together for a while."""
        return self.bytes if self.sizes == NO_SHARDS else 2 * self.bytes

    def __str__(self) -> str:
        """In words: layers x rows x widths, bytes, shards, and what they need on the disk."""
        about = "" if self.exact else "about "
        said = f"{about}{shape(list(self.widths.values()), self.rows)}, {size(self.bytes)}"
        if self.sizes == NO_SHARDS:
            return said
        count = -(-self.rows // self.sizes.shard_rows)
        return f"{said}, and as much again for {count} shard{'s' if count > 1 else ''} while it runs"


def estimate(
    network: Network, source: Source, output: Path, dtype: str, memory: int | None, widths: Mapping[str, int]
) -> Estimate:
    """What the rows of a source become."""
    per_item = _rows_per_item(network, source)
    layers = [LayerSpec(name, width, dtype) for name, width in widths.items()]
    rows = shard_size(sum(widths.values()) * np.dtype(dtype).itemsize, memory)
    if per_item is None:
        return Estimate(output, layers, source.n_rows, sizes=Sizes(rows, rows), items=source.n_rows)
    sizes = Sizes(SHARD_ROWS, rows)
    return Estimate(output, layers, round(source.n_rows * per_item), False, sizes, source.n_rows)


def layer_table(network: Network, source: Source) -> dict[str, int]:
    """The chosen layers and their widths, found by running the first item that has rows.

    Raises:
        InputError: none of the first items can be read.
    """
    problem = None
    for position, items in enumerate(islice(source.blocks(1), SAMPLE)):
        try:
            prepared = network.prepare(items, position)
            inputs = prepared.batch([0])
        except BadItem as error:
            named = f"row {quoted(source.id_of(position))}: {ROW.sub('', str(error))}"
            problem = problem or f"nothing that can be read ({named})"
            continue
        if prepared.units is None or prepared.units[0]:
            return network.discover(inputs)
    raise InputError(f"{quoted(source.path)}: {problem or 'no words'} in the first {SAMPLE} rows")


def _rows_per_item(network: Network, source: Source) -> float | None:
    """Rows of the average item, of the first ones; None where each has one."""
    count = 0
    for position, items in enumerate(islice(source.blocks(1), SAMPLE)):
        try:
            units = network.prepare(items, position).units
        except BadItem:
            continue
        if units is None:
            return None
        count += len(units[0])
    return count / min(source.n_rows, SAMPLE)


def shard_size(row_bytes: int, memory: int | None) -> int:
    """Rows of a shard: those of a moderate file, or what a quarter of `memory` takes where it is given.

    It does not depend on the memory that there happens to be: shards are where parts of a store are cut, on any machine.
    """
    budget = SHARD_BYTES if memory is None else min(SHARD_BYTES, memory // 4)
    return max(1, min(SHARD_ROWS, budget // max(1, row_bytes)))


def check_room(expected: Estimate, there: int = 0) -> None:
    """Refuse a run that does not fit on the disk; `there` are the bytes of shards made before.

    Raises:
        OutputError: it needs more than what is free.
    """
    needed = expected.disk - there
    free = shutil.disk_usage(expected.output.resolve().parent).free
    if needed > free:
        raise OutputError(
            f"{quoted(expected.output)}: needs {size(needed)} of disk ({expected}), and {size(free)} are free; "
            "choose fewer --layers, --store-dtype float16, or another disk"
        )


def shape(widths: list[int], n_rows: int) -> str:
    """Layers x rows x width in words."""
    width = f"{min(widths)}" if min(widths) == max(widths) else f"{min(widths)}-{max(widths)}"
    return f"{counted(len(widths), 'layer')} x {counted(n_rows, 'row')} x {width}"


def size(count: float) -> str:
    """Bytes in words: 12.3 MB."""
    power = 0
    while count >= 1000 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {UNITS[power]}"
