"""Contrasim processes without the seconds of an import: a process that has imported everything forks one per command.

Run as a program it is that process: it reads a JSON object per line, and answers each with another.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

TESTS = Path(__file__).resolve().parents[1]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename": 0, "os.link": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0}  # and which argument is the path


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th operation that changes a file: a signal before it, or an error of that number in its place.

    Operations are opening for writing, writing through `os`, syncing, renaming, linking, removing and making folders.
    """

    at: int
    errno: int | None = None
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: the signal that ended it), its output, and what it took."""

    code: int
    stdout: str
    stderr: str
    seconds: float = 0.0
    processor: float = 0.0  # seconds of its own, and of its children
    peak: int = 0  # bytes above what it had after the fork

    def refused(self, code: int) -> str:
        """The one line with which it was refused, without what all lines begin with."""
        assert self.code == code, self
        assert self.stdout == "", self
        (line,) = self.stderr.splitlines() or [""]
        assert line.startswith("contrasim: error: "), self
        return line.removeprefix("contrasim: error: ")


@dataclass
class Started:
    """A process that runs."""

    warm: "Warm"
    pid: int
    began: float = field(default_factory=time.monotonic)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """How it ends."""
        found = self.warm.ask(wait=self.pid)
        code, seconds = os.waitstatus_to_exitcode(found["status"]), time.monotonic() - self.began
        return Ended(code, found["out"], found["err"], seconds, found["processor"], found["peak"])


class Warm(contextlib.AbstractContextManager["Warm"]):
    """The process that forks; a context manager."""

    def __enter__(self) -> "Warm":
        earlier = os.environ.get("PYTHONPATH")
        paths = os.pathsep.join([str(TESTS), str(TESTS.parent), *([earlier] if earlier else [])])
        # one thread: a fork has no others
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.ask(ready=True) == {"ready": True}
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask the process for something."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self,
        *args: object,
        cwd: Path,
        fault: Fault | None = None,
        limits: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        before: str = "",
    ) -> Started:
        """Start `contrasim args` in a folder; `before` is a program that runs first, in the same process."""
        faults = None if fault is None else [fault.at, fault.errno, int(fault.signal)]
        answer = self.ask(
            args=[str(arg) for arg in args], cwd=str(cwd), fault=faults, limits=list((limits or {}).items()),
            environment=dict(environment or {}), before=before,
        )  # fmt: skip
        return Started(self, answer["pid"])

    def run(self, *args: object, cwd: Path, **options: Any) -> Ended:
        """Run `contrasim args` in a folder to its end."""
        return self.start(*args, cwd=cwd, **options).wait()

    def operations(self, *args: object, cwd: Path) -> int:
        """How many operations of a run change a file below the folder."""
        done = self.run(*args, cwd=cwd, fault=Fault(0))
        assert done.code == 0, done
        return int(done.stderr.splitlines()[-1].removeprefix("operations: "))


# the process that forks


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer questions until there are no more."""
    for line in questions:
        question = json.loads(line)
        if "wait" in question:
            _, status, usage = os.wait4(question["wait"], 0)
            peak = max(0, usage.ru_maxrss * 1024 - _resident())
            out, err = (_drained(descriptor) for descriptor in _streams.pop(question["wait"]))
            took = {"processor": usage.ru_utime + usage.ru_stime, "peak": peak}
            answer = {"status": status, "out": out, "err": err, **took}
        elif "args" in question:
            answer = {"pid": _forked(question)}
        else:
            answer = {"ready": True}
        print(json.dumps(answer), file=answers, flush=True)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


_streams: dict[int, tuple[int, int]] = {}  # of each process: where what it says is read


def _forked(question: Mapping[str, Any]) -> int:
    """Fork a process; it speaks into pipes, which have room for what it says, and no limits of files and disks."""
    out, err = os.pipe(), os.pipe()
    for _, sender in (out, err):
        fcntl.fcntl(sender, fcntl.F_SETPIPE_SZ, 1 << 20)
    pid = os.fork()
    if pid == 0:
        os.dup2(out[1], 1)
        os.dup2(err[1], 2)
        _contrasim(question)
    for receiver, sender in (out, err):
        os.close(sender)
        os.set_blocking(receiver, False)
    _streams[pid] = (out[0], err[0])
    return pid


def _drained(descriptor: int) -> str:
    with open(descriptor, "rb") as stream:
        return (stream.read() or b"").decode("utf-8", "replace")


def _contrasim(question: Mapping[str, Any]) -> NoReturn:
    """Be the process of a command."""
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ |= question["environment"]
    os.chdir(question["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does when it starts
    for what, limit in question["limits"]:
        resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))
    exec(question["before"], {})
    code: object = 70
    try:
        if question["fault"]:
            _arrange(question["cwd"], *question["fault"])
        sys.argv = ["contrasim", *question["args"]]
        from contrasim_cli.cli import main

        main()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    if _operations and question["fault"] and question["fault"][0] == 0:
        print("operations:", len(_operations), file=sys.stderr)
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


_operations: list[str] = []


def _arrange(folder: str, at: int, error: int | None, number: int) -> None:
    """Let the n-th operation below the folder fail, or a signal come before it; 0 only counts them."""

    def happens(name: str) -> None:
        _operations.append(name)
        if len(_operations) != at:
            return
        if error is not None:
            raise OSError(error, os.strerror(error))
        os.kill(os.getpid(), number)

    def hook(event: str, arguments: Sequence[Any]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            path = arguments[0]
        elif event in CHANGES:
            path = arguments[CHANGES[event]]
        else:
            return
        if isinstance(path, (str, bytes, os.PathLike)) and os.path.realpath(os.fsdecode(path)).startswith(
            folder + os.sep
        ):
            happens(event)

    def counted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            happens(name)
            return plain(*arguments)

        return call

    for name in ("fsync", "pwrite", "ftruncate"):
        setattr(os, name, counted(name, getattr(os, name)))
    sys.addaudithook(hook)


def _import() -> None:
    """Import what the commands import."""
    import faiss  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch

    import contrasim_cli.cli
    import contrasim_cli.commands.layer_scores
    import contrasim_cli.extraction.run
    import contrasim_cli.plots
    import contrasim_cli.report.text
    import contrasim_cli.training  # noqa: F401

    for extra in ("table", "zarrs", "matlab5"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"contrasim_cli.store.{extra}")
    torch.set_num_threads(1)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an import prints is no answer
    _import()
    gc.collect()
    gc.freeze()  # the children share the memory of what is there
    serve(sys.stdin, answers)
