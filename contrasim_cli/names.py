"""Names that others chose, as they are written for people and programs: nothing in them acts on a terminal or a spreadsheet."""

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMULA = frozenset("=+-@＝＋－＠")  # with which a spreadsheet begins to compute; some take the wide forms too
LINE_DRAWING = str.maketrans({"–": "-", "…": ".", "±": "~", "✓": "+", "✗": "x"})


def quoted(name: object) -> str:
    """A name as messages show it: one line, control characters escaped."""
    text = str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def look_alike(first: str, second: str) -> bool:
    """Whether two names differ, but only in spaces, in Unicode form, or in what is not seen."""
    return first != second and _seen(first) == _seen(second)


def _seen(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", name) if c.isprintable() and not c.isspace())


def told_apart(names: Sequence[str]) -> list[str]:
    """Two names as messages show them; in quotes and ASCII alone where they look alike, so that the difference is seen."""
    return [ascii(name) for name in names] if look_alike(*names) else [quoted(name) for name in names]


def listed(names: Sequence[str], shown: int = 6) -> str:
    """`a, b and c`, or the first of them and how many more."""
    more = len(names) - shown
    if more > 0:
        return f"{', '.join(names[:shown])} and {more} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def distinct_names(paths: Sequence[Path], suffix: bool = False) -> list[str]:
    """File names as results show them; whole paths where two names are the same, numbered where two paths are."""
    for names in ([quoted(p.name if suffix else p.stem) for p in paths], [quoted(p) for p in paths]):
        if len(set(names)) == len(names):
            return names
    return [name if names.count(name) == 1 else f"{name}#{names[: k + 1].count(name)}" for k, name in enumerate(names)]


def cell(text: str) -> str:
    """A name as a cell of TSV or CSV: printable, and behind an apostrophe where a spreadsheet would compute it."""
    shown = quoted(text)
    return f"'{shown}" if shown.lstrip()[:1] in FORMULA and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) is not None


def json_text(content: Any, **options: Any) -> str:
    """JSON in letters as they are, with escapes for what is not printable; a reader gets the same names back."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, **options)
    return re.sub(r"[^\n -~]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    letter = found[0]
    return letter if letter.isprintable() else json.dumps(letter)[1:-1] if letter > "\x7f" else f"\\u{ord(letter):04x}"


def encodable(text: str, encoding: str) -> str:
    """A table in letters that an encoding has, as far as others stand for them as well."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(LINE_DRAWING)
    return text
