"""Lining stores up row by row: by ids in order, by ids whatever their order, or by position."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, raise_all
from contrasim_cli.names import counted, look_alike, quoted, told_apart
from contrasim_cli.store.blocks import Floats, RowIndex, all_finite, bad_rows, bad_value, iter_blocks, read_rows
from contrasim_cli.store.store import Ids, Store
from contrasim_cli.store.zero_rows import zero_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """A store as one side of a comparison: row r of every view is the same example.

    `rows` are the store's rows in the common order, or None for all of them as they stand.
    """

    store: Store
    rows: RowIndex | None = None

    @property
    def n_rows(self) -> int:
        """Rows of the view."""
        return self.store.n_rows if self.rows is None else len(self.rows)

    def read(self, layer: str, rows: RowIndex | None = None) -> Floats:
        """Rows [n, width] of a layer, all of them or those at the given positions of the view; widened and checked.

        Raises:
            InputError: a value is NaN or Inf, or the file is damaged.
        """
        where = self._positions(rows)
        block = read_rows(self.store, layer, where)
        if not all_finite(block):
            raise bad_value(self.store, layer, int(where[bad_rows(block)].min()))
        return block

    def _positions(self, rows: RowIndex | None) -> RowIndex:
        if self.rows is None:
            return np.arange(self.store.n_rows) if rows is None else rows
        return self.rows if rows is None else self.rows[rows]


def misfits(store: Store, other: Store, layers: Sequence[str], purpose: str, remedy: str = "") -> list[ContraSimError]:
    """Why layers of another store cannot serve the layers of the same names of a store, for a purpose that is said."""
    problems: list[ContraSimError] = []
    for name in layers:
        if name not in other.layers:
            there = ", ".join(map(quoted, other.layers))
            text = f"{quoted(other.path)}: has no layer {quoted(name)} to {purpose}; it has {there}"
            problems.append(MismatchError(text))
        elif other.layer(name).width != store.layer(name).width:
            widths = f"has width {other.layer(name).width}, that of {quoted(store.path)} has {store.layer(name).width}"
            problems.append(MismatchError(f"{quoted(other.path)}: layer {quoted(name)} {widths}{remedy}"))
    return problems


def ids_digest(view: View) -> str:
    """One digest of the ids of a view's rows in order; empty where they have none."""
    ids = view.store.ids
    if ids is None or view.rows is None:
        return ids.digest if ids else ""
    return hashlib.sha256(ids.hashes_at(view.rows).tobytes()).hexdigest()


def align(stores: Sequence[Store], how: str = "order") -> list[View]:
    """Line stores up.

    `order`: ids must be equal in order. `ids`: the rows whose id is in every store, in the order of the first.
    `position`: row by row, whatever the ids say. Automatic ids of different sources, and stores without ids, are
    matched by position in any case, which a note says.

    Raises:
        InputError: an id occurs twice in a store, unless rows are to be matched by position.
        MismatchError: ids or row counts disagree.
    """
    raise_all([InputError(f"{quoted(store.path)}: has no rows") for store in stores if not store.n_rows])
    if how != "position":
        raise_all([problem for store in stores for problem in _duplicates(store)])
    named = [store for store in stores if store.ids is not None]
    if why := position_reason(stores, how):
        _match_positions(stores, how, named)
        if len(stores) > 1:
            log.info("rows are matched by position: %s", why)
        return [View(store) for store in stores]
    if how == "ids":
        return _intersect(stores)
    first = stores[0]
    raise_all([problem for store in stores[1:] for problem in _difference(first, store)])
    return [View(store) for store in stores]


def _ids(store: Store) -> Ids:
    if store.ids is None:
        raise InputError(f"{quoted(store.path)}: has no ids")
    return store.ids


def _duplicates(store: Store) -> list[ContraSimError]:
    rows = None if store.ids is None else store.ids.repeated
    if rows is None:
        return []
    name = quoted(_ids(store).read(rows[0], rows[0] + 1)[0])
    return [
        InputError(f"{quoted(store.path)}: id {name} occurs twice, in rows {rows[0]} and {rows[1]}; ids must be unique")
    ]


def _sources_differ(stores: Sequence[Store]) -> bool:
    ids = [_ids(store) for store in stores]
    return all(names.automatic for names in ids) and len({names.source for names in ids}) > 1


def _match_positions(stores: Sequence[Store], how: str, named: Sequence[Store]) -> None:
    first = stores[0]
    if how == "ids" and len(named) < len(stores):
        missing = next(store for store in stores if store.ids is None)
        raise MismatchError(f"{quoted(missing.path)}: has no ids, so that --align ids cannot match its rows")
    raise_all(
        [
            MismatchError(
                f"{quoted(store.path)}: has {store.n_rows} rows where {quoted(first.path)} has {first.n_rows}; "
                f"rows without common ids can only be matched by position{_transposed(first, store)}"
            )
            for store in stores[1:]
            if store.n_rows != first.n_rows
        ]
    )


