"""Files that hold one item each: those of a folder, or those that a column of a table names."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from contrasim_cli.errors import InputError, reason
from contrasim_cli.extraction.sources.passages import is_utf8
from contrasim_cli.extraction.sources.source import (
    ALL,
    Choice,
    Row,
    Selection,
    Source,
    batched,
    choose,
    file_digest,
    named,
    refuse_duplicates,
)
from contrasim_cli.extraction.sources.tables import check_columns
from contrasim_cli.extraction.sources.texts import Records
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of files: the `name` of its sources, `what` one file is called, and the `column` option of tables.

    `problem_of(path, memory)` says why a file cannot be read, or takes more than `memory` bytes to read (None: half of
    what is free).
    """

    name: str
    what: str
    column: str
    suffixes: frozenset[str]
    problem_of: Callable[[Path, int | None], str | None]


def folder_source(path: Path, kind: Kind, choice: Choice | None = None) -> Source:
    """The files of a folder and its subfolders, sorted bytewise by their relative paths, which are their ids.

    Raises:
        InputError: there is no such folder, no such file in it, or one that cannot be read.
        MismatchError: ids asked for are not there.
    """
    if not os.path.isdir(path):
        raise InputError(
            f"{quoted(path)}: is not a folder; --{kind.name} takes a folder of {kind.what} files, or a table with {kind.column}"
        )
    names, passed_over = _names(path, kind)
    if not names:
        raise InputError(f"{quoted(path)}: holds no {kind.what} ({' '.join(sorted(kind.suffixes))})")
    if passed_over:
        if passed_over == 1:
            log.info(
                "%s: 1 file that is not %s %s is skipped",
                quoted(path),
                "an" if kind.what[0] in "aeiou" else "a",
                kind.what,
            )
        else:
            log.info("%s: %d files that are not %ss are skipped", quoted(path), passed_over, kind.what)
    choice = choice or ALL
    files = Files(
        kind, path, lambda: named(path, (Row(name, [name]) for name in names), choice.ids), None, choice.memory
    )
    found = choose(path, files.checked(), choice)
    if choice.ids is not None:
        refuse_duplicates(quoted(choice.ids), files.ids(found))
    digest = files.digest(found)
    return files.source(found, automatic=False, digest=digest, contents=digest)


def table_source(
    path: Path, kind: Kind, column: str, id_column: str | None = None, choice: Choice | None = None
) -> Source:
    """The files that a column of a table names, relative to its folder; ids as those of the table's texts.

    Raises:
        UsageError: the file is no table, or the column is not there.
        InputError: the file, or one that it names, cannot be read, or an id occurs twice.
        MismatchError: ids asked for are not there.
    """
    check_columns(path, [column], id_column)
    choice = choice or ALL
    table = Records(path, [column], id_column, choice.ids)
    files = Files(kind, path.parent, table.rows, path, choice.memory)
    found = choose(path, files.checked(), choice)
    table.check_ids(found)
    digest = file_digest(path)
    contents = hashlib.sha256(f"{digest} {files.digest(found)}".encode()).hexdigest()
    return files.source(found, automatic=table.automatic, digest=digest, contents=contents, column=column)


@dataclass(frozen=True)
class Files:
    """Rows whose only text is the path of a file below a folder; `table` is what named them, if not the folder.

    `memory` is what reading one may take, in bytes.
    """

    kind: Kind
    folder: Path
    rows: Callable[[], Iterable[Row]]
    table: Path | None = None
    memory: int | None = None

    def checked(self) -> Iterator[Row]:
        """The rows, each with the check of its file."""
        for row in self.rows():
            path = self.folder / row.texts[0] if row.bad is None else None
            yield row if path is None else replace(row, check=partial(self.kind.problem_of, path, self.memory))

    def paths(self, found: Selection) -> Iterator[Path]:
        """The files of the chosen rows."""
        return (self.folder / row.texts[0] for row in found.chosen.of(self.rows()))

    def ids(self, found: Selection) -> Iterator[str]:
        """The names of the chosen rows."""
        return (row.id for row in found.chosen.of(self.rows()))

    def digest(self, found: Selection) -> str:
        """Digest of paths and sizes: reading every file twice would cost as much as the extraction."""
        digest = hashlib.sha256()
        for row in found.chosen.of(self.rows()):
            digest.update(json.dumps([row.texts[0], (self.folder / row.texts[0]).stat().st_size]).encode())
        return digest.hexdigest()

    def source(self, found: Selection, **known: Any) -> Source:
        """The source of the chosen rows."""
        return Source(
            path=self.table or self.folder,
            kind=self.kind.name,
            n_rows=len(found.chosen),
            blocks=lambda size: batched(self.paths(found), size),
            ids=lambda: self.ids(found),
            left_out=found.bad,
            **known,
        )


def _names(folder: Path, kind: Kind) -> tuple[list[str], int]:
    files = [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    found = [name for name in files if Path(name).suffix.lower() in kind.suffixes]
    unnameable = [name for name in found if not is_utf8(name)]
    if unnameable:
        raise InputError(
            f"{quoted(folder)}: the file name {unnameable[0]!a} is not UTF-8 and cannot be an id; rename it"
        )
    return sorted((name.replace(os.sep, "/") for name in found), key=os.fsencode), len(files) - len(found)


def unreadable(path: Path, what: str, error: Exception) -> str:
    """The error that a file cannot be read, and why."""
    why = (
        "there is no such file"
        if isinstance(error, FileNotFoundError)
        else reason(error).replace(f" {str(path)!r}", "")
    )
    return f"{quoted(path)}: cannot be read as {what} ({why})"
