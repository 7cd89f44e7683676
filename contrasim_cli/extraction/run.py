"""Running a model over a source: batches of items alike in length, shards of finished rows, one store at the end."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, Terminated, out_of_memory
from contrasim_cli.extraction import shards as parts
from contrasim_cli.extraction.batching import Ahead, Batch, BatchSize, Done, Piece, Reader
from contrasim_cli.extraction.estimate import Estimate, check_room, estimate, layer_table, shape
from contrasim_cli.extraction.networks.network import Inputs, ModelOptions, Network
from contrasim_cli.extraction.provenance import configuration, finished, provenance_of
from contrasim_cli.extraction.sharding import PartOf, part_of
from contrasim_cli.extraction.shards import Parts, Rows
from contrasim_cli.extraction.sources.source import SHOWN, Source, note_left_out, shown
from contrasim_cli.names import counted, quoted
from contrasim_cli.output_files import check_output
from contrasim_cli.progress import Advance, Progress, silent
from contrasim_cli.store import StoreWriter
from contrasim_cli.store.shard_index import prepare_folder
from contrasim_cli.store.unknown_tokens import TOKENS, UNKNOWN, warn_unknown

log = logging.getLogger(__name__)

Places = npt.NDArray[np.int64]

SAVE_SECONDS = 60.0  # after which rows of a shard that is not finished are saved
AUTOMATIC = {"cpu": 64, "cuda": 256, "mps": 64}  # rows per batch to begin with


@dataclass(frozen=True)
class RunOptions:
    """How the rows are made and where they go; without a `batch_size` it is found, by halving when memory runs out.

    With a `part`, the output is the folder of a sharded store, and that part of it is made.
    """

    output: Path
    batch_size: int | None = 64
    store_dtype: str = "float32"
    attrs: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    force: bool = False
    resume: bool = False
    skip_bad: bool = False
    refuse_cut: bool = False
    part: PartOf | None = None

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self.output if self.part is None else self.part.path(self.output)


def extract(
    network: Network, source: Source, model: ModelOptions, run: RunOptions, progress: Progress = silent
) -> None:
    """Write the activations of every row of the source as a store, or of a part of them as a part of one.

    Raises:
        OutputExistsError, OutputError: the output exists, or cannot be written.
        InputError: an activation is NaN or Inf or does not fit the store's type, an input is bad, or is cut and may not be.
        MismatchError: the source does not fit the model.
        UsageError: the rows that `resume` finds were made with other options, or there are fewer blocks than parts.
    """
    if run.part is None:
        check_output(run.path, run.force or run.resume)
    expected = plan(network, source, run)
    if run.part is not None:
        prepare_folder(run.output, run.part.count)
        check_output(run.path, run.force or run.resume)
    with _stoppable(run.path, expected.items) as progressed:
        config = configuration(network, source, model, run.store_dtype, run.attrs, list(expected.widths))
        if run.part is not None and expected.span is not None:
            config |= run.part.config(*expected.span)
        if run.resume and finished(run.path, config, run.force):
            return
        reader = Reader(network, source, run.skip_bad, expected.span)
        if run.refuse_cut:
            _refuse_cut(reader, expected)
        names = tuple(expected.widths)
        with parts.opened(run.path, names, expected.sizes, config, run.resume, run.force) as shards:
            check_room(expected, shards.size())
            size = BatchSize(run.batch_size or AUTOMATIC[model.device.type], automatic=run.batch_size is None)
            _Filling(reader, run, expected, shards, size, progressed).fill(progress)
            about = {"batch_size": size.value, "device": str(model.device), **network.about()}
            counted = _assemble(shards, source, run, expected, provenance_of(config) | about)
            shards.remove()
    note_written(run.path, list(expected.widths.values()), counted.rows)
    if run.part is None:  # of parts, whoever makes the index tells
        warn_unknown(run.path, about | counted.of_tokens())


def plan(network: Network, source: Source, run: RunOptions) -> Estimate:
    """What a run would write; nothing is written."""
    whole = estimate(network, source, run.path, run.store_dtype, run.memory, layer_table(network, source))
    return whole if run.part is None else part_of(whole, run.part)


def _refuse_cut(reader: Reader, expected: Estimate) -> None:
    """Tokenise everything before the model runs: a text that is cut is known in seconds, and not after hours."""
    source, cut = reader.source, list(reader.cut(expected.sizes.block_items))
    if cut:
        names = [source.id_of(position) for position in cut[:SHOWN]]
        limit = reader.network.about().get("token_limit")
        raise InputError(
            f"{quoted(source.path)}: {len(cut)} of {expected.items} texts are longer than {limit} tokens (rows "
            f"{shown(names, len(cut))}); shorten them, or let them be cut (--on-truncate warn)"
        )


@dataclass
class _Progressed:
    """How many items are safe: in shards, and of one that is not finished."""

    items: int = 0
    begun: int = 0


@contextlib.contextmanager
def _stoppable(output: Path, items: int) -> Iterator[_Progressed]:
    """Say, when a run is stopped, how far it is and how to go on."""
    done = _Progressed()

    def said() -> str:
        return f"{quoted(output)}: stopped after {done.items + done.begun} of {counted(items, 'row')}; --resume goes on"

    try:
        yield done
    except Terminated as stop:
        raise Terminated(said()) from stop
    except KeyboardInterrupt:
        log.warning("%s", said())
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise ContraSimError(f"{said()}, memory ran out: give a smaller --batch-size") from error


class _Stop:
    """Puts SIGTERM off until a batch is done and saved; a second one stops at once. A context manager."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "_Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise Terminated
        self.asked = True

    def here(self) -> None:
        """Stop, if that was asked for."""
        if self.asked:
            raise Terminated


