"""Activations that exist already, in a file of anybody's, as a store of our own."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.estimate import Estimate, check_room
from contrasim_cli.extraction.provenance import digest_of_ids, finished, provenance_of, versions
from contrasim_cli.extraction.run import note_written
from contrasim_cli.extraction.sharding import PartOf
from contrasim_cli.extraction.sources.source import (
    ALL,
    Choice,
    Chosen,
    Positions,
    Row,
    choose,
    file_digest,
    named,
    refuse_duplicates,
)
from contrasim_cli.names import quoted
from contrasim_cli.output_files import check_output
from contrasim_cli.progress import Advance, Progress, silent
from contrasim_cli.store import LayerSpec, Store, StoreWriter, open_store, select_layers, sharded
from contrasim_cli.store.axes import POOL
from contrasim_cli.store.blocks import Floats, all_finite, bad_rows, row_blocks
from contrasim_cli.store.format import FLOATS
from contrasim_cli.store.hints import PLAIN, Hints
from contrasim_cli.store.shard_index import prepare_folder
from contrasim_cli.store.zero_rows import check_zero_rows, zero_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportOptions:
    """What is taken from the file and where it goes; `store_dtype` None keeps the layers' types.

    `zero_rows`: keep or drop rows that are zero in every layer; None refuses more than a few. With a `part`, the output is the
    folder of a sharded store, and that part of the rows is written.
    """

    output: Path
    layers: Sequence[str] | None = None
    hints: Hints = PLAIN
    zero_rows: str | None = None
    choice: Choice = ALL
    store_dtype: str | None = None
    attrs: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    resume: bool = False
    part: PartOf | None = None

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self.output if self.part is None else self.part.path(self.output)


@dataclass(frozen=True)
class ActivationFile:
    """A file of activations, which is opened and digested once, however many parts are made of it; `options` name no part."""

    path: Path
    options: ImportOptions

    def write(self, part: PartOf | None = None, progress: Progress = silent) -> None:
        """Copy the layers into a store, or some of their rows into a part of one, block by block.

        Raises:
            InputError: the file cannot be read, holds no layers, or holds NaN or Inf.
            MismatchError: the ids are not as many as the rows, or ids asked for are not there.
            OutputExistsError, OutputError: the output exists, or cannot be written.
        """
        options = replace(self.options, part=part)
        if part is None:
            check_output(options.path, options.force or options.resume)
        store, names = self._opened
        rows, specs, config = self._rows, _specs(store, names, options), self._config
        if part is not None:
            first, stop = _span(self.path, rows, part)
            rows = rows.part(first, stop)
            config = {**config, **part.config(first, stop)}
            prepare_folder(options.output, part.count)
            check_output(options.path, options.force or options.resume)
        check_room(Estimate(options.path, specs, len(rows.chosen)))
        if options.resume and finished(options.path, config, options.force):
            return
        _write(replace(store), names, rows, specs, config, options, progress)  # which has seen no rows yet
        note_written(options.path, [spec.width for spec in specs], len(rows.chosen))

    def planned(self, part: PartOf | None = None) -> Estimate:
        """What `write` would write; nothing is written."""
        options = replace(self.options, part=part)
        if part is None:
            check_output(options.path, options.force or options.resume)
        store, names = self._opened
        rows = self._rows
        if part is not None:
            rows = rows.part(*_span(self.path, rows, part))
        return Estimate(options.path, _specs(store, names, options), len(rows.chosen))

    @cached_property
    def _opened(self) -> tuple[Store, list[str]]:
        opened, mask = _opened(self.path, self.options), self.options.hints.mask
        if mask is not None:
            log.info("--mask leaves out %d of %d tokens", int((~mask).sum()), mask.size)
        return opened

    @cached_property
    def _digest(self) -> str:
        return _digest(self._opened[0])

    @cached_property
    def _rows(self) -> "_Rows":
        store, names = self._opened
        return _chosen(store, self._digest, self.options, names if self.options.zero_rows == "drop" else ())

    @cached_property
    def _config(self) -> dict[str, Any]:
        return _configuration(self.path, self._digest, self._opened[1], self._rows, self.options)


def import_file(path: Path, options: ImportOptions, progress: Progress = silent) -> None:
    """Copy the layers of a file of activations into a store; errors are those of `ActivationFile.write`."""
    ActivationFile(path, options).write(options.part, progress)


def planned(path: Path, options: ImportOptions) -> Estimate:
    """What `import_file` would write; nothing is written."""
    return ActivationFile(path, options).planned(options.part)


def _write(
    store: Store,
    names: Sequence[str],
    rows: "_Rows",
    specs: Sequence[LayerSpec],
    config: Mapping[str, Any],
    options: ImportOptions,
    progress: Progress,
) -> None:
    writer = StoreWriter(
        path=options.path,
        layers=specs,
        n_rows=len(rows.chosen),
        ids=rows.ids(),
        attrs={"data": store.path.name, "unit": "row"} | _own_attrs(store) | dict(options.attrs),
        provenance=provenance_of(config) | {"kind": store.kind, "source_provenance": dict(store.provenance)},
        ids_automatic=rows.automatic,
        ids_source=rows.source,
        force=options.force,
    )
    with writer, progress(f"extract {options.path.name}", len(rows.chosen) * len(names), "rows") as advance:
        for name, spec in zip(names, specs, strict=True):
            _copy(store, name, rows.chosen, writer, spec, advance)
        if options.zero_rows is None:
            check_zero_rows([store], rows.chosen.between(0, store.n_rows))


def _span(path: Path, rows: "_Rows", part: PartOf) -> tuple[int, int]:
    """Where the rows of a part begin and end among those that are taken.

    Raises:
        UsageError: there are fewer rows than parts.
    """
    if len(rows.chosen) < part.count:
        raise UsageError(
            f"{quoted(path)}: {len(rows.chosen)} rows cannot be split into {part.count} parts; give fewer parts"
        )
    return part.of(len(rows.chosen))


def _opened(path: Path, options: ImportOptions) -> tuple[Store, list[str]]:
    """Open the file, and choose the layers that are taken of it."""
    store = open_store(path, replace(options.hints, layers=options.layers))
    return store, select_layers(list(store.layers), options.layers, where=path.name)


def _specs(store: Store, names: Sequence[str], options: ImportOptions) -> list[LayerSpec]:
    return [
        LayerSpec(name.replace("/", "."), store.layer(name).width, _stored_type(store, name, options)) for name in names
    ]


def _digest(store: Store) -> str:
    """Digest of the file, or of those that were read in its place; that of a sharded store is one of all of its values."""
    if store.kind == sharded.KIND and store.digest is not None:
        return store.digest
    if not store.files:
        return file_digest(store.path)
    digests = [(path.name, file_digest(path)) for path in store.files]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


@dataclass(frozen=True)
class _Rows:
    """The rows that are taken, and their names."""

    chosen: Chosen
    ids: Callable[[], Iterator[str]]
    automatic: bool = False
    source: str | None = None

    def part(self, first: int, stop: int) -> "_Rows":
        """The chosen rows from `first` to before `stop`."""
        return replace(self, chosen=self.chosen.part(first, stop), ids=lambda: islice(self.ids(), first, stop))


def _chosen(store: Store, digest: str, options: ImportOptions, zero_in: Sequence[str] = ()) -> _Rows:
    """Rows named by the file given for it, by the file of activations, or by their positions.

    Those that are zero in all of the layers `zero_in` are left out, and those that are padding.
    """
    choice, mask = options.choice, options.hints.mask
    chosen = choose(store.path, _named(store, choice), choice).chosen
    if mask is not None and POOL not in options.hints.words:  # a row is a token, not the mean of some
        chosen = chosen.without(np.flatnonzero(~mask.ravel()))
    if zero_in:
        chosen = chosen.without(zero_rows(store, zero_in))
        if not chosen:
            raise InputError(
                f"{quoted(store.path)}: --zero-rows drop leaves no row: all of them are zero in every layer"
            )

    def ids() -> Iterator[str]:
        return (row.id for row in chosen.of(_named(store, choice)))

    if choice.ids is not None:
        refuse_duplicates(quoted(choice.ids), ids())
        return _Rows(chosen, ids)
    found = store.ids
    if found is None:
        return _Rows(chosen, ids, True, digest)
    return _Rows(chosen, ids, found.automatic, found.source or (digest if found.automatic else None))


def _named(store: Store, choice: Choice) -> Iterator[Row]:
    names = (name for block in store.ids.blocks() for name in block) if store.ids else map(str, range(store.n_rows))
    return named(store.path, map(Row, names), choice.ids)


def _configuration(
    path: Path, digest: str, names: Sequence[str], rows: _Rows, options: ImportOptions
) -> dict[str, Any]:
    return {
        "input": path.name,
        "input_digest": digest,
        **{name: getattr(options.hints, name) for name in ("axes", "keys", "ids_key", "read_as")},
        "zero_rows": options.zero_rows,
        "rows": len(rows.chosen),
        "ids_digest": digest_of_ids(rows.ids()),
        "layers": list(names),
        "store_dtype": options.store_dtype,
        "attributes": dict(options.attrs),
        "versions": versions(),
        **({} if options.hints.mask is None else {"mask": hashlib.sha256(options.hints.mask.tobytes()).hexdigest()}),
    }


def _own_attrs(store: Store) -> dict[str, str]:
    """What a store of our own says about itself, and what is known of somebody else's."""
    return {name: store.attrs[name] for name in ("model", "data", "unit", "pooling") if name in store.attrs}


