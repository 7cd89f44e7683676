"""The benchmarks over several data sets, models or encoders: every scorer's trials, with what they are of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from contrasim_cli.arrays import Device
from contrasim_cli.benchmarks.layers import layer_prediction
from contrasim_cli.benchmarks.outcomes import Origin, Trials
from contrasim_cli.benchmarks.retrieval import retrieval
from contrasim_cli.benchmarks.retrieval_task import RetrievalTask
from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import View
from contrasim_cli.transforms import Standardizer


@dataclass(frozen=True)
class Judge:
    """A scorer, and what there is to say of its trials wherever they are."""

    scorer: Scorer
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class DataSet:
    """The stores of one data set, one per model, with their layers in matching order."""

    name: str
    views: Sequence[View]
    names: Sequence[str]
    layers: Sequence[Sequence[str]]
    standardizer: Standardizer

    def part(self, chosen: Sequence[int]) -> "DataSet":
        """Some of the stores."""
        views, layers = [self.views[k] for k in chosen], [self.layers[k] for k in chosen]
        return DataSet(self.name, views, [self.names[k] for k in chosen], layers, self.standardizer.part(chosen))

    def groups(self, held_out: frozenset[str]) -> Iterator[tuple[str, "DataSet"]]:
        """The models that encoders saw in training, and those that they did not; all of them where none are held out."""
        if not held_out:
            yield "", self
            return
        for name, unseen in (("seen", False), ("unseen", True)):
            chosen = [k for k, view in enumerate(self.views) if (view.store.stem in held_out) == unseen]
            yield name, self.part(chosen)


def layer_trials(
    tests: Sequence[DataSet],
    judges: Sequence[Judge],
    held_out: frozenset[str],
    *,
    every_pair: bool,
    device: Device,
    budget: int,
    progress: Progress = silent,
    seed: int = 0,
) -> list[Trials]:
    """Layer prediction on every data set: pairs of models that encoders saw, and pairs of those that are held out.

    Raises:
        UsageError: an encoder was trained on a model that is held out, or not on one that counts as seen.
        MismatchError: models differ in their number of layers, or a width does not fit an encoder.
    """
    for judge in judges:
        _check_held_out(judge, tests, held_out)
    found: list[Trials] = []
    for test in tests:
        for models, part in test.groups(held_out):
            trials = layer_prediction(
                part.views,
                part.names,
                part.layers,
                [judge.scorer for judge in judges],
                every_pair=every_pair,
                device=device,
                budget=budget,
                progress=progress,
                standardizer=part.standardizer,
                seed=seed,
            )
            found.extend(_marked(trials, judges, test=test.name, models=models))
    return found


def _check_held_out(judge: Judge, tests: Sequence[DataSet], held_out: frozenset[str]) -> None:
    checkpoint = judge.scorer.checkpoint
    if checkpoint is None or not held_out:
        return
    trained = {str(store["name"]) for store in checkpoint.provenance.get("stores", ())}
    tested = {view.store.stem for test in tests for view in test.views}
    wrong = sorted(trained & held_out)
    if wrong:
        raise UsageError(
            f"{judge.scorer.name}: was trained on {', '.join(map(quoted, wrong))}, which --hold-out-models holds out"
        )
    if judge.scorer.stacked:  # which needs no model to have been trained on
        return
    missing = sorted(tested - held_out - trained)
    if missing:
        raise UsageError(
            f"{judge.scorer.name}: was not trained on {', '.join(map(quoted, missing))}, so it has seen none of their "
            "pairs; test on the models it was trained on and on those to be held out"
        )


def retrieval_trials(
    tasks: Sequence[tuple[str, RetrievalTask, Sequence[Judge]]],
    *,
    hold_out: bool,
    device: Device,
    budget: int,
    progress: Progress = silent,
    unseen: bool = False,
) -> list[Trials]:
    """Retrieval in every task, by the judges that it has; tasks are named by their pair where there are several.

    `unseen`: no encoder was trained on any of the rows.

    Raises:
        MismatchError, InputError, UsageError: as for a single task.
    """
    found: list[Trials] = []
    for pair, task, judges in tasks:
        scorers = [judge.scorer for judge in judges]
        trials = retrieval(
            task, scorers, hold_out=hold_out, device=device, budget=budget, progress=progress, unseen=unseen
        )
        found.extend(_marked(trials, judges, pair=pair))
    return found


def _marked(found: Sequence[Trials], judges: Sequence[Judge], **where: str) -> Iterator[Trials]:
    origins = {id(judge.scorer): judge.origin for judge in judges}
    for trials in found:
        yield replace(trials, origin=replace(origins[id(trials.scorer)], **where))
