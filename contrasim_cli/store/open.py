"""Opening a store: HDF5 of several layouts, and what `kinds` knows."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import h5py

from contrasim_cli.errors import ContraSimError, InputError, UnclearError, UsageError, raise_all, reason
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot, one_version
from contrasim_cli.store import as_store, format, hdf5, hdf5_datasets, neurox, seal, sharded, thingsvision
from contrasim_cli.store.child_process import rehearse
from contrasim_cli.store.content import Content
from contrasim_cli.store.hints import PLAIN, Hints
from contrasim_cli.store.kinds import content_of, folder_content
from contrasim_cli.store.open_files import SHELF, has_room, raise_limit
from contrasim_cli.store.store import Array, Store

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
Opened = TypeVar("Opened", Store, Content)


def open_stores(paths: Sequence[Path], how: Hints = PLAIN) -> list[Store]:
    """Open several stores; the problems of all of them are reported together."""
    stores: list[Store] = []
    problems: list[ContraSimError] = []
    shelved = False
    for path in paths:
        try:
            if not shelved and not _has_room():
                shelved = True
                stores[:] = [_store_on_shelf(store, how) for store in stores]
            stores.append(SHELF.keep(path, partial(open_store, path, how)) if shelved else open_store(path, how))
        except ContraSimError as problem:
            problems.append(problem)
    if problems:
        close_stores(stores)
    raise_all(_remedies_once(problems))
    return stores


def _remedies_once(problems: Sequence[ContraSimError]) -> list[ContraSimError]:
    """The problems; a file that is unclear in the same way as an earlier one does not repeat the readings."""
    shown: dict[str, UnclearError] = {}
    found: list[ContraSimError] = []
    for problem in problems:
        if isinstance(problem, UnclearError) and problem is not shown.setdefault(problem.remedy, problem):
            found.append(InputError(f"{problem.briefly}; convert it likewise"))
        else:
            found.append(problem)
    return found


def _has_room() -> bool:
    """Whether another file can be open, if need be by a higher limit."""
    if not has_room():
        raise_limit()
    return has_room()


def _store_on_shelf(store: Store, how: Hints) -> Store:
    """A store that need not stay open in place of one that does."""
    store.close()
    return SHELF.keep(store.path, partial(open_store, store.path, how), known=True)


def close_stores(stores: Sequence[Store]) -> None:
    """Close the files of the stores."""
    for store in stores:
        store.close()


def open_store(path: Path, how: Hints = PLAIN) -> Store:
    """Open one store: our own layout, or one of those that `foreign`, `neurox` and `thingsvision` read.

    `how` says what somebody else's file does not: what its axes, keys and values are.

    Raises:
        UsageError: it says something that cannot be, or of a file that needs nothing said.
        InputError: the file is missing, of another kind, unfinished, damaged, or leads outside itself.
        MissingError: the extra that a kind of file needs is not there.
    """
    how.check()
    folder = path.parent if path.name == sharded.INDEX else path
    if os.path.isdir(folder) and sharded.is_sharded(folder):
        return _as_it_is(sharded.read_sharded(folder, open_part), how)
    if os.path.isdir(path) and thingsvision.feature_files(path):
        return _as_it_is(thingsvision.read_thingsvision(path, arrays_of), how)
    if os.path.isdir(path) and (content := folder_content(path, how.budget)) is not None:
        return as_store.store_of(path, content, how)
    return one_version(path, lambda file: _store(file, how), lambda store: store.close())


def open_part(path: Path) -> Store:
    """Open a part of a sharded store, whose seal says that it is what was written, so that its ids need not be read.

    Raises:
        InputError: it is missing, damaged, or no store of ours that is sealed.
    """
    return one_version(path, _part, lambda store: store.close())


def _part(file: Snapshot) -> Store:
    with readable(file.path):
        sealed = seal.holds(file.name)
    if not sealed:
        raise InputError(
            f"{quoted(file.path)}: is not part of a sharded store, or its seal does not hold; the file is damaged, copy or extract "
            "it again"
        )
    opened = hdf5.open_file(file)
    with _closed_on_error(file.path, opened):
        return format.read_store(file.path, opened, known=True)


def _as_it_is(store: Store, how: Hints) -> Store:
    """A store whose kind says all there is to say.

    Raises:
        UsageError: more was said.
    """
    if how.says is not None:
        store.close()
        raise UsageError(
            f"{how.says} is for files that do not say so themselves; {quoted(store.path)} is a {store.kind}"
        )
    return store


def _store(file: Snapshot, how: Hints) -> Store:
    if _is_hdf5(file):
        return _checked(file, lambda: _read_hdf5(file, how))
    return as_store.store_of(file.path, content_of(file, how.budget), how)


def arrays_of(path: Path) -> tuple[Mapping[str, Array], Callable[[], None]]:
    """The arrays of a file, and how to close it."""
    content = one_version(path, _any_content, lambda content: content.close())
    return content.arrays, content.close


def _any_content(file: Snapshot) -> Content:
    return _checked(file, lambda: _plain_content(file)) if _is_hdf5(file) else content_of(file)


def _plain_content(file: Snapshot) -> Content:
    """Somebody's HDF5 file."""
    opened = hdf5.open_file(file)
    with _closed_on_error(file.path, opened):
        return hdf5_datasets.read_hdf5(file.path, opened, dict(hdf5.datasets(file.path, opened)))


def _is_hdf5(file: Snapshot) -> bool:
    """Whether the signature is there: at the beginning, or behind a user block of 512, 1024, … bytes."""
    stream, offset = file.reader(), 0
    with readable(file.path):
        while offset < min(file.size, 1 << 20):
            stream.seek(offset)
            if stream.read(len(HDF5_MAGIC)) == HDF5_MAGIC:
                return True
            offset = 2 * offset or 512
    return False


def _checked(file: Snapshot, read: Callable[[], Opened]) -> Opened:
    """What `read` makes of an HDF5 file once HDF5 is known to get on with it: by its seal, or by a child process that reads it."""

    def rehearsal() -> None:
        opened = read()
        if isinstance(opened, Store) and opened.ids is not None:
            opened.ids.digest  # noqa: B018  all ids are read

    with readable(file.path):
        sealed = seal.holds(file.name)
    if sealed is False:
        raise InputError(
            f"{quoted(file.path)}: its ids, names or attributes do not match its seal; the file is "
            "damaged, copy or extract it again"
        )
    if sealed is None:
        rehearse(file, rehearsal)
    return read()


def _read_hdf5(file: Snapshot, how: Hints) -> Store:
    path, opened = file.path, hdf5.open_file(file)
    with _closed_on_error(path, opened):
        if format.is_own(opened):
            return _as_it_is(format.read_store(path, opened), how)
        datasets = dict(hdf5.datasets(path, opened))
        if neurox.is_neurox(datasets):
            return _as_it_is(neurox.read_neurox(path, opened, datasets), how)
        return as_store.store_of(path, hdf5_datasets.read_hdf5(path, opened, datasets, how.budget), how)


@contextlib.contextmanager
def _closed_on_error(path: Path, file: h5py.File) -> Iterator[None]:
    try:
        yield
    except (ContraSimError, MemoryError):
        file.close()
        raise
    except Exception as error:  # h5py raises whatever it trips over in a damaged file
        file.close()
        raise InputError(f"{quoted(path)}: cannot be read as HDF5 ({reason(error)}); the file is damaged") from error
