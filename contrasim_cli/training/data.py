"""What is trained on: views, their layers in matching order, and what is done to their rows first.

Of anchored rows there are also blended copies of models, by which there are more of them than there are stores. A copy is two
models side by side, in random proportions: how its rows lie among each other is a mixture of how they do in either. Rotated
copies would be no use, as they have the same anchored rows; nor did models whose neurons were scaled, or some of them cut out,
teach much of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from contrasim_cli import seeds
from contrasim_cli.anchors import Anchored, Anchors
from contrasim_cli.encoder import Config
from contrasim_cli.errors import MismatchError, UsageError
from contrasim_cli.names import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import Layer, Store, View
from contrasim_cli.store.beside import side_by_side
from contrasim_cli.store.blocks import Floats
from contrasim_cli.store.select_layers import EMBEDDINGS, matching
from contrasim_cli.transforms import Transform

LEAST_SHARE = 0.2  # of a model's variance in a copy


@dataclass(frozen=True)
class Item:
    """One layer of one view, as rows are kept."""

    view: int
    layer: int
    name: str
    width: int
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Data:
    """The views to train on and, of each, its layers in matching order; `transforms`, by view and name, where there are any.

    Of several views of the same stores, which differ in how they are transformed, the first `n_stores` are one per store.
    """

    views: Sequence[View]
    layers: Sequence[Sequence[str]]
    transforms: Mapping[tuple[int, str], Transform | Anchored] = field(default_factory=dict)
    n_stores: int | None = None

    @property
    def n_rows(self) -> int:
        """Rows of every view."""
        return self.views[0].n_rows

    @property
    def n_layers(self) -> int:
        """Layers of every view."""
        return len(self.layers[0])

    @property
    def items(self) -> list[Item]:
        """Every layer of every view, views first."""
        found = []
        for v, (view, names) in enumerate(zip(self.views, self.layers, strict=True)):
            for k, name in enumerate(names):
                layer = view.store.layer(name)
                made = self.transforms.get((v, name))
                if isinstance(made, Anchored):
                    found.append(Item(v, k, name, made.width, np.dtype(np.float16)))
                else:
                    found.append(Item(v, k, name, layer.width, kept_dtype(layer)))
        return found

    def formed(self, v: int, name: str, block: Floats) -> Floats:
        """Rows [n, width] of a layer of a view as they are trained on: standardised, or described by anchors."""
        transform = self.transforms.get((v, name))
        return transform(block) if transform else block

    @property
    def view_widths(self) -> tuple[tuple[int, ...], ...]:
        """The widths that occur in each view, smallest first."""
        pairs = zip(self.views, self.layers, strict=True)
        return tuple(tuple(sorted({view.store.layer(name).width for name in names})) for view, names in pairs)

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths that occur, smallest first."""
        return tuple(sorted({width for widths in self.view_widths for width in widths}))

    @property
    def row_bytes(self) -> int:
        """Size of one row of all layers of all views in the types they are kept in."""
        return sum(item.width * item.dtype.itemsize for item in self.items)

    @property
    def bytes_in_memory(self) -> int:
        """Size of all rows in the types they are kept in."""
        return self.n_rows * self.row_bytes

    @property
    def transform_bytes(self) -> int:
        """Size of what standardises the rows, or describes them by anchors."""
        return sum(transform.nbytes for transform in self.transforms.values())


def kept_dtype(layer: Layer) -> np.dtype[Any]:
    """A type no wider than float32; float16 stays float16, which halves the memory."""
    return np.dtype(np.float16 if layer.dtype == np.float16 else np.float32)


def check_data(data: Data, task: str, per_view: bool = False) -> None:
    """Refuse views that do not fit the task.

    Raises:
        UsageError: too few or too many stores, or views that `per_view` could not tell apart later.
        MismatchError: the views differ in their number of layers.
    """
    if task == "pairs" and len(data.views) < 2:
        raise UsageError("--task pairs trains on two or more stores (one per view), 1 given")
    if task == "layers" and len(data.views) < 2:
        raise UsageError("--task layers trains on two or more stores (one per model), 1 given")
    first = data.views[0].store
    for view, names in zip(data.views, data.layers, strict=True):
        if len(names) != data.n_layers:
            remedy = (
                _same_depth(first, data.layers[0], view.store, names)
                if task == "pairs"
                else "of every store with --layers"
            )
            raise MismatchError(
                f"{quoted(view.store.path)}: {len(names)} layers are selected where {quoted(first.path)} has {data.n_layers}"
                f"{_left_out((first, data.layers[0]), (view.store, names))}; select as many {remedy}"
            )
    if task == "layers" and data.n_layers < 2:
        raise UsageError("--task layers needs two or more layers: other layers are the negatives")
    if per_view and len({view.store.stem for view in data.views}) < len(data.views):
        which = "both" if len(data.views) == 2 else "two"
        raise UsageError(
            f"--encoder-per-view recognises views by their file names, and {which} are {quoted(_twice(data))}; rename one"
        )
    if data.n_rows < 2:
        raise MismatchError(f"{quoted(first.path)}: training needs at least 2 rows, found {data.n_rows}")


def _left_out(*sides: tuple[Store, Sequence[str]]) -> str:
    """The words that say that all layers of some store but the embeddings are selected."""
    without = any(set(store.layers) - set(names) == {EMBEDDINGS} for store, names in sides)
    return f" ({EMBEDDINGS}, the embeddings, is left out)" if without else ""


def _same_depth(a: Store, layers_a: Sequence[str], b: Store, layers_b: Sequence[str]) -> str:
    """How to select as many layers on both sides, with the last ones as an example where ranges select them."""
    count = min(len(layers_a), len(layers_b))
    options = []
    for option, store, names in (("--layers-a", a, layers_a), ("--layers-b", b, layers_b)):
        known, last = list(store.layers), list(names[len(names) - count :])
        begin, end = known.index(last[0]), known.index(last[-1])
        pattern = f"{begin}-{end}" if begin < end else str(end)
        if matching(known, [pattern]) == last:
            options.append(f"{option} {pattern}")
    example = f", such as {' '.join(options)}" if len(options) == 2 else ""
    return f"on both sides with --layers-a and --layers-b{example}"


def _twice(data: Data) -> str:
    """A name that two views have."""
    names = [view.store.stem for view in data.views]
    return next(name for name in names if names.count(name) > 1)


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
                beside = {name: (name, there) for name, there in zip(names, data.layers[u], strict=True)}
                views.append(side_by_side([data.views[v], data.views[u]], beside))
                for name in names:
                    blend = anchors.blended((v, name), (u, beside[name][1]), share, anchoring)
                    transforms[copy * count + v, name] = blend
                    advance(1)
    layers = [*data.layers] * (1 + config.copies)
    return replace(data, views=views, layers=layers, transforms=transforms, n_stores=count)


def _partner(v: int, count: int, stream: tuple[int, ...]) -> tuple[int, float]:
    """Which model lies beside a model, and the share of the first in the variance of both."""
    rng = seeds.stream(*stream)
    return (v + int(rng.integers(1, count))) % count, float(rng.uniform(LEAST_SHARE, 1 - LEAST_SHARE))
