"""contrasim's own layout of a store, version 1: HDF5, written by `extract`, by us and by anybody with h5py.

/               attributes format, format_version, complete, model, data, unit, pooling, created, contrasim_version, digest,
                provenance_digest
/layers/<name>  [n_rows, width] float16, float32 or float64; attribute index
/ids            [n_rows] variable-length UTF-8
/provenance     JSON text
behind the end  the seal, see `seal`
"""

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

from contrasim_cli import limits, signals
from contrasim_cli.errors import ContraSimError, InputError, OutputError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.output_files import atomic_output, writing
from contrasim_cli.store import seal
from contrasim_cli.store.chunks import each_chunk
from contrasim_cli.store.hdf5 import check_dataset, datasets, is_text, read_text, text_attrs
from contrasim_cli.store.sink import Sink
from contrasim_cli.store.store import Ids, Layer, Store
from contrasim_cli.version import __version__

FORMAT = "contrasim-activations"
FORMAT_VERSION = 1
CHUNK_BYTES = 1 << 20
IDS_CHUNK = 4096
ID_BYTES = 64  # of memory for each id while all of them are hashed, at most
PROVENANCE_DIGEST = "provenance_digest"
FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class LayerSpec:
    """A layer to be written."""

    name: str
    width: int
    dtype: str = "float32"


