"""Where results go: stdout, a file, a plot. Outputs are checked before work is done for them."""

import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from contrasim_cli import console, distributed
from contrasim_cli.commands import dash, record
from contrasim_cli.commands.figures import Figures
from contrasim_cli.errors import MissingError, OutputError, UsageError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import check_output, sweep
from contrasim_cli.report.look import Look
from contrasim_cli.report.results import Results

if TYPE_CHECKING:
    from contrasim_cli.report.heat_maps import HeatMap

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
PAGE_SUFFIXES = (".html", ".htm")
RECORDING = (".json", ".parquet")  # files that hold how their results were found


@dataclass(frozen=True, kw_only=True)
class Output:
    """Results as text, on stdout and in a file."""

    PANEL: ClassVar = "Output"
    format: Annotated[
        Literal["table", "tsv", "csv", "json", "md", "tex", "value"] | None,
        typer.Option("--format", help="Default: table on a terminal, tsv elsewhere."),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the result to this file too (.tsv .csv .json .parquet .md .tex .txt).",
            callback=dash.output,
        ),
    ] = None
    plot: Path | None = None
    report: Path | None = None
    figures: Figures = field(default_factory=Figures)
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False

    @property
    def records(self) -> bool:
        """Whether something is written that says what was compared, to the byte; inputs are digested for it."""
        file = self.output is not None and self.output.suffix.lower() in RECORDING
        return self.format == "json" or file or self.report is not None

    def check(self, several: str = "") -> None:
        """Refuse outputs that cannot be written, before any work is done for them; `several` says why no single value can be.

        Raises:
            UsageError: a suffix stands for no format, the format is none of these results, or two outputs have one name.
            OutputExistsError, OutputError: the file exists, or cannot be written.
            MissingError: a plot is asked for without the extra `plot`, a page without `report`, or Parquet without `table`.
        """
        if several and self.format == "value":
            raise UsageError(f"--format value prints one score; {several}")
        self.figures.check(any(path is not None for path in self.pictures()), self.report is not None)
        distributed.by_first(self._check_files)
        tidy_after_first(self.output, *self.pictures(), self.report)

    def _check_files(self) -> None:
        if self.output is not None:
            from contrasim_cli.report.text import file_format

            if file_format(self.output) == "parquet":
                need("pyarrow", f"--output {quoted(self.output)}", "table")
            check_output(self.output, self.force)
        check_plot(self.plot, self.force)
        check_report(self.report, self.force)
        self._refuse_one_name()

    def files(self) -> list[Path | None]:
        """What is written, None where it is not asked for."""
        return [self.output, self.report, *self.pictures()]

    def pictures(self) -> list[Path | None]:
        """Those of them that are figures."""
        return [self.plot]

    def look(self, results: Results) -> Look:
        """How figures of these results look."""
        return replace(self.figures.look(), layers=results.layers)

    def _refuse_one_name(self) -> None:
        paths = [path.resolve() for path in self.files() if path is not None]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice:
            raise UsageError(f"{quoted(twice)}: two outputs cannot have one name")

    def emit(self, results: Results, files: bool = True, grids: "Sequence[HeatMap]" = ()) -> None:
        """Print the results and write the files asked for, when all ranks are done; `grids` are shown on a page besides."""
        distributed.wait_for_all()
        if not distributed.first():
            return
        from contrasim_cli.report import text as report

        results = replace(results, about={**record.run(), **results.about})
        terminal = sys.stdout.isatty()
        form = self.format or ("table" if terminal else "tsv")
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = report.render(results, form, color=terminal and console.settings.color, encoding=encoding)
        if self.output is not None:
            report.write_file(results, self.output, self.force)
        if self.plot is not None and files:
            from contrasim_cli import plots

            drawn = results if self.figures.within else replace(results, within=())
            plots.draw(drawn, self.plot, self.force, self.look(results))
        if self.report is not None and files:
            from contrasim_cli.report import html

            html.write(results, self.report, self.force, self.figures.title or "", grids)
        write_stdout(text)


@dataclass(frozen=True, kw_only=True)
class PlottedOutput(Output):
    """The same, as a picture, and as a page."""

    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the result (.png .svg .pdf; extra: plot).")] = None
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write one page to send to others (.html; extra: report): figures, tables, what follows, and what was compared.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class EncoderOutput:
    """The encoder's file, and what is written beside it."""

    PANEL: ClassVar = "Output"
    encoder: Annotated[Path, typer.Option("-o", "--output", help="The encoder to write.")]
    log: Annotated[Path | None, typer.Option("--log", help="Write a JSON line per step to this file.")] = None
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curves (.png .svg .pdf; extra: plot).")] = None
    save_every: Annotated[
        int | None,
        typer.Option("--save-every", min=1, help="Steps between saved states; default: each epoch."),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")] = False
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False

    def check(self) -> None:
        """Refuse what cannot be written, before any work is done for it."""
        distributed.by_first(self._check_files)
        partial = self.encoder.with_name(self.encoder.name + ".partial")  # where a run keeps its state
        tidy_after_first(self.encoder, partial, self.log, self.plot)

    def _check_files(self) -> None:
        replaces = self.force or self.resume
        for path in (self.encoder, self.log):
            if path is not None:
                check_output(path, replaces)
        check_plot(self.plot, replaces)

    def draw(self, curves: Mapping[str, Sequence[float]]) -> None:
        """Draw the curves where that is asked for."""
        if self.plot is not None and distributed.first():
            from contrasim_cli.plots import draw_training

            draw_training(curves, self.plot, self.force or self.resume)


def tidy_after_first(*paths: Path | None) -> None:
    """Have temporary files of outputs removed by other ranks where rank 0 is killed while it writes."""
    for path in paths:
        if path is not None:
            distributed.tidy_after_first(functools.partial(sweep, path))


def check_plot(plot: Path | None, force: bool, option: str = "--plot") -> None:
    """Refuse a plot that cannot be drawn.

    Raises:
        UsageError: the suffix stands for no format.
        MissingError: the extra `plot` is not there.
        OutputExistsError, OutputError: the file exists, or cannot be written.
    """
    if plot is None:
        return
    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(
            f"{option} {quoted(plot)}: the format follows the suffix, which is one of {', '.join(PLOT_SUFFIXES)}"
        )
    need("matplotlib", option, "plot")
    check_output(plot, force)


def check_report(report: Path | None, force: bool) -> None:
    """Refuse a page that cannot be written.

    Raises:
        UsageError: the suffix is not that of HTML.
        MissingError: the extra `report` is not there.
        OutputExistsError, OutputError: the file exists, or cannot be written.
    """
    if report is None:
        return
    if report.suffix.lower() not in PAGE_SUFFIXES:
        raise UsageError(f"--report {quoted(report)}: is a page of HTML; give it the suffix .html")
    need("plotly", "--report", "report")
    check_output(report, force)


def need(package: str, what: str, extra: str) -> None:
    """Refuse what an optional package is needed for, where it is not installed.

    Raises:
        MissingError: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingError(f"{what} needs the extra {extra}: pip install 'contrasim[{extra}]'")


def write_stdout(text: str) -> None:
    """Print results.

    Raises:
        OutputError: stdout takes nothing, as on a full disk. A pipe that nobody reads any more is a BrokenPipeError.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout: cannot be written: {error.strerror or error}") from error
