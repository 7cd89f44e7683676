"""Folders of files as stores: which of their files are read, and that these lie in the folder and stay what they were."""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.input_files import first_bytes, readable
from contrasim_cli.names import quoted
from contrasim_cli.store.content import Content
from contrasim_cli.store.store import Array, Ids

HUB = ("snapshots", "blobs")  # the hub's cache: files of a snapshot are links to blobs

State = tuple[int, ...]


def state(path: Path) -> State:
    """What changes when a file is replaced or written to."""
    with readable(path):
        return state_of(path.stat())


def state_of(status: os.stat_result) -> State:
    """The state of a file, of what the system says of it."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def members(folder: Path) -> list[Path]:
    """The files of a folder by name, without hidden ones, which systems and editors leave behind.

    Raises:
        InputError: a link leads out of the folder, or a file is none that can be read.
    """
    with readable(folder):
        names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if not entry.name.startswith(".") and not os.path.isdir(entry.path)
        )
    return [member(folder, name) for name in names]


def member(folder: Path, name: str, shown: Path | None = None) -> Path:
    """A file by its name in a folder, or below it; `shown` is what messages call the folder.

    Raises:
        InputError: the name or a link leads out of the folder, there is no such file, or it is not a regular file.
    """
    path, where = folder / name, quoted(shown or folder)
    try:
        inside = _is_inside(folder, path)
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # of names with NUL, and of links in a circle
        why = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"{where}: {quoted(name)} cannot be read: {why or 'it is not the name of a file'}") from error
    if not inside:
        raise InputError(f"{where}: {quoted(name)} leads out of the folder; only files inside it are read")
    if not stat.S_ISREG(mode):
        raise InputError(f"{where}: {quoted(name)} cannot be read: it is not a regular file")
    return path


def _is_inside(folder: Path, path: Path) -> bool:
    root, target = folder.resolve(strict=True), path.resolve(strict=True)
    return target.is_relative_to(root) or any(target.is_relative_to(blobs) for blobs in _hub_blobs(root))


def _hub_blobs(root: Path) -> list[Path]:
    snapshots, blobs = HUB
    return [parent.with_name(blobs) for parent in (root, *root.parents) if parent.name == snapshots]


@dataclass(frozen=True)
class Watched:
    """An array that is read from a file, and only as long as that is the file that was opened."""

    array: Any
    path: Path
    state: State

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Rows that are best read together."""
        chunks: tuple[int, ...] | None = getattr(self.array, "chunks", None)
        return chunks

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        """Some of it, read now and not when it is used."""
        block = np.array(self.array[index])
        check_state(self.path, self.state)
        return block


def check_state(path: Path, before: State, now: State | None = None) -> None:
    """Refuse a file that has changed; `now` is what it is, by default at its path.

    Raises:
        InputError: it is another than it was.
    """
    if (state(path) if now is None else now) != before:
        raise InputError(
            f"{quoted(path)}: has changed while it was read; wait until it has been written, and start again"
        )


KINDS = ((b"\x93NUMPY", b"\x1f\x8b"), (b"PK\x03\x04",))  # of the first that is there, all files are read
SUFFIXES = (".gz", ".npy", ".pt", ".pth", ".npz")

Read = Callable[[Path], Content]


def array_files(folder: Path) -> list[Path]:
    """The files with arrays, of which there are none in other folders."""
    starts = {path: first_bytes(path) for path in members(folder)}
    kinds = ([path for path, start in starts.items() if start.startswith(kind)] for kind in KINDS)
    return next((files for files in kinds if files), [])


def read_folder(folder: Path, files: Iterable[Path], read: Read) -> Content:
    """The arrays of the files, each by the name of its file.

    Raises:
        InputError: a file cannot be read, or holds more than an array, or two have the same name.
    """
    arrays: dict[str, Array] = {}
    texts: dict[str, Ids] = {}
    passed: dict[str, str] = {}
    paths = list(files)
    for path in paths:
        before = state(path)
        name, content = _name(path), read(path)
        check_state(path, before)
        if len(content.arrays) + len(content.texts) + len(content.passed) > 1:
            raise InputError(
                f"{quoted(folder)}: {quoted(path.name)} holds several arrays, so that it is a store by itself; give the file"
            )
        if name in {*arrays, *texts, *passed}:
            raise InputError(f"{quoted(folder)}: two files are named {quoted(name)}; keep one of them")
        for array in content.arrays.values():
            arrays[name] = Watched(array, path, before)
        for ids in content.texts.values():
            texts[name] = ids
        for why in content.passed.values():
            passed[name] = why
    return Content("folder of arrays", arrays, texts=texts, passed=passed | _others(folder, paths), files=tuple(paths))


def _name(path: Path) -> str:
    """The name of a file without the suffixes of its kind; others may be part of a layer's name (`conv.1.npy`)."""
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return quoted(name or path.name)


def _others(folder: Path, paths: list[Path]) -> dict[str, str]:
    return {path.name: "a file of another kind" for path in members(folder) if path not in paths}
