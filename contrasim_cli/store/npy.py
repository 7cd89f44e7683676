"""Files of NumPy: `.npy`, mapped into memory, and `.npz`, whose arrays are mapped or, where they are compressed, unpacked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content, check_held, sorted_out, unreadable
from contrasim_cli.store.npz import Member, arrays, members
from contrasim_cli.store.sparse import OTHER_FORM, sparse_rows

SPARSE = {"data", "shape", "format"}  # of what scipy.sparse.save_npz writes, whatever the format


def read_npy(file: Snapshot) -> Content:
    """A `.npy` array."""
    path = file.path
    try:
        with np.errstate(over="ignore"):  # of sizes that a damaged header claims
            array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises whatever its parser of headers trips over
        raise unreadable(path, ".npy", error) from error
    return sorted_out(path, ".npy", {quoted(path.stem): array})


def read_npz(file: Snapshot, budget: int | None = None) -> Content:
    """A `.npz` archive, in the order of its members; no Python object in it is unpickled."""
    path = file.path
    try:
        found = members(file, objects=True)
        _check_room(path, found, budget)
        kept = arrays(file, {name: member for name, member in found.items() if not member.dtype.hasobject})
        if set(found) >= SPARSE:
            return _sparse(path, kept)
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib raise whatever they trip over
        raise unreadable(path, ".npz", error) from error
    reason = "an array of Python objects, which would have to be unpickled; save texts with .astype(str)"
    objects = {name: reason for name in found if name not in kept}
    return sorted_out(path, ".npz", {name: kept.get(name) for name in found}, objects, ordered=True)


def _sparse(path: Path, parts: Mapping[str, Any]) -> Content:
    """What `scipy.sparse.save_npz` wrote."""
    form = np.asarray(parts["format"]).astype(str).item()
    if form != "csr":
        return Content("SciPy sparse .npz", {}, passed={quoted(path.stem): OTHER_FORM})
    matrix = sparse_rows(*(parts[name] for name in ("data", "indices", "indptr", "shape")))
    return Content("SciPy sparse .npz", {quoted(path.stem): matrix})


def _check_room(path: Path, found: dict[str, Member], budget: int | None) -> None:
    """What is compressed has to fit into memory, whatever it was packed to."""
    packed = [member for member in found.values() if member.is_packed and not member.dtype.hasobject]
    if packed:
        largest = max(packed, key=lambda member: member.info.file_size)
        shown = f"{largest.info.filename} {largest.shape}" + " and the rest" * (len(packed) > 1)
        check_held(path, shown, sum(member.info.file_size for member in packed), budget)
