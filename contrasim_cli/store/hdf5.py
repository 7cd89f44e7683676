"""Opening HDF5 files of unknown origin: locks, links that leave the file, data that is not there."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from contrasim_cli.errors import InputError
from contrasim_cli.files import quoted

MAX_DEPTH = 16


def open_file(path: Path) -> h5py.File:
    """Open for reading, without locks where the file system has none.

    Raises:
        InputError: the file is no readable HDF5, or another process is writing it.
    """
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise InputError(f"{quoted(path)}: another process is writing it; wait until it has finished") from error
    except OSError as first:
        if "lock" in str(first):
            try:
                return h5py.File(path, "r", locking=False)
            except OSError as second:
                raise _damaged(path, second) from second
        raise _damaged(path, first) from first
    except (RuntimeError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{quoted(path)}: cannot be read as HDF5 ({str(error).splitlines()[0]}); the file is cut short or damaged"
    )


def datasets(path: Path, group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below a group with its name; a link that leaves the file is refused.

    Raises:
        InputError: an external or soft link, a virtual or external dataset, or groups nested too deep.
    """
    if depth > MAX_DEPTH:
        raise InputError(f"{quoted(path)}: groups are nested deeper than {MAX_DEPTH}")
    for key in group:
        name = f"{prefix}{key}"
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
            raise InputError(f"{quoted(path)}: {quoted(name)} is {kind} link; only data inside the file is read")
        member = group[key]
        if isinstance(member, h5py.Group):
            yield from datasets(path, member, f"{name}/", depth + 1)
        elif isinstance(member, h5py.Dataset):
            yield name, member


def check_dataset(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose values are elsewhere or nowhere.

    Raises:
        InputError: a virtual or external dataset, or one with values that were never written.
    """
    where = f"{quoted(path)}: {quoted(name)}"
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{where} takes its values from other files; only data inside the file is read")
    if dataset.size and missing_chunks(dataset):
        raise InputError(f"{where}: shape {dataset.shape} is claimed, but not all of its values were ever written")


def missing_chunks(dataset: h5py.Dataset) -> bool:
    """Whether HDF5 would invent values, because some were never written."""
    if dataset.chunks is None:
        stored, needed = int(dataset.id.get_storage_size()), int(dataset.size) * int(dataset.dtype.itemsize)
        return stored < needed
    expected = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() < expected)


def text_attrs(path: Path, holder: Any) -> dict[str, str]:
    """The attributes that are text, as text."""
    try:
        raw = {name: holder.attrs[name] for name in holder.attrs}
    except (OSError, RuntimeError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in raw.items()
        if isinstance(value, (str, bytes))
    }


def is_text(dataset: h5py.Dataset) -> bool:
    """Whether the values are strings."""
    return h5py.check_string_dtype(dataset.dtype) is not None


def read_text(path: Path, dataset: h5py.Dataset, start: int, stop: int) -> list[str]:
    """Strings [stop - start] of a one-dimensional dataset."""
    try:
        values = dataset[start:stop]
        return [
            value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in np.asarray(values).tolist()
        ]
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{quoted(path)}: the ids of rows {start} to {stop - 1} cannot be read; the file is damaged"
        ) from error
