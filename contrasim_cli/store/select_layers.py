"""Choosing layers by name, index, range or glob."""

import difflib
import fnmatch
import re
from collections.abc import Sequence

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted

EMBEDDINGS = "hidden_0"
NUMBER = re.compile(r"\d{1,9}")


def select_layers(
    names: Sequence[str], patterns: Sequence[str] | None, *, where: str, embeddings: bool = True
) -> list[str]:
    """The names that the patterns select, in the order of the patterns, each once.

    A pattern is an exact name, a number, a range of numbers `2-5` with both ends, or a glob. Where the names of layers are numbers,
    numbers are names, alone and in ranges; otherwise they are positions from 0. -1 is always the last layer.
    Without patterns: every layer, except `hidden_0` where `embeddings` is false.

    Raises:
        UsageError: a pattern matches no layer of `where`.
    """
    if not patterns:
        layers = [name for name in names if embeddings or name != EMBEDDINGS]
        return layers or list(names)
    selection: dict[str, None] = {}
    for pattern in patterns:
        matches = _matches(names, pattern)
        if not matches:
            raise UsageError(f"--layers {quoted(pattern)} matches no layer of {quoted(where)}; {_hint(names, pattern)}")
        selection.update(dict.fromkeys(matches))
    return list(selection)


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that some of the patterns select, in the order of the names; a pattern may match none."""
    matches = {name for pattern in patterns for name in _matches(names, pattern)}
    return [name for name in names if name in matches]


def is_position(pattern: str) -> bool:
    """Whether a pattern may be a position, or a range of them."""
    return re.fullmatch(r"-?\d{1,9}|\d{1,9}-\d{1,9}", pattern) is not None


def _matches(names: Sequence[str], pattern: str) -> list[str]:
    if pattern in names:
        return [pattern]
    if re.fullmatch(r"-\d{1,9}", pattern):
        return [names[int(pattern)]] if -int(pattern) <= len(names) else []
    if bounds := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", pattern):
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        numbered = _numbered(names, first, last)
        complete = first in numbered and last in numbered
        return [name for number, name in numbered.items() if first <= number <= last] if complete else []
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _numbered(names: Sequence[str], *numbers: int) -> dict[int, str]:
    """Names by the numbers that they are, where all are numbers or those wanted are; else by position."""
    named = {int(name): name for name in names if NUMBER.fullmatch(name)}
    return named if len(named) == len(names) or set(numbers) <= set(named) else dict(enumerate(names))


def _hint(names: Sequence[str], pattern: str) -> str:
    if bounds := re.fullmatch(r"(\d{1,9})?(?::|\.\.)(\d{1,9})?", pattern):
        first, end = int(bounds[1] or 0), int(bounds[2] or len(names))
        last = max(first, end - 1 if ":" in pattern else end)
        return f"a range names both ends with a hyphen: --layers {first}-{last}"
    if len(parts := [part for part in map(str.strip, pattern.split(",")) if part]) > 1:
        return f"repeat the option: {' '.join(f'--layers {quoted(part)}' for part in parts)}"
    if (bounds := re.fullmatch(r"(\d{1,9})-(\d{1,9})", pattern)) and int(bounds[1]) > int(bounds[2]):
        return f"a range begins with the smaller number: --layers {bounds[2]}-{bounds[1]}"
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(map(quoted, near))}?"
    shown = ", ".join(map(quoted, names[:8])) + (", …" if len(names) > 8 else "")
    return f"it has {len(names)}: {shown}"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which layer comes before layer2, and that before layer10."""
    parts = re.split(r"([0-9]+)", name)
    numbers = [part.lstrip("0") for part in parts]
    return [(0, len(numbers[k]), numbers[k]) if k % 2 else (1, 0, part) for k, part in enumerate(parts) if part]
