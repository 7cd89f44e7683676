"""Rows that are zero in every layer: what is left of a file that was made for more rows than were written to it.

A few are warned of, more than one in a hundred are refused, until `--zero-rows` says what to do. A store with a digest was written
whole, and is taken as it is.
"""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from contrasim_cli import distributed
from contrasim_cli.errors import InputError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.store.blocks import row_blocks
from contrasim_cli.store.store import Store
from contrasim_cli.store.zeros import Places, ZeroRows

log = logging.getLogger(__name__)

MOST = 0.01  # of the rows that are read
PROBED = 128  # rows that are looked at before any work is done


def zero_rows(store: Store, layers: Sequence[str]) -> Places:
    """[k] the rows of a store that are zero in all of these layers; reads no more than it takes to know."""
    zeros = ZeroRows(store.n_rows)
    for name in layers:
        for start, stop in row_blocks(store.layer(name), store.n_rows):
            if not zeros.are_alive(start, stop):
                zeros.look(start, store.read(name, start, stop))
    return zeros.places


def probe_zero_rows(store: Store, layers: Sequence[str]) -> None:
    """Look at a few rows from the first to the last, and at all of them if one of these is zero.

    Raises:
        InputError: too many are zero.
    """
    if store.zero_rows is None or store.zero_rows.settled or not store.n_rows:
        return
    left = np.linspace(0, store.n_rows - 1, min(store.n_rows, PROBED)).astype(np.int64)
    for name in layers:
        left = _zero_among(store, name, left)
    if len(left):
        zero_rows(store, layers)
        check_zero_rows([store])


def _zero_among(store: Store, name: str, rows: Places) -> Places:
    """The given rows that are zero in a layer; every chunk is read once."""
    chunks = rows // store.layer(name).chunk_rows
    places = []
    for run in np.split(rows, np.flatnonzero(np.diff(chunks)) + 1):
        if len(run):
            block = store.read(name, int(run[0]), int(run[-1]) + 1)
            places.append(run[~block[run - run[0]].any(axis=1)])
    return np.concatenate(places) if places else rows


def check_zero_rows(stores: Iterable[Store], among: Places | None = None) -> None:
    """Warn of the rows that were read, or of those `among` them, that are zero in every layer that was read.

    Raises:
        InputError: they are more than one in a hundred.
    """
    problems = []
    for store in stores:
        watch = store.zero_rows
        if watch is None or watch.settled:
            continue
        places = watch.places if among is None else np.intersect1d(watch.places, among)
        of = len(watch.seen if among is None else among)
        if not len(places):
            continue
        watch.settled = True
        problem = zero_rows_told(store, places, of)
        if len(places) > MOST * of:
            problems.append(
                InputError(
                    f"{problem}; was the file written to its end? --zero-rows drop leaves them out, --zero-rows keep takes them"
                )
            )
        else:
            log.warning("%s; --zero-rows drop leaves them out", problem)
    raise_all(problems)


def warn_zero_rows(stores: Iterable[Store]) -> None:
    """Warn of the rows that were read and are zero in every layer that was read, however many they are."""
    for store in stores:
        if store.zero_rows is not None and len(store.zero_rows.places):
            log.warning("%s", zero_rows_told(store, store.zero_rows.places, len(store.zero_rows.seen)))


def share_zero_rows(stores: Iterable[Store]) -> None:
    """Take note of the rows that all ranks have read."""
    for store in stores:
        if distributed.world() > 1 and store.zero_rows is not None and not store.zero_rows.settled:
            store.zero_rows.merge()


def zero_rows_told(store: Store, places: Places, of: int) -> str:
    """How many rows of how many are zero, and which is the first."""
    first = int(places[0])
    label = f" (id {quoted(store.ids.read(first, first + 1)[0])})" if store.ids else ""
    verb = ("row" if of == 1 else "rows") + (" is" if len(places) == 1 else " are")
    return (
        f"{quoted(store.path)}: {len(places)} of {of} {verb} all zero in every layer, the first is row {first}{label}"
    )
