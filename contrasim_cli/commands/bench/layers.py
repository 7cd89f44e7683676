"""`contrasim bench layers`: layer prediction."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import by_stem, data_sets, model_pairs
from contrasim_cli.commands import options as o
from contrasim_cli.commands import record
from contrasim_cli.commands.bench import training as t
from contrasim_cli.commands.bench.options import BenchOutput, BenchStandardizing, Common, Judged, hows
from contrasim_cli.commands.emit import FIGURE_FORMATS
from contrasim_cli.commands.figures import Figures
from contrasim_cli.commands.inputs import Inputs, Rows, note_embeddings, note_trained
from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted
from contrasim_cli.stacking import universal

if TYPE_CHECKING:
    from contrasim_cli.anchors import Anchoring
    from contrasim_cli.benchmarks.encoders import TrainingSet
    from contrasim_cli.benchmarks.evaluation import DataSet, Judge


class Criterion(str, Enum):
    """What is asked of a grid of layers against layers."""

    argmax = "argmax"
    monotonicity = "monotonicity"


@dataclass(frozen=True, kw_only=True)
class LayersOutput(BenchOutput):
    """The output of a benchmark, with the grids of scores."""

    plot_grids: Annotated[
        list[Path] | None,
        typer.Option(
            "--plot-grids",
            help=f"Draw the layer by layer similarity, averaged over pairs of models ({FIGURE_FORMATS}); may repeat.",
        ),
    ] = None


def layers_benchmark(
    stores: o.Stores,
    judged: Judged,
    training: t.TrainOptions,
    rows: Rows,
    standardizing: BenchStandardizing,
    compute: o.SampledCompute,
    output: LayersOutput,
    figures: Figures,
    hold_out_models: Annotated[
        int | None,
        typer.Option(
            "--hold-out-models",
            min=2,
            help="Train without the last N models; show pairs of seen and of unseen models side by side.",
        ),
    ] = None,
    pairs: Annotated[
        Literal["disjoint", "all"],
        typer.Option("--pairs", help="disjoint: (0,1), (2,3), …; all: every ordered pair."),
    ] = "disjoint",
    criterion: Annotated[
        list[Criterion] | None,
        typer.Option(
            "--criterion",
            help="argmax: is the same layer the most similar? monotonicity: does similarity fall with the distance between "
            "layers? repeat for both; default: argmax.",
        ),
    ] = None,
) -> None:
    """Layer prediction: is the same layer of another model (same data, other seed) the most similar one?

    The package's encoder, universal, is shown too, unless only --measure is given. Without --layers, every layer except hidden_0
    (the embeddings) is tested.
    If several folders hold stores of the same names, each folder is a data set, and every encoder is tested on each.
    """
    output = replace(output, figures=figures)
    if hold_out_models and not (training.train or judged.encoder):
        raise UsageError(
            "--hold-out-models tests on models that encoders were not trained on; give --train or --encoder"
        )
    tests, held_out = data_sets(stores), _held_out(stores, hold_out_models)
    for paths in tests.values():
        _check_pairs(paths, held_out, pairs == "all")
    criteria = tuple(dict.fromkeys(c.value for c in criterion or [Criterion.argmax]))
    common = Common(stores, _with_universal(judged, training), rows, standardizing, compute, output, training, criteria)
    names, room = common.check()
    from contrasim_cli.benchmarks.evaluation import Judge, layer_trials
    from contrasim_cli.cautions import check_familiar, compared, note_twice, warn_few_rows

    compute.check()
    several = bool(training.train or held_out or len(tests) > 1)
    with ExitStack() as stack:
        most, seed = compute.max_rows, compute.seed
        opened = [_Opened.of(stack, rows, room, name, paths, most, seed) for name, paths in tests.items()]
        train_sets = data_sets(training.stores)
        taught = [
            _Opened.of(stack, rows, room, name, _training_paths(paths, held_out)) for name, paths in train_sets.items()
        ]
        note_embeddings([data.inputs for data in (*opened, *taught)])
        sets = [data.training_set for data in taught]
        how = training.training("layers", compute.seed, *compute.resolve()) if training else None
        inputs = {"inputs": [str(path) for path in stores]}
        if how and training.dry_run:
            output.emit(t.planned(sets, how, inputs | {"seed": compute.seed}), files=False)
            return
        trained_judges = t.trained(sets, how, together=False) if how else []
        fixed = common.scorers(names)
        judges = [*map(Judge, fixed), *trained_judges]
        test_sets = _test_sets(opened, standardizing, judges, train_sets, several, figures)
        for test in test_sets:
            note_twice([view.store for view in test.views])
            note_trained(fixed, test.views)
        device, budget = compute.resolve(_work(test_sets, judges))
        for test in [] if held_out else test_sets:
            check_familiar(fixed, test.layers, test.standardizer, budget)
        for test in test_sets:
            warn_few_rows([j.scorer for j in judges], compared(test.views, test.layers), test.views[0].n_rows)
        trials = layer_trials(
            test_sets,
            judges,
            held_out,
            every_pair=pairs == "all",
            device=device,
            budget=budget,
            progress=console.progress,
            seed=compute.seed,
        )
        about = {
            **opened[0].inputs.about(
                seed=compute.seed, device=str(device), standardize=hows([j.scorer for j in judges])
            ),
            **(inputs | t.about(training, trained_judges) if several else {}),
        }
        if output.records:
            about |= record.of_inputs([store for data in opened for store in data.inputs.stores], fixed)
        tested = [(s.name if len(opened) > 1 else "", s.inputs, s.shown(figures)) for s in opened]
        facts = common.facts("layers", tested)
    few = max(map(len, tests.values())) < 3
    more_trials = (
        "three stores or more" if few else "--pairs all, or more stores" if pairs == "disjoint" else "more stores"
    )
    common.report("layers", trials, facts, about, several, more_trials)


def _with_universal(judged: Judged, training: t.TrainOptions) -> Judged:
    """With the encoder of the package, unless measures alone are given."""
    if judged.measure and not judged.encoder and not training.train:
        return judged
    measures = judged.measure or ([] if judged.encoder or training.train else ["cka"])
    return replace(
        judged, measure=measures, encoder=list(dict.fromkeys([*(judged.encoder or ()), Path(universal.NAME)]))
    )


def _check_pairs(paths: Sequence[Path], held_out: frozenset[str], every: bool) -> None:
    """Refuse models of which no pairs can be made, before anything is read."""
    if not held_out:
        model_pairs(len(paths), every)
        return
    stems = by_stem(paths, "models")
    missing = sorted(held_out - set(stems))
    if missing:
        raise UsageError(f"--hold-out-models: {quoted(paths[0].parent)} has no {', '.join(map(quoted, missing))}")
    for count, which in ((len(held_out), "held out"), (len(stems) - len(held_out), "left")):
        try:
            model_pairs(count, every)
        except UsageError as problem:
            raise UsageError(f"--hold-out-models: {count} models are {which}; {problem}") from problem


def _work(tests: "Sequence[DataSet]", judges: "Sequence[Judge]") -> float:
    """About how many multiplications comparing every two models of a data set takes."""
    from contrasim_cli.grid.grid import Plan
    from contrasim_cli.grid.work import multiplications

    scorers = [judge.scorer for judge in judges]
    return sum(
        multiplications(
            Plan(test.views, list(combinations(range(len(test.views)), 2)), test.layers, test.layers), scorers
        )
        for test in tests
    )


def _held_out(stores: Sequence[Path], count: int | None) -> frozenset[str]:
    """The names of the last models, in the order given."""
    return frozenset(list(dict.fromkeys(path.stem for path in stores))[-count:] if count else ())


def _training_paths(paths: Sequence[Path], held_out: frozenset[str]) -> list[Path]:
    """The stores to train on."""
    remaining = [path for path in paths if path.stem not in held_out]
    if len(remaining) < 2 and (not remaining or remaining[0].exists()):
        left = f"{len(remaining)} model{'' if len(remaining) == 1 else 's'}"
        raise UsageError(f"--train {quoted(paths[0].parent)}: encoders are trained on two models or more, found {left}")
    return remaining


@dataclass(frozen=True)
class _Opened:
    """A data set, opened, with its layers chosen."""

    name: str
    paths: Sequence[Path]
    inputs: Inputs
    layers: Sequence[Sequence[str]]

    @classmethod
    def of(
        cls,
        stack: ExitStack,
        rows: Rows,
        room: int | None,
        name: str,
        paths: Sequence[Path],
        most: int | None = None,
        seed: int = 0,
    ) -> "_Opened":
        inputs = stack.enter_context(Inputs(paths, rows, room, most, seed))
        return cls(name, paths, inputs, inputs.select(embeddings=False))

    def shown(self, figures: Figures) -> list[str]:
        """The stores' names in results."""
        from contrasim_cli.store.origin import with_origin

        return with_origin(figures.names(self.paths), self.inputs.stores)

    @property
    def training_set(self) -> "TrainingSet":
        from contrasim_cli.benchmarks.encoders import TrainingSet
        from contrasim_cli.training import Data

        return TrainingSet(self.name, Data(self.inputs.views, self.layers))


