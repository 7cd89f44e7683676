"""Options of figures, and the names and titles that all outputs share."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from contrasim_cli.errors import UsageError
from contrasim_cli.names import distinct_names, listed, quoted
from contrasim_cli.report.look import DPI, LayerLabels, Look

MOST_INCHES, MOST_DPI = 100.0, 2400


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Titles and names of results, and how figures look."""

    PANEL: ClassVar = "Titles and figures"
    title: Annotated[str | None, typer.Option("--title", help="Title of figures and of the page.")] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="STORE=NAME", help="Name of a store in all outputs; repeat for several."),
    ] = None
    layer_labels: Annotated[
        LayerLabels, typer.Option("--layer-labels", help="Layers in figures by name, depth in %, or index.")
    ] = "name"
    cmap: Annotated[
        str | None, typer.Option("--cmap", help="Colours of heat maps, a colormap of matplotlib's; default: viridis.")
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            metavar="LOW,HIGH|shared|own",
            help="Colours of heat maps: from LOW to HIGH, shared by the panels of a measure (the default), or of each panel's own.",
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WIDTH,HEIGHT", help="Size of figures in inches; default: as needed."),
    ] = None
    dpi: Annotated[int, typer.Option("--dpi", min=10, max=MOST_DPI, help="Dots per inch of .png figures.")] = DPI
    style: Annotated[
        Path | None, typer.Option("--style", help="Style sheet of matplotlib's (.mplstyle) for figures.")
    ] = None
    within: Annotated[
        bool, typer.Option("--self", help="Heat maps of every store against itself too, beside those of --plot.")
    ] = False

    def check(self, drawn: bool, paged: bool) -> None:
        """Refuse values that mean nothing, and options of figures where none is `drawn` (of pages, where none is written).

        Raises:
            UsageError: there are such.
            InputError: the style sheet cannot be read.
        """
        self.look()
        defaults = {field.name: field.default for field in fields(self)}
        idle = [name for name in FLAGS if getattr(self, name) != defaults[name]]
        if idle and not drawn:
            raise UsageError(f"{FLAGS[idle[0]]} is about figures; give --plot FILE with it")
        if self.title and not drawn and not paged:
            raise UsageError("--title is that of a figure or a page; give --plot FILE or --report FILE with it")
        if drawn and (self.cmap is not None or self.style is not None):
            from contrasim_cli.plots import page

            page.check(self.look())

    def look(self) -> Look:
        """What figures look like."""
        return Look(self.title or "", self.layer_labels, self.cmap, self._scale(), self._size(), self.dpi, self.style)

    def _scale(self) -> Literal["shared", "own"] | tuple[float, float]:
        if self.scale is None or self.scale == "shared":
            return "shared"
        if self.scale == "own":
            return "own"
        low, high = _two_numbers(self.scale, "--scale", "LOW,HIGH as 0,1, shared or own")
        if not low < high:
            raise UsageError(f"--scale {self.scale}: the first value is the lower one")
        return low, high

    def _size(self) -> tuple[float, float] | None:
        if self.size is None:
            return None
        width, height = _two_numbers(self.size, "--size", "WIDTH,HEIGHT in inches as 7,4.5")
        if not (0.5 <= width <= MOST_INCHES and 0.5 <= height <= MOST_INCHES):
            raise UsageError(f"--size {self.size}: inches are from 0.5 to {MOST_INCHES:g}")
        return width, height

    def check_labels(self, paths: Sequence[Path]) -> None:
        """Refuse labels of stores that are not there, before any work is done.

        Raises:
            UsageError: there are such.
        """
        for label, store, _ in self._labels():
            if not any(store in _called(path) for path in paths):
                known = listed([quoted(path) for path in paths])
                raise UsageError(f"--label {quoted(label)}: {quoted(store)} is none of the stores; they are {known}")

    def names(self, paths: Sequence[Path]) -> list[str]:
        """Names of stores in results: those given by --label, else by their files.

        Raises:
            UsageError: a label is of several stores, or two stores would have one name.
        """
        names = distinct_names(paths)
        for label, store, name in self._labels():
            places = [k for k, path in enumerate(paths) if store in _called(path)]
            if len(places) > 1:
                raise UsageError(f"--label {quoted(label)}: {quoted(store)} is more than one store; give its path")
            for place in places:
                names[place] = quoted(name)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"--label: two stores would be called {twice}")
        return names

    def _labels(self) -> Iterator[tuple[str, str, str]]:
        """Labels as they were given, their stores, and their names."""
        for label in self.label or ():
            store, _, name = label.partition("=")
            if not store or not name.strip():
                raise UsageError(f"--label {quoted(label)}: write it as STORE=NAME")
            yield label, store, name.strip()


def _called(path: Path) -> tuple[str, ...]:
    """What a label may call a store."""
    return str(path), path.name, path.stem


# what is about figures alone, by the names of the fields
FLAGS = {
    "layer_labels": "--layer-labels",
    "cmap": "--cmap",
    "scale": "--scale",
    "size": "--size",
    "dpi": "--dpi",
    "style": "--style",
    "within": "--self",
}


def _two_numbers(text: str, option: str, expected: str) -> tuple[float, float]:
    parts = re.split(r"\s*[,x]\s*", text.strip())
    try:
        first, second = map(float, parts)
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: expected {expected}") from error
    if not (math.isfinite(first) and math.isfinite(second)):
        raise UsageError(f"{option} {quoted(text)}: expected {expected}")
    return first, second
