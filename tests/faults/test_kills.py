"""kill -9 at any moment: outputs are whole or absent, --resume comes to the same bits, and nothing is left lying about."""

import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.conftest import Figures
from faults.warm import Ended, Fault, Warm
from faults.workplace import COMMANDS, Command, clear

RUNS = {}  # of each command: the seconds it takes, the operations it makes, and what comes out


def uninterrupted(warm: Warm, command: Command, inputs: Path, folder: Path) -> tuple[float, int, dict[str, str]]:
    """How long a run takes, its operations on files, and what its outputs hold."""
    if command not in RUNS:
        clear(folder, inputs)
        seconds = warm.run(*command.args, cwd=folder).seconds
        expected = command.contents(folder)
        assert len(expected) == len(command.outputs)
        clear(folder, inputs)
        RUNS[command] = (seconds, warm.operations(*command.args, cwd=folder), expected)
    return RUNS[command]


def check(command: Command, folder: Path, expected: dict[str, str]) -> None:
    """Every output that is there is the whole one."""
    for name, content in command.contents(folder).items():
        assert content == expected[name], f"{name} is not what an uninterrupted run writes"


def check_end(warm: Warm, command: Command, inputs: Path, folder: Path, expected: dict[str, str]) -> None:
    """The next run comes to the whole outputs, and leaves nothing beside them."""
    done = warm.run(*command.again(), cwd=folder)
    assert done.code == 0, done
    assert command.contents(folder) == expected
    there = {path.name for path in folder.iterdir()} - {path.name for path in inputs.iterdir()} - {"__pycache__"}
    assert there == set(command.outputs) | ({"l.jsonl"} if "l.jsonl" in command.args else set())
    if "l.jsonl" in command.args:
        steps = command.content(folder / "l.jsonl")
        assert steps == str(list(range(1, 1 + steps.count(",") + 1)))


def killed(warm: Warm, args: tuple[str, ...], folder: Path, seconds: float) -> Ended:
    """A run that is killed after so many seconds, if it has not ended by then."""
    process = warm.start(*args, cwd=folder)
    time.sleep(seconds)
    process.signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.slow
def test_kills_at_random_moments(warm: Warm, inputs: Path, tmp_path: Path, long: bool, figures: Figures) -> None:
    """Each run is killed, and up to three times while it is resumed."""
    chance, kills, folder = random.Random(0), 0, tmp_path / "work"
    for command in itertools.cycle(COMMANDS):
        seconds, operations, expected = uninterrupted(warm, command, inputs, folder)
        clear(folder, inputs)
        args = command.args
        for _ in range(chance.choice([1, 1, 2, 4])):
            ended = killed(warm, args, folder, chance.uniform(0, seconds))
            kills += ended.code == -signal.SIGKILL
            figures.add("kills at random moments", int(ended.code == -signal.SIGKILL))
            figures.add("kills too late", int(ended.code == 0))
            if ended.code == 0:  # the machine has become faster
                seconds = min(seconds, ended.seconds)
                RUNS[command] = (seconds, operations, expected)
            check(command, folder, expected)
            args = command.again()
        check_end(warm, command, inputs, folder, expected)
        if kills >= (500 if long else 15):
            break


@pytest.mark.slow
def test_kills_at_every_operation_on_a_file(
    warm: Warm, inputs: Path, tmp_path: Path, long: bool, figures: Figures
) -> None:
    """Time seldom hits the moments between two operations; in the short run some of them are tried."""
    chance, folder = random.Random(1), tmp_path / "work"
    for command in COMMANDS:
        _, operations, expected = uninterrupted(warm, command, inputs, folder)
        every = range(1, operations + 1)
        for at in every if long else sorted(chance.sample(every, 2)):
            clear(folder, inputs)
            ended = warm.run(*command.args, cwd=folder, fault=Fault(at))
            assert ended.code == -signal.SIGKILL, (at, ended)
            figures.add("kills at operations")
            check(command, folder, expected)
            check_end(warm, command, inputs, folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[2]], ids=lambda command: command.name)
def test_kills_of_the_program_itself(
    warm: Warm, inputs: Path, tmp_path: Path, long: bool, figures: Figures, command: Command
) -> None:
    """Not of a fork of it: from the first import on."""
    chance, folder = random.Random(2), tmp_path / "work"
    _, _, expected = uninterrupted(warm, command, inputs, folder)
    for _ in range(10 if long else 1):
        clear(folder, inputs)
        process = subprocess.Popen(
            [sys.executable, "-m", "contrasim_cli", *command.args], cwd=folder, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while (
            not set(folder.iterdir()) - {folder / path.name for path in inputs.iterdir()}
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        figures.add("kills of the program itself")
        check(command, folder, expected)
        check_end(warm, command, inputs, folder, expected)