def _test_sets(
    opened: Sequence[_Opened],
    standardizing: BenchStandardizing,
    judges: "Sequence[Judge]",
    train_sets: Mapping[str, Sequence[Path]],
    several: bool,
    figures: Figures,
) -> "list[DataSet]":
    """What is tested on; stores whose statistics or anchors are taken are in the order of all stores."""
    from contrasim_cli.benchmarks.evaluation import DataSet

    test_sets, start, scorers = [], 0, [judge.scorer for judge in judges]
    for data in opened:
        part = slice(start, start + len(data.paths)) if len(opened) > 1 else slice(None)
        part_standardizing = replace(
            standardizing,
            standardize_from=(standardizing.standardize_from or [])[part],
            anchor_stores=(standardizing.anchor_stores or [])[part],
        )
        own: dict[Anchoring, Sequence[Path]] = {}
        for train_set, paths in train_sets.items():
            trained_there = [judge for judge in judges if judge.origin.train == train_set]
            own |= t.anchors_of(trained_there, t.matched(data.paths, paths))
        standardizer = data.inputs.standardizer_of(part_standardizing, scorers, data.layers, own)
        name = data.name if several else ""
        test_sets.append(DataSet(name, data.inputs.views, data.shown(figures), data.layers, standardizer))
        start += len(data.paths)
    return test_sets
