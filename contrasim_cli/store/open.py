"""Opening a store: what a file is, is found by its content, never by its name."""

import contextlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import h5py

from contrasim_cli.errors import ContraSimError, InputError, raise_all, reason
from contrasim_cli.files import first_bytes, quoted, readable
from contrasim_cli.store import (
    arrayfolder,
    delimited,
    extras,
    foreign,
    format,
    hdf5,
    neurox,
    packed,
    seal,
    shards,
    thingsvision,
)
from contrasim_cli.store.content import Content
from contrasim_cli.store.rehearsal import rehearse
from contrasim_cli.store.store import Array, Store

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZARR = {".zarray", ".zgroup", "zarr.json"}
KINDS = "a store is HDF5, .npy, .npz, .safetensors, .pt, .mat, zarr, Parquet, Arrow, or a table of numbers as text (.csv, .tsv)"
GUESSES = {
    b"version https://git-lfs": "is a Git LFS pointer, fetch the file itself with git lfs pull",
    b"\x80": "looks like a pickle, which is refused because it can run code",
    b"\xff\xfe": "is text in UTF-16, convert it first (iconv -f utf-16 -t utf-8)",
    b"\x1f\x8b": "is packed with gzip, unpack it first",
    b"FEA1": "is a Feather file of version 1, write it again as version 2",
}
ATTEMPTS = 20  # at opening a file that is replaced meanwhile
PAUSE = 0.01  # seconds before the second, and that much longer before each that follows

Opened = TypeVar("Opened", Store, Content)


def open_stores(paths: Sequence[Path]) -> list[Store]:
    """Open several stores; the problems of all of them are reported together."""
    stores: list[Store] = []
    problems: list[ContraSimError] = []
    for path in paths:
        try:
            stores.append(open_store(path))
        except ContraSimError as problem:
            problems.append(problem)
    if problems:
        close_stores(stores)
    raise_all(problems)
    return stores


def close_stores(stores: Sequence[Store]) -> None:
    """Close the files of the stores."""
    for store in stores:
        store.close()


def open_store(path: Path, axes: str | None = None) -> Store:
    """Open one store: our own layout, or one of those that `foreign`, `neurox` and `thingsvision` read.

    `axes` says what the dimensions of somebody else's arrays are, where their shapes do not.

    Raises:
        UsageError: there are no such axes.
        InputError: the file is missing, of another kind, unfinished, damaged, or leads outside itself.
        MissingError: the extra that a kind of file needs is not there.
    """
    axes = foreign.check_axes(axes)
    if os.path.isdir(path) and thingsvision.feature_files(path):
        return thingsvision.read_thingsvision(path, _arrays)
    if os.path.isdir(path) and (content := _folder(path)) is not None:
        return foreign.store_of(path, content, axes)
    start = first_bytes(path)
    return _open_hdf5(path, axes) if _is_hdf5(path, start) else foreign.store_of(path, _content(path, start), axes)


def _folder(path: Path, budget: int | None = None) -> Content | None:
    """What a folder holds that is a store; None if it is none."""
    with readable(path):
        names = os.listdir(path)
    if not ZARR.isdisjoint(names):
        return extras.read_zarr(path, budget)
    if (index := shards.index_of(path)) is not None:
        return shards.read_shards(path, index, _any_content)
    files = arrayfolder.array_files(path)
    return arrayfolder.read_folder(path, files, _any_content) if files else None


def _any_content(path: Path) -> Content:
    return _content(path, first_bytes(path))


def _starts(*marks: bytes) -> Callable[[Path, bytes], bool]:
    return lambda path, start: start.startswith(marks)


def _zip(path: Path, budget: int | None) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{quoted(path)}: is a damaged .npz or .pt file") from error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return foreign.read_torch(path)
    if names and all(name.endswith(".npy") for name in names):
        return foreign.read_npz(path)
    if any(name.rpartition("/")[2] in ZARR and name.count("/") < 2 for name in names):
        return extras.read_zarr(path, budget)
    raise InputError(f"{quoted(path)}: is a zip archive, but neither .npz nor .pt nor zarr")


