"""The two sides of a comparison: measures chosen from files of trials, which must be the same trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from contrasim_cli.benchmarks.trials import Recorded, TrialsFile
from contrasim_cli.errors import ContraSimError, MismatchError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.report.results import ALL

Context = tuple[str, str, str, str]


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
