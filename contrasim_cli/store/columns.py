"""The columns of a table: which are the neurons of a layer, and which say something else about the rows."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted

NUMBER = re.compile(r"\d+(?=\D*$)")
INDEX = re.compile(r"(Unnamed: 0|__index_level_\d+__)?")  # what pandas calls the index that it writes
ROW_NAMES = re.compile(
    r"(row|sample|image|item|stim\w*)?[ _.-]?(id|ids|idx|index|key|keys|name|names|no|nr)|\w+[ _.-]id", re.I
)


def layers_of(names: Iterable[str], table: str) -> dict[str, list[str]]:
    """The columns of numbers that are neurons, by layer; the others say something else, as a label does.

    Columns whose names differ only in their last number are one layer (`f0`, `f1`, …), or several (`conv_0`, … and `fc_0`, …), if
    they are most of all. Otherwise all are neurons of one layer, which is named for the table, as a single one always is.
    """
    candidates = [name for name in names if not INDEX.fullmatch(name) and not ROW_NAMES.fullmatch(name)]
    families: dict[str, list[str]] = {}
    for name in candidates:
        families.setdefault(family(name), []).append(name)
    numbered = {name: columns for name, columns in families.items() if len(set(columns)) > 1}
    if 2 * sum(map(len, numbered.values())) <= len(candidates):
        return {table: candidates} if candidates else {}
    if len(numbered) == 1:
        return {table: next(iter(numbered.values()))}
    shown = {name: name.rstrip("#_.-[( ") or table for name in numbered}
    unique = len(set(shown.values())) == len(shown)
    return {shown[name] if unique else name: columns for name, columns in numbered.items()}


def family(name: str) -> str:
    """A name without its last number; a name without a number is a family of its own."""
    return NUMBER.sub("#", name)


def refuse_texts(path: Path, texts: Sequence[str], neurons: int) -> None:
    """Refuse a table of texts: numbers beside them, such as scores, are no activations.

    Raises:
        InputError: there are as many columns of texts as of neurons.
    """
    if len(texts) >= neurons:
        shown = ", ".join(map(quoted, texts[:8])) + (", …" if len(texts) > 8 else "")
        raise InputError(
            f"{quoted(path)}: holds texts ({shown}), not activations; run a model on them: "
            "contrasim extract --model MODEL --text FILE --column NAME"
        )
