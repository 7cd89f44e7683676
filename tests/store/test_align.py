"""Lining stores up: what is compared is the same example, or it is refused, or a note says that nobody knows."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import names, values, write, write_by_hand

from contrasim_cli.errors import InputError, MismatchError, Problems
from contrasim_cli.store import Ids, Layer, Store, align, drop_nonfinite, open_store
from contrasim_cli.store.store import first_duplicate

A = values(6)


def store(name: str, ids: list[str] | None, matrix: np.ndarray | None = None, **about: object) -> Store:
    """A store in memory; row r holds r unless a matrix is given."""
    rows = len(ids) if matrix is None and ids is not None else len(A if matrix is None else matrix)
    found = np.arange(rows, dtype=np.float32)[:, None] if matrix is None else matrix
    kept = None if ids is None else Ids(len(ids), lambda a, b: ids[a:b], **about)
    return Store(Path(name), "memory", {"x": Layer("x", found)}, kept)


def notes(caplog: pytest.LogCaptureFixture, *stores: Store, how: str = "order") -> list[str]:
    """What is said while stores are lined up."""
    with caplog.at_level("INFO", "contrasim_cli"):
        align(stores, how)
    return caplog.messages


def mismatch(*stores: Store, how: str = "order") -> str:
    """The message with which stores are refused."""
    with pytest.raises(MismatchError) as caught:
        align(stores, how)
    return str(caught.value)


def test_equal_ids_line_up_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    views = align([store("a", names(6)), store("b", names(6))])
    assert [view.rows for view in views] == [None, None]
    assert notes(caplog, store("a", names(6)), store("b", names(6))) == []


def test_permuted_ids_are_refused_with_the_first_difference() -> None:
    assert mismatch(store("a", ["p", "q", "r", "s"]), store("b", ["p", "r", "q", "s"])) == (
        "b: ids differ from those of a (4 and 4 rows, 4 ids in common); the first difference is in row 1: r instead of q; "
        "give --align ids to compare the common rows"
    )


def test_ids_that_end_early_are_refused() -> None:
    assert mismatch(store("a", ["p", "q"]), store("b", ["p", "q", "r"])) == (
        "b: ids differ from those of a (3 and 2 rows, 2 ids in common); the first difference is in row 2: r instead of no row; "
        "give --align ids to compare the common rows"
    )


def test_no_common_ids() -> None:
    assert mismatch(store("a", ["p"]), store("b", ["q\n"])) == (
        "b: ids differ from those of a (1 and 1 rows, 0 ids in common); the first difference is in row 0: q\\n instead of p; "
        "they are not the same examples, or give --align position if the rows nevertheless line up"
    )
    assert mismatch(store("a", ["p"]), store("b", ["q"]), how="ids") == "a, b: no id is in all of these stores"


def test_every_store_that_differs_is_reported() -> None:
    with pytest.raises(Problems) as caught:
        align([store("a", ["p", "q"]), store("b", ["q", "p"]), store("c", ["p", "q"]), store("d", ["x", "y"])])
    assert [line[:3] for line in caught.value.lines] == ["b: ", "d: "]
    assert caught.value.exit_code == 4


def test_duplicates_are_named_in_every_store_before_anything_else() -> None:
    with pytest.raises(Problems) as caught:
        align([store("a", ["p", "q", "q", "p"]), store("b", ["x", "x"])])
    assert caught.value.lines == [
        "a: id q occurs twice, in rows 1 and 2; ids must be unique",
        "b: id x occurs twice, in rows 0 and 1; ids must be unique",
    ]
    assert caught.value.exit_code == 3


@given(st.lists(st.integers(0, 12), max_size=14))
def test_the_first_duplicate_is_that_of_a_loop(numbers: list[int]) -> None:
    seen: dict[int, int] = {}
    expected = None
    for at, number in enumerate(numbers):
        if number in seen:
            expected = (seen[number], at)
            break
        seen[number] = at
    found = first_duplicate(Ids(len(numbers), lambda a, b: list(map(str, numbers[a:b]))).hashes)
    assert found == expected


def test_ids_are_matched_and_what_is_dropped_is_said(caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = store("a", ["p", "q", "r", "s"]), store("b", ["s", "x", "q", "p"]), store("c", ["q", "s", "p"])
    views = align([a, b, c], "ids")
    assert [view.read("x")[:, 0].tolist() for view in views] == [[0, 1, 3], [3, 2, 0], [2, 0, 1]]
    assert notes(caplog, a, b, c, how="ids") == ["--align ids keeps 3 rows; dropped: a 1 of 4, b 1 of 4"]


def test_matched_stores_give_the_rows_of_sorted_ones(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(6)
    a = open_store(write(tmp_path / "a.h5", {"x": A}))
    b = open_store(write(tmp_path / "b.h5", {"x": A[order]}, [names(6)[k] for k in order]))
    first, second = align([a, b], "ids")
    np.testing.assert_array_equal(first.read("x"), second.read("x"))
    np.testing.assert_array_equal(second.read("x", np.array([4, 1])), A[[4, 1]])
    assert not np.array_equal(a.read("x", 0, 6), b.read("x", 0, 6))


@given(st.lists(st.integers(0, 20), unique=True, min_size=1), st.lists(st.integers(0, 20), unique=True, min_size=1))
def test_matching_is_that_of_a_dictionary(first: list[int], second: list[int]) -> None:
    a, b = (store(name, [f"id {k}" for k in ks]) for name, ks in (("a", first), ("b", second)))
    common = [k for k in first if k in second]
    if not common:
        assert "no id is in all" in mismatch(a, b, how="ids")
        return
    views = align([a, b], "ids")
    expected = [[ks.index(k) for k in common] for ks in (first, second)]
    assert [view.read("x")[:, 0].tolist() for view in views] == expected


AWKWARD = ["", "a", "a\0", "a\0\0", "a\n", "a\nb", "é", "e\u0301", "ｅ", "☃", "a ", " a", "A"]


def test_awkward_ids_are_all_different() -> None:
    assert first_duplicate(Ids(len(AWKWARD), lambda a, b: AWKWARD[a:b]).hashes) is None
    shuffled = AWKWARD[::-1]
    views = align([store("a", AWKWARD), store("b", shuffled)], "ids")
    assert views[1].read("x")[:, 0].tolist() == list(range(len(AWKWARD)))[::-1]


# without ids, or with ids that are line numbers


def test_without_ids_rows_are_matched_by_position_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    assert notes(caplog, store("a", names(6)), store("b", None)) == [
        "rows are matched by position: b has no ids, so that nothing shows whether its rows line up"
    ]
    assert align([store("a", None)])[0].n_rows == 6
    assert len(caplog.messages) == 1  # there is nothing to line one store up with


def test_without_ids_row_counts_must_agree() -> None:
    assert mismatch(store("a", None), store("b", names(4))) == (
        "b: has 4 rows where a has 6; rows without common ids can only be matched by position"
    )


def test_of_two_transposed_arrays_that_with_ids_is_not_blamed() -> None:
    lying, upright = np.zeros((4, 6), np.float32), np.zeros((6, 4), np.float32)
    told = "may be transposed, and shapes do not tell which: contrasim extract --from the wrong one "
    assert told in mismatch(store("a", None, lying), store("b", None, upright))
    told = "b has 6 columns and may be transposed: "
    assert told in mismatch(store("a", names(6), upright), store("b", None, lying))
    assert told in mismatch(store("b", None, lying), store("a", names(6), upright))


def test_ids_cannot_be_matched_where_there_are_none() -> None:
    assert mismatch(store("a", names(6)), store("b", None), how="ids") == (
        "b: has no ids, so that --align ids cannot match its rows"
    )


def test_line_numbers_of_different_sources_are_matched_by_position(caplog: pytest.LogCaptureFixture) -> None:
    a, b = (store(n, names(6), automatic=True, source=n) for n in "ab")
    assert notes(caplog, a, b) == [
        "rows are matched by position: the ids are line numbers of different sources, so that nothing shows whether they line up"
    ]
    shorter = store("c", names(5), automatic=True, source="c")
    assert "c: has 5 rows where a has 6" in mismatch(a, shorter)


def test_line_numbers_of_one_source_are_ids() -> None:
    a = store("a", names(6), automatic=True, source="s")
    b = store("b", names(6)[2:], automatic=True, source="s")
    assert "4 ids in common" in mismatch(a, b)
    assert align([a, b], "ids")[0].read("x")[:, 0].tolist() == [2, 3, 4, 5]


def test_position_is_taken_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    assert notes(caplog, store("a", names(6)), store("b", names(6)[::-1]), how="position") == [
        "rows are matched by position: --align position"
    ]


def test_stores_without_rows_are_all_named() -> None:
    empty = np.empty((0, 3), np.float32)
    with pytest.raises(Problems) as caught:
        align([store("a", None, empty), store("b", None), store("c", [], empty)])
    assert caught.value.lines == ["a: has no rows", "c: has no rows"]


# NaN and Inf


def with_nan(path: Path, *cells: tuple[int, int, float], ids: list[str] | None = None) -> Store:
    """A store of 6 rows with bad values."""
    matrix = A.copy()
    for row, column, value in cells:
        matrix[row, column] = value
    return open_store(write_by_hand(path, {"x": matrix, "y": A}, ids))


def test_a_bad_value_is_named_with_store_layer_row_and_id(tmp_path: Path) -> None:
    advice = "mend the file or give --nan drop to leave such rows out of every store"
    (view,) = align([with_nan(tmp_path / "a.h5", (5, 1, np.nan), (4, 2, -np.inf), ids=[*names(5), "last\n"])])
    with pytest.raises(InputError) as caught:
        view.read("x")
    assert str(caught.value) == f"{tmp_path / 'a.h5'}: layer x: row 4 (id row 4) holds -inf in column 2; {advice}"
    with pytest.raises(InputError) as caught:
        view.read("x", np.array([0, 5]))
    assert str(caught.value) == f"{tmp_path / 'a.h5'}: layer x: row 5 (id last\\n) holds nan in column 1; {advice}"
    assert view.read("x", np.array([0, 3])).shape == (2, 3)
    assert view.read("y").shape == (6, 3)
    (view,) = align([with_nan(tmp_path / "b.h5", (5, 1, np.nan))])
    with pytest.raises(InputError) as caught:
        view.read("x")
    assert str(caught.value) == f"{tmp_path / 'b.h5'}: layer x: row 5 holds nan in column 1; {advice}"


def test_bad_rows_are_dropped_from_every_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = [5, 4, 3, 2, 1, 0]
    a = with_nan(tmp_path / "a.h5", (5, 1, np.nan), ids=names(6))
    b = with_nan(tmp_path / "b.h5", (3, 0, np.inf), ids=[names(6)[k] for k in order])
    views = drop_nonfinite(align([a, b], "ids"), [["x", "y"], ["x"]])
    assert [view.n_rows for view in views] == [4, 4]
    np.testing.assert_array_equal(views[0].read("x"), A[[0, 1, 3, 4]])
    np.testing.assert_array_equal(views[1].read("x"), A[[5, 4, 2, 1]])
    assert caplog.messages == ["--nan drop: 2 of 6 rows hold NaN or Inf and are left out of every store"]


def test_only_the_chosen_layers_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    views = align([with_nan(tmp_path / "a.h5", (5, 1, np.nan))])
    assert drop_nonfinite(views, [["y"]]) == views
    assert caplog.messages == []


def test_nothing_left(tmp_path: Path) -> None:
    views = align([with_nan(tmp_path / "a.h5", *[(row, 0, np.nan) for row in range(6)])])
    with pytest.raises(InputError) as caught:
        drop_nonfinite(views, [["x"]])
    assert str(caught.value) == (
        f"--nan drop leaves no row: every row holds a NaN or Inf in {tmp_path / 'a.h5'} or another store"
    )


@pytest.mark.slow
def test_two_hundred_thousand_ids_take_no_time() -> None:
    ids = [f"id {k}" for k in range(200_000)]
    order = np.random.default_rng(0).permutation(len(ids))
    started = time.monotonic()
    views = align([store("a", ids), store("b", [ids[k] for k in order])], "ids")
    assert time.monotonic() - started < 10  # 0.6 s here; comparing strings one by one takes hours
    assert views[1].rows is not None
    np.testing.assert_array_equal(order[views[1].rows], np.arange(len(ids)))
