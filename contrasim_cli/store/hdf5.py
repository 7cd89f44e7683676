"""Opening HDF5 files of unknown origin: locks, links that leave the file, data that is not there."""

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from contrasim_cli import limits
from contrasim_cli.errors import InputError, reason
from contrasim_cli.input_files import said
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.hdf5_chunks import check_chunks

MAX_DEPTH = 16
CHUNK_CACHE = 2 << 20  # bytes that HDF5 keeps of every dataset: a chunk or two; its own 8 MiB are much for many layers
TEXT_BYTES = 24  # that a string counts for at least: each is made, and many are kept somewhere else


def open_file(file: Snapshot) -> h5py.File:
    """Open for reading, without locks where the file system has none.

    Raises:
        InputError: the file is no readable HDF5, or another process is writing it.
    """
    path = file.path
    try:
        return h5py.File(file.name, "r", rdcc_nbytes=CHUNK_CACHE)
    except BlockingIOError as error:
        raise InputError(f"{quoted(path)}: another process is writing it; wait until it has finished") from error
    except OSError as first:
        if first.errno == errno.EMFILE:
            raise InputError(f"{quoted(path)}: cannot be read: {said(first)}") from first
        if "lock" in str(first):
            try:
                return h5py.File(file.name, "r", locking=False, rdcc_nbytes=CHUNK_CACHE)
            except OSError as second:
                raise _damaged(path, second) from second
        raise _damaged(path, first) from first
    except (RuntimeError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{quoted(path)}: cannot be read as HDF5 ({reason(error)}); the file is cut short or damaged")


def datasets(path: Path, file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset of a file with its name; a link that leaves the file is refused.

    Raises:
        InputError: an external or soft link, groups nested too deep, or a group in two places, which could be 10^16 places.
    """
    yield from _below(path, file, "", {})


def _below(path: Path, group: h5py.Group, prefix: str, addresses: dict[int, str]) -> Iterator[tuple[str, h5py.Dataset]]:
    if prefix.count("/") > MAX_DEPTH:
        raise InputError(f"{quoted(path)}: groups are nested deeper than {MAX_DEPTH}")
    address = int(h5py.h5o.get_info(group.id).addr)
    if address in addresses:
        raise InputError(
            f"{quoted(path)}: {quoted(prefix)} is the same group as {quoted(addresses[address])}; keep one of them"
        )
    addresses[address] = prefix or "/"
    for key in group:
        limits.grow(objects=1)
        name = f"{prefix}{key}"
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
            raise InputError(f"{quoted(path)}: {quoted(name)} is {kind} link; only data inside the file is read")
        member = group[key]
        if isinstance(member, h5py.Group):
            yield from _below(path, member, f"{name}/", addresses)
        elif isinstance(member, h5py.Dataset):
            yield name, member


def check_dataset(path: Path, name: str, dataset: h5py.Dataset, budget: int | None = None) -> None:
    """Refuse a dataset whose values are elsewhere or nowhere, or of which a single chunk does not fit into memory.

    Raises:
        InputError: a virtual or external dataset, one with values that were never written, or one with chunks larger than
            `budget` (None: than half of what is free).
    """
    where = f"{quoted(path)}: {quoted(name)}"
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{where} takes its values from other files; only data inside the file is read")
    if not dataset.size:
        return
    if dataset.chunks is None:
        stored, needed = int(dataset.id.get_storage_size()), int(dataset.size) * int(dataset.id.get_type().get_size())
        whole = stored >= needed
    else:
        whole = check_chunks(where, dataset, dataset.file.id.get_filesize(), budget)
    if not whole:
        raise InputError(f"{where}: shape {dataset.shape} is claimed, but not all of its values were ever written")


def text_attrs(path: Path, holder: Any) -> dict[str, str]:
    """The attributes that are text, as text."""
    try:
        raw = {name: holder.attrs[name] for name in holder.attrs}
    except (OSError, RuntimeError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    return {
        name: value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else value.encode("utf-8", "replace").decode()
        for name, value in raw.items()
        if isinstance(value, (str, bytes))
    }


def keeps_order(file: h5py.File, names: Iterable[str]) -> bool:
    """Whether every group above these datasets that has several members keeps the order in which they were written."""
    above = {"/", *(name[:at] for name in names for at, character in enumerate(name) if character == "/")}
    groups = [file[name] for name in above]
    flags = [group.id.get_create_plist().get_link_creation_order() for group in groups if len(group) > 1]
    return all(flag & h5py.h5p.CRT_ORDER_TRACKED for flag in flags)


def is_text(dataset: h5py.Dataset) -> bool:
    """Whether the values are strings."""
    return h5py.check_string_dtype(dataset.dtype) is not None


def read_text(path: Path, dataset: h5py.Dataset, start: int, stop: int) -> list[str]:
    """Strings [stop - start] of a dataset of one dimension, or of one column."""
    limits.grow(read=_bytes_to_read(dataset, start, stop))
    try:
        values = np.asarray(dataset[start:stop]).ravel().tolist()
        return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{quoted(path)}: the ids of rows {start} to {stop - 1} cannot be read; the file is damaged"
        ) from error


def _bytes_to_read(dataset: h5py.Dataset, start: int, stop: int) -> int:
    """Bytes unpacked for some values of such a dataset of text: those of whole chunks."""
    chunk = dataset.chunks[0] if dataset.chunks else 1
    return (stop - start + 2 * chunk) * max(TEXT_BYTES, int(dataset.id.get_type().get_size()))