@dataclass
class _Filling:
    """The shards that are not there yet, while they are made."""

    reader: Reader
    run: RunOptions
    expected: Estimate
    shards: Parts
    size: BatchSize
    progressed: _Progressed
    _began: bool = False

    @property
    def network(self) -> Network:
        """The network that makes the rows."""
        return self.reader.network

    @property
    def source(self) -> Source:
        """What they are made of."""
        return self.reader.source

    def fill(self, progress: Progress) -> None:
        """Make the rows."""
        steps = self.reader.steps(self.shards.sizes, self.shards.done(), self.size)
        bar = progress(f"extract {self.run.path.name}", self.expected.items, "rows")
        with bar as advance, _Stop() as stop, Ahead(steps) as ahead:
            made: _Made | None = None
            saved = time.monotonic()
            for step in ahead:
                if isinstance(step, Batch):
                    made = made or self._begun(step.piece)
                    self._add(made, step, advance)
                    if stop.asked or time.monotonic() - saved > SAVE_SECONDS:
                        self._keep(made)
                        saved = time.monotonic()
                else:
                    self._finish(made, step, advance)
                    made, saved = None, time.monotonic()
                stop.here()

    def _begun(self, piece: Piece) -> "_Made":
        """A shard, with what an earlier run has left of it."""
        made = _Made(piece, self.expected)
        kept = self.shards.kept(piece.shard, made.rows)
        if kept is not None:
            made.rows, made.items = kept
            self.progressed.begun = int(made.items.sum())
        earlier = self.progressed.items + self.progressed.begun
        if earlier and not self._began:
            log.info("continuing after %d of %s", earlier, counted(self.expected.items, "row"))
        self._began = True
        return made

    def _keep(self, made: "_Made") -> None:
        """Save what is made of a shard."""
        if made.items.any():
            self.shards.keep(made.piece.shard, made.rows, made.items)
            self.progressed.begun = int(made.items.sum())

    def _add(self, made: "_Made", batch: Batch, advance: Advance) -> None:
        made.bad += batch.bad
        if batch.members and made.items[made.places_of(batch.members)].all():
            advance(len(batch.members) + len(batch.bad), earlier=True)
            return
        for members, layers in self._results(batch):
            where = made.rows_of(members)
            for name, tensor in layers.items():
                made.rows[name][where] = self._checked(tensor, name, made, where)
            made.items[made.places_of(members)] = True
            advance(len(members))
        advance(len(batch.bad))

    def _finish(self, made: "_Made | None", done: Done, advance: Advance) -> None:
        if done.piece is None:
            advance(done.items, earlier=True)
        else:
            (made or _Made(done.piece, self.expected)).write(self.shards)
        self.progressed.items, self.progressed.begun = self.progressed.items + done.items, 0

    def _results(self, batch: Batch) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """What the model says to a batch, in smaller ones where memory runs out."""
        waiting = [batch.members] if batch.members else []
        inputs = batch.inputs
        while waiting:
            members = waiting.pop(0)
            if len(members) > self.size.value and self.size.automatic:
                waiting[:0] = [members[at : at + self.size.value] for at in range(0, len(members), self.size.value)]
                inputs = None
                continue
            found = self._attempt(batch, members, inputs)
            if found is None:
                waiting.insert(0, members)
            else:
                yield members, found

    def _attempt(self, batch: Batch, members: Sequence[int], inputs: Inputs | None) -> dict[str, Tensor] | None:
        """The rows of every layer; None where fewer items have to be tried."""
        count = len(members)
        try:
            return self.network.rows(inputs or batch.piece.prepared.batch(members))
        except Exception as error:
            if not out_of_memory(error):
                self._blame(batch, members, error)
                raise
            if not self.size.automatic or count == 1:
                raise
        # behind the handler: the error would keep the tensors alive
        self.size.halve(count)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.info("memory ran out with %d rows at a time: continuing with %d", count, self.size.value)
        return None

    def _blame(self, batch: Batch, members: Sequence[int], error: Exception) -> None:
        """Say with the error of a model on which row it fails: the first on which it fails alone too."""
        for member in members if isinstance(error, (InputError, MismatchError)) else ():
            try:
                self.network.rows(batch.piece.prepared.batch([member]))
            except (InputError, MismatchError) as alone:
                where = f"{quoted(self.source.name)}: "
                name = quoted(self.source.id_of(batch.piece.positions[member]))
                raise type(alone)(f"{where}row {name}: {str(alone).removeprefix(where)}") from error

    def _checked(self, tensor: Tensor, layer: str, made: "_Made", where: Places) -> Rows:
        """Values in the store's type, all of them finite."""
        values: Rows = tensor.float().cpu().numpy()
        if len(values) != len(where):
            raise InputError(
                f"{quoted(self.network.name)}: layer {quoted(layer)} gives {len(values)} rows for {len(where)}"
            )
        with np.errstate(over="ignore"):
            stored = values.astype(self.run.store_dtype, copy=False)
        if np.isfinite(stored).all():
            return stored
        place, column = (int(number) for number in np.argwhere(~np.isfinite(stored))[0])
        value = float(values[place, column])
        name = made.name_of(int(where[place]), self.source)
        said = f"{quoted(self.source.name)}: row {quoted(name)}: layer {quoted(layer)}, column {column}"
        if np.isfinite(value):
            raise InputError(
                f"{said}: {value:.6g} does not fit {self.run.store_dtype}; store it as float32 (--store-dtype float32)"
            )
        raise InputError(f"{said}: the model gives {value}; activations must be finite")


