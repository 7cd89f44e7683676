"""Help names what options take in words, and fits the eye."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run
from stores import values, write

from contrasim_cli.errors import ContraSimError, Stopped

COMMANDS = [
    ["extract"], ["train"], ["score"], ["baseline"], ["inspect"], ["guide"], ["bench"], ["bench", "layers"],
    ["bench", "multilingual"], ["bench", "image-caption"], ["bench", "compare"], ["bench", "sanity"], [],
]  # fmt: skip
PYTHON = re.compile(r"<(bool|str|int|float|path|Path|list)\b|\\t|range>|\bNone\b")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_take_words_not_types_of_python(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = run(*command, "--help")
    assert (shown.code, shown.stderr) == (0, "")
    assert PYTHON.findall(shown.stdout) == []


def test_files_numbers_and_texts_have_words_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = run("baseline", "--help").stdout
    for option, word in (
        ("--output", "FILE"),
        ("--k", "N"),
        ("--ridge", "X"),
        ("--memory", "TEXT"),
        ("--standardize-from", "FILE"),
    ):
        assert re.search(rf"{option}\s+(-o\s+)?{word}\b", shown), option


@pytest.mark.parametrize(("command", "rare"), [("baseline", "Parameters of measures"), ("score", "Picture of rows")])
def test_what_most_need_is_on_one_screen(command: str, rare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(command, "--help").stdout.splitlines()
    panels = {line.split("─ ")[1].split(" ─")[0]: k for k, line in enumerate(lines) if line.startswith("╭─ ")}
    assert panels["Layers and rows"] < panels["Output"] < panels["Intervals and p-values"] <= 50
    assert panels["Compute"] < panels[rare]
    assert list(panels)[-1] == "General" or list(panels)[-2] == "General"  # the examples


def completed(line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    environment = {"_CONTRASIM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", "from contrasim_cli.cli import app; app(prog_name='contrasim')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    return done.stdout.split()


def test_names_of_measures_are_completed() -> None:
    assert completed("contrasim baseline a.h5 b.h5 --measure cka_d") == ["cka_debiased"]


def test_names_of_layers_are_completed_from_the_stores_on_the_line(tmp_path: Path) -> None:
    store = write(tmp_path / "a.h5", {"block_1": values(), "block_2": values(), "head": values()})
    assert completed(f"contrasim baseline {store} b.h5 --layers block") == ["block_1", "block_2"]
    assert completed("contrasim baseline none.h5 b.h5 --layers block") == []


def test_the_manual_names_every_command_and_exit_code() -> None:
    manual = (Path(__file__).parents[2] / "contrasim_cli" / "contrasim.1").read_text()
    commands = manual.partition(".SH COMMANDS")[2].partition(".SH EXIT")[0]
    assert [
        command for command in COMMANDS if command and not re.search(rf"^.BR? {command[0]}\b", commands, re.M)
    ] == []
    assert [command for command in COMMANDS if len(command) == 2 and f"bench {command[1]}" not in commands] == []
    codes = {int(line.partition("\t")[0]) for line in manual.splitlines() if re.match(r"\d+\t", line)}
    kinds = [ContraSimError, *ContraSimError.__subclasses__(), *Stopped.__subclasses__()]
    assert codes >= {kind.exit_code for kind in kinds} | {0}


@pytest.mark.parametrize("columns", [80, 200])
def test_paragraphs_of_help_are_wrapped_to_the_terminal_only(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("train", "--help").stdout.partition("Options that")[2].partition("╭─")[0].rstrip().splitlines()
    assert all(len(line.rstrip()) > columns - 25 for line in lines[1:-1])
    assert len(lines) == {80: 3, 200: 2}[columns]
