"""Files that MATLAB wrote with -v7.3: HDF5 in which every array lies with its axes in the other order.

Vectors are matrices of one row or column there, and mostly doubles. Cells of texts, and matrices of characters, name rows; cells of
matrices are called 0 to n-1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.store.array_views import Turned, Vector, along
from contrasim_cli.store.hdf5 import check_dataset
from contrasim_cli.store.store import Ids

CLASS, EMPTY, SPARSE, FIELDS = "MATLAB_class", "MATLAB_empty", "MATLAB_sparse", "MATLAB_fields"
HEADER = b"MATLAB 7.3"
HIDDEN = ("#refs#/", "#subsystem#/")  # what cells and objects refer to
NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
LONGEST_TEXT = MOST_MATRICES = 1 << 16


def is_followed(file: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> bool:
    """Whether MATLAB wrote the file: its user block or the attributes of its datasets say so."""
    with open(file.filename, "rb") as stream:
        header = stream.read(len(HEADER))
    return header == HEADER or any(CLASS in dataset.attrs for dataset in datasets.values())


def described(path: Path, file: h5py.File, members: Mapping[str, Any], passed: dict[str, str]) -> dict[str, Any]:
    """The members as MATLAB shows them."""
    shown: dict[str, Any] = {}
    for name in members:
        group = file[name].parent
        if name.startswith(HIDDEN):
            passed.pop(name, None)
        elif SPARSE in group.attrs:
            passed[group.name.lstrip("/")] = "a sparse matrix; save it with full()"
        else:
            shown |= _member(path, file, name, members[name], passed)
    fields = _fields(file, shown)
    return {"kind": "MATLAB 7.3", "members": fields or shown, "ordered": fields is not None}


def _fields(file: h5py.File, members: Mapping[str, Any]) -> dict[str, Any] | None:
    """The members in the order of the fields of their struct, where all arrays are in one; MATLAB keeps no other order."""
    groups = {name.rpartition("/")[0] for name, member in members.items() if member is not None}
    group = groups.pop() if len(groups) == 1 else ""
    fields = file[group].attrs.get(FIELDS) if group else None
    if fields is None:
        return None
    order = [f"{group}/{b''.join(np.asarray(field).ravel().tolist()).decode('utf-8', 'replace')}" for field in fields]
    return {name: members[name] for name in sorted(members, key=lambda name: _place(order, name))}


def _place(order: Sequence[str], name: str) -> int:
    variable = name if name in order else name.rpartition(".")[0]  # a matrix of a cell
    return order.index(variable) if variable in order else len(order)


def _member(path: Path, file: h5py.File, name: str, member: Any, passed: dict[str, str]) -> dict[str, Any]:
    dataset = file[name]
    kind = _class(dataset)
    passed.pop(name, None)
    if dataset.attrs.get(EMPTY, 0):
        passed[name] = "empty"
    elif kind == "cell":
        return _cell(path, name, dataset, passed)
    elif kind == "char" and isinstance(member, h5py.Dataset) and member.ndim == 2 and member.shape[1] > 1:
        return {name: _rows_of_text(member)}
    elif kind in NUMBERS and isinstance(member, h5py.Dataset):
        return {name: _numbers(member)}
    elif kind in NUMBERS or kind == "char":
        passed[name] = "text" if kind == "char" else "no real numbers"
    else:
        passed[name] = f"a MATLAB {kind}; save texts with cellstr()"
    return {name: None}


def _class(dataset: h5py.Dataset) -> str:
    name = dataset.attrs.get(CLASS, b"double" if dataset.dtype.kind in "biuf" else b"object")
    return quoted(name.decode("utf-8", "replace") if isinstance(name, bytes) else name)


def _numbers(dataset: h5py.Dataset) -> Any:
    """An array, turned, or as a vector."""
    if dataset.size == 1:
        return np.empty((), dataset.dtype)
    is_vector = dataset.ndim == 2 and 1 in dataset.shape
    return Vector(dataset) if is_vector else Turned(dataset)


def _rows_of_text(dataset: h5py.Dataset) -> Ids:
    """The rows of a matrix of characters, which are padded with spaces."""

    def read(start: int, stop: int) -> list[str]:
        return [_text(column).rstrip() for column in dataset[:, start:stop].T]

    return Ids(int(dataset.shape[1]), read)


def _cell(path: Path, name: str, dataset: h5py.Dataset, passed: dict[str, str]) -> dict[str, Any]:
    """What a cell array refers to: texts, or matrices."""
    check_dataset(path, name, dataset)
    if not h5py.check_ref_dtype(dataset.dtype) or not dataset.size or dataset.size not in dataset.shape:
        passed[name] = "a cell array of more than one dimension"
        return {name: None}
    count = int(dataset.size)
    (first,) = _targets(path, name, dataset, 0, 1)
    if _class(first) == "char":
        return {name: Ids(count, lambda start, stop: _texts(path, name, dataset, start, stop))}
    targets = _targets(path, name, dataset, 0, count) if count <= MOST_MATRICES else []
    if targets and all(_class(target) in NUMBERS and not target.attrs.get(EMPTY, 0) for target in targets):
        return {f"{name}.{place}": _numbers(target) for place, target in enumerate(targets)}
    passed[name] = "a cell array of neither texts nor matrices"
    return {name: None}


def _targets(path: Path, name: str, cell: h5py.Dataset, start: int, stop: int) -> list[h5py.Dataset]:
    """The datasets that members of a cell refer to."""
    targets = []
    for place, reference in enumerate(cell[along(cell, start, stop)].ravel(), start):
        target = cell.file[reference]
        if not isinstance(target, h5py.Dataset) or target.shape is None or target.dtype.kind not in "biuf":
            raise InputError(
                f"{quoted(path)}: {quoted(name)}{{{place + 1}}} is not a plain array; save texts with cellstr(), and "
                "matrices by name"
            )
        check_dataset(path, f"{name}{{{place + 1}}}", target)
        targets.append(target)
    return targets


def _texts(path: Path, name: str, cell: h5py.Dataset, start: int, stop: int) -> list[str]:
    texts = []
    for target in _targets(path, name, cell, start, stop):
        if target.size > LONGEST_TEXT or _class(target) != "char":
            raise InputError(
                f"{quoted(path)}: {quoted(name)} holds other things beside texts; save texts with cellstr()"
            )
        texts.append("" if target.attrs.get(EMPTY, 0) else _text(target[()].T.ravel()))
    return texts


def _text(codes: npt.NDArray[Any]) -> str:
    """A text whose characters are numbers of UTF-16."""
    return codes.astype("<u2").tobytes().decode("utf-16-le", "replace")
