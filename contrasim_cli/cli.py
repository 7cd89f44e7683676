"""The Typer app and the one error boundary."""

import errno
import functools
import gc
import importlib
import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from contrasim_cli import console, distributed, launch, peers
from contrasim_cli.commands.examples import epilog
from contrasim_cli.commands.help import Command, Group, Imported
from contrasim_cli.commands.options import command
from contrasim_cli.errors import ContraSimError, Interrupted, Stopped, Terminated, out_of_memory
from contrasim_cli.input_files import said
from contrasim_cli.version import __version__

COMMANDS = ("extract", "train", "score", "baseline", "inspect", "guide", "bench")  # in the order of --help

# command, option that it lacks -> where what is meant is found
ELSEWHERE = {
    ("baseline", "--encoder"): "contrasim score compares by a trained encoder",
    ("score", "--measure"): "contrasim baseline compares by closed-form measures",
    ("baseline", "--holdout"): "train --holdout leaves rows out, and bench --holdout tests on them",
    ("score", "--holdout"): "train --holdout leaves rows out, and bench --holdout tests on them",
    ("train", "--encoder"): "contrasim train writes an encoder (-o); --start begins with another's weights",
    ("extract", "--measure"): "contrasim baseline compares stores",
}

# option of extract -> how the names of files end that are most likely meant for it
INPUT_SUFFIXES = {
    "--text": (".txt", ".tsv", ".csv", ".jsonl", ".txt.gz", ".tsv.gz", ".csv.gz", ".jsonl.gz"),
    "--from": (".h5", ".hdf5", ".npz", ".npy", ".pt", ".safetensors"),
}

# what Typer, or the library by which it checks values, says -> what a user reads
PLAIN = (
    (": Value error, ", ": "),
    ("Input should be a valid integer, unable to parse string as an integer", "must be a whole number"),
    ("Input should be a valid number, unable to parse string as a number", "must be a number"),
    ("Input should be greater than or equal to ", "must be at least "),
    ("Input should be less than or equal to ", "must be at most "),
)


@functools.cache
def _imported(name: str) -> Any:
    """A command, of the module of its name."""
    found = getattr(importlib.import_module(f"contrasim_cli.commands.{name}"), name)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=Command, epilog=epilog(name))(command(found))
    return typer.main.get_command(alone)


class _Commands(Group):
    """All commands; a run imports its own alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Imported(COMMANDS, _imported)  # type: ignore[assignment]


app = typer.Typer(
    name="contrasim",
    help="How similar are two neural representations? Learned (ContraSim) and closed-form measures over activation files.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    peers.end_with_launcher()
    _start_lightly()
    _replace_closed_streams()
    _write_any_letters()
    try:
        code = app(prog_name="contrasim", standalone_mode=False)
        if code == Interrupted.exit_code:  # Typer's answer to Ctrl-C before the command begins
            console.error_line(Interrupted.word + launch.how_to_go_on(sys.argv[1:]))
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
            console.error_line(str(stop) or stop.word + launch.how_to_go_on(sys.argv[1:]))
        code = stop.exit_code
    except KeyboardInterrupt:  # before Typer is there to take it
        console.error_line(Interrupted.word + launch.how_to_go_on(sys.argv[1:]))
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
    _exit(code or 0)


def _exit(code: int) -> NoReturn:
    """End this process; a rank without Python's own end, which aborts where a thread is in torch's store."""
    if distributed.took_part():
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _start_lightly() -> None:
    """Spare what a short run is not worth, before anything is imported that reads it.

    Modules make many objects that all stay, among which Python looks for garbage. NumPy's threads spin until they find work, by
    default for some 25 ms each, as many of them as there are cores; 2^16 cycles are enough to go from one product to the next.
    torch's large arrays come from pages of 2 MiB, where the system has them: the first step of training touches gigabytes.
    """
    gc.set_threshold(5000)
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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
    if message.startswith("Got unexpected extra argument"):
        return _of_extra(name, message.rpartition("(")[2].rstrip(")"), context)
    if message.startswith("Missing"):
        return f"{context.command_path} --help explains it" if context is not None else ""
    return ""


def _of_extra(name: str | None, words: str, context: Any) -> str:
    """What is meant by words for which a command has no argument."""
    if name == "sanity":
        return "bench sanity takes one store; run it once for each"
    if name == "extract":
        first = words.partition(" ")[0]
        kind = next((option for option, suffixes in INPUT_SUFFIXES.items() if first.endswith(suffixes)), None)
        if kind is not None:
            return f"an option names the input: {kind} {first}"
        return "an option names the input: --text, --images, --audio, --arrays or --from"
    return f"{context.command_path} --help explains it"


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
