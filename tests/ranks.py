"""Ranks of a command, started as srun does: a process each, with torchrun's variables."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import forks

COMMAND = ("-m", "contrasim_cli")
Running = forks.Program | subprocess.Popen[str]


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


def _environments(world: int, env: Mapping[str, str] | None, port: str | None) -> list[dict[str, str]]:
    """What tells every rank who it is, as torchrun's variables do."""
    place = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    place |= {"MASTER_PORT": port or str(free_port()), "OMP_NUM_THREADS": "1"}
    return [dict(os.environ) | place | {"RANK": str(k), "LOCAL_RANK": str(k)} | dict(env or {}) for k in range(world)]


def start(
    world: int,
    *arguments: object,
    python: Sequence[str] = COMMAND,
    only: Sequence[int] | None = None,
    env: Mapping[str, str] | None = None,
    port: str | None = None,
) -> list[forks.Program]:
    """Ranks, running, as copies of a Python that has imported torch; `only` some of them."""
    environments = _environments(world, env, port)
    asked = [environments[rank] for rank in only] if only is not None else environments
    return [forks.start(python, list(map(str, arguments)), one) for one in asked]


def start_anew(world: int, *arguments: object, env: Mapping[str, str] | None = None) -> list[subprocess.Popen[str]]:
    """Ranks, running, each a Python of its own that imports all it needs."""
    command = [sys.executable, *COMMAND, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return [subprocess.Popen(command, text=True, env=one, **pipes) for one in _environments(world, env, None)]


def finish(processes: Sequence[Running], timeout: float = 120) -> list[Done]:
    """What the ranks did, in their order."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Done(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def run(world: int, *arguments: object, **options: Any) -> list[Done]:
    """Run a command by so many ranks."""
    return finish(start(world, *arguments, **options))


def program(*arguments: object) -> Done:
    """Run a command as a program of its own, as a user does."""
    return finish([forks.start(COMMAND, list(map(str, arguments)), os.environ)])[0]
