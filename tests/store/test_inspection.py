"""What is in stores."""

from pathlib import Path

import numpy as np
import pytest
from stores import names, values, write_by_hand

from contrasim_cli.store import Ids, Layer, Store, inspection, open_store
from contrasim_cli.store import blocks as block_module
from contrasim_cli.store.inspection import (
    Anisotropy,
    LayerCounts,
    anisotropy,
    count_all,
    count_bad,
    disagreement,
    facts,
)


@pytest.fixture
def bad() -> Store:
    """A layer with bad values and constant columns, in more than one block."""
    matrix = values(30, 6)
    matrix[:, 1] = 2.5
    matrix[:, 2] = np.nan  # as often bad as there are rows, but not constant
    matrix[29, 3] = np.inf
    matrix[0, 4] = -np.inf
    matrix[:29, 5] = 7  # constant up to the last row
    return Store(Path("a.h5"), "memory", {"x": Layer("x", matrix), "y": Layer("y", np.ones((30, 2), np.int8))})


def test_bad_values_and_constant_columns_are_counted(bad: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (7, 30, 100):
        monkeypatch.setattr(block_module, "block_rows", lambda layer, _=0, rows=rows: rows)
        found = count_bad(bad, "x")
        assert (found.nan, found.inf, found.constant_columns) == (30, 2, 1)
        assert found.anisotropy == Anisotropy()  # no row is free of bad values
    assert count_all([bad, bad])[1, "y"] == LayerCounts(0, 0, 2, Anisotropy(mean_cosine=pytest.approx(1.0)))


def test_a_store_without_rows_has_no_constant_columns() -> None:
    empty = Store(Path("a"), "memory", {"x": Layer("x", np.empty((0, 3), np.float32))})
    assert count_bad(empty, "x") == LayerCounts(0, 0, 0)


def entropy_rank(rows: np.ndarray) -> float:
    """exp of the entropy of the covariance's eigenvalues, from the definition."""
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    parts = values / values.sum()
    return float(np.exp(-sum(p * np.log(p) for p in parts if p > 0)))


def mean_pair_cosine(rows: np.ndarray) -> float:
    """Over every pair of different rows."""
    pairs = [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    return float(np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]))


@pytest.mark.parametrize(("rows", "width"), [(40, 7), (9, 20)])
@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e170])
def test_anisotropy_equals_its_definition(rows: int, width: int, scale: float) -> None:
    matrix = np.random.default_rng(0).normal(size=(rows, width)) * np.linspace(0.1, 5, width) + 3
    found = anisotropy(matrix * scale)
    variances = np.sort(matrix.var(axis=0))
    assert found.mean_cosine == pytest.approx(mean_pair_cosine(matrix), abs=1e-9)
    assert found.widest_share == pytest.approx(variances[-3:].sum() / variances.sum())
    assert found.effective_rank == pytest.approx(entropy_rank(matrix), rel=1e-6)


def test_anisotropy_of_rows_that_point_everywhere_alike_and_of_a_line() -> None:
    everywhere = anisotropy(np.random.default_rng(0).normal(size=(2000, 10)))
    assert everywhere.mean_cosine == pytest.approx(0, abs=0.01)
    assert everywhere.widest_share == pytest.approx(0.3, abs=0.05)
    assert everywhere.effective_rank == pytest.approx(10, abs=0.1)
    line = anisotropy(np.outer(np.arange(1, 30), np.ones(5)))
    assert (line.mean_cosine, line.effective_rank) == (pytest.approx(1), pytest.approx(1))


def test_anisotropy_is_none_where_there_is_none() -> None:
    assert anisotropy(np.ones((1, 3))) == Anisotropy()
    assert anisotropy(np.zeros((4, 3))) == Anisotropy()
    assert anisotropy(np.full((4, 3), 2.0)) == Anisotropy(pytest.approx(1.0))


def test_a_sample_of_many_rows_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "SAMPLED_ROWS", 50)
    matrix = values(300, 4)
    store = Store(Path("a.h5"), "memory", {"x": Layer("x", matrix)})
    found = []
    for rows in (7, 300):
        monkeypatch.setattr(block_module, "block_rows", lambda layer, _=0, rows=rows: rows)
        found.append(count_bad(store, "x").anisotropy)
    chosen = np.sort(np.random.default_rng(0).choice(300, 50, replace=False))
    assert found == [anisotropy(matrix[chosen])] * 2
    assert found[0] != anisotropy(matrix)


def test_disagreement_is_returned() -> None:
    def one(ids: list[str]) -> Store:
        return Store(Path(ids[0]), "memory", {"x": Layer("x", values(2))}, Ids(2, lambda a, b: ids[a:b]))

    assert disagreement([one(["p", "q"]), one(["p", "q"])], "order") is None
    problem = disagreement([one(["p", "q"]), one(["q", "p"])], "order")
    assert problem is not None
    assert problem.exit_code == 4


def test_where_a_store_comes_from(tmp_path: Path) -> None:
    store = open_store(write_by_hand(tmp_path / "a.h5", {"x": values(3)}, names(3), model="bert"))
    assert store.ids is not None
    assert facts(store) == {
        "kind": "contrasim store",
        "rows": 3,
        "ids": "given",
        "ids_digest": store.ids.digest,
        "model": "bert",
        "provenance": {},
    }
    assert facts(open_store(write_by_hand(tmp_path / "b.h5", {"x": values(3)})))["ids"] == "none"
