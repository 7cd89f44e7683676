"""Small stores for tests, and somebody else's way of writing them: plain h5py by the words of the format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from contrasim_cli.store import LayerSpec, StoreWriter


def values(rows: int = 20, width: int = 3, seed: int = 0) -> np.ndarray:
    """Activations [rows, width] in float32."""
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def names(count: int, prefix: str = "row") -> list[str]:
    """Ids."""
    return [f"{prefix} {k}" for k in range(count)]


def write(path: Path, layers: dict[str, np.ndarray], ids: Sequence[str] | None = None, **options: Any) -> Path:
    """A store written by ourselves."""
    n_rows = len(next(iter(layers.values())))
    specs = [LayerSpec(name, matrix.shape[1], matrix.dtype.name) for name, matrix in layers.items()]
    with StoreWriter(path, specs, n_rows, names(n_rows) if ids is None else ids, **options) as writer:
        for name, matrix in layers.items():
            writer.write(name, 0, matrix)
    return path


def write_by_hand(path: Path, layers: dict[str, np.ndarray], ids: Sequence[str] | None = None, **attrs: Any) -> Path:
    """A store written by somebody with h5py alone; an attribute that is None is left out."""
    with h5py.File(path, "w") as file:
        said = {"format": "contrasim-activations", "format_version": 1, "complete": True, **attrs}
        for name, value in said.items():
            if value is not None:
                file.attrs[name] = value
        for index, (name, matrix) in enumerate(layers.items()):
            dataset = file.create_dataset(f"layers/{name}", data=matrix)
            dataset.attrs["index"] = index
        if ids is not None:
            file.create_dataset("ids", data=list(ids), dtype=h5py.string_dtype("utf-8"))
    return path
