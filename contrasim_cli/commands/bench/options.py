"""The options that all benchmarks have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.commands.emit import check_outputs, emit
from contrasim_cli.errors import UsageError
from contrasim_cli.measures import MEASURES, Options, check_names
from contrasim_cli.results import BenchRow, Results

if TYPE_CHECKING:
    from contrasim_cli.benchmarks.outcomes import Trials
    from contrasim_cli.scoring import Scorer


Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        help=f"{', '.join(MEASURES)}; repeat for several; default: cka without --encoder.",
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


@dataclass(frozen=True)
class Rows:
    """What is done to rows beforehand."""

    standardize: o.Standardize | None
    shrinkage: float | None
    standardize_from: Sequence[Path] | None


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

    def check(self) -> tuple[list[str], int | None]:
        """Everything that can be refused before heavy modules are imported; the measures and the memory asked for."""
        o.check_shrinkage(self.rows.standardize, self.rows.shrinkage)
        if self.form is o.Format.value:
            raise UsageError("--format value prints one score; bench has many, give --format tsv")
        names = check_names(self.measure or ([] if self.encoder else ["cka"]))
        check_outputs(self.output, self.plot, self.force)
        return names, o.parse_memory(self.memory)

    def scorers(self, names: Sequence[str]) -> "list[Scorer]":
        """Closed-form measures, then encoders."""
        from contrasim_cli.scoring import closed_form, learned

        how = o.standardization(self.rows.standardize, self.rows.shrinkage)
        options = Options(rank_tol=self.rank_tol, seed=self.seed)
        return [*closed_form(names, options, how), *learned(self.encoder or ())]

    def report(
        self, benchmark: str, trials: "list[Trials]", about: dict[str, Any], optional: Sequence[str] = ()
    ) -> None:
        """Print and write the rows, with the optional columns that were asked for."""
        from contrasim_cli.benchmarks.outcomes import tabulate

        rows = tabulate(benchmark, trials, self.seed)
        emit(Results("bench", BenchRow, rows, about, optional), self.form, self.output, self.plot, self.force)


def hows(scorers: "Sequence[Scorer]") -> dict[str, Any]:
    """How rows were standardised, by scorer."""
    from contrasim_cli.transforms import plain

    return {scorer.name: plain(scorer.standardize) for scorer in scorers}
