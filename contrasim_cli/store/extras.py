"""Readers that need a library of an extra, which is imported when the first such file is read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from contrasim_cli.errors import MissingError
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content


def read_table(file: Snapshot, budget: int | None = None) -> Content:
    """A Parquet or Arrow file."""
    os.environ.setdefault(
        "ARROW_DEFAULT_MEMORY_POOL", "system"
    )  # others take a gigabyte ahead, which hides what a file takes
    with _needs(file.path, "Parquet and Arrow", "table"):
        from contrasim_cli.store import table
    return table.read_table(file, budget)


def read_zarr(found: Path | Snapshot, budget: int | None = None) -> Content:
    """Zarr in a folder or a zip archive."""
    with _needs(found.path if isinstance(found, Snapshot) else found, "zarr", "zarr"):
        from contrasim_cli.store import zarrs
    return zarrs.read_zarr(found, budget)


def read_matlab(file: Snapshot, budget: int | None = None) -> Content:
    """A MATLAB file before version 7.3."""
    with _needs(file.path, "MATLAB files before version 7.3", "match", "; or save it by save('x.mat', '-v7.3')"):
        from contrasim_cli.store import matlab5
    return matlab5.read_matlab(file, budget)


@contextlib.contextmanager
def _needs(path: Path, kind: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Turn the lack of a library into an error that names the extra."""
    try:
        yield
    except ImportError as error:
        raise MissingError(
            f"{quoted(path)}: reading {kind} needs the extra {extra}: pip install 'contrasim[{extra}]'{otherwise}"
        ) from error
