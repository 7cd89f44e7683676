"""How figures look: what their options ask for. Light, so that options are known without matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contrasim_cli.names import distinct

DPI = 200
LayerLabels = Literal["name", "depth", "index"]
LearnedValues = Literal["calibrated", "raw"]


@dataclass(frozen=True)
class Look:
    """What a figure's options ask for.

    `scale`: colours of a measure's panels are `shared`, each panel's `own`, or between two values. `size`: width and height in
    inches; without a height, one that suits the panels. `style`: a style sheet of matplotlib's. `legend`: whether to write what
    marks and lines mean. `values`: which scores of learned measures heat maps show; raw ones where some are not calibrated.
    `columns`: how many heat maps stand beside each other, at most; as many as suit the width where it is None. `layers`: the
    names of all layers of every store, by which depths and indices of layers are told.
    """

    title: str = ""
    labels: LayerLabels = "name"
    cmap: str | None = None
    scale: Literal["shared", "own"] | tuple[float, float] = "shared"
    size: tuple[float, float | None] | None = None
    dpi: int = DPI
    style: Path | None = None
    legend: bool = True
    values: LearnedValues = "calibrated"
    columns: int | None = None
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)


def positions(every: Sequence[str], names: Sequence[str]) -> tuple[list[int], int]:
    """The places of layers among all of their store, or among themselves where those are not known; and how many there are."""
    known = every if set(names) <= set(every) else names
    places = {name: k for k, name in enumerate(known)}
    return [places[name] for name in names], len(places)


def depths(every: Sequence[str], names: Sequence[str]) -> list[float]:
    """Where layers lie among all layers of their store, in %: from 0 to 100; the only one lies at the end."""
    places, count = positions(every, names)
    return [100.0 * place / (count - 1) if count > 1 else 100.0 for place in places]


def layer_names(layers: Sequence[str], store: str, look: Look, letters: int) -> list[str]:
    """Layers as they are called beside figures: by name, by their depth in %, or by their place in the store."""
    every = look.layers.get(store, layers)
    if look.labels == "depth":
        return [f"{value:.0f} %" for value in depths(every, layers)]
    if look.labels == "index":
        return [str(place) for place in positions(every, layers)[0]]
    return distinct(layers, letters)
