"""What is in stores: layers, bad values, where they come from, and whether they line up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contrasim_cli.errors import ContraSimError
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store.align import align
from contrasim_cli.store.blocks import iter_blocks
from contrasim_cli.store.store import Store


@dataclass(frozen=True)
class LayerCounts:
    """Bad values of one layer."""

    nan: int
    inf: int
    constant_columns: int


def count_bad(store: Store, name: str) -> LayerCounts:
    """NaN and Inf values, and columns in which every row has the same value; one pass in blocks."""
    nan = inf = 0
    first = None
    constant = np.ones(store.layer(name).width, dtype=bool)
    for _, block in iter_blocks(store, name):
        nan += int(np.isnan(block).sum())
        inf += int(np.isinf(block).sum())
        first = block[0] if first is None else first
        constant &= (block == first).all(axis=0)
    return LayerCounts(nan, inf, int(constant.sum()) if store.n_rows else 0)


def count_all(stores: Sequence[Store], progress: Progress = silent) -> dict[tuple[int, str], LayerCounts]:
    """`count_bad` of every layer, by position of the store and name of the layer."""
    total = sum(layer.n_rows for store in stores for layer in store.layers.values())
    counts = {}
    with progress("reading", total, "rows") as advance:
        for k, store in enumerate(stores):
            for name in store.layers:
                counts[k, name] = count_bad(store, name)
                advance(store.n_rows)
    return counts


def disagreement(stores: Sequence[Store], how: str) -> ContraSimError | None:
    """Why the stores do not line up, or None."""
    try:
        align(stores, how)
    except ContraSimError as problem:
        return problem
    return None


def facts(store: Store) -> dict[str, Any]:
    """Where a store comes from."""
    ids: dict[str, Any] = {"ids": "none"}
    if store.ids is not None:
        ids = {"ids": "automatic" if store.ids.automatic else "given", "ids_digest": store.ids.digest}
        if store.ids.source:
            ids["ids_source"] = store.ids.source
    return {"kind": store.kind, "rows": store.n_rows, **ids, **store.attrs, "provenance": dict(store.provenance)}
