"""Activation stores: reading and writing them, lining them up, streaming their rows."""

from contrasim_cli.store.align import View, align, drop_nonfinite, drop_zero_rows, ids_digest
from contrasim_cli.store.hints import Hints
from contrasim_cli.store.open import close_stores, open_store, open_stores
from contrasim_cli.store.select_layers import select_layers
from contrasim_cli.store.store import Ids, Layer, Store
from contrasim_cli.store.writer import LayerSpec, StoreWriter

__all__ = [
    "Hints",
    "Ids",
    "Layer",
    "LayerSpec",
    "Store",
    "StoreWriter",
    "View",
    "align",
    "close_stores",
    "drop_nonfinite",
    "drop_zero_rows",
    "ids_digest",
    "open_store",
    "open_stores",
    "select_layers",
]
