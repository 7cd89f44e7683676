"""What a store's provenance says of where its rows come from, as far as names in results show it."""

from collections.abc import Mapping, Sequence

from contrasim_cli.store.store import Store

RANDOM = " (random)"


def has_random_weights(store: Store) -> bool:
    """Whether the store was extracted from a model with random weights, the control of all measures."""
    config = store.provenance.get("config")
    return isinstance(config, Mapping) and config.get("random_weights") is True


def with_origin(names: Sequence[str], stores: Sequence[Store]) -> list[str]:
    """Names of stores in results, with a mark behind those of models with random weights."""
    return [name + RANDOM * has_random_weights(store) for name, store in zip(names, stores, strict=True)]
