"""Which part of a sharded store is made, of which rows, and what is done once all parts are there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.estimate import Estimate, shape
from contrasim_cli.names import quoted
from contrasim_cli.store.open import open_part
from contrasim_cli.store.shard_index import SHARD, write_index
from contrasim_cli.store.sharded import missing_parts, part_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartOf:
    """Part `number`, counted from 0, of `count`."""

    number: int
    count: int

    @classmethod
    def parsed(cls, text: str) -> "PartOf":
        """What `--shard 3/64` says.

        Raises:
            UsageError: it says no part.
        """
        number, slash, count = text.partition("/")
        if slash and all(part.isascii() and part.isdigit() and len(part) < 6 for part in (number, count)):
            found = cls(int(number), int(count))
            if found.number < found.count:
                return found
        raise UsageError(f"--shard {quoted(text)}: write which part of how many, counted from 0, such as 3/64")

    def path(self, folder: Path) -> Path:
        """The file of the part."""
        return folder / part_name(self.number, self.count)

    def of(self, count: int) -> tuple[int, int]:
        """Where the part of so many things begins and ends; parts differ by one at most."""
        return self.number * count // self.count, (self.number + 1) * count // self.count

    def config(self, first: int, stop: int) -> Mapping[str, Any]:
        """What of a part's configuration is its own, where its items are those from `first` to before `stop`."""
        return {SHARD: [self.number, self.count, first, stop]}


def part_of(whole: Estimate, part: PartOf) -> Estimate:
    """The part of a run whose rows are made in blocks, which are those of a run of all rows unless that has fewer than parts.

    Raises:
        UsageError: there are fewer items than parts.
    """
    if whole.items < part.count:
        raise UsageError(f"{whole.items} items make no {part.count} parts; give fewer")
    sizes = whole.sizes
    if -(-whole.items // sizes.block_items) < part.count:
        text = "%d items are fewer than %d blocks of %d: blocks are smaller, and last digits may differ from those of a single run"
        log.info(text, whole.items, part.count, sizes.block_items)
        sizes = replace(sizes, block_items=whole.items // part.count)
    size = sizes.block_items
    first, last = part.of(-(-whole.items // size))
    span = first * size, min(last * size, whole.items)
    items = span[1] - span[0]
    rows = round(whole.rows * items / whole.items)
    return replace(whole, rows=rows, items=items, span=span, sizes=sizes)


def complete(folder: Path, count: int) -> None:
    """Write the index of a sharded store if all of its parts are there; say what is missing otherwise.

    Raises:
        InputError, MismatchError: a part is damaged, or was made in another way.
        OutputError: the index cannot be written.
    """
    missing = missing_parts(folder, count)
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        log.info(
            "%s: %d of %d parts %s not there yet; whoever writes the last one completes it",
            quoted(folder),
            len(missing),
            count,
            verb,
        )
        return
    index = write_index(folder, count, open_part)
    log.info(
        "wrote %s: %s in %d parts", quoted(folder), shape([width for _, width, _ in index.layers], index.rows), count
    )
