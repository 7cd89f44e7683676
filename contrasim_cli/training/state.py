"""Where a run stands: what a checkpoint must hold so that it can be taken up again, its log, and the signals that stop it.

The log has one JSON object per step and line, and a resumed run goes on with it where its state stands. Ctrl-C and SIGTERM wait for
the end of the running step.
"""

import copy
import json
import math
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from contrasim_cli import distributed, trained_rows
from contrasim_cli import neuron_moments as domain
from contrasim_cli.anchors import Anchored
from contrasim_cli.device import free_on
from contrasim_cli.encoder import BYTES_PER_WEIGHT, Checkpoint, Config, Encoder, training_bytes
from contrasim_cli.errors import OutputError, Terminated, UsageError
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import counted, quoted
from contrasim_cli.output_files import write_atomic, writing
from contrasim_cli.store import View
from contrasim_cli.training.adam import Adam
from contrasim_cli.training.rows import Source
from contrasim_cli.training.standardization import Choice
from contrasim_cli.version import __version__

FIRST_SCALE = 2.0**10  # of losses in float16, adapted from then on


@dataclass
class State:
    """Everything that `--resume` needs besides the data."""

    encoder: Encoder
    optimizer: Adam
    scaler: torch.amp.GradScaler
    best: Encoder | None = None  # on held-out rows, where training stops early
    epoch: int = 0
    step: int = 0  # steps of the epoch that are done
    loss_sum: float = 0.0
    curves: dict[str, list[float]] = field(default_factory=dict)  # per epoch

    @property
    def result(self) -> Encoder:
        """The encoder that the run is for."""
        return self.best or self.encoder

    def add(self, **values: float) -> None:
        """Note an epoch's values."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)

    def record(self, finished: bool) -> dict[str, Any]:
        """The checkpoint's `training`; all that makes the state while unfinished."""
        curves = {f"{name}_curve": list(values) for name, values in self.curves.items()}
        done: dict[str, Any] = {"finished": finished, "epochs_done": self.epoch, **({"loss_curve": []} | curves)}
        if not finished:
            done |= {"step": self.step, "loss_sum": self.loss_sum, "optimizer": self.optimizer.state_dict()}
            done |= {"scaler": self.scaler.state_dict()}
            if self.best is not None:
                done |= {"best": self.best.state_dict()}
        return done

    def checkpoint(self, about: dict[str, Any], finished: bool) -> Checkpoint:
        """What is saved: the result when finished, else the weights that training goes on with."""
        return Checkpoint(self.result if finished else self.encoder, self.record(finished), about)


def check_room(config: Config, device: torch.device) -> None:
    """Refuse an encoder that does not fit, with its gradients and the optimizer's two moments, into what is free.

    Raises:
        UsageError: it does not.
    """
    need = training_bytes(config)
    free = free_on(device) if device.type == "cuda" else 2 * memory_budget(None)
    if need > free:
        raise UsageError(
            f"the encoder would have {need / BYTES_PER_WEIGHT:.3g} weights, and training it would take {need / 2**30:.3g} "
            "GiB, more than are free; give smaller --hidden and --dim"
        )


