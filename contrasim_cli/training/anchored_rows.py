"""Anchored rows to train on, and blended copies of models, by which there are more of them than there are stores.

A copy is two models side by side, in random proportions: how its rows lie among each other is a mixture of how they do in
either. Rotated copies would be no use, as they have the same anchored rows; nor did models whose neurons were scaled, or some of
them cut out, teach much of others.
"""

from dataclasses import replace

from contrasim_cli import seeds
from contrasim_cli.anchors import Anchored, Anchors
from contrasim_cli.anchors.views import side_by_side
from contrasim_cli.encoder import Config
from contrasim_cli.progress import Progress, silent
from contrasim_cli.training.data import Data

LEAST_SHARE = 0.2  # of a model's variance in a copy


def anchored(data: Data, config: Config, progress: Progress = silent) -> Data:
    """The data with anchored rows; behind the views come their copies, all views once per copy.

    Raises:
        MismatchError: a store lacks some of the anchors.
        InputError: an anchor row holds a bad value, or all of a layer are the same.
    """
    anchoring = config.anchoring
    assert anchoring is not None
    anchors, count, views = Anchors(data.views), len(data.views), [*data.views]
    anchors.check(anchoring, data.layers)
    transforms: dict[tuple[int, str], Anchored] = {}
    with progress("anchoring", (1 + config.copies) * sum(map(len, data.layers)), "layers") as advance:
        for v, names in enumerate(data.layers):
            for name in names:
                transforms[v, name] = anchors.anchored(v, name, anchoring)
                advance(1)
        for copy in range(1, 1 + config.copies):
            for v, names in enumerate(data.layers):
                u, share = _partner(v, count, (config.seed, copy, seeds.COPIES, v))
                beside = dict(zip(names, data.layers[u], strict=True))
                views.append(side_by_side(data.views[v], data.views[u], beside))
                for name in names:
                    blend = anchors.blended((v, name), (u, beside[name]), share, anchoring)
                    transforms[copy * count + v, name] = blend
                    advance(1)
    layers = [*data.layers] * (1 + config.copies)
    return replace(data, views=views, layers=layers, transforms=transforms, n_stores=count)


def _partner(v: int, count: int, stream: tuple[int, ...]) -> tuple[int, float]:
    """Which model lies beside a model, and the share of the first in the variance of both."""
    rng = seeds.stream(*stream)
    return (v + int(rng.integers(1, count))) % count, float(rng.uniform(LEAST_SHARE, 1 - LEAST_SHARE))
