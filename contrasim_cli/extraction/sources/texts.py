"""Texts: the lines of a file, columns of a table or data set, fields of JSON objects."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.sources.hub_dataset import HubDataset
from contrasim_cli.extraction.sources.layout import MESSAGES, PLAIN, Layout
from contrasim_cli.extraction.sources.passages import Item, UnfitError, as_id, text_of
from contrasim_cli.extraction.sources.source import (
    ALL,
    Choice,
    Row,
    Selection,
    Source,
    batched,
    choose,
    named,
    refuse_duplicates,
)
from contrasim_cli.extraction.sources.tables import LINE, Delimited, Lines, Objects, check_columns, open_table
from contrasim_cli.extraction.sources.values import Bad, Table, Values, shown_names
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """A row: what is given to a model of each of its columns, and its name where a column holds it."""

    items: Sequence[Item]
    id: str | None = None


def text_source(
    path: Path, column: str | None = None, id_column: str | None = None, choice: Choice | None = None
) -> Source:
    """The lines of a text file, or one column of a table."""
    return text_sources(path, [column] if column else [], id_column, choice or ALL)[0]


def text_sources(
    path: Path,
    columns: Sequence[str],
    id_column: str | None,
    choice: Choice = ALL,
    layout: Layout = PLAIN,
    dataset: HubDataset | None = None,
) -> list[Source]:
    """The lines of a text file, or a source per column of a table or data set, all of the same rows.

    A row that cannot be read, or fits the pattern, in one column is left out of all of them.

    Raises:
        UsageError: a table without a column, a column that is not in it, or columns of something that is no table.
        InputError: the file cannot be read, has rows that cannot or none, or repeats an id.
        MismatchError: ids asked for are not there.
    """
    table = dataset or open_table(path, choice.memory)
    if not columns and layout.chat and layout.prompt is None and not isinstance(table, Lines | Delimited):
        columns = [MESSAGES]
    in_prompt = [] if layout.prompt is None or isinstance(table, Lines) else layout.prompt.columns
    if dataset is None:
        check_columns(path, columns or in_prompt, id_column)
    elif not columns and not in_prompt:
        names = shown_names(dataset.columns())
        raise UsageError(f"{quoted(path)}: say which column holds the text (--column); it has {names}")
    records = Records(path, columns, id_column, choice.ids, layout, table)
    stores = records.texts
    if not choice.skip_bad and layout != PLAIN:
        records.check_fields()
    found = choose(path, records.rows(), choice)
    records.check_ids(found)
    if found.blank:
        log.warning(
            "%s: %d of %d texts are empty; --skip-pattern '^\\s*$' leaves them out",
            quoted(path), found.blank, len(found.chosen),
        )  # fmt: skip
    digest, contents = table.digest(), table.contents(records.fields)
    return [
        Source(
            path=path,
            kind="text",
            n_rows=len(found.chosen),
            blocks=records.blocks(place, found),
            ids=records.ids(found),
            automatic=records.automatic,
            digest=digest,
            contents=contents,
            column=None if isinstance(table, Lines) else column,
            left_out=found.bad,
            words=found.words,
            settings=layout.settings,
        )
        for place, column in enumerate(stores)
    ]


@dataclass(frozen=True)
class Records:
    """The rows of a table of texts: the values of `columns`, or whole lines, and their names."""

    path: Path
    columns: Sequence[str]
    id_column: str | None = None
    names: Path | None = None
    layout: Layout = PLAIN
    given: Table | None = None  # None: what the file is by its name

    @cached_property
    def table(self) -> Table:
        """The table that is read."""
        return self.given or open_table(self.path)

    @property
    def automatic(self) -> bool:
        """Whether rows are named by their positions."""
        return self.id_column is None and self.names is None

    @property
    def texts(self) -> list[str | None]:
        """The column that holds the text of each store; None where a prompt takes its place."""
        return self.layout.texts(self.columns) or [LINE]

    @property
    def fields(self) -> list[str]:
        """All columns that are read."""
        own = [name for name in self.texts if name is not None]
        return list(dict.fromkeys([*self.layout.columns(own), *([self.id_column] if self.id_column else [])]))

    def read(self) -> Iterator[Record | Bad]:
        """Read all rows."""
        table, fields, texts = self.table, self.fields, self.texts
        for row in table.rows(fields):
            yield row if isinstance(row, Bad) else self._record(row, texts, fields, table.word)

    def _record(self, row: Values, texts: Sequence[str | None], fields: Sequence[str], word: str) -> Record | Bad:
        values = dict(zip(fields, row.values, strict=True))
        try:
            items = [self.layout.item(name, values, word) for name in texts]
            name = None if self.id_column is None else as_id(values[self.id_column], f"{word} {quoted(self.id_column)}")
        except UnfitError as error:
            return Bad(f"{row.where} {error}")
        return Record(items, name)

    def check_fields(self) -> None:
        """Refuse fields that objects do not have, once and not for every object.

        Raises:
            UsageError: the first one has not.
        """
        table = self.table
        if not isinstance(table, Objects) or not (names := table.columns()):
            return
        missing = next((name for name in self.fields if name not in names), None)
        if missing is not None:
            raise UsageError(
                f"{quoted(self.path)}: has no field {quoted(missing)}; the first object has {shown_names(names)}"
            )

    def rows(self) -> Iterator[Row]:
        """All rows, by name."""
        return named(self.path, self._rows(), self.names)

    def _rows(self) -> Iterator[Row]:
        for position, record in enumerate(self.read()):
            if isinstance(record, Bad):
                yield Row(str(position), bad=f"{quoted(self.path)}: {record.reason}")
            else:
                yield Row(str(position) if record.id is None else record.id, [text_of(item) for item in record.items])

    def blocks(self, place: int, found: Selection) -> Callable[[int], Iterator[list[Item]]]:
        """The chosen items of a column, block by block."""
        return lambda size: batched((record.items[place] for record in found.chosen.of(self.read())), size)  # type: ignore[union-attr]

    def ids(self, found: Selection) -> Callable[[], Iterator[str]]:
        """The names of the chosen rows."""
        if self.automatic:
            return lambda: map(str, found.chosen)
        return lambda: (row.id for row in found.chosen.of(self.rows()))

    def check_ids(self, found: Selection) -> None:
        """Refuse a name that two rows have."""
        if self.names is not None:
            refuse_duplicates(quoted(self.names), self.ids(found)())
        elif self.id_column is not None:
            refuse_duplicates(f"{quoted(self.path)}: column {quoted(self.id_column)}", self.ids(found)())
