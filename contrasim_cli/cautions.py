"""What a statistician would say of scores: warnings about rows that are too few or zero, and stores that encoders do not know.

Once per command, not per cell. Where there are fewer rows than neurons, any two clouds of rows have nearly the same inner products,
or fit each other exactly, so that many measures give unrelated rows a high similarity: CKA of noise, 32 rows of 512, is 0.94.
The registry says of each measure whether it does.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrasim_cli.anchors import Anchoring
from contrasim_cli.names import listed, quoted
from contrasim_cli.neuron_moments import Moments, Trained, is_of, moments, outside, trained_stores
from contrasim_cli.nulls import AMPLE, CLEAR, Standing
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import Store, View
from contrasim_cli.store.blocks import RowIndex, row_blocks
from contrasim_cli.store.sharded import contents
from contrasim_cli.transforms import Standardizer

log = logging.getLogger(__name__)

Values = frozenset[tuple[str, str]]

CHANCE = 0.1  # of nearest rows shared by unrelated rows: from here on it is said
FEWEST_ROWS = 5  # of which one order in 120 is the right one
FEWER_DIMENSIONS = "more rows, or fewer dimensions (a PCA of the rows)"


class Compared(NamedTuple):
    """A layer that is compared, of the store at a path; a matrix of that name, where there is no path."""

    path: Path | None
    name: str
    width: int

    @property
    def where(self) -> str:
        """How messages call it."""
        return quoted(self.name) if self.path is None else f"layer {quoted(self.name)} of {quoted(self.path)}"


def compared(views: Sequence[View], layers: Sequence[Sequence[str]]) -> list[Compared]:
    """The layers of views, each once."""
    pairs = zip(views, layers, strict=True)
    return [Compared(v.store.path, name, v.store.layer(name).width) for v, names in pairs for name in names]


def warn_few_rows(scorers: Sequence[Scorer], layers: Sequence[Compared], n_rows: int) -> None:
    """Say which scores are high whatever the rows, because these are fewer than the neurons of some layer, or than k asks for.

    Retrieval is not warned of: there right and wrong batches are biased alike.
    """
    groups: dict[tuple[bool, int], list[tuple[Scorer, list[Compared]]]] = {}
    for scorer in scorers:
        wide = [layer for layer in layers if _is_wide(scorer, layer, n_rows)]
        if wide:
            groups.setdefault((scorer.entry.trivial_at_full_rank, scorer.encoded), []).append((scorer, wide))
    for (trivial, _), members in groups.items():
        log.warning("%s", _told(n_rows, trivial, members))
    _warn_neighbours(scorers, n_rows)
    if 0 < n_rows < FEWEST_ROWS:
        text = "%d row%s: too few to distinguish any score from that of unrelated rows; give at least %d"
        log.warning(text, n_rows, "s" * (n_rows > 1), FEWEST_ROWS)


def warn_unheld(scorers: Sequence[Scorer], layers: Sequence[Compared], n_rows: int) -> None:
    """Say by which of some measures without a null unrelated rows may score high, where rows are more than neurons, but few."""
    biased = [scorer for scorer in scorers if scorer.entry.biased_by_width and not scorer.checkpoint]
    names = [scorer.name for scorer in biased if not any(_is_wide(scorer, layer, n_rows) for layer in layers)]
    widest = max(layers, key=lambda layer: layer.width)
    if names and FEWEST_ROWS <= n_rows < AMPLE * widest.width:
        text = "%s: %d rows are few for the %d neurons of %s, where unrelated rows may look alike too; --null 99 tells"
        log.warning(text, listed(names), n_rows, widest.width, widest.where)


def _is_wide(scorer: Scorer, layer: Compared, rows: int) -> bool:
    if scorer.stacked or not scorer.entry.biased_by_width:  # a learned measure is held against shuffled rows
        return False
    # of one row all is undefined, which is said elsewhere
    return 1 < rows < _width(scorer, layer) + (2 if scorer.entry.trivial_at_full_rank else 0)


def _width(scorer: Scorer, layer: Compared) -> int:
    return scorer.encoded or layer.width


def _told(rows: int, trivial: bool, members: Sequence[tuple[Scorer, list[Compared]]]) -> str:
    names = listed([scorer.name for scorer, _ in members])
    scorer, wide = max(members, key=lambda member: len(member[1]))
    widest = max(wide, key=lambda layer: _width(scorer, layer))
    more = f" (and of {len(wide) - 1} more layer{'s' * (len(wide) > 2)})" if len(wide) > 1 else ""
    where = f"{widest.where}{more}"
    if scorer.encoded:
        dimensions = f"{scorer.encoded} dimensions of encoded rows"
        return (
            f"{names}: {rows} rows are fewer than the {dimensions}, where unrelated rows look alike too; give more rows"
        )
    neurons = f"{_width(scorer, widest)} neurons of {where}"
    if trivial:
        return (
            f"{names}: {rows} rows span every direction of the {neurons}, so that whatever they are compared with fits them "
            f"exactly, or nearly; give {_fewer(members)}"
        )
    instead: dict[str, list[str]] = {}
    for scorer, _ in members:
        if scorer.entry.debiased and scorer.checkpoint is None:
            instead.setdefault(scorer.entry.debiased, []).append(scorer.name)
    remedies = [f"take {better} for {listed(biased)}" for better, biased in instead.items()]
    return f"{names}: {rows} rows are fewer than the {neurons}, where unrelated rows look alike too; " + ", or ".join(
        [*remedies, f"give {_fewer(members)}"]
    )


def _fewer(members: Sequence[tuple[Scorer, list[Compared]]]) -> str:
    """What makes rows more than neurons; components are no neurons, so that nothing is left to match them."""
    entries = {scorer.name: scorer.entry for scorer, _ in members}
    matching = [
        name for name, entry in entries.items() if entry.family == "alignment" and "rotation" not in entry.invariances
    ]
    if len(matching) == len(entries):
        return "more rows, or fewer neurons (no PCA, which mixes the neurons that are to be matched)"
    return FEWER_DIMENSIONS + (f"; no PCA for {listed(matching)}, which match neurons" if matching else "")


def _warn_neighbours(scorers: Sequence[Scorer], rows: int) -> None:
    by_k: dict[int, list[str]] = {}
    for scorer in scorers:
        k = scorer.measure.k
        if k and rows >= scorer.fewest and k >= CHANCE * (rows - 1):
            by_k.setdefault(k, []).append(scorer.name)
    for k, names in by_k.items():
        log.warning(
            "%s: of %d rows, unrelated ones share %.2f of their %d nearest by chance; give more rows or a smaller k",
            listed(names),
            rows,
            k / (rows - 1),
            k,
        )


def warn_unclear(standings: Mapping[str, Standing], stores: Sequence[Store]) -> None:
    """Say which measures have no score of a pair of stores that clears its null, as where rows do not belong together."""
    defined = {name: standing.null_z[np.isfinite(standing.null_z)] for name, standing in standings.items()}
    unclear = [name for name, z in defined.items() if len(z) and z.max() < CLEAR]
    if unclear:
        first, second = (quoted(store.path) for store in stores)
        text = (
            "%s: no layer of %s is more similar to one of %s than with rows shuffled, by %g standard deviations; are these the "
            "same examples?"
        )
        log.warning(text, listed(unclear), first, second, CLEAR)


def note_twice(stores: Sequence[Store]) -> None:
    """Say which store is given more than once, by its file or its content."""
    known: dict[str | Values, Store] = {}
    for store in stores:
        keys: list[str | Values] = [str(store.path.resolve()), _values(store)]
        for key in (key for key in keys if key):
            first = known.setdefault(key, store)
            if first is not store:
                text = "%s: is given twice" if first.path == store.path else "%s: has the content of %s"
                paths = [quoted(one.path) for one in (store, first)]
                log.info(text + ", so that layers are compared with themselves", *paths[: text.count("%s")])
                break


def _values(store: Store) -> Values:
    """The digests of the values of its layers, where it has one of each."""
    digests = contents(store)
    return frozenset(digests.items()) if len(digests) == len(store.layers) else frozenset()


def zero_row(layers: Iterable[tuple[View, str]]) -> str:
    """Where the first zero row of these layers is; empty where there is none. `; row 7 (id x) of layer l of a.h5 is zero`."""
    for view, name in layers:
        for places in _blocks(view, name):
            dead = np.flatnonzero(~view.read(name, places).any(axis=1))
            if len(dead):
                return f"; {_row_told(view, int(places[dead[0]]))} of layer {quoted(name)} of {quoted(view.store.path)} is zero"
    return ""


def warn_constant(views: Sequence[View], layers: Sequence[Sequence[str]]) -> None:
    """Say which layers have the same row for every example, from which nothing is learned; reads as little as it takes."""
    constant = [
        f"layer {quoted(name)} of {quoted(view.store.path)}"
        for view, names in zip(views, layers, strict=True)
        for name in names
        if _is_constant(view, name)
    ]
    if constant:
        text = "all rows are equal in %s: nothing is learned there; choose others with --layers"
        log.warning(text, listed(constant))


def _is_constant(view: View, name: str) -> bool:
    first = None
    for places in _blocks(view, name):
        rows = view.read(name, places)
        first = rows[:1] if first is None else first
        if (rows != first).any():
            return False
    return True


def _blocks(view: View, name: str) -> Iterator[RowIndex]:
    return (np.arange(*block) for block in row_blocks(view.store.layer(name), view.n_rows))


def _row_told(view: View, row: int) -> str:
    """A row by its place in the store, and its id."""
    place = row if view.rows is None else int(view.rows[row])
    ids = view.store.ids
    return f"row {place}" + (f" (id {quoted(ids.read(place, place + 1)[0])})" if ids else "")


def check_familiar(
    scorers: Sequence[Scorer], layers: Sequence[Sequence[str]], standardizer: Standardizer, budget: int
) -> dict[int, frozenset[int]]:
    """The views, by scorer, of models that an encoder of raw rows was not trained on; warnings say so.

    More warnings list the layers that an encoder was not trained on, and those whose rows lie far from all that it was trained
    on. Rows are compared before they are standardised, which would hide how they differ.
    """
    views, strangers, far = standardizer.raw, dict[int, frozenset[int]](), dict[str, list[str]]()
    found: dict[Anchoring | None, list[dict[str, Moments]]] = {}
    for s, scorer in enumerate(scorers):
        trained = trained_stores(scorer.encoder.provenance) if scorer.encoder else []
        how = scorer.standardize if isinstance(scorer.standardize, Anchoring) else None
        if how not in found and any(store.layers for store in trained):
            found[how] = _moments(views if how is None else standardizer.views(how, layers, budget), layers)
        strange: dict[int, list[str]] = {}
        seen: list[dict[str, Moments]] = found.get(how, [{} for _ in views]) if trained else []
        if seen and how is None:
            strangers[s] = _strangers(trained, views, seen, scorer)
            _warn_strangers(scorer, [views[v].store for v in sorted(strangers[s])])
        for v in sorted(set(range(len(seen))) - strangers.get(s, frozenset())):
            there = far.setdefault(quoted(views[v].store.path), [])
            lying = [name for name, _ in outside(seen[v], trained) if name not in scorer.unknown(layers[v])]
            named = {name for store in trained for name in store.layers}
            there += [name for name in lying if name in named]
            strange[v] = [name for name in lying if name not in named]
        warn_unknown_layers(scorer, views, layers, strange)
    _warn_far(far)
    return strangers


def warn_unknown_layers(
    scorer: Scorer,
    views: Sequence[View],
    layers: Sequence[Sequence[str]],
    far: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Say which layers an encoder was not trained on, and how to leave them out.

    They are those that lack a way of their own where each layer has one, and by view those of other names that lie `far`.
    """
    unknown = {v: (*scorer.unknown(names), *(far or {}).get(v, ())) for v, names in enumerate(layers)}
    steps = bool(scorer.checkpoint and scorer.checkpoint.config.steps)
    what = f"rows of such layers are centred and {'compared untrained' if steps else 'encoded'}"
    if far and any(far.values()):
        what = "rows of such layers lie far from those that it was trained on"
    by_names: dict[tuple[str, ...], list[int]] = {}
    for v, names in unknown.items():
        by_names.setdefault(names, []).append(v)
    of_stores = [
        f"{listed([*map(quoted, names)])} of {listed([quoted(views[v].store.path) for v in own])}"
        for names, own in by_names.items()
        if names
    ]
    if not of_stores:
        return
    left = {_range(views[v].store, [name for name in layers[v] if name not in names]) for v, names in unknown.items()}
    options = left.pop() if len(left) == 1 else ""
    log.warning(
        "%s: was not trained on %s; %s; %s, or train on them too",
        scorer.name,
        " and ".join(of_stores),
        what,
        f"leave them out with {options}" if options else "choose others with --layers",
    )


