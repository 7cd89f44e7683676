"""Rows that are done, kept in `OUT.parts/` until all are: closed shard files, so that a stopped run can go on.

A shard holds some rows of every layer and appears by rename; the manifest says what its rows depend on. What is done of a
shard that is not finished lies in one file beside them, which appears in the same way.
"""

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import locks
from contrasim_cli.errors import ContraSimError, InputError, OutputError, OutputExistsError, UsageError, reason
from contrasim_cli.names import quoted
from contrasim_cli.output_files import atomic_output, write_atomic, writing

MANIFEST = "manifest.json"
LOCK = "lock"
BEGUN = "begun.npz"
SHARD = re.compile(r"\d{12}-\d{12}\.npz")
OURS = re.compile(rf"manifest\.json|lock|begun\.npz|{SHARD.pattern}|\..*\.tmp")

Rows = npt.NDArray[np.floating]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Shard:
    """What a shard says of its items, those from `first` to before `stop` of the source, beside their rows.

    `units` are the names of each item's rows, or None where each has one row; `cut` are the positions of the items that
    were cut at the model's limit, and `bad` those that could not be read and have no rows, each with the reason. `tokens` is how
    many of the rows' tokens the tokenizer does not know, and how many there are; None where nobody counted.
    """

    first: int
    stop: int
    units: Sequence[Sequence[str]] | None = None
    cut: Sequence[int] = ()
    bad: Sequence[tuple[int, str]] = ()
    tokens: Sequence[int] | None = None

    def counts(self) -> list[int]:
        """Rows of each item."""
        bad = {position for position, _ in self.bad}
        counts = [1] * (self.stop - self.first) if self.units is None else list(map(len, self.units))
        return [0 if position in bad else count for position, count in enumerate(counts, self.first)]

    def row_ids(self, items: Iterable[str]) -> Iterator[str]:
        """The ids of the rows of items with these ids."""
        for place, (item, count) in enumerate(zip(items, self.counts(), strict=True)):
            if count and self.units is None:
                yield item
            elif count and self.units is not None:
                yield from (f"{item}:{unit}" for unit in self.units[place])


@dataclass(frozen=True)
class Sizes:
    """How the items of a run are cut: blocks are prepared together, and shards, within them, hold so many rows at most.

    Rows are batched within a shard, so that these numbers have a part in the last digits of the values.
    """

    block_items: int
    shard_rows: int


@dataclass(frozen=True)
class Parts:
    """The folder of a run's shards."""

    folder: Path
    layers: tuple[str, ...]
    sizes: Sizes

    def _path(self, first: int, stop: int) -> Path:
        return self.folder / f"{first:012d}-{stop:012d}.npz"

    def done(self) -> dict[int, int]:
        """The first item of every shard that is there, and the one behind its last; what is there is complete."""
        names = sorted(path.stem for path in self.folder.iterdir() if SHARD.fullmatch(path.name))
        return {int(first): int(stop) for first, stop in (name.split("-") for name in names)}

    def holds_rows(self) -> bool:
        """Whether a stopped run has left rows."""
        return bool(self.done()) or (self.folder / BEGUN).exists()

    def size(self) -> int:
        """Bytes of the shards that are there."""
        return sum(self._path(first, stop).stat().st_size for first, stop in self.done().items())

    def write(self, shard: Shard, rows: Mapping[str, Rows]) -> None:
        """Write one shard."""
        path = self._path(shard.first, shard.stop)
        about = np.frombuffer(json.dumps(asdict(shard)).encode(), np.uint8)
        with atomic_output(path, force=True) as temporary, writing(path), temporary.open("wb") as stream:
            np.savez(stream, *(rows[name] for name in self.layers), about)
        (self.folder / BEGUN).unlink(missing_ok=True)

    def keep(self, shard: Shard, rows: Mapping[str, Rows], made: npt.NDArray[np.bool_]) -> None:
        """Write what there is of a shard: its rows, of which those of some items [items] are made."""
        path = self.folder / BEGUN
        about = np.frombuffer(json.dumps([shard.first, shard.stop]).encode(), np.uint8)
        with atomic_output(path, force=True) as temporary, writing(path), temporary.open("wb") as stream:
            np.savez(stream, *(rows[name] for name in self.layers), made, about)

    def kept(self, shard: Shard, like: Mapping[str, Rows]) -> tuple[dict[str, Rows], npt.NDArray[np.bool_]] | None:
        """The rows, shaped as those of the shard are, that were kept of it, and which of its items they are of; None of none."""
        path, count = self.folder / BEGUN, len(self.layers)
        if not path.exists():
            return None
        with _opened(path) as archive:
            if json.loads(archive[f"arr_{count + 1}"].tobytes()) != [shard.first, shard.stop]:
                return None
            rows, made = {name: archive[f"arr_{k}"] for k, name in enumerate(self.layers)}, archive[f"arr_{count}"]
            of_layers = all((x.shape, x.dtype) == (like[name].shape, like[name].dtype) for name, x in rows.items())
            if not of_layers or (made.shape, made.dtype) != ((shard.stop - shard.first,), bool):
                raise ValueError("it holds other rows than it says")
            return rows, made

    def read(self, first: int, stop: int) -> Iterator[tuple[str, Rows]]:
        """The layers of a shard and their rows, one after the other."""
        with _opened(self._path(first, stop)) as archive:
            for place, name in enumerate(self.layers):
                yield name, archive[f"arr_{place}"]

    def about(self, first: int, stop: int) -> Shard:
        """What a shard says of its items."""
        with _opened(self._path(first, stop)) as archive:
            return Shard(**json.loads(archive[f"arr_{len(self.layers)}"].tobytes()))

    def remove(self) -> None:
        """Remove all of it, while it is locked."""
        _remove(self.folder)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except ContraSimError:
        raise
    except Exception as error:  # zipfile, NumPy and json raise whatever they trip over
        raise InputError(
            f"{quoted(path)}: is damaged ({reason(error)}); delete it and give --resume to make it again"
        ) from error


