"""Rows in one form: whatever is asked for is what the view has, held or read anew."""

from collections.abc import Callable
from pathlib import Path

import made
import numpy as np
import pytest
import torch

from contrasim_cli.rows import Kept, Room, Rows, size, stored_rows
from contrasim_cli.rows import rows as rows_module
from contrasim_cli.store import View

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float16)
CPU = torch.device("cpu")


def view(folder: Path, order: list[int] | None = None) -> View:
    found = made.view(folder / "x.h5", {"l": X})
    return found if order is None else View(found.store, np.array(order))


@pytest.mark.parametrize("order", [None, [4, 2, 40, 7, 9, 1]])
@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("filled", [4, 8192])
def test_held_rows_are_those_that_are_read(
    tmp_path: Path, order: list[int] | None, widened: bool, filled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "FILLED_ROWS", filled)
    expected = X if order is None else X[order]
    where = torch.tensor([[3, 0], [5, 3]])
    rows = stored_rows(view(tmp_path, order), "l", CPU, widened=widened)
    for held in (False, True):
        assert rows.held == held
        for found, wanted in (
            (rows.take(where), expected[where.numpy()]),
            (rows.span(1, 4), expected[1:4]),
            (rows.within(np.array([5, 2])).take(torch.tensor([1, 0])), expected[[2, 5]]),
            (rows.mapped(lambda x: 2 * x, 3, torch.float32).span(0, 3), 2 * expected[:3].astype(np.float32)),
        ):
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found.numpy(), wanted)
        rows.hold(Room(1 << 20))
    assert rows.held_as == (torch.float32 if widened else torch.float16)


def test_rows_are_held_while_there_is_room(tmp_path: Path) -> None:
    room = Room(2 * X.nbytes - 1)
    first, second = (stored_rows(view(tmp_path), "l", CPU).hold(room) for _ in range(2))
    assert first.held
    assert not second.held
    assert room.left == X.nbytes - 1


def test_near_rows_are_less_a_common_row_and_know_what_they_were(tmp_path: Path) -> None:
    rows = stored_rows(view(tmp_path), "l", CPU)
    near, marked = rows.near().taken(np.arange(6).reshape(2, 3), CPU)
    np.testing.assert_allclose(near.flatten(0, 1), X[:6] - X.astype(np.float32).mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(marked(torch.tensor([False, True]))[0], X[3:6])
    assert rows.near().is_near
    assert not rows.is_near


@pytest.mark.parametrize(("room", "made_in_turn"), [(32, "abc"), (16, "abbcb"), (0, "abbacb")])
def test_what_is_made_is_kept_while_there_is_room(room: int, made_in_turn: str) -> None:
    asked = []

    def make(key: str) -> tuple[torch.Tensor, int]:
        asked.append(key)
        return torch.zeros(4 if key == "b" else 2), 0  # what is no tensor takes no room

    kept = Kept(make, Room(room))
    for key in "abbacb":
        kept.get(key)
    assert "".join(asked) == made_in_turn


def test_size_is_that_of_all_tensors() -> None:
    assert size((torch.zeros(3, dtype=torch.float64), (torch.zeros(2, dtype=torch.float32), None))) == 32


def test_rows_of_a_function_are_asked_for_once_each() -> None:
    asked: list[list[int]] = []

    def read(where: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> torch.Tensor:
        asked.append(where.tolist())
        return torch.from_numpy(where)[:, None].double()

    make: Callable[[], Rows] = lambda: Rows(read, 9, 1, torch.float64)  # noqa: E731
    assert make().take(torch.tensor([7, 2, 7])).flatten().tolist() == [7, 2, 7]
    assert asked == [[2, 7]]