def metadata_digest(
    layers: Sequence[tuple[str, int, int, int, str]],
    attrs: Mapping[str, str],
    ids: str | None,
    automatic: bool,
    source: str | None,
) -> str:
    """Digest of what HDF5 has no checksum for: ids, layer table (name, index, rows, width, type) and attributes."""
    content = {
        "layers": sorted(layers),
        "attrs": dict(attrs),
        "ids": ids,
        "automatic": automatic,
        "source": source or "",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
            for index, spec in enumerate(self.layers):
                self._create_layer(index, spec)
            self._write_metadata()
            self._sink.check()

    def _create_layer(self, index: int, spec: LayerSpec) -> None:
        row_bytes = spec.width * np.dtype(spec.dtype).itemsize
        rows = max(1, min(self.n_rows, CHUNK_BYTES // max(row_bytes, 1)))
        dataset = self._file.create_dataset(
            f"layers/{spec.name}",
            shape=(self.n_rows, spec.width),
            dtype=spec.dtype,
            chunks=(rows, spec.width),
            fletcher32=True,
            fillvalue=np.nan,  # what a damaged index has lost is refused, and not taken for zeros
        )
        dataset.attrs["index"] = index

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
        for block in _batched(self.ids, IDS_CHUNK):
            if done + len(block) > self.n_rows:
                raise OutputError(f"{quoted(self.path)}: more ids than the {self.n_rows} rows of the store")
            bad = next((k for k, name in enumerate(block) if not _storable(name)), None)
            if bad is not None:
                raise InputError(
                    f"the id of row {done + bad} ({quoted(block[bad])}) cannot be stored: it is no UTF-8 or holds NUL"
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
        self._file.attrs["complete"] = True
        self._file.flush()
        places: list[tuple[int, int]] = []
        for spec in self.layers:
            each_chunk(self._file["layers"][spec.name], lambda chunk: places.append((chunk.byte_offset, chunk.size)))
        self._file.close()
        self._sink.check()
        seal.append(self._temporary, places)


def _batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
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
            f"layer name '{quoted(spec.name)}' cannot be stored: it is empty, no UTF-8, or holds a slash or NUL; rename it"
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


def is_own(file: h5py.File) -> bool:
    """Whether the file says that it is a contrasim store, or said so before its attribute `format` was damaged."""
    found = file.attrs.get("format")
    named = isinstance(found, (str, bytes)) and found in (FORMAT, FORMAT.encode())
    return named or {"format_version", "complete"} <= set(file.attrs)


def read_store(path: Path, file: h5py.File) -> Store:
    """The store in an HDF5 file of our own layout.

    Raises:
        InputError: another version, an unfinished or damaged file, or layers that disagree on rows.
    """
    where = quoted(path)
    text = text_attrs(path, file)
    if text.pop("format", None) != FORMAT:
        raise InputError(f"{where}: its attribute format is not {FORMAT}; the file is damaged")
    version = file.attrs.get("format_version")
    if not isinstance(version, (int, np.integer)) or version != FORMAT_VERSION:
        raise InputError(
            f"{where}: store format_version is {version}, this contrasim reads {FORMAT_VERSION}; install a newer one"
        )
    if not bool(file.attrs.get("complete", False)):
        raise InputError(f"{where}: the store is not complete: its writer was stopped; extract it again")
    found = dict(datasets(path, file))
    members = {name.removeprefix("layers/"): found[name] for name in found if name.startswith("layers/")}
    if not members:
        raise InputError(f"{where}: the store has no layers")
    layers = [_read_layer(path, name, dataset) for name, dataset in sorted(members.items(), key=_index)]
    raise_all(check_rows(path, layers))
    ids = read_ids(path, found["ids"], layers[0].n_rows) if "ids" in found else None
    digest = text.pop("digest", None)
    if digest is None and "contrasim_version" in text:
        raise InputError(f"{where}: the store has lost its digest; the file is damaged")
    said = text.pop(PROVENANCE_DIGEST, None)
    if said is not None and seal.is_cut(Path(file.filename)):
        raise InputError(f"{where}: the store has lost its seal; the file is damaged")
    store = Store(
        path=path,
        kind="contrasim store",
        layers={layer.name: layer for layer in layers},
        ids=ids,
        attrs=text,
        provenance=_read_provenance(path, found.get("provenance"), said),
        digest=digest,
        close=file.close,
    )
    if digest is not None:
        attrs = text if said is None else text | {PROVENANCE_DIGEST: said}
        _verify(store, attrs, [(name, _index((name, dataset))[0]) for name, dataset in members.items()])
    return store


def _index(item: tuple[str, h5py.Dataset]) -> tuple[int, str]:
    name, dataset = item
    index = dataset.attrs.get("index", 0)
    return (int(index) if isinstance(index, (int, np.integer)) else 0), name


def _read_layer(path: Path, name: str, dataset: h5py.Dataset) -> Layer:
    if dataset.ndim != 2 or dataset.dtype.kind != "f":
        raise InputError(
            f"{quoted(path)}: layer {quoted(name)} is {dataset.dtype} {dataset.shape}; a layer is a matrix [rows, width] of floats"
        )
    check_dataset(path, name, dataset)
    if "contrasim_version" in dataset.file.attrs and not dataset.fletcher32:
        raise InputError(f"{quoted(path)}: layer {quoted(name)} has lost its checksums; the file is damaged")
    return Layer(name, dataset, dataset.chunks[0] if dataset.chunks else 1)


def check_rows(path: Path, layers: Sequence[Layer]) -> list[ContraSimError]:
    """The problems of layers without columns, and of those that do not have the rows of the first."""
    first = layers[0]
    empty: list[ContraSimError] = [
        InputError(f"{quoted(path)}: layer {quoted(layer.name)} has no columns") for layer in layers if not layer.width
    ]
    return empty + [
        InputError(
            f"{quoted(path)}: layer {quoted(layer.name)} has {layer.n_rows} rows where {quoted(first.name)} has {first.n_rows}; "
            "every layer of a store has the same rows"
        )
        for layer in layers[1:]
        if layer.n_rows != first.n_rows
    ]


def read_ids(path: Path, dataset: h5py.Dataset, n_rows: int) -> Ids:
    """The ids that a one-dimensional text dataset holds.

    Raises:
        InputError: they are no text, or not as many as the rows.
    """
    if dataset.shape != (n_rows,) or not is_text(dataset):
        raise InputError(
            f"{quoted(path)}: ids are {dataset.dtype} {dataset.shape}; expected {n_rows} strings; store them as text"
        )
    limits.grow(held=ID_BYTES * n_rows)
    return text_ids(path, dataset)


def text_ids(path: Path, dataset: h5py.Dataset) -> Ids:
    """The same, however many they are."""
    check_dataset(path, dataset.name.lstrip("/"), dataset)
    source = text_attrs(path, dataset).get("source") or None
    automatic = bool(dataset.attrs.get("automatic", False))
    return Ids(int(dataset.shape[0]), lambda start, stop: read_text(path, dataset, start, stop), automatic, source)


def _read_provenance(path: Path, dataset: h5py.Dataset | None, digest: str | None) -> dict[str, Any]:
    """What /provenance says; stores have a digest of it since they have seals."""
    if dataset is None or dataset.shape != () or not is_text(dataset):
        if digest is not None:
            raise InputError(f"{quoted(path)}: the store has lost its /provenance; the file is damaged")
        return {}
    check_dataset(path, "provenance", dataset)
    try:
        told = dataset.asstr()[()]
        content = json.loads(told, parse_constant=lambda name: None)
    except (ValueError, OSError, RuntimeError, RecursionError) as error:
        raise InputError(f"{quoted(path)}: /provenance is no JSON; the file is damaged") from error
    if digest is not None and hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest() != digest:
        raise InputError(f"{quoted(path)}: /provenance does not match its digest; the file is damaged")
    return content if isinstance(content, dict) else {}


def _stored_type(dataset: Any) -> str:
    """The name of the type as it is in the file: h5py takes a damaged float for one of NumPy's all the same."""
    stored = dataset.id.get_type()
    return next((name for name in FLOATS if stored.equal(h5py.h5t.py_create(np.dtype(name)))), "damaged")


def _verify(store: Store, attrs: Mapping[str, str], order: Sequence[tuple[str, int]]) -> None:
    index = dict(order)
    table = [(n, index[n], layer.n_rows, layer.width, _stored_type(layer.array)) for n, layer in store.layers.items()]
    ids = store.ids
    found = metadata_digest(
        table, attrs, ids.digest if ids else None, ids.automatic if ids else False, ids.source if ids else None
    )
    if found != store.digest:
        raise InputError(
            f"{quoted(store.path)}: ids, layer names or attributes do not match the store's digest; the file is damaged or "
            "was changed by hand (delete its attribute digest to read it all the same)"
        )
