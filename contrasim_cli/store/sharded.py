"""A sharded store: a folder of stores of our own, which together are one, and `store.json`, which says what they are.

Its rows are those of the parts, in the order in which the index lists them. The index holds the digests of every part, so that one
that was lost, replaced or swapped is known without reading rows; parts are opened when they are first read.

store.json      format "contrasim-sharded-store", format_version, rows, attrs, provenance; layers [name, width, dtype]; ids
                automatic, source, digest, repeated; parts [file, rows, bytes, digest, content]; digest of all this
part-00000-of-00064.h5, …    stores, each of them whole, sealed, and readable alone
"""

import hashlib
import json
import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.array_views import Joined
from contrasim_cli.store.folders import member
from contrasim_cli.store.format import CONTENT, FLOATS, chunk_rows
from contrasim_cli.store.open_files import has_room, raise_limit
from contrasim_cli.store.store import Ids, KnownIds, Layer, Store

INDEX = "store.json"
FORMAT = "contrasim-sharded-store"
FORMAT_VERSION = 1
KIND = "sharded store"
MAX_INDEX = 1 << 30  # bytes
MOST_OPEN = 64  # parts of a store
MAX_ROWS = 1 << 62
NAME = re.compile(r"part-([0-9]{5})-of-([0-9]{5})\.h5")
SHOWN = 10

Read = Callable[[Path], Store]


@dataclass(frozen=True)
class Part:
    """One of the files: its rows and bytes, the digest that its own attribute has, and those of its layers' values."""

    file: str
    rows: int
    bytes: int
    digest: str
    content: Mapping[str, str]


@dataclass(frozen=True)
class Index:
    """What `store.json` says; `layers` are names, widths and types, `ids` what `Ids` has of all rows."""

    rows: int
    layers: Sequence[tuple[str, int, str]]
    ids: Mapping[str, Any]
    parts: Sequence[Part]
    attrs: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """One digest of all of it, and so of all values."""
        return hashlib.sha256(json.dumps(self._content, sort_keys=True).encode()).hexdigest()

    @property
    def _content(self) -> dict[str, Any]:
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}

    def text(self) -> str:
        """The file."""
        return json.dumps({**self._content, "digest": self.digest}, indent=1) + "\n"

    @classmethod
    def parsed(cls, path: Path, content: bytes) -> "Index":
        """The index that a file holds.

        Raises:
            InputError: it is of another version, damaged, or was changed by hand.
        """
        try:
            table = json.loads(content)
            known, version = table.pop("format") == FORMAT, table.pop("format_version")
            digest = table.pop("digest")
            if known and version == FORMAT_VERSION:
                parts = [Part(**part) for part in table.pop("parts")]
                layers = [(name, width, dtype) for name, width, dtype in table.pop("layers")]
                found = cls(layers=layers, parts=parts, **table)
                if found.digest == digest and not found._is_wrong():
                    return found
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{quoted(path)}: is not the index of a sharded store; the file is damaged") from error
        if known and version != FORMAT_VERSION:
            raise InputError(
                f"{quoted(path)}: format_version is {version}, this contrasim reads {FORMAT_VERSION}; install a newer one"
            )
        raise InputError(
            f"{quoted(path)}: does not match its digest; the file is damaged or was changed by hand (delete it, and give "
            "the command that made a part once more with --resume, which writes it again)"
        )

    def _is_wrong(self) -> bool:
        """Whether what it says cannot be, which nobody could have written who wrote its digest."""
        numbers = [self.rows, *(part.rows for part in self.parts), *(part.bytes for part in self.parts)]
        widths = [width for _, width, _ in self.layers]
        files, names = [part.file for part in self.parts], [name for name, _, _ in self.layers]
        texts = [text for part in self.parts for text in (part.digest, *part.content.values())]
        return (
            not self.parts
            or not self.layers
            or not all(type(number) is int and 0 < number < MAX_ROWS for number in [*numbers, *widths])
            or self.rows != sum(part.rows for part in self.parts)
            or not {dtype for _, _, dtype in self.layers} <= set(FLOATS)
            or not all(isinstance(text, str) for text in [*texts, *files, *names, *self.attrs.values()])
            or len(set(files)) < len(files)
            or len(set(names)) < len(names)
            or not isinstance(self.provenance, dict)
            or self._are_ids_wrong()
        )

    def _are_ids_wrong(self) -> bool:
        automatic, source, repeated = (self.ids[name] for name in ("automatic", "source", "repeated"))
        return (
            not isinstance(automatic, bool)
            or not isinstance(self.ids["digest"], str)
            or not (source is None or isinstance(source, str))
            or not (repeated is None or _are_two_rows(repeated, self.rows))
        )


