"""Tensors that are spread over several files, and the index that says which lies where: `model.safetensors.index.json`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from contrasim_cli.errors import InputError
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content
from contrasim_cli.store.folders import Watched, check_state, member, members, state
from contrasim_cli.store.store import Array

SUFFIX = ".index.json"
PLACES = "weight_map"
MAX_INDEX = 100 << 20  # bytes

Read = Callable[[Path], Content]


def index_of(folder: Path) -> Path | None:
    """The index in a folder, if there is one.

    Raises:
        InputError: there are several.
    """
    indices = [path for path in members(folder) if path.name.endswith(SUFFIX) and _places(Snapshot(path)) is not None]
    if len(indices) > 1:
        shown = ", ".join(quoted(path.name) for path in indices)
        raise InputError(f"{quoted(folder)}: holds several indices: {shown}; give the one that is meant")
    return indices[0] if indices else None


def is_index(file: Snapshot, start: bytes) -> bool:
    """Whether a file, whose first bytes are `start`, says where tensors lie."""
    return start.lstrip().startswith(b"{") and _places(file) is not None


def read_shards(file: Snapshot, read: Read) -> Content:
    """The tensors that an index names.

    Raises:
        InputError: a file is missing, leads elsewhere, or holds other tensors than the index says.
    """
    index, before, places = file.path, file.identity(), _file_names(file.path, _places(file))
    files = {name: member(index.parent, name) for name in dict.fromkeys(places.values())}
    arrays: dict[str, Array] = {}
    for name, shard in files.items():
        arrays |= _tensors(index, places, name, shard, read)
    check_state(index, before)
    # writers of indices sort them, and the files keep no order
    return Content("safetensors in several files", arrays, files=(index, *files.values()))


def _tensors(index: Path, places: Mapping[str, str], name: str, file: Path, read: Read) -> dict[str, Array]:
    before, content = state(file), read(file)
    expected = {tensor for tensor, place in places.items() if place == name}
    if set(content.arrays) != expected:
        odd = sorted(expected.symmetric_difference(content.arrays))[0]
        says = "lies in" if odd in expected else "does not lie in"
        raise InputError(
            f"{quoted(index)}: says that {quoted(odd)} {says} {quoted(name)}, which is not so; the files do not belong together"
        )
    check_state(file, before)
    return {tensor: Watched(array, file, before) for tensor, array in content.arrays.items()}


def _places(file: Snapshot) -> Any:
    """What a file says of where tensors lie; None if it is no index."""
    with readable(file.path):
        content = file.start(MAX_INDEX + 1)
    if not content.lstrip().startswith(b"{") or len(content) > MAX_INDEX:
        return None
    try:
        index = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return index.get(PLACES) if isinstance(index, dict) else None


def _file_names(index: Path, places: Any) -> dict[str, str]:
    if isinstance(places, dict) and places and all(isinstance(file, str) for file in places.values()):
        return places
    raise InputError(f"{quoted(index)}: its {PLACES} does not say which file each tensor lies in; the file is damaged")
