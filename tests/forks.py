"""Programs that begin as copies of one Python that has imported torch, in a tenth of the time that each import takes.

`start` is for tests that need many processes and not that each begins from nothing. A server (this file, run as a program) forks
for every request, after it has imported what is slow and nothing of ours; the copy then does what Python does when it starts.
"""

import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

LARGEST = 1 << 16  # bytes of a request


@dataclass
class Program:
    """A running copy, as far as tests ask; what it writes is kept in files."""

    pid: int
    outputs: tuple[IO[str], IO[str]]
    status: int  # a pipe that tells how it ended
    returncode: int | None = field(default=None, init=False)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the signal that killed it."""
        if self.returncode is None:
            if not select.select([self.status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(os.read(self.status, 16))
            os.close(self.status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it wrote, once it has ended."""
        self.wait(timeout)
        for file in self.outputs:
            file.seek(0)
        stdout, stderr = (file.read() for file in self.outputs)
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server() -> socket.socket:
    """The connection to a server of this process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"}  # read by imports; as ranks have them
    subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env)
    theirs.close()
    return ours


def _kept() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def start(python: Sequence[str], arguments: Sequence[str], env: Mapping[str, str]) -> Program:
    """Begin `python *python *arguments` in this folder with an environment; `python` is a file, or follows -m or -c."""
    outputs = _kept(), _kept()
    status, tells = os.pipe()
    request = {"python": python, "arguments": arguments, "env": dict(env), "folder": os.getcwd()}
    socket.send_fds(_server(), [json.dumps(request).encode()], [outputs[0].fileno(), outputs[1].fileno(), tells])
    os.close(tells)
    return Program(int(os.read(status, 16)), outputs, status)


def serve(connection: socket.socket) -> None:
    """Fork for every request; the copy forks the program, and tells its number and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies
    while True:
        request, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
        if not request:
            return
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            _watch(json.loads(request), *files)
        for file in files:
            os.close(file)


def _watch(request: dict[str, Any], stdout: int, stderr: int, tells: int) -> None:
    pid = os.fork()
    if not pid:
        os.close(tells)
        for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, stdout), (2, stderr)):
            os.dup2(file, number)
            os.close(file)
        _become(**request)
    os.write(tells, b"%16d" % pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(tells, b"%16d" % code)
    os._exit(0)


def _become(python: Sequence[str], arguments: Sequence[str], env: Mapping[str, str], folder: str) -> None:
    """Do what `python *python *arguments` does from its start on."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    inherited = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:1] = [folder, *inherited]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    kind, *rest = python
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(rest[0], {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    for name in ("numpy", "h5py", "torch", "torch.distributed", "typer", "rich.console"):
        importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        serve(asked)
