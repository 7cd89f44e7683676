"""Names that others chose, as they are written for people and programs: nothing in them acts on a terminal or a spreadsheet."""

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMULA = frozenset("=+-@＝＋－＠")  # with which a spreadsheet begins to compute; some take the wide forms too
BETWEEN_WORDS = "._-/ "
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


def counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def distinct_names(paths: Sequence[Path], suffix: bool = False) -> list[str]:
    """File names as results show them; whole paths where two names are the same, numbered where two paths are."""
    for names in (
        [quoted((p.name if suffix else p.stem) or p.absolute().name) for p in paths],
        [quoted(p) for p in paths],
    ):
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


def shortened(name: str, letters: int) -> str:
    """A name of no more letters than these, all printable; what it begins and ends with is kept."""
    name = "\n".join(map(quoted, name.split("\n")))
    head = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:head]}…{name[len(name) - (letters - 1 - head) :]}"


def distinct(names: Sequence[str], letters: int) -> list[str]:
    """Names of no more letters than these; where some are longer, what all begin or end with is left out first."""
    names = [quoted(name) for name in names]
    if max(map(len, names), default=0) <= letters or len(set(names)) < 2:
        return [shortened(name, letters) for name in names]
    heads = [k + 1 for k, letter in enumerate(_shared(names)) if letter in BETWEEN_WORDS]
    tails = [_without(names, head) for head in (*heads[-2:], 0)]  # the last word that all share is kept where it fits
    best = next((c for c in tails if max(map(len, c)) <= letters), tails[-2 if heads else -1])
    return [shortened(name, letters) for name in best]


def _shared(names: Sequence[str]) -> str:
    """What all names begin with."""
    alike = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    return names[0][: [*alike, False].index(False)]


def _without(names: Sequence[str], head: int) -> list[str]:
    """Names without so many letters at their beginning, and without the words that all end with."""
    rests = [name[head:] for name in names]
    backwards = _shared([rest[::-1] for rest in rests])
    tail = max((k + 1 for k, letter in enumerate(backwards) if letter in BETWEEN_WORDS), default=0)
    return [f"{'…' * (head > 0)}{rest[: len(rest) - tail]}{'…' * (tail > 0)}" for rest in rests]
