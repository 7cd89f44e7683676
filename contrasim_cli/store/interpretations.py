"""Every way to read arrays whose shapes do not say what their axes are, with the layers and rows that would come of it."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from contrasim_cli.store.axes import LAYERS, POOL, ROWS, WIDTH, WORDS, sizes
from contrasim_cli.store.store import Array

MOST = 10  # that a message lists
MOST_AXES, MOST_SHAPES = 5, 1000  # for which readings are looked for


@dataclass(frozen=True)
class Possible:
    """What would come of some options; `keys` None where nothing needs to be said of them."""

    keys: str | None
    words: tuple[str, ...]
    layers: int
    rows: int
    widths: tuple[int, int]

    @property
    def is_usual(self) -> bool:
        """Whether axes that are the same lie beside each other, layers first or behind rows, rows before what they consist of."""
        groups = [word for word, _ in itertools.groupby(self.words)]
        first = [word for word in groups if word in (LAYERS, ROWS)]
        return len(groups) == len(set(groups)) and groups[: len(first)] == first

    @property
    def is_likely(self) -> bool:
        """Whether frameworks write such axes: neurons last, or channels behind rows and before places."""
        if not self.is_usual or (self.words[0] == POOL and len(self.words) > 2):
            return False
        places = set(self.words[2:])
        maps = len(self.words) > 3 and self.words[:2] == (ROWS, WIDTH) and places in ({WIDTH}, {POOL})
        return maps or (self.words[-1] == WIDTH and self.words.count(WIDTH) == 1)

    def __str__(self) -> str:
        """The axes and what they make."""
        width = f"{self.widths[0]}" if len(set(self.widths)) == 1 else f"{self.widths[0]}-{self.widths[1]}"
        return f"{','.join(self.words)} ({self.layers} layer{'s' * (self.layers > 1)} of {self.rows} rows x {width})"


def remedy(arrays: Mapping[str, Array], n_names: int | None = None) -> str:
    """How to say what the arrays are; `n_names`: for how many rows the file has names."""
    readings = possible([tuple(array.shape) for array in arrays.values()])
    shape = tuple(next(iter(arrays.values())).shape)
    named = [r for r in readings if n_names in (r.rows, *sizes(shape, r.words, ROWS)[:1])]
    readings = named or readings
    if not readings:
        return (
            "convert it with contrasim extract --from FILE --axes WORDS, a word per axis: layers, rows, width or pool"
        )
    listed = ([r for r in readings if r.is_likely] or [r for r in readings if r.is_usual] or readings)[:MOST]
    by_keys = {keys: [r for r in listed if r.keys == keys] for keys in dict.fromkeys(r.keys for r in listed)}
    shown = "; ".join(
        f"{f'--keys {keys} ' if keys else ''}--axes {' or '.join(map(str, ways))}" for keys, ways in by_keys.items()
    )
    pooled = any(r.keys is None and r.words == ("rows", "pool", "width") for r in listed)
    masked = "; if the axes are items, tokens and neurons, --mask leaves padding out" if pooled else ""
    more = "; other orders of the words work too (contrasim guide hooks)" if len(listed) < len(readings) else ""
    return f"convert it with contrasim extract --from FILE, and say which they are: {shown}{masked}{more}"


def possible(shapes: Sequence[tuple[int, ...]]) -> list[Possible]:
    """All readings of arrays of equally many axes that make two rows or more, the usual ones first."""
    counts = Counter(shapes)
    if len(shapes[0]) > MOST_AXES or len(counts) > MOST_SHAPES:
        return []
    readings = [
        outcome
        for keys in ((LAYERS, ROWS) if len(shapes) > 1 else (LAYERS,))
        for words in _orders(list(counts), keys)
        if (outcome := _outcome(counts, keys, words)) is not None
    ]
    return sorted(readings, key=lambda reading: (reading.keys is not None, reading.keys == ROWS, not reading.is_usual))


def _orders(shapes: Sequence[tuple[int, ...]], keys: str) -> Iterator[tuple[str, ...]]:
    """Words for the axes: one of a single element in many is nothing but averaged, and layers are one axis."""
    choices = [(POOL,) if set(axis) == {1} and len(shapes[0]) > 2 else WORDS for axis in zip(*shapes, strict=True)]
    for words in itertools.product(*choices):
        counts = Counter(words)
        if counts[LAYERS] <= 1 and counts[WIDTH] and (counts[ROWS] or keys == ROWS):
            yield words


def _outcome(counts: Mapping[tuple[int, ...], int], keys: str, words: tuple[str, ...]) -> Possible | None:
    """What words make of arrays of these shapes, or None where they do not agree, or make one row."""
    rows, widths, depths, pooled = (
        [math.prod(sizes(shape, words, word)) for shape in counts] for word in (ROWS, WIDTH, LAYERS, POOL)
    )
    if keys == ROWS:
        agree, layers = len(set(widths)) == len(set(depths)) == 1, depths[0]
        total = sum(count * own for count, own in zip(counts.values(), rows, strict=True))
    else:
        agree, total = len(set(rows)) == 1, rows[0]
        layers = sum(count * depth for count, depth in zip(counts.values(), depths, strict=True))
    if not agree or total < 2 or min(*widths, *depths, *pooled) < 1:
        return None
    needed = keys == ROWS or (LAYERS in words and sum(counts.values()) > 1)
    return Possible(keys if needed else None, words, layers, total, (min(widths), max(widths)))
