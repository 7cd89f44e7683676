"""What an encoder knows of the rows that it was trained on, and how far other rows lie from them.

A checkpoint keeps, of a sample of each training layer, the mean and the variance of every neuron (of anchored rows: of every
feature). Two layers of equal width lie as far apart as their neurons do on average, in Bhattacharyya's distance of normal
distributions with these moments:

    1/p Σ_j  (m_j - μ_j)² / 4 (s_j² + σ_j²)  +  ½ log (s_j² + σ_j²) / 2 s_j σ_j

which is 0 where the moments agree and grows with a shift or a change of scale. Neurons that are constant on either side are left
out. A scored layer lies outside where the nearest training layer is further than FAR.

Neurons are known by their moments: those of one network keep their order of means and of variances on whatever rows, and those
of another seed have another. So a store whose neurons correlate with those of a training store, in both, is of that model,
or of one that began as it.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.store import Store, View
from contrasim_cli.store.blocks import RowIndex

Doubles = npt.NDArray[np.float64]
Anchored = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]  # rows [n, p] as anchors describe them [n, features]

# of 300 layers of 14 kinds of networks, test rows of the trained model lie at 0.05 at most, also 50 rows alone; mean-pooled rows
# lie at 0.23 or further from [CLS] rows
FAR = 0.1
# of the same networks, 0.83 or more between training and test rows of one, also 50 rows alone; 0.25 at most between seeds
SAME_NEURONS = 0.5
FEWEST_NEURONS = 16  # of which a correlation says something
SAMPLED, RUNS = 2048, 32  # rows of a layer, in runs that lie evenly in it
FLAT = 1e-4  # part of the mean variance, below which a neuron is constant
ROUNDING = 1e-6  # the same, as a part of its squared mean


@dataclass(frozen=True)
class Moments:
    """Mean [p] and variance [p] of the neurons of one layer."""

    mean: Doubles
    variance: Doubles

    @classmethod
    def of(cls, rows: npt.NDArray[Any]) -> "Moments":
        """The moments of rows [n, p]."""
        doubled = rows.astype(np.float64)
        return cls(doubled.mean(axis=0), doubled.var(axis=0))

    @property
    def text(self) -> str:
        """Both as float32, little-endian, in base64: a checkpoint's digests are over text."""
        return base64.b64encode(np.stack([self.mean, self.variance]).astype("<f4").tobytes()).decode()

    @classmethod
    def from_text(cls, text: str) -> "Moments":
        """What was written so."""
        mean, variance = np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64).reshape(2, -1)
        return cls(mean, variance)

    @cached_property
    def varies(self) -> npt.NDArray[np.bool_]:
        """[p] which neurons are not constant, but for rounding."""
        found: npt.NDArray[np.bool_] = self.variance > FLAT * self.variance.mean() + ROUNDING * np.square(self.mean)
        return found

    def distance(self, other: "Moments") -> float:
        """The distance of two layers of equal width; infinite where no neuron varies on both sides, unless none does on either."""
        both = self.varies & other.varies
        if not both.any():
            return float("inf") if self.varies.any() or other.varies.any() else 0.0
        v, w = self.variance[both], other.variance[both]
        shift = np.square(self.mean[both] - other.mean[both]) / (4 * (v + w))
        return float(np.mean(shift + 0.5 * np.log((v + w) / (2 * np.sqrt(v * w)))))

    def likeness(self, other: "Moments") -> float:
        """The mean of the correlations of means and of log variances over the neurons that vary on both sides; 0 of too few."""
        both = self.varies & other.varies if len(self.mean) == len(other.mean) else np.zeros(0, dtype=bool)
        if both.sum() < FEWEST_NEURONS:
            return 0.0
        means = _correlation(self.mean[both], other.mean[both])
        return 0.5 * (means + _correlation(np.log(self.variance[both]), np.log(other.variance[both])))


def _correlation(x: Doubles, y: Doubles) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


