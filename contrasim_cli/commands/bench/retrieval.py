"""`contrasim bench multilingual` and `image-caption`: one retrieval protocol."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import by_stem
from contrasim_cli.commands import options as o
from contrasim_cli.commands import recipe as r
from contrasim_cli.commands.bench import training as t
from contrasim_cli.commands.bench.options import (
    Common,
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

if TYPE_CHECKING:
    import torch

    from contrasim_cli.anchors import Anchoring
    from contrasim_cli.benchmarks.encoders import TrainingSet
    from contrasim_cli.benchmarks.evaluation import Judge
    from contrasim_cli.benchmarks.items import Labels, Said, Siblings
    from contrasim_cli.benchmarks.retrieval_task import RetrievalTask
    from contrasim_cli.benchmarks.trials import Facts
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.scoring import Scorer
    from contrasim_cli.store import View


class Negatives(str, Enum):
    """Where wrong candidates come from."""

    random = "random"
    faiss = "faiss"


class Index(str, Enum):
    """How nearest neighbours are searched."""

    exact = "exact"
    ivf = "ivf"


IndexOption = Annotated[
    Index,
    typer.Option(
        "--index",
        help="Search of --negatives faiss: exact, or ivf, an inverted file, which is approximate, for large pools.",
    ),
]
NegativesOption = Annotated[
    list[Negatives] | None,
    typer.Option(
        "--negatives",
        help="random or faiss (nearest neighbours); repeat for both; default: random.",
        show_default=False,
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        help="Rows are of one item (five captions of an image) where this regular expression finds the same in their ids: its "
        "first group, or the whole match. Batches hold different items, and rows of one item are no wrong candidates.",
        show_default=False,
    ),
]
Groups = Annotated[
    Path | None,
    typer.Option("--groups", help="The same by a table: TSV or CSV of two columns, id and group.", show_default=False),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=2, help="Rows per batch.")]


def multilingual(
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
    anchor_side: t.AnchorSide = r.AnchorSide.both,
    inputs: t.InputsOption = r.RowsIn.raw,
    anchors: r.AnchorCount = None,
    encoder_dir: t.EncoderDir = None,
    dry_run: t.DryRun = False,
    negatives: NegativesOption = None,
    batch_size: BatchSize = 8,
    index: IndexOption = Index.exact,
    group_by: GroupBy = None,
    groups: Groups = None,
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
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    plot_pairs: PlotPairs = None,
    trials: TrialsFile = None,
    force: o.Force = False,
) -> None:
    """Retrieval over every ordered pair of views (languages); an encoder is not judged on the pair it was trained on.

    The trained pair is known by the names of the training stores' files. With --train, one encoder is trained on every pair.
    """
    options = t.TrainOptions(
        train, objective, recipe, seeds, train_seed, epochs, lr, train_batch_size, encoder_dir, dry_run, inputs, anchors,
        anchor_side,
    )  # fmt: skip
    rows = Rows(standardize, shrinkage, standardize_from, anchor_store)
    common = Common(
        stores, measure, encoder, rank_tol, align, nan, rows, device, seed, memory, format, output, plot, force,
        trials, options, plot_pairs, zero_rows=zero_rows,
    )  # fmt: skip
    if train and len(stores) < 3:
        raise UsageError(
            "--train: an encoder is judged on pairs of views that it was not trained on; give three views or more"
        )
    _Retrieval(
        common,
        "multilingual",
        [stores],
        negatives,
        batch_size,
        layers,
        layers,
        index=index,
        group_by=group_by,
        table=groups,
    ).run()


def image_caption(
    stores: o.Stores,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            "--captions",
            help="Store of captions; repeat for several: every store before it is one of images, and each is paired with each.",
            show_default=False,
        ),
    ] = None,
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
    anchor_side: t.AnchorSide = r.AnchorSide.both,
    inputs: t.InputsOption = r.RowsIn.raw,
    anchors: r.AnchorCount = None,
    encoder_dir: t.EncoderDir = None,
    dry_run: t.DryRun = False,
    negatives: NegativesOption = None,
    batch_size: BatchSize = 64,
    index: IndexOption = Index.exact,
    group_by: GroupBy = None,
    groups: Groups = None,
    candidates_from: Annotated[
        Path | None,
        typer.Option(
            "--candidates-from", help="Draw nearest neighbours from this larger store of captions.", show_default=False
        ),
    ] = None,
    layers: o.Layers = None,
    layers_a: o.LayersA = None,
    layers_b: o.LayersB = None,
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
    format: o.FormatOption = None,
    output: o.Output = None,
    plot: o.Plot = None,
    plot_pairs: PlotPairs = None,
    trials: TrialsFile = None,
    force: o.Force = False,
) -> None:
    """Retrieval from images into captions: of two stores, or of every store of images with every one of --captions."""
    options = t.TrainOptions(
        train, objective, recipe, seeds, train_seed, epochs, lr, train_batch_size, encoder_dir, dry_run, inputs, anchors,
        anchor_side,
    )  # fmt: skip
    rows = Rows(standardize, shrinkage, standardize_from, anchor_store)
    common = Common(
        [*stores, *(captions or ())], measure, encoder, rank_tol, align, nan, rows, device, seed, memory, format, output,
        plot, force, trials, options, plot_pairs, zero_rows=zero_rows,
    )  # fmt: skip
    if captions is None and len(stores) != 2:
        raise UsageError(
            f"bench image-caption compares two stores, images and captions, {len(stores)} given; "
            "for several, give those of captions with --captions"
        )
    compared = [stores] if captions is None else [list(pair) for pair in itertools.product(stores, captions)]
    if candidates_from and Negatives.faiss not in (negatives or []):
        raise UsageError("--candidates-from is where nearest neighbours come from; give --negatives faiss with it")
    if candidates_from and len(captions or [1]) > 1:
        raise UsageError(
            "--candidates-from is a larger store of the same captions; give one store of --captions with it"
        )
    _Retrieval(
        common,
        "image-caption",
        compared,
        negatives,
        batch_size,
        layers_a or layers,
        layers_b or layers,
        candidates_from,
        index,
        group_by,
        groups,
    ).run()


@dataclass(frozen=True)
class _Group:
    """Stores that are compared with each other, opened, and the layers of each in matching order."""

    paths: Sequence[Path]
    inputs: "Inputs"
    layers: list[list[str]]

    def part(self, name: str, chosen: Sequence[int]) -> "TrainingSet":
        """Some of them, to train on."""
        from contrasim_cli.benchmarks.encoders import TrainingSet
        from contrasim_cli.training import Data

        return TrainingSet(name, Data([self.inputs.views[k] for k in chosen], [self.layers[k] for k in chosen]))


@dataclass(frozen=True)
class _Retrieval:
    """One benchmark: all views, or pairs of images and captions."""

    common: Common
    benchmark: str
    groups: Sequence[Sequence[Path]]
    negatives: Sequence[Negatives] | None
    batch_size: int
    layers_a: Sequence[str] | None
    layers_b: Sequence[str] | None
    candidates_from: Path | None = None
    index: Index = Index.exact
    group_by: str | None = None
    table: Path | None = None

    @property
    def one_way(self) -> bool:
        """Whether retrieval goes from the first store into the second alone."""
        return self.benchmark == "image-caption"

    def run(self) -> None:
        """Everything from the checks to the results."""
        common, options = self.common, self.common.train
        if self.index is not Index.exact and Negatives.faiss not in self._negatives:
            raise UsageError(
                f"--index {self.index.value} is how nearest neighbours are searched; give --negatives faiss with it"
            )
        if self.group_by is not None and self.table:
            raise UsageError("--group-by and --groups both say what item a row is of; give one of them")
        names, asked = common.check()
        trainable = self._trainable(options.stores) if options else []
        from contrasim_cli.benchmarks.evaluation import Judge, retrieval_trials
        from contrasim_cli.cautions import check_familiar
        from contrasim_cli.device import pick_device
        from contrasim_cli.memory import memory_budget

        where, budget = pick_device(common.device and common.device.value), memory_budget(asked)
        said = self._said()
        with ExitStack() as stack:
            opened = [self._opened(stack, paths) for paths in self.groups]
            sets = [one for paths in trainable for one in self._training_sets(self._opened(stack, paths))]
            training = options.training("pairs", common.seed, where, budget)
            if options.dry_run:
                inputs = {"inputs": [str(path) for path in common.stores], "seed": common.seed}
                common.show_plan(t.planned(sets, training, inputs))
                return
            made = t.trained(sets, training, together=True)
            fixed = [Judge(scorer) for scorer in common.scorers(names)]
            tasks = self._tasks(stack, opened, fixed, made, trainable, said)
            for _, task, _ in tasks:
                if task.standardizer:
                    check_familiar([judge.scorer for judge in fixed], task.layers, task.standardizer, budget)
            found = retrieval_trials(
                tasks, hold_out=not self.one_way, device=where, budget=budget, progress=console.progress
            )
            about = self._about(opened, tasks, [*fixed, *made], where) | (t.about(options, made) if options else {})
            facts = self._facts(opened, tasks)
        common.report(self.benchmark, found, facts, about, several=bool(options) or len(self.groups) > 1)

    def _opened(self, stack: ExitStack, paths: Sequence[Path]) -> _Group:
        from contrasim_cli.commands.inputs import Inputs

        common, sides = self.common, [self.layers_a, self.layers_b]
        budget = o.parse_memory(common.memory)
        inputs = stack.enter_context(Inputs(paths, common.align, common.nan, common.zero_rows, sides, budget))
        first, second = inputs.select_sides(self.layers_a, self.layers_b, embeddings=False)
        return _Group(paths, inputs, [*first[:1], *second[1:]])

    # --- what is trained on -------------------------------------------------------------------------------------------

    def _trainable(self, stores: Sequence[Path]) -> list[list[Path]]:
        """The training stores of every group, in its order.

        Raises:
            UsageError: names do not match those of the tested stores.
        """
        tested = list(dict.fromkeys(path.stem for paths in self.groups for path in paths))
        if self.one_way and len(self.groups) == 1 and len(stores) == 2 and {p.stem for p in stores} != set(tested):
            return [list(stores)]  # images, captions
        known = by_stem(stores, "training stores")
        strange = [path for name, path in known.items() if name not in tested]
        if strange:
            raise UsageError(
                f"--train {quoted(strange[0])}: no tested store has this name; they are {', '.join(map(quoted, tested))}"
            )
        missing = [name for name in tested if name not in known]
        if missing and self.one_way:
            raise UsageError(f"--train: there is no training store of the name {', '.join(map(quoted, missing))}")
        found = [[known[path.stem] for path in paths if path.stem in known] for paths in self.groups]
        if len(found[0]) < 2:
            raise UsageError("--train takes a store for each side of a pair; give two or more")
        return found

    def _training_sets(self, group: _Group) -> "list[TrainingSet]":
        names = [path.stem for path in group.paths]
        count = range(len(names))
        both_orders = self.common.train.both_orders and not self.one_way
        pairs = [(i, j) for i in count for j in count if i < j or (both_orders and i != j)]
        return [group.part(f"{names[i]}-{names[j]}", [i, j]) for i, j in pairs]

    # --- what is compared ---------------------------------------------------------------------------------------------

    def _tasks(
        self,
        stack: ExitStack,
        opened: Sequence[_Group],
        fixed: "Sequence[Judge]",
        made: "Sequence[Judge]",
        trainable: Sequence[Sequence[Path]],
        said: "Said | None",
    ) -> "list[tuple[str, RetrievalTask, list[Judge]]]":
        """Every group with its name, where there are several, and who judges it."""
        each = len(made) // len(opened)
        tasks = []
        for k, group in enumerate(opened):
            own = made[k * each : (k + 1) * each]
            anchors = t.anchors_of(own, self._anchor_stores(group, trainable[k])) if own else {}
            judges = [*fixed, *own]
            task = self._task(stack, group, [judge.scorer for judge in judges], anchors, said)
            tasks.append(("-".join(task.names) if len(opened) > 1 else "", task, judges))
        return tasks

    def _anchor_stores(self, group: _Group, trained: Sequence[Path]) -> Sequence[Path]:
        return trained if self.one_way else t.matched(group.paths, trained)

    def _task(
        self,
        stack: ExitStack,
        group: _Group,
        scorers: "Sequence[Scorer]",
        anchors_of: "Mapping[Anchoring, Sequence[Path]]",
        said: "Said | None",
    ) -> "RetrievalTask":
        from contrasim_cli.benchmarks.retrieval import all_pairs
        from contrasim_cli.benchmarks.retrieval_task import RetrievalTask
        from contrasim_cli.store import View, open_store

        inputs, names = group.inputs, dict(zip(self.common.stores, distinct_names(self.common.stores), strict=True))
        pool = None
        if self.candidates_from:
            pool = open_store(self.candidates_from)
            stack.callback(pool.close)
        siblings, in_pool = self._siblings(group, View(pool) if pool else None, said)
        return RetrievalTask(
            views=inputs.views,
            names=[names[path] for path in group.paths],
            layers=group.layers,
            pairs=[(0, 1)] if self.one_way else all_pairs(len(inputs.views)),
            negatives=[kind.value for kind in self._negatives],
            batch_size=self.batch_size,
            seed=self.common.seed,
            index=self.index.value,
            candidates_from=View(pool) if pool else None,
            siblings=siblings,
            pool_labels=in_pool,
            standardizer=inputs.standardizer_of(
                self._own(group, self.common.rows.standardize_from),
                scorers,
                group.layers,
                self._own(group, self.common.rows.anchor_stores),
                anchors_of,
            ),
        )

    def _said(self) -> "Said | None":
        """What item an id is of, where somebody says so."""
        from contrasim_cli.benchmarks.items import by_pattern, by_table

        if self.group_by is not None:
            return by_pattern(self.group_by)
        return by_table(self.table) if self.table else None

    def _siblings(
        self, group: _Group, pool: "View | None", said: "Said | None"
    ) -> "tuple[Siblings | None, Sequence[Labels]]":
        """Which rows of a group belong to one item, and which rows of the pool of candidates do."""
        from contrasim_cli.benchmarks.items import find_siblings, labels_in_pool

        views = group.inputs.views
        named = next((view for view in views if view.store.ids), views[0])
        labels = said.labels(named) if said else None
        siblings = find_siblings(views, group.layers, labels, said.option if said else "")
        if siblings is None or pool is None:
            return siblings, ()
        in_pool = (labels, said.labels(pool)) if said and labels is not None else None
        return siblings, labels_in_pool(siblings, in_pool, views[-1], pool, group.layers[-1][-1])

    @property
    def _negatives(self) -> list[Negatives]:
        return list(dict.fromkeys(self.negatives or [Negatives.random]))

    def _own(self, group: _Group, sources: Sequence[Path] | None) -> Sequence[Path] | None:
        """A group's part of the stores whose statistics or anchors are taken: one for each tested store, in their order."""
        stores = self.common.stores
        if len(self.groups) == 1 or not sources or len(sources) != len(stores):
            return sources
        of = dict(zip(stores, sources, strict=True))
        return [of[path] for path in group.paths]

    # --- what is said of it -------------------------------------------------------------------------------------------

    def _about(
        self,
        opened: Sequence[_Group],
        tasks: "Sequence[tuple[str, RetrievalTask, list[Judge]]]",
        judges: "Sequence[Judge]",
        where: "torch.device",
    ) -> dict[str, Any]:
        common = self.common
        return (
            opened[0].inputs.about(
                seed=common.seed,
                device=str(where),
                batch_size=self.batch_size,
                standardize=hows([judge.scorer for judge in judges]),
            )
            | self._index()
            | self._items(tasks)
            | {"inputs": [str(path) for path in common.stores]}
        )

    def _items(self, tasks: "Sequence[tuple[str, RetrievalTask, list[Judge]]]") -> dict[str, Any]:
        """How many items rows belong to, and who says so, where there are fewer than rows."""
        found = [task.siblings.n_items for _, task, _ in tasks if task.siblings]
        said = {"group_by": self.group_by, "groups": self.table and str(self.table)}
        return {"items": found} | {name: value for name, value in said.items() if value} if found else {}

    def _index(self) -> dict[str, Any]:
        return {} if self.index is Index.exact else {"index": self.index.value}

    def _facts(self, opened: Sequence[_Group], tasks: "Sequence[tuple[str, RetrievalTask, list[Judge]]]") -> "Facts":
        tested = [(name, group.inputs, task.names) for group, (name, task, _) in zip(opened, tasks, strict=True)]
        pool = tasks[0][1].candidates_from
        source = (pool.store.ids.digest if pool.store.ids else str(pool.n_rows)) if pool else ""
        facts = self.common.facts(
            self.benchmark,
            tested,
            batch_size=self.batch_size,
            seed=self.common.seed if Negatives.random in self._negatives else None,
            candidates=source if self.index is Index.exact else f"{source} {self.index.value}",
        )
        sets = [
            replace(one, items=task.siblings.digest, blocks=task.siblings.cut(task.batch_size)[1].tolist())
            if task.siblings
            else one
            for one, (_, task, _) in zip(facts.tested_on, tasks, strict=True)
        ]
        return replace(facts, tested_on=sets)
