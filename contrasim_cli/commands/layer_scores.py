"""What `score` and `baseline` share: every layer of every store against every layer of the stores after it."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contrasim_cli import console, distributed
from contrasim_cli.commands import record
from contrasim_cli.commands.emit import Output
from contrasim_cli.commands.inputs import Inputs, Rows, note_trained
from contrasim_cli.commands.options import Compute, Confidence, Standardizing, at_least
from contrasim_cli.commands.rows_plot import RowsPlot, draw_rows
from contrasim_cli.report.results import CEILING, Results, ScoreRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from contrasim_cli.cautions import Compared
    from contrasim_cli.confidence import Asked
    from contrasim_cli.grid import Cell
    from contrasim_cli.grid.grid import Plan
    from contrasim_cli.nulls import Standing
    from contrasim_cli.scoring import Scorer
    from contrasim_cli.store import View
    from contrasim_cli.transforms import Standardizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The options of a comparison."""

    command: str
    stores: Sequence[Path]
    rows: Rows
    standardizing: Standardizing
    confidence: Confidence
    compute: Compute
    output: Output
    rows_plot: RowsPlot = field(default_factory=RowsPlot)
    repeats: Sequence[Path] = ()  # of the last store
    ceiling: "Callable[[Sequence[torch.Tensor]], tuple[float, float]] | None" = (
        None  # of `rsa`, from a layer and its repeats
    )
    repeats_distance: str | None = None  # across the last store and its repeats
    groups: str | None = None  # what rows held out together share: their ids up to this
    beside: "Callable[[], Sequence[Scorer]]" = list  # measures that a page shows besides those asked for

    @property
    def read(self) -> list[Path]:
        """The stores that are read."""
        how = self.standardizing
        return [*self.stores, *self.repeats, *(how.standardize_from or ()), *(how.anchor_stores or ())]


@dataclass(frozen=True, kw_only=True)
class _Unasked(Confidence):
    """What is found of measures that nobody asked for: what shuffled rows score, where that is exact."""

    levels: ClassVar = True


