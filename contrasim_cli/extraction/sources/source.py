"""Rows to be fed to a model, wherever they come from, and the choice of some of them.

Sources are read in blocks and in order, so that their size costs no memory.
"""

import bisect
import hashlib
import itertools
import logging
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, MismatchError, Problems, UsageError, raise_all
from contrasim_cli.extraction.sources.packed import is_packed, packed_lines
from contrasim_cli.input_files import first_bytes
from contrasim_cli.names import quoted
from contrasim_cli.store.store import first_duplicate

log = logging.getLogger(__name__)

DIGEST_BLOCK = 1 << 20
SHOWN = 10

Items = Any  # a list of rows, or an array of them
Positions = npt.NDArray[np.int64]
T = TypeVar("T")


class BadItem(InputError):
    """One item cannot be read; `--skip-bad` leaves it out."""


@dataclass(frozen=True)
class Choice:
    """Which rows are taken.

    Those that the file `only` names, without those that fit `skip_pattern`; of these, `limit` rows behind the first
    `skip`; and of these, with `skip_bad`, those that can be read. `ids` is a file that names the rows of the input.
    With `by_word`, `only` may also name words of rows, as row:word. `memory` is what reading an item may take, in bytes; None for
    half of what is free.
    """

    ids: Path | None = None
    only: Path | None = None
    skip_pattern: str | None = None
    skip: int = 0
    limit: int | None = None
    skip_bad: bool = False
    by_word: bool = False
    memory: int | None = None


ALL = Choice()


@dataclass(frozen=True)
class Source:
    """Rows to be fed to a model, `kind` text, arrays or images.

    `blocks(size)` yields the rows from the first to the last, `size` at a time; `ids()` yields their names. `automatic`
    ids are the positions in the file whose digest is `digest`. `contents` is the digest of all that the rows depend on,
    and `left_out` names what could not be read, each with the reason.
    """

    path: Path
    kind: str
    n_rows: int
    blocks: Callable[[int], Iterator[Items]]
    ids: Callable[[], Iterator[str]]
    automatic: bool
    digest: str
    contents: str
    column: str | None = None
    left_out: Sequence[tuple[str, str]] = ()
    words: Mapping[int, frozenset[str]] = field(
        default_factory=dict
    )  # of rows, by position, of which some words are taken
    settings: Mapping[str, Any] = field(default_factory=dict)  # the options that made the rows what they are

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.resolve().name

    def id_of(self, position: int) -> str:
        """The name of one row, for messages."""
        return next(itertools.islice(self.ids(), position, None))


def paired(source: Source, other: Source) -> Source:
    """The rows of two sources of the same rows, as pairs of those of `other` and of `source`."""

    def blocks(size: int) -> Iterator[list[tuple[Any, Any]]]:
        for first, second in zip(other.blocks(size), source.blocks(size), strict=True):
            yield list(zip(first, second, strict=True))

    return replace(source, blocks=blocks)


class Chosen:
    """Positions in a file, ascending; kept as runs, so that what is contiguous costs no memory."""

    def __init__(self) -> None:
        self._starts = array("q")
        self._stops = array("q")
        self._count = 0

    def add(self, position: int) -> None:
        """Append a position behind the last one."""
        if self._stops and self._stops[-1] == position:
            self._stops[-1] += 1
        else:
            self._starts.append(position)
            self._stops.append(position + 1)
        self._count += 1

    def __len__(self) -> int:
        """The number of positions."""
        return self._count

    def __iter__(self) -> Iterator[int]:
        """The positions in order."""
        return itertools.chain.from_iterable(map(range, self._starts, self._stops))

    def of(self, items: Iterable[T]) -> Iterator[T]:
        """The chosen ones of all items of the file."""
        iterator, at = iter(items), 0
        for start, stop in zip(self._starts, self._stops, strict=True):
            yield from itertools.islice(iterator, start - at, stop - at)
            at = stop

    def between(self, start: int, stop: int) -> Positions:
        """The positions [k] from `start` to before `stop`."""
        first, last = bisect.bisect_right(self._stops, start), bisect.bisect_left(self._starts, stop)
        runs = zip(self._starts[first:last], self._stops[first:last], strict=True)
        found = [np.arange(max(a, start), min(b, stop), dtype=np.int64) for a, b in runs]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def part(self, first: int, stop: int) -> "Chosen":
        """The chosen positions from `first` to before `stop`."""
        left, at = Chosen(), 0
        for start, end in zip(self._starts, self._stops, strict=True):
            begin, last = start + max(0, first - at), min(end, start + stop - at)
            if begin < last:
                left._starts.append(begin)
                left._stops.append(last)
                left._count += last - begin
            at += end - start
        return left

    def without(self, dropped: Positions) -> "Chosen":
        """The positions without those dropped."""
        left = Chosen()
        gone = set(dropped.tolist())
        for position in self:
            if position not in gone:
                left.add(position)
        return left

    def batches(self, size: int) -> Iterator[Positions]:
        """The positions [k], `size` at a time."""
        for batch in batched(self, size):
            yield np.array(batch, dtype=np.int64)


@dataclass
class Row:
    """A row of a file that may be chosen: its name and its texts, or the reason why it cannot be read.

    `check` finds a reason that is looked for only if the row is chosen.
    """

    id: str
    texts: Sequence[str] = ()
    bad: str | None = None
    check: Callable[[], str | None] = lambda: None


@dataclass
class Selection:
    """The rows chosen, those of them that were left out because they cannot be read, and how many of all were seen.

    `blank` counts the chosen rows with an empty text.
    """

    chosen: Chosen = field(default_factory=Chosen)
    bad: list[tuple[str, str]] = field(default_factory=list)
    seen: int = 0
    blank: int = 0
    words: dict[int, frozenset[str]] = field(default_factory=dict)


