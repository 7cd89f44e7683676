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

NO_VARIANCE = "a side has no variance"

# What may be done to one side alone, or (where it says both) to both sides alike, without changing the score.
# The property tests prove each, and that the ones not listed change it.
INVARIANCES = (
    "scale",  # one side times a positive number
    "rotation",  # an orthogonal map of one side's columns
    "linear",  # an invertible linear map of one side's columns
    "permutation",  # a permutation of one side's columns
    "offset",  # a row added to every row of one side
    "both-rotation",  # the same orthogonal map on both sides
    "both-permutation",  # the same permutation of columns on both sides
    "symmetric",  # X and Y change places
)


@dataclass(frozen=True)
class Options:
    """The settings that measures have, for all of them together; each uses its own."""

    rank_tol: float = 1e-6  # directions with σ below this times the largest are dropped
    k: int = 10  # nearest rows
    rbf_threshold: float = 1.0  # bandwidth of the Gaussian kernel over the median distance
    rsm: str = "pearson"  # similarity of rows: pearson, cosine, euclidean
    rsm_compare: str = "spearman"  # of two row-similarity matrices: spearman, pearson, cosine
    ridge: float = 0.1  # λ of GULP, over the mean variance of a direction
    minibatch: int = 256  # rows per batch of cka_minibatch
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """What is known about a measure without loading it."""

    name: str
    family: str
    summary: str
    undefined: str
    module: str = ""  # file of the measure, where it is not called like the family
    range: str = "[0, 1]"
    higher_is_more_similar: bool = True
    invariances: frozenset[str] = frozenset()
    cost: str = "n p q"
    source: str = ""
    needs_equal_widths: bool = False
    trivial_at_full_rank: bool = False
    extra: str = ""  # the extra that it needs


def _entry(name: str, family: str, summary: str, invariances: str, **more: object) -> Entry:
    undefined = str(more.pop("undefined", NO_VARIANCE))
    return Entry(name, family, summary, undefined, invariances=frozenset(invariances.split()), **more)  # type: ignore[arg-type]


_LINEAR = "scale rotation linear permutation offset both-rotation both-permutation"
_ROTATION = "scale rotation permutation offset both-rotation both-permutation"
_BOTH = "both-rotation both-permutation"

_ENTRIES = (
    _entry(
        "cka",
        "cka",
        "linear centred kernel alignment (Eq. 8)",
        f"{_ROTATION} symmetric",
        source="Kornblith et al. 2019",
    ),
    _entry(
        "cca",
        "cca",
        "mean canonical correlation (Eq. 5, 6)",
        f"{_LINEAR} symmetric",
        cost="n p q + p q²",
        source="Hotelling 1936",
        trivial_at_full_rank=True,
    ),
    _entry(
        "svcca",
        "cca",
        "cca of the directions that hold 99 % of the variance",
        f"{_ROTATION} symmetric",
        cost="n p q + p q²",
        source="Raghu et al. 2017",
        trivial_at_full_rank=True,
    ),
    _entry(
        "pwcca",
        "cca",
        "projection-weighted cca, weighted by X (Eq. 7)",
        "scale permutation offset both-permutation",
        cost="n p q + p q²",
        source="Morcos et al. 2018",
        trivial_at_full_rank=True,
    ),
    _entry(
        "dot",
        "pointwise",
        "mean dot product of paired rows",
        f"{_BOTH} symmetric",
        range="(-∞, ∞)",
        cost="n p",
        undefined="the widths differ",
        needs_equal_widths=True,
    ),
    _entry(
        "norm",
        "pointwise",
        "mean of 1 - distance of paired unit rows (Eq. 9, 10)",
        f"scale {_BOTH} symmetric",
        range="[-1, 1]",
        cost="n p",
        undefined="a row is zero or the widths differ",
        needs_equal_widths=True,
    ),
)

MEASURES = {entry.name: entry for entry in _ENTRIES}


def check_names(names: Sequence[str]) -> list[str]:
    """The measures that are asked for, each once: names, `family:NAME`, or `all`.

    Raises:
        UsageError: a name is unknown; the nearest are offered.
    """
    return list(dict.fromkeys(name for asked in names for name in _expand(asked)))


def _expand(asked: str) -> list[str]:
    if asked == "all":
        return list(MEASURES)
    if asked.startswith("family:"):
        members = [entry.name for entry in _ENTRIES if entry.family == asked.removeprefix("family:")]
        if not members:
            families = ", ".join(dict.fromkeys(entry.family for entry in _ENTRIES))
            raise UsageError(f"--measure {quoted(asked)} is no family; there are {families}")
        return members
    if asked not in MEASURES:
        near = difflib.get_close_matches(asked, MEASURES, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(MEASURES)}"
        raise UsageError(f"--measure {quoted(asked)} is unknown; {hint}")
    return [asked]


def load(name: str, options: Options = Options()) -> "Measure":
    """The measure of that name, ready to compute."""
    from importlib import import_module

    entry = MEASURES[name]
    module = import_module(f"contrasim_cli.measures.{entry.module or entry.family}")
    measure: Measure = module.MEASURES[name](options)
    return measure
