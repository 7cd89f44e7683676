"""The kinds of encoders that `unseen.py` compares: options of `contrasim train`, and changes that no option makes.

A change lasts as long as its context: other features of rows, other choices of anchors, other copies of models, dropout.
"""

import contextlib
import dataclasses
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import numpy.typing as npt
import torch

from contrasim_cli.anchors import Anchored, Anchoring, Anchors, anchoring, features
from contrasim_cli.anchors.features import FEATURES, NEAR, Doubles, Geometry, Seen
from contrasim_cli.anchors.views import _Promised
from contrasim_cli.encoder import Config
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import Layer, View
from contrasim_cli.store.blocks import Floats, RowIndex
from contrasim_cli.training import encoding, job
from contrasim_cli.training.anchored import _factors
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


def told(*names: str) -> list[object]:
    """Options for encoders of these features alone."""
    return list(itertools.chain.from_iterable(("--anchor-feature", name) for name in names))


def with_features(*names: str) -> Changed:
    """Features that are not the program's own; all of the program's, unless some are taken out by `-name`."""
    out = {name[1:] for name in names if name.startswith("-")}
    chosen = (*(name for name in names if name in MORE), *(name for name in FEATURES if name not in out))

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        with mock.patch.dict(features.OF_ROWS, MORE), mock.patch.object(job, "FEATURES", chosen):
            yield

    return changed


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
        views: Sequence[View], count: int, seed: int, names: tuple[str, ...], components: int = 0
    ) -> tuple[Anchoring, Matrix]:
        drawn, _ = anchoring.draw(views, count, seed, names, components)
        store = views[0].store
        rows = views[0].read(list(store.layers)[len(store.layers) // 2])
        assert store.ids is not None
        found = np.sort(choose(rows, count, np.random.default_rng(seed)))
        return dataclasses.replace(drawn, ids=tuple(store.ids.read(int(k), int(k) + 1)[0] for k in found)), found

    return lambda: mock.patch.object(job, "draw", draw)


def one_draw(
    views: Sequence[View], count: int, seed: int, names: tuple[str, ...], components: int = 0
) -> tuple[Anchoring, Matrix]:
    """The same anchors whatever the seed."""
    return anchoring.draw(views, count, 0, names, components)


# --- copies of models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blended(View):
    """A view whose rows are those of two models side by side: their kernels are blended."""

    one: View = field(kw_only=True)
    other: View = field(kw_only=True)

    def read(self, layer: str, rows: RowIndex | None = None) -> Floats:
        """Rows [n, p + q]."""
        return np.concatenate([self.one.read(layer, rows), self.other.read(layer, rows)], axis=1)

    @classmethod
    def of(cls, one: View, other: View) -> "Blended":
        """That of two views of the same rows, whose layers have the same names."""
        layers = {}
        for name, layer in one.store.layers.items():
            width = layer.width + other.store.layer(name).width
            layers[name] = Layer(name, _Promised((one.store.n_rows, width), np.dtype(np.float32)))
        return cls(replace(one.store, layers=layers), one.rows, one=one, other=other)


def blended(cut: bool) -> Changed:
    """Copies are two models blended in random proportions; `cut`: their neurons scaled and cut out too, as in other copies."""

    def anchored(data: Data, config: Config, progress: Progress = silent) -> Data:
        asked, count = config.anchoring, len(data.views)
        assert asked is not None
        anchors = Anchors(data.views)
        transforms, views = {}, [*data.views]
        for v, names in enumerate(data.layers):
            for name in names:
                transforms[v, name] = anchors.altered(v, name, asked, None)
        for copy, v in itertools.product(range(1, 1 + config.copies), range(count)):
            rng = np.random.default_rng([config.seed, copy, 5, v])
            u = int(rng.choice([k for k in range(count) if k != v]))
            part = rng.uniform(0.2, 0.8)
            views.append(Blended.of(data.views[v], data.views[u]))
            for k, name in enumerate(data.layers[v]):
                rows, factors = [], []
                for one, weight in ((v, part), (u, 1 - part)):
                    rows.append(View(data.views[one].store, anchors.rows(one, asked)).read(name))
                    centred = rows[-1] - rows[-1].mean(axis=0)
                    scale = np.sqrt(weight / np.square(centred).sum(axis=1).mean())
                    own = _factors(rows[-1].shape[1], [config.seed, copy, 4, one, k]) if cut else 1.0
                    factors.append(scale * own * np.ones(rows[-1].shape[1]))
                geometry = Geometry.of(np.concatenate(rows, axis=1), asked.components, np.concatenate(factors))
                transforms[copy * count + v, name] = Anchored(geometry, asked.features)
        layers = [*data.layers] * (1 + config.copies)
        return replace(data, views=views, layers=layers, transforms=transforms, n_stores=count)

    return lambda: mock.patch.object(job, "anchored", anchored)


# --- ranges of features -------------------------------------------------------------------------------------------------


class InRange(Anchored):
    """Rows described by anchors, no feature beyond where it lies among the rows that were trained on."""

    def __init__(self, inner: Anchored, kept: tuple[Matrix, ...]) -> None:
        self.__dict__.update(inner.__dict__)
        self._inner, self._kept = inner, kept

    def __call__(self, rows: Floats) -> npt.NDArray[np.float32]:
        """The rows described."""
        centre, scale, low, high = self._kept
        found: npt.NDArray[np.float32] = ((self._inner(rows) - centre) / scale).clip(low, high).astype(np.float32)
        return found


KEPT: dict[tuple[str, ...], tuple[Matrix, ...]] = {}  # by anchors


def keep(path: Path) -> None:
    """Keep the ranges beside an encoder."""
    if KEPT:
        path.with_suffix(".ranges").write_bytes(pickle.dumps(KEPT))


def recall(paths: Iterable[Path]) -> None:
    """Ranges of these encoders alone."""
    KEPT.clear()
    for path in paths:
        if path.with_suffix(".ranges").exists():
            KEPT.update(pickle.loads(path.with_suffix(".ranges").read_bytes()))


def in_range(standardized: bool, share: float = 0.0) -> Changed:
    """No feature lies beyond all but a share of the training rows; `standardized`: of mean 0 and variance 1 before."""
    altered, before = Anchors.altered, [job.anchored]

    def known(data: Data, config: Config, progress: Progress = silent) -> Data:
        KEPT.clear()
        made = before[-1](data, config, progress)
        rows = np.arange(0, data.n_rows, max(1, data.n_rows // 100))
        seen = np.concatenate([made.transforms[v, n](made.views[v].read(n, rows)) for v, n in made.transforms])
        centre, scale = (seen.mean(axis=0), seen.std(axis=0) + 1e-3) if standardized else (np.zeros(1), np.ones(1))
        low, high = np.quantile((seen - centre) / scale, [share, 1 - share], axis=0)
        kept = KEPT[config.anchors] = tuple(map(np.float32, (centre, scale, low, high)))
        return replace(made, transforms={key: InRange(one, kept) for key, one in made.transforms.items()})

    def within(self: Anchors, v: int, layer: str, asked: Anchoring, factors: Doubles | None) -> Anchored:
        made = altered(self, v, layer, asked, factors)
        return InRange(made, KEPT[asked.ids]) if asked.ids in KEPT else made

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        before.append(job.anchored)
        with mock.patch.object(job, "anchored", known), mock.patch.object(Anchors, "altered", within):
            yield

    return changed


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

    whole, known = encoding._chunks, dict[int, int]()

    def _width(count: int) -> int:
        if count not in known:
            known[count] = Anchored(Geometry.of(np.eye(count)), FEATURES).width if count >= 128 else 0
        return known[count]

    return lambda: mock.patch.object(encoding, "_chunks", chunks)


# --- all of them --------------------------------------------------------------------------------------------------------


def together(*changes: Changed) -> Changed:
    """Several changes."""

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for one in changes:
                stack.enter_context(one())
            yield

    return changed


AS_IT_IS: Changed = nullcontext
KINDS: dict[str, tuple[list[object], Changed]] = {
    "raw": ([], AS_IT_IS),
    "anchors": ([], AS_IT_IS),
    "rows alone": (told(*PER_ROW), AS_IT_IS),
    "cosines alone": (told("cosines"), AS_IT_IS),
    "layers alone": (told("profile", "spectrum"), AS_IT_IS),
    "whatever the anchors' order": (
        told("quantiles", "whitened_quantiles", "norms", "neighbours", "spectrum"),
        AS_IT_IS,
    ),
    "no profile": (told(*(name for name in FEATURES if name != "profile")), AS_IT_IS),
    "no spectrum": (told(*(name for name in FEATURES if name != "spectrum")), AS_IT_IS),
    "with kernels": ([], with_features("kernels")),
    "kernels for cosines": ([], with_features("kernels", "-cosines")),
    "with ranks": ([], with_features("ranks")),
    "ranks for cosines": ([], with_features("ranks", "-cosines")),
    "whitened ranks for cosines": ([], with_features("whitened_ranks", "-whitened", "-peaks")),
    "distances for cosines": ([], with_features("distances", "-cosines")),
    "all components": (["--anchor-components", 0], AS_IT_IS),
    "24 components": (["--anchor-components", 24], AS_IT_IS),
    "64 components": (["--anchor-components", 64], AS_IT_IS),
    "64 anchors": (["--anchors", 64], AS_IT_IS),
    "256 anchors": (["--anchors", 256], AS_IT_IS),
    "by farthest point": ([], chosen_by(by_farthest_point)),
    "by medoids": ([], chosen_by(by_medoids)),
    "no copies": (["--copies", 0], AS_IT_IS),
    "no copies, all components": (["--copies", 0, "--anchor-components", 0], AS_IT_IS),
    "three copies": (["--copies", 3], AS_IT_IS),
    "blended": ([], blended(cut=False)),
    "blended, cut": ([], blended(cut=True)),
    "blended, all components": (["--anchor-components", 0], blended(cut=False)),
    "in range": ([], in_range(False)),
    "standardized": ([], in_range(True, 0.001)),
    "blended, all components, in range": (["--anchor-components", 0], together(blended(cut=False), in_range(False))),
    "blended, all components, standardized": (
        ["--anchor-components", 0],
        together(blended(cut=False), in_range(True, 0.001)),
    ),
    "blended, all components, one draw": (
        ["--anchor-components", 0],
        together(blended(cut=False), lambda: mock.patch.object(job, "draw", one_draw)),
    ),
    "blended thrice, ranks for cosines": (
        ["--copies", 3],
        together(blended(cut=False), with_features("ranks", "-cosines")),
    ),
    "blended thrice, features dropped": (["--copies", 3], together(blended(cut=False), families_dropped(0.2))),
    "blended thrice": (["--copies", 3], blended(cut=False)),
    "blended thrice, all components": (["--copies", 3, "--anchor-components", 0], blended(cut=False)),
    "features dropped": ([], families_dropped(0.2)),
    "features dropped often": ([], families_dropped(0.4)),
    "wider": (["--hidden", 1024, "--hidden", 512], AS_IT_IS),
    "narrower": (["--hidden", 256, "--hidden", 128], AS_IT_IS),
    "one epoch": (["--epochs", 1], AS_IT_IS),
    "six epochs": (["--epochs", 6], AS_IT_IS),
    "temperature 0.2": (["--temperature", 0.2], AS_IT_IS),
    "contrasim": (["--objective", "contrasim"], AS_IT_IS),
    "decay": (["--optimizer", "adamw", "--weight-decay", 0.1], AS_IT_IS),
    "64 rows a batch": (["--batch-size", 64], AS_IT_IS),
}
