"""A folder with an array per file, `.npy`, `.npy.gz` or `.pt`: each file is named for its layer."""

from collections.abc import Callable, Iterable
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.input_files import first_bytes
from contrasim_cli.names import quoted
from contrasim_cli.store.content import Content
from contrasim_cli.store.folders import Watched, check_state, members, state
from contrasim_cli.store.store import Array, Ids

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
    kept = list(files)
    for path in kept:
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
    return Content("folder of arrays", arrays, texts=texts, passed=passed | _others(folder, kept), files=tuple(kept))


def _name(path: Path) -> str:
    """The name of a file without the suffixes of its kind; others may be part of a layer's name (`conv.1.npy`)."""
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return quoted(name or path.name)


def _others(folder: Path, kept: list[Path]) -> dict[str, str]:
    return {path.name: "a file of another kind" for path in members(folder) if path not in kept}
