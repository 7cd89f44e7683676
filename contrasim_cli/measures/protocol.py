"""What a measure is: `prepare` once per layer, `compare` per pair.

Both work on batched tensors: X [..., n, p] is prepared over its leading dimensions, and `compare` broadcasts the
leading dimensions of its two sides, so that a grid factors each layer once and a benchmark compares thousands of small
matrices in one call. Scores are float64 and NaN where the measure is undefined.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Measure:
    """A pair of functions; measures that share `prepare` share its result, a named tuple of tensors."""

    prepare: Callable[[Tensor], Any]
    compare: Callable[[Any, Any], Tensor]


def expand(prepared: Any, dim: int) -> Any:
    """The same prepared tensors with a new leading dimension, against which another side broadcasts."""
    return type(prepared)(*(part.unsqueeze(dim) if isinstance(part, Tensor) else part for part in prepared))


def centred(x: Tensor) -> Tensor:
    """X [..., n, p] minus its column means, in float64.

    Columns are shifted by their first row before the mean is taken: of a large common offset no digit is lost, and a
    constant column becomes exactly zero.
    """
    shifted = x.double() - x[..., :1, :].double()
    return shifted - shifted.mean(dim=-2, keepdim=True)


def similarity(name: str, x: Tensor | npt.ArrayLike, y: Tensor | npt.ArrayLike) -> float:
    """One measure of X [n, p] and Y [n, q]: a number, NaN where the measure is undefined.

    Raises:
        ValueError: the matrices disagree on rows, or on widths where the measure needs equal ones.
    """
    from contrasim_cli.measures import MEASURES, load

    a, b = (side if isinstance(side, Tensor) else torch.as_tensor(np.array(side)) for side in (x, y))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"expected two matrices of equal rows, found {tuple(a.shape)} and {tuple(b.shape)}")
    if MEASURES[name].needs_equal_widths and a.shape[1] != b.shape[1]:
        raise ValueError(f"{name} needs equal widths, found {a.shape[1]} and {b.shape[1]}")
    measure = load(name)
    score = float(measure.compare(measure.prepare(a), measure.prepare(b)))
    return score if math.isfinite(score) else math.nan
