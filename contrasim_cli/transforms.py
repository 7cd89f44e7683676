"""What happens to rows before any measure or encoder: standardisation by the statistics of a store's layer.

With μ [p] and Σ [p, p] the mean and the covariance (over n, not n - 1) of the n rows that the statistics are of, a row x
becomes

    center   x - μ
    zscore   (x - μ) / √diag Σ
    whiten   (x - μ) Σ_s^(-1/2), Σ_s = (1 - s) Σ + s (tr Σ / p) I, s the shrinkage (Ledoit & Wolf 2004)

and 0, by zscore and whiten, in a column that the statistics know as constant. Encoders of pairs know one way more, `within`:
(x - μ) W_s^(-1/2), where W, of each layer, is how the views of a row differ that the encoder was trained on.

The root is the symmetric one (ZCA: Bell & Sejnowski 1997), so that whitened rows stay as near to the neurons' own axes as
whitened rows can, and two views of one network can still be compared neuron by neuron. Directions whose standard deviation
under Σ_s is less than RANK_TOL of the largest are dropped: without shrinkage the root is that of the pseudo-inverse.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed
from contrasim_cli.anchors import Anchored, Anchoring, Anchors
from contrasim_cli.anchors.features import APPLIED_ROWS
from contrasim_cli.errors import ContraSimError, InputError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import View
from contrasim_cli.store.align import misfits
from contrasim_cli.store.blocks import Floats, RowIndex, row_blocks, spans

log = logging.getLogger(__name__)

SHRUNK = ("whiten", "within")
RANK_TOL = 1e-6
ROWS_PER_NEURON = 10  # below which a covariance is mostly noise

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Standardization:
    """How rows are standardised; `shrinkage` counts where a covariance is inverted."""

    kind: str = "none"
    shrinkage: float = 0.01
    within: "Within | None" = None  # where that is the kind
    by_layer: tuple[tuple[str, "Standardization"], ...] = ()  # of layers that have a way of their own

    def __bool__(self) -> bool:
        return self.kind != "none" or bool(self.by_layer)

    def of(self, layer: str) -> "Standardization":
        """How rows of one layer are standardised."""
        own = dict(self.by_layer).get(layer, self)
        return replace(own, within=self.within, by_layer=())

    @property
    def kinds(self) -> frozenset[str]:
        """All kinds that occur."""
        return frozenset((self.kind, *(way.kind for _, way in self.by_layer)))

    @property
    def text(self) -> str:
        """The standardisation in words."""
        if self.by_layer:
            return "; ".join(f"{name}: {way.text}" for name, way in self.by_layer)
        return f"{self.kind}, shrinkage {self.shrinkage:g}" if self.kind in SHRUNK else self.kind


@dataclass(frozen=True, eq=False)
class Within:
    """Maps [p, p] that encoders multiply centred rows by, by the layer's name."""

    factors: Mapping[str, Doubles]

    def misfit(self, layer: str, width: int) -> str:
        """Why rows of a layer cannot be mapped; empty where they can."""
        if layer not in self.factors:
            return f"knows how views differ in {', '.join(map(quoted, self.factors))} alone"
        expected = len(self.factors[layer])
        return "" if width == expected else f"knows how views differ in layer {quoted(layer)} of width {expected}"


AS_THEY_ARE = Standardization()
RowsAs = Standardization | Anchoring  # what is made of rows


@dataclass(frozen=True)
class Statistics:
    """Statistics of n rows [n, p]: mean [p], variance [p], and covariance [p, p] where it was asked for."""

    n_rows: int
    mean: Doubles
    variance: Doubles
    covariance: Doubles | None = None
    layer: str = ""


def statistics(view: View, layer: str, covariance: bool) -> Statistics:
    """Moments of a layer's rows in float64, in one pass over blocks of rows, which ranks share.

    Blocks are taken relative to the first row, so that a common offset costs no digits and a constant column is exactly
    constant, and their moments are put together as in Chan et al. (1979).

    Raises:
        InputError: a value is NaN or Inf, or a square leaves float64.
    """
    blocks = distributed.share(list(row_blocks(view.store.layer(layer), view.n_rows)))
    first = view.read(layer, np.arange(1))[0].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _Sums(first, covariance)
        for block in blocks:
            sums.add(view.read(layer, np.arange(*block)))
        sums.merge()
        found = sums.statistics(layer)
    if not np.isfinite(found.variance if found.covariance is None else found.covariance).all():
        raise InputError(
            f"{quoted(view.store.path)}: layer {quoted(layer)}: squares of the values overflow float64; scale the rows"
        )
    return found


def statistics_of(blocks: Iterable[Floats], covariance: bool, layer: str = "") -> Statistics:
    """Moments of rows [k, p] in blocks; infinite where squares leave float64."""
    sums = None
    for rows in blocks:
        sums = sums or _Sums(rows[0].astype(np.float64), covariance)
        sums.add(rows)
    assert sums is not None
    return sums.statistics(layer)