def _transposed(first: Store, second: Store) -> str:
    """The remedy where one store has as many neurons as the other has rows, as the end of a message; empty elsewhere.

    Where either may be the one, a store with an id per row is not.
    """
    pairs = ((second, first), (first, second))
    fit = [pair for pair in pairs if any(layer.width == pair[1].n_rows for layer in pair[0].layers.values())]
    fit = [pair for pair in fit if pair[0].ids is None] or fit
    if not fit:
        return ""
    turn = "contrasim extract --from {} --axes width,rows -o FILE turns it round"
    store, other = fit[0]
    if len(fit) == 1:
        name = quoted(store.path)
        return f"; {name} has {other.n_rows} columns and may be transposed: {turn.format(name)}"
    return f"; one of the two may be transposed, and shapes do not tell which: {turn.format('the wrong one')}"


def position_reason(stores: Sequence[Store], how: str) -> str:
    """Why rows are matched by position; empty where ids match them."""
    if how == "position":
        return "--align position"
    without = [store for store in stores if store.ids is None]
    if without:
        return f"{quoted(without[0].path)} has no ids, so that nothing shows whether its rows line up"
    if _sources_differ(stores):
        return "the ids are line numbers of different sources, so that nothing shows whether they line up"
    return ""


def _difference(first: Store, second: Store) -> list[ContraSimError]:
    a, b = _ids(first), _ids(second)
    if a.count == b.count and a.digest == b.digest:
        return []
    common = len(np.intersect1d(a.hashes, b.hashes))
    shared = min(a.count, b.count)
    unequal = np.flatnonzero(a.hashes[:shared] != b.hashes[:shared])
    row = int(unequal[0]) if len(unequal) else shared
    names = [ids.read(row, row + 1)[0] if row < ids.count else "no row" for ids in (a, b)]
    shown = told_apart(names)
    advice = (
        "give --align ids to compare the common rows"
        if common
        else "they are not the same examples, or give --align position if the rows nevertheless line up"
    )
    if look_alike(*names):
        advice = "they differ in spaces, Unicode form or unseen characters alone: write them alike in both files"
    return [
        MismatchError(
            f"{quoted(second.path)}: ids differ from those of {quoted(first.path)} ({b.count} and {a.count} rows, {common} ids "
            f"in common); the first difference is in row {row}: {shown[1]} instead of {shown[0]}; {advice}"
        )
    ]


def _intersect(stores: Sequence[Store]) -> list[View]:
    first = _ids(stores[0])
    if all(_ids(store).digest == first.digest for store in stores):
        log.info("--align ids keeps %s", counted(first.count, "row"))
        return [View(store) for store in stores]
    common = first.hashes
    for store in stores[1:]:
        common = np.intersect1d(common, _ids(store).hashes)
    if not len(common):
        raise MismatchError(f"{', '.join(quoted(s.path) for s in stores)}: no id is in all of these stores")
    shared = first.hashes[np.isin(first.hashes, common)]
    views = [_pick(store, shared) for store in stores]
    dropped = [f"{quoted(s.path)} {s.n_rows - len(shared)} of {s.n_rows}" for s in stores if s.n_rows > len(shared)]
    log.info(
        "--align ids keeps %s%s", counted(len(shared), "row"), f"; dropped: {', '.join(dropped)}" if dropped else ""
    )
    return views


def _pick(store: Store, shared: npt.NDArray[np.void]) -> View:
    hashes = _ids(store).hashes
    if len(hashes) == len(shared) and bool((hashes == shared).all()):
        return View(store)
    order = np.argsort(hashes)
    return View(store, order[np.searchsorted(hashes[order], shared)].astype(np.int64))


def drop_nonfinite(views: Sequence[View], layers: Sequence[Sequence[str]]) -> list[View]:
    """Leave out, of every view, the rows in which some view's chosen layer holds a NaN or Inf; say how many."""
    bad = np.zeros(views[0].n_rows, dtype=bool)
    for view, names in zip(views, layers, strict=True):
        in_store = np.zeros(view.store.n_rows, dtype=bool)
        for name in names:
            for start, block in iter_blocks(view.store, name):
                if not all_finite(block):
                    in_store[start : start + len(block)] |= bad_rows(block)
        bad |= in_store if view.rows is None else in_store[view.rows]
    return _without(views, bad, "--nan drop", ("holds a NaN or Inf", "hold NaN or Inf"))


def _without(views: Sequence[View], bad: npt.NDArray[np.bool_], option: str, what: tuple[str, str]) -> list[View]:
    if not bad.any():
        return list(views)
    if bad.all():
        raise InputError(
            f"{option} leaves no row: every row {what[0]} in {quoted(views[0].store.path)} or another store"
        )
    log.warning("%s: %d of %d rows %s and are left out of every store", option, bad.sum(), len(bad), what[1])
    remaining = np.flatnonzero(~bad)
    return [View(view.store, remaining if view.rows is None else view.rows[remaining]) for view in views]


def drop_zero_rows(views: Sequence[View], layers: Sequence[Sequence[str]]) -> list[View]:
    """Leave out, of every view, the rows that are zero in all of some view's chosen layers; say how many."""
    zero = np.zeros(views[0].n_rows, dtype=bool)
    for view, names in zip(views, layers, strict=True):
        in_store = np.zeros(view.store.n_rows, dtype=bool)
        in_store[zero_rows(view.store, names) if names else []] = True
        zero |= in_store if view.rows is None else in_store[view.rows]
    return _without(views, zero, "--zero-rows drop", ("is zero in every layer", "are zero in every layer"))
