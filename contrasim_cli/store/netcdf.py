"""NetCDF-4 files, as xarray writes them: HDF5 in which dimensions have names and coordinates.

A dimension without coordinates is a dataset without values, and no data. The coordinate of the axis of rows names them, and so
may any vector along it, but none along another axis. Where the names of all dimensions say what they are, so they are read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from contrasim_cli.names import quoted
from contrasim_cli.store.axes import LAYERS, ROWS, WIDTH
from contrasim_cli.store.hdf5 import check_dataset
from contrasim_cli.store.store import Ids

BARE = "This is a netCDF dimension but not a netCDF variable"
PACKED = {"scale_factor", "add_offset"}
MEANING = {
    LAYERS: {"layer", "layers"},
    ROWS: {
        "presentation", "stimulus", "stimuli", "image", "images", "item", "items", "example", "examples", "sample", "samples",
        "obs", "observation", "observations", "row", "rows", "trial", "trials", "sentence", "sentences", "token", "tokens",
        "word", "words", "time", "batch", "position",
    },
    WIDTH: {
        "neuroid", "neuroids", "neuron", "neurons", "unit", "units", "feature", "features", "channel", "channels", "width",
        "hidden", "dim", "embedding", "voxel", "voxels", "electrode", "electrodes", "var",
    },
}  # fmt: skip


def is_bare_dimension(dataset: h5py.Dataset) -> bool:
    """Whether a dataset stands for a dimension without coordinates: it has no values, though it has a shape."""
    if "CLASS" not in dataset.attrs or "NAME" not in dataset.attrs:
        return False
    name = dataset.attrs["NAME"]
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return text.startswith(BARE)


def is_followed(file: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> bool:
    """Whether the file is NetCDF: its library says so, or a dataset stands for a dimension."""
    return "_NCProperties" in file.attrs or any(map(is_bare_dimension, datasets.values()))


def described(path: Path, file: h5py.File, members: Mapping[str, Any], passed: dict[str, str]) -> dict[str, Any]:
    """The variables, those of them that name rows, and what their axes are."""
    dimensions = {name: _dimensions(file[name]) for name in members}
    variables = {name: dims for name, dims in dimensions.items() if len(dims) > 1 and file[name].dtype.kind in "biuf"}
    axes = {name: words for name, dims in variables.items() if (words := _words(dims)) is not None}
    rows = {_rows(dims, axes.get(name)) for name, dims in variables.items()}
    shown: dict[str, Any] = {}
    for name, member in members.items():
        dims = dimensions[name]
        if PACKED & set(file[name].attrs):
            passed[name] = "packed by a scale_factor or add_offset; save it unpacked"
            shown[name] = None
        elif len(dims) == 1 and dims[0] not in rows:
            passed[name] = f"along {quoted(dims[0])}, which is no axis of rows"
            shown[name] = None
        elif len(dims) == 2 and file[name].dtype == "S1":
            passed.pop(name, None)
            check_dataset(path, name, file[name])
            shown[name] = _characters(file[name])
        else:
            shown[name] = member
    named = [name for name in shown if dimensions[name] == (name,) and name in rows and _can_name(shown[name])]
    names = named[0] if named else None
    return {"kind": "NetCDF-4", "members": shown, "names": names, "axes": axes}


def _dimensions(dataset: h5py.Dataset) -> tuple[str, ...]:
    """The names of the dimensions of a variable; a coordinate is its own."""
    if dataset.is_scale:
        return (dataset.name.lstrip("/"),)
    return tuple(
        axis[0].name.lstrip("/") if len(axis) else f"axis {number} of {dataset.name}"
        for number, axis in enumerate(dataset.dims)
    )


def _words(dims: tuple[str, ...]) -> tuple[str, ...] | None:
    """What axes are by the names of their dimensions, if all are known."""
    last = [name.rpartition("/")[2].lower() for name in dims]
    words = tuple(next((word for word, names in MEANING.items() if name in names), "") for name in last)
    complete = "" not in words and ROWS in words and WIDTH in words and words.count(LAYERS) <= 1
    return words if complete else None


def _rows(dims: tuple[str, ...], words: tuple[str, ...] | None) -> str:
    """The dimension of the rows: the first of them, or the first of all."""
    return dims[(words or (ROWS,)).index(ROWS)]


def _can_name(member: Any) -> bool:
    return isinstance(member, Ids) or (member is not None and member.dtype.kind in "iu")


def _characters(dataset: h5py.Dataset) -> Ids:
    """Texts that lie as matrices of single characters."""

    def read(start: int, stop: int) -> list[str]:
        block = dataset[start:stop]
        return [b"".join(row.tolist()).rstrip(b"\0 ").decode("utf-8", "replace") for row in block]

    return Ids(int(dataset.shape[0]), read)