class _Sums:
    """Rows added up block by block, relative to some row: their mean [p], and their scatter [p, p], or its diagonal [p]."""

    def __init__(self, first: Doubles, covariance: bool) -> None:
        self.first, self.covariance, self.count = first, covariance, 0
        self.mean = np.zeros_like(first)
        self.scatter = np.zeros((len(first), len(first)) if covariance else len(first))

    def add(self, rows: Floats) -> None:
        """One block [k, p]."""
        block = rows - self.first
        delta = block.mean(axis=0) - self.mean
        block -= block.mean(axis=0)
        self.scatter += block.T @ block if self.covariance else np.square(block).sum(axis=0)
        self._move(delta, self.count * len(block) / (self.count + len(block)))
        self.count += len(block)
        self.mean += delta * (len(block) / self.count)

    def merge(self) -> None:
        """Make them the sums over the blocks of all ranks."""
        if distributed.world() == 1:
            return
        *sums, count = distributed.total_of(np.append(self.mean * self.count, float(self.count)))
        mean = np.array(sums) / count
        self._move(self.mean - mean, self.count)
        self.count, self.mean, self.scatter = round(count), mean, distributed.total_of(self.scatter)

    def _move(self, delta: Doubles, weight: float) -> None:
        self.scatter += weight * (np.outer(delta, delta) if self.covariance else np.square(delta))

    def statistics(self, layer: str) -> Statistics:
        """What they come to."""
        scatter = self.scatter / self.count
        variance, covariance = (np.diagonal(scatter), scatter) if self.covariance else (scatter, None)
        return Statistics(self.count, self.first + self.mean, variance, covariance, layer)


@dataclass(frozen=True)
class Transform:
    """Rows [n, p] to (rows - mean) · factor, where the factor is one number per column [p], a matrix [p, p], or absent."""

    mean: Doubles
    factor: Doubles | None = None

    def __call__(self, rows: Floats) -> Floats:
        """The rows transformed, in the type they came in."""
        out = np.empty_like(rows)
        for start, stop in spans(len(rows), APPLIED_ROWS):
            centred = rows[start:stop] - self.mean
            out[start:stop] = centred if self.factor is None else self._scaled(centred, self.factor)
        return out

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.mean.nbytes + (0 if self.factor is None else self.factor.nbytes)

    @staticmethod
    def _scaled(centred: Doubles, factor: Doubles) -> Doubles:
        return centred * factor if factor.ndim == 1 else centred @ factor


def transform(how: Standardization, found: Statistics) -> Transform:
    """The standardisation by these statistics."""
    return next(each_transform([how], found))


def each_transform(hows: Iterable[Standardization], found: Statistics) -> Iterator[Transform]:
    """Several standardisations by the same statistics, one after another; the covariance is decomposed once."""
    spectrum = None
    for how in hows:
        if how.kind == "none":
            yield Transform(np.zeros_like(found.mean))
        elif how.kind == "center":
            yield Transform(found.mean)
        elif how.kind == "within":
            assert how.within is not None
            yield Transform(found.mean, how.within.factors[found.layer])
        elif how.kind == "zscore":
            spread = np.sqrt(found.variance)
            yield Transform(found.mean, np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0))
        else:
            assert found.covariance is not None
            spectrum = spectrum or np.linalg.eigh(found.covariance)
            yield Transform(found.mean, _inverse_root(found.covariance, how.shrinkage, *spectrum))


def _inverse_root(covariance: Doubles, shrinkage: float, values: Doubles, vectors: Doubles) -> Doubles:
    root = shrunk_inverse_root(shrinkage, np.trace(covariance) / len(covariance), values, vectors)
    varies = np.diagonal(covariance) > 0
    return root * varies * varies[:, None]


def shrunk_inverse_root(shrinkage: float, level: float, values: Doubles, vectors: Doubles) -> Doubles:
    """((1 - s) Σ + s · level · I)^(-1/2) [p, p] of Σ's eigenvalues and -vectors, symmetric; 0 in directions that are dropped."""
    values = (1 - shrinkage) * values.clip(0.0) + shrinkage * level
    kept = values > RANK_TOL**2 * values[-1]
    roots = np.divide(1.0, np.sqrt(values), out=np.zeros_like(values), where=kept)
    root: Doubles = (vectors * roots) @ vectors.T
    return root


@dataclass(frozen=True)
class StandardizedView(View):
    """A view whose rows come out standardised; its store is the one on disk."""

    transforms: Mapping[str, Transform] = field(default_factory=dict)

    def read(self, layer: str, rows: RowIndex | None = None) -> Floats:
        """Rows [n, width] of a layer, standardised; otherwise as those of any view."""
        return self.transforms[layer](super().read(layer, rows))


