"""A measure by its name, and what it says of two matrices."""

import math
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.arrays import Device, Tensor, as_tensor, is_tensor
from contrasim_cli.device import pick_device
from contrasim_cli.measures import MEASURES, Options
from contrasim_cli.measures.protocol import Measure
from contrasim_cli.measures.work import multiplications


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
    a, b = (side if is_tensor(side) else np.array(side) for side in (x, y))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"expected two matrices of equal rows, found {tuple(a.shape)} and {tuple(b.shape)}")
    if MEASURES[name].needs_equal_widths and a.shape[1] != b.shape[1]:
        raise ValueError(f"{name} needs equal widths, found {a.shape[1]} and {b.shape[1]}")
    measure, device = load(name, options), _device_of(name, a, b)
    score = float(measure.compare(*(measure.prepare(as_tensor(side, device)) for side in (a, b))))
    return score if math.isfinite(score) else math.nan


def _device_of(name: str, *sides: Any) -> Device:
    """Where there is a tensor, there; else on the processor, in NumPy where the work is little."""
    device = next((side.device for side in sides if is_tensor(side)), None)
    if device is not None:
        return device
    (n, p), (_, q) = (side.shape for side in sides)
    return pick_device("cpu", work=multiplications([MEASURES[name]], n, [p, q], [(p, q)]))
