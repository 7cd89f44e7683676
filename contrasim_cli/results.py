"""What the commands find out, as plain data; `report` writes it and `plots` draws it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ALL = "all"


@dataclass(frozen=True)
class ScoreRow:
    """One cell of a grid; `score` is None where the measure is undefined."""

    measure: str
    store_a: str
    layer_a: str
    store_b: str
    layer_b: str
    score: float | None


@dataclass(frozen=True)
class BenchRow:
    """One accuracy, a fraction; `pair` and `layer` are `all` in overall rows. None where there is nothing to say."""

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

    @property
    def columns(self) -> list[str]:
        """The names of the rows' fields, in order."""
        return [column.name for column in dataclasses.fields(self.kind)]
