"""Where an encoder starts: first layers that whiten the rows they will be trained on.

The first linear layer of a width takes rows x to W (x - μ) A, with W as it was drawn, μ the mean of all models' and layers' rows of
this width, and A = (Σ_s)^(-1/2), Σ the mean of their covariances, each about its own mean. What layers differ in, their means and
the directions they vary in, is then wide from the first step, however small it is beside what all rows share. The map is folded
into weights and bias, so that scoring needs no statistics. A is scaled to rows of mean square 1, as the weights are drawn for.
"""

import math

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.encoder import Config, Encoder
from contrasim_cli.training.data import Data
from contrasim_cli.training.shuffle import Rows, held_out_rows
from contrasim_cli.transforms import Doubles, shrunk_inverse_root

SHRINKAGE = 0.1
ROWS_PER_NEURON = 20  # of all layers together
LEAST_ROWS = 256  # of a layer
WIDEST = 2048  # neurons beyond which they are only scaled: a covariance would take longer to invert than training does


def warm(encoder: Encoder, data: Data, config: Config) -> None:
    """Start the encoder's first layers as the configuration says; the same for the same data and seed."""
    if config.start != "whitened":
        return
    for width in data.widths:
        items = [item for item in data.items if item.width == width]
        rows = _sample(data.n_rows, math.ceil(ROWS_PER_NEURON * width / len(items)), config)
        read = [data.formed(item.view, item.name, data.views[item.view].read(item.name, rows)) for item in items]
        mean, factor = whitening([block.astype(np.float64, copy=False) for block in read])
        if factor.any():
            encoder.fold(width, mean, factor)


def whitening(layers: list[Doubles]) -> tuple[Doubles, Doubles]:
    """The mean μ [p] and the map A [p, p] of rows [n, p] of several layers; A is 0 where none varies."""
    mean = np.mean([rows.mean(axis=0) for rows in layers], axis=0)
    centred = [rows - rows.mean(axis=0) for rows in layers]
    if len(mean) > WIDEST:
        covariance = np.diag(np.mean([np.square(rows).mean(axis=0) for rows in centred], axis=0))
    else:
        covariance = np.mean([rows.T @ rows / len(rows) for rows in centred], axis=0)
    level = np.trace(covariance) / len(mean)
    if not level > 0:
        return mean, np.zeros_like(covariance)
    factor = _root(covariance, level)
    square = np.mean([np.square((rows - mean) @ factor).mean() for rows in layers])
    return mean, factor / np.sqrt(square)


def _root(covariance: Doubles, level: float) -> Doubles:
    if len(covariance) > WIDEST:
        return np.diag(1 / np.sqrt((1 - SHRINKAGE) * np.diagonal(covariance) + SHRINKAGE * level))
    return shrunk_inverse_root(SHRINKAGE, level, *np.linalg.eigh(covariance))


def _sample(n_rows: int, count: int, config: Config) -> Rows:
    """Some of the rows that are trained on, sorted."""
    held_out = held_out_rows(n_rows, config)
    trained = n_rows - len(held_out)
    rng = seeds.stream(config.seed, 0, seeds.FIRST_LAYERS)
    places = np.sort(rng.choice(trained, min(trained, max(LEAST_ROWS, count)), replace=False))
    before = held_out - np.arange(len(held_out))  # trained rows that lie before each row that is held out
    return places + np.searchsorted(before, places, side="right")
