"""Writing a store in contrasim's own layout, see `format`: it is there as a whole or not at all."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contrasim_cli import signals
from contrasim_cli.errors import InputError, OutputError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import atomic_output, writing
from contrasim_cli.store import seal
from contrasim_cli.store.format import (
    CONTENT,
    FLOATS,
    FORMAT,
    FORMAT_VERSION,
    PROVENANCE_DIGEST,
    chunk_rows,
    metadata_digest,
)
from contrasim_cli.store.hdf5_chunks import each_chunk
from contrasim_cli.store.hdf5_sink import Sink
from contrasim_cli.version import __version__

IDS_CHUNK = 4096


@dataclass(frozen=True)
class LayerSpec:
    """A layer to be written."""

    name: str
    width: int
    dtype: str = "float32"


class ContentDigest:
    """Digest of a layer's values, as they are stored, in the order of their rows; made while they are written in that order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._next = 0
        self._in_order = True

    def add(self, start: int, stored: npt.NDArray[Any]) -> None:
        """Take note of rows [k, width] at a position."""
        self._in_order &= start == self._next
        if self._in_order:
            self._update(stored)

    def of(self, dataset: h5py.Dataset) -> str:
        """The digest of all rows, which are read again where they were not written in order."""
        if not self._in_order:
            self._digest, self._next = hashlib.sha256(), 0
            for start in range(0, len(dataset), dataset.chunks[0]):
                self._update(dataset[start : start + dataset.chunks[0]])
        return self._digest.hexdigest()

    def _update(self, stored: npt.NDArray[Any]) -> None:
        self._digest.update(np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).data)
        self._next += len(stored)


