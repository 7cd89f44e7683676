"""Names that others chose, as they are written for people and programs: nothing in them acts on a terminal or a spreadsheet."""

import json
import re
from typing import Any

from contrasim_cli.files import quoted

FORMULA = frozenset("=+-@＝＋－＠")  # with which a spreadsheet begins to compute; some take the wide forms too
LINE_DRAWING = str.maketrans({"–": "-", "…": ".", "±": "~", "✓": "+", "✗": "x"})


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
