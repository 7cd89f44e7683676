"""The names of rows in a file of somebody else's: a text or whole numbers, one per row and each once, under whatever key.

Rows are named by what `--ids-key` says, else by what the container says, else by `ids`, else by the one vector that can be names.
Where several can, which one it is has to be said. A vector of classes is none.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.store.content import Content
from contrasim_cli.store.layout import Layout
from contrasim_cli.store.store import Array, Ids, first_duplicate

log = logging.getLogger(__name__)

IDS = "ids"
CLASSES = {"label", "labels", "target", "targets", "class", "classes", "y", "y_true", "category", "categories"}


def row_names(
    path: Path, content: Content, layout: Layout, layer: str, key: str | None
) -> tuple[str | None, Ids | None]:
    """The key of the names and the names of the rows of a layer; `key` is the one that was asked for.

    Raises:
        InputError: there is no such key, or what is there, or `ids`, is not one name per row.
    """
    places, axes = layout.places(layer), layout.row_axes(layer)
    n_rows = layout.layers[layer].shape[0]
    if places is not None and not places.automatic and key is None:
        return None, places
    vectors = _vectors(content)
    declared = key or content.names or (IDS if IDS in {*vectors, *content.arrays, *content.passed} else None)
    if declared is not None:
        return declared, _declared_names(path, content, vectors, declared, (n_rows, *axes[:1]), places)
    usable = {name: ids for name, ids in vectors.items() if ids.count in (n_rows, *axes[:1])}
    candidates = {name: ids for name, ids in usable.items() if _are_names(name, ids)}
    if len(candidates) > 1:
        log.info(
            "%s: rows are named by none of %s: more than one could be their names; say which with "
            "contrasim extract --from FILE --ids-key NAME",
            quoted(path), ", ".join(map(quoted, candidates)),
        )  # fmt: skip
    elif candidates:
        name, ids = next(iter(candidates.items()))
        log.info("%s: rows are named by %s", quoted(path), quoted(name))
        return name, _along(ids, n_rows, places)
    elif repeated := [name for name in usable if name in content.texts and not _is_of_classes(name)]:
        log.info("%s: %s names rows more than once, and is not taken as their ids", quoted(path), quoted(repeated[0]))
    return None, places


def _vectors(content: Content) -> dict[str, Ids]:
    """Every vector of texts or integers as names."""
    whole = {
        name: integers(array)
        for name, array in content.arrays.items()
        if len(array.shape) == 1 and array.dtype.kind in "iu"
    }
    return {**content.texts, **whole}


def integers(array: Array) -> Ids:
    """Whole numbers as names."""
    return Ids(int(array.shape[0]), lambda start, stop: [str(int(value)) for value in array[slice(start, stop)]])


def _declared_names(
    path: Path, content: Content, vectors: Mapping[str, Ids], key: str, counts: tuple[int, ...], places: Ids | None
) -> Ids:
    ids = vectors.get(key)
    if ids is None:
        array = content.arrays.get(key)
        description = content.passed.get(key, "not there") if array is None else f"{array.dtype} {tuple(array.shape)}"
        known = f"; the file has {', '.join(map(quoted, vectors))}" if vectors else ""
        raise InputError(
            f"{quoted(path)}: {quoted(key)} cannot name the rows: it is {description}; expected a text or an integer per row{known}"
        )
    if ids.count not in counts:
        raise InputError(f"{quoted(path)}: {quoted(key)} has {ids.count} ids for {counts[0]} rows; correct one of them")
    return _along(ids, counts[0], places)


def _along(ids: Ids, n_rows: int, places: Ids | None) -> Ids:
    """Names of all rows; those of the first of several axes go before the index along the others."""
    if ids.count == n_rows or places is None:
        return ids
    per_name = n_rows // ids.count

    def read(start: int, stop: int) -> list[str]:
        first = start // per_name
        names = ids.read(first, -(-stop // per_name)) if start < stop else []
        ends = (place.partition(":")[2] for place in places.read(start, stop))
        return [f"{names[row // per_name - first]}:{end}" for row, end in zip(range(start, stop), ends, strict=True)]

    return Ids(n_rows, read)


def _are_names(name: str, ids: Ids) -> bool:
    return not _is_of_classes(name) and first_duplicate(ids.hashes) is None


def _is_of_classes(name: str) -> bool:
    return name.rpartition("/")[2].rpartition(".")[2].lower() in CLASSES
