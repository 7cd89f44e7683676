"""Tables for papers: those of a terminal, at any width, as Markdown and as LaTeX (booktabs).

Names are shown as they are: whatever would be markup in them is escaped.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from contrasim_cli.report.score_tables import BestMatch

BOLD = "; bold: the best match of its row"
CALIBRATED = "→ calibrated"  # of which a caption speaks where matches are by the raw scores before it
WIDE = 100_000  # letters: no table is cut or laid out anew for want of room

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")
_BLOCKS = re.compile(r"^\s*(?=[-+=])|(?<=^\d)(?=[.)])")  # where a line would begin a list or a rule
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "`": r"\textasciigrave{}",
    "±": r"$\pm$", "–": r"\textendash{}", "→": r"$\rightarrow$", "…": r"\dots{}", "✓": r"$\checkmark$", "✗": r"$\times$",
    "−": "$-$",
}  # fmt: skip


@dataclass(frozen=True)
class Plain:
    """A table as text: the cells of its head and lines, the lines beneath which a rule is drawn, and cells in bold."""

    head: Sequence[str]
    right: Sequence[bool]
    lines: Sequence[Sequence[str]]
    ruled: frozenset[int] = field(default_factory=frozenset)
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)  # line and column

    @classmethod
    def of(cls, table: Table) -> "Plain":
        """What a table of rich's holds."""
        columns = [list(map(str, column.cells)) for column in table.columns]
        heads = [str(column.header) for column in table.columns]
        ruled = frozenset(k for k, row in enumerate(table.rows) if row.end_section and k + 1 < len(table.rows))
        bold = frozenset(
            (line, k)
            for k, column in enumerate(table.columns)
            for line, cell in enumerate(column.cells)
            if isinstance(cell, BestMatch)
        )
        right = [column.justify == "right" for column in table.columns]
        return cls(heads, right, list(zip(*columns, strict=True)), ruled, bold)


def titled(parts: Sequence[Table | str], title: str) -> list[Table | str]:
    """The parts with a title at the beginning of the caption of each table: the line before it, if there is one."""
    if not title:
        return list(parts)
    head = title if title.rstrip()[-1:] in (".", "!", "?", ":") else f"{title}."
    shown: list[Table | str] = []
    for part in parts:
        if isinstance(part, Table):
            caption = shown.pop() if shown and isinstance(shown[-1], str) else ""
            shown.append(f"{head} {caption}" if caption else title)
        shown.append(part)
    return shown


def markdown(parts: Sequence[Table | str], name: str = "") -> str:
    """Tables and the lines that say what they show, as Markdown; it has no use for their name."""
    blocks = []
    for part, after in zip(parts, [*parts[1:], None], strict=False):
        if isinstance(part, Table):
            blocks.append(_markdown_table(Plain.of(part)))
        else:
            has_bold = isinstance(after, Table) and Plain.of(after).bold
            blocks.append(_markdown_text(part + _bold(part) if has_bold else part))
    return "\n\n".join(blocks) + "\n"


def _markdown_text(text: str) -> str:
    """A line of text that is no markup."""
    return _BLOCKS.sub(r"\\", _inline(" ".join(text.split("\n")).lstrip()))


def _inline(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _markdown_table(table: Plain) -> str:
    marks = ["---:" if right else "---" for right in table.right]
    return "\n".join(
        [
            _markdown_line(table.head),
            f"| {' | '.join(marks)} |",
            *(
                _markdown_line(cells, {k for row, k in table.bold if row == line})
                for line, cells in enumerate(table.lines)
            ),
        ]
    )


def _markdown_line(cells: Sequence[str], bold: Collection[int] = ()) -> str:
    shown = [
        "<br>".join(f"**{line}**" if k in bold and line else line for line in map(_inline, cell.split("\n")))
        for k, cell in enumerate(cells)
    ]
    return f"| {' | '.join(shown)} |"


def latex(parts: Sequence[Table | str], name: str = "") -> str:
    """Tables and lines as LaTeX, a `table` each, with what it shows as its caption; other lines are comments. Needs booktabs.

    Labels are `tab:` and the name in lower-case letters, digits and hyphens; from the second table on they end in its number.
    """
    label, tables = _label(name), 0
    blocks = ["% needs \\usepackage{booktabs}, and \\usepackage{amssymb} where there are check marks\n"]
    for k, part in enumerate(parts):
        before = parts[k - 1] if k else None
        if isinstance(part, Table):
            tables += 1
            number = f"-{tables}" if tables > 1 else ""
            blocks.append(_latex_table(Plain.of(part), before if isinstance(before, str) else "", label + number))
        elif k + 1 == len(parts) or isinstance(parts[k + 1], str):  # no caption
            blocks.append("".join(f"% {line}\n" for line in part.splitlines()))
    return "".join(blocks)


def _bold(caption: str) -> str:
    """What a caption says of cells in bold."""
    return BOLD + ", by raw score" * (CALIBRATED in caption)


def _label(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "tab:" + (re.sub("[^a-z0-9]+", "-", letters).strip("-") or "contrasim")


def _latex_table(table: Plain, caption: str, label: str) -> str:
    caption += _bold(caption) if table.bold and caption else ""
    lines = [r"\begin{table}", r"\centering"]
    lines += (
        [rf"\caption{{{_escaped(caption)}}}", rf"\label{{{label}}}"] if caption else []
    )  # no number without a caption
    lines += [rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in table.right)}}}", r"\toprule"]
    lines += [_latex_line(table.head), r"\midrule"]
    for k, cells in enumerate(table.lines):
        bold = {column for line, column in table.bold if line == k}
        lines += [_latex_line(cells, bold), *([r"\midrule"] if k in table.ruled else [])]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_line(cells: Sequence[str], bold: Collection[int] = ()) -> str:
    shown = map(_latex_cell, cells)
    return " & ".join(rf"\textbf{{{cell}}}" if k in bold else cell for k, cell in enumerate(shown)) + r" \\"


def _latex_cell(cell: str) -> str:
    lines = list(map(_escaped, cell.split("\n")))
    return r"\shortstack[r]{" + r" \\ ".join(lines) + "}" if len(lines) > 1 else lines[0]


def _escaped(text: str) -> str:
    """Text that LaTeX sets as it is; a minus before a digit stays a minus."""
    text = re.sub(r"(?<![\w.])-(?=\d)", "−", text.replace("\n", " "))
    return re.sub("-(?=-)", "-{}", "".join(_LATEX.get(letter, letter) for letter in text))  # no dash of two hyphens


WRITERS: dict[str, Callable[[Sequence[Table | str], str], str]] = {"md": markdown, "tex": latex}
