"""Which rows an encoder was trained on, known by their ids; and which rows training leaves out, to test on.

A checkpoint keeps a hash of 64 bits of every trained id, the smallest KEPT of them where there are more. They tell of every row
whose hash is not above the largest kept one whether it was trained on, with one collision in 2^64 / KEPT rows; of others nothing
is known then. Hashes of automatic ids, which are numbers of rows, depend on the source whose rows they number.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import seeds
from contrasim_cli.errors import InputError, MismatchError
from contrasim_cli.names import quoted
from contrasim_cli.store import View

KEPT = 1 << 16  # hashes, of 8 bytes each
NOTED = "trained_ids"  # in a checkpoint's provenance

Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


def hashes(view: View) -> Hashes | None:
    """[n] hashes of the ids of a view's rows; None where they have none."""
    ids = view.store.ids
    if ids is None:
        return None
    whole = ids.hashes if view.rows is None else ids.hashes[view.rows]
    found: Hashes = np.ascontiguousarray(whole).view(np.uint64).reshape(-1, 2)[:, 0].copy()
    if ids.automatic:
        source = hashlib.blake2b((ids.source or "").encode(), digest_size=8).digest()
        found ^= np.frombuffer(source, np.uint64)[0]
    return found


def noted(views: Sequence[View]) -> dict[str, str]:
    """What a checkpoint's provenance keeps of the ids of its training rows; nothing where they have none."""
    parts = [found for view in views if (found := hashes(view)) is not None]
    if not parts:
        return {}
    every = np.unique(np.concatenate(parts))
    kept = every[:KEPT].astype("<u8")
    largest = kept[-1:] if len(every) > KEPT else np.array([np.iinfo(np.uint64).max], "<u8")
    return {NOTED: base64.b64encode(np.concatenate([kept, largest]).tobytes()).decode()}


@dataclass(frozen=True)
class TrainedIds:
    """Sorted hashes of trained ids, complete up to `limit`."""

    hashes: Hashes
    limit: np.uint64

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> "TrainedIds | None":
        """What a checkpoint keeps; None where its stores had no ids, or it keeps none."""
        text = provenance.get(NOTED)
        if not isinstance(text, str):
            return None
        *kept, limit = np.frombuffer(base64.b64decode(text), "<u8").astype(np.uint64)
        return cls(np.array(kept, np.uint64), limit)

    def seen(self, view: View) -> tuple[Bools, Bools] | None:
        """[n] whether each row was trained on, and whether that is known; None of rows without ids."""
        found = hashes(view)
        if found is None:
            return None
        return np.isin(found, self.hashes), found <= self.limit


def unseen_rows(views: Sequence[View], trained: Sequence[TrainedIds | None]) -> Bools | None:
    """[n] the rows of aligned views of which it is known that no encoder was trained on them; None where nobody knows."""
    unseen = np.ones(views[0].n_rows, dtype=bool)
    for ids in trained:
        told = [found for view in views if ids is not None and (found := ids.seen(view)) is not None]
        if not told:
            return None
        for seen, known in told:
            unseen &= known & ~seen
    return unseen


def kept(views: Sequence[View], rows: Bools) -> list[View]:
    """The views with some of their rows [n]."""
    places = np.flatnonzero(rows)
    return [replace(view, rows=places if view.rows is None else view.rows[places]) for view in views]


def hold_out(views: Sequence[View], part: float, seed: int) -> list[View]:
    """Aligned views without a seeded part of their rows, which is left to test on.

    Raises:
        MismatchError: no view has ids, by which the rows would be known afterwards.
        InputError: too few rows are left, or held out.
    """
    n_rows = views[0].n_rows
    if all(view.store.ids is None for view in views):
        raise MismatchError(
            f"{quoted(views[0].store.path)}: --holdout needs ids, which identify held-out rows when an encoder is tested; give "
            "them ids with contrasim extract --from FILE --ids IDS.txt"
        )
    count = round(part * n_rows)
    if min(count, n_rows - count) < 2:
        raise InputError(
            f"{quoted(views[0].store.path)}: --holdout {part:g} of {n_rows} rows leaves fewer than two on a side"
        )
    left = np.ones(n_rows, dtype=bool)
    left[seeds.stream(seed, seeds.HELD_OUT_ROWS).choice(n_rows, count, replace=False)] = False
    return kept(views, left)
