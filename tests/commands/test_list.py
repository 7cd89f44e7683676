"""`baseline --list` and `--list --long`: the registry as a table, and every measure at length."""

import csv
import io
from pathlib import Path

import pytest
from helpers import run

from contrasim_cli.measures import INVARIANCES, MEASURES
from contrasim_cli.measures.described import FORMULAS, PEERS, described


def test_every_measure_has_a_formula() -> None:
    assert FORMULAS.keys() == MEASURES.keys()
    assert all(len(formula) > 10 for formula in FORMULAS.values())


def test_what_other_packages_compute_is_said_of_measures_that_there_are() -> None:
    assert PEERS.keys() <= MEASURES.keys()
    said = run("baseline", "--list", "--long", "gulp").stdout
    assert f"peers         {PEERS['gulp']}\n" in said
    assert "peers" not in run("baseline", "--list", "--long", "cosine").stdout


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_described_as_the_registry_has_it(name: str) -> None:
    entry, lines = MEASURES[name], list(described(name))
    texts: dict[str, list[str]] = {}
    for heading, text in lines:
        texts.setdefault(heading, []).append(text)
    assert lines[0] == (name, entry.summary)
    assert texts["formula"] == [FORMULAS[name]]
    said = texts["unchanged by"][0].split(", "), texts["changed by"][0].split(", ")
    assert {what for what in said[0] if what in INVARIANCES} == entry.invariances
    assert {what for what in said[1] if what in INVARIANCES} == set(INVARIANCES) - entry.invariances
    beware = " ".join(texts.get("beware", []))
    assert ("n < p" in beware or "every score is perfect" in beware) == entry.biased_by_width
    assert ("a row of zeros" in beware) == entry.empty_on_zero_rows
    assert ("one width" in beware) == entry.needs_equal_widths
    assert ("a common mean" in beware) == ("offset" not in entry.invariances)
    assert ("--max-rows" in beware) == entry.quadratic
    assert (f"extra {entry.extra}" in texts["cost"][0]) == bool(entry.extra)
    assert entry.source in texts["source"][0]


def test_one_measure_at_length() -> None:
    done = run("baseline", "--list", "--long", "pwcca")
    assert (done.code, done.stderr) == (0, "")
    first, second, third, *rest = done.stdout.splitlines()
    assert first == "pwcca: projection-weighted cca, weighted by X (Eq. 7)"
    assert second.split(maxsplit=1) == ["formula", FORMULAS["pwcca"]]
    assert third == "range         [0, 1], higher is more similar"
    assert any(line.startswith("beware") and "perfect" in line for line in rest)


def test_some_measures_and_families_by_name() -> None:
    done = run("baseline", "--list", "cka", "family:subspace")
    assert done.code == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))
    assert [row["name"] for row in rows] == ["cka", "eigenspace_overlap", "gulp"]
    at_length = run("baseline", "--list", "--long").stdout
    assert [line for line in at_length.splitlines() if line.startswith("formula")] == [
        f"formula       {formula}" for formula in (FORMULAS[name] for name in MEASURES)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--list", "ckaa"], "--list ckaa is unknown; did you mean cka, cknna?"),
        (["--long"], "--long goes with --list, as in contrasim baseline --list --long pwcca"),
        ([], "baseline compares 2 or more stores, 0 given"),
    ],
)
def test_what_cannot_be_listed_is_one_line(options: list[str], message: str, tmp_path: Path) -> None:
    done = run("baseline", *options)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"contrasim: error: {message}\n"
