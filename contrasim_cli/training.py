"""One training loop for every objective and task.

Task `layers`: a step takes a batch of rows through every layer of every model; items are (model, layer).
Task `pairs`: a step takes a batch of rows through one layer of both views; items are the rows of either view. An epoch
visits every (batch, layer) once, in random order.

Rows are shuffled in one way whether or not they fit in memory: blocks of rows in random order make groups, rows are
shuffled within their group. What a step sees depends on seed and epoch alone, so that a run can be taken up at any step.
"""

import hashlib
import logging
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli import __version__, losses
from contrasim_cli.encoder import Checkpoint, Config, Encoder
from contrasim_cli.errors import MismatchError, Terminated, TrainingError, UsageError
from contrasim_cli.files import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import Layer, View

log = logging.getLogger(__name__)

BLOCK_ROWS = 256
GROUP_ROWS = 16_384
COLLAPSED = 1e-3  # all outputs this close to each other: the encoder says nothing any more
WITH_NEGATIVES = frozenset({"contrasim", "supcon"})
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One optimiser step: rows (positions in the views) and, for task `pairs`, which layer."""

    rows: Rows
    layer: int


@dataclass(frozen=True)
class Data:
    """The views to train on and, of each, its layers in matching order."""

    views: Sequence[View]
    layers: Sequence[Sequence[str]]

    @property
    def n_rows(self) -> int:
        """Rows of every view."""
        return self.views[0].n_rows

    @property
    def n_layers(self) -> int:
        """Layers of every view."""
        return len(self.layers[0])

    @property
    def view_widths(self) -> tuple[tuple[int, ...], ...]:
        """The widths that occur in each view, smallest first."""
        pairs = zip(self.views, self.layers, strict=True)
        return tuple(tuple(sorted({view.store.layer(name).width for name in names})) for view, names in pairs)

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths that occur, smallest first."""
        return tuple(sorted({width for widths in self.view_widths for width in widths}))

    @property
    def bytes_in_memory(self) -> int:
        """Size of all rows in the type they are kept in."""
        total = 0
        for view, names in zip(self.views, self.layers, strict=True):
            for layer in map(view.store.layer, names):
                total += self.n_rows * layer.width * _kept_dtype(layer).itemsize
        return total


def check_data(data: Data, task: str, per_view: bool = False) -> None:
    """Refuse views that do not fit the task.

    Raises:
        UsageError: too few or too many stores, or views that `per_view` could not tell apart later.
        MismatchError: the views differ in their number of layers.
    """
    if task == "pairs" and len(data.views) != 2:
        raise UsageError(f"--task pairs trains on two stores (one per view), {len(data.views)} given")
    if task == "layers" and len(data.views) < 2:
        raise UsageError("--task layers trains on two or more stores (one per model), 1 given")
    first = data.views[0].store
    for view, names in zip(data.views, data.layers, strict=True):
        if len(names) != data.n_layers:
            raise MismatchError(
                f"{quoted(view.store.path)}: {len(names)} layers are selected where {quoted(first.path)} has {data.n_layers}; "
                "select as many on both sides with --layers-a and --layers-b"
            )
    if task == "layers" and data.n_layers < 2:
        raise UsageError("--task layers needs two or more layers: other layers are the negatives")
    if per_view and len({view.store.stem for view in data.views}) < 2:
        raise UsageError(
            f"--encoder-per-view tells views by their file names, and both are {quoted(first.stem)}; rename one"
        )
    if data.n_rows < 2:
        raise MismatchError(f"{quoted(first.path)}: training needs at least 2 rows, found {data.n_rows}")


