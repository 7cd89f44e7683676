"""Where results go: stdout, a file, a plot. Outputs are checked before work is done for them."""

import functools
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
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
FIGURE_FORMATS = " ".join(PLOT_SUFFIXES)
PAGE_SUFFIXES = (".html", ".htm")
REPLACES = "is an input of this run, which it would replace; give another name"
TITLED = ("md", "tex")  # formats of tables that have a title
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
    plot: Sequence[Path] | None = None
    report: Path | None = None
    figures: Figures = field(default_factory=Figures)
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False

    @property
    def records(self) -> bool:
        """Whether something is written that says what was compared, to the byte; inputs are digested for it."""
        file = self.output is not None and self.output.suffix.lower() in RECORDING
        return self.format == "json" or file or self.report is not None

    def check(self, several: str = "", inputs: Sequence[Path | None] = ()) -> None:
        """Refuse outputs that cannot be written, or that are inputs, before any work; `several` says why no single value can be.

        Raises:
            UsageError: a suffix stands for no format, the format is none of these results, or two outputs have one name.
            OutputExistsError, OutputError: the file exists, or cannot be written.
            MissingError: a plot is asked for without the extra `plot`, a page without `report`, or Parquet without `table`.
        """
        if several and self.format == "value":
            raise UsageError(f"--format value prints one score; {several}")
        papers = self._for_papers()
        self.figures.check(bool(self.pictures()), self.report is not None or papers, papers)
        refuse_inputs(self.files(), inputs)
        distributed.by_first(self._check_files)
        tidy_after_first(self.output, *self.pictures(), self.report)

    def _for_papers(self) -> bool:
        """Whether tables are written that have a title."""
        suffix = self.output.suffix.lower() if self.output is not None else ""
        return self.format in TITLED or suffix[1:] in TITLED

    def _check_files(self) -> None:
        if self.output is not None:
            from contrasim_cli.report.text import file_format

            if file_format(self.output) == "parquet":
                need("pyarrow", f"--output {quoted(self.output)}", "table")
            check_output(self.output, self.force)
        check_plots(self.plot, self.force)
        check_report(self.report, self.force)
        refuse_one_name(self.files())

    def files(self) -> list[Path | None]:
        """What is written, None where it is not asked for."""
        return [self.output, self.report, *self.pictures()]

    def pictures(self) -> list[Path]:
        """The output files that are figures."""
        return [*(self.plot or ())]

    def look(self, results: Results) -> Look:
        """How figures of these results look."""
        return replace(self.figures.look(), layers=results.layers)

    def emit(self, results: Results, files: bool = True, grids: "Sequence[HeatMap]" = ()) -> None:
        """Print the results and write the files asked for, when all ranks are done; `grids` are shown on a page besides."""
        distributed.wait_for_all()
        if not distributed.first():
            return
        from contrasim_cli.report import text as report

        labels = self.figures.layer_labels
        about = {**record.run(), **results.about}
        results = replace(results, about=about, title=self.figures.title or "", layer_labels=labels)
        terminal = sys.stdout.isatty()
        form = self.format or ("table" if terminal else "tsv")
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = report.render(results, form, color=terminal and console.settings.color, encoding=encoding)
        if self.output is not None:
            report.write_file(results, self.output, self.force)
        if self.plot and files:
            from contrasim_cli import plots

            asked = {getattr(row, "measure", "") for row in results.rows}  # a page shows more of them
            within = [row for row in results.within if row.measure in asked] if self.figures.within else ()
            drawn = replace(results, within=within)
            plots.draw(drawn, self.plot, self.force, self.look(results))
        if self.report is not None and files:
            from contrasim_cli.report import html

            html.write(results, self.report, self.force, grids)
        write_stdout(text)


@dataclass(frozen=True, kw_only=True)
class PlottedOutput(Output):
    """Output that can be a picture, and a page, too."""

    plot: Annotated[
        list[Path] | None,
        typer.Option("--plot", help=f"Draw the result ({FIGURE_FORMATS}; extra: plot); repeat for several formats."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write one page to send to others (.html; extra: report): figures, tables, conclusions, and what was compared.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class EncoderOutput:
    """The encoder's file, and what is written beside it."""

    PANEL: ClassVar = "Output"
    encoder: Annotated[Path, typer.Option("-o", "--output", help="The encoder to write.")]
    log: Annotated[Path | None, typer.Option("--log", help="Write a JSON line per step to this file.")] = None
    plot: Annotated[
        list[Path] | None,
        typer.Option("--plot", help=f"Draw the curves ({FIGURE_FORMATS}; extra: plot); repeat for several formats."),
    ] = None
    save_every: Annotated[
        int | None,
        typer.Option("--save-every", min=1, help="Steps between saved states; default: each epoch."),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run.")] = False
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False

    def check(self, inputs: Sequence[Path | None] = ()) -> None:
        """Refuse what cannot be written, or is an input, before any work is done for it."""
        refuse_inputs((self.encoder, self.log, *(self.plot or ())), inputs)
        distributed.by_first(self._check_files)
        partial = self.encoder.with_name(self.encoder.name + ".partial")  # where a run keeps its state
        tidy_after_first(self.encoder, partial, self.log, *(self.plot or ()))

    def _check_files(self) -> None:
        replaces = self.force or self.resume
        for path in (self.encoder, self.log):
            if path is not None:
                check_output(path, replaces)
        check_plots(self.plot, replaces)
        refuse_one_name((self.encoder, self.log, *(self.plot or ())))

    def draw(self, curves: Mapping[str, Sequence[float]]) -> None:
        """Draw the curves where that is asked for."""
        if self.plot and distributed.first():
            from contrasim_cli.plots import draw_training

            draw_training(curves, self.plot, self.force or self.resume)


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse outputs that are inputs, whether or not --force is given.

    Raises:
        UsageError: one is.
    """
    read = [source for source in inputs if source is not None]
    for path in outputs:
        if path is not None and any(is_of(path, source) for source in read):
            raise UsageError(f"{quoted(path)}: {REPLACES}")


def is_of(path: Path, source: Path) -> bool:
    """Whether an output that is there is an input, a part of a sharded store that is one, or the store of such a part."""
    from contrasim_cli.store.sharded import INDEX, is_sharded

    if not path.exists() or not source.exists():
        return False
    store = source.parent if source.name == INDEX else source
    if path.samefile(source) or path.samefile(store):
        return True
    if store.is_dir() and is_sharded(store):
        return path.parent.samefile(store)
    return path.is_dir() and path.samefile(source.parent) and is_sharded(path)


def tidy_after_first(*paths: Path | None) -> None:
    """Have temporary files of outputs removed by other ranks where rank 0 is killed while it writes."""
    for path in paths:
        if path is not None:
            distributed.tidy_after_first(functools.partial(sweep, path))


def refuse_one_name(outputs: Iterable[Path | None]) -> None:
    """Refuse two outputs of one name.

    Raises:
        UsageError: there are such.
    """
    paths = [path.resolve() for path in outputs if path is not None]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise UsageError(f"{quoted(twice)}: two outputs have the same name")


def check_plots(plots: Iterable[Path] | None, force: bool, option: str = "--plot") -> None:
    """Refuse files of a figure that cannot be written.

    Raises:
        UsageError: the suffix stands for no format.
        MissingError: the extra `plot` is not there.
        OutputExistsError, OutputError: the file exists, or cannot be written.
    """
    for plot in plots or ():
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
