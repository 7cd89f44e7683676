"""What the commands find out, as plain data; `report` writes it and `plots` draws it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ALL = "all"


@dataclass(frozen=True)
class ScoreRow:
    """One cell of a grid; `score` is None where the measure is undefined, the rest also where it was not asked for."""

    measure: str
    store_a: str
    layer_a: str
    store_b: str
    layer_b: str
    score: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    z_score: float | None = None


@dataclass(frozen=True)
class BenchRow:
    """One accuracy, a fraction; `pair` and `layer` are `all` in overall rows. None where there is nothing to say.

    `mrr` is the mean reciprocal rank of the right answers; `margin` the mean of how far they are ahead of the best wrong
    one, in units of the wrong ones' standard deviation, over the trials where that is defined. `recall` is the part of the
    exact nearest neighbours that an approximate search has found.
    """

    benchmark: str
    measure: str
    negatives: str
    pair: str
    layer: str
    accuracy: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None
    chance: float
    trials: int
    mrr: float | None
    margin: float | None
    recall: float | None = None


@dataclass(frozen=True)
class InspectRow:
    """One layer of a store; counts are None where the values were not read."""

    store: str
    layer: str
    rows: int
    width: int
    dtype: str
    nan: int | None
    inf: int | None
    constant_columns: int | None
    mean_cosine: float | None
    widest_share: float | None
    effective_rank: float | None


@dataclass(frozen=True)
class FactRow:
    """One thing known about a file."""

    file: str
    name: str
    value: str


Row = ScoreRow | BenchRow | InspectRow | FactRow


@dataclass(frozen=True)
class Results:
    """Rows of one kind, and under which circumstances they were found."""

    command: str
    kind: type[Row]
    rows: Sequence[Row]
    about: dict[str, Any] = field(default_factory=dict)
    optional: Sequence[str] = ()  # columns that are shown because they were asked for

    @property
    def columns(self) -> list[str]:
        """The names of the rows' fields that are shown, in order; those with a default are optional."""
        fields = dataclasses.fields(self.kind)
        return [f.name for f in fields if f.default is dataclasses.MISSING or f.name in self.optional]

    def values(self, row: Row) -> list[Any]:
        """What a row has in these columns."""
        return [getattr(row, name) for name in self.columns]
