"""Loading models and reading rows from them in tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrasim_cli.extraction.networks.load import load
from contrasim_cli.extraction.networks.network import ModelOptions, Network
from contrasim_cli.extraction.sources.open import array_source, text_source

Rows = Mapping[str, np.ndarray[Any, Any]]


def reading(folder: Path, texts: Path, **options: Any) -> Network:
    """A model of texts."""
    return load(ModelOptions(str(folder), **options), text_source(texts))


def seeing(folder: Path, array: Path, **options: Any) -> Network:
    """A model of an array of images."""
    return load(ModelOptions(str(folder), **options), array_source(array))


def rows(network: Network, items: Any, batch_size: int = 64) -> Rows:
    """The rows of all items by layer, in the order of the items and of their units."""
    widths = network.discover(network.prepare(items[:1], 0).batch([0]))
    prepared = network.prepare(items, 0)
    counts = np.array([1] * len(items) if prepared.units is None else list(map(len, prepared.units)))
    starts = np.cumsum(counts) - counts
    out = {name: np.full((int(counts.sum()), width), np.nan, np.float32) for name, width in widths.items()}
    order = np.argsort(-np.asarray(prepared.lengths), kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        places = np.concatenate([np.arange(starts[item], starts[item] + counts[item]) for item in batch])
        for name, tensor in network.rows(prepared.batch(batch)).items():
            assert tensor.dtype == torch.float32
            out[name][places] = tensor.cpu().numpy()
    return out


def pooled(states: torch.Tensor, how: str) -> torch.Tensor:
    """[rows, width] of the states [tokens, width] of one item alone."""
    one = {"cls": states[0], "last": states[-1], "mean": states.mean(0), "max": states.amax(0)}
    return states if how == "none" else one[how][None]


def assert_same(found: Rows, expected: Sequence[Sequence[torch.Tensor]]) -> None:
    """Compare rows with those of every item, a list of [rows, width] by layer."""
    for index, name in enumerate(found):
        wanted = torch.cat([item[index] for item in expected]).numpy()
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)
