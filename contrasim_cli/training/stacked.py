"""Training an encoder of measures: closed forms of every pair of stores, computed once, then steps on their grids.

Stores are taken in groups whose rows line up; pairs are within a group. A run that was stopped computes the grids again, which
come out the same, and goes on with its steps.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrasim_cli import distributed, signals, trained_rows
from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import Checkpoint, Config
from contrasim_cli.errors import MismatchError, TrainingError, UsageError
from contrasim_cli.grid import Grid
from contrasim_cli.grid.compute import stacks
from contrasim_cli.grid.grid import Plan
from contrasim_cli.names import quoted
from contrasim_cli.output_files import discard
from contrasim_cli.progress import Progress, silent
from contrasim_cli.recipes import MEASURED_LR, TUNED_LR
from contrasim_cli.stacking import universal
from contrasim_cli.stacking.measures import blind, identity
from contrasim_cli.stacking.training import Batches, Example, loss, same_depth
from contrasim_cli.store import View
from contrasim_cli.training.job import Files
from contrasim_cli.training.rows import content_digest
from contrasim_cli.training.state import (
    Journal,
    State,
    Stop,
    described,
    learning_rate,
    new_state,
)
from contrasim_cli.version import __version__

log = logging.getLogger(__name__)

_OF_ROWS = ("n_anchors", "features", "components", "least_steps")
SHUFFLES = 2  # one is the level, the other tells what unrelated rows come to


@dataclass(frozen=True)
class Group:
    """Stores whose rows line up, and their layers."""

    views: Sequence[View]
    layers: Sequence[Sequence[str]]
    name: str = ""


def starting(asked: str | None, measures: tuple[str, ...]) -> Checkpoint | None:
    """The encoder to begin with: the one asked for, or (None) the package's of these measures; None for `none` or no such.

    Raises:
        UsageError: the one asked for is of other measures.
        InputError: it cannot be read.
    """
    if asked == "none":
        return None
    paths = [universal.resolve(Path(asked))] if asked else list(universal.SHIPPED.values())
    found = (encoders.load(path) for path in paths)
    start = next((one for one in found if one.config.stacked and one.config.measures == measures), None)
    if start is None and asked:
        raise UsageError(f"--start {quoted(asked)}: is not an encoder of the measures {' '.join(measures)}")
    return start


def configuration(parts: Mapping[str, Any], measures: tuple[str, ...], start: Checkpoint | None) -> Config:
    """The configuration of an encoder of measures; `parts` is a recipe with what was given instead.

    Without `lr` in it, the learning rate depends on whether training begins with another encoder's weights.
    """
    kept = {name: value for name, value in parts.items() if name not in _OF_ROWS} | {"blind": blind(measures)}
    kept.setdefault("lr", MEASURED_LR if start is None else TUNED_LR)
    if start is not None:
        kept |= {name: getattr(start.config, name) for name in ("hidden", "members", "blind")}
    return Config(task="layers", widths=(), measures=measures, **kept)


def check_groups(groups: Sequence[Group], by_depth: bool) -> None:
    """Refuse groups of which no pairs can be made, or whose layers do not correspond.

    Raises:
        MismatchError: a store lines up with no other, or numbers of layers differ.
    """
    for group in groups:
        first = group.views[0].store.path
        if len(group.views) < 2:
            raise MismatchError(
                f"{quoted(first)}: no other store has its rows (the same ids in the same order); an encoder of measures is "
                "trained on pairs of stores of the same rows"
            )
        for view, names in zip(group.views, group.layers, strict=True):
            if len(names) != len(group.layers[0]) and not by_depth:
                raise MismatchError(
                    f"{quoted(view.store.path)}: {len(names)} layers are selected where {quoted(first)} has "
                    f"{len(group.layers[0])}; select as many, or give --match depth, by which layers of equal relative depth "
                    "correspond"
                )


def examples_of(group: Group, config: Config, device: torch.device, budget: int, progress: Progress) -> list[Example]:
    """Every pair of stores of a group."""
    pairs = list(combinations(range(len(group.views)), 2))
    plan = Plan(group.views, pairs, group.layers, group.layers)
    grid = Grid(plan, [], device, budget, seed=config.seed, progress=progress)
    found = []
    for stack in stacks(grid, config.measures, SHUFFLES).values():
        values, shuffled = torch.from_numpy(stack.values), torch.from_numpy(stack.shuffled)
        found.append(Example(values, shuffled, same_depth(*values.shape[-2:]), group.name))
    return found


def provenance(groups: Sequence[Group], start: Checkpoint | None) -> dict[str, Any]:
    """What the encoder is trained on."""
    stores = [
        described(view, names, content_digest(view, names))
        for group in groups
        for view, names in zip(group.views, group.layers, strict=True)
    ]
    versions = {"contrasim": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
    views = [view for group in groups for view in group.views]
    from_start = {"start": encoders.weights_digest(start.encoder.state_dict())} if start else {}
    return {"stores": stores, "standardized_by": [], "versions": versions, **trained_rows.noted(views), **from_start}


@dataclass
class Run:
    """A run from where its state stands."""

    config: Config
    batches: Batches
    state: State
    save: Callable[[State, bool], None]
    journal: Journal = field(default_factory=lambda: Journal(None))
    progress: Progress = silent

    def train(self) -> None:
        """Train to the last epoch.

        Raises:
            TrainingError: the loss is not finite.
            Terminated, KeyboardInterrupt: a signal, after the epoch at hand; the state is saved.
        """
        total = self.config.epochs * self.config.epoch_steps
        with signals.noted() as came, self.progress("training", total, "steps") as advance:
            stop = Stop(came)
            advance(self.state.epoch * self.config.epoch_steps, earlier=True)
            if not self.state.epoch:
                self.save(self.state, False)
            while self.state.epoch < self.config.epochs:
                losses = []
                for k in range(self.config.epoch_steps):
                    losses.append(self.step(self.state.epoch * self.config.epoch_steps + k))
                    advance(1, f"epoch {self.state.epoch + 1}, loss {losses[-1]:.4g}")
                    if came:
                        break
                else:
                    self.state.add(loss=sum(losses) / len(losses))
                    self.state.epoch += 1
                    self.save(self.state, self.state.epoch == self.config.epochs)
                    continue
                stop.act(self.state, lambda _finished: None)  # the state is that of the last epoch

    def step(self, number: int) -> float:
        """One step; its loss."""
        state, config = self.state, self.config
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, number, config.epochs * config.epoch_steps)
        network = state.encoder.grids.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((config.seed, number)) % 2**63)  # of what is dropped
            u, shuffled, positives = self.batches.draw(number)
            value = loss(config.objective, network(u), network(shuffled), positives)
        if not bool(torch.isfinite(value)):
            raise TrainingError(f"the loss is {float(value)} in step {number + 1}; give --lr below {config.lr:g}")
        state.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        self.journal.write(step=number + 1, epoch=state.epoch + 1, loss=float(value.detach()))
        return float(value.detach())


def train_encoder(
    groups: Sequence[Group],
    config: Config,
    start: Checkpoint | None,
    files: Files,
    device: torch.device,
    budget: int,
    progress: Progress = silent,
) -> Mapping[str, list[float]]:
    """Train and save an encoder of measures; what was noted of each epoch, by name.

    It begins with the weights of `start`, where there is one.

    Raises:
        InputError, MismatchError, TrainingError, OutputError, OutputExistsError: as its parts.
        Terminated, KeyboardInterrupt: a signal; the state is saved.
    """
    about = provenance(groups, start)
    if (curves := files.complete(config, about)) is not None:
        return curves
    examples = [one for group in groups for one in examples_of(group, config, device, budget, progress)]
    of = torch.tensor(identity(config.measures), dtype=torch.float64)
    batches = Batches(examples, of, config.batch_size, config.seed)
    state = _state(files, config, start, about)
    with Journal(files.log, state.epoch * config.epoch_steps) as journal:
        Run(config, batches, state, files.saver(about), journal, progress).train()
    if distributed.writes():
        discard(files.partial)
    log.info(
        "wrote %s: %s of %d measures, %d pairs of stores, last loss %.4g",
        quoted(files.encoder),
        config.objective,
        len(config.measures),
        len(examples),
        state.curves["loss"][-1],
    )
    return state.curves


def _state(files: Files, config: Config, start: Checkpoint | None, about: dict[str, Any]) -> State:
    """A fresh state, or that of the run to be resumed."""
    cpu = torch.device("cpu")
    if earlier := files.earlier_state(config, about, cpu):
        log.info("continuing in epoch %d of %d", earlier.epoch + 1, config.epochs)
        return earlier
    state = new_state(config, cpu)
    if start is not None:
        state.encoder.load_state_dict(start.encoder.state_dict())
    return state


def step_seconds(group: Group, config: Config, device: torch.device, budget: int) -> float:
    """Seconds of one step, with its share of the grids of all pairs, from one pair of stores and one epoch of one step."""
    before = time.perf_counter()
    one = replace(group, views=group.views[:2], layers=group.layers[:2])
    examples = examples_of(one, config, device, budget, silent)
    pairs = len(group.views) * (len(group.views) - 1) // 2
    grids = (time.perf_counter() - before) * pairs
    once = replace(config, epochs=1, epoch_steps=1)
    of = torch.tensor(identity(config.measures), dtype=torch.float64)
    batches = Batches(examples, of, config.batch_size, config.seed)
    before = time.perf_counter()
    Run(once, batches, new_state(once, torch.device("cpu")), lambda _state, _finished: None).train()
    return grids / (config.epochs * config.epoch_steps) + time.perf_counter() - before