# what a file that is no HDF5 is, by its content, and what reads it; the first that fits
DETECTION: tuple[tuple[Callable[[Path, bytes], bool], Callable[[Path, int | None], Content]], ...] = (
    (_starts(b"\x93NUMPY"), lambda path, budget: foreign.read_npy(path)),
    (_starts(b"PK\x03\x04"), _zip),
    (_starts(b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"), extras.read_table),
    (_starts(b"MATLAB 5.0 MAT-file"), extras.read_matlab),
    (lambda path, start: start.startswith(b"\x1f\x8b") and packed.starts_with_npy(path), packed.read_packed),
    (
        shards.is_index,
        lambda path, budget: shards.read_shards(path, path, _any_content),
    ),
    (
        lambda path, start: start[8:9] == b"{" and b"\0" in start[:8],
        lambda path, budget: foreign.read_safetensors(path),
    ),
    (lambda path, start: delimited.is_text(path), delimited.read_delimited),
)


def _content(path: Path, start: bytes, budget: int | None = None) -> Content:
    """What a file that is no HDF5 holds."""
    for is_kind, read in DETECTION:
        if is_kind(path, start):
            return read(path, budget)
    raise InputError(f"{quoted(path)}: {_guess(start)}; {KINDS}")


def _arrays(path: Path) -> tuple[Mapping[str, Array], Callable[[], None]]:
    """The arrays of a file, and how to close it."""
    start = first_bytes(path)
    if not _is_hdf5(path, start):
        return _content(path, start).arrays, lambda: None
    content = _safely(path, lambda: _plain_content(path), lambda content: content.close())
    return content.arrays, content.close


def _plain_content(path: Path) -> Content:
    """Somebody's HDF5 file."""
    file = hdf5.open_file(path)
    with _closed_on_error(path, file):
        return foreign.read_plain_hdf5(path, file, dict(hdf5.datasets(path, file)))


def _is_hdf5(path: Path, start: bytes) -> bool:
    """Whether the signature is there: at the beginning, or behind a user block of 512, 1024, … bytes."""
    if start.startswith(HDF5_MAGIC):
        return True
    offset = 512
    with readable(path), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        while offset < min(size, 1 << 20):
            stream.seek(offset)
            if stream.read(8) == HDF5_MAGIC:
                return True
            offset *= 2
    return False


def _open_hdf5(path: Path, axes: str | None) -> Store:
    return _safely(path, lambda: _read_hdf5(path, axes), lambda store: store.close())


def _safely(path: Path, read: Callable[[], Opened], close: Callable[[Opened], None]) -> Opened:
    """What `read` makes of an HDF5 file, which is the one that was checked: another may take its place meanwhile."""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * PAUSE)
        before = _identity(path)
        try:
            _check(path, read)
            opened = read()
        except InputError:
            if _identity(path) == before:
                raise
            continue
        if _identity(path) == before:
            return opened
        close(opened)
    raise InputError(f"{quoted(path)}: is replaced again and again while it is opened; wait until it has been written")


def _check(path: Path, read: Callable[[], Store | Content]) -> None:
    """Make sure that HDF5 can read a file: its seal vouches for it, or a child process reads it."""

    def rehearsal() -> None:
        opened = read()
        if isinstance(opened, Store) and opened.ids is not None:
            opened.ids.digest  # noqa: B018  all ids are read

    with readable(path):
        sealed = seal.holds(path)
    if sealed is False:
        raise InputError(
            f"{quoted(path)}: its seal says that its ids, names or attributes are not what was written; the file is "
            "damaged, copy or extract it again"
        )
    if sealed is None:
        rehearse(path, rehearsal)


def _identity(path: Path) -> tuple[int, ...]:
    with readable(path):
        found = path.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _read_hdf5(path: Path, axes: str | None) -> Store:
    file = hdf5.open_file(path)
    with _closed_on_error(path, file):
        if format.is_own(file):
            return format.read_store(path, file)
        found = dict(hdf5.datasets(path, file))
        if neurox.is_neurox(found):
            return neurox.read_neurox(path, file, found)
        return foreign.store_of(path, foreign.read_plain_hdf5(path, file, found), axes)


@contextlib.contextmanager
def _closed_on_error(path: Path, file: h5py.File) -> Iterator[None]:
    try:
        yield
    except ContraSimError:
        file.close()
        raise
    except Exception as error:  # h5py raises whatever it trips over in a damaged file
        file.close()
        raise InputError(f"{quoted(path)}: cannot be read as HDF5 ({reason(error)}); the file is damaged") from error


def _guess(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.lstrip()[:1] == b"<":
        return "looks like a web page"
    return next((said for mark, said in GUESSES.items() if start.startswith(mark)), "is of no kind that is read")
