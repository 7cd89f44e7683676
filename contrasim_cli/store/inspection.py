"""What is in stores: layers, bad values, anisotropy, where they come from, and whether they line up.

Anisotropy decides whether rows should be standardised before they are compared row by row: where random rows point the same
way, or a few neurons hold most of the variance, these decide every similarity. It is that of a seeded sample of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.errors import ContraSimError
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store.align import align
from contrasim_cli.store.blocks import Floats, iter_blocks
from contrasim_cli.store.store import Store
from contrasim_cli.store.unknown_tokens import unknown_share
from contrasim_cli.store.zeros import ZeroRows

SAMPLED_ROWS = 2048
WIDEST = 3  # neurons


@dataclass(frozen=True)
class Anisotropy:
    """How far rows are from pointing everywhere alike; None where it is undefined.

    `mean_cosine` of two different rows, in [-1, 1], 0 where they point everywhere. `widest_share`: part of the variance that
    the three neurons with the most of it have, 3 / width where all have as much. `effective_rank`: exp of the entropy of
    the covariance's eigenvalues, as parts of their sum (Roy & Vetterli 2007); from 1 to the width, or to the rows sampled.
    """

    mean_cosine: float | None = None
    widest_share: float | None = None
    effective_rank: float | None = None


@dataclass(frozen=True)
class LayerCounts:
    """Bad values of one layer, how its rows are spread, and how many are all zero."""

    nan: int
    inf: int
    constant_columns: int
    anisotropy: Anisotropy = Anisotropy()
    zero_rows: int = 0


def anisotropy(rows: Floats) -> Anisotropy:
    """The anisotropy of rows [n, p], all finite."""
    if len(rows) < 2:
        return Anisotropy()
    rows = rows.astype(np.float64)
    rows = rows / (np.abs(rows).max(initial=0.0) or 1.0)  # squares neither overflow nor vanish
    centred = rows - rows[:1]  # a constant column is exactly constant
    centred -= centred.mean(axis=0)
    variances = np.square(centred).sum(axis=0)
    if not variances.any():
        return Anisotropy(_mean_cosine(rows))
    wide = centred.shape[1] > len(centred)
    values = np.linalg.eigvalsh(centred @ centred.T if wide else centred.T @ centred)
    parts = values[values > 0] / values[values > 0].sum()
    return Anisotropy(
        _mean_cosine(rows),
        float(np.sort(variances)[-WIDEST:].sum() / variances.sum()),
        float(np.exp(-(parts * np.log(parts)).sum())),
    )


def _mean_cosine(rows: Floats) -> float | None:
    """Over all pairs of different rows, none of them zero: ‖Σ x/‖x‖‖² counts each pair twice and each row once."""
    norms = np.linalg.norm(rows, axis=1)
    unit = rows[norms > 0] / norms[norms > 0, None]
    n = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - n) / (n * (n - 1))) if n > 1 else None


def count_bad(store: Store, name: str, zeros: ZeroRows | None = None) -> LayerCounts:
    """NaN and Inf values, columns in which every row has the same value, rows of zeros, and the anisotropy; one pass in blocks.

    `zeros` takes note of rows that are zero in every layer.
    """
    nan = inf = 0
    own, zeros = ZeroRows(store.n_rows), zeros or ZeroRows(store.n_rows)
    first = None
    constant = np.ones(store.layer(name).width, dtype=bool)
    rng = np.random.default_rng(seeds.INSPECTED_ROWS)
    rows = np.sort(rng.choice(store.n_rows, min(store.n_rows, SAMPLED_ROWS), replace=False))
    sample = []
    for start, block in iter_blocks(store, name):
        picked = block[rows[(rows >= start) & (rows < start + len(block))] - start]
        sample.append(picked[np.isfinite(picked).all(axis=1)])
        nan += int(np.isnan(block).sum())
        inf += int(np.isinf(block).sum())
        own.look(start, block)
        zeros.look(start, block)
        first = block[0] if first is None else first
        constant &= (block == first).all(axis=0)
    spread = anisotropy(np.concatenate(sample)) if sample else Anisotropy()
    return LayerCounts(nan, inf, int(constant.sum()) if store.n_rows else 0, spread, len(own.places))


def count_all(
    stores: Sequence[Store], progress: Progress = silent, zeros: Sequence[ZeroRows | None] | None = None
) -> dict[tuple[int, str], LayerCounts]:
    """`count_bad` of every layer, by position of the store and name of the layer.

    `zeros` take note, store by store, of rows that are zero in every layer.
    """
    total = sum(layer.n_rows for store in stores for layer in store.layers.values())
    counts = {}
    with progress("reading", total, "rows") as advance:
        for k, (store, zero) in enumerate(zip(stores, zeros or [None] * len(stores), strict=True)):
            for name in store.layers:
                counts[k, name] = count_bad(store, name, zero)
                advance(store.n_rows)
    return counts


def disagreement(stores: Sequence[Store], how: str) -> ContraSimError | None:
    """Why the stores do not line up, or None."""
    try:
        align(stores, how)
    except ContraSimError as problem:
        return problem
    return None


def facts(store: Store, zeros: ZeroRows | None = None) -> dict[str, Any]:
    """Where a store comes from, how it was read, and which rows `zeros` found to be zero in every layer."""
    ids: dict[str, Any] = {"ids": "none"}
    if store.ids is not None:
        ids = {"ids": "automatic" if store.ids.automatic else "given", "ids_digest": store.ids.digest}
        if store.ids.source:
            ids["ids_source"] = store.ids.source
    table = {"kind": store.kind, "rows": store.n_rows, **store.facts, **ids, **store.attrs}
    if zeros is not None:
        table |= {"zero_rows": len(zeros.places), "first_zero_row": int(zeros.places[0]) if len(zeros.places) else None}
    if (share := unknown_share(store.provenance)) is not None:
        table["unknown_token_share"] = round(share, 4)
    return {**table, "provenance": dict(store.provenance)}
