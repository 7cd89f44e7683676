"""The examples of every command's help: three each, of options that the command has, and a page of the guide that is there."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import run

import contrasim_cli
from contrasim_cli.cli import app
from contrasim_cli.commands.examples import EXAMPLES, PAGES


def commands() -> dict[str, Any]:
    top = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    bench = top.pop("bench").commands
    return {**top, **{f"bench {name}": one for name, one in bench.items()}}


@pytest.mark.parametrize("name", commands())
def test_a_command_has_three_examples_that_it_takes(name: str) -> None:
    command, short = commands()[name], name.removeprefix("bench ")
    options = {option for parameter in command.params for option in parameter.opts}
    assert len(EXAMPLES[short]) == 3
    for example in EXAMPLES[short]:
        assert example.startswith(f"contrasim {name}")
        assert {word for word in shlex.split(example) if word.startswith("--")} <= options
    assert (Path(contrasim_cli.__file__).parent / "guide" / f"{PAGES[short]}.md").is_file()
    assert EXAMPLES[short][0] in command.epilog


def test_they_are_in_the_help() -> None:
    shown = run("score", "--help").stdout
    assert "contrasim score a.h5 b.h5" in shown
    assert "More: contrasim guide unseen" in shown
