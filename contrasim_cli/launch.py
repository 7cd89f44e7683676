"""`--ranks N`: the ranks of a command as processes of this machine, by torch's own launcher."""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGTERM

from contrasim_cli import console
from contrasim_cli.errors import Interrupted, MissingError, Stopped, Terminated, UsageError
from contrasim_cli.peers import LAUNCHED, launched

HEEDED = 20  # seconds within which ranks have ended that the launcher stops; it kills them after 30


def started(ranks: str | None, arguments: Sequence[str]) -> int | None:
    """Start the ranks that are asked for, if this is not one of them; their exit code, or None where nothing was started.

    Raises:
        UsageError: it is no number, or somebody else started ranks already.
    """
    if ranks is None or launched():
        return None
    if os.environ.get("WORLD_SIZE"):
        raise UsageError("--ranks starts ranks of its own; leave it out under torchrun and srun, or unset WORLD_SIZE")
    count = ranks_asked(ranks)
    return launch(count, arguments) if count > 1 else None


def ranks_asked(text: str) -> int:
    """How many ranks `--ranks` means: a number, or auto for one per CUDA device (one where there is none).

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        import torch

        return max(1, torch.cuda.device_count())
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 4096:
        raise UsageError(f"--ranks {text!r}: write a number from 1, or auto (one per CUDA device)")
    return int(text)


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run the command in so many processes of this machine; the exit code of the first that failed, else 0.

    Raises:
        Terminated, Interrupted: a signal came.
        MissingError: torch has no launcher.
    """
    with tempfile.TemporaryDirectory(prefix="contrasim-ranks-") as folder:
        words = Path(folder) / "stopped"
        os.environ[LAUNCHED] = str(words)
        try:
            return _launch(count, arguments, words)
        finally:
            del os.environ[LAUNCHED]


def _launch(count: int, arguments: Sequence[str], words: Path) -> int:
    try:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    except ImportError as error:
        raise MissingError("--ranks: this build of torch has no torch.distributed; run without --ranks") from error
    logging.disable(logging.CRITICAL)  # of torch's launcher; what the ranks say comes from them
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id="contrasim",
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "contrasim_cli", *arguments)
    except ChildFailedError as error:
        place, code = _first_failure({rank: (one.timestamp, one.exitcode) for rank, one in error.failures.items()})
        if code < 0:
            killed = f"rank {place} was killed by signal {-code}{_memory(-code)}"
            console.error_line(killed + how_to_go_on(arguments))
            return 128 - code
        if code in (Terminated.exit_code, Interrupted.exit_code):
            raise _stopped(code, words) from error
        if words.exists():  # of a rank that ended by itself without a word
            console.error_line(words.read_text(encoding="utf-8") + how_to_go_on(arguments))
        return code
    except SignalException as error:
        raise _stopped(128 + int(error.sigval), words) from error
    except KeyboardInterrupt as error:
        raise _stopped(Interrupted.exit_code, words) from error
    return 0


def _first_failure(ends: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """The rank to blame and its exit code, of ranks with the second in which they were seen to have failed and their exit codes.

    A rank that a signal killed, though another one was seen first: those that miss it may end within milliseconds of it. Signals of
    the launcher itself do not count: SIGTERM, and what it sends to those that do not heed it.
    """
    first = min(second for second, _ in ends.values())
    killed = [
        rank for rank, (second, code) in ends.items() if code < 0 and code != -SIGTERM and second < first + HEEDED
    ]
    rank = killed[0] if killed else next(rank for rank, (second, _) in ends.items() if second == first)
    return rank, ends[rank][1]


def _stopped(code: int, words: Path) -> Stopped:
    """What the launcher raises for ranks that a signal ended, in the words that rank 0 left."""
    text = words.read_text(encoding="utf-8") if words.exists() else ""
    return Interrupted(text) if code == Interrupted.exit_code else Terminated(text)


def how_to_go_on(arguments: Sequence[str]) -> str:
    """What a command that was stopped leaves to its user, as the end of a message; empty where no command had begun."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command == "train" and not _is_saved(arguments):
        return "; nothing is saved yet, the same command starts again"
    if command == "train":
        return "; the same command with --resume goes on from the saved state"
    if command == "extract":
        return "; the same command with --resume goes on from what is saved, if anything"
    if command == "bench" and "--train" in arguments:
        return "; the same command starts again, with the encoders that are trained"
    return "; nothing is kept, the same command starts again" if command else ""


def _is_saved(arguments: Sequence[str]) -> bool:
    """Whether `train` has left a state beside its output, or has written this, and --force is not to replace it."""
    endings = [".partial"] if "--force" in arguments else [".partial", ""]
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    outputs = [after for word, after in pairs if word in ("-o", "--output")]
    outputs += [word.removeprefix("--output=") for word in arguments if word.startswith("--output=")]
    outputs += [word[2:] for word in arguments if word.startswith("-o") and len(word) > 2]
    return any(Path(output + ending).exists() for output in outputs if output for ending in endings)


def _memory(number: int) -> str:
    return " (out of memory?)" if number == 9 else ""
