"""Zarr, versions 2 and 3, in a folder or a zip archive: arrays in chunks, which are unpacked as they are read. Needs numcodecs.

The metadata are checked here, and only codecs that are known are undone: others may run what a file says.
"""

import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content, check_held, sorted_out, texts_of
from contrasim_cli.store.file_trees import Archive, Folder, Tree
from contrasim_cli.store.zarr_chunks import Chunked
from contrasim_cli.store.zarr_metadata import StrangeError, layout_of

log = logging.getLogger(__name__)

ARRAY, GROUP, ATTRIBUTES, ANY = ".zarray", ".zgroup", ".zattrs", "zarr.json"
MAX_METADATA = 64 << 20  # bytes
PACKED = ("scale_factor", "add_offset")  # attributes by which values have to be changed


def read_zarr(source: Path | Snapshot, budget: int | None = None) -> Content:
    """The arrays of a folder, or of an archive that is open.

    Raises:
        InputError: it is damaged, rows of an array were never written, a codec is not known, or a chunk takes more than `budget`.
    """
    tree = Folder(source) if isinstance(source, Path) else _archive(source)
    try:
        return _content(tree.path, tree, budget)
    except BaseException:
        tree.close()
        raise


def _archive(file: Snapshot) -> Archive:
    try:
        return Archive(file)
    except ContraSimError:
        raise
    except Exception as error:  # zipfile raises whatever it trips over
        raise InputError(f"{quoted(file.path)}: is a damaged archive ({reason(error)})") from error


def _content(path: Path, tree: Folder | Archive, budget: int | None) -> Content:
    arrays: dict[str, Chunked] = {}
    dimensions: dict[str, list[str]] = {}
    passed: dict[str, str] = {}
    for name, (metadata, attributes) in _metadata(path, tree).items():
        shown = quoted(name or path.stem)
        try:
            layout = layout_of(metadata, f"{name}/" if name else "")
        except StrangeError as error:
            passed[shown] = str(error)
            continue
        except Exception as error:  # whatever is tripped over in what others wrote
            raise InputError(f"{quoted(path)}: {quoted(shown)}: its metadata are damaged ({reason(error)})") from error
        arrays[shown] = Chunked(tree, shown, layout)
        _check(path, arrays[shown], attributes, budget)
        dimensions[shown] = metadata.get("dimension_names") or attributes.get("_ARRAY_DIMENSIONS") or []
    texts = {name: texts_of(path, name, array) for name, array in arrays.items() if array.layout.stored is None}
    rest = {name: array for name, array in arrays.items() if name not in texts}
    content = sorted_out(
        path, "zarr", rest, passed, names=_coordinate(arrays, dimensions), files=tree.files, close=tree.close
    )
    return content if not texts else Content(**{**vars(content), "texts": {**texts, **content.texts}})


def _metadata(path: Path, tree: Tree) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What is said of each array, and its attributes, by its name."""
    metadata = {}
    for name in tree.names:
        folder, _, last = name.rpartition("/")
        if last == ANY and (node := _json(path, tree, name)).get("node_type") == "array":
            metadata[folder] = node, _mapping(node.get("attributes"))
        elif last == ARRAY:
            beside = f"{folder}/{ATTRIBUTES}".lstrip("/")
            metadata[folder] = _json(path, tree, name), _json(path, tree, beside) if beside in tree else {}
    return metadata


def _json(path: Path, tree: Tree, name: str) -> dict[str, Any]:
    try:
        if tree.size(name) > MAX_METADATA:
            raise ValueError(f"{tree.size(name)} bytes")
        document = json.loads(tree.read(name, 0, MAX_METADATA))
    except ContraSimError:
        raise
    except Exception as error:  # zipfile and json raise whatever they trip over
        raise InputError(
            f"{quoted(path)}: {quoted(name)} cannot be read ({reason(error)}); the file is damaged"
        ) from error
    return _mapping(document)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _check(path: Path, array: Chunked, attributes: Mapping[str, Any], budget: int | None) -> None:
    where = f"{quoted(path)}: {quoted(array.name)}"
    if any(name in attributes for name in PACKED):
        raise InputError(f"{where} is packed with scale_factor or add_offset; save it unpacked")
    check_held(path, array.name, array.layout.chunk_bytes, budget)
    first, missing = _unwritten(array) if array.shape else (None, 0)
    if first is not None:
        raise InputError(f"{where}: shape {array.shape} is claimed, but nothing was ever written from row {first}")
    if missing:  # zarr leaves out chunks that hold nothing but the fill value
        log.info("%s: %d chunks were not written, and are taken as %s", where, missing, array.layout.fill)


def _unwritten(array: Chunked) -> tuple[int | None, int]:
    """The first row of an array of which nothing was ever written, and how many of its files are missing."""
    outer, written = array.layout.outer, set(array.places())
    grid = [-(-length // size) for length, size in zip(array.shape, outer, strict=True)]
    missing = math.prod(grid) - len(written)
    rows = {place[0] for place in written}
    first = next(row for row in itertools.count() if row not in rows) if missing else grid[0]
    return (first * outer[0] if first < grid[0] else None), missing


def _coordinate(arrays: Mapping[str, Chunked], dimensions: Mapping[str, Sequence[Any]]) -> str | None:
    """The coordinates of the rows, as xarray keeps them: the array that is named as the first dimension of all matrices."""
    first = {str(dimensions[name][0]) for name, array in arrays.items() if len(array.shape) > 1 and dimensions[name]}
    name = first.pop() if len(first) == 1 else ""
    return name if name in arrays and len(arrays[name].shape) == 1 and arrays[name].dtype.kind in "OUSiu" else None
