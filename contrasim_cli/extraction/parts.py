"""Rows that are done, kept in `OUT.parts/` until all are: closed shard files, so that a stopped run can go on.

A shard holds some rows of every layer and appears by rename; the manifest says what its rows depend on.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, OutputError, OutputExistsError, UsageError
from contrasim_cli.files import atomic_output, quoted, write_atomic, writing

MANIFEST = "manifest.json"
LOCK = "lock"
OURS = re.compile(r"manifest\.json|lock|\d{6}\.npz|\..*\.tmp")

Rows = npt.NDArray[np.floating]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """The folder of a run's shards, of `shard_rows` rows each but the last."""

    folder: Path
    layers: tuple[str, ...]
    shard_rows: int

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"

    def has(self, index: int) -> bool:
        """Whether a shard is there; if so, it is complete."""
        return self._path(index).exists()

    def write(self, index: int, rows: Mapping[str, Rows], truncated: int) -> None:
        """Write one shard."""
        path = self._path(index)
        with atomic_output(path, force=True) as temporary, writing(path), temporary.open("wb") as stream:
            np.savez(stream, *(rows[name] for name in self.layers), np.array(truncated))

    def read(self, index: int) -> Iterator[tuple[str, Rows]]:
        """The layers of a shard and their rows, one after the other."""
        with self._opened(index) as archive:
            for place, name in enumerate(self.layers):
                yield name, archive[f"arr_{place}"]

    def truncated(self, index: int) -> int:
        """How many of a shard's rows were cut at the model's limit."""
        with self._opened(index) as archive:
            return int(archive[f"arr_{len(self.layers)}"])

    @contextlib.contextmanager
    def _opened(self, index: int) -> Iterator[Any]:
        path = self._path(index)
        try:
            with np.load(path, allow_pickle=False) as archive:
                yield archive
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{quoted(path)}: is damaged ({error}); delete it and give --resume to make it again"
            ) from error


def folder_of(output: Path) -> Path:
    """Where the shards of an output are kept."""
    return output.with_name(f"{output.name}.parts")


@contextlib.contextmanager
def opened(output: Path, layers: tuple[str, ...], shard_rows: int, config: Config, resume: bool) -> Iterator[Parts]:
    """The parts of an output, locked against a second run: new ones, or with `resume` those of the same configuration.

    Raises:
        UsageError: the parts to resume were made otherwise.
        OutputExistsError: something else is in the place of the parts.
        OutputError: another process is at work there, or it cannot be written.
    """
    folder = folder_of(output)
    _check_ours(folder)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    with _locked(folder):
        manifest = _read_manifest(folder) if resume else None
        if manifest is None:
            _empty(folder)
            manifest = {"config": dict(config), "shard_rows": shard_rows}
            write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1).encode(), force=True)
        elif manifest["config"] != json.loads(json.dumps(dict(config))):
            raise UsageError(
                f"{quoted(folder)}: --resume cannot go on, the rows there were made otherwise: "
                f"{difference(manifest['config'], config)}; give the same options, or leave out --resume to start again"
            )
        yield Parts(folder, layers, int(manifest["shard_rows"]))


def remove(output: Path) -> None:
    """Remove the parts of an output, if there are any of ours."""
    folder = folder_of(output)
    if folder.is_dir():
        _check_ours(folder)
        shutil.rmtree(folder, ignore_errors=True)


def difference(there: Config, now: Config) -> str:
    """The first setting in which two configurations differ, in words."""
    for name in dict.fromkeys((*now, *there)):
        old, new = there.get(name), now.get(name)
        if old != new:
            return f"{name.replace('_', ' ')} was {_short(old)} and is {_short(new)}"
    return "nothing"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}…"


def _check_ours(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink() or not all(OURS.fullmatch(entry.name) for entry in folder.iterdir()):
        raise OutputExistsError(
            f"{quoted(folder)}: is in the place of the finished rows, and is not from extract; move it away"
        )


def _empty(folder: Path) -> None:
    with writing(folder):
        for entry in folder.iterdir():
            if entry.name != LOCK:
                entry.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with writing(folder):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{quoted(folder)}: another process is writing this output; wait until it has finished"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the parts depend on; None where no shard can have been written yet."""
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{quoted(folder / MANIFEST)}: cannot be read ({error}); leave out --resume to start again"
        ) from error
    if not isinstance(content, dict) or not {"config", "shard_rows"} <= content.keys():
        raise InputError(f"{quoted(folder / MANIFEST)}: is no manifest; leave out --resume to start again")
    return content
