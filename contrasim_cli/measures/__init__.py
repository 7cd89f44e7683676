"""The registry of closed-form measures: a light table, so that names are checked without importing torch.

Every measure compares two aligned matrices X [n, p] and Y [n, q]. A new one is a pair of functions in the file of its
family, one line here, and one row in the property tests.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contrasim_cli.errors import UsageError
from contrasim_cli.files import quoted

if TYPE_CHECKING:
    from contrasim_cli.measures.protocol import Measure


@dataclass(frozen=True)
class Entry:
    """What is known about a measure without loading it."""

    name: str
    family: str
    summary: str
    undefined: str
    higher_is_more_similar: bool = True
    needs_equal_widths: bool = False
    trivial_at_full_rank: bool = False


_ENTRIES = (
    Entry("cka", "cka", "linear centred kernel alignment (Eq. 8)", "a side has no variance"),
    Entry("cca", "cca", "mean canonical correlation (Eq. 5, 6)", "a side has no variance", trivial_at_full_rank=True),
    Entry(
        "svcca",
        "cca",
        "cca of the directions that hold 99 % of the variance",
        "a side has no variance",
        trivial_at_full_rank=True,
    ),
    Entry("pwcca", "cca", "projection-weighted cca (Eq. 7)", "a side has no variance", trivial_at_full_rank=True),
    Entry("dot", "pointwise", "mean dot product of paired rows", "the widths differ", needs_equal_widths=True),
    Entry(
        "norm",
        "pointwise",
        "mean of 1 - distance of paired unit rows (Eq. 9, 10)",
        "a row is zero or the widths differ",
        needs_equal_widths=True,
    ),
)

MEASURES = {entry.name: entry for entry in _ENTRIES}


def check_names(names: Sequence[str]) -> list[str]:
    """The names, each once, if the registry has them all.

    Raises:
        UsageError: a name is unknown; the nearest are offered.
    """
    for name in names:
        if name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(MEASURES)}"
            raise UsageError(f"--measure {quoted(name)} is unknown; {hint}")
    return list(dict.fromkeys(names))


def load(name: str) -> "Measure":
    """The measure of that name, ready to compute."""
    from importlib import import_module

    entry = MEASURES[name]
    module = import_module(f"contrasim_cli.measures.{entry.family}")
    measure: Measure = module.MEASURES[name]
    return measure
