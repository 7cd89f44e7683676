"""Groups of options: what a command gets of them, and what can be said of those that are given."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from contrasim_cli.commands.options import Compute, General, command, given, parse_memory


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of an option that all have, and one that some have."""

    PANEL: ClassVar = "Things"
    size: Annotated[int, typer.Option("--size", "-s", help="How large.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name", help="Repeat.")] = None
    hidden: str = "kept"


@dataclass(frozen=True, kw_only=True)
class More(Group):
    """With the option that the other lacks, and another default."""

    size: Annotated[int, typer.Option("--size", help="Larger.")] = 9
    hidden: Annotated[str, typer.Option("--hidden", help="Shown here.")] = "shown"


def called(group: type[Any], *args: str) -> tuple[Any, str]:
    """What a command with this group gets, and what it prints."""
    made: list[Any] = []

    def function(things: Any, where: Annotated[str, typer.Argument()] = "here") -> None:
        made.append((things, where))

    function.__annotations__["things"] = group
    app = typer.Typer(add_completion=False)
    app.command()(command(function))
    done = CliRunner().invoke(app, list(args))
    return (made[0] if made else done.exit_code), done.output


def test_a_command_gets_its_groups_as_objects() -> None:
    assert called(Group, "--size", "4", "--name", "a", "--name", "b", "there")[0] == (
        Group(size=4, names=["a", "b"]),
        "there",
    )
    assert called(Group)[0] == (Group(), "here")


def test_what_is_no_option_is_none_and_a_subclass_may_make_it_one() -> None:
    assert called(Group, "--hidden", "x")[0] == 2
    assert called(More, "--hidden", "x")[0] == (More(size=9, hidden="x"), "here")


def test_help_has_a_panel_for_every_group() -> None:
    text = called(More, "--help")[1]
    assert "─ Things ─" in text
    assert "─ General ─" in text
    assert text.index("Things") < text.index("--size") < text.index("General") < text.index("--quiet")
    assert "Larger." in text
    assert "How large." not in text


def test_given_says_what_differs_from_defaults_by_flag() -> None:
    assert given(Group(), More(), General()) == {}
    assert given(Group(size=4, names=[]), More(hidden="x")) == {"--size": 4, "--hidden": "x"}
    assert given(replace(General(), no_color=True)) == {"--no-color": True}


def test_memory_is_read_with_its_unit() -> None:
    assert [parse_memory(text) for text in (None, "1k", "1.5GiB", "7")] == [None, 1024, 3 * 2**29, 7]
    with pytest.raises(typer.BadParameter, match="not a size"):
        Compute(memory="lots").memory_asked  # noqa: B018
