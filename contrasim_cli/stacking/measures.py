"""The closed forms that a learned measure over measures sees: names alone, without torch.

All are made of moments, so that two passes over the rows are enough; all give the same for X, Y and for Y, X; none needs an
extra. Each has a value that it gives to every layer and itself (`identity`).
"""

from collections.abc import Sequence

from contrasim_cli.errors import UsageError
from contrasim_cli.measures import MEASURES, Entry, check_names

SCALE_FREE = (
    "cka",
    "cka_debiased",
    "cca",
    "svcca",
    "cca_yanai",
    "procrustes",
    "angular_shape",
    "linear_regression_symmetric",
    "gulp",
    "eigenspace_overlap",
)
SCALED = (*SCALE_FREE, "procrustes_size_shape")  # with the lengths of rows, which models of one kind share


def blind(names: Sequence[str]) -> tuple[str, ...]:
    """The measures that half of an encoder's members do not see, as they mind the lengths of rows; none where all do."""
    of_scale = tuple(name for name in names if name not in SCALE_FREE and "scale" not in MEASURES[name].invariances)
    return of_scale if len(of_scale) < len(names) else ()


def identity(names: Sequence[str]) -> list[float]:
    """What each measure gives to a layer and itself: 1 if higher is more similar, else 0."""
    return [1.0 if MEASURES[name].higher_is_more_similar else 0.0 for name in names]


def entry(names: Sequence[str]) -> Entry:
    """What is known of a learned measure over these: what none of them minds, it does not mind."""
    common = frozenset.intersection(*(MEASURES[name].invariances for name in names))
    trivial = any(MEASURES[name].trivial_at_full_rank for name in names)
    return Entry(
        "measures",
        "learned",
        "a network over closed-form measures",
        "no measure that it looks at is defined",
        range="(-∞, ∞)",
        invariances=common,
        trivial_at_full_rank=trivial,
    )


def check_measures(selection: Sequence[str]) -> tuple[str, ...]:
    """The measures asked for, each once; `scale_free` and `scaled` stand for several.

    Raises:
        UsageError: one is unknown, tells X from Y, has no value for a layer and itself, needs an extra, or costs n².
    """
    sets = {"scale_free": SCALE_FREE, "scaled": SCALED}
    names = tuple(check_names([name for word in selection for name in sets.get(word, (word,))], "--measures"))
    for name in names:
        if problem := _unfit(MEASURES[name]):
            raise UsageError(f"--measures {name}: {problem}; those that can be taken: {', '.join(eligible())}")
    return names


def eligible() -> list[str]:
    """All measures that can be taken."""
    return [name for name, entry in MEASURES.items() if not _unfit(entry)]


def _unfit(entry: Entry) -> str:
    if "symmetric" not in entry.invariances:
        return "is not the same for X, Y and Y, X"
    if entry.needs_equal_widths:
        return "needs layers of equal width"
    if entry.family == "statistics":
        return "does not depend on which row is which, so that it says nothing of correspondence"
    if entry.higher_is_more_similar and not entry.range.endswith("1]"):
        return "has no fixed value for a layer and itself"
    if entry.extra:
        return f"needs the extra {entry.extra}"
    return "costs n²" if entry.quadratic else ""
