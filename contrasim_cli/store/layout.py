"""Which layers and rows the arrays of a file make, given what its axes and keys are.

Where `--axes` has more words than the arrays have axes, the first words are for the keys of groups within a group: a group per
sample whose members are layers is `--keys rows --axes layers,width`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError
from contrasim_cli.names import listed, quoted
from contrasim_cli.store.array_views import Joined
from contrasim_cli.store.axes import LAYERS, MATRIX, POOL, ROWS, Arranged, sizes
from contrasim_cli.store.content import Content
from contrasim_cli.store.hints import Hints
from contrasim_cli.store.store import Array, Ids

Mask = npt.NDArray[np.bool_]

MAX_LAYERS = 1 << 16
SHOWN = 20


@dataclass(frozen=True)
class Part:
    """An array with the keys that lead to it, as far as they are rows or layers."""

    name: str
    array: Array
    words: tuple[str, ...]
    rows: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def row_axes(self) -> tuple[int, ...]:
        return sizes(self.array.shape, self.words, ROWS)


@dataclass(frozen=True)
class Layout:
    """Layers by name, the arrays each is made of, and what was passed over and why."""

    layers: Mapping[str, Array]
    parts: Mapping[str, Sequence["Part"]]
    passed: Mapping[str, str]

    def row_axes(self, layer: str) -> tuple[int, ...]:
        """The lengths of the axes that are rows, in the first array of a layer."""
        return self.parts[layer][0].row_axes

    def places(self, layer: str) -> Ids | None:
        """The names of rows by keys, or by their places along several axes; None where rows are one axis of one array."""
        parts = self.parts[layer]
        keys = [":".join(part.rows) for part in parts] if parts[0].rows else None
        return place_names(keys, [part.row_axes for part in parts]) if keys or len(parts[0].row_axes) > 1 else None

    def differences(self, path: Path, layers: Sequence[str]) -> list[ContraSimError]:
        """The problems of layers whose rows are as many as those of the first, but other ones."""
        first = _rows(self.parts[layers[0]])
        return [
            InputError(
                f"{quoted(path)}: layer {quoted(name)} has other rows than {quoted(layers[0])}: they are named or cut differently; "
                "choose layers that agree with --layers"
            )
            for name in layers[1:]
            if self.layers[name].shape[0] == self.layers[layers[0]].shape[0] and _rows(self.parts[name]) != first
        ]


def plain_layout(path: Path, content: Content, words: Mapping[str, tuple[str, ...]]) -> Layout:
    """The layers of arrays whose keys are layers and whose axes are these; all others are passed over."""
    parts = [_part(name, content.arrays[name], axes, (name,), LAYERS) for name, axes in words.items()]
    return _layout(path, content, parts, "axes that nobody has named")


def lay_out(path: Path, content: Content, how: Hints) -> Layout:
    """The layers of arrays as `--axes` and `--keys` say.

    Raises:
        UsageError: several arrays have an axis of layers, and nothing says whether keys are layers too; or keys are said to be
            rows, and they are numbered lists of as many rows each, which look like layers.
        InputError: the words fit no array, or arrays disagree on layers, rows or width.
        MismatchError: the mask has another shape than an array.
    """
    parts = _parts(path, content, how)
    if LAYERS in how.words and how.keys is None and len(parts) > 1:
        raise UsageError(
            f"--axes {quoted(how.axes)}: {quoted(path)} holds {len(parts)} arrays; add --keys rows, where they are rows of the "
            "same layers, or --keys layers, where each has layers of its own"
        )
    if how.keys == ROWS and LAYERS not in how.words:
        _check_lists(path, content, [part for part in parts if part.words == how.words], how.words)
    return _layout(path, content, parts, f"and --axes has {len(how.words)} words", how.mask)


def _layout(path: Path, content: Content, parts: Sequence[Part], why: str, mask: Mask | None = None) -> Layout:
    cells: dict[str, list[tuple[Part, Array]]] = {}
    for part in parts:
        _check_mask(path, part, mask)
        for name, matrix in _layers(path, part, len(parts) == 1, mask).items():
            cells.setdefault(name, []).append((part, matrix))
    used = {part.name for part in parts}
    passed = {
        name: "one dimension" if len(array.shape) == 1 else f"{len(array.shape)} dimensions, {why}"
        for name, array in content.arrays.items()
        if name not in used
    }
    layers = {name: _layer(path, name, cell) for name, cell in cells.items()}
    return Layout(layers, {name: [part for part, _ in cell] for name, cell in cells.items()}, passed)


def _parts(path: Path, content: Content, how: Hints) -> list[Part]:
    """The arrays that the words fit: those with an axis per word, or else those in groups whose keys make up for the rest."""
    arrays, levels, words = content.arrays, content.levels, how.words
    for extra in range(len(words)):
        names = [
            name
            for name, array in arrays.items()
            if len(array.shape) == len(words) - extra and len(levels[name]) > extra
        ]
        if names and set(words[:extra]) <= {LAYERS, ROWS}:
            keys = _keys([levels[name] for name in names], names, extra, how.keys == ROWS)
            kind = how.keys or LAYERS
            return [_part(name, arrays[name], words, key, kind) for name, key in zip(names, keys, strict=True)]
    raise InputError(f"{quoted(path)}: --axes {','.join(words)} fits no array of it; it holds {listing(arrays)}")


def _check_lists(path: Path, content: Content, parts: Sequence[Part], words: tuple[str, ...]) -> None:
    """Refuse to join layers as if they were rows of one: lists in a dict, or dicts in a list, with as many rows for each key.

    Raises:
        UsageError: with the words for each of the readings.
    """
    paths = [content.levels[part.name] for part in parts]
    while paths and min(map(len, paths)) > 2 and len({levels[0] for levels in paths}) == 1:
        paths = [levels[1:] for levels in paths]
    for number, by_list in ((-1, True), (0, False)):
        rows: dict[tuple[str, ...], dict[str, int]] = {}
        for part, levels in zip(parts, paths, strict=True):
            key = levels[:-1] if by_list else levels[1:]
            rows.setdefault(key, {})[levels[number]] = math.prod(part.row_axes)
        numbered = all(n.isdecimal() for own in rows.values() for n in own) and not any(
            key and key[-1].isdecimal() for key in rows
        )
        counts = [len(own) for own in rows.values()]
        totals = {sum(own.values()) for own in rows.values()}
        if () in rows or not numbered or len(rows) < 2 or max(counts) < 2 or len(totals) > 1:
            continue
        shown = listed([quoted(".".join(key)) for key in rows], SHOWN)
        axes = ",".join(words)
        layers = f"--axes {ROWS},{axes} without --keys" if by_list else f"--keys rows --axes {LAYERS},{axes}"
        first, *others = rows.values()
        if others != [first] * len(others):
            layers = "each as one tensor (torch.cat)"
        raise UsageError(
            f"{quoted(path)}: {shown} are in {max(counts)} parts each, and --keys rows would make rows of one layer of all "
            f"{len(parts)} arrays; where {shown} are layers, give {layers} ({len(rows)} layers of {totals.pop()} rows); where they "
            f"are not, --keys rows --axes {ROWS},{axes}"
        )


def _part(name: str, array: Array, words: tuple[str, ...], keys: Sequence[str], kind: str) -> Part:
    pairs = list(zip((kind, *words), keys, strict=False))
    rows = tuple(key for word, key in pairs if word == ROWS)
    return Part(name, array, words[len(keys) - 1 :], rows, tuple(key for word, key in pairs if word == LAYERS))


def _keys(paths: Sequence[tuple[str, ...]], names: Sequence[str], extra: int, are_rows: bool) -> list[tuple[str, ...]]:
    """The key of each array, and as many more as words are left for; what all keys begin or end with names nothing."""
    if not extra and not are_rows:
        return [(name,) for name in names]
    shortest = min(map(len, paths))
    while shortest > 1 + extra and len({path[0] for path in paths}) == 1:
        paths, shortest = [path[1:] for path in paths], shortest - 1
    while not extra and shortest > 1 and len({path[-1] for path in paths}) == 1:
        paths, shortest = [path[:-1] for path in paths], shortest - 1
    return [(*path[:extra], "/".join(path[extra:])) for path in paths]


def _check_mask(path: Path, part: Part, mask: Mask | None) -> None:
    """Refuse a mask of other items or tokens than an array has."""
    shape = (*part.row_axes, *sizes(part.array.shape, part.words, POOL))
    if mask is not None and mask.shape != shape:
        raise MismatchError(
            f"{quoted(path)}: {quoted(part.name)} has {' x '.join(map(str, shape))} items and tokens, --mask has "
            f"{' x '.join(map(str, mask.shape))}; give the mask of these items, or other --axes"
        )


def _layers(path: Path, part: Part, alone: bool, mask: Mask | None) -> dict[str, Array]:
    """The layers that one array has a part in."""
    depths, pooled = (sizes(part.array.shape, part.words, word) for word in (LAYERS, POOL))
    if 0 in (*depths, *pooled) or math.prod(depths) > MAX_LAYERS:
        shown = f"{quoted(part.name)} {tuple(part.array.shape)}"
        raise InputError(
            f"{quoted(path)}: {shown} makes no layers by --axes {','.join(part.words)}; is another axis meant?"
        )
    if not depths:
        matrix = part.array if part.words == MATRIX else Arranged(part.array, part.words, mask=mask)
        return {".".join(part.layers) or path.stem: matrix}
    before = () if alone else part.layers
    return {".".join((*before, f"layer_{k}")): Arranged(part.array, part.words, k, mask) for k in range(depths[0])}


def _layer(path: Path, name: str, cell: Sequence[tuple[Part, Array]]) -> Array:
    """A layer of one array, or of several whose rows follow each other."""
    matrices = [matrix for _, matrix in cell]
    if any(not part.rows for part, _ in cell):
        if len(cell) > 1:
            shown = ", ".join(quoted(part.name) for part, _ in cell)
            raise InputError(f"{quoted(path)}: layer {quoted(name)} would be each of {shown}; rename them")
        return matrices[0]
    if len({matrix.shape[1] for matrix in matrices}) > 1:
        shown = listing({part.name: part.array for part, _ in cell})
        raise InputError(f"{quoted(path)}: rows of one layer have the same width; it holds {shown}")
    return Joined(matrices)


def _rows(parts: Sequence[Part]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    return [(part.rows, part.row_axes) for part in parts]


def place_names(keys: Sequence[str] | None, shapes: Sequence[tuple[int, ...]]) -> Ids:
    """Names `key:i:j` of rows that lie in parts of these shapes; `i:j`, and automatic, where there are no keys."""
    starts = np.concatenate([[0], np.cumsum([math.prod(shape) for shape in shapes], dtype=np.int64)])

    def read(start: int, stop: int) -> list[str]:
        names, part = [], int(np.searchsorted(starts, start, side="right")) - 1
        for row in range(start, stop):
            while row >= starts[part + 1]:
                part += 1
            places = map(str, np.unravel_index(row - starts[part], shapes[part])) if shapes[part] else ()
            names.append(":".join((*(keys[part : part + 1] if keys else ()), *places)))
        return names

    return Ids(int(starts[-1]), read, automatic=keys is None)


def listing(arrays: Mapping[str, Array]) -> str:
    """Names, types and shapes in one line."""
    shown = [f"{quoted(name)} {array.dtype} {tuple(array.shape)}" for name, array in list(arrays.items())[:SHOWN]]
    more = len(arrays) - len(shown)
    return (", ".join(shown) or "nothing") + (f", and {more} more" if more > 0 else "")
