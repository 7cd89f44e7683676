"""Where results go: stdout, a file, a plot. Outputs are checked before work is done for them."""

import sys
from pathlib import Path

from contrasim_cli import console
from contrasim_cli.commands.options import Format
from contrasim_cli.errors import MissingError, OutputError, UsageError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import check_output
from contrasim_cli.report.results import Results

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_outputs(output: Path | None, plot: Path | None, force: bool) -> None:
    """Refuse outputs that cannot be written, before any work is done for them.

    Raises:
        UsageError: a suffix stands for no format.
        OutputExistsError, OutputError: the file exists, or cannot be written.
        MissingError: a plot is asked for without the extra `plot`.
    """
    if output is not None:
        from contrasim_cli.report.text import file_format

        file_format(output)
        check_output(output, force)
    if plot is not None:
        check_plot(plot)
        check_output(plot, force)


def check_plot(plot: Path, option: str = "--plot") -> None:
    """Refuse a plot that cannot be drawn.

    Raises:
        UsageError: the suffix stands for no format.
        MissingError: the extra `plot` is not there.
    """
    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(
            f"{option} {quoted(plot)}: the format follows the suffix, which is one of {', '.join(PLOT_SUFFIXES)}"
        )
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError(f"{option} needs the extra plot: pip install 'contrasim[plot]'")


def emit(results: Results, form: Format | None, output: Path | None, plot: Path | None, force: bool) -> None:
    """Print the results and write the files asked for."""
    from contrasim_cli.report import text as report

    terminal = sys.stdout.isatty()
    chosen = form.value if form else "table" if terminal else "tsv"
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = report.render(results, chosen, color=terminal and console.settings.color, encoding=encoding)
    if output is not None:
        report.write_file(results, output, force)
    if plot is not None:
        from contrasim_cli import plots

        plots.draw(results, plot, force)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout: cannot be written: {error.strerror or error}") from error
