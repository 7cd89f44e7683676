"""Rows that belong to one item: five captions of an image, or an image that is there once per caption.

Rows of one item are siblings. A sibling is no wrong answer, so that it is no wrong candidate either, and a batch has no two rows of
an item: equal rows on one side are neighbours on the other, so that a batch with siblings in it would be known by that alone.

Which item a row is of, equal rows tell, or somebody says: a regular expression over ids, or a table of ids and groups.
"""

import csv
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.input_files import first_bytes, readable
from contrasim_cli.names import quoted
from contrasim_cli.rows.exact_search import CANDIDATES, unrelated
from contrasim_cli.rows.same_ids import SameIds
from contrasim_cli.store import View
from contrasim_cli.store.blocks import RowIndex, row_blocks, spans

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]  # [rows]; rows of one label belong together, and a label below 0 is nobody's
LONGEST = 1 << 20  # characters of a field
OFTEN = 8  # times as many items as are drawn: from here on they are drawn one by one
CACHED = 1 << 16  # values whose bits are summed at once, which a cache holds


@dataclass(frozen=True)
class Siblings:
    """Which rows are siblings: those that have the same label in one of several ways to label them.

    The first way says what the items are that batches are cut from, numbered in the order of their first rows.
    """

    labels: Sequence[Labels]

    @property
    def n_items(self) -> int:
        """How many items there are."""
        return len(self._counts)

    @property
    def digest(self) -> str:
        """The digest of all labels."""
        return hashlib.sha256(b"".join(one.astype("<i8").tobytes() for one in self.labels)).hexdigest()

    @cached_property
    def _counts(self) -> Labels:
        return np.bincount(self.labels[0])

    @cached_property
    def _by_label(self) -> list[tuple[RowIndex, Labels]]:
        """For every way, the rows in the order of their labels, and where each label's begin (and the last one's end)."""
        return [
            (np.argsort(one, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(one))])) for one in self.labels
        ]

    def cut(self, size: int) -> tuple[list[RowIndex], Labels]:
        """Batches of rows of different items, and which batches are of the same items: [batches] numbers of blocks.

        Items with as many rows as others come together, in their order, and are cut into blocks of `size`; the k-th batch of
        a block has the k-th row of each of its items. A last block of fewer items counts if it has 2.
        """
        order, starts = self._by_label[0]
        items = np.argsort(-self._counts, kind="stable")
        found, blocks = [], []
        for b, span in enumerate(spans(len(items), size)):
            block = items[slice(*span)]
            if len(block) > 1:
                rounds = int(self._counts[block].min())
                found += [order[starts[block] + k] for k in range(rounds)]
                blocks += [b] * rounds
        return found, np.array(blocks, dtype=np.int64)

    def random_candidates(self, cut: Sequence[RowIndex], seed: int) -> RowIndex:
        """[rows, 10]: per batch ten batches of rows of different items, none of them a sibling of a row of the batch.

        Raises:
            InputError: there are too few other items.
        """
        order, starts = self._by_label[0]
        chosen = np.zeros((len(self.labels[0]), CANDIDATES), dtype=np.int64)
        rng = seeds.stream(seed, seeds.WRONG_BATCHES)
        free = np.ones(self.n_items, dtype=bool)
        for batch in cut:
            taken = self._items_of_siblings(batch)
            free[taken] = False
            for t in range(CANDIDATES):
                items = _drawn(rng, free, len(batch))
                if len(items) < len(batch):
                    raise InputError(
                        f"random negatives need two batches of different items; {len(items)} items of {self.n_items} have no "
                        f"row in common with a batch of {len(batch)}; give a smaller --batch-size"
                    )
                chosen[batch, t] = order[starts[items] + rng.integers(self._counts[items])]
            free[taken] = True
        return chosen

    def _items_of_siblings(self, batch: RowIndex) -> Labels:
        """The items that have a sibling of a row of the batch."""
        found = []
        for labels, (order, starts) in zip(self.labels, self._by_label, strict=True):
            found += [self.labels[0][order[starts[one] : starts[one + 1]]] for one in np.unique(labels[batch])]
        return np.unique(np.concatenate(found))


