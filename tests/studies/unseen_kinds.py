"""The kinds of encoders that `unseen.py` compares: options of `contrasim train`, and changes that no option makes.

A change lasts as long as its context: other features of rows, other choices of anchors, other copies of models, dropout.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import faiss
import numpy as np
import numpy.typing as npt
import torch

from contrasim_cli.anchors import Anchored, Anchoring, Anchors, anchoring, features
from contrasim_cli.anchors.features import FEATURES, NEAR, Doubles, Geometry, Seen
from contrasim_cli.encoder import Config
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import View
from contrasim_cli.training import job
from contrasim_cli.training import rows as training_rows
from contrasim_cli.training.data import Data
from contrasim_cli.training.rows import Part

Matrix = npt.NDArray[Any]
Changed = Callable[[], AbstractContextManager[object]]


# --- features -----------------------------------------------------------------------------------------------------------

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)  # times the mean squared distance to the anchors


def _distances(seen: Seen) -> Doubles:
    """[n, A] squared."""
    own = np.diagonal(seen.anchors.gram)
    found: Doubles = (seen.squares + own - 2 * seen.y).clip(0)
    return found


def kernels(seen: Seen) -> Doubles:
    """Gaussian kernels of the distances to each anchor, of several bandwidths."""
    distances = _distances(seen)
    mean = distances.mean(axis=1, keepdims=True).clip(NEAR)
    return np.concatenate([np.exp(-distances / (2 * width * mean)) for width in BANDWIDTHS], axis=1)


def ranks(seen: Seen) -> Doubles:
    """How many anchors are nearer than each, as a part of all, from -1 to 1."""
    order = _distances(seen).argsort(axis=1).argsort(axis=1)
    found: Doubles = 2.0 * order / order.shape[1] - 1
    return found


def whitened_ranks(seen: Seen) -> Doubles:
    """The same by the cosines of rows whitened with each sharp ridge."""
    found = [seen.whitened(ridge)[0].argsort(axis=1).argsort(axis=1) for ridge in features.SHARP]
    return 2.0 * np.concatenate(found, axis=1) / len(found[0].T) - 1


def distances(seen: Seen) -> Doubles:
    """Log squared distances to each anchor, over their mean."""
    found = _distances(seen)
    return np.asarray(np.log(found / found.mean(axis=1, keepdims=True).clip(NEAR) + NEAR))


MORE = {one.__name__: one for one in (kernels, ranks, whitened_ranks, distances)}
PER_ROW = ("cosines", "quantiles", "whitened", "peaks", "whitened_quantiles", "norms", "neighbours")


def with_features(*names: str) -> Changed:
    """Features that are not the program's own; all of the program's, unless some are taken out by `-name`."""
    out = {name[1:] for name in names if name.startswith("-")}
    chosen = (*(name for name in names if name in MORE), *(name for name in FEATURES if name not in out))

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        with mock.patch.dict(features.OF_ROWS, MORE), mock.patch.object(job, "FEATURES", chosen):
            yield

    return changed


def only(*names: str) -> Changed:
    """Encoders of these of the program's features alone."""
    return with_features(*(f"-{name}" for name in FEATURES if name not in names))


# --- which anchors ------------------------------------------------------------------------------------------------------


