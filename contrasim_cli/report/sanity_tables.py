"""Checks of measures as tables: a line per check, a column per measure."""

from collections.abc import Sequence

from rich.table import Table

from contrasim_cli.report.results import SanityRow

MARKS = {"ok": " ✓", "fails": " ✗", "": ""}
LADDERS = ("noise", "shuffle", "width")  # a rule is drawn before each


def checklists(rows: Sequence[SanityRow], width: int) -> list[Table | str]:
    """Per layer as many tables as the measures need to be read at this width, beneath a line that explains the marks."""
    parts: list[Table | str] = []
    for layer in dict.fromkeys(row.layer for row in rows):
        by_measure: dict[str, list[SanityRow]] = {}
        for row in rows:
            if row.layer == layer:
                by_measure.setdefault(row.measure, []).append(row)
        parts.append(
            f"sanity on {layer}: ✓ as claimed or expected, ✗ not so, no mark: nothing is claimed; =: as before"
        )
        columns = {name: {"check": name, **_cells(checks)} for name, checks in by_measure.items()}
        parts.extend(_table(columns, names) for names in _fitting(columns, width))
    return parts


def _cells(checks: Sequence[SanityRow]) -> dict[str, str]:
    """What is shown of a measure's checks, by the labels of their lines."""
    before = _number(next(row.before for row in checks if row.check == "symmetric"))
    return {"before": before, **{_label(row): _cell(row) for row in checks}}


def _label(row: SanityRow) -> str:
    return row.check if row.level is None else f"{row.check} {row.level:g}"


def _cell(row: SanityRow) -> str:
    if row.score is None:
        return ""
    same = row.level is None and _number(row.score) == _number(row.before)
    return f"{'=' if same else _number(row.score)}{MARKS[row.verdict]}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def _fitting(columns: dict[str, dict[str, str]], width: int) -> list[list[str]]:
    """The measures cut into lists that fit the width, one at least in each."""
    room = width - max(len(label) for cells in columns.values() for label in cells) - 4
    lists: list[list[str]] = []
    left = 0
    for name, cells in columns.items():
        need = max(map(len, cells.values())) + 3
        if need > left:
            lists.append([])
            left = room
        lists[-1].append(name)
        left -= need
    return lists


def _table(columns: dict[str, dict[str, str]], names: Sequence[str]) -> Table:
    table = Table("check")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    begun: set[str] = set()
    for label in list(columns[names[0]])[1:]:
        check = label.split(" ")[0]
        if check in LADDERS and check not in begun:
            begun.add(check)
            table.add_section()
        table.add_row(label, *(columns[name].get(label, "") for name in names))
        if label == "before":
            table.add_section()
    return table