@dataclass
class StoreWriter:
    """Writes a store that is whole or absent; a context manager.

    Rows may be written in any order and in blocks of any size; leaving the block before every row of every layer is
    written is an error, and nothing appears at `path`.

    Raises:
        OutputExistsError, OutputError: the file exists, or cannot be written.
        InputError: a value is NaN or Inf, or does not fit the layer's type.
    """

    path: Path
    layers: Sequence[LayerSpec]
    n_rows: int
    ids: Iterable[str]
    attrs: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    ids_automatic: bool = False
    ids_source: str | None = None
    force: bool = False

    def __enter__(self) -> "StoreWriter":
        self._check()
        self._stack = contextlib.ExitStack()
        try:
            self._open()
        except BaseException as problem:
            self._stack.__exit__(type(problem), problem, problem.__traceback__)
            raise
        return self

    def _check(self) -> None:
        for spec in self.layers:
            _check_spec(spec)
        names = [spec.name for spec in self.layers]
        repeated = next((name for name, count in Counter(names).items() if count > 1), None)
        if repeated is not None:
            raise InputError(f"layer name {quoted(repeated)} is given to more than one layer; names must be unique")
        if not names or self.n_rows < 1:
            raise InputError(f"{quoted(self.path)}: nothing to store: {len(names)} layers of {self.n_rows} rows")

    def _open(self) -> None:
        self._temporary = temporary = self._stack.enter_context(atomic_output(self.path, self.force))
        with writing(self.path), signals.deferred():
            self._sink = self._stack.enter_context(Sink(temporary))
            self._file = self._stack.enter_context(contextlib.closing(h5py.File(self._sink, "w")))
            self._missing = {spec.name: self.n_rows for spec in self.layers}
            self._contents: dict[str, ContentDigest] = {}
            for index, spec in enumerate(self.layers):
                self._create_layer(index, spec)
            self._write_metadata()
            self._sink.check()

    def _create_layer(self, index: int, spec: LayerSpec) -> None:
        rows = chunk_rows(spec.width, np.dtype(spec.dtype), self.n_rows)
        dataset = self._file.create_dataset(
            f"layers/{spec.name}",
            shape=(self.n_rows, spec.width),
            dtype=spec.dtype,
            chunks=(rows, spec.width),
            fletcher32=True,
            fillvalue=np.nan,  # what a damaged index has lost is refused, and not taken for zeros
        )
        dataset.attrs["index"] = index
        self._contents[spec.name] = ContentDigest()

    def _write_metadata(self) -> None:
        attrs = {name: quoted(value) for name, value in self.attrs.items() if value}
        attrs.setdefault("created", datetime.now(timezone.utc).isoformat(timespec="seconds"))
        attrs["contrasim_version"] = __version__
        ids_digest = self._write_ids()
        text = h5py.string_dtype("utf-8")
        provenance = json.dumps(dict(self.provenance), sort_keys=True)
        self._file.create_dataset("provenance", data=provenance, dtype=text)
        attrs[PROVENANCE_DIGEST] = hashlib.sha256(provenance.encode()).hexdigest()
        for name, value in attrs.items():
            self._file.attrs[name] = value
        table = [(s.name, i, self.n_rows, s.width, np.dtype(s.dtype).name) for i, s in enumerate(self.layers)]
        self._file.attrs["format"] = FORMAT
        self._file.attrs["format_version"] = FORMAT_VERSION
        self._file.attrs["digest"] = metadata_digest(table, attrs, ids_digest, self.ids_automatic, self.ids_source)

    def _write_ids(self) -> str:
        text = h5py.string_dtype("utf-8")
        chunk = max(1, min(self.n_rows, IDS_CHUNK))
        dataset = self._file.create_dataset("ids", shape=(self.n_rows,), dtype=text, chunks=(chunk,))
        dataset.attrs["automatic"] = self.ids_automatic
        dataset.attrs["source"] = self.ids_source or ""
        everything, done = hashlib.sha256(), 0
        for block in _batches(self.ids, IDS_CHUNK):
            if done + len(block) > self.n_rows:
                raise OutputError(f"{quoted(self.path)}: more ids than the {self.n_rows} rows of the store")
            bad = next((k for k, name in enumerate(block) if not _storable(name)), None)
            if bad is not None:
                raise InputError(
                    f"the id of row {done + bad} ({quoted(block[bad])}) cannot be stored: it is not UTF-8 or holds NUL"
                )
            dataset[done : done + len(block)] = np.array(block, dtype=object)
            for name in block:
                everything.update(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest())
            done += len(block)
        if done != self.n_rows:
            raise OutputError(f"{quoted(self.path)}: {done} ids for {self.n_rows} rows")
        return everything.hexdigest()

    def write(self, layer: str, start: int, rows: npt.NDArray[Any]) -> None:
        """Write rows [k, width] at positions start … start + k - 1; each row once."""
        with signals.deferred():  # HDF5 also writes when a dataset is let go of, which is before this block ends
            self._write(layer, start, rows)
        self._missing[layer] -= len(rows)

    def _write(self, layer: str, start: int, rows: npt.NDArray[Any]) -> None:
        dataset = self._file["layers"][layer]
        with np.errstate(over="ignore"):
            stored = rows.astype(dataset.dtype, copy=False)
        _check_fits(self.path, layer, start, rows, stored)
        self._contents[layer].add(start, stored)
        with writing(self.path):
            try:
                dataset[start : start + len(rows)] = stored
            finally:
                self._sink.check()  # before what HDF5 says of it

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with signals.deferred():
            self._close(kind, error, trace)

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        try:
            missing = {name: rows for name, rows in self._missing.items() if rows}
            if missing:
                name, rows = next(iter(missing.items()))
                raise OutputError(
                    f"{quoted(self.path)}: layer {quoted(name)}: {rows} of {self.n_rows} rows were not written"
                )
            with writing(self.path):
                self._finish()
        except BaseException as problem:
            self._stack.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._stack.close()

    def _finish(self) -> None:
        for name, content in self._contents.items():
            dataset = self._file["layers"][name]
            dataset.attrs[CONTENT] = content.of(dataset)
        self._file.attrs["complete"] = True
        self._file.flush()
        places: list[tuple[int, int]] = []
        for spec in self.layers:
            each_chunk(self._file["layers"][spec.name], lambda chunk: places.append((chunk.byte_offset, chunk.size)))
        self._file.close()
        self._sink.check()
        seal.append(self._temporary, places)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_spec(spec: LayerSpec) -> None:
    if spec.name in {"", ".", ".."} or "/" in spec.name or not _storable(spec.name):
        raise InputError(
            f"layer name '{quoted(spec.name)}' cannot be stored: it is empty, not UTF-8, or holds a slash or NUL; rename it"
        )
    if spec.width < 1:
        raise InputError(f"layer {quoted(spec.name)}: has no columns")
    if spec.dtype not in FLOATS:
        raise InputError(
            f"layer {quoted(spec.name)}: type {spec.dtype} cannot be stored; float16, float32 or float64 can"
        )


def _storable(text: str) -> bool:
    """Whether HDF5 can hold the string: UTF-8 without NUL."""
    return "\0" not in text and text == text.encode("utf-8", "replace").decode()


def _check_fits(path: Path, layer: str, start: int, rows: npt.NDArray[Any], stored: npt.NDArray[Any]) -> None:
    bad = ~np.isfinite(stored)
    if not bad.any():
        return
    row, column = (int(index) for index in np.argwhere(bad)[0])
    value = rows[row, column]
    where = f"{quoted(path)}: layer {quoted(layer)}: row {start + row}, column {column}"
    if np.isfinite(value):
        raise InputError(
            f"{where}: {value:.6g} does not fit {stored.dtype}; store it as float32 (--store-dtype float32)"
        )
    raise InputError(f"{where}: the value is {value}; activations must be finite")
