"""`contrasim bench layers`: layer prediction."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import by_stem, data_sets, model_pairs
from contrasim_cli.commands import options as o
from contrasim_cli.commands import recipe as r
from contrasim_cli.commands.bench import training as t
from contrasim_cli.commands.bench.options import (
    Common,
    Criterion,
    Encoders,
    Measures,
    PlotPairs,
    Rows,
    StandardizeMeasures,
    TrialsFile,
    hows,
)
from contrasim_cli.errors import UsageError
from contrasim_cli.names import distinct_names, quoted
from contrasim_cli.stacking import universal

if TYPE_CHECKING:
    from contrasim_cli.anchors import Anchoring
    from contrasim_cli.benchmarks.encoders import TrainingSet
    from contrasim_cli.benchmarks.evaluation import DataSet, Judge
    from contrasim_cli.commands.inputs import Inputs


class Pairs(str, Enum):
    """Which pairs of models are compared."""

    disjoint = "disjoint"
    all = "all"


def layers_benchmark(
    stores: o.Stores,
    measure: Measures = None,
    encoder: Encoders = None,
    train: t.TrainStores = None,
    objective: t.Objectives = None,
    recipe: t.RecipeOption = r.Recipe.default,
    seeds: t.Seeds = 1,
    train_seed: t.TrainSeed = None,
    epochs: r.Epochs = None,
    lr: r.LearningRate = None,
    train_batch_size: t.TrainBatchSize = None,
    inputs: t.InputsOption = r.RowsIn.raw,
    anchors: r.AnchorCount = None,
    encoder_dir: t.EncoderDir = None,
    dry_run: t.DryRun = False,
    hold_out_models: Annotated[
        int | None,
        typer.Option(
            "--hold-out-models",
            min=2,
            help="Train on all but the last so many models; show pairs of seen and of unseen models side by side.",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        Pairs, typer.Option("--pairs", help="disjoint: (0,1), (2,3), …; all: every ordered pair.")
    ] = Pairs.disjoint,
    criterion: Annotated[
        list[Criterion] | None,
        typer.Option(
            "--criterion",
            help="argmax: is the same layer the most similar? monotonicity: does similarity fall with the distance between "
            "layers? repeat for both; default: argmax.",
            show_default=False,
        ),
    ] = None,
    layers: o.Layers = None,
    align: o.AlignRows = o.Align.order,
    nan: o.NanRule = o.OnNan.error,
    zero_rows: o.ZeroRowsRule = None,
    rank_tol: o.RankTol = 1e-6,
    standardize: StandardizeMeasures = None,
    shrinkage: o.Shrinkage = None,
    standardize_from: o.StandardizeFrom = None,
    anchor_store: o.AnchorStores = None,
    device: o.DeviceOption = None,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    max_rows: o.MaxRows = None,
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    plot_pairs: PlotPairs = None,
    plot_grids: Annotated[
        Path | None,
        typer.Option(
            "--plot-grids",
            help="Draw the mean similarity of layers and layers over the pairs (.png .svg .pdf).",
            show_default=False,
        ),
    ] = None,
    trials: TrialsFile = None,
    force: o.Force = False,
) -> None:
    """Layer prediction: is the same layer of another model (same data, other seed) the most similar one?

    Unless --measure alone is given, the encoder of the package, universal, is shown beside all others.
    Folders that hold stores of the same names are a data set each; every encoder is tested on each of them.
    """
    if hold_out_models and not (train or encoder):
        raise UsageError(
            "--hold-out-models is about models that encoders were not trained on; give --train or --encoder"
        )
    if encoder or train or not measure:
        measure = measure or ([] if encoder or train else ["cka"])
        encoder = list(dict.fromkeys([*(encoder or ()), Path(universal.NAME)]))
    tests, held_out = data_sets(stores), _held_out(stores, hold_out_models)
    for paths in tests.values():
        _check_pairs(paths, held_out, pairs is Pairs.all)
    options = t.TrainOptions(
        train, objective, recipe, seeds, train_seed, epochs, lr, train_batch_size, encoder_dir, dry_run, inputs, anchors
    )
    rows = Rows(standardize, shrinkage, standardize_from, anchor_store)
    common = Common(
        stores, measure, encoder, rank_tol, align, nan, rows, device, seed, memory, format, output, plot, force,
        trials, options, plot_pairs, plot_grids, tuple(dict.fromkeys(criterion or [Criterion.argmax])), zero_rows,
    )  # fmt: skip
    names, asked = common.check()
    from contrasim_cli.benchmarks.evaluation import Judge, layer_trials
    from contrasim_cli.cautions import check_familiar, compared, warn_few_rows
    from contrasim_cli.device import pick_device
    from contrasim_cli.memory import memory_budget

    where, budget = pick_device(device and device.value), memory_budget(asked)
    several = bool(train or held_out or len(tests) > 1)
    with ExitStack() as stack:
        opened = [_Opened.of(stack, common, name, paths, layers) for name, paths in tests.items()]
        train_sets = data_sets(options.stores)
        sets = [
            _Opened.of(stack, common, name, _kept(paths, held_out), layers).training_set
            for name, paths in train_sets.items()
        ]
        training = options.training("layers", seed, where, budget)
        if dry_run:
            common.show_plan(t.planned(sets, training, {"inputs": [str(path) for path in stores], "seed": seed}))
            return
        made = t.trained(sets, training, together=False)
        fixed = common.scorers(names)
        judges = [*map(Judge, fixed), *made]
        test_sets = _test_sets(opened, rows, judges, train_sets, several)
        for test in [] if held_out else test_sets:
            check_familiar(fixed, test.layers, test.standardizer, budget)
        for test in test_sets:
            warn_few_rows([j.scorer for j in judges], compared(test.views, test.layers), test.views[0].n_rows, max_rows)
        found = layer_trials(
            test_sets,
            judges,
            held_out,
            every_pair=pairs is Pairs.all,
            device=where,
            budget=budget,
            progress=console.progress,
            max_rows=max_rows,
            seed=seed,
        )
        about = {
            **opened[0].inputs.about(seed=seed, device=str(where), standardize=hows([j.scorer for j in judges])),
            **({"inputs": [str(path) for path in stores], **t.about(options, made)} if several else {}),
        }
        tested = [(one.name if len(opened) > 1 else "", one.inputs, distinct_names(one.paths)) for one in opened]
        facts = common.facts("layers", tested)
    common.report("layers", found, facts, about, several)


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


def _held_out(stores: Sequence[Path], count: int | None) -> frozenset[str]:
    """The names of the last models, in the order given."""
    return frozenset(list(dict.fromkeys(path.stem for path in stores))[-count:] if count else ())


def _kept(paths: Sequence[Path], held_out: frozenset[str]) -> list[Path]:
    """The stores to train on."""
    kept = [path for path in paths if path.stem not in held_out]
    if len(kept) < 2 and (not kept or kept[0].exists()):
        left = f"{len(kept)} model{'' if len(kept) == 1 else 's'}"
        raise UsageError(f"--train {quoted(paths[0].parent)}: encoders are trained on two models or more, found {left}")
    return kept


@dataclass(frozen=True)
class _Opened:
    """A data set, opened, with its layers chosen."""

    name: str
    paths: Sequence[Path]
    inputs: "Inputs"
    layers: Sequence[Sequence[str]]

    @classmethod
    def of(
        cls, stack: ExitStack, common: Common, name: str, paths: Sequence[Path], layers: Sequence[str] | None
    ) -> "_Opened":
        from contrasim_cli.commands.inputs import Inputs

        inputs = stack.enter_context(
            Inputs(paths, common.align, common.nan, common.zero_rows, [layers], o.parse_memory(common.memory))
        )
        return cls(name, paths, inputs, inputs.select(layers, embeddings=False))

    @property
    def training_set(self) -> "TrainingSet":
        from contrasim_cli.benchmarks.encoders import TrainingSet
        from contrasim_cli.training import Data

        return TrainingSet(self.name, Data(self.inputs.views, self.layers))


def _test_sets(
    opened: Sequence[_Opened],
    rows: Rows,
    judges: "Sequence[Judge]",
    train_sets: Mapping[str, Sequence[Path]],
    several: bool,
) -> "list[DataSet]":
    """What is tested on; stores whose statistics or anchors are taken are in the order of all stores."""
    from contrasim_cli.benchmarks.evaluation import DataSet

    made, done, scorers = [], 0, [judge.scorer for judge in judges]
    for one in opened:
        part = slice(done, done + len(one.paths)) if len(opened) > 1 else slice(None)
        sources, anchors = (rows.standardize_from or [])[part], (rows.anchor_stores or [])[part]
        own: dict[Anchoring, Sequence[Path]] = {}
        for train_set, paths in train_sets.items():
            trained_there = [judge for judge in judges if judge.origin.train == train_set]
            own |= t.anchors_of(trained_there, t.matched(one.paths, paths))
        standardizer = one.inputs.standardizer_of(sources, scorers, one.layers, anchors, own)
        name = one.name if several else ""
        made.append(DataSet(name, one.inputs.views, distinct_names(one.paths), one.layers, standardizer))
        done += len(one.paths)
    return made