@dataclass
class Found:
    """What grids over rows in one form after another come to: scores, confidence, and how they were found."""

    request: Request
    plan: "Plan"
    scorers: Sequence["Scorer"]
    device: "torch.device"
    budget: int
    scores: dict[tuple[int, int, int], "npt.NDArray[np.float64]"] = field(default_factory=dict)
    confidence: dict["Cell", Any] = field(default_factory=dict)
    standings: dict[tuple[int, int, int], "Standing"] = field(default_factory=dict)
    strangers: dict[int, frozenset[int]] = field(default_factory=dict)  # views that are not calibrated, by scorer
    ceilings: dict[tuple[int, str], tuple[float, float]] = field(
        default_factory=dict
    )  # by scorer and layer of the last store
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> "Asked":
        """What confidence is asked for."""
        from contrasim_cli.confidence import Asked

        how = self.request.confidence
        seed = self.request.compute.seed
        return Asked(how.bootstrap or 0, how.permutations or 0, how.confidence_rows, seed, how.null or 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are shown because they were asked for, or because a scorer brings its null."""
        ceiling = CEILING if self.request.ceiling else ()
        asked = self.request.confidence.null
        if asked == 0 or not (asked or self.standings):
            return (*self.asked.columns, *ceiling)
        learned = any(scorer.checkpoint for scorer in self.scorers)

        def known(column: str) -> bool:
            parts = (getattr(standing, column).ravel().tolist() for standing in self.standings.values())
            return not all(map(math.isnan, chain.from_iterable(parts)))

        levels, is_judged = known("null"), bool(learned or asked) or known("null_z")
        shown = {"calibrated": learned, "null_z": is_judged, "null_p": bool(learned or asked), "null": levels}
        return (*self.asked.columns, *(name for name, is_shown in shown.items() if is_shown), *ceiling)

    def add(self, plan: "Plan", members: Sequence[int]) -> None:
        """Work off the scorers at these positions, on the rows of this plan's views."""
        from contrasim_cli.confidence import Resampling
        from contrasim_cli.grid import Grid, layer_grids
        from contrasim_cli.nulls import exact

        options, scorers = self.request.compute, [self.scorers[s] for s in members]
        grid = Grid(
            plan,
            scorers,
            self.device,
            self.budget,
            options.precision,
            options.seed,
            console.progress,
            self.request.confidence.null,
            levels=self.request.confidence.levels and self.request.confidence.null != 0,
        )
        resampling = Resampling(grid, self.asked) if self.asked.any else None
        self.scores |= {(members[s], a, b): scores for (s, a, b), scores in layer_grids(grid).items()}
        if resampling:
            from contrasim_cli.confidence.compute import compute

            confidences = compute(resampling)
            self.confidence |= {(members[s], x, y): sure for (s, x, y), sure in confidences.items()}
            _merge(self.about, resampling.about)
            resampling.note()
        for s, (a, b) in product(range(len(members)), plan.pairs):
            if (s, a, b) not in grid.nulls and (levels := grid.shuffled_of(s, a, b)):
                grid.nulls[s, a, b] = exact(*levels)
        for (s, a, b), null in grid.nulls.items():
            key = members[s], a, b
            self.standings[key] = null.standing(self.scores[key])

    def warn(self, layers: "Sequence[Compared]") -> None:
        """Say which pairs of stores have no closed-form score that clears its null, and what has none although rows are few."""
        from contrasim_cli.cautions import warn_unclear, warn_unheld

        closed = {s: scorer for s, scorer in enumerate(self.scorers) if not scorer.checkpoint}
        if self.request.confidence.null is None and not self.request.confidence.permutations:
            held = {s for s, _, _ in self.standings}
            warn_unheld([scorer for s, scorer in closed.items() if s not in held], layers, self.plan.n_rows)
        for a, b in self.plan.pairs:
            standings = {closed[s].name: self.standings[s, a, b] for s in closed if (s, a, b) in self.standings}
            warn_unclear(standings, [self.plan.views[v].store for v in (a, b)])

    def work(self, standardizer: "Standardizer", layers: Sequence[Sequence[str]]) -> None:
        """Work off all scorers, those together that take rows in one form."""
        from contrasim_cli.scoring import by_standardization

        for how, members in by_standardization(self.scorers).items():
            views = standardizer.views(how, layers, self.budget, console.progress)
            across = [s for s in members if self.scorers[s].measure.prepare_repeats is not None]
            if across:
                self.add(replace(self.plan, views=self._repeated(views)), across)
            if alone := [s for s in members if s not in across]:
                self.add(replace(self.plan, views=views), alone)
            if self.request.ceiling is not None:
                self._add_ceilings(views, [s for s in members if self.scorers[s].entry.name == "rsa"])

    def _repeated(self, views: "Sequence[View]") -> "list[View]":
        """The stores' views, of which the last holds its repeats side by side.

        Raises:
            MismatchError: a layer of a repeat has another width.
        """
        from contrasim_cli.store.beside import repeated

        last = len(self.request.stores) - 1
        layers = list(dict.fromkeys([*self.plan.first[last], *self.plan.second[last]]))
        pairing = f"; --repeats-distance {self.request.repeats_distance} takes the same neurons of each"
        return [*views[:last], repeated(views[last:], layers, pairing)]

    def _add_ceilings(self, views: "Sequence[View]", members: Sequence[int]) -> None:
        """The noise ceiling of every layer of the last store, from its rows and those of its repeats.

        Raises:
            InputError: the matrices of all repeats do not fit the budget.
        """
        from contrasim_cli.arrays import as_tensor
        from contrasim_cli.errors import InputError
        from contrasim_cli.names import quoted

        repeats = views[len(self.request.stores) - 1 :]
        need = 8 * len(repeats) * self.plan.n_rows**2
        if members and need > self.budget:
            raise InputError(
                f"--repeats: the matrices of {len(repeats)} repeats of {self.plan.n_rows} rows need about {need / 2**30:.1f} GiB, "
                f"--memory allows {self.budget / 2**30:.1f}; raise it or give --max-rows"
            )
        if members:
            text = (
                "rsa: scores are with %s alone, and noise ceilings are means over it and its repeats; "
                "compare them with the mean of the scores with each of these"
            )
            log.info(text, quoted(self.request.stores[-1]))
        for s, layer in product(members, self.plan.second[len(self.request.stores) - 1]):
            assert self.request.ceiling is not None
            self.ceilings[s, layer] = self.request.ceiling(
                [as_tensor(view.read(layer), self.device) for view in repeats]
            )

    def rows(self, names: Sequence[str]) -> list[ScoreRow]:
        """One row per scorer and pair of layers, pairs of stores first."""
        from contrasim_cli.confidence import Confidence as Sure

        first, second, last = self.plan.first, self.plan.second, len(self.request.stores) - 1
        rows = []
        for a, b in self.plan.pairs:
            for s, scorer in enumerate(self.scorers):
                for (i, layer_a), (j, layer_b) in product(enumerate(first[a]), enumerate(second[b])):
                    score = _score_or_none(self.scores[s, a, b][i, j])
                    sure = self.confidence.get((s, (a, layer_a), (b, layer_b)), Sure())
                    stands = self._standing(s, a, b, i, j)
                    row = ScoreRow(scorer.name, names[a], layer_a, names[b], layer_b, score, *sure, *stands)
                    if b == last and (s, layer_b) in self.ceilings:
                        low, high = (None if math.isnan(end) else end for end in self.ceilings[s, layer_b])
                        row = replace(row, ceiling_low=low, ceiling_high=high)
                    rows.append(row)
        return rows

    def _standing(self, s: int, a: int, b: int, i: int, j: int) -> list[float | None]:
        """The columns of a cell between chance and identity; nothing where the scorer has no null."""
        if (s, a, b) not in self.standings:
            return []
        standing = [_score_or_none(part[i, j]) for part in self.standings[s, a, b]]
        return [None, *standing[1:]] if self.strangers.get(s, frozenset()) & {a, b} else standing


def _score_or_none(value: "np.float64") -> float | None:
    return None if math.isnan(value) else float(value)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Add nested entries to a dictionary."""
    for key, value in more.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _match_repeats(request: Request, inputs: Inputs, second: list[list[str]]) -> None:
    """Choose the layers of the last store in each of its repeats, and no others.

    Raises:
        MismatchError: a repeat lacks one.
    """
    from contrasim_cli.errors import MismatchError, raise_all
    from contrasim_cli.names import quoted

    last = len(request.stores) - 1
    stores = inputs.stores[last:]
    missing = [(s, name) for s in stores[1:] for name in second[last] if name not in s.layers]
    raise_all(
        [
            MismatchError(
                f"{quoted(s.path)}: has no layer {quoted(name)}, which it should repeat from {quoted(stores[0].path)}"
            )
            for s, name in missing
        ]
    )
    for k in range(last + 1, len(inputs.stores)):
        second[k] = list(second[last])


def compare(request: Request, make_scorers: Callable[[], Sequence["Scorer"]]) -> None:
    """Compare every pair of stores, a before b in the order given, and report."""
    names = _checked(request)
    room = request.compute.memory_asked
    from contrasim_cli.cautions import check_familiar, compared, note_twice, warn_few_rows
    from contrasim_cli.errors import raise_all
    from contrasim_cli.grid.grid import Plan
    from contrasim_cli.scoring import by_groups
    from contrasim_cli.store.groups import groups_of
    from contrasim_cli.store.origin import with_origin
    from contrasim_cli.transforms import plain

    request.compute.check()
    scorers = make_scorers()
    most, seed = request.compute.max_rows, request.compute.seed
    with Inputs([*request.stores, *request.repeats], request.rows, room, most, seed) as inputs:
        first, second = inputs.select_sides(repeats=len(request.repeats))
        _match_repeats(request, inputs, second)
        if request.groups is not None:
            scorers = by_groups(scorers, groups_of(inputs.views, request.groups))
        plan = Plan(inputs.views, list(combinations(range(len(request.stores)), 2)), first, second)
        raise_all([problem for scorer in scorers for problem in plan.problems(scorer)])
        device, budget = request.compute.resolve(_work(request, plan, scorers))
        layers = [list(dict.fromkeys([*a, *b])) for a, b in zip(first, second, strict=True)]
        standardizer = inputs.standardizer_of(request.standardizing, scorers, layers)
        note_twice(inputs.stores)
        note_trained(scorers, inputs.views)
        _note_null(request.confidence, scorers)
        warn_few_rows(scorers, compared(inputs.views, layers), plan.n_rows)
        comparison = Found(request, plan, scorers, device, budget)
        comparison.strangers = check_familiar(scorers, layers, standardizer, budget)
        comparison.work(standardizer, layers)
        inputs.check_zero_rows()
        comparison.warn(compared(inputs.views, layers))
        names = with_origin(names, inputs.stores[: len(names)])
        rows = comparison.rows(names)
        beside, within = list[ScoreRow](), list[ScoreRow]()
        if request.output.report or request.output.figures.within:
            beside, within = _for_figures(comparison, standardizer, layers, names)
        if request.rows_plot.paths and distributed.first():
            last = [(a or b)[-1] for a, b in zip(first, second, strict=True)]
            with distributed.alone():
                draw_rows(
                    request.rows_plot,
                    inputs,
                    last,
                    scorers,
                    standardizer,
                    device=device,
                    budget=budget,
                    seed=request.compute.seed,
                    names=names,
                    force=request.output.force,
                    look=request.output.figures.look(),
                )
        hows = {scorer.name: plain(scorer.standardize) for scorer in scorers}
        about = inputs.about(seed=seed, max_rows=most, device=str(device), standardize=hows, **comparison.about)
        if request.output.records:
            about |= record.of_inputs(inputs.stores, scorers)
        every = {name: list(store.layers) for name, store in zip(names, inputs.stores, strict=False)}
    results = Results(request.command, ScoreRow, rows, about, comparison.columns, within, beside, every)
    request.output.emit(results)


def _note_null(how: Confidence, scorers: Sequence["Scorer"]) -> None:
    """Say how encoders of rows are held against shuffled rows, where nothing of it was said."""
    from contrasim_cli.names import listed

    without = [scorer.name for scorer in scorers if scorer.checkpoint and not scorer.stacked]
    if without and how.null is None and not how.permutations:
        log.info("%s: scores have no fixed zero; --null 99 shows what shuffled rows score", listed(without))


def _checked(request: Request) -> list[str]:
    """Refuse what can be refused before anything is read; the names of the stores."""
    at_least(request.stores, 2, request.command)
    request.output.check(inputs=request.read)
    request.output.figures.check_labels(request.stores)
    names = request.output.figures.names(request.stores)
    request.rows_plot.check(request.stores, request.output.force)
    return names


def _work(request: Request, plan: "Plan", scorers: Sequence["Scorer"]) -> float:
    """About how many multiplications are asked for."""
    from contrasim_cli.grid.work import multiplications

    return multiplications(plan, scorers, request.confidence.replicates, request.compute.precision)


def _for_figures(
    comparison: Found, standardizer: "Standardizer", layers: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """What figures show besides: on a page, measures that were not asked for; and the layers of every store against each other.

    What is to be said of rows was said of the scores that were asked for.
    """
    request = replace(comparison.request, confidence=_Unasked(), ceiling=None)
    asked, plan = list(comparison.scorers), comparison.plan
    with console.quietly():
        candidates = request.beside() if request.output.report else ()
        others = [scorer for scorer in candidates if scorer.name not in [one.name for one in asked]]
        others = [scorer for scorer in others if not plan.problems(scorer)]
        device = request.compute.resolve()[0] if others else comparison.device
        beside = Found(request, plan, others, device, comparison.budget)
        beside.work(standardizer, layers)
        alone = replace(request, confidence=replace(request.confidence, null=0))
        own = replace(plan, pairs=[(k, k) for k in range(len(request.stores))], first=layers, second=layers)
        within = Found(alone, own, [*others, *asked], device, comparison.budget)
        within.work(standardizer, layers)
    return beside.rows(names), within.rows(names)
