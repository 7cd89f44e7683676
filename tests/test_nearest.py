"""Nearest rows by products: the rows that a full table of distances has nearest, and a bound that no rounding passes."""

import numpy as np
import pytest
import torch

from contrasim_cli import nearest
from contrasim_cli.nearest import all_beyond, nearest_rows, nearest_within


def normal(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, width)))


def squares(queries: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """Squared distances [q, n], each from the difference, in float64."""
    return torch.stack([(pool.double() - query).square().sum(dim=1) for query in queries.double()])


@pytest.mark.parametrize(("n", "count"), [(1, 1), (7, 7), (40, 3), (400, 19), (1013, 2)])
@pytest.mark.parametrize("most", [None, 100, 5000])
def test_rows_are_the_nearest_of_the_pool(n: int, count: int, most: int | None) -> None:
    """Selected from all, and by groups; in one piece, and query by query."""
    queries, pool = normal(23, 5), normal(n, 5, 1)
    found = nearest_rows(queries, pool, count, first=100, most=most)
    expected, places = squares(queries, pool).sort(dim=1)
    assert found.positions.tolist() == (places[:, :count] + 100).tolist()
    torch.testing.assert_close(found.squared, expected[:, :count], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 64, 65, 300])
def test_of_wide_rows_every_product_serves_both(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "WIDE", 6)
    monkeypatch.setattr(nearest, "SIDE", {"numpy": 64, "cpu": 64})
    rows, count = normal(n, 6), min(n, 9)
    found = nearest_within(rows, count)
    assert found.positions.tolist() == squares(rows, rows).sort(dim=1).indices[:, :count].tolist()


def test_of_no_rows_none_are_near() -> None:
    rows = normal(4, 3)
    assert nearest_rows(rows, rows[:0], 3).positions.shape == (4, 0)
    assert nearest_rows(rows[:0], rows, 3).positions.shape == (0, 3)


def hard(width: int) -> dict[str, torch.Tensor]:
    """Rows whose products round badly: of one sign, of equal entries, far from the origin, of all lengths."""
    rows = normal(400, width).abs()
    return {
        "one sign": rows,
        "equal entries": (0.1 + 1e-4 * normal(400, 1).abs()).expand(400, width).contiguous(),
        "far": 100 + normal(400, width),
        "one far row": torch.cat([normal(399, width), torch.full((1, width), 1e4)]),
        "of all lengths": normal(400, width) * torch.logspace(-30, 3, 400)[:, None],
        "tiny": 1e-22 * normal(400, width),
    }


def too_near(rows: torch.Tensor, beyond: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[queries] whether a row that was not proposed is nearer than all of them are said to be."""
    exact = squares(rows, rows).scatter(1, positions, torch.inf)
    return exact.amin(dim=1) < beyond


@pytest.mark.parametrize("case", hard(1))
@pytest.mark.parametrize("width", [1, 7, 600])
def test_no_row_that_was_not_proposed_is_nearer_than_the_bound(case: str, width: int) -> None:
    rows = hard(width)[case]
    single = rows.float()
    found = nearest_within(single, 12)
    norms = rows.square().sum(dim=1)
    last = found.squared[:, -1].double()
    beyond = all_beyond(last, norms, float(norms.max()), width, np.float32)
    assert not too_near(rows, beyond, found.positions).any()


def test_the_test_of_the_bound_can_fail() -> None:
    rows = hard(600)["far"]
    found = nearest_within(rows.float(), 12)
    assert too_near(rows, found.squared[:, -1].double(), found.positions).any()


def test_the_bound_is_close_where_rows_are_well_apart() -> None:
    """Of rows without structure it leaves nine tenths of the distance between the tenth and the twentieth neighbour."""
    rows = normal(2000, 256)
    found = nearest_within(rows.float(), 20)
    norms = rows.square().sum(dim=1)
    beyond = all_beyond(found.squared[:, -1].double(), norms, float(norms.max()), 256, np.float32)
    tenth = found.squared[:, 9].double()
    left = (beyond - tenth) / (found.squared[:, -1] - tenth)
    assert float(left.median()) > 0.9
