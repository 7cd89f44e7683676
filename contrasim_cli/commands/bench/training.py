"""The options by which `contrasim bench` trains the encoders that it needs."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import expanded
from contrasim_cli.commands import options as o
from contrasim_cli.commands import recipe as r
from contrasim_cli.errors import UsageError
from contrasim_cli.recipes import OBJECTIVES
from contrasim_cli.report.results import PlanRow, Results

if TYPE_CHECKING:
    import torch

    from contrasim_cli.anchors import Anchoring
    from contrasim_cli.benchmarks.encoders import Training, TrainingSet, Wanted
    from contrasim_cli.benchmarks.evaluation import Judge

log = logging.getLogger(__name__)

Objective = Enum("Objective", {name: name for name in OBJECTIVES}, type=str)  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What encoders are trained on and how, where the benchmark needs some."""

    PANEL: ClassVar = "Training"
    train: Annotated[
        list[Path] | None,
        typer.Option(
            "--train",
            help="Store to train encoders on, matched to tested stores by file name; repeat, or quote a pattern: "
            "'train/*.h5'.",
        ),
    ] = None
    objective: Annotated[
        list[Objective] | None,
        typer.Option("--objective", help="Loss to train with; repeat for several; default: the recipe's."),
    ] = None
    recipe: Annotated[
        r.RecipeName,
        typer.Option("--recipe", help="Defaults of training: those of contrasim train, or paper: as published."),
    ] = "default"
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, max=1000, help="Number of encoders of each kind; they differ in their seed."),
    ] = 1
    train_seed: Annotated[
        int | None,
        typer.Option("--train-seed", min=0, max=2**31, help="Seed of the first encoder; default: --seed."),
    ] = None
    epochs: r.Epochs = None
    lr: r.LearningRate = None
    batch_size: Annotated[
        int | None,
        typer.Option("--train-batch-size", min=2, help="Rows per training step; default: the recipe's."),
    ] = None
    inputs: Annotated[
        r.RowsIn,
        typer.Option(
            "--inputs",
            help="Inputs of encoders: raw rows; rows described by their similarity to anchor rows, for any model; or closed-form "
            "measures of whole layers (bench layers), for any model.",
        ),
    ] = "raw"
    anchors: r.AnchorCount = None
    anchor_side: str = "both"
    encoder_dir: Annotated[
        Path | None,
        typer.Option(
            "--encoder-dir",
            help="Folder for trained encoders, which later runs use again; default: the user's cache.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List what would be trained, estimate the time from one timed step, and train nothing."
        ),
    ] = False

    def __bool__(self) -> bool:
        return bool(self.train)

    @property
    def stores(self) -> list[Path]:
        """The stores to train on.

        Raises:
            UsageError: a pattern matches nothing.
        """
        return expanded(self.train or ())

    @property
    def both_orders(self) -> bool:
        """Whether a pair's two orders need an encoder each."""
        return self.anchor_side == "first"

    def check(self) -> None:
        """Refuse options of training where nothing is trained, and values that cannot be.

        Raises:
            UsageError: there are such.
        """
        if not self.train and (alone := [flag for flag in o.given(self) if flag != "--train"]):
            raise UsageError(f"{alone[0]} is an option of training; give --train STORE with it")
        if self.anchors and self.inputs != "anchors":
            raise UsageError("--anchors goes with --inputs anchors")
        if self.inputs == "measures":
            r.check_measured(self.recipe, [objective.value for objective in self.objective or ()])
        if self.lr is not None and not self.lr > 0:
            raise UsageError(f"--lr {self.lr:g}: must be greater than 0")
        names = [objective.value for objective in self.objective or ()]
        trained = [name for name in names if OBJECTIVES[name][0] in ("deepdot", "deepcka")]
        if trained and self.both_orders:
            raise UsageError(f"--anchor-side first goes with objectives that have negatives; {trained[0]} has none")

    def training(self, task: str, seed: int, device: "torch.device", budget: int) -> "Training":
        """How encoders are trained."""
        from contrasim_cli.benchmarks.encoders import Training

        if task != "layers" and self.inputs == "measures":
            raise UsageError("--inputs measures compares whole layers; it goes with bench layers")
        first = seed if self.train_seed is None else self.train_seed
        given: dict[str, Any] = {
            "epochs": self.epochs,
            "lr": self.lr,
            "batch_size": self.batch_size,
            "anchor_side": self.anchor_side if task == "pairs" else None,
            "inputs": self.inputs,
            "n_anchors": self.anchors,
        }
        return Training(
            task=task,
            recipe=self.recipe,
            objectives=[o.value for o in dict.fromkeys(self.objective or ())] or [None],
            seeds=range(first, first + self.seeds),
            given={name: value for name, value in given.items() if value is not None},
            folder=self.encoder_dir or _cache(),
            device=device,
            budget=budget,
        )


