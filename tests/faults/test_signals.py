"""SIGTERM and Ctrl-C at any moment: one line that says how to go on, the exit code of the signal, and outputs whole or absent."""

import random
import signal
import time
from pathlib import Path

import pytest
from faults.conftest import Figures
from faults.test_kills import check, check_end, uninterrupted
from faults.warm import Ended, Fault, Warm
from faults.workplace import COMMANDS, ONE_OF_EACH, Command, clear

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}


def check_stop(command: Command, number: int, ended: Ended, folder: Path) -> None:
    """One line of error at the end, which says how to go on where there is something to go on with."""
    if ended.code == 0:  # the signal came too late
        return
    *notes, line = ended.stderr.splitlines() or [""]
    assert (ended.code, ended.stdout) == (CODES[number], ""), ended
    assert not [note for note in notes if not note.startswith(("contrasim: note: ", "contrasim: warning: "))], ended
    assert line.startswith("contrasim: error: "), ended
    states = [path for path in folder.iterdir() if path.name.endswith((".partial", ".parts"))]
    if states and not (folder / command.outputs[0]).exists():
        assert "--resume goes on" in ended.stderr, ended
    elif not command.resumes:
        assert line == f"contrasim: error: {WORDS[number]}; nothing is kept, the same command starts again"
    assert not list(folder.glob("**/.*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=WORDS.get)
def test_signals_at_random_moments(
    warm: Warm, inputs: Path, tmp_path: Path, long: bool, figures: Figures, number: int
) -> None:
    chance, folder = random.Random(number), tmp_path / "work"
    for command in COMMANDS * 10 if long else ONE_OF_EACH:
        seconds, _, expected = uninterrupted(warm, command, inputs, folder)
        clear(folder, inputs)
        process = warm.start(*command.args, cwd=folder)
        time.sleep(0.05 + chance.uniform(0, seconds))
        process.signal(number)
        figures.add(f"{WORDS[number]} at random moments")
        check_stop(command, number, process.wait(), folder)
        check(command, folder, expected)
        check_end(warm, command, inputs, folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=WORDS.get)
def test_signals_at_operations_on_files(
    warm: Warm, inputs: Path, tmp_path: Path, long: bool, figures: Figures, number: int
) -> None:
    """In the middle of what HDF5 calls back to write, too."""
    chance, folder = random.Random(number + 100), tmp_path / "work"
    for command in COMMANDS if long else ONE_OF_EACH:
        _, operations, expected = uninterrupted(warm, command, inputs, folder)
        every = range(1, operations + 1)
        letting_go = (
            every[3 * operations // 5 :: 6][:4] if command == COMMANDS[0] else ()
        )  # HDF5's own writes among them
        few = {*chance.sample(every, 1), *letting_go}
        for at in every if long else sorted(few):
            clear(folder, inputs)
            ended = warm.run(*command.args, cwd=folder, fault=Fault(at, signal=number))
            figures.add(f"{WORDS[number]} at operations")
            check_stop(command, number, ended, folder)
            check(command, folder, expected)
            check_end(warm, command, inputs, folder, expected)
