"""Stores and encoders that the tests write for themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from contrasim_cli import encoder
from contrasim_cli.encoder import Checkpoint, Config, Encoder
from contrasim_cli.store import View, open_store

Matrix = npt.NDArray[Any]


def store(path: Path, layers: Mapping[str, npt.ArrayLike], ids: Sequence[str] | None = None, **attrs: str) -> Path:
    """A store in contrasim's own layout, written with h5py as anybody would; ids r0, r1, … unless others are given."""
    path.unlink(missing_ok=True)  # which may be open
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "contrasim-activations", "format_version": 1, "complete": True, **attrs})
        for index, (name, matrix) in enumerate(layers.items()):
            file.create_dataset(f"layers/{name}", data=matrix, fletcher32=True).attrs["index"] = index
        rows = len(file[f"layers/{next(iter(layers))}"])
        names = [f"r{row}" for row in range(rows)] if ids is None else list(ids)
        file.create_dataset("ids", data=names, dtype=h5py.string_dtype())
    return path


def view(path: Path, layers: Mapping[str, npt.ArrayLike], ids: Sequence[str] | None = None) -> View:
    """A view of a store that is written to `path`."""
    return View(open_store(store(path, layers, ids)))


def related(
    count: int, n_layers: int, n_rows: int, widths: Sequence[int], noise: float = 0.5, seed: int = 0
) -> list[dict[str, Matrix]]:
    """Layers of `count` stores: each layer is a rotation of what all stores share in it, with noise; float32.

    `widths` are those of the stores in turn. Layers share a part with their neighbours, so that no layer is trivial.
    """
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n_layers + 1, n_rows, 12))
    stores = []
    for k in range(count):
        width = widths[k % len(widths)]
        layers = {}
        for layer in range(n_layers):
            signal = (shared[layer] + shared[layer + 1]) @ rng.normal(size=(12, width)) / 5
            layers[f"layer_{layer}"] = (signal + noise * rng.normal(size=(n_rows, width))).astype(np.float32)
        stores.append(layers)
    return stores


def checkpoint(seed: int = 0, stores: Sequence[str] = (), **config: Any) -> Checkpoint:
    """A finished encoder with random weights."""
    torch.manual_seed(seed)
    options = {"task": "pairs", "objective": "contrasim", "hidden": (16,), "output": 8, "seed": seed} | config
    made = Encoder(Config(**options))
    about = {"stores": [{"name": name, "content": "", "layers": ["layer_0"]} for name in stores]}
    return Checkpoint(made, {"finished": True, "epochs_done": 1, "loss_curve": [1.0]}, about)


def encoder_file(path: Path, **options: Any) -> Path:
    """The same, saved."""
    encoder.save(path, checkpoint(**options), force=True)
    return path
