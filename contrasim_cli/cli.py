"""The Typer app and the one error boundary."""

import errno
import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from contrasim_cli import console, distributed, peers
from contrasim_cli.commands.baseline import baseline
from contrasim_cli.commands.bench import bench
from contrasim_cli.commands.examples import epilog
from contrasim_cli.commands.extract import extract
from contrasim_cli.commands.guide import guide
from contrasim_cli.commands.help import Command, Group
from contrasim_cli.commands.inspect import inspect
from contrasim_cli.commands.options import command
from contrasim_cli.commands.score import score
from contrasim_cli.commands.train import train
from contrasim_cli.errors import ContraSimError, Interrupted, Stopped, Terminated, out_of_memory
from contrasim_cli.input_files import said
from contrasim_cli.version import __version__

# command, option that it lacks -> where what is meant is found
ELSEWHERE = {
    ("baseline", "--encoder"): "contrasim score compares by a trained encoder",
    ("score", "--measure"): "contrasim baseline compares by closed-form measures",
    ("baseline", "--holdout"): "train --holdout leaves rows out, and bench --holdout tests on them",
    ("score", "--holdout"): "train --holdout leaves rows out, and bench --holdout tests on them",
    ("train", "--encoder"): "contrasim train writes an encoder (-o); --start begins with another's weights",
    ("extract", "--measure"): "contrasim baseline compares stores",
}

# what Typer, or the library by which it checks values, says -> what a user reads
PLAIN = (
    (": Value error, ", ": "),
    ("Input should be a valid integer, unable to parse string as an integer", "must be a whole number"),
    ("Input should be a valid number, unable to parse string as a number", "must be a number"),
    ("Input should be greater than or equal to ", "must be at least "),
    ("Input should be less than or equal to ", "must be at most "),
)

app = typer.Typer(
    name="contrasim",
    help="How similar are two neural representations? Learned (ContraSim) and closed-form measures over activation files.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (extract, train, score, baseline, inspect, guide):
    app.command(cls=Command, epilog=epilog(function.__name__))(command(function))
app.add_typer(bench, name="bench", no_args_is_help=True)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"contrasim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; every error becomes its lines on stderr and its exit code here."""
    signal.signal(signal.SIGTERM, _terminate)
    _replace_closed_streams()
    _write_any_letters()
    try:
        code = app(prog_name="contrasim", standalone_mode=False)
        if code == Interrupted.exit_code:  # Typer's answer to Ctrl-C before the command begins
            console.error_line(Interrupted.word)
    except typer.TyperException as error:
        message, remedy = _plain(error.format_message()), _remedy(error)
        message = f"{message.rstrip('.')}; {remedy}" if remedy else message
        if message:  # without arguments Typer has shown the help, and says nothing else
            console.error_line(message)
        code = error.exit_code
    except ContraSimError as error:
        _show_traceback()
        for line in error.lines:
            console.error_line(line)
        code = error.exit_code
    except distributed.Quiet as stop:
        code = stop.exit_code
    except Stopped as stop:
        if not peers.launched():  # whose launcher says which signal came to whom
            console.error_line(str(stop) or stop.word)
        code = stop.exit_code
    except KeyboardInterrupt:  # before Typer is there to take it
        console.error_line(Interrupted.word)
        code = Interrupted.exit_code
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        code = 0  # Typer's answer where nobody reads stdout any more; results are printed last
    except Exception as error:
        _show_traceback()
        console.error_line(_unexpected(error))
        code = 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to tidy up
    _flush_stdout()
    sys.exit(code or 0)


def _plain(message: str) -> str:
    """What Typer says, on one line and without the words of the library that checks values."""
    message = " ".join(message.split())
    for words, plain in PLAIN:
        message = message.replace(words, plain)
    return message


def _remedy(error: typer.TyperException) -> str:
    """Which command has an option that this one lacks; which commands there are; where a command is explained."""
    context = getattr(error, "ctx", None)
    name = getattr(context, "info_name", None)
    asked = name, getattr(error, "option_name", None)
    if asked in ELSEWHERE:
        return ELSEWHERE[asked]
    message = error.format_message()
    if message.startswith("No such command") and "Did you mean" not in message and context is not None:
        return f"the commands are {', '.join(getattr(context.command, 'commands', ()))}"
    if message.startswith("Missing"):
        return f"{context.command_path} --help explains it" if context is not None else ""
    return ""


def _unexpected(error: Exception) -> str:
    if out_of_memory(error):
        on_device = any(name in str(error).lower() for name in ("cuda", "cublas", "cusolver", "cudnn"))
        where = "the CUDA device's memory" if on_device else "memory"
        return f"{where} ran out; ask for less at once: fewer layers, fewer rows, or a smaller batch"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return said(error)
    return f"internal error: {type(error).__name__}: {error}; --debug shows where, please report it"


def _show_traceback() -> None:
    if console.settings.debug:
        import traceback

        traceback.print_exc()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _replace_closed_streams() -> None:
    """Where the shell closed stdout or stderr (`>&-`), Python has None in their place."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _write_any_letters() -> None:
    """Letters that the encoding of a stream lacks are escaped, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush_stdout() -> None:
    """Keep the interpreter from complaining at exit that stdout takes nothing any more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
