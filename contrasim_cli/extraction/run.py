"""Running a model over a source: batches of rows alike in length, shards of finished rows, one store at the end."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contrasim_cli import __version__
from contrasim_cli.device import memory_budget
from contrasim_cli.errors import ContraSimError, InputError, OutputExistsError, Terminated
from contrasim_cli.extraction import parts
from contrasim_cli.extraction.inputs import Items, Source
from contrasim_cli.extraction.models import ModelOptions, Network, Prepared
from contrasim_cli.extraction.parts import Parts, Rows
from contrasim_cli.files import check_output, quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import LayerSpec, StoreWriter, open_store

log = logging.getLogger(__name__)

SHARD_ROWS = 4096
SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class RunOptions:
    """How the rows are made and where they go."""

    output: Path
    batch_size: int = 64
    store_dtype: str = "float32"
    attrs: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    force: bool = False
    resume: bool = False


def extract(
    network: Network, source: Source, model: ModelOptions, run: RunOptions, progress: Progress = silent
) -> None:
    """Write the activations of every row of the source as a store.

    Raises:
        OutputExistsError, OutputError: the output exists, or cannot be written.
        InputError: an activation is NaN or Inf or does not fit the store's type, or an input is bad.
        MismatchError: the source does not fit the model.
        UsageError: the rows that `resume` finds were made with other options.
    """
    check_output(run.output, run.force or run.resume)
    with _stoppable(run.output, source.n_rows) as done:
        widths = layer_table(network, source)
        config = configuration(network, source, model, run, list(widths))
        if run.resume and finished(run.output, config, run.force):
            return
        shard_rows = shard_size(sum(widths.values()) * np.dtype(run.store_dtype).itemsize, run.memory)
        with parts.opened(run.output, tuple(widths), shard_rows, config, run.resume) as shards:
            _fill(network, source, run, shards, progress, done)
            about = {"batch_size": run.batch_size, "device": str(model.device), **network.about()}
            truncated = _assemble(shards, source, run, widths, provenance_of(config) | about)
        parts.remove(run.output)
    if truncated:
        limit = network.about()["token_limit"]
        log.warning("%d of %d rows were longer than %s tokens and were cut there", truncated, source.n_rows, limit)
    note_written(run.output, list(widths.values()), source.n_rows)


def provenance_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What every store that was made here says about how."""
    return {"config": config, "config_digest": digest_of(config)}


def layer_table(network: Network, source: Source) -> dict[str, int]:
    """The chosen layers and their widths, found by running the first row."""
    first = next(source.blocks(1))
    return network.discover(network.prepare(first, 0).batch([0]))


def configuration(
    network: Network, source: Source, model: ModelOptions, run: RunOptions, layers: Sequence[str]
) -> dict[str, Any]:
    """Everything that determines the rows of the store."""
    return {
        "model": network.name,
        "model_digest": network.digest,
        "input": source.name,
        "input_digest": source.digest,
        "column": source.column,
        "ids_digest": None if source.automatic else _ids_digest(source),
        "rows": source.n_rows,
        "pool": network.pooling,
        "layers": list(layers),
        "store_dtype": run.store_dtype,
        "max_length": model.max_length,
        "random_weights": model.random_weights,
        "seed": model.seed if model.random_weights else None,
        "attributes": dict(run.attrs),
        "versions": versions(),
    }


def _ids_digest(source: Source) -> str:
    digest = hashlib.sha256()
    for name in source.ids():
        digest.update(hashlib.sha256(name.encode()).digest())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The libraries that have a part in the values."""
    found = {"contrasim": __version__, "torch": torch.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["transformers"] = metadata.version("transformers")
    return found


def digest_of(content: Any) -> str:
    """SHA-256 of something that JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished(output: Path, config: Mapping[str, Any], force: bool) -> bool:
    """Whether the output is there and was made with the same configuration.

    Raises:
        OutputExistsError: it is there, was made otherwise, and may not be replaced.
    """
    if not output.exists():
        return False
    try:
        store = open_store(output)
        found = store.provenance.get("config", {})
        store.close()
    except ContraSimError:
        found = {}
    if found == json.loads(json.dumps(config)):
        log.info("%s is complete already", quoted(output))
        parts.remove(output)
        return True
    if not force:
        reason = parts.difference(found, config) if found else "it says not how it was made"
        raise OutputExistsError(f"{quoted(output)}: already exists and differs ({reason}); give --force to replace it")
    return False