class Source:
    """Rows of the views as float32 tensors, from memory where they fit and from disk, group by group, where not."""

    def __init__(self, data: Data, budget: int, device: torch.device, progress: Progress) -> None:
        self.data, self.device = data, device
        self.in_memory = data.bytes_in_memory <= budget
        self._group: Rows = np.arange(data.n_rows)
        self._held: dict[tuple[int, int], Tensor] = {}
        self.digests = [hashlib.blake2b(digest_size=16) for _ in data.views]
        where = "in memory" if self.in_memory else "streamed from disk"
        log.debug("training rows take %.3g GiB and are %s", data.bytes_in_memory / 2**30, where)
        self._first_pass(progress)

    def _first_pass(self, progress: Progress) -> None:
        """Read everything once: bad values stop the run before hours of work, and the content is digested."""
        total = len(self.data.views) * self.data.n_layers
        with progress("reading", total, "layers") as advance:
            for v, (view, names) in enumerate(zip(self.data.views, self.data.layers, strict=True)):
                for k, name in enumerate(names):
                    parts = [self._digested(v, view, name, rows) for rows in _spans(self.data.n_rows)]
                    if self.in_memory:
                        self._held[v, k] = torch.cat(parts)
                    advance(1)

    def _digested(self, v: int, view: View, name: str, rows: Rows) -> Tensor:
        block = _narrow(view, name, rows)
        self.digests[v].update(block.tobytes())
        return torch.from_numpy(block) if self.in_memory else torch.empty(0)

    def open_group(self, rows: Rows) -> None:
        """Make the rows of a group available to `take`."""
        if self.in_memory:
            return
        self._group = np.sort(rows)
        self._held.clear()
        for v, (view, names) in enumerate(zip(self.data.views, self.data.layers, strict=True)):
            for k, name in enumerate(names):
                self._held[v, k] = torch.from_numpy(_narrow(view, name, self._group))

    def take(self, view: int, layer: int, rows: Rows) -> Tensor:
        """Rows [len(rows), width] of one layer of one view, float32 on the device."""
        where = rows if self.in_memory else np.searchsorted(self._group, rows)
        return self._held[view, layer].index_select(0, torch.from_numpy(where)).to(self.device, torch.float32)


def _kept_dtype(layer: Layer) -> np.dtype[Any]:
    """A type no wider than float32; float16 stays float16, which halves the memory."""
    return np.dtype(np.float16 if layer.dtype == np.float16 else np.float32)


def _narrow(view: View, name: str, rows: Rows) -> npt.NDArray[Any]:
    """Rows in the type they are kept in."""
    return np.ascontiguousarray(view.read(name, rows).astype(_kept_dtype(view.store.layer(name)), copy=False))


def _spans(n_rows: int) -> Iterator[Rows]:
    for start in range(0, n_rows, GROUP_ROWS):
        yield np.arange(start, min(start + GROUP_ROWS, n_rows))