class _Made:
    """The rows of a shard while they are made, at the places they will have."""

    def __init__(self, piece: Piece, expected: Estimate) -> None:
        self.piece = piece
        self.bad: list[tuple[int, str]] = []
        counts = piece.shard.counts()
        self._starts: Places = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        n_rows = int(self._starts[-1])
        self.rows = {one.name: np.zeros((n_rows, one.width), one.dtype) for one in expected.layers}
        self.items = np.zeros(len(counts), dtype=bool)  # whose rows are there

    def rows_of(self, members: Sequence[int]) -> Places:
        """[k] where the rows of some items of the piece go."""
        return self._rows_at(self.places_of(members))

    def places_of(self, members: Sequence[int]) -> Places:
        """[k] where some items of the piece are among those of the shard."""
        return np.asarray([self.piece.positions[place] for place in members]) - self.piece.shard.first

    def _rows_at(self, places: Places) -> Places:
        return np.concatenate([np.arange(self._starts[place], self._starts[place + 1]) for place in places])

    def name_of(self, row: int, source: Source) -> str:
        """The id of a row of the shard."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        name, units = source.id_of(self.piece.shard.first + place), self.piece.shard.units
        return name if units is None else f"{name}:{units[place][row - int(self._starts[place])]}"

    def write(self, shards: Parts) -> None:
        """Write the shard, without places for what could not be read."""
        shard = self.piece.shard
        if self.bad:
            gone = self._rows_at(np.asarray([position for position, _ in self.bad]) - self.piece.shard.first)
            self.rows = {name: np.delete(rows, gone, axis=0) for name, rows in self.rows.items()}
            shard = replace(shard, bad=sorted([*shard.bad, *self.bad]))
        shards.write(shard, self.rows)


def _assemble(
    shards: Parts, source: Source, run: RunOptions, expected: Estimate, provenance: Mapping[str, Any]
) -> "_Counted":
    """Write the store from its shards; what they hold together comes back."""
    places = shards.done()
    counted = _counted(shards, source, places)
    counted.say(source, expected.items, provenance.get("token_limit"))
    writer = StoreWriter(
        path=run.path,
        layers=expected.layers,
        n_rows=counted.rows,
        ids=_row_ids(shards, source, places),
        attrs=run.attrs,
        provenance={
            **provenance,
            "truncated_rows": counted.cut,
            **counted.of_tokens(),
            "left_out": counted.bad_ids(source),
        },
        ids_automatic=source.automatic,
        ids_source=source.digest if source.automatic else None,
        force=run.force,
    )
    with writer:
        start = 0
        for first, stop in places.items():
            made = 0
            for name, rows in shards.read(first, stop):
                writer.write(name, start, rows)
                made = len(rows)
            start += made
    return counted


@dataclass
class _Counted:
    """What all shards hold together: rows, items that were cut, those that could not be read, and tokens."""

    rows: int = 0
    cut: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[Sequence[int] | None] = field(default_factory=list)

    def of_tokens(self) -> dict[str, int]:
        """Unknown tokens and all tokens of the rows; nothing where a shard, such as one of an earlier version, lacks them."""
        counts = [one for one in self.tokens if one is not None]
        if len(counts) < len(self.tokens):
            return {}
        return {UNKNOWN: sum(unknown for unknown, _ in counts), TOKENS: sum(tokens for _, tokens in counts)}

    def bad_ids(self, source: Source) -> list[str]:
        """What is left out, by name: the reasons hold paths of this machine."""
        return [name for name, _ in (*source.left_out, *self.bad)]

    def say(self, source: Source, items: int, limit: int | None) -> None:
        """Report what is not in the rows as it was in the source."""
        note_left_out(self.bad)
        if not self.rows:
            raise InputError(f"{quoted(source.path)}: has no rows: none of its {items} items makes one")
        if self.cut:
            log.warning("%d of %d texts were longer than %s tokens and were cut there", self.cut, items, limit)


def _counted(shards: Parts, source: Source, places: Mapping[int, int]) -> _Counted:
    found = _Counted()
    for first, stop in places.items():
        shard = shards.about(first, stop)
        found.rows += sum(shard.counts())
        found.cut += len(shard.cut)
        found.tokens.append(shard.tokens)
        found.bad += [(source.id_of(position), reason) for position, reason in shard.bad]
    return found


def _row_ids(shards: Parts, source: Source, places: Mapping[int, int]) -> Iterator[str]:
    items = islice(source.ids(), min(places), None)
    for first, stop in places.items():
        yield from shards.about(first, stop).row_ids(islice(items, stop - first))


def note_written(output: Path, widths: Sequence[int], n_rows: int) -> None:
    """Say what came out."""
    log.info("wrote %s: %s", quoted(output), shape(list(widths), n_rows))