def sampled_rows(n_rows: int) -> RowIndex:
    """Positions of a sample: runs of rows that lie evenly among all, so that few blocks of a file are read."""
    if n_rows <= SAMPLED:
        return np.arange(n_rows)
    starts = np.linspace(0, n_rows - SAMPLED // RUNS, RUNS).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(SAMPLED // RUNS))


def moments(view: View, layer: str, anchored: Anchored | None = None) -> Moments:
    """The moments of a sample of one layer's rows, as the view has them, or as anchors describe them."""
    rows = view.read(layer, sampled_rows(view.n_rows))
    return Moments.of(rows if anchored is None else anchored(rows))


def pooled(parts: Sequence[Moments]) -> Moments:
    """Pool the moments of equally many rows of several layers."""
    means = np.stack([part.mean for part in parts])
    within = np.mean([part.variance for part in parts], axis=0)
    return Moments(means.mean(axis=0), within + means.var(axis=0))


def noted(
    views: Sequence[View], layers: Sequence[Sequence[str]], anchored: Mapping[tuple[int, str], Anchored] | None = None
) -> list[dict[str, Any]]:
    """What a checkpoint keeps of its training stores: for `trained_stores`.

    Neurons are those of one store; what anchors say of rows is of all stores, and kept once for all, with the first.
    """
    kept: list[dict[str, Any]] = []
    for view, names in zip(views, layers, strict=True):
        texts = {} if anchored else {name: moments(view, name).text for name in names}
        kept.append({"model_digest": model_digest(view.store), "layers": texts})
    if anchored:
        for k, name in enumerate(layers[0]):
            of_each = [moments(view, layers[v][k], anchored[v, layers[v][k]]) for v, view in enumerate(views)]
            kept[0]["layers"][name] = pooled(of_each).text
    return kept


@dataclass(frozen=True)
class Trained:
    """One training store as a checkpoint knows it; `layers` is empty where it keeps no moments."""

    name: str
    model: str
    model_digest: str
    layers: Mapping[str, Moments]


def trained_stores(provenance: Mapping[str, Any]) -> list[Trained]:
    """What a checkpoint says of its training stores."""
    stores = provenance.get("stores", ())
    kept = provenance.get("moments") or [{} for _ in stores]
    return [
        Trained(
            str(store["name"]),
            str(store.get("model") or ""),
            str(known.get("model_digest") or ""),
            {layer: Moments.from_text(text) for layer, text in known.get("layers", {}).items()},
        )
        for store, known in zip(stores, kept, strict=True)
    ]


def model_digest(store: Store) -> str:
    """The digest of the model's weights that extract has noted; empty where there is none."""
    config = store.provenance.get("config")
    return str(config.get("model_digest") or "") if isinstance(config, Mapping) else ""


def is_of(store: Store, trained: Trained, found: Mapping[str, Moments], files_are_models: bool = True) -> bool:
    """Whether a store, of which some layers' moments were found, is of the model of a training store.

    Digests of weights decide, else names of models, else those of files (unless these are of views, such as languages); and where
    they differ or are missing, the neurons.
    """
    digest, model = model_digest(store), store.attrs.get("model", "")
    if digest and trained.model_digest:
        named = digest == trained.model_digest
    elif model and trained.model:
        named = model == trained.model
    else:
        named = store.stem == trained.name or not files_are_models
    return named or _same_neurons(found, trained.layers)


def _same_neurons(found: Mapping[str, Moments], trained: Mapping[str, Moments]) -> bool:
    """Whether half of the layers, or more, have neurons that are known by their moments in some training layer."""
    if not found or not trained:
        return False
    best = [max(one.likeness(other) for other in trained.values()) for one in found.values()]
    return float(np.median(best)) > SAME_NEURONS


def outside(found: Mapping[str, Moments], trained: Iterable[Trained]) -> Iterator[tuple[str, float]]:
    """The layers that lie further than FAR from every training layer of their width, and how far the nearest is."""
    known = [one for store in trained for one in store.layers.values()]
    for layer, one in found.items():
        distances = [one.distance(other) for other in known if len(other.mean) == len(one.mean)]
        if distances and min(distances) > FAR:
            yield layer, min(distances)