def _stored_type(store: Store, name: str, options: ImportOptions) -> str:
    """The type asked for, or the layer's own where a store can hold it, or float32."""
    own = store.layer(name).dtype.name
    return options.store_dtype or (own if own in FLOATS else "float32")


def _copy(store: Store, name: str, chosen: Chosen, writer: StoreWriter, spec: LayerSpec, advance: Advance) -> None:
    written, layer = 0, store.layer(name)
    for start, stop in row_blocks(layer, layer.n_rows):
        positions = chosen.between(start, stop) - start
        if not len(positions):
            continue
        block = store.read(name, start, stop).astype(layer.read_dtype, copy=False)
        rows = block if len(positions) == len(block) else block[positions]
        _check(store, name, positions + start, rows, spec.dtype)
        writer.write(spec.name, written, rows)
        written += len(rows)
        advance(len(rows))


def _check(store: Store, name: str, positions: Positions, rows: Floats, dtype: str) -> None:
    """Refuse bad values in terms of the file they come from."""
    if not all_finite(rows):
        row = int(np.flatnonzero(bad_rows(rows))[0])
        column = int(np.flatnonzero(~np.isfinite(rows[row]))[0])
        raise InputError(
            f"{quoted(store.path)}: layer {quoted(name)}: row {positions[row]} holds {rows[row, column]} in column {column}; "
            "activations must be finite, mend the file"
        )
    largest = float(np.abs(rows).max(initial=0))
    if largest > float(np.finfo(dtype).max):
        raise InputError(
            f"{quoted(store.path)}: layer {quoted(name)}: {largest:.6g} does not fit {dtype}; store it as float32"
        )
