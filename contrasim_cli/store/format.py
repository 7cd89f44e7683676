"""contrasim's own layout of a store, version 1: HDF5, written by `extract`, by us and by anybody with h5py.

/               attributes format, format_version, complete, model, data, unit, pooling, created, contrasim_version, digest,
                provenance_digest
/layers/<name>  [n_rows, width] float16, float32 or float64; attributes index, content (SHA-256 of the values, row by row,
                little-endian)
/ids            [n_rows] variable-length UTF-8
/provenance     JSON text
behind the end  the seal, see `seal`
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from contrasim_cli import limits
from contrasim_cli.errors import ContraSimError, InputError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.store import seal
from contrasim_cli.store.hdf5 import check_dataset, datasets, is_text, read_text, text_attrs
from contrasim_cli.store.store import Ids, Layer, Store

FORMAT = "contrasim-activations"
FORMAT_VERSION = 1
ID_BYTES = 64  # of memory for each id while all of them are hashed, at most
PROVENANCE_DIGEST = "provenance_digest"
CONTENT = "content"
CHUNK_BYTES = 1 << 20
FLOATS = ("float16", "float32", "float64")


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


def chunk_rows(width: int, dtype: np.dtype[Any], n_rows: int) -> int:
    """Rows of a chunk of a layer."""
    return max(1, min(n_rows, CHUNK_BYTES // max(width * dtype.itemsize, 1)))


def is_own(file: h5py.File) -> bool:
    """Whether the file says that it is a contrasim store, or said so before its attribute `format` was damaged."""
    label = file.attrs.get("format")
    named = isinstance(label, (str, bytes)) and label in (FORMAT, FORMAT.encode())
    return named or {"format_version", "complete"} <= set(file.attrs)


def read_store(path: Path, file: h5py.File, known: bool = False) -> Store:
    """The store in an HDF5 file of our own layout; one whose ids are `known` to be what its digest says is not read for that.

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
    arrays = dict(datasets(path, file))
    members = {name.removeprefix("layers/"): arrays[name] for name in arrays if name.startswith("layers/")}
    if not members:
        raise InputError(f"{where}: the store has no layers")
    layers = [_read_layer(path, name, dataset) for name, dataset in sorted(members.items(), key=_index)]
    raise_all(check_rows(path, layers))
    ids = read_ids(path, arrays["ids"], layers[0].n_rows) if "ids" in arrays else None
    digest = text.pop("digest", None)
    if digest is None and "contrasim_version" in text:
        raise InputError(f"{where}: the store has lost its digest; the file is damaged")
    provenance_digest = text.pop(PROVENANCE_DIGEST, None)
    if provenance_digest is not None and seal.is_cut(Path(file.filename)):
        raise InputError(f"{where}: the store has lost its seal; the file is damaged")
    store = Store(
        path=path,
        kind="contrasim store",
        layers={layer.name: layer for layer in layers},
        ids=ids,
        attrs=text,
        provenance=_read_provenance(path, arrays.get("provenance"), provenance_digest),
        digest=digest,
        close=file.close,
    )
    if digest is not None and not known:
        attrs = text if provenance_digest is None else text | {PROVENANCE_DIGEST: provenance_digest}
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
    """Ids as texts, however many they are."""
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
        text = dataset.asstr()[()]
        content = json.loads(text, parse_constant=lambda name: None)
    except (ValueError, OSError, RuntimeError, RecursionError) as error:
        raise InputError(f"{quoted(path)}: /provenance is not valid JSON; the file is damaged") from error
    if digest is not None and hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != digest:
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
    digest = metadata_digest(
        table, attrs, ids.digest if ids else None, ids.automatic if ids else False, ids.source if ids else None
    )
    if digest != store.digest:
        raise InputError(
            f"{quoted(store.path)}: ids, layer names or attributes do not match the store's digest; the file is damaged or "
            "was changed by hand (delete its attribute digest to read it all the same)"
        )
