"""How a table is laid out as text: what its columns are separated by, whether it has a header, and what its columns are."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted
from contrasim_cli.store.columns import INDEX, family, layers_of, refuse_texts

DELIMITERS = ("\t", ";", ",", None)  # None: any run of spaces
KINDS = {"\t": "TSV", None: "table of text"}
MISSING = {"", "na", "n/a", "#n/a", "<na>", "null", "none"}
NUMBER = re.compile(
    r"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE
)
INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
CODE = re.compile(r"0\d+|\d{19,}", re.ASCII)  # digits that are no number, or lose some as one
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)

Record = tuple[int, list[str]]  # the number of a line, from 1, and its cells


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are.

    `layers`: the positions of the neurons of each layer. `beside`: names of the columns that are no neurons. `index`: that of them
    which the table itself takes for the rows' names. `before`: records before the rows. `width`: cells of a row.
    """

    delimiter: str | None
    before: int
    width: int
    layers: Mapping[str, Sequence[int]]
    beside: Mapping[int, str]
    index: int | None

    @property
    def kind(self) -> str:
        """What a table with this delimiter is called."""
        return KINDS.get(self.delimiter, "CSV")


def records(lines: Iterable[str], delimiter: str | None, before: int = 0) -> Iterator[Record]:
    """The lines that are not empty, as cells; `before` lines came before them."""
    if delimiter is None:
        yield from ((before + k, cells) for k, line in enumerate(lines, 1) if (cells := line.split()))
        return
    reader = csv.reader(lines, delimiter=delimiter)
    yield from ((before + reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no number."""
    return cell.strip().lower() in MISSING


def layout_of(path: Path, table: str, comment: str | None, lines: Sequence[str]) -> Layout:
    """The layout of a table by its first lines, before which may stand a comment that names the columns.

    Raises:
        InputError: it is no table of numbers.
    """
    delimiter = _delimiter(path, lines)
    rows = [cells for _, cells in records(lines, delimiter)]
    names, before = _header(rows)
    body = rows[before:]
    width = len(body[0])
    if names is None and comment is not None:
        named = ([cell.strip() for cell in cells] for _, cells in records([comment], delimiter))
        names = next((cells for cells in named if len(cells) == width), None)
    if names is not None and len(names) != width:
        raise InputError(
            f"{quoted(path)}: names {len(names)} columns, and its first row has {width} cells; the file is no table of numbers, "
            "or is damaged"
        )
    columns = list(zip(*(cells for cells in body if len(cells) == width), strict=True))
    numeric = _numeric(columns, names)
    first = int(width > 1 and _names_rows(columns[0]))
    neurons = [k for k in range(first, width) if numeric[k]]
    if names is None:
        layers = {table: neurons} if neurons else {}
    else:
        names_by_layer = layers_of([names[k] for k in neurons], table)
        layers = {layer: [k for k in neurons if names[k] in set(members)] for layer, members in names_by_layer.items()}
    taken = {k for members in layers.values() for k in members}
    beside = {
        k: (names[k] if names else "") or (f"column {k + 1}" if k else "index") for k in range(width) if k not in taken
    }
    _refuse_lists(path, (columns[k][0] for k in beside))
    refuse_texts(path, [name for k, name in beside.items() if not numeric[k]], len(taken))
    index = 0 if 0 in beside and (names is None or INDEX.fullmatch(names[0])) else None
    return Layout(delimiter, before, width, layers, beside, index)


def _delimiter(path: Path, lines: Sequence[str]) -> str | None:
    """What leaves numbers in rows of the same length: spaces if nothing else does, and most numbers of several."""
    best: tuple[bool, bool, int] = (False, False, 0)
    best_delimiter: str | None = None
    for delimiter in DELIMITERS:
        try:
            rows = [cells for _, cells in records(lines, delimiter)]
        except csv.Error:
            continue
        body = rows[1:] or rows
        width = max(map(len, body), default=0)
        cells = [cell for row in body for cell in row]
        commas, numbers = (sum(map(bool, map(kind.fullmatch, cells))) for kind in (DECIMAL_COMMA, NUMBER))
        if 2 * commas > numbers and width > 1:
            comma = next(filter(DECIMAL_COMMA.fullmatch, cells))
            raise InputError(
                f"{quoted(path)}: has numbers with commas, such as {quoted(comma)}; write decimals with a point"
            )
        splits = (width > 1 and len(set(map(len, body))) == 1, width > 1 and delimiter is not None, numbers)
        if numbers and splits > best:
            best, best_delimiter = splits, delimiter
    if not best[2]:
        _refuse_lists(path, [cell for _, cells in records(lines, ",") for cell in cells])
        raise InputError(
            f"{quoted(path)}: holds text and no numbers; run a model on it: contrasim extract --model MODEL --text FILE"
        )
    return best_delimiter


def _refuse_lists(path: Path, cells: Iterable[str]) -> None:
    text = next((cell for cell in cells if cell.startswith("[") and cell.endswith("]")), None)
    if text is not None:
        raise InputError(
            f"{quoted(path)}: holds lists that are written as text, such as {quoted(text[:40])}; write a column per number"
        )


def _header(rows: Sequence[list[str]]) -> tuple[list[str] | None, int]:
    """The names of the columns, if the first record holds them, and how many records come before the rows."""
    first, body = [cell.strip() for cell in rows[0]], rows[1:]
    if not body:
        return None, 0
    width, counts = len(body[0]), _counts(first, body)
    texts = [k for k, cell in enumerate(first) if not NUMBER.fullmatch(cell)]
    if len(first) == 2 and width > 2 and not texts and first[1] == str(width - 1):  # word2vec: rows and neurons
        return None, 1
    if len(first) == width - 1 and (texts or counts):  # R, where the rows have names
        return ["", *first], 1
    over = any(not is_missing(first[k]) and _are_numbers([cells[k] for cells in body if k < len(cells)]) for k in texts)
    return (first, 1) if over or counts else (None, 0)


def _numeric(columns: Sequence[Sequence[str]], names: list[str] | None) -> list[bool]:
    """Which columns are numbers: at least half of each, so that one that is broken is an error and no column of texts.

    Without a header the first may name the rows, and then one text is enough; with one, columns that differ from a numeric one in
    their number are numeric too.
    """
    flags = [
        2 * sum(NUMBER.fullmatch(cell) is not None or is_missing(cell) for cell in cells) >= len(cells)
        for cells in columns
    ]
    if names is None:
        flags[0] = all(NUMBER.fullmatch(cell) or is_missing(cell) for cell in columns[0])
        return flags
    families = {family(name) for name, numeric in zip(names, flags, strict=True) if numeric and family(name) != name}
    return [numeric or family(name) in families for name, numeric in zip(names, flags, strict=True)]


def _are_numbers(cells: Sequence[str]) -> bool:
    return any(map(NUMBER.fullmatch, cells)) and all(NUMBER.fullmatch(cell) or is_missing(cell) for cell in cells)


def _counts(first: list[str], body: Sequence[list[str]]) -> bool:
    """Whether the first record numbers the columns, as pandas does where they have no names: 0, 1, 2, …"""
    names = first if first and NUMBER.fullmatch(first[0]) else first[1:]
    counting = any(names == [str(start + k) for k in range(len(names))] for start in (0, 1))
    return counting and (len(names) > 2 or (len(names) == 2 and not all(map(INTEGER.fullmatch, body[0][-2:]))))


def _names_rows(cells: Sequence[str]) -> bool:
    """Whether the first column counts the rows, or is a code, and so holds no values of a neuron."""
    counts = len(cells) > 2 and any(list(cells) == [str(start + k) for k in range(len(cells))] for start in (0, 1))
    return counts or any(map(CODE.fullmatch, cells))