class Standardizer:
    """Standardised forms of some views, by their own statistics or by those of other stores, one per view.

    Every layer's statistics are streamed once, whatever is made of them. Anchored forms come from `anchors`.
    """

    def __init__(
        self,
        views: Sequence[View],
        sources: Sequence[View] | None = None,
        whitens: bool = True,
        anchors: Anchors | None = None,
    ) -> None:
        self.raw = views
        self.sources = views if sources is None else sources
        self.whitens = whitens  # whether covariances will be asked for
        self.anchors = anchors or Anchors(views)
        self._found: dict[tuple[int, str], Statistics] = {}
        self._warned: set[int] = set()

    def check(self, layers: Sequence[Sequence[str]]) -> None:
        """Refuse sources that do not fit the views.

        Raises:
            UsageError: there is not one source for each view.
            MismatchError: a source lacks a layer, or has it in another width.
        """
        if len(self.sources) != len(self.raw):
            raise UsageError(
                f"--standardize-from takes one store for each of the {len(self.raw)} stores, in their order; "
                f"{len(self.sources)} given"
            )
        problems: list[ContraSimError] = []
        for view, source, names in zip(self.raw, self.sources, layers, strict=True):
            purpose = f"standardise that of {quoted(view.store.path)} by"
            problems += misfits(view.store, source.store, names, purpose)
        raise_all(problems)

    def part(self, chosen: Sequence[int]) -> "Standardizer":
        """The standardiser of some of the views alone."""
        sources = [self.sources[v] for v in chosen]
        return Standardizer([self.raw[v] for v in chosen], sources, self.whitens, self.anchors.part(chosen))

    def transform(self, v: int, layer: str, how: RowsAs) -> Transform | Anchored:
        """How rows of one layer of one view are standardised, or anchored."""
        if isinstance(how, Anchoring):
            return self.anchors.anchored(v, layer, how)
        return self._transform(v, layer, how.of(layer))

    def _transform(self, v: int, layer: str, how: Standardization) -> Transform:
        found = self.statistics(v, layer)
        if how.kind == "whiten":
            self._warn_few(v, layer, found)
        return transform(how, found)

    def statistics(self, v: int, layer: str) -> Statistics:
        """The statistics that one layer of one view is standardised by."""
        if (v, layer) not in self._found:
            self._found[v, layer] = statistics(self.sources[v], layer, self.whitens)
        return self._found[v, layer]

    def views(
        self, how: RowsAs, layers: Sequence[Sequence[str]], budget: int, progress: Progress = silent
    ) -> list[View]:
        """All views with these layers standardised or anchored; the views themselves where nothing is to be done.

        Raises:
            InputError: the maps do not fit the budget.
        """
        if isinstance(how, Anchoring):
            return self.anchors.anchored_views(how, layers, budget, progress)
        if not how:
            return list(self.raw)
        made = self.transforms(how, layers, budget, progress)
        return [
            StandardizedView(view.store, view.rows, {name: made[v, name] for name in names})
            for v, (view, names) in enumerate(zip(self.raw, layers, strict=True))
        ]

    def transforms(
        self, how: Standardization, layers: Sequence[Sequence[str]], budget: int, progress: Progress = silent
    ) -> dict[tuple[int, str], Transform]:
        """How these layers are standardised, by view and name; empty where nothing is to be done.

        Raises:
            InputError: the maps do not fit the budget.
        """
        if not how:
            return {}
        self.check_memory(how.kinds, layers, budget)
        made = {}
        with progress("standardising", sum(map(len, layers)), "layers") as advance:
            for v, names in enumerate(layers):
                for name in names:
                    made[v, name] = self._transform(v, name, how.of(name))
                    advance(1)
        return made

    def forget(self) -> None:
        """Let go of all statistics, which later calls would stream anew."""
        self._found.clear()
        self.anchors.forget()

    def check_memory(self, kinds: Iterable[str], layers: Sequence[Sequence[str]], budget: int) -> None:
        """Refuse layers whose covariances and maps do not fit the budget; `auto` may come to whitening.

        Raises:
            InputError: they do not.
        """
        widths = [view.store.layer(n).width for view, names in zip(self.raw, layers, strict=True) for n in names]
        demanding = [kind for kind in ("auto", *SHRUNK) if kind in kinds]
        need = 16 * sum(width**2 for width in widths) if demanding else 0
        if need > budget:
            raise InputError(
                f"--standardize {demanding[0]}: covariances and maps of {len(widths)} layers take {need / 2**30:.2f} GiB, --memory "
                f"allows {budget / 2**30:.2f}; raise it, select fewer layers, or give --standardize zscore"
            )

    def _warn_few(self, v: int, layer: str, found: Statistics) -> None:
        width = len(found.mean)
        if found.n_rows >= ROWS_PER_NEURON * width or v in self._warned:
            return
        self._warned.add(v)
        log.warning(
            "%s: layer %s: whitened by the statistics of %d rows of %d neurons, fewer than %d rows per neuron; give a larger "
            "store with --standardize-from, or raise --shrinkage",
            quoted(self.sources[v].store.path),
            quoted(layer),
            found.n_rows,
            width,
            ROWS_PER_NEURON,
        )


def plain(how: RowsAs) -> dict[str, Any]:
    """How rows are taken, for JSON."""
    if isinstance(how, Anchoring):
        return {
            "kind": how.kind,
            "anchors": len(how.ids),
            "components": how.components,
            "features": list(how.features),
        }
    way: dict[str, Any] = {"kind": how.kind}
    way |= {"shrinkage": how.shrinkage} if how.kind in SHRUNK else {}
    return way | ({"layers": {name: plain(own) for name, own in how.by_layer}} if how.by_layer else {})