def epoch_groups(n_rows: int, n_layers: int, config: Config, epoch: int) -> Iterator[tuple[Rows, list[Step]]]:
    """The steps of an epoch in groups of rows that are read together; every row once, the last batch partial.

    Task `pairs` leaves out a last batch of a single row, which has no negatives.
    """
    rng = np.random.default_rng([config.seed, epoch])
    blocks = rng.permutation(math.ceil(n_rows / BLOCK_ROWS))
    order = np.concatenate([np.arange(b * BLOCK_ROWS, min((b + 1) * BLOCK_ROWS, n_rows)) for b in blocks])
    size = max(1, GROUP_ROWS // config.batch_size) * config.batch_size
    layers = range(n_layers) if config.task == "pairs" else range(1)
    for start in range(0, n_rows, size):
        rows = rng.permutation(order[start : start + size])
        batches = [rows[at : at + config.batch_size] for at in range(0, len(rows), config.batch_size)]
        steps = [
            Step(batch, layer) for batch in batches for layer in layers if len(batch) > 1 or config.task == "layers"
        ]
        yield rows, [steps[i] for i in rng.permutation(len(steps))]


@dataclass
class Objective:
    """The loss of encoded items for one configuration; masks are made once per batch size."""

    config: Config
    n_models: int
    n_layers: int
    device: torch.device
    _sets: dict[int, losses.Sets] = field(default_factory=dict)

    def __call__(self, z: Tensor) -> Tensor:
        """Loss of z [items, n, d]: items are (model, layer) over a batch, or the two views of a batch."""
        config = self.config
        if config.objective == "deepcka":
            return losses.deepcka(z, self._positive_pairs())
        items = z if config.task == "layers" else z.flatten(0, 1).unsqueeze(1)
        sets = self._masks(z.shape[1])
        s = losses.similarity_matrix(items, "norm" if config.similarity == "norm" else "dot")[: len(sets.positives)]
        if config.objective == "deepdot":
            return losses.deepdot(s, sets.positives)
        s = s / config.temperature
        if config.objective == "supcon":
            return losses.supcon(s, sets.positives, sets.others)
        return losses.contrasim(s, sets.positives, sets.negatives)

    def _masks(self, n_rows: int) -> losses.Sets:
        key = n_rows if self.config.task == "pairs" else 0
        if key not in self._sets:
            side = "first" if self.config.anchor_side == "first" else "both"
            self._sets[key] = (
                losses.pair_sets(n_rows, side, self.device)  # type: ignore[arg-type]
                if self.config.task == "pairs"
                else losses.layer_sets(self.n_models, self.n_layers, self.device)
            )
        return self._sets[key]

    def _positive_pairs(self) -> Tensor:
        if self.config.task == "pairs":
            return torch.tensor([[0, 1]], device=self.device)
        return self._masks(0).positives.triu().nonzero()


def encode_step(encoder: Encoder, source: Source, step: Step, config: Config) -> Tensor:
    """The encoded items z [items, n, output] of a step; rows of equal width go through in one product."""
    n_views = len(source.data.views)
    layers = range(source.data.n_layers) if config.task == "layers" else (step.layer,)
    inputs = [(view, source.take(view, layer, step.rows)) for view in range(n_views) for layer in layers]
    outputs: list[Tensor] = [torch.empty(0)] * len(inputs)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (view, rows) in enumerate(inputs):
        groups.setdefault((view if config.encoder_per_view else 0, rows.shape[1]), []).append(i)
    for (view, _), members in groups.items():
        encoded = encoder(torch.stack([inputs[i][1] for i in members]), view)
        for place, i in enumerate(members):
            outputs[i] = encoded[place]
    return torch.stack(outputs)


@dataclass
class State:
    """Where a run stands: everything that `--resume` needs besides the data."""

    encoder: Encoder
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0  # steps of the epoch that are done
    loss_sum: float = 0.0
    curve: list[float] = field(default_factory=list)

    def record(self, finished: bool) -> dict[str, Any]:
        """The checkpoint's `training`; the optimiser's state while unfinished."""
        done: dict[str, Any] = {"finished": finished, "epochs_done": self.epoch, "loss_curve": list(self.curve)}
        if not finished:
            done |= {"step": self.step, "loss_sum": self.loss_sum, "optimizer": self.optimizer.state_dict()}
        return done


def new_state(config: Config, device: torch.device) -> State:
    """A fresh encoder, initialised by the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = Encoder(config)
    encoder.to(device)
    return State(encoder, _optimizer(encoder, config))


def _optimizer(encoder: Encoder, config: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(encoder.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def resumed_state(checkpoint: Checkpoint, config: Config, device: torch.device) -> State:
    """The state that an unfinished checkpoint holds.

    Raises:
        UsageError: the checkpoint was made with other options.
    """
    if checkpoint.config != config:
        names = [name for name in vars(config) if getattr(config, name) != getattr(checkpoint.config, name)]
        raise UsageError(
            f"{quoted(checkpoint.path)}: --resume needs the options of the run it resumes; these differ: {', '.join(names)}; "
            "start over without --resume"
        )
    encoder = checkpoint.encoder.to(device)
    optimizer = _optimizer(encoder, config)
    optimizer.load_state_dict(checkpoint.training["optimizer"])
    done = checkpoint.training
    return State(encoder, optimizer, done["epochs_done"], done["step"], done["loss_sum"], list(done["loss_curve"]))


def train(
    source: Source,
    config: Config,
    state: State,
    save: Callable[[State, bool], None],
    progress: Progress = silent,
) -> State:
    """Train to the configured number of epochs; `save(state, finished)` is called after every epoch and when stopped.

    Raises:
        TrainingError: the loss or an output is NaN or infinite, or a contrastive objective's encoder has collapsed.
        Terminated, KeyboardInterrupt: SIGTERM or Ctrl-C, after the running step is done and the state saved.
    """
    data = source.data
    objective = Objective(config, len(data.views), data.n_layers, source.device)
    total = sum(len(steps) for _, steps in epoch_groups(data.n_rows, data.n_layers, config, 0))
    with _deferred_signals() as stop, progress("training", config.epochs * total, "steps") as advance:
        advance(state.epoch * total + state.step)
        while state.epoch < config.epochs:
            z = _run_epoch(source, config, state, objective, stop, save, advance)
            state.curve.append(state.loss_sum / max(1, state.step))
            state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
            if z is not None:
                _check_outputs(z, config, state.epoch)
            finished = state.epoch == config.epochs
            save(state, finished)
            if not finished:
                stop.act(state, save)
    return state


def _run_epoch(
    source: Source,
    config: Config,
    state: State,
    objective: Objective,
    stop: "_Stop",
    save: Callable[[State, bool], None],
    advance: Callable[[int, str], None],
) -> Tensor | None:
    """Train to the end of the epoch; what the last step's rows are encoded to after it, None if no step was left."""
    data, done, last = source.data, 0, None
    for rows, steps in epoch_groups(data.n_rows, data.n_layers, config, state.epoch):
        if done + len(steps) <= state.step:
            done += len(steps)
            continue
        source.open_group(rows)
        for step in steps:
            done += 1
            if done <= state.step:
                continue
            z = encode_step(state.encoder, source, step, config)
            loss = objective(z)
            _check_loss(loss, state)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            value = float(loss.detach())
            state.step, state.loss_sum = done, state.loss_sum + value
            advance(1, f"epoch {state.epoch + 1}, loss {value:.4g}")
            stop.act(state, save)
            last = step
    if last is None:
        return None
    with torch.no_grad():
        return encode_step(state.encoder, source, last, config)


def _check_loss(loss: Tensor, state: State) -> None:
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            f"the loss is {float(loss.detach())} in epoch {state.epoch + 1}, step {state.step + 1}; "
            "lower --lr or raise --temperature"
        )


