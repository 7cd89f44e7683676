"""The options that all benchmarks have."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from contrasim_cli import distributed
from contrasim_cli.commands import complete
from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.training import TrainOptions
from contrasim_cli.commands.emit import FIGURE_FORMATS, PlottedOutput, check_plots
from contrasim_cli.commands.inputs import Rows
from contrasim_cli.errors import UsageError
from contrasim_cli.measures import Options, check_names
from contrasim_cli.output_files import check_output
from contrasim_cli.report.results import ALL, MONOTONICITY, SEVERAL, BenchRow, Results

if TYPE_CHECKING:
    from contrasim_cli.benchmarks.outcomes import Trials
    from contrasim_cli.benchmarks.trials import Facts
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.report.heat_maps import HeatMap
    from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)

MANY = "bench has many, give --format tsv"
FEWEST_TRIALS = 20


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Which measures and encoders are judged."""

    PANEL: ClassVar = "Measures and encoders"
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="A closed form (contrasim baseline --list shows them); repeat for several; default: cka without --encoder and "
            "--train.",
            autocompletion=complete.measures,
        ),
    ] = None
    encoder: Annotated[
        list[Path] | None,
        typer.Option(
            "--encoder",
            help="Encoder made by contrasim train, or universal, the package's encoder; repeat for several.",
        ),
    ] = None
    rank_tol: o.RankTol = 1e-6
    shape_alpha: o.ShapeAlpha = 0.5

    def settings(self, seed: int) -> Options:
        """The parameters of measures."""
        return Options(rank_tol=self.rank_tol, shape_alpha=self.shape_alpha, seed=seed)


