"""What the commands find out, as plain data; `report` writes it and `plots` draws it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contrasim_cli.names import quoted
from contrasim_cli.report.look import LayerLabels

ALL = "all"
MONOTONICITY = "layers-monotonicity"  # the benchmark whose values are rank correlations, not accuracies


@dataclass(frozen=True)
class ScoreRow:
    """One cell of a grid; `score` is None where the measure is undefined, the rest also where it was not asked for.

    `null` is what the measure gives the same rows shuffled, on average; `null_z` how many standard deviations the score lies on the
    more similar side of it.
    """

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
    calibrated: float | None = None
    null_z: float | None = None
    null_p: float | None = None
    null: float | None = None
    ceiling_low: float | None = None  # the noise ceiling of store b's layer
    ceiling_high: float | None = None


CEILING = ("ceiling_low", "ceiling_high")


@dataclass(frozen=True)
class BenchRow:
    """One accuracy, a fraction; `pair` and `layer` are `all` in overall rows. None where there is nothing to say.

    `mrr` is the mean reciprocal rank of the right answers; `margin` the mean of how far they are ahead of the best wrong
    one, in units of the wrong ones' standard deviation, over the trials where that is defined. The other four are shown
    where data sets, models or encoders are told apart: the data set tested on, the one that the encoders were trained on,
    whether they were trained on these models (seen or unseen), and how many they are; and `recall`, the part of the exact
    nearest neighbours that an approximate search has found, where there was one.
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
    test_data: str = ""
    train_data: str = ""
    models: str = ""
    encoders: int = 0
    recall: float | None = None


SEVERAL = ("test_data", "train_data", "models", "encoders")


@dataclass(frozen=True)
class PlanRow:
    """One encoder that a benchmark needs: its file, whether it is there, and the seconds that training it still takes.

    `state` is trained, unfinished or missing.
    """

    encoder: str
    objective: str
    trained_on: str
    seed: int
    rows: int
    steps: int
    state: str
    seconds: float


@dataclass(frozen=True)
class CompareRow:
    """Two measures on the same trials: accuracies, a minus b with its 95 % interval, and whether that may be noise.

    `p_value` is that of the clusters' signs (and of encoders that could be exchanged), `p_holm` the same for all layers
    together.
    """

    benchmark: str
    negatives: str
    pair: str
    test_data: str
    models: str
    layer: str
    measure_a: str
    measure_b: str
    accuracy_a: float | None
    accuracy_b: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    clusters: int
    trials: int
    verdict: str


@dataclass(frozen=True)
class SanityRow:
    """One check of one measure on one layer: the score before and after a change, and what was expected of it.

    `verdict` is ok, fails, or empty where nothing is claimed or a score is undefined; `level` is how far a ladder has gone.
    """

    measure: str
    layer: str
    check: str
    level: float | None
    expected: str
    before: float | None
    score: float | None
    verdict: str


@dataclass(frozen=True)
class InspectRow:
    """One layer of a store; counts are None where the values were not read. `zero_rows` are zero in this layer."""

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
    zero_rows: int | None = None


@dataclass(frozen=True)
class FactRow:
    """One thing known about a file."""

    file: str
    name: str
    value: str


Row = ScoreRow | BenchRow | PlanRow | CompareRow | SanityRow | InspectRow | FactRow


@dataclass(frozen=True)
class Results:
    """Rows of one kind, and under which circumstances they were found.

    Figures and pages show more where it is there: `within`, the scores of layers of one store against each other; `beside`, the
    scores of measures that were not asked for; `layers`, the names of all layers of every store, by which depths are told;
    `title`, and `layer_labels`, how tables for papers call layers.
    """

    command: str
    kind: type[Row]
    rows: Sequence[Row]
    about: dict[str, Any] = field(default_factory=dict)
    optional: Sequence[str] = ()  # columns that are shown because they were asked for
    within: Sequence[ScoreRow] = ()
    beside: Sequence[ScoreRow] = ()
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    title: str = ""  # of pages, and of tables for papers
    layer_labels: LayerLabels = "name"  # of tables for papers

    @property
    def columns(self) -> list[str]:
        """The names of the rows' fields that are shown, in order; those with a default are optional."""
        fields = dataclasses.fields(self.kind)
        return [f.name for f in fields if f.default is dataclasses.MISSING or f.name in self.optional]

    def printable(self) -> "Results":
        """The results with control characters and other letters that are not printable escaped in every name."""
        return dataclasses.replace(
            self,
            rows=[_printable(row) for row in self.rows],
            within=[_printable(row) for row in self.within],
            beside=[_printable(row) for row in self.beside],
            layers={quoted(store): [quoted(name) for name in names] for store, names in self.layers.items()},
            title=quoted(self.title),
        )

    def values(self, row: Row) -> list[Any]:
        """What a row has in these columns."""
        return [getattr(row, name) for name in self.columns]


_AnyRow = TypeVar("_AnyRow", bound=Row)


def _printable(row: _AnyRow) -> _AnyRow:
    names = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    strange = {
        name: quoted(value) for name, value in names.items() if isinstance(value, str) and not value.isprintable()
    }
    return dataclasses.replace(row, **strange) if strange else row  # type: ignore[arg-type]
