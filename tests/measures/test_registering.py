"""A measure is added in three places: its family's module, the registry, and an oracle; all else follows from them."""

import json
from pathlib import Path

import made
import numpy as np
import numpy.typing as npt
import pytest
from helpers import run

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures import MEASURES, Entry, statistics
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.protocol import Measure

NAME = "mean_norm_ratio"


def prepare(x: Tensor) -> statistics.Statistic:
    return statistics.Statistic(xp.linalg.vector_norm(x.double(), dim=-1).mean(dim=-1))


def compare(a: statistics.Statistic, b: statistics.Statistic) -> Tensor:
    return xp.minimum(a.value, b.value) / xp.maximum(a.value, b.value)


def oracle(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    a, b = (float(np.mean([np.sqrt(sum(v * v for v in row)) for row in np.asarray(side).tolist()])) for side in (x, y))
    return min(a, b) / max(a, b)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(
        NAME, "statistics", "ratio of mean norms", "both sides are zero", invariances=frozenset({"symmetric"})
    )
    monkeypatch.setitem(MEASURES, NAME, entry)
    monkeypatch.setitem(statistics.MEASURES, NAME, lambda options: Measure(prepare, compare))


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    return [
        made.store(tmp_path / f"{name}.h5", layers)
        for name, layers in zip("ab", made.related(2, 2, 40, (7,)), strict=True)
    ]


def test_it_equals_its_oracle() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), 3 * rng.normal(size=(20, 3))
    assert similarity(NAME, x, y) == pytest.approx(oracle(x, y), rel=1e-12)


def test_commands_take_it(stores: list[Path]) -> None:
    options = ["--bootstrap", "8", "--permutations", "9", "--format", "json"]
    done = run("baseline", *stores, "--measure", NAME, *options)
    assert done.code == 0, done.stderr
    rows = json.loads(done.stdout)["results"]
    assert len(rows) == 4
    assert all(row["ci_low"] <= row["score"] <= row["ci_high"] for row in rows)
    assert all(row["p_value"] == 1 for row in rows)  # which row is which makes no difference to it
    assert NAME in run("baseline", "--list").stdout


def test_benchmarks_take_it(stores: list[Path]) -> None:
    done = run("bench", "layers", *stores, "--measure", NAME, "--format", "json")
    assert done.code == 0, done.stderr
    assert {row["measure"] for row in json.loads(done.stdout)["results"]} == {NAME}
    assert run("bench", "sanity", stores[0], "--measure", NAME).code in (0, 8)
