"""Folders of thingsvision: `features.npy` (or .h5, .hdf5, .pt, .txt, .mat) and the names of its rows in `file_names.txt`.

What did not fit into memory lies in parts, `features_01`, `features_02`, …, as files or as datasets of one HDF5 file. In `.mat`
files a variable is a row, and has the name of its file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from contrasim_cli.errors import InputError, raise_all
from contrasim_cli.input_files import first_bytes
from contrasim_cli.names import quoted
from contrasim_cli.store.array_views import Joined
from contrasim_cli.store.folders import Watched, check_state, state
from contrasim_cli.store.store import Array, Ids, Layer, Store

NAMES = "file_names.txt"
FEATURES = re.compile(r"features(_\d+)?")
SUFFIXES = {".npy", ".h5", ".hdf5", ".pt", ".txt", ".mat"}
IMAGES = re.compile(r"(.eps|.jpg|.jpeg|.png|.PNG|.tif|.tiff)$")  # what is left out in the names of variables

Read = Callable[[Path], tuple[Mapping[str, Array], Callable[[], None]]]  # the arrays of a file, and how to close it


def feature_files(folder: Path) -> list[Path]:
    """The files that make the store, of which there are none in other folders."""
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and FEATURES.fullmatch(p.stem) and p.is_file())
    return [*files, folder / NAMES] if files and (folder / NAMES).exists() else files


def read_thingsvision(folder: Path, arrays_of: Read) -> Store:
    """The store in such a folder.

    Raises:
        InputError: there is no `file_names.txt`, or its lines are not the rows of the features.
    """
    *files, names_file = feature_files(folder)
    if names_file.name != NAMES:
        raise InputError(
            f"{quoted(folder)}: holds {quoted(names_file.name)}, but no {NAMES} that names its rows; give the file itself"
        )
    names = _names(names_file)
    with ExitStack() as stack:
        arrays: dict[str, Array] = {}
        for path in files:
            before = state(path)
            members, close = arrays_of(path)
            stack.callback(close)
            check_state(path, before)
            _add(folder, arrays, {_part(path, name): Watched(array, path, before) for name, array in members.items()})
        layers = _layers(folder, _of_variables(folder, arrays, names), len(names))
        ids = Ids(len(names), lambda start, stop: names[start:stop])
        by_name = {layer.name: layer for layer in layers}
        all_files = (*files, names_file)
        return Store(folder, "thingsvision", by_name, ids, files=all_files, close=stack.pop_all().close)
    raise AssertionError  # ExitStack swallows nothing


def _names(path: Path) -> list[str]:
    first_bytes(path)
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{quoted(path)}: is not UTF-8; convert the file first (iconv -t utf-8)") from error
    return [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]


def _part(path: Path, name: str) -> str:
    """The name of an array: parts of several files, in which it is always `features`, are named for their files."""
    return path.stem if name == "features" else name


def _of_variables(folder: Path, arrays: Mapping[str, Array], names: Sequence[str]) -> Mapping[str, Array]:
    """The rows that lie in variables of their own as one matrix, in the order of their names.

    Raises:
        InputError: some rows are missing, or their lengths differ.
    """
    rows = [IMAGES.sub("", name.strip()) for name in names]
    if not rows or any(FEATURES.fullmatch(name) for name in arrays) or not set(arrays) & set(rows):
        return arrays
    lost = sorted(set(rows).symmetric_difference(arrays)) or [name for name in rows if rows.count(name) > 1]
    if lost:
        raise InputError(
            f"{quoted(folder)}: {quoted(lost[0])} is not a variable of its own in the .mat files and in {NAMES}; correct "
            "one of them"
        )
    vectors = [np.asarray(arrays[name][:]) for name in rows]
    if len({vector.shape for vector in vectors}) > 1 or vectors[0].ndim != 1:
        raise InputError(
            f"{quoted(folder)}: {quoted(rows[0])} and other variables are not vectors of the same length; flatten them"
        )
    return {"features": np.stack(vectors)}


def _add(folder: Path, arrays: dict[str, Array], members: Mapping[str, Array]) -> None:
    for name, array in members.items():
        if name in arrays:
            raise InputError(f"{quoted(folder)}: two files hold {quoted(name)}; keep one, or give the file itself")
        arrays[name] = array


def _layers(folder: Path, arrays: Mapping[str, Array], n_rows: int) -> list[Layer]:
    """One layer of all parts, or a layer per array: whichever has as many rows as there are names."""
    raise_all([problem for name, array in arrays.items() if (problem := _refusal(folder, name, array))])
    parts = dict(sorted(arrays.items(), key=lambda item: int(item[0].rpartition("_")[2]) if "_" in item[0] else -1))
    rows = {name: int(array.shape[0]) for name, array in parts.items()}
    if all(count == n_rows for count in rows.values()) and (len(rows) == 1 or n_rows):
        return [Layer(name, array) for name, array in parts.items()]
    numbered = "features" not in parts and len({array.shape[1] for array in parts.values()}) == 1
    if numbered and sum(rows.values()) == n_rows:
        return [Layer("features", Joined(list(parts.values())))]
    shown = ", ".join(f"{name} {tuple(array.shape)}" for name, array in list(parts.items())[:20])
    raise InputError(
        f"{quoted(folder)}: {NAMES} has {n_rows} lines, which are not the rows of {shown}; correct one of them"
    )


def _refusal(folder: Path, name: str, array: Array) -> InputError | None:
    where = f"{quoted(folder)}: {quoted(name)}"
    if not FEATURES.fullmatch(name):
        return InputError(
            f"{where} is not a name that thingsvision writes; expected features or features_01, features_02, …"
        )
    if array.dtype.kind not in "fiu" or len(array.shape) != 2:
        return InputError(
            f"{where} is {array.dtype} {tuple(array.shape)}; expected numbers [rows, width]: flatten them"
        )
    return None