def folder_of(output: Path) -> Path:
    """Where the shards of an output are kept."""
    return output.with_name(f"{output.name}.parts")


@contextlib.contextmanager
def opened(
    output: Path, layers: tuple[str, ...], sizes: Sizes, config: Config, resume: bool, force: bool = False
) -> Iterator[Parts]:
    """The parts of an output, locked against a second run: new ones, or with `resume` those of the same configuration.

    They outlive an error only if one of them is done, and a run that was stopped always.

    Raises:
        UsageError: the parts to resume were made otherwise.
        OutputExistsError: something else is in the place of the parts, or rows of a stopped run, and nothing says what becomes
            of them.
        OutputError: another process is at work there, or it cannot be written.
    """
    folder = folder_of(output)
    _check_ours(folder)
    with _locked(folder):
        manifest = _read_manifest(folder) if resume else None
        if manifest is None:
            _check_stopped(Parts(folder, layers, sizes), resume or force)
            _empty(folder)
            manifest = {"config": dict(config), "sizes": asdict(sizes)}
            write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1).encode(), force=True)
        elif manifest["config"] != json.loads(json.dumps(dict(config))):
            raise UsageError(
                f"{quoted(folder)}: --resume cannot continue, as its rows were made with other options: "
                f"{difference(manifest['config'], config)}; give the same options, or leave out --resume and give --force to "
                "start again"
            )
        found = Parts(folder, layers, Sizes(**manifest["sizes"]))
        try:
            yield found
        except Exception:
            with contextlib.suppress(OSError, OutputError):
                if not found.holds_rows():
                    found.remove()
            raise


def _check_stopped(there: Parts, may_go: bool) -> None:
    if there.holds_rows() and not may_go:
        raise OutputExistsError(
            f"{quoted(there.folder)}: holds rows of a run that was stopped; give --resume to go on with them, or --force to "
            "start over"
        )


def remove(output: Path) -> None:
    """Remove the parts of an output, if there are any of ours that no other process is at work on."""
    folder = folder_of(output)
    if folder.is_dir():
        _check_ours(folder)
        with contextlib.suppress(OSError, OutputError), _locked(folder):
            _remove(folder)


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
    try:
        ours = stat.S_ISDIR(folder.lstat().st_mode) and all(map(OURS.fullmatch, os.listdir(folder)))
    except FileNotFoundError:
        return
    if not ours:
        raise OutputExistsError(
            f"{quoted(folder)}: stands where finished rows go, and was not written by extract; move it away"
        )


def _empty(folder: Path) -> None:
    with writing(folder):
        for entry in folder.iterdir():
            if entry.name != LOCK:
                entry.unlink()


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held: the lock last, so that whoever takes it next finds nothing else there."""
    _empty(folder)
    with contextlib.suppress(OSError):
        (folder / LOCK).unlink()
        folder.rmdir()  # unless somebody has taken a new lock there


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be, and again where another process is just removing it."""
    with writing(folder):
        descriptor = _lock(folder)
    if descriptor is None:
        raise OutputError(f"{quoted(folder)}: another process is writing this output; wait until it has finished")
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int | None:
    for _ in range(locks.ATTEMPTS):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        with contextlib.suppress(FileNotFoundError):
            return locks.take(folder / LOCK)
    raise OSError(errno.EBUSY, "it goes away again and again")


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the parts depend on; None where no shard can have been written yet."""
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{quoted(folder / MANIFEST)}: cannot be read ({error}); leave out --resume and give --force to start again"
        ) from error
    if not isinstance(content, dict) or not {"config", "sizes"} <= content.keys():
        raise InputError(
            f"{quoted(folder / MANIFEST)}: is not a manifest; leave out --resume and give --force to start again"
        )
    return content
