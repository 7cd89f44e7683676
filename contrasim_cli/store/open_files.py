"""More stores than files may be open at once: those that were not read for the longest are closed, and opened again when needed.

Where all of them may be open, they are, and nothing here is between a store and its files.
"""

import contextlib
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import ATTEMPTS, identity_of
from contrasim_cli.store.child_process import trusted
from contrasim_cli.store.format import CONTENT
from contrasim_cli.store.store import Ids, Layer, Store

USED = 0.6  # of the descriptors that a process may have; others need some too
Identities = dict[Path, tuple[int, ...]]


@dataclass(eq=False)
class Kept:
    """A store that can be opened again, as long as its files are what they were."""

    path: Path
    read: Callable[[], Store]
    store: Store | None = None
    identities: Identities = field(default_factory=dict)

    def close(self) -> None:
        """Close its files, if they are open."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def open_again(self) -> None:
        """Open its files.

        Raises:
            InputError: they are not what they were.
        """
        with trusted(), _quiet():
            store = self.read()
        if _identities(self.identities) != self.identities:
            store.close()
            raise InputError(
                f"{quoted(self.path)}: was replaced while it was read; run again, and do not change stores meanwhile"
            )
        self.store = store


@dataclass
class Shelf:
    """Stores that are open, in the order in which they were read last."""

    stores: list[Kept] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def keep(self, path: Path, read: Callable[[], Store], known: bool = False) -> Store:
        """A store whose files may be closed while they are not read; of one that is known no more is said.

        Raises:
            InputError: it cannot be opened, or is replaced again and again meanwhile.
        """
        with self.lock:
            self._make_room()
            before = descriptors()
            entry = _opened(path, read, known)
            store = entry.store
            assert store is not None
            if descriptors() == before:  # it is mapped or in memory, and needs none
                return store
            self.stores.append(entry)
        layers = {
            name: replace(
                layer, array=_Shelved(self, entry, name, tuple(layer.array.shape), layer.dtype, _attrs(layer))
            )
            for name, layer in store.layers.items()
        }
        return replace(store, layers=layers, ids=self._ids(entry, store.ids), close=lambda: self.remove(entry))

    def _ids(self, entry: Kept, ids: Ids | None) -> Ids | None:
        def read(start: int, stop: int) -> list[str]:
            with self.opened(entry) as store:
                return store.ids.read(start, stop) if store.ids else []

        return None if ids is None else replace(ids, read=read)

    @contextlib.contextmanager
    def opened(self, entry: Kept) -> Iterator[Store]:
        """The store, which stays open until others need its descriptors; no other is read meanwhile."""
        with self.lock:
            if entry.store is None:
                self._make_room()
                entry.open_again()
            if entry in self.stores:
                self.stores.remove(entry)
            self.stores.append(entry)
            assert entry.store is not None
            yield entry.store

    def remove(self, entry: Kept) -> None:
        """Close a store for good."""
        with self.lock:
            if entry in self.stores:
                self.stores.remove(entry)
            entry.close()

    def _make_room(self) -> None:
        while self.stores and not has_room():
            self.stores.pop(0).close()


@dataclass(frozen=True, eq=False)
class _Shelved:
    """A layer of a store on the shelf."""

    shelf: Shelf
    entry: Kept
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, str]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of it, which needs no file any more."""
        with self.shelf.opened(self.entry) as store:
            return np.array(store.layers[self.name].array[key])


SHELF = Shelf()


def _attrs(layer: Layer) -> dict[str, str]:
    """The digest of a layer's values, where a store of our own has it: what is asked for while its file is closed."""
    digest = getattr(layer.array, "attrs", {}).get(CONTENT)
    return {CONTENT: digest} if isinstance(digest, str) else {}


def has_room() -> bool:
    """Whether another store can be opened, so that enough descriptors are left for what else needs them."""
    n_open = descriptors()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return n_open is None or most == resource.RLIM_INFINITY or n_open < USED * most


def raise_limit() -> None:
    """Allow this process as many descriptors as it may allow itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # some systems have a lower limit than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptors() -> int | None:
    """How many are open; None where the system does not tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder)) - 1  # without that of the folder
    return None


def _opened(path: Path, read: Callable[[], Store], known: bool) -> Kept:
    files = [path]
    for attempt in range(ATTEMPTS):
        with contextlib.ExitStack() as stack:
            if known or attempt:
                stack.enter_context(_quiet())
            before = _identities(files)
            store = read()
        files = [path, *store.files]
        if _identities(files) == before:
            return Kept(path, read, store, before)
        store.close()
    raise InputError(f"{quoted(path)}: keeps being replaced while it is opened; wait until it has been written")


def _identities(files: Iterable[Path]) -> Identities:
    return {file: identity_of(file) for file in files}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing, in this thread, of what has been said before."""
    thread = threading.get_ident()

    def is_other(record: logging.LogRecord) -> bool:
        return record.thread != thread

    handlers = logging.getLogger("contrasim_cli").handlers[:]
    for handler in handlers:
        handler.addFilter(is_other)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_other)
