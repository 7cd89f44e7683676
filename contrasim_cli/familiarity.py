"""Whether encoders know the stores that they are asked about: said in a warning, and which stores they do not know."""

import logging
from collections.abc import Mapping, Sequence

from contrasim_cli.anchors import Anchoring
from contrasim_cli.names import listed, quoted
from contrasim_cli.neuron_moments import Moments, Trained, is_of, moments, outside, trained_stores
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import Store, View
from contrasim_cli.transforms import Standardizer

log = logging.getLogger(__name__)


def check_familiar(
    scorers: Sequence[Scorer], layers: Sequence[Sequence[str]], standardizer: Standardizer, budget: int
) -> dict[int, frozenset[int]]:
    """The views, by scorer, of models that an encoder of raw rows was not trained on; warnings say so.

    One more warning lists the layers whose rows lie far from all that an encoder was trained on. Rows are compared before they are
    standardised, which would hide how they differ.
    """
    views, strangers, far = standardizer.raw, dict[int, frozenset[int]](), dict[str, list[str]]()
    found: dict[Anchoring | None, list[dict[str, Moments]]] = {}
    for s, scorer in enumerate(scorers):
        trained = trained_stores(scorer.encoder.provenance) if scorer.encoder else []
        how = scorer.standardize if isinstance(scorer.standardize, Anchoring) else None
        if how not in found and any(store.layers for store in trained):
            found[how] = _moments(views if how is None else standardizer.views(how, layers, budget), layers)
        seen: list[dict[str, Moments]] = found.get(how, [{} for _ in views]) if trained else []
        if seen and how is None:
            strangers[s] = _strangers(trained, views, seen, scorer)
            _warn_strangers(scorer, [views[v].store for v in sorted(strangers[s])])
        for v in sorted(set(range(len(seen))) - strangers.get(s, frozenset())):
            far.setdefault(quoted(views[v].store.path), []).extend(name for name, _ in outside(seen[v], trained))
    _warn_far(far)
    return strangers


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
        "%s: was not trained on %s; it knows the neurons of its training models alone, so that these scores mean nothing: "
        "train on these models too, or with --inputs anchors",
        scorer.name,
        listed(list(dict.fromkeys(names))),
    )
