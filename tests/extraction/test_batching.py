"""Items are prepared ahead of the model, in a thread that ends with the run and hides no error."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contrasim_cli.extraction.batching import Ahead, BatchSize, Done, Piece, Reader, by_length
from contrasim_cli.extraction.shards import Sizes
from contrasim_cli.extraction.sources.open import array_source


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reader"]


def test_the_next_things_are_read_while_one_is_used() -> None:
    read = [threading.Event() for _ in range(6)]

    def items() -> Iterator[int]:
        for number, event in enumerate(read):
            event.set()
            yield number

    with Ahead(items(), 2) as ahead:
        for number in ahead:
            for event in read[number : number + 3]:
                assert event.wait(10)
    assert readers() == []


def test_no_more_is_read_than_two_steps_ahead() -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            seen.append(number)
            yield number

    with Ahead(items(), 2) as ahead:
        assert next(ahead) == 0
        for _ in range(20):
            threading.Event().wait(0.005)
        # one that waits for its place, two in their places, and the one that was taken
        assert len(seen) <= 4
    assert len(seen) <= 4
    assert readers() == []


def test_an_error_arrives_where_its_item_would_be() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    found = []
    with pytest.raises(KeyError), Ahead(items()) as ahead:
        found += list(ahead)
    with Ahead(items()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(KeyError):
            next(ahead)
    assert readers() == []


def test_an_error_of_the_user_ends_the_thread() -> None:
    with pytest.raises(ZeroDivisionError), Ahead(iter(range(10**9))) as ahead:
        next(ahead) // 0
    assert readers() == []


class Plain:
    """A network whose items have as many rows as their first number."""

    grouping = "any"
    unknown = None

    def prepare(self, items: np.ndarray, first: int) -> "Plain":
        self.items = items
        made = Plain()
        made.units = [["x"] * int(row[0]) for row in items]
        made.lengths = [int(row[0]) for row in items]
        made.cut = [place for place, row in enumerate(items) if row[1] == 1]
        made.batch = list  # type: ignore[attr-defined]
        return made


def pieces(path: Path, counts: list[int], sizes: Sizes, done: dict[int, int]) -> list[Piece | int]:
    """What is to be made, and how many items were made earlier, in order."""
    np.save(path, np.array([[count, place % 3] for place, count in enumerate(counts)], dtype=np.float32))
    reader = Reader(Plain(), array_source(path))  # type: ignore[arg-type]
    steps = [step for step in reader.steps(sizes, done, BatchSize(2)) if isinstance(step, Done)]
    return [step.items if step.piece is None else step.piece for step in steps]


def test_shards_are_cut_so_that_their_rows_fit(tmp_path: Path) -> None:
    counts = [2, 3, 0, 4, 9, 1, 1, 1, 1, 1, 1]
    found = pieces(tmp_path / "x.npy", counts, Sizes(7, 5), {})
    spans = [(piece.shard.first, piece.shard.stop) for piece in found if isinstance(piece, Piece)]
    assert spans == [(0, 3), (3, 4), (4, 5), (5, 7), (7, 11)]
    assert [sum(counts[first:stop]) for first, stop in spans] == [5, 4, 9, 2, 4]
    assert [piece.shard.cut for piece in found if isinstance(piece, Piece)] == [[1], [], [4], [], [7, 10]]


@pytest.mark.parametrize("kept", [[], [0], [1], [0, 1, 2], [3], [4], [0, 2, 4]])
def test_what_is_made_earlier_does_not_move_the_others(tmp_path: Path, kept: list[int]) -> None:
    counts = [2, 3, 0, 4, 9, 1, 1, 1, 1, 1, 1]
    spans = [(0, 3), (3, 4), (4, 5), (5, 7), (7, 11)]
    found = pieces(tmp_path / "x.npy", counts, Sizes(7, 5), dict(spans[k] for k in kept))
    shards = [(piece.shard.first, piece.shard.stop) for piece in found if isinstance(piece, Piece)]
    assert shards == [span for k, span in enumerate(spans) if k not in kept]
    assert sum(step for step in found if isinstance(step, int)) == sum(b - a for a, b in (spans[k] for k in kept))


def test_a_batch_size_that_shrinks_counts_at_once() -> None:
    size = BatchSize(4, automatic=True)
    batches = by_length(range(8), np.arange(8), size)
    assert next(batches) == [7, 6, 5, 4]
    size.halve(4)
    assert list(batches) == [[3, 2], [1, 0]]
    size.halve(2)
    size.halve(1)
    assert size.value == 1


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [("any", [[1, 4, 0], [2, 3]]), ("alike", [[1, 4], [0, 2, 3]]), ("one", [[1], [4], [0], [2], [3]])],
)
def test_a_batch_holds_what_may_go_together(grouping: str, expected: list[list[int]]) -> None:
    assert list(by_length(range(5), np.array([2, 5, 2, 2, 5]), BatchSize(3), grouping)) == expected