def choose(path: Path, rows: Iterable[Row], choice: Choice = ALL) -> Selection:
    """Choose among the rows of a file.

    Raises:
        UsageError: the pattern is none.
        InputError: a chosen row cannot be read, or none is left.
        MismatchError: an id that is asked for is not there.
    """
    wanted = _wanted(choice.only)
    pattern = _pattern(choice.skip_pattern)
    words = _words(wanted or ()) if choice.by_word else {}
    found, unknown, taken = Selection(), set(wanted or ()), 0
    for position, row in enumerate(rows):
        found.seen += 1
        unknown.discard(row.id)
        unknown -= {f"{row.id}:{word}" for word in words.get(row.id, ()) if int(word) < _count_words(row)}
        asked = wanted is None or row.id in wanted or row.id in words
        if not asked or (pattern and any(map(pattern.search, row.texts))):
            continue
        taken += 1
        if taken <= choice.skip:
            continue
        bad = row.bad or row.check()
        if bad is None:
            if wanted is not None and row.id not in wanted:
                found.words[len(found.chosen)] = words[row.id]
            found.chosen.add(position)
            found.blank += not all(text.strip() for text in row.texts)
        else:
            found.bad.append((row.id, bad))
        if choice.limit is not None and taken == choice.skip + choice.limit:
            break
    else:
        _refuse_unknown(path, choice.only, unknown)
    if found.bad and not choice.skip_bad:
        raise_bad([reason for _, reason in found.bad])
    note_left_out(found.bad)
    if not found.chosen:
        left = f"keeps none of its {found.seen} rows; choose others" if found.seen else "holds no rows"
        raise InputError(f"{quoted(path)}: {left}")
    return found


def _wanted(path: Path | None) -> set[str] | None:
    return None if path is None else set(read_lines(path))


def _words(wanted: Iterable[str]) -> dict[str, frozenset[str]]:
    """The numbers of the words by row, from names of the form row:word."""
    found: dict[str, set[str]] = {}
    for name in wanted:
        row, _, word = name.rpartition(":")
        if row and re.fullmatch("0|[1-9][0-9]*", word):
            found.setdefault(row, set()).add(word)
    return {row: frozenset(numbers) for row, numbers in found.items()}


def _count_words(row: Row) -> int:
    return min((len(text.split()) for text in row.texts), default=0)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(f"--skip-pattern {quoted(text)}: is not a regular expression ({error})") from error


def _refuse_unknown(path: Path, only: Path | None, unknown: set[str]) -> None:
    if unknown:
        verb, them = ("id is", "it") if len(unknown) == 1 else ("ids are", "them")
        raise MismatchError(
            f"{quoted(only)}: {len(unknown)} {verb} not in {quoted(path)}: {shown(sorted(unknown))}; take {them} out"
        )


def shown(names: Sequence[str], total: int | None = None) -> str:
    """The first ten names, and how many more there are of all."""
    more = (total or len(names)) - SHOWN
    return ", ".join(map(quoted, names[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def raise_bad(reasons: Sequence[str]) -> None:
    """Refuse the items that cannot be read, all in one error."""
    raise_all([BadItem(f"{reason}; correct it, or leave it out with --skip-bad") for reason in reasons])


def note_left_out(bad: Sequence[tuple[str, str]]) -> None:
    """List what `--skip-bad` leaves out."""
    for name, reason in bad[: Problems.SHOWN]:
        log.warning("row %s is left out: %s", quoted(name), reason)
    if len(bad) > Problems.SHOWN:
        log.warning("and %d more rows are left out", len(bad) - Problems.SHOWN)


def named(path: Path, rows: Iterable[Row], ids: Path | None) -> Iterator[Row]:
    """The rows, named by the lines of a file where there is one.

    Raises:
        MismatchError: the file has more or fewer lines than there are rows.
    """
    if ids is None:
        yield from rows
        return
    first_bytes(ids)  # which refuses a pipe: the names are read several times
    names, count = read_lines(ids), 0
    for count, row in enumerate(rows, 1):
        name = next(names, None)
        if name is None:
            total = count + sum(1 for _ in rows)
            raise MismatchError(f"{quoted(ids)}: has {count - 1} ids for the {total} rows of {quoted(path)}")
        yield replace(row, id=name)
    if more := sum(1 for _ in names):
        raise MismatchError(f"{quoted(ids)}: has {count + more} ids for the {count} rows of {quoted(path)}")


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    for number, line in enumerate(raw_lines(path), 1):
        try:
            yield decoded(line, number)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{quoted(path)}: line {number} is not UTF-8; convert the file first (iconv -t utf-8)"
            ) from error


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as bytes, unpacked where its name says that it is packed."""
    if is_packed(path):
        yield from packed_lines(path)
        return
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror}") from error


def decoded(line: bytes, number: int, errors: str = "strict") -> str:
    """A line of UTF-8 without its end, and the first one without its byte order mark."""
    text = line.decode("utf-8", errors).rstrip("\r\n")
    return text.removeprefix("\ufeff") if number == 1 else text


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(DIGEST_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def refuse_duplicates(where: str, ids: Iterable[str]) -> None:
    """Refuse names of which one occurs twice; 16 bytes are kept of each.

    Raises:
        InputError: one does.
    """
    hashes = bytearray()
    for name in ids:
        hashes += hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    found = first_duplicate(np.frombuffer(bytes(hashes), dtype="V16"))
    if found:
        raise InputError(f"{where}: rows {found[0]} and {found[1]} have the same id; ids must be unique")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`."""
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size)):
        yield block
