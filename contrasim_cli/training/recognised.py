"""Which of the rows and models that are compared an encoder was trained on, said in one line per encoder.

Rows are known by their ids, else all of a store by their content; models by the digest of their weights, or their name.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from contrasim_cli.names import listed, quoted
from contrasim_cli.neuron_moments import Trained, model_digest, trained_stores
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import Store, View
from contrasim_cli.trained_rows import TrainedIds
from contrasim_cli.training.rows import content_digest

log = logging.getLogger(__name__)


def note_trained(scorers: Sequence[Scorer], views: Sequence[View]) -> None:
    """Say in one line per encoder which of the rows, and of the models, it was trained on."""
    for scorer in scorers:
        if scorer.checkpoint is None:
            continue
        provenance, told = scorer.checkpoint.provenance, []
        ids = TrainedIds.of(provenance)
        seen = [found[0] for view in views if ids is not None and (found := ids.seen(view)) is not None]
        count = int(np.any(seen, axis=0).sum()) if seen else 0
        if not count and any(_has_content(view, provenance.get("stores", ())) for view in views):
            count = views[0].n_rows
        if count:
            told.append(f"{count} of these {views[0].n_rows} rows")
        trained = {*_named_models(trained_stores(provenance))}
        models = [quoted(view.store.path) for view in views if {*_models(view.store)} & trained]
        if models and not scorer.encoder:
            told.append(f"the model{'s' * (len(models) > 1)} of {listed(models)}")
        if told:
            text = "%s: was trained on %s; scores of what an encoder was trained on do not say how it serves what it was not"
            log.info(text, scorer.name, " and on ".join(told))


def _has_content(view: View, trained: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rows of a store without ids are, value by value, those of a training store.

    They are read once more for it, only where a training store had as many rows in layers of these names.
    """
    if view.store.ids is not None:
        return False
    for one in trained:
        layers = [str(name) for name in one.get("layers", ())]
        alike = one.get("rows") == view.n_rows and layers and all(name in view.store.layers for name in layers)
        if alike and one.get("content") == content_digest(view, layers):
            return True
    return False


def _models(store: Store) -> Iterator[str]:
    """What a store calls its model: the digest of weights, and the attribute."""
    return filter(None, (model_digest(store), store.attrs.get("model", "")))


def _named_models(trained: Iterable[Trained]) -> Iterator[str]:
    return filter(None, (name for one in trained for name in (one.model_digest, one.model)))
