"""The options that all benchmarks have."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.training import TrainOptions
from contrasim_cli.commands.emit import check_outputs, check_plot, emit
from contrasim_cli.errors import UsageError
from contrasim_cli.measures import MEASURES, Options, check_names
from contrasim_cli.names import quoted
from contrasim_cli.output_files import check_output
from contrasim_cli.report.results import MONOTONICITY, SEVERAL, BenchRow, Results

if TYPE_CHECKING:
    from contrasim_cli.benchmarks.outcomes import Trials
    from contrasim_cli.benchmarks.trials import Facts
    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.scoring import Scorer


Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        help=f"{', '.join(MEASURES)}; repeat for several; default: cka without --encoder and --train.",
        show_default=False,
    ),
]
Encoders = Annotated[
    list[Path] | None,
    typer.Option("--encoder", help="Encoder made by contrasim train; repeat for several.", show_default=False),
]
StandardizeMeasures = Annotated[
    o.Standardize | None,
    typer.Option(
        "--standardize",
        help="Rows before --measure: none, center, zscore or whiten; default: none. Encoders bring their own.",
        show_default=False,
    ),
]
TrialsFile = Annotated[
    Path | None,
    typer.Option("--trials", help="Write every trial to this file (.json), for bench compare.", show_default=False),
]


PlotPairs = Annotated[
    Path | None,
    typer.Option("--plot-pairs", help="Draw the accuracy of every pair as bars (.png .svg .pdf).", show_default=False),
]


class Criterion(str, Enum):
    """What is asked of a grid of layers against layers."""

    argmax = "argmax"
    monotonicity = "monotonicity"


@dataclass(frozen=True)
class Rows:
    """What is done to rows beforehand."""

    standardize: o.Standardize | None
    shrinkage: float | None
    standardize_from: Sequence[Path] | None
    anchor_stores: Sequence[Path] | None


@dataclass(frozen=True)
class Common:
    """The options that all benchmarks have."""

    stores: Sequence[Path]
    measure: Sequence[str] | None
    encoder: Sequence[Path] | None
    rank_tol: float
    align: o.Align
    nan: o.OnNan
    rows: Rows
    device: o.Device | None
    seed: int
    memory: str | None
    form: o.Format | None
    output: Path | None
    plot: Path | None
    force: bool
    trials: Path | None
    train: TrainOptions
    plot_pairs: Path | None = None
    plot_grids: Path | None = None
    criteria: Sequence[Criterion] = (Criterion.argmax,)
    zero_rows: o.ZeroRows | None = None

    def check(self) -> tuple[list[str], int | None]:
        """Everything that can be refused before heavy modules are imported; the measures and the memory asked for."""
        o.check_shrinkage(self.rows.standardize, self.rows.shrinkage)
        if self.form is o.Format.value:
            raise UsageError("--format value prints one score; bench has many, give --format tsv")
        names = check_names(self.measure or ([] if self.encoder or self.train else ["cka"]))
        check_outputs(self.output, self.plot, self.force)
        if self.trials is not None:
            check_output(self.trials, self.force)
            if Criterion.argmax not in self.criteria:
                raise UsageError("--trials holds right and wrong answers; give --criterion argmax with it")
        for option, path in (("--plot-pairs", self.plot_pairs), ("--plot-grids", self.plot_grids)):
            if path is not None:
                check_plot(path, option)
                check_output(path, self.force)
        self._check_distinct()
        self.train.check()
        return names, o.parse_memory(self.memory)

    def _check_distinct(self) -> None:
        asked = (self.output, self.plot, self.plot_pairs, self.plot_grids, self.trials)
        paths = [path.resolve() for path in asked if path is not None]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice:
            raise UsageError(f"{quoted(twice)}: two outputs cannot have one name")

    def scorers(self, names: Sequence[str]) -> "list[Scorer]":
        """Closed-form measures, then encoders."""
        from contrasim_cli.scoring import closed_form, learned

        how = o.standardization(self.rows.standardize, self.rows.shrinkage)
        options = Options(rank_tol=self.rank_tol, seed=self.seed)
        return [*closed_form(names, options, how), *learned(self.encoder or ())]

    def facts(self, benchmark: str, tested: "Sequence[tuple[str, Inputs, Sequence[str]]]", **more: Any) -> "Facts":
        """What the trials are of: names of data sets, their stores, and the stores' names."""
        from contrasim_cli.benchmarks.trials import Facts, SetFacts
        from contrasim_cli.store import ids_digest

        sets = [SetFacts(name, i.views[0].n_rows, ids_digest(i.views[0]), list(names)) for name, i, names in tested]
        return Facts(benchmark, sets, **more)

    def report(
        self, benchmark: str, trials: "list[Trials]", facts: "Facts", about: dict[str, Any], several: bool = False
    ) -> None:
        """Print and write the rows, and every trial where it is asked for; `several`: with the columns that tell sets apart."""
        rows = [row for criterion in self.criteria for row in self._rows(criterion, benchmark, trials)]
        if self.trials is not None:
            from contrasim_cli.benchmarks.trials import write_trials

            write_trials(self.trials, facts, trials, self.force)
        shown = [*(SEVERAL if several else ()), *(["recall"] if any(row.recall is not None for row in rows) else ())]
        results = Results("bench", BenchRow, rows, about, shown)
        self._draw(rows, trials)
        emit(results, self.form, self.output, self.plot, self.force)

    def _rows(self, criterion: Criterion, benchmark: str, trials: "list[Trials]") -> list[BenchRow]:
        from contrasim_cli.benchmarks.layers import monotonicity
        from contrasim_cli.benchmarks.outcomes import tabulate

        if criterion is Criterion.argmax:
            return tabulate(benchmark, trials, self.seed)
        return tabulate(MONOTONICITY, monotonicity(trials), self.seed)

    def _draw(self, rows: Sequence[BenchRow], trials: "list[Trials]") -> None:
        """Draw what is asked for besides the results."""
        if self.plot_pairs is None and self.plot_grids is None:
            return
        from contrasim_cli import plots

        if self.plot_pairs is not None:
            plots.draw_pairs(rows, self.plot_pairs, self.force)
        if self.plot_grids is not None:
            plots.draw_mean_grids(trials, self.plot_grids, self.force)

    def show_plan(self, results: Results) -> None:
        """Print and write what would be trained."""
        emit(results, self.form, self.output, None, self.force)


def hows(scorers: "Sequence[Scorer]") -> dict[str, Any]:
    """How rows were standardised, by scorer."""
    from contrasim_cli.transforms import plain

    return {scorer.name: plain(scorer.standardize) for scorer in scorers}
