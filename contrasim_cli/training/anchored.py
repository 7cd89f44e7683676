"""Anchored rows to train on, and altered copies of models, by which there are more of them than there are stores.

A copy is a model whose neurons were scaled by random factors, and some of them cut out. Rotated copies would be no use: they
have the same anchored rows.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from contrasim_cli.anchors import Anchored, Anchors
from contrasim_cli.encoder import Config
from contrasim_cli.progress import Progress, silent
from contrasim_cli.training.data import Data

COPY = 4  # what a seed is for, beside the others of training
LEAST_KEPT = 0.5  # part of the neurons
LARGEST_SPREAD = 0.5  # of the logarithms of the factors


def anchored(data: Data, config: Config, progress: Progress = silent) -> Data:
    """The data with anchored rows; behind the views come their copies, all views once per copy.

    Raises:
        MismatchError: a store lacks some of the anchors.
    """
    anchoring = config.anchoring
    assert anchoring is not None
    anchors, count = Anchors(data.views), len(data.views)
    anchors.check(anchoring, data.layers)
    transforms: dict[tuple[int, str], Anchored] = {}
    with progress("anchoring", (1 + config.copies) * sum(map(len, data.layers)), "layers") as advance:
        for copy in range(1 + config.copies):
            for v, names in enumerate(data.layers):
                for k, name in enumerate(names):
                    width = data.views[v].store.layer(name).width
                    factors = _factors(width, [config.seed, copy, COPY, v, k]) if copy else None
                    transforms[copy * count + v, name] = anchors.altered(v, name, anchoring, factors)
                    advance(1)
    times = 1 + config.copies
    return replace(
        data, views=[*data.views] * times, layers=[*data.layers] * times, transforms=transforms, n_stores=count
    )


def _factors(width: int, seed: list[int]) -> npt.NDArray[np.float64]:
    """[width] what the neurons of a copy are scaled by; 0 where they are cut out."""
    rng = np.random.default_rng(seed)
    kept = rng.permutation(width) < max(1, round(width * rng.uniform(LEAST_KEPT, 1)))
    return np.exp(rng.normal(size=width) * rng.uniform(0, LARGEST_SPREAD)) * kept
