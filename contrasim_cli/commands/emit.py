"""Where results go: stdout, a file, a plot. Outputs are checked before work is done for them."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from contrasim_cli import console, distributed
from contrasim_cli.commands import record
from contrasim_cli.errors import MissingError, OutputError, UsageError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import check_output
from contrasim_cli.report.results import Results

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
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
            "-o", "--output", help="Write the result to this file too (.tsv .csv .json .parquet .md .tex .txt)."
        ),
    ] = None
    plot: Path | None = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False

    @property
    def records(self) -> bool:
        """Whether something is written that says what was compared to the byte, for which inputs have to be digested."""
        return self.format == "json" or (self.output is not None and self.output.suffix.lower() in RECORDING)

    def check(self, several: str = "") -> None:
        """Refuse outputs that cannot be written, before any work is done for them; `several` says why no single value can be.

        Raises:
            UsageError: a suffix stands for no format, or the format is none of these results.
            OutputExistsError, OutputError: the file exists, or cannot be written.
            MissingError: a plot is asked for without the extra `plot`, or Parquet without `table`.
        """
        if several and self.format == "value":
            raise UsageError(f"--format value prints one score; {several}")
        distributed.by_first(self._check_files)

    def _check_files(self) -> None:
        if self.output is not None:
            from contrasim_cli.report.text import file_format

            if file_format(self.output) == "parquet":
                need("pyarrow", f"--output {quoted(self.output)}", "table")
            check_output(self.output, self.force)
        check_plot(self.plot, self.force)

    def emit(self, results: Results, files: bool = True) -> None:
        """Print the results and write the files asked for, when all ranks are done."""
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

            plots.draw(results, self.plot, self.force)
        write_stdout(text)


@dataclass(frozen=True, kw_only=True)
class PlottedOutput(Output):
    """The same, and as a picture."""

    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the result (.png .svg .pdf; extra: plot).")] = None


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
