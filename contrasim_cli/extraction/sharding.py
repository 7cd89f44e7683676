"""Which part of a sharded store is made, of which rows, and what is done once all parts are there."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.estimate import Estimate, shape
from contrasim_cli.names import counted, quoted
from contrasim_cli.store.open import open_part
from contrasim_cli.store.shard_index import SHARD, write_index
from contrasim_cli.store.sharded import INDEX, missing_parts, part_name
from contrasim_cli.store.unknown_tokens import warn_unknown

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
        parts = ""
        if slash and all(part.isascii() and part.isdigit() and len(part) < 6 for part in (number, count)):
            found = cls(int(number), int(count))
            if found.number < found.count:
                return found
            parts = f"; the parts of {found.count} are 0 to {found.count - 1}" if found.count else ""
        raise UsageError(f"--shard {quoted(text)}: write which part of how many, counted from 0, such as 3/64{parts}")

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
        raise UsageError(f"{whole.items} items cannot be split into {part.count} parts; give fewer parts")
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


def complete(folder: Path, count: int, made: Sequence[PartOf] = ()) -> None:
    """Write the index of a sharded store if all of its parts are there; say what is missing otherwise.

    Unknown tokens are told of the whole store, or of the parts that this run `made` where others are missing.

    Raises:
        InputError, MismatchError: a part is damaged, or was made in another way.
        OutputError: the index cannot be written.
    """
    missing = missing_parts(folder, count)
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        log.info(
            "%s: %d of %d parts %s not written yet; the run that writes the last one completes it",
            quoted(folder),
            len(missing),
            count,
            verb,
        )
        for part in made:
            store = open_part(part.path(folder))
            warn_unknown(store.path, store.provenance)
            store.close()
        return
    before = (folder / INDEX).read_bytes() if (folder / INDEX).is_file() else None
    index = write_index(folder, count, open_part)
    text = "%s is complete: %s in %s" if (folder / INDEX).read_bytes() == before else "wrote %s: %s in %s"
    widths = [width for _, width, _ in index.layers]
    log.info(text, quoted(folder), shape(widths, index.rows), counted(count, "part"))
    warn_unknown(folder, index.provenance)
