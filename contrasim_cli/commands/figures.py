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
from contrasim_cli.report.look import DPI, LayerLabels, LearnedValues, Look

MOST_INCHES, MOST_DPI = 100.0, 2400


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Titles and names of results, and how figures look."""

    PANEL: ClassVar = "Titles and figures"
    title: Annotated[
        str | None, typer.Option("--title", help="Title of figures, of the page, and of .md and .tex tables.")
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="STORE=NAME", help="Name of a store in all outputs; repeat for several."),
    ] = None
    layer_labels: Annotated[
        LayerLabels,
        typer.Option(
            "--layer-labels", help="Layers in figures and in .md and .tex tables by name, depth in %, or index."
        ),
    ] = "name"
    cmap: Annotated[
        str | None, typer.Option("--cmap", help="Colours of heat maps: a matplotlib colormap; default: viridis.")
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            metavar="LOW,HIGH|shared|own",
            help="Colour scale of heat maps: from LOW to HIGH, shared by the panels of a measure (default), or separate for each.",
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WIDTH[,HEIGHT]",
            help="Size of figures in inches; HEIGHT may be omitted; default: as needed.",
        ),
    ] = None
    columns: Annotated[
        int | None,
        typer.Option(
            "--columns", min=1, help="Heat maps beside each other in a figure; default: as many as have room."
        ),
    ] = None
    dpi: Annotated[int, typer.Option("--dpi", min=10, max=MOST_DPI, help="Dots per inch of .png figures.")] = DPI
    style: Annotated[Path | None, typer.Option("--style", help="Matplotlib style sheet (.mplstyle) for figures.")] = (
        None
    )
    legend: Annotated[bool, typer.Option("--legend/--no-legend", help="Explain marks and lines below figures.")] = True
    within: Annotated[
        bool, typer.Option("--self", help="With --plot, also draw heat maps of every store against itself.")
    ] = False
    values: LearnedValues = "calibrated"

    def check(self, drawn: bool, titled: bool, for_papers: bool = False) -> None:
        """Refuse values that mean nothing, and options of figures where none is `drawn`.

        `titled`: a page or tables have a title. `for_papers`: tables are written that show layers by their labels.

        Raises:
            UsageError: there are such.
            InputError: the style sheet cannot be read.
        """
        self.look()
        defaults = {field.name: field.default for field in fields(self)}
        idle = [name for name in FLAGS if getattr(self, name) != defaults[name]]
        idle = [name for name in idle if name != "layer_labels" or not for_papers]
        if idle and not drawn:
            raise UsageError(f"{FLAGS[idle[0]]} is an option of figures; give --plot FILE with it")
        if self.title and not drawn and not titled:
            raise UsageError(
                "--title is that of a figure, a page, or a table for papers; give --plot FILE, --report FILE, or -o FILE.tex or "
                ".md with it"
            )
        if drawn and (self.cmap is not None or self.style is not None):
            from contrasim_cli.plots import page

            page.check(self.look())

    def look(self) -> Look:
        """What figures look like."""
        title, scale, size = self.title or "", self._scale(), self._size()
        asked = self.dpi, self.style, self.legend, self.values, self.columns
        return Look(title, self.layer_labels, self.cmap, scale, size, *asked)

    def _scale(self) -> Literal["shared", "own"] | tuple[float, float]:
        if self.scale is None or self.scale == "shared":
            return "shared"
        if self.scale == "own":
            return "own"
        low, high = _numbers(self.scale, "--scale", "LOW,HIGH as 0,1, shared or own")
        if high is None or not low < high:
            raise UsageError(f"--scale {self.scale}: the first value is the lower one")
        return low, high

    def _size(self) -> tuple[float, float | None] | None:
        if self.size is None:
            return None
        width, height = _numbers(self.size, "--size", "WIDTH or WIDTH,HEIGHT in inches as 3.3 or 7,4.5", 1)
        if not all(0.5 <= inches <= MOST_INCHES for inches in (width, height) if inches is not None):
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
                raise UsageError(f"--label {quoted(label)}: {quoted(store)} is not one of the stores; they are {known}")

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
    "columns": "--columns",
    "dpi": "--dpi",
    "style": "--style",
    "legend": "--no-legend",
    "within": "--self",
    "values": "--values",
}


def _numbers(text: str, option: str, expected: str, fewest: int = 2) -> tuple[float, float | None]:
    """Two numbers; where one is enough, the second may be None."""
    try:
        numbers = [float(part) for part in re.split(r"\s*[,x]\s*", text.strip())]
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: expected {expected}") from error
    if not (fewest <= len(numbers) <= 2 and all(map(math.isfinite, numbers))):
        raise UsageError(f"{option} {quoted(text)}: expected {expected}")
    return numbers[0], numbers[1] if len(numbers) == 2 else None
