"""What all figures share: sizes of a printed page, letters, colours that differ in grey too, and how a file is written.

A figure is as wide as it is printed: on a page of PAGE inches letters keep their size, none of which is below SMALL points.
"""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from contrasim_cli.names import quoted
from contrasim_cli.output_files import write_atomic

log = logging.getLogger(__name__)

PAGE = 7.1  # inches between the margins of a paper with two columns
SMALL, NORMAL, LARGE = 7, 8, 9  # points
BETWEEN_WORDS = "._-/ "
LETTER = 0.065  # inches that a letter of NORMAL points takes, on average

# Okabe and Ito (2008), told apart by colour-blind readers; in the order in which neighbours differ in grey too
COLOURS = ("#000000", "#D55E00", "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7")
MARKERS = "osD^vP*X<>"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++")

_STYLE = {
    "font.size": NORMAL,
    "axes.titlesize": LARGE,
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": NORMAL,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",  # letters stay letters, to be searched and edited
    "pdf.fonttype": 42,
    "svg.hashsalt": "contrasim",
    "text.parse_math": False,  # names are shown as they are
}
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def write(make: Callable[[], Figure], path: Path, force: bool) -> None:
    """Draw a figure and write it, in the format of the suffix, whole or not at all; the same figure is the same bytes."""
    form = path.suffix[1:].lower()
    buffer = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mpl.rcdefaults()  # whatever a reader's own settings are
        mpl.rcParams.update(_STYLE)
        make().savefig(buffer, format=form, dpi=200, bbox_inches="tight", metadata=_UNDATED[form])
    if any("missing from font" in str(warning.message) for warning in caught):
        log.warning("%s: some letters of the names are in no font of matplotlib's; .svg keeps them", quoted(path))
    write_atomic(path, buffer.getvalue(), force)


def style(k: int) -> dict[str, Any]:
    """How the k-th line of a panel is drawn."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "linestyle": LINES[k % len(LINES)],
        "linewidth": 1.2,
        "markersize": 4,
    }


def bar_style(k: int) -> dict[str, Any]:
    """How the k-th kind of bars is filled: light and dark in turn, and hatched differently."""
    fills = ("#56B4E9", "#D55E00", "#F0E442", "#0072B2", "#CC79A7", "#009E73")
    return {
        "facecolor": fills[k % len(fills)],
        "hatch": HATCHES[k % len(HATCHES)],
        "edgecolor": "black",
        "linewidth": 0.6,
    }


def shortened(name: str, letters: int) -> str:
    """A name of no more letters than these, all printable; what it begins and ends with is kept."""
    name = "\n".join(map(quoted, name.split("\n")))
    head = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:head]}…{name[len(name) - (letters - 1 - head) :]}"


def distinct(names: Sequence[str], letters: int) -> list[str]:
    """Names of no more letters than these; where some are longer, what all begin or end with is left out first."""
    names = [quoted(name) for name in names]
    if max(map(len, names), default=0) <= letters or len(set(names)) < 2:
        return [shortened(name, letters) for name in names]
    heads = [k + 1 for k, letter in enumerate(_shared(names)) if letter in BETWEEN_WORDS]
    tails = [_without(names, head) for head in (*heads[-2:], 0)]  # the last word that all share is kept where it fits
    best = next((c for c in tails if max(map(len, c)) <= letters), tails[-2 if heads else -1])
    return [shortened(name, letters) for name in best]


def _shared(names: Sequence[str]) -> str:
    """What all names begin with."""
    alike = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    return names[0][: [*alike, False].index(False)]


def _without(names: Sequence[str], head: int) -> list[str]:
    """Names without so many letters at their beginning, and without the words that all end with."""
    rests = [name[head:] for name in names]
    backwards = _shared([rest[::-1] for rest in rests])
    tail = max((k + 1 for k, letter in enumerate(backwards) if letter in BETWEEN_WORDS), default=0)
    return [f"{'…' * (head > 0)}{rest[: len(rest) - tail]}{'…' * (tail > 0)}" for rest in rests]


def inches_of(names: Sequence[str]) -> float:
    """How long the longest of some names is, as the label of a tick."""
    return 0.06 * max(map(len, names), default=0)


def columns_of(names: Sequence[str], width: float) -> int:
    """In how many columns a legend of these names fits."""
    longest = max(map(len, names), default=1)
    return max(1, min(len(names), int(width / (LETTER * longest + 0.55))))


def chance(ax: Any, value: float) -> Any:
    """The line at which nothing is known, for the legend."""
    return ax.axhline(value, color="0.35", linewidth=0.9, linestyle=(0, (1, 2)))


def value_text(value: float) -> str:
    """Two decimals where they say something."""
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
    return "0.00" if text == "-0.00" else text


def legend_height(names: Sequence[str], width: float) -> float:
    """Inches that a legend of these names takes."""
    return 0.18 * -(-len(names) // columns_of(names, width)) + 0.1


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], width: float) -> None:
    """A legend beneath all panels."""
    room = int(width / LETTER) - 8
    if handles:
        figure.legend(
            handles,
            # matplotlib leaves out names that begin with an underscore
            [f" {name}" if name.startswith("_") else name for name in (shortened(n, room) for n in names)],
            loc="outside lower center",
            ncols=columns_of(names, width),
        )
