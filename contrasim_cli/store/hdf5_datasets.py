"""HDF5 files of anybody's: every dataset of numbers is an array, every vector of text may name the rows.

MATLAB, NetCDF-4 and AnnData write HDF5 too, each with conventions of its own: see `matlab`, `netcdf` and `anndata`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from contrasim_cli.store import anndata, matlab, netcdf
from contrasim_cli.store.content import Content, refuse_weights, sorted_out
from contrasim_cli.store.format import text_ids
from contrasim_cli.store.hdf5 import check_dataset, is_text, keeps_order
from contrasim_cli.store.sixteen_bits import is_two_bytes

CONVENTIONS = (matlab, anndata, netcdf)  # each says whether a file follows it, and what its members are then


def read_hdf5(path: Path, file: h5py.File, datasets: Mapping[str, h5py.Dataset], budget: int | None = None) -> Content:
    """The content of an HDF5 file that is not one of ours, with all its datasets.

    Raises:
        InputError: it holds the weights of a model, or a dataset that cannot be read.
    """
    refuse_weights(path, datasets, file.attrs)
    passed: dict[str, str] = {}
    members = {
        name: _member(path, name, dataset, passed, budget)
        for name, dataset in datasets.items()
        if not netcdf.is_bare_dimension(dataset)
    }
    more: dict[str, Any] = {"kind": "HDF5", "members": members}
    convention = next((c for c in CONVENTIONS if c.is_followed(file, datasets)), None)
    if convention is not None:
        more = convention.described(path, file, members, passed)
    ordered = more.pop("ordered", False) or keeps_order(file, datasets)
    return sorted_out(path, passed=passed, ordered=ordered, close=file.close, **more)


def _member(path: Path, name: str, dataset: h5py.Dataset, passed: dict[str, str], budget: int | None) -> Any:
    """A dataset as it is, a vector of text as names, or None, with the reason, of one that is neither."""
    if dataset.shape is None:
        passed[name] = "empty"
    elif is_text(dataset):
        if dataset.shape and dataset.size == dataset.shape[0]:
            return text_ids(path, dataset)
        passed[name] = "text"
    elif dataset.dtype.kind in "OV" and not is_two_bytes(dataset):
        passed[name] = "references" if h5py.check_ref_dtype(dataset.dtype) else "no plain array of numbers"
    else:
        check_dataset(path, name, dataset, budget)
        return dataset
    return None
