"""Scores as a matching: against slow Sinkhorn iterations, and what they do not mind."""

import math

import numpy as np
import pytest
import torch

from contrasim_cli.stacking.transport import BIN, ENTROPY, matched


def slow(scores: np.ndarray, whole: bool = True) -> np.ndarray:
    """The plan of transport with bins, element by element, and what its potentials add to the scores."""
    first, second = scores.shape
    most = max(first, second)
    spread = scores.std()
    gains = [[BIN / ENTROPY] * (second + 1) for _ in range(first + 1)]
    for i in range(first):
        for j in range(second):
            gains[i][j] = (scores[i, j] - scores.mean()) / spread / ENTROPY
    of_row, of_column = (most / first, most / second) if whole else (1, 1)
    down, across = [of_row] * first + [of_column * second], [of_column] * second + [of_row * first]
    u, v = [0.0] * (first + 1), [0.0] * (second + 1)
    for _ in range(3000):
        for i in range(first + 1):
            u[i] = math.log(down[i]) - math.log(sum(math.exp(gains[i][j] + v[j]) for j in range(second + 1)))
        for j in range(second + 1):
            v[j] = math.log(across[j]) - math.log(sum(math.exp(gains[i][j] + u[i]) for i in range(first + 1)))
    rows, columns = np.array(u[:-1]), np.array(v[:-1])
    potentials = (rows - rows.mean())[:, None] + (columns - columns.mean())
    return scores + spread * ENTROPY * potentials


def grid(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
def test_it_is_sinkhorns(shape: tuple[int, int]) -> None:
    x = grid(*shape)
    np.testing.assert_allclose(matched(x).numpy(), slow(x.numpy()), atol=5e-4)
    np.testing.assert_allclose(matched(x, whole=False).numpy(), slow(x.numpy(), whole=False), atol=5e-4)


def test_what_it_does_not_mind() -> None:
    x, rows, columns = grid(4, 6), torch.randperm(4), torch.randperm(6)
    torch.testing.assert_close(matched(x[rows][:, columns]), matched(x)[rows][:, columns])
    torch.testing.assert_close(matched(x.mT), matched(x).mT)
    torch.testing.assert_close(matched(3 * x + 2), 3 * matched(x) + 2)
    assert not torch.allclose(matched(x.exp()), matched(x).exp())


def test_a_layer_that_is_similar_to_all_is_nobodys_match() -> None:
    """Column 2 is the best of every row by a hair; each row has another one that is nearly as good and wanted by nobody else."""
    x = torch.tensor([[0.9, 0.1, 1.0], [0.1, 0.9, 1.0], [0.1, 0.1, 1.0]], dtype=torch.float64)
    assert x.argmax(dim=1).tolist() == [2, 2, 2]
    assert matched(x).argmax(dim=1).tolist() == [0, 1, 2]


def test_a_layer_of_a_shallower_network_may_match_several() -> None:
    deep = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 0.9], [0.0, 1.0]], dtype=torch.float64)
    assert matched(deep).argmax(dim=1).tolist() == [0, 0, 1, 1]


def test_a_layer_has_one_match_at_most_where_others_are_left_out() -> None:
    """Of the four rows two have their counterparts among the columns, which are but two of four."""
    some = torch.tensor([[0.9, 0.1], [0.6, 0.5], [0.5, 0.6], [0.1, 0.9]], dtype=torch.float64)
    of_some, of_whole = matched(some, whole=False), matched(some)
    assert of_some.argmax(dim=0).tolist() == [0, 3]
    lead = [float(x[0, 0] - x[1, 0]) for x in (of_some, of_whole)]
    assert lead[0] > lead[1]


def test_cells_that_are_equal_or_alone_stay_what_they_are() -> None:
    assert matched(torch.full((3, 4), 0.5)).equal(torch.full((3, 4), 0.5))
    assert matched(torch.tensor([[0.3]])).item() == pytest.approx(0.3)


def test_the_scores_of_one_layer_stay_what_they_are() -> None:
    """Nothing competes for the layers of the other side, which masses would make alike to the tenth digit."""
    x = grid(1, 7)
    assert matched(x).equal(x)
    assert matched(x.mT).equal(x.mT)
    among = torch.full((3, 7), torch.nan, dtype=x.dtype)
    among[1] = x[0]
    torch.testing.assert_close(matched(among), among, rtol=0, atol=0, equal_nan=True)


def test_undefined_cells_count_for_nothing() -> None:
    x = grid(4, 5)
    wider = torch.full((5, 6), torch.nan, dtype=x.dtype)
    wider[:4, :5] = x
    torch.testing.assert_close(matched(wider)[:4, :5], matched(x))
    assert matched(wider)[4].isnan().all()
    assert matched(torch.full((2, 2), torch.nan)).isnan().all()
    hole = x.clone()
    hole[1, 2] = torch.nan
    found = matched(hole)
    assert found.isnan().sum() == 1
    assert found.isnan()[1, 2]


def test_scores_keep_their_type() -> None:
    assert matched(grid(3, 3).float()).dtype == torch.float32
