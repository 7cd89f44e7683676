"""Which item each row is of, as somebody says: a regular expression over ids, or a table of ids and groups."""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contrasim_cli.benchmarks.items import Labels
from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.input_files import first_bytes, readable
from contrasim_cli.names import quoted
from contrasim_cli.store import View

LONGEST = 1 << 20  # characters of a field


@dataclass(frozen=True)
class Said:
    """The group of every id, and the words for an id that has none."""

    option: str
    group_of: Callable[[str], str | None]
    remedy: str
    _numbers: dict[str, int] = field(default_factory=dict)

    def labels(self, view: View) -> Labels:
        """[rows] a number per group, the same in every view that is asked about.

        Raises:
            InputError: an id has no group.
            UsageError: the store has no ids.
        """
        ids, path = view.store.ids, quoted(view.store.path)
        if ids is None:
            raise UsageError(f"{self.option} says what item an id belongs to, and {path} has no ids")
        numbers = np.full(ids.count, -1)
        needed = np.zeros(ids.count, dtype=bool)
        needed[slice(None) if view.rows is None else view.rows] = True
        missing, row = [], 0
        for block in ids.blocks():
            for text in block:
                if needed[row]:
                    group = self.group_of(text)
                    if group is None:
                        missing.append((row, text))
                    else:
                        numbers[row] = self._numbers.setdefault(group, len(self._numbers))
                row += 1
        if missing:
            first, text = missing[0]
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(f"{path}: id {quoted(text)} of row {first} {self.remedy}{more}")
        return numbers if view.rows is None else numbers[view.rows]


def by_pattern(pattern: str) -> Said:
    """Groups of ids are what a regular expression finds first in them: its first group, or all of it where it has none.

    Raises:
        UsageError: it is none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group-by {quoted(pattern)}: is no regular expression: {error}") from error

    def group_of(text: str) -> str | None:
        found = compiled.search(text)
        return None if found is None else found[1 if compiled.groups else 0]

    return Said("--group-by", group_of, f"does not match --group-by {quoted(pattern)}")


def by_table(path: Path) -> Said:
    """Groups of ids are those that a table of two columns, id and group, gives them; a line `id`, `group` may come first.

    Raises:
        InputError: it cannot be read, a line has not two columns, or an id has two groups.
    """
    return Said("--groups", read_table(path).get, f"is not in --groups {quoted(path)}")


def read_table(path: Path) -> Mapping[str, str]:
    """The group of every id. Columns are apart by tabs, or by commas where the first line has no tab."""
    first_bytes(path)
    groups: dict[str, str] = {}
    try:
        with readable(path), path.open(encoding="utf-8-sig", newline="") as stream:
            start = stream.readline(LONGEST)
            stream.seek(0)
            rows = csv.reader(stream, "excel-tab" if "\t" in start else "excel")
            for row in rows:
                if row and not (rows.line_num == 1 and [cell.strip().lower() for cell in row] == ["id", "group"]):
                    _add(groups, row, f"{quoted(path)}: line {rows.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{quoted(path)}: is no table of ids and groups in UTF-8 ({error})") from error
    return groups


def _add(groups: dict[str, str], row: list[str], where: str) -> None:
    if len(row) != 2:
        raise InputError(f"{where}: has {len(row)} columns; a table of --groups has two, id and group (TSV or CSV)")
    name, group = row
    if groups.setdefault(name, group) != group:
        raise InputError(
            f"{where}: id {quoted(name)} is of {quoted(group)}, and of {quoted(groups[name])} in a line before"
        )
