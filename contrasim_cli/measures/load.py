"""A measure by its name, and what it says of two matrices."""

import math
from importlib import import_module

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.measures import MEASURES, Options
from contrasim_cli.measures.protocol import Measure


def load(name: str, options: Options = Options()) -> Measure:
    """The measure of that name, ready to compute."""
    entry = MEASURES[name]
    module = import_module(f"contrasim_cli.measures.{entry.module or entry.family}")
    measure: Measure = module.MEASURES[name](options)
    return measure


def similarity(name: str, x: Tensor | npt.ArrayLike, y: Tensor | npt.ArrayLike, options: Options = Options()) -> float:
    """One measure of X [n, p] and Y [n, q]: a number, NaN where the measure is undefined.

    Raises:
        ValueError: the matrices disagree on rows, or on widths where the measure needs equal ones.
    """
    a, b = (side if isinstance(side, Tensor) else torch.as_tensor(np.array(side)) for side in (x, y))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"expected two matrices of equal rows, found {tuple(a.shape)} and {tuple(b.shape)}")
    if MEASURES[name].needs_equal_widths and a.shape[1] != b.shape[1]:
        raise ValueError(f"{name} needs equal widths, found {a.shape[1]} and {b.shape[1]}")
    measure = load(name, options)
    score = float(measure.compare(measure.prepare(a), measure.prepare(b)))
    return score if math.isfinite(score) else math.nan
