"""Opening a store: what a file is, is found by its content, never by its name."""

import contextlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import h5py

from contrasim_cli.errors import ContraSimError, InputError, UsageError, raise_all, reason
from contrasim_cli.files import first_bytes, quoted, readable
from contrasim_cli.store import foreign, format, hdf5, neurox, npy, plain, seal, tensors, thingsvision
from contrasim_cli.store.content import Content
from contrasim_cli.store.reading import PLAIN, Reading
from contrasim_cli.store.rehearsal import rehearse
from contrasim_cli.store.store import Array, Store

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ATTEMPTS = 20  # at opening a file that is replaced meanwhile
PAUSE = 0.01  # seconds before the second, and that much longer before each that follows

Opened = TypeVar("Opened", Store, Content)


def open_stores(paths: Sequence[Path], how: Reading = PLAIN) -> list[Store]:
    """Open several stores; the problems of all of them are reported together."""
    stores: list[Store] = []
    problems: list[ContraSimError] = []
    for path in paths:
        try:
            stores.append(open_store(path, how))
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


def open_store(path: Path, how: Reading = PLAIN) -> Store:
    """Open one store: our own layout, or one of those that `foreign`, `neurox` and `thingsvision` read.

    `how` says what somebody else's file does not: what its axes, keys and values are.

    Raises:
        UsageError: it says something that cannot be, or of a file that needs nothing said.
        InputError: the file is missing, of another kind, unfinished, damaged, or leads outside itself.
        MissingError: a .safetensors file without the extra `hf`.
    """
    how.check()
    if os.path.isdir(path) and thingsvision.feature_files(path):
        return _as_it_is(thingsvision.read_thingsvision(path, _arrays), how)
    start = first_bytes(path)
    return _open_hdf5(path, how) if _is_hdf5(path, start) else foreign.store_of(path, _content(path, start, how), how)


def _as_it_is(store: Store, how: Reading) -> Store:
    """A store whose kind says all there is to say.

    Raises:
        UsageError: more was said.
    """
    if how.says is not None:
        store.close()
        raise UsageError(
            f"{how.says} is for files that do not say it themselves; {quoted(store.path)} is a {store.kind}"
        )
    return store


def _content(path: Path, start: bytes, how: Reading = PLAIN) -> Content:
    """What a file that is no HDF5 holds."""
    if start.startswith(b"\x93NUMPY"):
        return npy.read_npy(path)
    if start.startswith(b"PK\x03\x04"):
        return _open_zip(path, how)
    if start[8:9] == b"{":
        return tensors.read_safetensors(path)
    raise InputError(f"{quoted(path)}: {_guess(start)}; a store is HDF5, .npy, .npz, .safetensors or a .pt of tensors")


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
        return plain.read_hdf5(path, file, dict(hdf5.datasets(path, file)))


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


def _open_hdf5(path: Path, how: Reading) -> Store:
    return _safely(path, lambda: _read_hdf5(path, how), lambda store: store.close())


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


def _read_hdf5(path: Path, how: Reading) -> Store:
    file = hdf5.open_file(path)
    with _closed_on_error(path, file):
        if format.is_own(file):
            return _as_it_is(format.read_store(path, file), how)
        found = dict(hdf5.datasets(path, file))
        if neurox.is_neurox(found):
            return _as_it_is(neurox.read_neurox(path, file, found), how)
        return foreign.store_of(path, plain.read_hdf5(path, file, found, how.budget), how)


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


def _open_zip(path: Path, how: Reading) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{quoted(path)}: is a damaged .npz or .pt file") from error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return tensors.read_torch(path)
    if names and all(name.endswith(".npy") for name in names):
        return npy.read_npz(path, how.budget)
    raise InputError(f"{quoted(path)}: is a zip archive, but neither .npz nor .pt")


def _guess(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.lstrip()[:1] == b"<":
        return "looks like a web page"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, fetch the file itself with git lfs pull"
    if start[:1] == b"\x80":
        return "looks like a pickle, which is refused because it can run code"
    return "is of no kind that is read"