def _are_two_rows(found: Any, count: int) -> bool:
    return (
        isinstance(found, (list, tuple))
        and len(found) == 2
        and all(type(row) is int for row in found)
        and 0 <= found[0] < found[1] < count
    )


def is_sharded(folder: Path) -> bool:
    """Whether a folder is a sharded store, or becomes one."""
    with readable(folder):
        names = os.listdir(folder)
    if any(map(NAME.fullmatch, names)):
        return True
    path = folder / INDEX
    if not path.is_file():
        return False
    with readable(path), path.open("rb") as stream:
        return FORMAT.encode() in stream.read(256)


def part_name(number: int, count: int) -> str:
    """The file of a part, counted from 0."""
    return f"part-{number:05d}-of-{count:05d}.h5"


def missing_parts(folder: Path, count: int) -> list[int]:
    """The numbers of the parts that are not there yet."""
    return [k for k in range(count) if not (folder / part_name(k, count)).is_file()]


def read_index(path: Path) -> Index:
    """What the index of a sharded store says.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    content = Snapshot(path).start(MAX_INDEX)
    return Index.parsed(path, content)


def read_sharded(folder: Path, open_part: Read) -> Store:
    """The store in such a folder; `open_part` opens a part, whose seal holds.

    Raises:
        InputError: the index is damaged, or a part is missing or has another size.
    """
    path = folder / INDEX
    if not path.exists():
        raise InputError(_unfinished(folder))
    index = read_index(path)
    parts = _Parts(folder, index, [_file(folder, part) for part in index.parts], open_part)
    layers = {
        name: Layer(
            name,
            Joined(
                [_PartLayer(parts, k, name, (part.rows, width), np.dtype(dtype)) for k, part in enumerate(index.parts)]
            ),
            chunk_rows(width, np.dtype(dtype), index.rows),
        )
        for name, width, dtype in index.layers
    }
    repeated = index.ids["repeated"]
    known = KnownIds(index.ids["digest"], (repeated[0], repeated[1]) if repeated else None)
    return Store(
        path=folder,
        kind=KIND,
        layers=layers,
        ids=Ids(index.rows, parts.ids, bool(index.ids["automatic"]), index.ids["source"] or None, known),
        attrs=index.attrs,
        provenance=index.provenance,
        digest=index.digest,
        files=[path, *parts.files],
        facts={"parts": str(len(index.parts))},
        close=parts.close,
    )


def _unfinished(folder: Path) -> str:
    """Why a folder of parts is no store yet."""
    numbers = [found for name in os.listdir(folder) if (found := NAME.fullmatch(name))]
    count = int(numbers[0][2])
    missing = missing_parts(folder, count)
    if missing:
        shown = ", ".join(map(str, missing[:SHOWN])) + (
            f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        )
        return f"{quoted(folder)}: of its {count} parts these are missing: {shown}; extract them (--shard I/{count})"
    return f"{quoted(folder)}: has no {INDEX}; give the command of one of its parts once more with --resume, which writes it"


def _file(folder: Path, part: Part) -> Path:
    if not os.path.lexists(folder / part.file):
        raise InputError(
            f"{quoted(folder)}: its part {quoted(part.file)} is missing; copy it there, or extract it again (--shard)"
        )
    path = member(folder, part.file)
    with readable(path):
        size = path.stat().st_size
    if size != part.bytes:
        raise _not_the_part(path, f"it has {size} bytes where the index says {part.bytes}")
    return path


def _not_the_part(path: Path, why: str) -> InputError:
    return InputError(
        f"{quoted(path)}: is not the part that {INDEX} lists ({why}); it was damaged, swapped or replaced: copy it again, or "
        "extract it again with --force"
    )


_LOCK = threading.RLock()  # of the parts of all stores; HDF5 reads for one thread at a time in any case
_USED: "WeakKeyDictionary[_Parts, None]" = (
    WeakKeyDictionary()
)  # stores of which parts were opened, in the order of their use


@dataclass(eq=False)
class _Parts:
    """The parts, of which those are open that were read last."""

    folder: Path
    index: Index
    files: Sequence[Path]
    open_part: Read
    _open: "OrderedDict[int, Store]" = field(default_factory=OrderedDict)

    @cached_property
    def starts(self) -> list[int]:
        """Where the rows of each part begin, and how many there are of all."""
        return [0, *accumulate(part.rows for part in self.index.parts)]

    def read(self, k: int, layer: str, rows: slice) -> npt.NDArray[Any]:
        """Some rows of a layer of part k."""
        with _LOCK:  # nobody closes it meanwhile
            return np.asarray(self._opened(k).layers[layer].array[rows])

    def ids(self, start: int, stop: int) -> list[str]:
        """Names of rows of the whole."""
        found: list[str] = []
        k = bisect_right(self.starts, start) - 1
        while start < stop:
            last = min(stop, self.starts[k + 1])
            with _LOCK:
                names = self._opened(k).ids
                assert names is not None
                found += names.read(start - self.starts[k], last - self.starts[k])
            start, k = last, k + 1
        return found

    def close(self) -> None:
        """Close all of them."""
        with _LOCK:
            while self._open:
                self._open.popitem()[1].close()

    def _opened(self, k: int) -> Store:
        if k not in self._open:
            if not has_room():
                raise_limit()
            while self._open and (len(self._open) >= MOST_OPEN or not has_room()):
                self._close_one()
            self._close_others()
            self._open[k] = self._checked(k)
        self._open.move_to_end(k)
        _USED.pop(self, None)
        _USED[self] = None
        return self._open[k]

    def _close_one(self) -> None:
        self._open.popitem(last=False)[1].close()

    def _close_others(self) -> None:
        """Close parts of the stores that were read first, where otherwise none could be opened."""
        for other in list(_USED):
            while other._open and not has_room():
                other._close_one()

    def _checked(self, k: int) -> Store:
        path, part = self.files[k], self.index.parts[k]
        store = self.open_part(path)
        try:
            why = _difference(store, part, self.index.layers)
            if why:
                raise _not_the_part(path, why)
        except BaseException:
            store.close()
            raise
        return store


def _difference(store: Store, part: Part, layers: Sequence[tuple[str, int, str]]) -> str | None:
    """In what a file is not the part that the index lists; None: in nothing."""
    if store.digest != part.digest:
        return "its digest is another"
    if store.ids is None or store.n_rows != part.rows:
        return f"it has {store.n_rows} rows where the index says {part.rows}"
    if [(layer.name, layer.width, layer.dtype.name) for layer in store.layers.values()] != list(layers):
        return "its layers are others"
    if contents(store) != dict(part.content):
        return "its values are others"
    return None


def contents(store: Store) -> dict[str, str]:
    """The digests of its layers' values that a store of our own has; empty where it has none."""
    found = {name: getattr(layer.array, "attrs", {}).get(CONTENT) for name, layer in store.layers.items()}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}


@dataclass(frozen=True, eq=False)
class _PartLayer:
    """A layer of one part."""

    parts: _Parts
    part: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Some of its rows."""
        return self.parts.read(self.part, self.name, rows)
