"""One encoder from its options to its file: rows standardised, trained on, the state kept beside it and taken up again.

What `contrasim train` calls, and whatever else trains encoders.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrasim_cli import distributed
from contrasim_cli import encoder as encoders
from contrasim_cli.anchors import FEATURES, draw, width_of
from contrasim_cli.encoder import Config
from contrasim_cli.errors import OutputExistsError
from contrasim_cli.names import counted, quoted
from contrasim_cli.output_files import check_output, discard, sweep
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import View
from contrasim_cli.training.data import Data, anchored
from contrasim_cli.training.loop import Run
from contrasim_cli.training.rows import Held, Source
from contrasim_cli.training.shuffle import Order, Step
from contrasim_cli.training.standardization import Choice, check_within, choose, within
from contrasim_cli.training.start import warm
from contrasim_cli.training.state import (
    Journal,
    State,
    check_resumable,
    check_room,
    curves_of,
    new_state,
    partial_path,
    provenance,
    resumed_state,
)
from contrasim_cli.training.steps import with_steps
from contrasim_cli.transforms import Standardization, Standardizer, Within

log = logging.getLogger(__name__)


def configuration(data: Data, task: str, recipe: str, parts: Mapping[str, Any]) -> Config:
    """The configuration of an encoder for these data; `parts` is a recipe with what was given instead.

    An `output` of 0 stands for the width of the widest rows. Where `inputs` are anchors, some rows are drawn as such.

    Raises:
        MismatchError, UsageError: there are no ids to know anchors by, or too few rows.
    """
    parts = dict(parts)
    per_view = bool(parts.get("encoder_per_view"))
    count, features = parts.pop("n_anchors", 0), tuple(parts.pop("features", FEATURES))
    least_steps = parts.pop("least_steps", 0)
    if parts.get("inputs") == "anchors":
        components, members = parts.get("components", 0), parts.get("members", 1)
        drawn, _ = draw(data.views, count, parts.get("seed", 0), features, components, members)
        return Config(
            task=task,
            recipe=recipe,
            widths=(width_of(features, count, members),),
            anchors=drawn.ids,
            anchor_sources=drawn.sources,
            features=features,
            **parts | {"output": parts["output"] or Config.output},
        )
    if parts.get("path") != "mlp":
        parts["start"] = "random"
    config = Config(
        task=task,
        recipe=recipe,
        widths=data.widths,
        views=tuple(view.store.stem for view in data.views) if per_view else (),
        view_widths=data.view_widths if per_view else (),
        **parts | {"output": parts["output"] or data.widths[-1]},
    )
    return replace(config, epochs=max(config.epochs, math.ceil(least_steps / Order.of(data, config).n_steps)))


@dataclass(frozen=True)
class Job:
    """What one encoder is trained on, and how.

    `standardized_by` names the stores whose statistics the standardizer takes, with their rows, where they are not the
    views' own. `picks_lr`: whether the learning rate is chosen too where the configuration's `standardize` is auto.
    """

    data: Data
    config: Config
    standardizer: Standardizer
    standardized_by: list[dict[str, Any]] = field(default_factory=list)
    picks_lr: bool = False


@dataclass(frozen=True)
class Files:
    """Where the encoder goes, and a JSON line per step; how many steps come between saved states (None: an epoch)."""

    encoder: Path
    log: Path | None = None
    save_every: int | None = None
    resume: bool = False
    force: bool = False

    @property
    def partial(self) -> Path:
        """Where the run keeps its state until it has finished."""
        return partial_path(self.encoder)

    def check_stopped(self) -> None:
        """Refuse to write over the state of a stopped run, unless that was said.

        Raises:
            OutputExistsError: it is there.
        """
        if self.partial.exists() and not (self.resume or self.force):
            raise OutputExistsError(
                f"{quoted(self.partial)}: holds the state of a run that was stopped; give --resume to go on with it, or --force to "
                "start over"
            )

    def earlier_choice(self) -> Choice | None:
        """What the run that is resumed chose, if there is one and it did."""
        paths = [path for path in ([] if self.force else [self.encoder]) + [self.partial] if path.exists()]
        if not self.resume or not paths:
            return None
        found = encoders.load(paths[0]).provenance.get("choice")
        return Choice.read(found) if found else None

    def earlier_state(self, config: Config, about: dict[str, Any], device: torch.device) -> State | None:
        """The state of the run that is resumed, if there is one.

        Raises:
            UsageError: it had other options or stores.
        """
        if not (self.resume and self.partial.exists()):
            return None
        found = encoders.load(self.partial)
        check_resumable(found, about)
        if (before := found.provenance.get("ranks", 1)) != (now := distributed.world()):
            log.info("the run started with %d processes and continues with %d: losses differ by rounding", before, now)
        return resumed_state(found, config, device)

    def complete(self, config: Config, about: dict[str, Any]) -> dict[str, list[float]] | None:
        """What was noted of each epoch, by name, where the run that is resumed is complete already.

        Raises:
            OutputExistsError: the output is another's.
        """
        if not self.resume or self.force or not self.encoder.exists():
            return None
        found, parts = encoders.load(self.encoder), ("stores", "standardized_by")
        if found.config != config or any(found.provenance.get(name, []) != about[name] for name in parts):
            raise OutputExistsError(
                f"{quoted(self.encoder)}: already exists, trained with other options or stores; give --force to replace it"
            )
        log.info("%s is complete already", quoted(self.encoder))
        if distributed.writes():
            discard(self.partial)
            sweep(self.encoder)
        return curves_of(found)

    def saver(self, about: dict[str, Any]) -> Callable[[State, bool], None]:
        """What saves a state with what it was trained on, as the encoder once it is finished."""

        def save(state: State, finished: bool) -> None:
            path = self.encoder if finished else self.partial
            force = self.force or not finished
            distributed.by_first(lambda: encoders.save(path, state.checkpoint(about, finished), force=force))

        return save


def standardization_asked(config: Config) -> Standardization:
    """What a standardizer must be ready for: `auto` may come to whitening."""
    return Standardization("whiten") if config.standardize == "auto" else config.standardization


def train_encoder(
    job: Job, files: Files, device: torch.device, budget: int, progress: Progress = silent
) -> dict[str, list[float]]:
    """Train and save an encoder, unless `resume` finds that it is complete already; what was noted of each epoch, by name.

    Raises:
        UsageError: the run to be resumed had other options or stores.
        OutputExistsError: the output is complete already, and another's.
        OutputError: nothing can be written.
        InputError, TrainingError: a bad value, too little memory, a run that cannot go on.
        Terminated, KeyboardInterrupt: a signal; the state is saved.
    """
    before = _earlier_choice(job, files)
    job, choice = _decided(job, before, device, budget, progress)
    config = job.config
    data, maps = _prepared(job, budget, progress)
    distributed.by_first(lambda: check_output(files.partial, force=True))
    source = Source(data, Order.of(data, config), budget, progress, device)
    about = provenance(source, job.standardized_by, choice)
    if (curves := files.complete(config, about)) is not None:
        return curves
    state = _state(files, data, config, about, device)
    if maps:
        state.encoder.keep(maps)
    distributed.spread(*state.encoder.state_dict().values())
    save = files.saver(about)
    if choice is not before:  # a run that is resumed need not choose again
        save(state, False)
    run = Run(source, config, state, device, save, files.save_every, progress=progress)
    with Journal(files.log, run.steps_done) as run.journal:
        run.train()
    if distributed.writes():
        discard(files.partial)
    losses = state.curves["loss"]
    log.info(
        "wrote %s: %s, %s, last loss %.4g",
        quoted(files.encoder),
        config.objective,
        counted(len(losses), "epoch"),
        losses[-1],
    )
    return state.curves


def _prepared(job: Job, budget: int, progress: Progress) -> tuple[Data, Within | None]:
    """The data with their rows made ready, and the maps that the encoder must keep for that, if there are any."""
    config = job.config
    if config.anchoring:
        return anchored(job.data, config, progress), None
    how = config.standardization
    if "within" in how.kinds:
        how = replace(how, within=within(job.data, job.standardizer, config, progress))
    transforms = job.standardizer.transforms(how, job.data.layers, budget, progress)
    return replace(job.data, transforms=transforms), how.within


def _earlier_choice(job: Job, files: Files) -> Choice | None:
    """What the run that is resumed chose of what the data decide."""
    return files.earlier_choice() if job.config.standardize == "auto" else None


def _decided(
    job: Job, before: Choice | None, device: torch.device, budget: int, progress: Progress
) -> tuple[Job, Choice | None]:
    """What the data decide, they decide once for a run and all that resume it; `before`: what they did."""
    if job.config.standardize != "auto":
        return replace(job, config=_named(job.config, job.data)), None
    choice = before or _agreed(_chosen(job, device, budget, progress))
    config = _named(choice.of(job.config, job.picks_lr), job.data)
    job.standardizer.whitens = "whiten" in config.standardization.kinds
    if before is None:
        log.info("%s; learning rate %g", choice.text, config.lr)
    return replace(job, config=config), choice


def _chosen(job: Job, device: torch.device, budget: int, progress: Progress) -> Choice:
    choice = choose(job.data, job.standardizer, job.config, budget, progress)
    config = replace(job.config, lr=choice.lr) if job.picks_lr else job.config
    with distributed.alone():
        return with_steps(choice, job.data, job.standardizer, config, device, budget, progress)


def _agreed(choice: Choice) -> Choice:
    """The choice of the first rank, where rounding might decide."""
    return choice if distributed.world() == 1 else Choice.read(distributed.gathered(choice.record)[0])


def _named(config: Config, data: Data) -> Config:
    """The configuration with the names of the layers whose maps the encoder will hold."""
    how = config.standardization
    if "within" not in how.kinds:
        return config
    check_within(data, config)
    widths = {
        name: view.store.layer(name).width
        for view, names in zip(data.views, data.layers, strict=True)
        for name in names
        if how.of(name).kind == "within"
    }
    return replace(config, within=tuple(widths.items()))


def _state(files: Files, data: Data, config: Config, about: dict[str, Any], device: torch.device) -> State:
    """A fresh state, or that of the run to be resumed."""
    if earlier := files.earlier_state(config, about, device):
        steps = counted(earlier.step, "step")
        log.info("continuing in epoch %d of %d after %s", earlier.epoch + 1, config.epochs, steps)
        return earlier
    check_room(config, device)
    state = new_state(config, device)
    warm(state.encoder, data, config)
    return state


@dataclass
class _Timed(Run):
    """A run that notes how long its steps take."""

    seconds: list[float] = field(default_factory=list)

    def _step(self, step: Step, held: Held) -> float:
        before = time.perf_counter()
        value = super()._step(step, held)
        self.seconds.append(time.perf_counter() - before)
        return value


def step_seconds(data: Data, config: Config, device: torch.device, budget: int) -> float:
    """Seconds of one step on the first batch of the rows; nothing else of the data is read.

    The first step, which also warms up what later ones find warm, is left out.
    """
    rows = min(data.n_rows, config.batch_size)
    views = [View(v.store, np.arange(rows) if v.rows is None else v.rows[:rows]) for v in data.views]
    few = Data(views, [names[:1] for names in data.layers] if config.task == "pairs" else data.layers)
    if config.anchoring:
        few = anchored(few, config)
    once = replace(config, epochs=2, standardize="none", validation=0.0, patience=0, schedule="constant", warmup=0.0)
    with distributed.alone():
        run = _Timed(Source(few, Order.of(few, once), budget, device=device), once, new_state(once, device), device)
        run.train()
    return run.seconds[-1]