def shard_size(row_bytes: int, memory: int | None) -> int:
    """Rows of a shard: a quarter of the memory, and never more than a moderate file."""
    budget = min(SHARD_BYTES, memory_budget(memory) // 4)
    return max(1, min(SHARD_ROWS, budget // max(1, row_bytes)))


def _fill(network: Network, source: Source, run: RunOptions, shards: Parts, progress: Progress, done: "_Done") -> None:
    """Make the shards that are not there."""
    with progress(f"extract {run.output.name}", source.n_rows, "rows") as advance:
        for index, items in enumerate(source.blocks(shards.shard_rows)):
            if shards.has(index):
                advance(len(items))
            else:
                _write_shard(network, source, run, shards, index, items, advance)
            done.rows += len(items)


@dataclass
class _Done:
    """How many rows are safe."""

    rows: int = 0


@contextlib.contextmanager
def _stoppable(output: Path, total: int) -> Iterator[_Done]:
    """Say, when a run is stopped, how far it is and how to go on."""
    done = _Done()
    said = f"{quoted(output)}: stopped after %d of {total} rows; --resume goes on"
    try:
        yield done
    except Terminated as stop:
        raise Terminated(said % done.rows) from stop
    except KeyboardInterrupt:
        log.warning(said % done.rows)
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise ContraSimError(f"{said % done.rows}, the device is out of memory: give a smaller --batch-size") from error


def _write_shard(
    network: Network, source: Source, run: RunOptions, shards: Parts, index: int, items: Items, advance: Any
) -> None:
    first = index * shards.shard_rows
    prepared = network.prepare(items, first)
    rows: dict[str, Rows] = {}
    for batch in batches(prepared, run.batch_size):
        for name, tensor in network.rows(prepared.batch(batch)).items():
            values = _checked(tensor, run, name, [first + row for row in batch], source)
            if name not in rows:
                rows[name] = np.empty((len(items), values.shape[1]), dtype=run.store_dtype)
            rows[name][batch] = values
        advance(len(batch))
    shards.write(index, rows, prepared.truncated)


def batches(prepared: Prepared, size: int) -> Iterator[list[int]]:
    """Rows of a block, the longest first, so that little is padded and a lack of memory shows at once."""
    order = np.argsort(-np.asarray(prepared.lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size].tolist()


def _checked(tensor: Tensor, run: RunOptions, layer: str, rows: Sequence[int], source: Source) -> Rows:
    """Values in the store's type, all of them finite."""
    values: Rows = tensor.float().cpu().numpy()
    with np.errstate(over="ignore"):
        stored = values.astype(run.store_dtype)
    bad = ~np.isfinite(stored)
    if not bad.any():
        return stored
    place, column = (int(number) for number in np.argwhere(bad)[0])
    value = float(values[place, column])
    where = f"{quoted(source.name)}: row {rows[place]}: layer {quoted(layer)}, column {column}"
    if np.isfinite(value):
        raise InputError(
            f"{where}: {value:.6g} does not fit {run.store_dtype}; store it as float32 (--store-dtype float32)"
        )
    raise InputError(f"{where}: the model gives {value}; activations must be finite")


def _assemble(
    shards: Parts, source: Source, run: RunOptions, widths: Mapping[str, int], provenance: Mapping[str, Any]
) -> int:
    """Write the store from its shards; how many rows were cut at the model's limit comes back."""
    indices = range(-(-source.n_rows // shards.shard_rows))
    truncated = sum(map(shards.truncated, indices))
    writer = StoreWriter(
        path=run.output,
        layers=[LayerSpec(name, width, run.store_dtype) for name, width in widths.items()],
        n_rows=source.n_rows,
        ids=source.ids(),
        attrs=run.attrs,
        provenance={**provenance, "truncated_rows": truncated},
        ids_automatic=source.automatic,
        ids_source=source.digest if source.automatic else None,
        force=run.force,
    )
    with writer:
        for index in indices:
            for name, rows in shards.read(index):
                writer.write(name, index * shards.shard_rows, rows)
    return truncated


def note_written(output: Path, widths: Sequence[int], n_rows: int) -> None:
    """Say what came out."""
    width = f"{min(widths)}" if min(widths) == max(widths) else f"{min(widths)}-{max(widths)}"
    layers = "1 layer" if len(widths) == 1 else f"{len(widths)} layers"
    log.info("wrote %s: %s x %d rows x %s", quoted(output), layers, n_rows, width)