@dataclass(frozen=True, kw_only=True)
class BenchStandardizing(o.EncoderStandardizing):
    """What is done to rows before closed forms; encoders bring their own."""

    standardize: Annotated[
        o.StandardizeName | None,
        typer.Option(
            "--standardize",
            help="Standardise rows for --measure: none, center, zscore or whiten; default: none. Encoders have their own setting.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BenchOutput(PlottedOutput):
    """Results, their pictures, and every trial."""

    plot_pairs: Annotated[
        list[Path] | None,
        typer.Option("--plot-pairs", help=f"Draw the accuracy of every pair as bars ({FIGURE_FORMATS}); may repeat."),
    ] = None
    plot_grids: list[Path] | None = None
    trials: Annotated[
        Path | None,
        typer.Option("--trials", help="Write every trial to this file (.json), for bench compare."),
    ] = None

    def _check_files(self) -> None:
        """Check the files of the base class, and the others."""
        super()._check_files()
        if self.trials is not None:
            check_output(self.trials, self.force)
        check_plots(self.plot_pairs, self.force, "--plot-pairs")
        check_plots(self.plot_grids, self.force, "--plot-grids")

    def files(self) -> list[Path | None]:
        """The files of the base class, and the others."""
        return [*super().files(), self.trials]

    def pictures(self) -> list[Path]:
        """The pictures of the base class, and the others."""
        return [*super().pictures(), *(self.plot_pairs or ()), *(self.plot_grids or ())]


@dataclass(frozen=True)
class Common:
    """The options that all benchmarks have."""

    stores: Sequence[Path]
    judged: Judged
    rows: Rows
    standardizing: BenchStandardizing
    compute: o.Compute
    output: BenchOutput
    train: TrainOptions
    criteria: Sequence[str] = ("argmax",)
    also_read: Sequence[Path | None] = ()

    def check(self) -> tuple[list[str], int | None]:
        """Check everything that can be refused before heavy modules are imported; the measures and the memory asked for."""
        self.standardizing.check()
        names = check_names(self.judged.measure or ([] if self.judged.encoder or self.train else ["cka"]))
        how = self.standardizing
        read = [
            *self.stores,
            *self.train.stores,
            *(how.standardize_from or ()),
            *(how.anchor_stores or ()),
            *self.also_read,
        ]
        self.output.check(MANY, [*read, *(self.judged.encoder or ())])
        self.output.figures.check_labels(self.stores)
        if self.output.trials is not None and "argmax" not in self.criteria:
            raise UsageError("--trials holds right and wrong answers; give --criterion argmax with it")
        self.train.check()
        return names, self.compute.memory_asked

    def scorers(self, names: Sequence[str]) -> "list[Scorer]":
        """Closed-form measures, then encoders."""
        from contrasim_cli.scoring import closed_form, learned

        return [
            *closed_form(names, self.judged.settings(self.compute.seed), self.standardizing.how),
            *learned(self.judged.encoder or ()),
        ]

    def facts(self, benchmark: str, tested: "Sequence[tuple[str, Inputs, Sequence[str]]]", **more: Any) -> "Facts":
        """What the trials are of: names of data sets, their stores, and the stores' names."""
        from contrasim_cli.benchmarks.trials import Facts, SetFacts
        from contrasim_cli.store import ids_digest

        sets = [SetFacts(name, i.views[0].n_rows, ids_digest(i.views[0]), list(names)) for name, i, names in tested]
        return Facts(benchmark, sets, **more)

    def report(
        self,
        benchmark: str,
        trials: "list[Trials]",
        facts: "Facts",
        about: dict[str, Any],
        several: bool = False,
        more_trials: str = "more rows, layers or stores",
    ) -> None:
        """Print and write the rows, and every trial where it is asked for.

        `several`: with the columns that tell sets apart. `more_trials`: what is advised where they are few.
        """
        rows = [row for criterion in self.criteria for row in self._rows(criterion, benchmark, trials)]
        _note_few([row for row in rows if row.trials and (row.pair, row.layer) == (ALL, ALL)], more_trials)
        if distributed.first():
            self._write(rows, trials, facts)
        shown = [*(SEVERAL if several else ()), *(["recall"] if any(row.recall is not None for row in rows) else ())]
        self.output.emit(Results("bench", BenchRow, rows, about, shown), grids=self._grids(trials))

    def _write(self, rows: Sequence[BenchRow], trials: "list[Trials]", facts: "Facts") -> None:
        """Write and draw what is asked for besides the results."""
        if self.output.trials is not None:
            from contrasim_cli.benchmarks.trials import write_trials

            write_trials(self.output.trials, facts, trials, self.output.force)
        self._draw(rows, trials)

    def _rows(self, criterion: str, benchmark: str, trials: "list[Trials]") -> list[BenchRow]:
        from contrasim_cli.benchmarks.layers import monotonicity
        from contrasim_cli.benchmarks.outcomes import tabulate

        if criterion == "argmax":
            return tabulate(benchmark, trials, self.compute.seed)
        return tabulate(MONOTONICITY, monotonicity(trials), self.compute.seed)

    def _grids(self, trials: "list[Trials]") -> "list[HeatMap]":
        """The mean grids of a benchmark of layers, for a page."""
        if self.output.report is None or not distributed.first() or any(one.grids is None for one in trials):
            return []
        from contrasim_cli.benchmarks.mean_grids import mean_grids

        return mean_grids(trials)

    def _draw(self, rows: Sequence[BenchRow], trials: "list[Trials]") -> None:
        """Draw what is asked for besides the results."""
        if not self.output.plot_pairs and not self.output.plot_grids:
            return
        from contrasim_cli import plots

        if self.output.plot_pairs:
            plots.draw_pairs(rows, self.output.plot_pairs, self.output.force, self.output.figures.look())
        if self.output.plot_grids:
            from contrasim_cli.benchmarks.mean_grids import mean_grids

            plots.draw_grids(mean_grids(trials), self.output.plot_grids, self.output.force, self.output.figures.look())


def _note_few(overall: Sequence[BenchRow], more_trials: str) -> None:
    """Say where so few trials were made that one of them moves the accuracy by several points, or that there is no interval."""
    if overall and all(row.chance == 1 for row in overall):
        log.warning("each model has one layer, so that every measure is right; give more layers")
        return
    fewest = min((row.trials for row in overall), default=FEWEST_TRIALS)
    if fewest < FEWEST_TRIALS:
        alone = any(row.ci_low is None for row in overall)
        interval = (
            "there is no 95 % interval, as one pair of models says nothing of others" if alone else "compare intervals"
        )
        trials = f"{fewest} trial{'s' if fewest > 1 else ''}"
        log.warning(
            "%s: each is worth %.1f points of accuracy; %s; give %s", trials, 100 / fewest, interval, more_trials
        )


def hows(scorers: "Sequence[Scorer]") -> dict[str, Any]:
    """How rows were standardised, by scorer."""
    from contrasim_cli.transforms import plain

    return {scorer.name: plain(scorer.standardize) for scorer in scorers}
