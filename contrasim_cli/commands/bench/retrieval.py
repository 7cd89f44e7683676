"""`contrasim bench multilingual` and `image-caption`: one retrieval protocol."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from contrasim_cli import console
from contrasim_cli.benchmarks import by_stem
from contrasim_cli.commands import options as o
from contrasim_cli.commands import record
from contrasim_cli.commands.bench import training as t
from contrasim_cli.commands.bench.options import BenchOutput, BenchStandardizing, Common, Judged, hows
from contrasim_cli.commands.figures import Figures
from contrasim_cli.commands.inputs import Inputs, Rows, SidedRows, note_embeddings, note_trained
from contrasim_cli.errors import MismatchError, UsageError
from contrasim_cli.names import quoted

if TYPE_CHECKING:
    import torch

    from contrasim_cli.anchors import Anchoring
    from contrasim_cli.benchmarks.encoders import TrainingSet
    from contrasim_cli.benchmarks.evaluation import Judge
    from contrasim_cli.benchmarks.items import Labels, Said, Siblings
    from contrasim_cli.benchmarks.retrieval_task import RetrievalTask
    from contrasim_cli.benchmarks.trials import Facts
    from contrasim_cli.scoring import Scorer
    from contrasim_cli.store import View


log = logging.getLogger(__name__)


class Negatives(str, Enum):
    """Where wrong candidates come from."""

    random = "random"
    faiss = "faiss"


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What rows are compared with."""

    PANEL: ClassVar = "Batches and negatives"
    kinds: Annotated[
        list[Negatives] | None,
        typer.Option("--negatives", help="random or faiss (nearest neighbours); repeat for both; default: random."),
    ] = None
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Rows per batch.")] = 8
    index: Annotated[
        Literal["exact", "ivf"],
        typer.Option(
            "--index",
            help="Search of --negatives faiss: exact, or ivf (inverted file): approximate, for large pools.",
        ),
    ] = "exact"
    candidates_from: Path | None = None
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="Rows belong to one item (five captions of an image) if this regular expression finds the same text in their ids: "
            "its first group, or the whole match. Batches hold one row per item; rows of one item are never wrong candidates.",
        ),
    ] = None
    groups: Annotated[
        Path | None,
        typer.Option("--groups", help="As --group-by, from a table: TSV or CSV with two columns, id and group."),
    ] = None
    holdout: Annotated[
        bool,
        typer.Option("--holdout", help="Test only on rows that no --encoder was trained on, by their ids."),
    ] = False

    @property
    def negatives(self) -> list[str]:
        """The kinds of negatives, each once."""
        return list(dict.fromkeys(kind.value for kind in self.kinds or [Negatives.random]))

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: there are such.
        """
        if self.candidates_from and "faiss" not in self.negatives:
            raise UsageError("--candidates-from is where nearest neighbours come from; give --negatives faiss with it")
        if self.index != "exact" and "faiss" not in self.negatives:
            raise UsageError(
                f"--index {self.index} is how nearest neighbours are searched; give --negatives faiss with it"
            )
        if self.group_by is not None and self.groups:
            raise UsageError("--group-by and --groups both say which item a row belongs to; give one of them")

    def said(self) -> "Said | None":
        """What item an id is of, where somebody says so."""
        from contrasim_cli.benchmarks.items import by_pattern, by_table

        if self.group_by is not None:
            return by_pattern(self.group_by)
        return by_table(self.groups) if self.groups else None


@dataclass(frozen=True, kw_only=True)
class CaptionBatches(Batches):
    """The batches of a benchmark of images and captions."""

    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Rows per batch.")] = 64
    candidates_from: Annotated[
        Path | None,
        typer.Option("--candidates-from", help="Draw nearest neighbours from this larger store of captions."),
    ] = None


def multilingual(
    stores: o.Stores,
    judged: Judged,
    training: t.PairOptions,
    batches: Batches,
    rows: Rows,
    standardizing: BenchStandardizing,
    compute: o.SharedCompute,
    output: BenchOutput,
    figures: Figures,
) -> None:
    """Retrieval over every ordered pair of views (languages); an encoder is not judged on the pair it was trained on.

    The trained pair is known by the names of the training stores' files. With --train, one encoder is trained on every pair.
    Without --layers, every layer except hidden_0 (the embeddings) is tested.
    """
    common = Common(stores, judged, rows, standardizing, compute, replace(output, figures=figures), training)
    common = replace(common, also_read=(batches.groups,))
    if training.train and len(stores) < 3:
        raise UsageError(
            "--train: an encoder is judged on pairs of views that it was not trained on; give three views or more"
        )
    _Retrieval(common, "multilingual", [stores], batches).run()


def image_caption(
    stores: o.Stores,
    judged: Judged,
    training: t.PairOptions,
    batches: CaptionBatches,
    rows: SidedRows,
    standardizing: BenchStandardizing,
    compute: o.SharedCompute,
    output: BenchOutput,
    figures: Figures,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            "--captions",
            help="Store of captions; repeat for several. All other stores then hold images, and each is paired with each.",
        ),
    ] = None,
) -> None:
    """Retrieval of captions for images: for two stores, or for every store of images with every store of --captions.

    Without --layers, every layer except hidden_0 (the embeddings) is tested.
    """
    common = Common(
        [*stores, *(captions or ())], judged, rows, standardizing, compute, replace(output, figures=figures), training
    )
    common = replace(common, also_read=(batches.groups, batches.candidates_from))
    if not captions and len(stores) != 2:
        raise UsageError(
            f"bench image-caption compares two stores, images and captions, {len(stores)} given; "
            "for several, give those of captions with --captions"
        )
    compared = [list(pair) for pair in itertools.product(stores, captions)] if captions else [stores]
    if batches.candidates_from and len(captions or [1]) > 1:
        raise UsageError(
            "--candidates-from is a larger store of the same captions; give one store of --captions with it"
        )
    _Retrieval(common, "image-caption", compared, batches).run()


@dataclass(frozen=True)
class _Group:
    """Stores that are compared with each other, opened, and the layers of each in matching order."""

    paths: Sequence[Path]
    inputs: Inputs
    layers: list[list[str]]

    def part(self, name: str, places: Sequence[int]) -> "TrainingSet":
        """Some of them, to train on."""
        from contrasim_cli.benchmarks.encoders import TrainingSet
        from contrasim_cli.training import Data

        return TrainingSet(name, Data([self.inputs.views[k] for k in places], [self.layers[k] for k in places]))


def _nothing_held_out(path: Path, rows: int, known: bool) -> str:
    """Why there are no rows to test on."""
    if known:
        return (
            f"{quoted(path)}: --holdout: the encoders were trained on all {rows} rows; train with --holdout 0.2, or give stores of "
            "other rows"
        )
    return (
        f"{quoted(path)}: --holdout knows rows by their ids, which the stores or the encoder do not have; train again, on stores "
        "with ids"
    )


@dataclass(frozen=True)
class _Retrieval:
    """One benchmark: all views, or pairs of images and captions."""

    common: Common
    benchmark: str
    groups: Sequence[Sequence[Path]]
    batches: Batches

    @property
    def one_way(self) -> bool:
        """Whether retrieval goes from the first store into the second alone."""
        return self.benchmark == "image-caption"

    def run(self) -> None:
        """Run the benchmark from its checks to its results."""
        common, options = self.common, self.common.train
        self.batches.check()
        names, _ = common.check()
        trainable = self._trainable(options.stores) if options else []
        from contrasim_cli.benchmarks.evaluation import Judge, retrieval_trials
        from contrasim_cli.cautions import check_familiar

        common.compute.check()
        said = self.batches.said()
        with ExitStack() as stack:
            opened = [self._opened(stack, paths) for paths in self.groups]
            taught = [self._opened(stack, paths) for paths in trainable]
            note_embeddings([group.inputs for group in (*opened, *taught)])
            sets = [train_set for group in taught for train_set in self._training_sets(group)]
            training = options.training("pairs", common.compute.seed, *common.compute.resolve()) if options else None
            if training and options.dry_run:
                inputs = {"inputs": [str(path) for path in common.stores], "seed": common.compute.seed}
                common.output.emit(t.planned(sets, training, inputs), files=False)
                return
            trained_judges = t.trained(sets, training, together=True) if training else []
            fixed = [Judge(scorer) for scorer in common.scorers(names)]
            unseen = self._hold_out(opened, [judge.scorer for judge in fixed])
            tasks = self._tasks(stack, opened, fixed, trained_judges, trainable, said)
            scorers = [judge.scorer for judge in (*fixed, *trained_judges)]
            device, budget = common.compute.resolve(sum(task.multiplications(scorers) for _, task, _ in tasks))
            for _, task, _ in tasks:
                if task.standardizer:
                    check_familiar([judge.scorer for judge in fixed], task.layers, task.standardizer, budget)
            trials = retrieval_trials(
                tasks,
                hold_out=not self.one_way,
                device=device,
                budget=budget,
                progress=console.progress,
                unseen=unseen,
            )
            about = self._about(opened, tasks, [*fixed, *trained_judges], device) | (
                t.about(options, trained_judges) if options else {}
            )
            if common.output.records:
                stores = [store for group in opened for store in group.inputs.stores]
                about |= record.of_inputs(stores, [judge.scorer for judge in fixed])
            facts = self._facts(opened, tasks)
        common.report(self.benchmark, trials, facts, about, several=bool(options) or len(self.groups) > 1)

    def _opened(self, stack: ExitStack, paths: Sequence[Path]) -> _Group:
        inputs = stack.enter_context(Inputs(paths, self.common.rows, self.common.compute.memory_asked))
        first, second = inputs.select_sides(embeddings=False)
        return _Group(paths, inputs, [*first[:1], *second[1:]])

    def _hold_out(self, opened: Sequence[_Group], scorers: "Sequence[Scorer]") -> bool:
        """Leave out rows that encoders were trained on, if asked for, or if a pair of stores is all there is; whether none is left.

        Raises:
            UsageError: there is no encoder.
            MismatchError: nobody knows which rows were trained on, or all were.
        """
        from contrasim_cli.cautions import note_twice

        for group in opened:
            note_twice(group.inputs.stores)
        encoders = [scorer for scorer in scorers if scorer.encoder]
        if not encoders:
            if self.batches.holdout:
                raise UsageError("--holdout tests on rows that encoders were not trained on; give --encoder")
            return False
        from contrasim_cli.trained_rows import TrainedIds, kept, unseen_rows

        trained = [TrainedIds.of(scorer.checkpoint.provenance) for scorer in encoders if scorer.checkpoint]
        free = True
        for group in opened:
            views = group.inputs.views
            unseen, count = unseen_rows(views, trained), views[0].n_rows
            some = int(unseen.sum()) if unseen is not None else 0
            if self.batches.holdout and not some:
                raise MismatchError(_nothing_held_out(views[0].store.path, count, known=unseen is not None))
            if unseen is not None and 0 < some < count and (self.batches.holdout or len(views) == 2):
                group.inputs.views = kept(views, unseen)
                path = quoted(views[0].store.path)
                log.info("%s: tested on the %d of %d rows that no encoder was trained on", path, some, count)
            note_trained(encoders, group.inputs.views)
            free = free and some > 0 and (some == count or group.inputs.views is not views)
        return free

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
        training_groups = [[known[path.stem] for path in paths if path.stem in known] for paths in self.groups]
        if len(training_groups[0]) < 2:
            raise UsageError("--train takes a store for each side of a pair; give two or more")
        return training_groups

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
        trained_judges: "Sequence[Judge]",
        trainable: Sequence[Sequence[Path]],
        said: "Said | None",
    ) -> "list[tuple[str, RetrievalTask, list[Judge]]]":
        """Every group with its name, where there are several, and who judges it."""
        each = len(trained_judges) // len(opened)
        tasks = []
        for k, group in enumerate(opened):
            own = trained_judges[k * each : (k + 1) * each]
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
        from contrasim_cli.store.origin import with_origin

        inputs, names = (
            group.inputs,
            dict(zip(self.common.stores, self.common.output.figures.names(self.common.stores), strict=True)),
        )
        pool = None
        if self.batches.candidates_from:
            pool = open_store(self.batches.candidates_from)
            stack.callback(pool.close)
        siblings, in_pool = self._siblings(group, View(pool) if pool else None, said)
        return RetrievalTask(
            views=inputs.views,
            names=with_origin([names[path] for path in group.paths], inputs.stores),
            layers=group.layers,
            pairs=[(0, 1)] if self.one_way else all_pairs(len(inputs.views)),
            negatives=self.batches.negatives,
            batch_size=self.batches.batch_size,
            seed=self.common.compute.seed,
            index=self.batches.index,
            candidates_from=View(pool) if pool else None,
            siblings=siblings,
            pool_labels=in_pool,
            standardizer=inputs.standardizer_of(self._own(group), scorers, group.layers, anchors_of),
        )

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

    def _own(self, group: _Group) -> BenchStandardizing:
        """With a group's part of the stores whose statistics or anchors are taken: one for each tested store, in their order."""
        how, stores = self.common.standardizing, self.common.stores

        def part(sources: list[Path] | None) -> list[Path] | None:
            if len(self.groups) == 1 or not sources or len(sources) != len(stores):
                return sources
            of = dict(zip(stores, sources, strict=True))
            return [of[path] for path in group.paths]

        return replace(how, standardize_from=part(how.standardize_from), anchor_stores=part(how.anchor_stores))

    # --- what is said of it -------------------------------------------------------------------------------------------

    def _about(
        self,
        opened: Sequence[_Group],
        tasks: "Sequence[tuple[str, RetrievalTask, list[Judge]]]",
        judges: "Sequence[Judge]",
        device: "torch.device",
    ) -> dict[str, Any]:
        common = self.common
        return (
            opened[0].inputs.about(
                seed=common.compute.seed,
                device=str(device),
                batch_size=self.batches.batch_size,
                standardize=hows([judge.scorer for judge in judges]),
            )
            | ({} if self.batches.index == "exact" else {"index": self.batches.index})
            | self._items(tasks)
            | {"inputs": [str(path) for path in common.stores]}
        )

    def _items(self, tasks: "Sequence[tuple[str, RetrievalTask, list[Judge]]]") -> dict[str, Any]:
        """How many items rows belong to, and who says so, where there are fewer than rows."""
        counts = [task.siblings.n_items for _, task, _ in tasks if task.siblings]
        options = {"group_by": self.batches.group_by, "groups": self.batches.groups and str(self.batches.groups)}
        return {"items": counts} | {name: value for name, value in options.items() if value} if counts else {}

    def _facts(self, opened: Sequence[_Group], tasks: "Sequence[tuple[str, RetrievalTask, list[Judge]]]") -> "Facts":
        tested = [(name, group.inputs, task.names) for group, (name, task, _) in zip(opened, tasks, strict=True)]
        pool = tasks[0][1].candidates_from
        source = (pool.store.ids.digest if pool.store.ids else str(pool.n_rows)) if pool else ""
        facts = self.common.facts(
            self.benchmark,
            tested,
            batch_size=self.batches.batch_size,
            seed=self.common.compute.seed if "random" in self.batches.negatives else None,
            candidates=source if self.batches.index == "exact" else f"{source} {self.batches.index}",
        )
        sets = [
            replace(tested_set, items=task.siblings.digest, blocks=task.siblings.cut(task.batch_size)[1].tolist())
            if task.siblings
            else tested_set
            for tested_set, (_, task, _) in zip(facts.tested_on, tasks, strict=True)
        ]
        return replace(facts, tested_on=sets)