def new_state(config: Config, device: torch.device) -> State:
    """A fresh encoder, initialised by the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = Encoder(config)
    return _state(encoder.to(device), config, device)


def _state(encoder: Encoder, config: Config, device: torch.device) -> State:
    scaler = torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE, enabled=config.precision == "float16")
    optimizer = Adam(encoder.parameters(), config.lr, config.weight_decay, decoupled=config.optimizer == "adamw")
    return State(encoder, optimizer, scaler)


def learning_rate(config: Config, step: int, steps: int) -> float:
    """The rate of step 0, 1, …: it rises linearly over the first part of `steps`, then is constant or half a cosine down to 0."""
    rise = math.ceil(config.warmup * steps)
    if step < rise:
        return config.lr * (step + 1) / rise
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def resumed_state(checkpoint: Checkpoint, config: Config, device: torch.device) -> State:
    """The state that an unfinished checkpoint holds.

    Raises:
        UsageError: the checkpoint was made with other options.
    """
    if checkpoint.config != config:
        names = [name for name in vars(config) if getattr(config, name) != getattr(checkpoint.config, name)]
        raise UsageError(
            f"{quoted(checkpoint.path)}: --resume needs the options of the run it resumes; these differ: {', '.join(names)}; "
            "leave it out and give --force to start over"
        )
    done = checkpoint.training
    state = _state(checkpoint.encoder.to(device), config, device)
    state.optimizer.load_state_dict(done["optimizer"])
    state.scaler.load_state_dict(done["scaler"])
    state.epoch, state.step, state.loss_sum = done["epochs_done"], done["step"], done["loss_sum"]
    state.curves = curves_of(checkpoint)
    if "best" in done:
        state.best = copy.deepcopy(state.encoder)
        state.best.load_state_dict(done["best"])
    return state


def curves_of(checkpoint: Checkpoint) -> dict[str, list[float]]:
    """What was noted of each epoch, by name."""
    done = checkpoint.training
    return {name.removesuffix("_curve"): list(done[name]) for name in done if name.endswith("_curve")}


def provenance(
    source: Source, standardized_by: list[dict[str, Any]] | None = None, choice: Choice | None = None
) -> dict[str, Any]:
    """What the encoder was trained on: names, ids and content of the stores, layers, versions; what was chosen for them."""
    views = source.data.views[: source.data.n_stores]
    sides = zip(views, source.data.layers, source.digests, strict=False)
    stores = [described(view, names, digest.hexdigest()) for view, names, digest in sides]
    versions = {"contrasim": __version__, "torch": str(torch.__version__)}
    chosen = {"choice": choice.record} if choice else {}
    anchored = {key: made for key, made in source.data.transforms.items() if isinstance(made, Anchored)}
    moments = domain.noted(views, source.data.layers[: len(views)], anchored)
    return {
        "stores": stores,
        "standardized_by": standardized_by or [],
        "versions": versions,
        "moments": moments,
        **trained_rows.noted(views),
        **chosen,
        **({"ranks": distributed.world()} if distributed.world() > 1 else {}),
    }


def described(view: View, layers: Sequence[str], content: str) -> dict[str, Any]:
    """What an encoder's provenance says of a store that it was trained on; `content` is the digest of its rows."""
    store = view.store
    return {
        "name": store.stem,
        "model": store.attrs.get("model", ""),
        "data": store.attrs.get("data", ""),
        "rows": view.n_rows,
        "ids": store.ids.digest if store.ids else "",
        "content": content,
        "layers": list(layers),
    }


def partial_path(output: Path) -> Path:
    """Where a run keeps its state until it has finished."""
    return output.with_name(output.name + ".partial")


def check_resumable(checkpoint: Checkpoint, about: dict[str, Any]) -> None:
    """Refuse to go on with other data.

    Raises:
        UsageError: the unfinished run was trained on other stores, or the same with other content.
    """
    if any(checkpoint.provenance.get(name, []) != about[name] for name in ("stores", "standardized_by")):
        raise UsageError(
            f"{quoted(checkpoint.path)}: --resume needs the stores, rows and layers of the run it resumes, these differ; "
            "leave it out and give --force to start over"
        )
    if checkpoint.training.get("finished", True):
        raise UsageError(
            f"{quoted(checkpoint.path)}: holds no unfinished run; leave it out and give --force to start over"
        )


class Journal(AbstractContextManager["Journal"]):
    """Lines `{"step": 1, "epoch": 1, "loss": …}`; steps are counted over the whole run. Without a path nothing is kept."""

    def __init__(self, path: Path | None, steps_done: int = 0) -> None:
        self.path = path = path if distributed.writes() else None
        if path is None:
            return
        kept = [line for line in _lines(path) if _step(line) <= steps_done] if steps_done else []
        write_atomic(path, "".join(kept).encode(), force=True)
        with writing(path):
            self._stream = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Add a line to the log."""
        if self.path is not None:
            with writing(self.path):
                self._stream.write(json.dumps(values) + "\n")
                self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        try:
            self._stream.close()
        except OSError as problem:  # of what could not be written before, which is the error then
            if error is None:
                raise OutputError(f"{quoted(self.path)}: cannot be written: {problem.strerror}") from problem


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _step(line: str) -> float:
    """The step a line is of; infinite where the line was cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


@dataclass(frozen=True)
class Stop:
    """The signals that came while a step was running, and wait for its end."""

    came: Sequence[int]

    def act(self, state: State, save: Callable[[bool], None]) -> None:
        """Save the state and stop, if a signal came.

        Raises:
            Terminated, KeyboardInterrupt: it was SIGTERM, or Ctrl-C.
        """
        if not self.came:
            return
        save(False)
        text = f"stopped in epoch {state.epoch + 1} after {counted(state.step, 'step')}; the state is saved, --resume goes on"
        if self.came[-1] == signal.SIGINT:
            raise KeyboardInterrupt(text)
        raise Terminated(text)