def _range(store: Store, names: Sequence[str]) -> str:
    """The option that selects these layers of a store, which are all of a range; empty where they are none."""
    every = list(store.layers)
    places = [every.index(name) for name in names]
    if not places or places != list(range(places[0], places[-1] + 1)) or any(name.isdecimal() for name in every):
        return ""
    return f"--layers {places[0]}-{places[-1]}" if len(places) > 1 else f"--layers {quoted(names[0])}"


def _warn_far(far: Mapping[str, Sequence[str]]) -> None:
    """Layers by store, in one line."""
    told = [f"{path} ({listed(list(dict.fromkeys(map(quoted, names))))})" for path, names in far.items() if names]
    if told:
        text = "rows lie far from all that the encoder was trained on: other inputs, or another pooling? They are those of %s"
        log.warning(text, listed(told))


def _moments(views: Sequence[View], layers: Sequence[Sequence[str]]) -> list[dict[str, Moments]]:
    return [{name: moments(view, name) for name in names} for view, names in zip(views, layers, strict=True)]


def _strangers(
    trained: Sequence[Trained], views: Sequence[View], seen: Sequence[Mapping[str, Moments]], scorer: Scorer
) -> frozenset[int]:
    models = scorer.encoder is not None and scorer.encoder.config.task == "layers"
    pairs = zip(views, seen, strict=True)
    known = (any(is_of(view.store, one, found, models) for one in trained) for view, found in pairs)
    return frozenset(v for v, one in enumerate(known) if not one)


def _warn_strangers(scorer: Scorer, stores: Sequence[Store]) -> None:
    if not stores:
        return
    names = [quoted(store.attrs.get("model") or store.stem) for store in stores]
    log.warning(
        "%s: was not trained on %s; it knows only the neurons of its training models, so these scores mean nothing: "
        "train on these models too, or with --inputs anchors",
        scorer.name,
        listed(list(dict.fromkeys(names))),
    )
