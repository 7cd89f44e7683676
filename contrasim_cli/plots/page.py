"""What all figures share: sizes of a printed page, letters, colours that differ in grey too, and how a file is written.

A figure is as wide as it is printed: on a page of PAGE inches letters keep their size, none of which is below SMALL points.
"""

import contextlib
import difflib
import io
import logging
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.input_files import said
from contrasim_cli.names import quoted, shortened
from contrasim_cli.output_files import write_atomic
from contrasim_cli.report.look import Look

log = logging.getLogger(__name__)

Paths = Path | Sequence[Path]  # a figure's file, or one per format

PAGE = 7.1  # inches between the margins of a paper with two columns
SMALL, NORMAL, LARGE = 7, 8, 9  # points
NARROW = 5.0  # inches below which two panels of lines or points stand beneath each other
LETTER = 0.065  # inches that a letter of NORMAL points takes, on average

# Okabe and Ito (2008), told apart by colour-blind readers; in the order in which neighbours differ in grey too
COLOURS = ("#000000", "#D55E00", "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7")
MARKERS = "osD^vP*X<>"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
FILLS = ("#56B4E9", "#D55E00", "#F0E442", "#0072B2", "#CC79A7", "#009E73")
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
ELSEWHERE = frozenset(
    {"backend", "backend_fallback", "interactive", "toolbar", "savefig.directory", "savefig.format", "datapath"}
)
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def write(make: Callable[[], Figure], paths: Paths, force: bool, look: Look = Look()) -> None:
    """Draw a figure once and write it to each path, in the format of the suffix; the same figure is the same bytes.

    No file is written before all formats are drawn, and each is written whole or not at all.
    """
    paths = [paths] if isinstance(paths, Path) else paths
    pictures = []
    with mpl.rc_context(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mpl.rcdefaults()  # whatever a reader's own settings are, unless they are named
        mpl.rcParams.update(_STYLE)
        for named in _settings(look):
            mpl.rcParams.update(named)
        figure = make()
        if not look.legend:
            _without_legend(figure)
        if look.title:
            width = (look.size or figure.get_size_inches())[0]
            title = figure.suptitle(_title(look, width), fontsize=mpl.rcParams["axes.titlesize"])
            if figure.get_layout_engine() is None:  # which would find the place
                title.set_y(1 - 0.05 / figure.get_figheight())
        if look.size:
            width, height = look.size
            figure.set_size_inches(width, height or figure.get_figheight())
        box = None if look.size else "tight"
        for path in paths:
            form, buffer = path.suffix[1:].lower(), io.BytesIO()
            figure.savefig(buffer, format=form, dpi=look.dpi, bbox_inches=box, metadata=_UNDATED[form])
            pictures.append(buffer.getvalue())
    if any("missing from font" in str(warning.message) for warning in caught):
        log.warning("%s: some letters of the names are in no font of matplotlib's; .svg keeps them", quoted(paths[0]))
    if any("not applied" in str(warning.message) for warning in caught):
        log.warning("%s: labels do not fit into the size asked for; give a larger --size", quoted(paths[0]))
    for path, picture in zip(paths, pictures, strict=True):
        write_atomic(path, picture, force)


def _title(look: Look, width: float) -> str:
    """The title in lines of a figure's width in inches."""
    return textwrap.fill(quoted(look.title), max(20, int(width / LETTER)))


def title_height(look: Look, width: float) -> float:
    """Inches that the title takes above a figure that leaves room for it."""
    if not look.title:
        return 0.0
    return 0.1 + points(mpl.rcParams["axes.titlesize"]) / 72 * 1.3 * (1 + _title(look, width).count("\n"))


def _without_legend(figure: Figure) -> None:
    """Take away the legend, and the notes beneath."""
    for legend in list(figure.legends):
        legend.remove()
    figure.supxlabel("")


def small() -> Any:
    """The size of the least letters: that of ticks, which a style may set."""
    return mpl.rcParams["xtick.labelsize"]


def points(size: Any) -> float:
    """A size of letters in points, which a style may give as `small`."""
    return float(FontProperties(size=size).get_size_in_points())


def check(look: Look) -> None:
    """Refuse colours and style sheets that are not there.

    Raises:
        UsageError: matplotlib has no such colormap.
        InputError: a style sheet cannot be read, or is none.
    """
    if look.cmap is not None and look.cmap not in mpl.colormaps:
        near = difflib.get_close_matches(look.cmap, list(mpl.colormaps), 3)
        hint = f"did you mean {', '.join(near)}?" if near else "viridis, magma, cividis, RdBu and gray are some"
        raise UsageError(f"--cmap {quoted(look.cmap)}: matplotlib has no such colormap; {hint}")
    _settings(look)


def _settings(look: Look) -> list[dict[str, Any]]:
    """The settings of the files that are named: MATPLOTLIBRC, then --style."""
    named = os.environ.get("MATPLOTLIBRC")
    files = [("MATPLOTLIBRC", Path(mpl.matplotlib_fname()))] if named else []
    files += [("--style", look.style)] if look.style else []
    return [_read(option, path) for option, path in files]


def _read(option: str, path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("error", UserWarning)
            found = mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except OSError as error:
        raise InputError(f"{option} {quoted(path)}: cannot be read: {said(error)}") from error
    except Exception as error:  # matplotlib's are of many kinds
        raise InputError(
            f"{option} {quoted(path)}: is not a style sheet of matplotlib: {quoted(' '.join(str(error).split()))}"
        ) from error
    return {key: value for key, value in found.items() if key not in ELSEWHERE}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """A block in which matplotlib logs nothing: what is wrong with a file is raised."""
    logger = logging.getLogger("matplotlib")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def style(k: int) -> dict[str, Any]:
    """How the k-th line of a panel is drawn."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "linestyle": LINES[k % len(LINES)],
        "linewidth": 1.2,
        "markersize": 4,
    }


def bar_style(measure: int, kind: int) -> dict[str, Any]:
    """How bars are filled: with a colour per measure, light and dark in turn, hatched differently by kind."""
    return {
        "facecolor": FILLS[measure % len(FILLS)],
        "hatch": HATCHES[kind % len(HATCHES)],
        "edgecolor": "black",
        "linewidth": 0.6,
    }


def inches_of(names: Sequence[str]) -> float:
    """How long the longest of some names is, as the label of a tick."""
    return 0.06 * max(map(len, names), default=0)


def columns(panels: int, width: float) -> int:
    """How many of these panels stand side by side in a figure of this width in inches: one or two."""
    return min(panels, 2 if width >= NARROW else 1)


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
