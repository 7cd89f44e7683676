"""The encoders that a benchmark needs: which they are, which of them are there already, and training the rest.

They are kept in a folder under names that hash everything that they depend on, so that a run that was stopped goes on, and
the next one trains nothing twice.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contrasim_cli import distributed, encoder
from contrasim_cli.arrays import Device
from contrasim_cli.encoder import Checkpoint, Config
from contrasim_cli.errors import InputError, OutputExistsError, Terminated
from contrasim_cli.locks import BusyError, only_writer
from contrasim_cli.names import quoted
from contrasim_cli.output_files import sweep, writing
from contrasim_cli.progress import Progress, silent
from contrasim_cli.recipes import OBJECTIVES, chosen
from contrasim_cli.report.results import PlanRow
from contrasim_cli.scoring import Scorer, learned_scorer
from contrasim_cli.stacking.measures import SCALED
from contrasim_cli.training import Data, Order, check_data, partial_path, stacked
from contrasim_cli.training.job import Files, Job, configuration, standardization_asked, step_seconds, train_encoder
from contrasim_cli.training.rows import content_digest
from contrasim_cli.training.state import described
from contrasim_cli.transforms import Standardizer
from contrasim_cli.version import __version__

log = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between two looks at what other runs are training


@dataclass(frozen=True)
class TrainingSet:
    """What encoders are trained on: a data set, or two of its views; `name` is as results show it."""

    name: str
    data: Data

    @property
    def group(self) -> stacked.Group:
        """The group as an encoder of measures takes it."""
        return stacked.Group(self.data.views, self.data.layers, self.name)


@dataclass(frozen=True)
class Training:
    """How encoders are trained: one per set, objective (None: the recipe's own) and seed; `given` goes before the recipe."""

    task: str
    recipe: str
    objectives: Sequence[str | None]
    seeds: Sequence[int]
    given: Mapping[str, Any]
    folder: Path
    device: Device
    budget: int


@dataclass(frozen=True)
class Wanted:
    """One encoder: what it is trained on and how, and its file."""

    objective: str
    trained_on: TrainingSet
    config: Config
    picks_lr: bool
    path: Path

    @property
    def name(self) -> str:
        """The name that notes call it by."""
        return f"{self.objective} on {self.trained_on.name}, seed {self.config.seed}"

    @property
    def steps(self) -> int:
        """The steps of the whole run."""
        if self.config.stacked:
            return self.config.epochs * self.config.epoch_steps
        return self.config.epochs * Order.of(self.trained_on.data, self.config).n_steps


def wanted(sets: Sequence[TrainingSet], training: Training) -> list[Wanted]:
    """All encoders that are needed, in the order of sets, objectives and seeds.

    Raises:
        UsageError, MismatchError: the stores of a set do not fit the task.
        InputError: a bad value, or a damaged file.
    """
    for one in sets:
        check_data(one.data, training.task)
        if training.given.get("inputs") == "measures":
            stacked.check_groups([one.group], by_depth=False)
    digests: dict[tuple[int, tuple[str, ...]], str] = {}  # views are parts of several sets
    found: list[Wanted] = []
    for one in sets:
        stores = [_described(view, names, digests) for view, names in zip(one.data.views, one.data.layers, strict=True)]
        for objective in training.objectives:
            found.extend(_wanted(one, objective, seed, training, stores) for seed in training.seeds)
    return found


def _described(view: Any, layers: Sequence[str], digests: dict[tuple[int, tuple[str, ...]], str]) -> dict[str, Any]:
    """What an encoder depends on of a store."""
    key = id(view), tuple(layers)
    if key not in digests:
        digests[key] = content_digest(view, layers)
    found = described(view, layers, digests[key])
    return {name: value for name, value in found.items() if name not in ("model", "data")}


def _wanted(
    one: TrainingSet, objective: str | None, seed: int, training: Training, stores: Sequence[dict[str, Any]]
) -> Wanted:
    given = dict(training.given) | {"seed": seed}
    if objective is not None:
        given["objective"], given["similarity"] = OBJECTIVES[objective]
    parts = chosen(training.recipe, training.task, given)
    config = _configuration(one, training, parts)
    picks_lr = training.recipe == "default" and given.get("lr") is None and not config.stacked
    import torch

    versions = [encoder.FORMAT_VERSION, __version__, str(torch.__version__), np.__version__]
    depends = [dataclasses.asdict(config), picks_lr, list(stores), versions, training.device.type]
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    name = objective or _paper_name(config)
    path = training.folder / f"{name}-{training.task}-seed{seed}-{digest[:20]}.pt"
    return Wanted(name, one, config, picks_lr, path)


def _configuration(one: TrainingSet, training: Training, parts: Mapping[str, Any]) -> Config:
    if parts.get("inputs") != "measures":
        return configuration(one.data, training.task, training.recipe, parts)
    return stacked.configuration(parts, SCALED, stacked.starting(None, SCALED))


def _paper_name(config: Config) -> str:
    """The objective, with the similarity of encoded rows where it has one."""
    kind = (config.objective, config.similarity)
    return next((name for name, parts in OBJECTIVES.items() if parts == kind), config.objective)


def obtain(needed: Sequence[Wanted], training: Training, progress: Progress = silent) -> list[Scorer]:
    """Scorers of all of them; what is missing is trained, what was stopped goes on.

    Raises:
        OutputError: the folder cannot be written to.
        InputError: a file there is damaged.
        TrainingError, Terminated, KeyboardInterrupt: as when training a single one.
    """
    with writing(training.folder):
        training.folder.mkdir(parents=True, exist_ok=True)
    missing = _missing(needed)
    if missing:
        there = len(needed) - len(missing)
        log.info("training %d of %d encoders, %d are there, in %s", len(missing), len(needed), there, training.folder)
    own = distributed.dealt(missing)
    with distributed.alone():
        _obtain(own, training, progress)
    distributed.wait_for_all()
    return [learned_scorer(one.name, _load(one)) for one in needed]


def _missing(needed: Sequence[Wanted]) -> list[Wanted]:
    """What is not there: longest first, and the same on all ranks, whose disks may not show it at one time."""
    seen = distributed.gathered([k for k, one in enumerate(needed) if one.path.exists()])
    there = set.intersection(*map(set, seen))
    missing = [one for k, one in enumerate(needed) if k not in there]
    return missing if distributed.world() == 1 else sorted(missing, key=lambda one: -one.steps)


def _obtain(missing: Sequence[Wanted], training: Training, progress: Progress) -> None:
    """Train them; one that another run is training is put off, and waited for once no others are left."""
    told = False
    while missing:
        busy = []
        for one in missing:
            try:
                with only_writer(one.path):
                    _train(one, training, progress)
            except BusyError:
                busy.append(one)
        if busy and len(busy) == len(missing):
            if not told:
                log.info("waiting for %d encoders that other runs are training in %s", len(busy), training.folder)
            told = True
            time.sleep(PAUSE)
        missing = busy


def _train(one: Wanted, training: Training, progress: Progress) -> None:
    if one.path.exists():  # another run has trained it meanwhile
        return
    log.info("training %s", one.name)
    try:
        _train_one(one, Files(one.path, resume=True), training, progress)
    except OutputExistsError:  # on a file system without locks
        if not one.path.exists():
            raise
        log.info("%s: another run has trained it meanwhile", quoted(one.path))
    except (Terminated, KeyboardInterrupt) as stop:
        text = f"stopped while training {one.name}; what is done is kept, and the same command goes on with it"
        raise type(stop)(text) from stop


def _train_one(one: Wanted, files: Files, training: Training, progress: Progress) -> None:
    device, budget, data = training.device, training.budget, one.trained_on.data
    if one.config.stacked:
        groups, start = [one.trained_on.group], stacked.starting(None, one.config.measures)
        stacked.train_encoder(groups, one.config, start, files, device, budget, progress)
        return
    standardizer = Standardizer(data.views, whitens="whiten" in standardization_asked(one.config).kinds)
    train_encoder(Job(data, one.config, standardizer, picks_lr=one.picks_lr), files, device, budget, progress)


def _load(one: Wanted) -> Checkpoint:
    sweep(one.path)
    found = encoder.load(one.path)
    kept = (found.config.objective, found.config.similarity, found.config.seed)
    if kept != (one.config.objective, one.config.similarity, one.config.seed) or not found.training.get("finished"):
        raise InputError(
            f"{quoted(one.path)}: is not the encoder that its name says; remove it, and it is trained again"
        )
    return found


def plan(needed: Sequence[Wanted], training: Training) -> list[PlanRow]:
    """What would be trained, and for how long, from one timed step of each kind."""
    seconds: dict[tuple[object, ...], float] = {}
    rows = []
    for one in needed:
        state, left = _state(one)
        if left:
            kind = (one.trained_on.name, dataclasses.replace(one.config, seed=0))
            if kind not in seconds:
                seconds[kind] = _step_seconds(one, training)
            left *= seconds[kind]
        data, config = one.trained_on.data, one.config
        rows.append(
            PlanRow(
                encoder=one.path.name,
                objective=one.objective,
                trained_on=one.trained_on.name,
                seed=config.seed,
                rows=data.n_rows,
                steps=one.steps,
                state=state,
                seconds=round(left, 3),
            )
        )
    return rows


def _step_seconds(one: Wanted, training: Training) -> float:
    if one.config.stacked:
        return stacked.step_seconds(one.trained_on.group, one.config, training.device, training.budget)
    return step_seconds(one.trained_on.data, one.config, training.device, training.budget)


def _state(one: Wanted) -> tuple[str, float]:
    """Whether it is there, and how many steps are left."""
    partial = partial_path(one.path)
    if one.path.exists():
        return "trained", 0.0
    if not partial.exists():
        return "missing", float(one.steps)
    done = encoder.load(partial).training
    per_epoch = one.steps // one.config.epochs
    return "unfinished", float(one.steps - done["epochs_done"] * per_epoch - done["step"])
