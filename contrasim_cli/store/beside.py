"""Views of the same examples as one, whose rows are theirs side by side: layers of several models, or repeated measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from contrasim_cli.errors import raise_all
from contrasim_cli.store.align import View, misfits
from contrasim_cli.store.blocks import Floats, RowIndex
from contrasim_cli.store.store import Layer, Promised


@dataclass(frozen=True)
class SideBySide(View):
    """Rows of views side by side; `beside` has the names of a layer in each. The store is the first one's but for the layers."""

    views: Sequence[View] = field(kw_only=True)
    beside: Mapping[str, Sequence[str]] = field(kw_only=True)

    def read(self, layer: str, rows: RowIndex | None = None) -> Floats:
        """Rows [n, the sum of widths] of a layer and those beside it; otherwise as those of any view."""
        names = self.beside[layer]
        return np.concatenate([view.read(name, rows) for view, name in zip(self.views, names, strict=True)], axis=1)


def side_by_side(views: Sequence[View], beside: Mapping[str, Sequence[str]], repeats: int = 1) -> SideBySide:
    """Views as one, by which layer of each lies beside each of the first; of so many measurements where they are that."""
    layers = {}
    for name, names in beside.items():
        parts = [view.store.layer(there) for view, there in zip(views, names, strict=True)]
        shape = views[0].store.n_rows, sum(part.width for part in parts)
        dtype = np.result_type(*(part.read_dtype for part in parts))
        layers[name] = Layer(name, Promised(shape, dtype), repeats=repeats)
    return SideBySide(replace(views[0].store, layers=layers), views[0].rows, views=views, beside=beside)


def repeated(views: Sequence[View], layers: Sequence[str], pairing: str) -> SideBySide:
    """Some layers of the first view, measured once in every view; where widths differ, `pairing` says why they may not.

    Raises:
        MismatchError: a layer has different widths.
    """
    first, *others = (view.store for view in views)
    raise_all([problem for other in others for problem in misfits(first, other, layers, "repeat", pairing)])
    return side_by_side(views, {name: [name] * len(views) for name in layers}, repeats=len(views))
