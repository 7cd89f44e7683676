"""Which rows of a large view have the ids of rows of another one; of the large view's ids none are held."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from contrasim_cli.store import View
from contrasim_cli.store.blocks import spans
from contrasim_cli.store.store import IdHashes

Places = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]  # [ids, 2] hashes of 16 bytes

ROWS = 1 << 16  # of a view in an order of its own, whose ids are read at once


@dataclass(frozen=True, eq=False)
class SameIds:
    """Rows of a view, `first`, and those of a larger one that have their ids.

    `labels` [first] are equal for equal ids. The rows of the larger view that have one of them are at `places` [k], sorted, and
    have the labels `of_places` [k].
    """

    labels: Places
    places: Places
    of_places: Places

    @classmethod
    def between(cls, first: View, larger: View) -> "SameIds | None":
        """The ids that two views have in common; None where one has no ids."""
        if first.store.ids is None or larger.store.ids is None:
            return None
        wanted = np.concatenate([np.empty((0, 2), np.uint64), *_hashes(first)])
        order = np.lexsort((wanted[:, 1], wanted[:, 0]))
        ordered = wanted[order]
        begins = np.ones(len(ordered), dtype=bool)
        begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        labels = np.empty(len(ordered), np.int64)
        labels[order] = np.cumsum(begins) - 1
        distinct, start = ordered[begins], 0
        places, of_places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for block in _hashes(larger):
            label = _found(distinct, block)
            there = np.flatnonzero(label >= 0)
            places.append(there + start)
            of_places.append(label[there])
            start += len(block)
        return cls(labels, np.concatenate(places), np.concatenate(of_places))

    @cached_property
    def first_of(self) -> Places:
        """[labels] the first row that has each label."""
        return np.unique(self.labels, return_index=True)[1]

    def of(self, rows: Places) -> Places:
        """[...] the labels of rows of the larger view [...]; -1 of those whose id no row of the first view has."""
        if not len(self.places):
            return np.full(rows.shape, -1)
        at = np.searchsorted(self.places, rows).clip(max=len(self.places) - 1)
        return np.where(self.places[at] == rows, self.of_places[at], -1)


def _found(distinct: Words, block: Words) -> Places:
    """[block] where in sorted hashes [k, 2] each of a block is; -1 for those that are not there."""
    at = np.searchsorted(distinct[:, 0], block[:, 0])
    left = np.arange(len(block))
    found = np.full(len(block), -1)
    while len(left):  # mostly once: the first words of two hashes are hardly ever equal
        left = left[at[left] < len(distinct)]
        left = left[distinct[at[left], 0] == block[left, 0]]
        same = distinct[at[left], 1] == block[left, 1]
        found[left[same]] = at[left[same]]
        left = left[~same]
        at[left] += 1
    return found


def _hashes(view: View) -> Iterator[Words]:
    """Hashes of the ids of a view's rows, in order, in blocks."""
    ids = view.store.ids
    assert ids is not None
    if view.rows is None:
        yield from map(_words, ids.hash_blocks())
        return
    for start, stop in spans(view.n_rows, ROWS):
        yield _words(ids.hashes_at(view.rows[start:stop]))


def _words(hashes: IdHashes) -> Words:
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 2)