@dataclass(frozen=True, kw_only=True)
class PairOptions(TrainOptions):
    """Options of encoders that are trained on pairs of views."""

    anchor_side: Annotated[
        r.AnchorSideName,
        typer.Option(
            "--anchor-side", help="View whose rows are anchors in training; first: one encoder per order of a pair."
        ),
    ] = "both"


def trained(sets: "Sequence[TrainingSet]", training: "Training", together: bool) -> "list[Judge]":
    """The encoders of these sets, trained where they were not; `together`: those of all sets make the same rows."""
    from contrasim_cli.benchmarks.encoders import obtain, wanted
    from contrasim_cli.benchmarks.evaluation import Judge
    from contrasim_cli.benchmarks.outcomes import Origin

    needed = wanted(sets, training)
    if not together:
        _check_told_apart(needed)
    judges = []
    for spec, scorer in zip(needed, obtain(needed, training, console.progress), strict=True):
        seed = f"seed {spec.config.seed}"
        name = spec.trained_on.name
        encoder = f"{name}, {seed}" if together else seed
        judges.append(Judge(scorer, Origin(spec.objective, "" if together else name, encoder)))
    return judges


def _check_told_apart(needed: "Sequence[Wanted]") -> None:
    """Refuse data sets whose rows have the same names, where rows are known by their names alone.

    Raises:
        UsageError: anchors of two data sets would be taken for each other.
    """
    owners: dict[Anchoring, str] = {}
    for spec in needed:
        if spec.config.anchoring is not None:
            owner = owners.setdefault(spec.config.anchoring, spec.trained_on.name)
            if owner != spec.trained_on.name:
                raise UsageError(
                    f"--inputs anchors: rows of {owner} and {spec.trained_on.name} have the same ids, so that the anchors of one "
                    "could be taken for those of the other; give ids that differ between data sets, or one data set at a time"
                )


def matched(tested: Sequence[Path], trained: Sequence[Path]) -> list[Path]:
    """The training store of each tested store's name; the tested store itself where there is none."""
    known = {path.stem: path for path in trained}
    return [known.get(path.stem, path) for path in tested]


def anchors_of(judges: "Sequence[Judge]", stores: Sequence[Path]) -> "dict[Anchoring, Sequence[Path]]":
    """The stores, one per tested store, that have the anchors of these encoders."""
    from contrasim_cli.anchors import Anchoring

    return {j.scorer.standardize: stores for j in judges if isinstance(j.scorer.standardize, Anchoring)}


def about(options: TrainOptions, judges: "Sequence[Judge]") -> dict[str, Any]:
    """What JSON carries of what was trained."""
    encoders = []
    for judge in judges:
        assert judge.scorer.checkpoint is not None
        origin = judge.origin
        file = str(judge.scorer.checkpoint.path)
        encoders.append({"measure": origin.label, "train_data": origin.train, "encoder": origin.encoder, "file": file})
    return {"train": [str(path) for path in options.stores], "recipe": options.recipe, "encoders": encoders}


def planned(sets: "Sequence[TrainingSet]", training: "Training", about: dict[str, Any]) -> Results:
    """What `trained` would do."""
    from contrasim_cli.benchmarks.encoders import plan, wanted

    rows = plan(wanted(sets, training), training)
    missing = [row for row in rows if row.state != "trained"]
    log.info(
        "would train %d of %d encoders in about %s; the others are in %s; nothing was trained",
        len(missing),
        len(rows),
        console.duration(sum(row.seconds for row in missing)),
        training.folder,
    )
    return Results("bench", PlanRow, rows, about)


def _cache() -> Path:
    """Where the user's programs keep what they can make again."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "contrasim" / "encoders"
    except RuntimeError as error:
        raise UsageError("there is no home folder to keep encoders in; give --encoder-dir") from error