def _drawn(rng: np.random.Generator, free: npt.NDArray[np.bool_], count: int) -> Labels:
    """Different items out of the free ones, in random order; fewer where there are fewer."""
    if len(free) >= OFTEN * count:
        some = rng.integers(len(free), size=OFTEN * count // 2)
        some = some[free[some]]
        some = some[np.sort(np.unique(some, return_index=True)[1])][:count]
        if len(some) == count:
            return some
    return rng.permutation(np.flatnonzero(free))[:count]


def find_siblings(
    views: Sequence[View], layers: Sequence[Sequence[str]], said: Labels | None = None, how: str = ""
) -> Siblings | None:
    """The siblings among the rows of views: by what was said of their ids, and by equal rows; None where there are none.

    A note says what was found. `how` names the option that said it.
    """
    repeated = [
        (view, labels)
        for view, names in zip(views, layers, strict=True)
        for labels in [repeats(view, names)]
        if labels is not None
    ]
    if said is None:
        if not repeated:
            return None
        source, said = min(repeated, key=lambda one: int(one[1].max()))
        how = f"equal rows in {quoted(source.store.path)}"
    labels = [_in_order(said)]
    for view, more in repeated:
        if not any(_within(more, known) for known in labels):
            labels.append(more)
            lone = np.flatnonzero(~_alone(more, said))
            text = "%s: %d rows equal rows of other items, and are no wrong candidates of theirs; the first is row %d"
            if len(lone) == 1:
                text = "%s: %d row equals rows of other items, and is no wrong candidate of theirs; it is row %d"
            log.info(
                text, quoted(view.store.path), len(lone), int(lone[0] if view.rows is None else view.rows[lone[0]])
            )
    siblings = Siblings(labels)
    text = "%d rows belong to %d items (%s): batches hold different items, and no row of an item is a wrong candidate of another"
    log.info(text, len(said), siblings.n_items, how)
    return siblings


def labels_in_pool(
    siblings: Siblings, said: tuple[Labels, Labels] | None, view: View, pool: View, layer: str
) -> list[Labels]:
    """The labels, in every way, of the rows of a larger store of a view's rows; -1 for rows that are no siblings of these.

    A row of the pool is the row of the view that has its id, or where there are no ids its values. `said` has what was said of the
    ids of the view and of the pool.
    """
    known = _rows_of_view(view, pool, layer)
    found = [np.where(known < 0, -1, labels[known]) for labels in siblings.labels]
    if said is not None:
        of_view, of_pool = said
        number = np.full(max(int(of_view.max()), int(of_pool.max())) + 1, -1)
        number[of_view] = siblings.labels[0]
        found[0] = number[of_pool]
    return found


def _rows_of_view(view: View, pool: View, layer: str) -> Labels:
    """[pool rows] which row of the view each is; -1 for none."""
    same = None if unrelated(view, pool) else SameIds.between(view, pool)
    if same is not None:
        found = np.full(pool.n_rows, -1)
        found[same.places] = same.first_of[same.of_places]
        return found
    a, b = (row_hashes(side, layer, np.arange(side.n_rows)) for side in (view, pool))
    numbers = _numbered(np.concatenate([a, b]))
    row = np.full(int(numbers.max()) + 1, -1)
    row[numbers[: len(a)][::-1]] = np.arange(len(a))[::-1]  # the first of equal ones
    return row[numbers[len(a) :]]


def _within(labels: Labels, coarser: Labels) -> bool:
    """Whether rows of one label have one label in the other way too."""
    return int(_numbered_pairs(labels, coarser).max()) == int(labels.max())


def _alone(labels: Labels, items: Labels) -> npt.NDArray[np.bool_]:
    """[rows] whether all rows of a row's label are of its item."""
    least, most = np.full((2, labels.max() + 1), 0)
    least += items.max()
    np.minimum.at(least, labels, items)
    np.maximum.at(most, labels, items)
    alone: npt.NDArray[np.bool_] = (least == most)[labels]
    return alone


def repeats(view: View, layers: Sequence[str]) -> Labels | None:
    """Labels of rows, of which those that are equal in all layers have the same; None where no two are, or all. -0 equals 0."""
    if not layers:
        return None
    left = np.flatnonzero(_perhaps_repeated(view, layers[-1]))
    if not len(left):
        return None
    labels = view.n_rows + np.arange(view.n_rows)
    labels[left] = 0
    for name in reversed(layers):  # the last is the likeliest to tell rows apart
        found = _numbered(row_hashes(view, name, left))
        labels[left] = _numbered_pairs(labels[left], found)
        sizes = np.bincount(labels[left])
        alone = sizes[labels[left]] == 1
        labels[left[alone]] = view.n_rows + left[alone]  # of their own, whatever the labels of others become
        left = left[~alone]
        if not len(left):
            return None
    labels = _in_order(labels)
    return labels if labels.any() else None  # a constant layer says nothing of items


def _perhaps_repeated(view: View, layer: str) -> npt.NDArray[np.bool_]:
    """[rows] whether another row may equal the row: a sum of its bits that equal rows share, at a tenth of the time of a hash."""
    sums = np.empty(view.n_rows, dtype=np.uint64)
    odd = np.random.default_rng(0).integers(1 << 63, size=view.store.layer(layer).width, dtype=np.uint64) * 2 + 1
    for start, block in _blocks(view, layer, np.arange(view.n_rows)):
        for first, last in spans(len(block), max(1, CACHED // len(odd))):
            bits = (block[first:last].astype(np.float64) + 0.0).view(np.uint64)
            bits ^= bits >> np.uint64(32)  # values of short types have zeros there, which a product keeps
            sums[start + first : start + last] = bits @ odd
    _, places, counts = np.unique(sums, return_inverse=True, return_counts=True)
    several: npt.NDArray[np.bool_] = counts[places] > 1
    return several


def row_hashes(view: View, layer: str, rows: RowIndex) -> npt.NDArray[np.void]:
    """[rows] 16-byte hashes of the values of rows, which float types do not change."""
    found = np.empty(len(rows), dtype="V16")
    for start, block in _blocks(view, layer, rows):
        wide = block.astype(np.float64) + 0.0
        found[start : start + len(block)] = np.frombuffer(
            b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in wide), dtype="V16"
        )
    return found


def _blocks(view: View, layer: str, rows: RowIndex) -> Iterator[tuple[int, npt.NDArray[np.floating]]]:
    for start, stop in row_blocks(view.store.layer(layer), len(rows)):
        yield start, view.read(layer, rows[start:stop])


def _numbered(hashes: npt.NDArray[np.void]) -> Labels:
    words = hashes.view(np.uint64).reshape(-1, 2)
    return _numbered_pairs(*(np.unique(words[:, k], return_inverse=True)[1].astype(np.int64) for k in range(2)))


def _numbered_pairs(a: Labels, b: Labels) -> Labels:
    """One number per distinct pair."""
    numbers: Labels = np.unique(a * (int(b.max()) + 1) + b, return_inverse=True)[1].astype(np.int64)
    return numbers


def _in_order(labels: npt.NDArray[np.int64]) -> Labels:
    """Number the labels by where each comes first."""
    _, first, places = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[places]


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
            raise UsageError(f"{self.option} says which item an id belongs to, but {path} has no ids")
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
        raise UsageError(f"--group-by {quoted(pattern)}: is not a regular expression: {error}") from error

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
        raise InputError(f"{quoted(path)}: is not a table of ids and groups in UTF-8 ({error})") from error
    return groups


def _add(groups: dict[str, str], row: list[str], where: str) -> None:
    if len(row) != 2:
        raise InputError(f"{where}: has {len(row)} columns; a table of --groups has two, id and group (TSV or CSV)")
    name, group = row
    if groups.setdefault(name, group) != group:
        raise InputError(
            f"{where}: id {quoted(name)} is of {quoted(group)}, and of {quoted(groups[name])} in a line before"
        )