def by_farthest_point(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Each anchor the row that is farthest from those before it."""
    chosen = [int(rng.integers(len(rows)))]
    distance = np.square(rows - rows[chosen[0]]).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(rows - rows[chosen[-1]]).sum(axis=1))
    return np.array(chosen)


def by_medoids(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """The rows that are nearest to the means of so many clusters."""
    means = faiss.Kmeans(rows.shape[1], count, niter=10, seed=int(rng.integers(1 << 30)))
    means.train(rows)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    found = dict.fromkeys(index.search(means.centroids, 1)[1][:, 0].tolist())
    rest = [k for k in rng.permutation(len(rows)).tolist() if k not in found]
    return np.array([*found, *rest][:count])


def chosen_by(choose: Callable[[Matrix, int, np.random.Generator], Matrix]) -> Changed:
    """Anchors chosen by the middle layer of the first model, not drawn."""

    def draw(
        views: Sequence[View], count: int, seed: int, names: tuple[str, ...], components: int = 0, members: int = 1
    ) -> tuple[Anchoring, Matrix]:
        drawn, _ = anchoring.draw(views, count, seed, names, components, members)
        store = views[0].store
        rows = views[0].read(list(store.layers)[len(store.layers) // 2])
        assert store.ids is not None
        found = choose(rows, count * members, np.random.default_rng(seed))
        return dataclasses.replace(drawn, ids=tuple(store.ids.read(int(k), int(k) + 1)[0] for k in found)), found

    return lambda: mock.patch.object(job, "draw", draw)


# --- copies of models ---------------------------------------------------------------------------------------------------


def cut() -> AbstractContextManager[object]:
    """Copies are single models whose neurons are scaled at random, and some of them cut out."""

    def anchored(data: Data, config: Config, progress: Progress = silent) -> Data:
        asked, anchors, count = config.anchoring, Anchors(data.views), len(data.views)
        assert asked is not None
        transforms = {}
        for copy, (v, names) in itertools.product(range(1 + config.copies), enumerate(data.layers)):
            for k, name in enumerate(names):
                rows = View(data.views[v].store, anchors.rows(v, asked)).read(name)
                rng = np.random.default_rng([config.seed, copy, 4, v, k])
                kept = rng.permutation(rows.shape[1]) < round(rows.shape[1] * rng.uniform(0.5, 1))
                factors = np.exp(rng.normal(size=len(kept)) * rng.uniform(0, 0.5)) * kept if copy else None
                transforms[copy * count + v, name] = Anchored(
                    Geometry.of(rows, asked.components, factors), asked.features
                )
        times = 1 + config.copies
        return replace(
            data, views=[*data.views] * times, layers=[*data.layers] * times, transforms=transforms, n_stores=count
        )

    return mock.patch.object(job, "anchored", anchored)


# --- dropout ------------------------------------------------------------------------------------------------------------


def families_dropped(share: float) -> Changed:
    """While training, whole features of a row are left out at random."""

    def chunks(part: Part, device: torch.device, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        count = next(n for n in range(2, 2000) if _width(n) >= part.width)
        geometry = Geometry.of(np.eye(count))
        widths = torch.tensor([Anchored(geometry, [name]).width for name in FEATURES], device=device)
        for rows in whole(part, device, dtype):
            if torch.is_grad_enabled():
                kept = (torch.rand(len(rows), len(widths), device=device) >= share).to(rows.dtype)
                yield rows * kept.repeat_interleave(widths, dim=1)
            else:
                yield rows

    whole, known = training_rows._chunks, dict[int, int]()

    def _width(count: int) -> int:
        if count not in known:
            known[count] = Anchored(Geometry.of(np.eye(count)), FEATURES).width if count >= 128 else 0
        return known[count]

    return lambda: mock.patch.object(training_rows, "_chunks", chunks)


# --- all of them --------------------------------------------------------------------------------------------------------
AS_IT_IS: Changed = nullcontext
KINDS: dict[str, tuple[list[object], Changed]] = {
    "raw": ([], AS_IT_IS),
    "anchors": ([], AS_IT_IS),
    "one member": (["--members", 1], AS_IT_IS),
    "rows alone": ([], only(*PER_ROW)),
    "cosines alone": ([], only("cosines")),
    "layers alone": ([], only("profile", "spectrum")),
    "whatever the anchors' order": ([], only("quantiles", "whitened_quantiles", "norms", "neighbours", "spectrum")),
    "one member, kernels too": (["--members", 1], with_features("kernels")),
    "one member, ranks for cosines": (["--members", 1], with_features("ranks", "-cosines")),
    "one member, neurons cut": (["--members", 1], cut),
    "with kernels": ([], with_features("kernels")),
    "kernels for cosines": ([], with_features("kernels", "-cosines")),
    "with ranks": ([], with_features("ranks")),
    "ranks for cosines": ([], with_features("ranks", "-cosines")),
    "whitened ranks for cosines": ([], with_features("whitened_ranks", "-whitened", "-peaks")),
    "distances for cosines": ([], with_features("distances", "-cosines")),
    "64 anchors": (["--anchors", 64], AS_IT_IS),
    "256 anchors": (["--anchors", 256], AS_IT_IS),
    "by farthest point": ([], chosen_by(by_farthest_point)),
    "by medoids": ([], chosen_by(by_medoids)),
    "no copies": (["--copies", 0], AS_IT_IS),
    "three copies": (["--copies", 3], AS_IT_IS),
    "neurons cut": ([], cut),
    "one member, features dropped": (["--members", 1], families_dropped(0.2)),
    "wider": (["--hidden", 1024, "--hidden", 512], AS_IT_IS),
    "six epochs": (["--epochs", 6], AS_IT_IS),
    "temperature 0.2": (["--temperature", 0.2], AS_IT_IS),
    "contrasim": (["--objective", "contrasim"], AS_IT_IS),
    "decay": (["--optimizer", "adamw", "--weight-decay", 0.1], AS_IT_IS),
}
