"""How --help names what options take: FILE, N, X and TEXT in place of the types of Python."""

import copy
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

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


def _plain(hint: Any) -> Any:
    """The type of a value, without None, and of the members of a list."""
    if get_origin(hint) in (Union, UnionType, list):
        return next((_plain(part) for part in get_args(hint) if part is not type(None)), hint)
    return hint


class Command(TyperCommand):
    """A command whose arguments and flags are shown without a type."""

    def get_params(self, ctx: Any) -> Any:
        """Those of the command, and --help."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """The same of a group of commands."""

    def get_params(self, ctx: Any) -> Any:
        """Those of the group, and --help."""
        return _without_types(super().get_params(ctx))


def _without_types(params: Any) -> Any:
    for param in params:
        if param.param_type_name == "argument" or (param.metavar is None and getattr(param, "is_flag", False)):
            param.display_type_rich = lambda ctx: ""
    return params
