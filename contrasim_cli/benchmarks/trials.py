"""The file of every trial: what `--trials` writes, and what `bench compare` reads and chooses its two sides from.

JSON of one object: `format`, `format_version`, what a run must share with another for their trials to be the same, and
`measures`, a list. Each has, by pair and layer, `outcomes` (a string with a sign per batch: 1 right, 0 wrong, . undefined),
`ranks` of the right answer (1 is the best) and `margins`.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.benchmarks.outcomes import Trials
from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, raise_all
from contrasim_cli.input_files import first_bytes
from contrasim_cli.names import json_text, quoted
from contrasim_cli.output_files import atomic_output, writing
from contrasim_cli.report.results import ALL
from contrasim_cli.version import __version__

if TYPE_CHECKING:
    from contrasim_cli.encoder import Checkpoint

FORMAT = "contrasim-trials"
FORMAT_VERSION = 1
DIGITS = 4  # of a margin
NAMES = ("measure", "negatives", "train_data", "encoder", "test_data", "models", "pair")
SIGNS = {".": np.nan, "0": 0.0, "1": 1.0}

Doubles = npt.NDArray[np.float64]

Context = tuple[str, str, str, str]


@dataclass(frozen=True)
class SetFacts:
    """The rows of one data set (`name` is empty where it is the only one): how many, the digest of their ids, the stores.

    Where rows belong to items, `items` is a digest of which, and `blocks` says of every batch which ones have the same items.
    """

    name: str
    rows: int
    ids: str
    stores: list[str]
    items: str = ""
    blocks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """What two runs must share for their trials to be the same ones.

    `seed` is that of the random candidates, None where there are none; `candidates` says which store others come from.
    """

    benchmark: str
    tested_on: Sequence[SetFacts]
    batch_size: int | None = None
    seed: int | None = None
    candidates: str = ""


@dataclass(frozen=True)
class Recorded:
    """The trials of one measure (of one encoder) as a file has them; arrays [pairs, layers, batches]."""

    measure: str
    negatives: str
    train_data: str
    encoder: str
    test_data: str
    models: str
    pair: str  # whose trials these are where every pair has its own encoders, else empty
    pairs: Sequence[str]
    layers: Sequence[str]
    outcomes: Doubles
    ranks: Doubles
    margins: Doubles
    training: str  # digest of how an encoder was trained and on what, its seed aside; empty for closed-form measures


@dataclass(frozen=True)
class TrialsFile:
    """A file of trials."""

    path: Path
    facts: Facts
    measures: Sequence[Recorded] = field(default_factory=list)


def write_trials(path: Path, facts: Facts, all_trials: Sequence[Trials], force: bool) -> None:
    """Write every trial, whole or not at all; one measure is in memory as text at a time.

    Raises:
        OutputExistsError, OutputError: as for any output.
    """
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "contrasim_version": __version__, **asdict(facts)}
    with atomic_output(path, force) as temporary, writing(path), temporary.open("w", encoding="utf-8") as stream:
        stream.write(_compact(head)[:-1] + ',"measures":[')
        for k, trials in enumerate(all_trials):
            stream.write(",\n" if k else "\n")
            record = _record(trials)
            stream.write(_compact(record if len(facts.tested_on) > 1 else record | {"test_data": ""}))
        stream.write("\n]}\n")


def _compact(content: Any) -> str:
    return json_text(content, separators=(",", ":"))


def _record(trials: Trials) -> dict[str, Any]:
    origin = trials.origin
    return {
        "measure": trials.name,
        "training": _training(trials.scorer.checkpoint),
        "negatives": trials.negatives,
        "train_data": origin.train,
        "encoder": origin.encoder,
        "test_data": origin.test,
        "models": origin.models,
        "pair": origin.pair,
        "pairs": list(trials.pairs),
        "layers": list(trials.layers),
        "outcomes": [["".join(map(_sign, batches)) for batches in layers] for layers in trials.outcomes.tolist()],
        "ranks": [[[_rank(v) for v in batches] for batches in layers] for layers in trials.reciprocal_ranks.tolist()],
        "margins": [[[_margin(v) for v in batches] for batches in layers] for layers in trials.margins.tolist()],
    }


def _training(checkpoint: "Checkpoint | None") -> str:
    if checkpoint is None:
        return ""
    config = asdict(replace(checkpoint.config, seed=0))
    words = json.dumps([config, checkpoint.provenance.get("stores", [])], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _sign(outcome: float) -> str:
    return "." if math.isnan(outcome) else str(int(outcome))


def _rank(reciprocal: float) -> int | None:
    return None if math.isnan(reciprocal) else round(1 / reciprocal)


def _margin(margin: float) -> float | None:
    return float(f"{margin:.{DIGITS}g}") if math.isfinite(margin) else None


def read_trials(path: Path) -> TrialsFile:
    """Read such a file.

    Raises:
        InputError: it is missing, no such file, of another version, or damaged.
    """
    first_bytes(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{quoted(path)}: is not a file of trials; contrasim bench --trials writes one") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise InputError(f"{quoted(path)}: is not a file of trials; contrasim bench --trials writes one")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{quoted(path)}: format_version is {content.get('format_version')}, this contrasim reads {FORMAT_VERSION}; "
            "install a newer one"
        )
    try:
        tested_on = [SetFacts(**one) for one in content["tested_on"]]
        facts = Facts(content["benchmark"], tested_on, content["batch_size"], content["seed"], content["candidates"])
        return TrialsFile(path, facts, list(_recorded(content["measures"], [len(one.blocks) for one in tested_on])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{quoted(path)}: the trials are damaged; write them again") from error


def _recorded(measures: Sequence[dict[str, Any]], blocked: Sequence[int]) -> Iterator[Recorded]:
    for one in measures:
        outcomes = np.array([[[SIGNS[sign] for sign in batches] for batches in layers] for layers in one["outcomes"]])
        arrays = [outcomes, *(np.array(one[name], dtype=float) for name in ("ranks", "margins"))]
        wrong = {array.shape for array in arrays} != {(len(one["pairs"]), len(one["layers"]), outcomes.shape[-1])}
        # the batches of some data set, where it says which have the same items
        unknown = any(blocked) and outcomes.shape[-1] not in blocked
        if wrong or unknown or outcomes.size == 0:
            raise ValueError
        names = [str(one[name]) for name in NAMES]
        pairs, layers = list(map(str, one["pairs"])), list(map(str, one["layers"]))
        yield Recorded(*names, pairs, layers, *arrays, str(one["training"]))  # type: ignore[call-arg, arg-type]


@dataclass(frozen=True)
class Side:
    """A measure as it was chosen: the trials of its encoders, or its own."""

    name: str
    members: Sequence[Recorded]

    def of(self, context: Context) -> list[Recorded]:
        """Its trials of one context."""
        return [one for one in self.members if context_of(one) == context]


def context_of(one: Recorded) -> Context:
    """What is compared on its own: the kind of negatives, the pair that has its own encoders, the data set, the models."""
    return one.negatives, one.pair or ALL, one.test_data, one.models


def select(file: TrialsFile, asked: str) -> Side:
    """The measure of that name, or of it what the words after it name: `contrasim, wiki, seed 0`.

    Raises:
        UsageError: there is none.
    """
    names = {one.measure for one in file.measures}
    asked = quoted(asked) if quoted(asked) in names else asked  # as results show it
    name, *words = [asked] if asked in names else asked.split(", ")
    found = [
        one for one in file.measures if one.measure == name and set(words) <= {one.train_data, *one.encoder.split(", ")}
    ]
    trained_on = list(dict.fromkeys(one.train_data for one in found))
    if len(trained_on) > 1:
        which = " or ".join(f"--measure {quoted(f'{asked}, {data}')!r}" for data in trained_on)
        raise UsageError(f"--measure {quoted(asked)}: was trained on several data sets; give {which}")
    if not found:
        there = ", ".join(dict.fromkeys(quoted(one.measure) for one in file.measures))
        raise UsageError(f"--measure {quoted(asked)}: {quoted(file.path)} has {there}")
    return Side(asked, found)


def sides(a: TrialsFile, b: TrialsFile | None, asked: Sequence[str]) -> list[tuple[Side, Side]]:
    """What is compared: two measures of one file, or of two files each measure that both have (or that was asked for).

    Raises:
        UsageError: it does not follow what is to be compared.
    """
    if b is None:
        names = list(asked) or list(dict.fromkeys(one.measure for one in a.measures))
        if len(names) != 2:
            there = ", ".join(dict.fromkeys(quoted(one.measure) for one in a.measures))
            raise UsageError(f"{quoted(a.path)} has {there}; say which two to compare, with --measure twice")
        return [(select(a, names[0]), select(a, names[1]))]
    if len(asked) > 2:
        raise UsageError("--measure: two are compared, the first of the first file and the second of the second")
    if asked:
        return [(select(a, asked[0]), select(b, asked[-1]))]
    of_a, of_b = (list(dict.fromkeys(one.measure for one in file.measures)) for file in (a, b))
    both = [name for name in of_a if name in of_b]
    if not both and len(of_a) == len(of_b) == 1:
        return [(select(a, of_a[0]), select(b, of_b[0]))]
    if not both:
        raise UsageError(
            f"{quoted(a.path)} has {', '.join(map(quoted, of_a))}, {quoted(b.path)} has {', '.join(map(quoted, of_b))}; say "
            "which two to compare, with --measure twice"
        )
    return [(select(a, name), select(b, name)) for name in both]


def caveat(a: Side, b: Side) -> str | None:
    """What a reader of the comparison must know of the encoders: what they cannot tell about training."""
    kinds = [{one.training for one in side.members} for side in (a, b)]
    if kinds[0] == kinds[1] and "" not in kinds[0]:
        return (
            f"{quoted(a.name)} and {quoted(b.name)}: trained alike but for their seeds, so that these are what differs"
        )
    of = {side.name: {(one.measure, one.encoder) for one in side.members if one.training} for side in (a, b)}
    alone = [quoted(name) for name, encoders in of.items() if len(encoders) == 1]
    if not alone:
        return None
    which = " and ".join(alone)
    return f"{which}: one encoder, so that what another training gives is not part of the noise; --seeds trains several"


def check_same_trials(a: TrialsFile, b: TrialsFile) -> None:
    """Refuse files whose trials are not the same ones.

    Raises:
        MismatchError: they are not; all that differs is named.
    """
    first, second = a.facts, b.facts
    if first.benchmark != second.benchmark:
        raise MismatchError(
            f"{quoted(b.path)}: has trials of the benchmark {second.benchmark}, {quoted(a.path)} of {first.benchmark}"
        )
    pairs: list[tuple[str, object, object]] = [
        ("batch size", first.batch_size, second.batch_size),
        ("seed of the candidates", first.seed, second.seed),
        ("store of the candidates", first.candidates, second.candidates),
        ("data sets", [one.name for one in first.tested_on], [one.name for one in second.tested_on]),
        ("rows", [one.rows for one in first.tested_on], [one.rows for one in second.tested_on]),
        ("items", [one.items[:8] for one in first.tested_on], [one.items[:8] for one in second.tested_on]),
    ]
    problems: list[ContraSimError] = [
        MismatchError(f"{quoted(b.path)}: {what}: {_told(theirs)}, {quoted(a.path)} has {_told(ours)}")
        for what, ours, theirs in pairs
        if ours != theirs
    ]
    if not problems and [one.ids for one in first.tested_on] != [one.ids for one in second.tested_on]:
        problems.append(MismatchError(f"{quoted(b.path)}: the rows' ids are not those of {quoted(a.path)}"))
    raise_all(problems)


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None or value == "" else str(value)
