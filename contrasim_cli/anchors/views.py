"""Views of stores whose rows come out anchored, computed as they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from contrasim_cli.anchors.anchoring import Anchoring, locate, strange_anchors
from contrasim_cli.anchors.features import RIDGES, Anchored, Geometry, described, spread
from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.neuron_moments import Moments, moments
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import Layer, Store, View
from contrasim_cli.store.align import misfits
from contrasim_cli.store.blocks import Floats, RowIndex
from contrasim_cli.store.store import Promised


@dataclass(frozen=True)
class AnchoredView(View):
    """A view whose rows come out anchored; its store says how wide that is, and is otherwise the one on disk."""

    raw: Store = field(kw_only=True)
    by_layer: Mapping[str, Anchored] = field(kw_only=True)

    def read(self, layer: str, rows: RowIndex | None = None) -> Floats:
        """Anchored rows [n, features] of a layer; otherwise as those of any view."""
        return self.by_layer[layer](View(self.raw, self.rows).read(layer, rows))


def anchored_view(view: View, by_layer: Mapping[str, Anchored]) -> AnchoredView:
    """The view with these layers' rows anchored."""
    layers = {
        name: Layer(name, Promised((view.store.n_rows, made.width), np.dtype(np.float32)))
        for name, made in by_layer.items()
    }
    return AnchoredView(replace(view.store, layers=layers), view.rows, raw=view.store, by_layer=by_layer)


class Anchors:
    """The anchor rows of some views: in the views' own stores, or in others, one per view; `of` has those of certain anchors."""

    def __init__(
        self,
        views: Sequence[View],
        sources: Sequence[Store] = (),
        of: Mapping[Anchoring, Sequence[Store]] | None = None,
    ) -> None:
        self.views = views
        self._given = bool(sources)
        self._sources = list(sources) or [view.store for view in views]
        self._of = of or {}
        self._located: dict[tuple[int, Anchoring], RowIndex] = {}
        self._found: dict[tuple[int, str, Anchoring], Anchored] = {}

    def check(self, anchoring: Anchoring, layers: Sequence[Sequence[str]]) -> None:
        """Refuse stores that do not hold the anchors.

        Raises:
            UsageError: there is not one anchor store for each view.
            MismatchError: anchors or layers are missing, or a layer has another width there.
        """
        if len(self._sources) != len(self.views):
            raise UsageError(
                f"--anchor-store takes one store for each of the {len(self.views)} stores, in their order; "
                f"{len(self._sources)} given"
            )
        problems: list[ContraSimError] = []
        for v, (view, names) in enumerate(zip(self.views, layers, strict=True)):
            purpose = f"take the anchors of {quoted(view.store.path)} from"
            remedy = "; give the same model's anchors"
            problems += misfits(view.store, self._store(v, anchoring), names, purpose, remedy)
            try:
                self.rows(v, anchoring)
            except MismatchError as problem:
                problems.append(problem)
        if self._given and anchoring not in self._of and not problems:
            problems += self._strange(anchoring, layers)
        raise_all(problems)

    def _strange(self, anchoring: Anchoring, layers: Sequence[Sequence[str]]) -> list[MismatchError]:
        """Why the anchors given are not of the views' stores."""
        return strange_anchors(
            [view.store for view in self.views],
            self._sources,
            lambda v: [moments(self.views[v], name) for name in layers[v]],
            lambda v: [Moments.of(np.concatenate(self._anchors(v, name, anchoring))) for name in layers[v]],
        )

    def part(self, chosen: Sequence[int]) -> "Anchors":
        """The anchored views of some of the views alone."""
        of = {anchoring: [stores[v] for v in chosen] for anchoring, stores in self._of.items()}
        return Anchors([self.views[v] for v in chosen], [self._sources[v] for v in chosen], of)

    def _store(self, v: int, anchoring: Anchoring) -> Store:
        return self._of.get(anchoring, self._sources)[v]

    def rows(self, v: int, anchoring: Anchoring) -> RowIndex:
        """[anchors] where the anchors of a view lie in their store."""
        if (v, anchoring) not in self._located:
            self._located[v, anchoring] = locate(self._store(v, anchoring), anchoring)
        return self._located[v, anchoring]

    def anchored(self, v: int, layer: str, anchoring: Anchoring) -> Anchored:
        """How rows of one layer of one view are described.

        Raises:
            InputError: an anchor row holds a bad value, or all are the same.
        """
        key = (v, layer, anchoring)
        if key not in self._found:
            try:
                geometries = [Geometry.of(rows, anchoring.components) for rows in self._anchors(v, layer, anchoring)]
            except InputError as problem:
                path = self._store(v, anchoring).path
                raise InputError(f"{quoted(path)}: layer {quoted(layer)}: {problem}") from problem
            self._found[key] = described(geometries, anchoring.features)
        return self._found[key]

    def blended(self, one: tuple[int, str], other: tuple[int, str], share: float, anchoring: Anchoring) -> Anchored:
        """How rows of two layers (view, name) side by side are described, of whose variance `share` is the first's.

        Neither layer's anchors are all the same; kept by nobody.
        """
        geometries = []
        for sides in zip(self._anchors(*one, anchoring), self._anchors(*other, anchoring), strict=True):
            parts = zip(sides, (share, 1 - share), strict=True)
            factors = [np.full(rows.shape[1], part**0.5 / spread(rows)) for rows, part in parts]
            together = np.concatenate(sides, axis=1)
            geometries.append(Geometry.of(together, anchoring.components, np.concatenate(factors)))
        return described(geometries, anchoring.features)

    def _anchors(self, v: int, layer: str, anchoring: Anchoring) -> list[Floats]:
        """[anchors, width] of one layer of one view, those of each member."""
        rows = View(self._store(v, anchoring), self.rows(v, anchoring)).read(layer)
        return np.split(rows, anchoring.members)

    def anchored_views(
        self, anchoring: Anchoring, layers: Sequence[Sequence[str]], budget: int, progress: Progress = silent
    ) -> list[View]:
        """All views with these layers' rows anchored.

        Raises:
            InputError: anchors and maps do not fit the budget, or an anchor row holds a bad value.
        """
        self._check_memory(anchoring, layers, budget)
        made: list[View] = []
        with progress("anchoring", sum(map(len, layers)), "layers") as advance:
            for v, (view, names) in enumerate(zip(self.views, layers, strict=True)):
                by_layer = {}
                for name in names:
                    by_layer[name] = self.anchored(v, name, anchoring)
                    advance(1)
                made.append(anchored_view(view, by_layer))
        return made

    def forget(self) -> None:
        """Let go of all geometries, which later calls would read anew."""
        self._found.clear()

    def _check_memory(self, anchoring: Anchoring, layers: Sequence[Sequence[str]], budget: int) -> None:
        count = len(anchoring.ids)
        widths = [view.store.layer(n).width for view, names in zip(self.views, layers, strict=True) for n in names]
        matrices = 8 * count**2 // anchoring.members * (1 + len(RIDGES))
        need = sum(4 * count * width + matrices for width in widths)
        if need > budget:
            raise InputError(
                f"anchors of {len(widths)} layers take {need / 2**30:.2f} GiB, --memory allows {budget / 2**30:.2f}; raise it "
                "or select fewer layers"
            )
