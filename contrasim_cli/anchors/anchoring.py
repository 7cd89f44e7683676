"""Which rows are anchors, by their ids; where a store has them; and whether they are of the stores at hand.

They are, where they are of the same model, pooled alike, and of no other of the stores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.anchors.features import FEATURES
from contrasim_cli.errors import MismatchError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.neuron_moments import Moments, model_digest
from contrasim_cli.store import Store, View
from contrasim_cli.store.blocks import RowIndex
from contrasim_cli.store.store import Ids, id_hashes

SHOWN = 10

CLEARLY = 0.3  # more like a store's neurons; those of the same rows of other seeds are 0.8 less, of other languages 0.5


@dataclass(frozen=True)
class Anchoring:
    """How rows are described by anchors: the anchors' ids, and the features.

    `sources` are the digests of the files whose positions the ids are; there is none where ids are names. `components` are
    those of the anchors' principal components that count; 0: all. Of several `members`, each has as many of the anchors, in
    the order of the ids, and rows are described by those of each in turn.
    """

    ids: tuple[str, ...]
    sources: tuple[str, ...] = ()
    features: tuple[str, ...] = FEATURES
    components: int = 0
    members: int = 1

    kind: ClassVar[str] = "anchors"

    @property
    def text(self) -> str:
        """The anchoring in words."""
        within = f" in {self.components} components" if self.components else ""
        of_each = f"{self.members} × " if self.members > 1 else ""
        return f"{of_each}{len(self.ids) // self.members} anchors{within}: {', '.join(self.features)}"


def draw(
    views: Sequence[View], count: int, seed: int, features: tuple[str, ...], components: int = 0, members: int = 1
) -> tuple[Anchoring, RowIndex]:
    """Random rows as anchors, `count` for each member, and their positions in the views, sorted for each.

    Raises:
        MismatchError: the store has no ids by which other stores would know the anchors.
        UsageError: there are too few rows for so many anchors and any others.
    """
    first = views[0]
    raise_all([_without_ids(view.store) for view in views if view.store.ids is None])
    total = count * members
    if total > first.n_rows - 2:
        of_each = f" for each of {members} members" if members > 1 else ""
        raise UsageError(
            f"--anchors {count}{of_each}: {quoted(first.store.path)} has {first.n_rows} rows, of which at least 2 are trained on "
            "and no anchors; give fewer anchors or more rows"
        )
    chosen = np.empty(0, dtype=np.int64)
    for k in range(members):  # whose anchors are the same however many there are
        drawn = seeds.stream(seed, k, seeds.ANCHORS).choice(first.n_rows, count + len(chosen), replace=False)
        chosen = np.concatenate([chosen, np.sort(drawn[~np.isin(drawn, chosen)][:count])])
    places = chosen if first.rows is None else first.rows[chosen]
    ids = [view.store.ids for view in views if view.store.ids is not None]
    names = tuple(ids[0].read(int(place), int(place) + 1)[0] for place in places)
    known = ids[0].automatic or places == _first_rows(ids[0], names)
    if not np.all(known):
        name = names[int(np.argmin(known))]
        raise MismatchError(
            f"{quoted(first.store.path)}: id {quoted(name)} of an anchor row belongs to other rows too, so that "
            "the row cannot be found in other stores; give ids that are unique, or train with --inputs raw"
        )
    sources = dict.fromkeys(one.source or "" for one in ids if one.automatic)
    return Anchoring(names, tuple(sources), features, components, members), chosen


def _without_ids(store: Store) -> MismatchError:
    return MismatchError(
        f"{quoted(store.path)}: has no ids, which identify anchor rows in other stores; extract with ids, or train with "
        "--inputs raw"
    )


def locate(store: Store, anchoring: Anchoring) -> RowIndex:
    """[anchors] the rows of a store that are the anchors.

    Raises:
        MismatchError: the store has no ids, ids that are positions in another file, or lacks some of the anchors.
    """
    if store.ids is None:
        raise MismatchError(
            f"{quoted(store.path)}: has no ids, which identify the encoder's {len(anchoring.ids)} anchor rows; {_REMEDY}"
        )
    if store.ids.automatic and store.ids.source not in anchoring.sources:
        found = "positions in another file" if anchoring.sources else "positions in a file, not names"
        raise MismatchError(
            f"{quoted(store.path)}: its ids are {found}, which do not identify the encoder's "
            f"{len(anchoring.ids)} anchor rows; {_REMEDY}"
        )
    rows = _first_rows(store.ids, anchoring.ids)
    missing = [name for name, row in zip(anchoring.ids, rows, strict=True) if row < 0]
    if missing:
        raise MismatchError(
            f"{quoted(store.path)}: {len(missing)} of the encoder's {len(anchoring.ids)} anchor rows are missing: "
            f"{_shown(missing)}; {_REMEDY}"
        )
    return rows


def _first_rows(ids: Ids, names: Sequence[str]) -> RowIndex:
    """[names] the first row that has each of the names; -1: none has it."""
    wanted, which = np.unique(id_hashes(names), return_inverse=True)
    rows: RowIndex = np.full(len(wanted), -1, dtype=np.int64)
    start = 0
    for hashes in ids.hash_blocks():
        places = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
        at = np.flatnonzero((wanted[places] == hashes) & (rows[places] < 0))
        rows[places[at][::-1]] = start + at[::-1]
        start += len(hashes)
    return rows[which]


_REMEDY = "extract the anchors (contrasim inspect ENCODER --anchor-ids, extract --only-ids) and give that store with --anchor-store"


def _shown(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(map(quoted, names[:SHOWN])) + (f" and {more} more" if more > 0 else "")


# moments of the layers of a store's rows, and of the anchors of a store, by their positions
MomentsOf = Callable[[int], Sequence[Moments]]


def strange_anchors(
    stores: Sequence[Store], sources: Sequence[Store], rows_of: MomentsOf, anchors_of: MomentsOf
) -> list[MismatchError]:
    """Why anchors, one store of them for each store, are not of the stores; one problem for all."""
    found = [_disagreement(store, source) for store, source in zip(stores, sources, strict=True)]
    if not any(found) and len({source.path for source in sources}) > 1:
        found = _exchanged(sources, rows_of, anchors_of)
    wrong = [
        f"{quoted(source.path)} {why}, in the place of {quoted(store.path)}"
        for store, source, why in zip(stores, sources, found, strict=True)
        if why
    ]
    if not wrong:
        return []
    return [
        MismatchError(f"--anchor-store: {'; '.join(wrong)}; give the same model's anchors, in the order of the stores")
    ]


def _disagreement(store: Store, source: Store) -> str:
    """What the files say; empty where nothing disagrees, or is said by one of them alone."""
    digests = model_digest(store), model_digest(source)
    models = store.attrs.get("model", ""), source.attrs.get("model", "")
    if all(digests) or all(models):
        differ = digests[0] != digests[1] if all(digests) else models[0] != models[1]
        if differ:
            weights = ", with other weights" if models[0] == models[1] else ""
            return f"is of model {quoted(models[1] or digests[1])}{weights} and not {quoted(models[0] or digests[0])}"
    for name in ("pooling", "unit"):
        one, other = store.attrs.get(name, ""), source.attrs.get(name, "")
        if one and other and one != other:
            return f"has {name} {quoted(other)} and not {quoted(one)}"
    return ""


def _exchanged(sources: Sequence[Store], rows_of: MomentsOf, anchors_of: MomentsOf) -> list[str]:
    """Which anchors fit a store clearly worse than those of another store do, by the moments of its neurons."""
    anchors = [anchors_of(v) for v in range(len(sources))]
    problems = []
    for v in range(len(sources)):
        fits = [_likeness(rows_of(v), found) for found in anchors]
        best = int(np.argmax(fits))
        clear = fits[best] > fits[v] + CLEARLY
        problems.append(f"fits worse than {quoted(sources[best].path)}, by its neurons" if clear else "")
    return problems


def _likeness(rows: Sequence[Moments], anchors: Sequence[Moments]) -> float:
    """The median likeness of two stores' layers, taken in order."""
    pairs = zip(rows, anchors, strict=False)
    return float(np.median([one.likeness(other) for one, other in pairs]))
