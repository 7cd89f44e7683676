"""Whether anchors are of the stores at hand: of the same model, pooled alike, and of no other of the stores."""

from collections.abc import Callable, Sequence

import numpy as np

from contrasim_cli.errors import MismatchError
from contrasim_cli.names import quoted
from contrasim_cli.neuron_moments import Moments, model_digest
from contrasim_cli.store import Store

CLEARLY = 0.3  # more like a store's neurons; those of the same rows of other seeds are 0.8 less, of other languages 0.5

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
    """Of two stores' layers in order: the median."""
    pairs = zip(rows, anchors, strict=False)
    return float(np.median([one.likeness(other) for one, other in pairs]))
