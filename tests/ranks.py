"""Ranks of a command, started as srun does: a process each, with torchrun's variables."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """What a rank did."""

    code: int
    stdout: str
    stderr: str


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(world: int, *arguments: object, python: Sequence[str] = ("-m", "contrasim_cli"), only: Sequence[int] | None = None,
          env: Mapping[str, str] | None = None, port: str | None = None) -> list[subprocess.Popen[str]]:  # fmt: skip
    """Processes of ranks, running; `only` some of them."""
    port = port or str(free_port())
    processes = []
    for rank in range(world) if only is None else only:
        own = {
            "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, *python, *map(str, arguments)]
        processes.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=dict(os.environ) | own | dict(env or {}),
            )
        )
    return processes


def finish(processes: Sequence[subprocess.Popen[str]], timeout: float = 120) -> list[Done]:
    """What the ranks did, in their order."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Done(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def run(world: int, *arguments: object, **options: object) -> list[Done]:
    """Run a command by so many ranks."""
    return finish(start(world, *arguments, **options))  # type: ignore[arg-type]


def program(*arguments: object) -> Done:
    """Run a command as a program of its own, as a user does."""
    command = [sys.executable, "-m", "contrasim_cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)
