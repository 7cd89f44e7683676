"""Choosing layers by name, index, range or glob."""

import difflib
import fnmatch
import re
from collections.abc import Sequence

from contrasim_cli.errors import UsageError
from contrasim_cli.files import quoted

EMBEDDINGS = "hidden_0"


def select_layers(
    names: Sequence[str], patterns: Sequence[str] | None, *, where: str, embeddings: bool = True
) -> list[str]:
    """The names that the patterns select, in the order of the patterns, each once.

    A pattern is an exact name, an index (-1 is the last layer), a range of indices `2-5` with both ends, or a glob.
    Without patterns: every layer, except `hidden_0` where `embeddings` is false.

    Raises:
        UsageError: a pattern matches no layer of `where`.
    """
    if not patterns:
        kept = [name for name in names if embeddings or name != EMBEDDINGS]
        return kept or list(names)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = _matches(names, pattern)
        if not found:
            raise UsageError(f"--layers {quoted(pattern)} matches no layer of {quoted(where)}; {_hint(names, pattern)}")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _matches(names: Sequence[str], pattern: str) -> list[str]:
    if pattern in names:
        return [pattern]
    if re.fullmatch(r"-?\d{1,9}", pattern):
        index = int(pattern)
        return [names[index]] if -len(names) <= index < len(names) else []
    if bounds := re.fullmatch(r"(\d{1,9})-(\d{1,9})", pattern):
        first, last = int(bounds[1]), int(bounds[2])
        return list(names[first : last + 1]) if last < len(names) else []
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _hint(names: Sequence[str], pattern: str) -> str:
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(map(quoted, near))}?"
    shown = ", ".join(map(quoted, names[:8])) + (", …" if len(names) > 8 else "")
    return f"it has {len(names)}: {shown}"
