"""How --help names what options take: FILE, N, X and TEXT in place of the types of Python."""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from contrasim_cli.errors import UsageError

WORDS = {bool: "", int: "N", float: "X", Path: "FILE", str: "TEXT"}


def shortened(info: Any, hint: Any) -> Any:
    """What Typer is told of an option of some type, with a word for what it takes, or the choices, where it has none."""
    if not isinstance(info, OptionInfo) or info.metavar is not None:
        return info
    shown = copy.copy(info)
    kind = _plain(hint)
    shown.metavar = WORDS.get(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        shown.metavar = f"<{'|'.join(str(one.value) for one in kind)}>"
    return shown


def unwrapped(text: str) -> str:
    """`text` with every paragraph on one line."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def _plain(hint: Any) -> Any:
    """The type of a value, without None, and of the members of a list."""
    if get_origin(hint) in (Union, UnionType, list):
        return next((_plain(part) for part in get_args(hint) if part is not type(None)), hint)
    return hint


class Command(TyperCommand):
    """A command whose arguments and flags are shown without a type, and whose help is wrapped to the terminal alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Typer would keep the line breaks of the docstring, and wrap at the terminal's width besides
        self.help = unwrapped(self.help or "")

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the command, and --help."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Take the words of the line apart.

        Raises:
            UsageError: an option that names one file is given twice, of which the last would count and the first be lost.
        """
        words = [word.partition("=")[0] for word in itertools.takewhile(lambda word: word != "--", args)]
        for param in self.params:
            if param.param_type_name == "option" and param.metavar == "FILE" and not param.multiple:
                count = sum(word in param.opts for word in words)
                if count > 1:
                    raise UsageError(
                        f"{param.opts[0]} is given {count} times and names one file; run once for each file"
                    )
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands with help of the same form."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the group, and --help."""
        return _without_types(super().get_params(ctx))


class Imported(Mapping[str, Any]):
    """Commands by name, each of which is imported when it is first asked for."""

    def __init__(self, names: Sequence[str], load: Callable[[str], Any]) -> None:
        self._names, self._load = names, load

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _without_types(params: Any) -> Any:
    for param in params:
        if param.param_type_name == "argument" or (param.metavar is None and getattr(param, "is_flag", False)):
            param.display_type_rich = lambda ctx: ""
    return params
