"""How figures look: what their options ask for. Light, so that options are known without matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

DPI = 200
LayerLabels = Literal["name", "depth", "index"]


@dataclass(frozen=True)
class Look:
    """What a figure's options ask for.

    `scale`: colours of a measure's panels are `shared`, each panel's `own`, or between two values. `size`: inches. `style`: a style
    sheet of matplotlib's. `layers`: the names of all layers of every store, by which depths and indices of layers are told.
    """

    title: str = ""
    labels: LayerLabels = "name"
    cmap: str | None = None
    scale: Literal["shared", "own"] | tuple[float, float] = "shared"
    size: tuple[float, float] | None = None
    dpi: int = DPI
    style: Path | None = None
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