def _check_outputs(z: Tensor, config: Config, epoch: int) -> None:
    """Refuse outputs that are not finite, or that have collapsed.

    Objectives without negatives may map everything to one point: the paper's own finding, so only a warning.
    """
    flat = z.flatten(0, -2)
    if not bool(torch.isfinite(flat).all()):
        raise TrainingError(f"after epoch {epoch} the encoder's outputs are not finite; lower --lr")
    spread = float((flat - flat[0]).norm(dim=-1).max())
    if spread > COLLAPSED:
        return
    text = f"the encoder has collapsed: after epoch {epoch} all outputs lie within {spread:.1e} of each other"
    if config.objective in WITH_NEGATIVES:
        raise TrainingError(f"{text}; lower --lr or standardise the rows")
    if epoch == config.epochs:
        log.warning("%s, which objectives without negatives allow", text)


@dataclass
class _Stop:
    """A signal that waits for the end of the running step."""

    received: int = 0

    def act(self, state: State, save: Callable[[State, bool], None]) -> None:
        if not self.received:
            return
        save(state, False)
        text = f"stopped in epoch {state.epoch + 1} after {state.step} steps; the state is saved, --resume goes on"
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(text)
        raise Terminated(text)


@contextmanager
def _deferred_signals() -> Iterator[_Stop]:
    stop = _Stop()

    def note(number: int, frame: object) -> None:
        stop.received = number

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def provenance(source: Source) -> dict[str, Any]:
    """What the encoder was trained on: names, ids and content of the stores, layers, versions."""
    stores = []
    for view, names, digest in zip(source.data.views, source.data.layers, source.digests, strict=True):
        store = view.store
        stores.append(
            {
                "name": store.stem,
                "model": store.attrs.get("model", ""),
                "data": store.attrs.get("data", ""),
                "rows": view.n_rows,
                "ids": store.ids.digest if store.ids else "",
                "content": digest.hexdigest(),
                "layers": list(names),
            }
        )
    return {"stores": stores, "versions": {"contrasim": __version__, "torch": str(torch.__version__)}}


def partial_path(output: Path) -> Path:
    """Where a run keeps its state until it has finished."""
    return output.with_name(output.name + ".partial")


def check_resumable(checkpoint: Checkpoint, about: dict[str, Any]) -> None:
    """Refuse to go on with other data.

    Raises:
        UsageError: the unfinished run was trained on other stores, or the same with other content.
    """
    if checkpoint.provenance.get("stores") != about["stores"]:
        raise UsageError(
            f"{quoted(checkpoint.path)}: --resume needs the stores, rows and layers of the run it resumes, these differ; "
            "start over without --resume"
        )
    if checkpoint.training.get("finished", True):
        raise UsageError(f"{quoted(checkpoint.path)}: holds no unfinished run; start over without --resume")
