"""AnnData files (`.h5ad`): the matrix `X` and those in `obsm` and `layers`, whose rows `obs` names.

Graphs (`obsp`), columns (`var`, `varm`, `varp`) and what is unstructured (`uns`) are no layers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from contrasim_cli.errors import InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.store.sparse import OTHER_FORM, sparse_rows

GROUPS = ("layers", "obsm")
ROWS = ("csr_matrix", "csr")
COLUMNS = ("csc_matrix", "csc")


def is_followed(file: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> bool:
    """Whether the file is AnnData: it says so, or has the parts of one, as older ones have."""
    return _text(file.attrs.get("encoding-type")) == "anndata" or all(part in file for part in ("X", "obs", "var"))


def described(path: Path, file: h5py.File, members: Mapping[str, Any], passed: dict[str, str]) -> dict[str, Any]:
    """The matrices, and the names of observations."""
    passed.clear()  # of parts that are no layers by design
    shown: dict[str, Any] = {}
    for name in ("X", *(f"{group}/{key}" for group in GROUPS for key in file.get(group, ()))):
        if name in file:
            shown[name] = _matrix(path, name, file[name], members, passed)
    key = _names(file, passed)
    if key is not None:
        shown[key] = members.get(key)
    return {"kind": "AnnData", "members": shown, "names": key}


def _matrix(path: Path, name: str, member: Any, members: Mapping[str, Any], passed: dict[str, str]) -> Any:
    """A matrix, dense or sparse; None, with the reason, of what is neither."""
    if isinstance(member, h5py.Dataset):
        return members.get(name)
    form = _text(member.attrs.get("encoding-type", member.attrs.get("h5sparse_format")))
    if form in ROWS:
        shape = member.attrs.get("shape", member.attrs.get("h5sparse_shape"))
        data, indices, indptr = (members.get(f"{name}/{part}") for part in ("data", "indices", "indptr"))
        try:
            return sparse_rows(data, indices, indptr, shape)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{quoted(path)}: {quoted(name)}: {reason(error)}; the file is damaged") from error
    passed[name] = OTHER_FORM if form in COLUMNS else "a table, not a matrix"
    return None


def _names(file: h5py.File, passed: dict[str, str]) -> str | None:
    """Where the names of observations are."""
    table = file.get("obs")
    if not isinstance(table, h5py.Group):
        passed["obs"] = "a table of an old AnnData, whose names are not read; open the file and save it again"
        return None
    index = _text(table.attrs.get("_index", "_index"))
    if index not in table:
        return None
    return f"obs/{index}/values" if isinstance(table[index], h5py.Group) else f"obs/{index}"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
