"""What is in stores."""

from pathlib import Path

import numpy as np
import pytest
from stores import names, values, write_by_hand

from contrasim_cli.store import Ids, Layer, Store, open_store
from contrasim_cli.store import blocks as block_module
from contrasim_cli.store.inspection import LayerCounts, count_all, count_bad, disagreement, facts


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
        monkeypatch.setattr(block_module, "block_rows", lambda layer, rows=rows: rows)
        assert count_bad(bad, "x") == LayerCounts(nan=30, inf=2, constant_columns=1)
    assert count_all([bad, bad])[1, "y"] == LayerCounts(0, 0, 2)


def test_a_store_without_rows_has_no_constant_columns() -> None:
    empty = Store(Path("a"), "memory", {"x": Layer("x", np.empty((0, 3), np.float32))})
    assert count_bad(empty, "x") == LayerCounts(0, 0, 0)


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
