"""Activations that exist already, in an array file of anybody's, as a store of our own."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.inputs import file_digest, positions, read_ids
from contrasim_cli.extraction.run import finished, note_written, provenance_of, versions
from contrasim_cli.files import check_output, quoted
from contrasim_cli.progress import Advance, Progress, silent
from contrasim_cli.store import LayerSpec, Store, StoreWriter, open_store, select_layers
from contrasim_cli.store.blocks import Floats, all_finite, bad_rows, iter_blocks
from contrasim_cli.store.format import FLOATS

log = logging.getLogger(__name__)

AXES = {"layers,rows,width": 0, "rows,layers,width": 1}


@dataclass(frozen=True)
class ImportOptions:
    """What is taken from the file and where it goes; `store_dtype` None keeps the layers' types."""

    output: Path
    layers: Sequence[str] | None = None
    axes: str | None = None
    ids: Path | None = None
    limit: int | None = None
    store_dtype: str | None = None
    attrs: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    resume: bool = False


def import_file(path: Path, options: ImportOptions, progress: Progress = silent) -> None:
    """Copy the layers of an array file into a store, block by block.

    Raises:
        InputError: the file cannot be read, holds no layers, or holds NaN or Inf.
        MismatchError: the ids are not as many as the rows.
        OutputExistsError, OutputError: the output exists, or cannot be written.
    """
    check_output(options.output, options.force or options.resume)
    store = open_store(path, _layers_axis(path, options.axes))
    names = select_layers(list(store.layers), options.layers, where=path.name)
    n_rows = min(store.n_rows, options.limit or store.n_rows)
    digest = file_digest(path)
    ids = _ids(store, n_rows, digest, options)
    config = _configuration(path, digest, names, n_rows, options)
    if options.resume and finished(options.output, config, options.force):
        return
    specs = [
        LayerSpec(name.replace("/", "."), store.layer(name).width, _stored_type(store, name, options)) for name in names
    ]
    writer = StoreWriter(
        path=options.output,
        layers=specs,
        n_rows=n_rows,
        ids=ids.read(),
        attrs={"data": path.name, "unit": "row"} | _own_attrs(store) | dict(options.attrs),
        provenance=provenance_of(config) | {"kind": store.kind, "source_provenance": dict(store.provenance)},
        ids_automatic=ids.automatic,
        ids_source=ids.source,
        force=options.force,
    )
    with writer, progress(f"extract {options.output.name}", n_rows * len(names), "rows") as advance:
        for name, spec in zip(names, specs, strict=True):
            _copy(store, name, n_rows, writer, spec, advance)
    note_written(options.output, [spec.width for spec in specs], n_rows)


def _layers_axis(path: Path, axes: str | None) -> int | None:
    if axes is None:
        return None
    wanted = axes.replace(" ", "")
    if wanted not in AXES:
        raise UsageError(f"--axes {quoted(axes)}: write {' or '.join(AXES)}")
    return AXES[wanted]


@dataclass(frozen=True)
class _RowIds:
    read: Callable[[], Iterator[str]]
    automatic: bool = False
    source: str | None = None


def _ids(store: Store, n_rows: int, digest: str, options: ImportOptions) -> _RowIds:
    """Ids of the file given for them, of the array file, or the rows' positions."""
    if options.ids is not None:
        return _RowIds(read_ids(options.ids, n_rows, store.path, options.limit))
    found = store.ids
    if found is None:
        return _RowIds(lambda: positions(n_rows), True, digest)
    return _RowIds(lambda: iter(found.read(0, n_rows)), found.automatic, found.source)


def _configuration(
    path: Path, digest: str, names: Sequence[str], n_rows: int, options: ImportOptions
) -> dict[str, Any]:
    return {
        "input": path.name,
        "input_digest": digest,
        "ids_digest": file_digest(options.ids) if options.ids else None,
        "axes": options.axes,
        "rows": n_rows,
        "layers": list(names),
        "store_dtype": options.store_dtype,
        "attributes": dict(options.attrs),
        "versions": versions(),
    }


def _own_attrs(store: Store) -> dict[str, str]:
    """What a store of our own says about itself."""
    return {name: store.attrs[name] for name in ("model", "data", "unit", "pooling") if name in store.attrs}


def _stored_type(store: Store, name: str, options: ImportOptions) -> str:
    """The type asked for, or the layer's own where a store can hold it, or float32."""
    own = store.layer(name).dtype.name
    return options.store_dtype or (own if own in FLOATS else "float32")


def _copy(store: Store, name: str, n_rows: int, writer: StoreWriter, spec: LayerSpec, advance: Advance) -> None:
    for start, block in iter_blocks(store, name):
        rows = block[: n_rows - start]
        if not len(rows):
            return
        _check(store, name, start, rows, spec.dtype)
        writer.write(spec.name, start, rows)
        advance(len(rows))


def _check(store: Store, name: str, start: int, rows: Floats, dtype: str) -> None:
    """Refuse bad values in terms of the file they come from."""
    if not all_finite(rows):
        row = int(np.flatnonzero(bad_rows(rows))[0])
        column = int(np.flatnonzero(~np.isfinite(rows[row]))[0])
        raise InputError(
            f"{quoted(store.path)}: layer {quoted(name)}: row {start + row} holds {rows[row, column]} in column {column}; "
            "activations must be finite, mend the file"
        )
    largest = float(np.abs(rows).max(initial=0))
    if largest > float(np.finfo(dtype).max):
        raise InputError(
            f"{quoted(store.path)}: layer {quoted(name)}: {largest:.6g} does not fit {dtype}; store it as float32"
        )
