"""Rows of two views that have the same ids, against a dictionary."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import write

from contrasim_cli.rows.same_ids import SameIds, _found
from contrasim_cli.store import View, open_store


@pytest.mark.parametrize("ordered", [False, True])
def test_labels_are_those_of_equal_ids(tmp_path: Path, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrasim_cli.rows.same_ids.ROWS", 5)
    draw = np.random.default_rng(0)
    names = [[f"n{k}" for k in draw.integers(0, 40, size=count)] for count in (20, 60)]  # some twice, some on one side
    views = []
    for k, ids in enumerate(names):
        path = write(tmp_path / f"{k}.h5", {"a": draw.normal(size=(len(ids), 2)).astype(np.float32)}, ids)
        rows = draw.permutation(len(ids))[:-3] if ordered else None
        names[k] = ids if rows is None else [ids[row] for row in rows]
        views.append(View(open_store(path), rows))
    found = SameIds.between(*views)
    assert found is not None
    label = dict(zip(names[0], found.labels, strict=True))
    assert len(set(found.labels)) == len(set(names[0]))
    everything = np.arange(views[1].n_rows).reshape(-1, 1)
    assert found.of(everything).ravel().tolist() == [label.get(name, -1) for name in names[1]]
    assert [names[0][row] for row in found.first_of] == sorted(set(names[0]), key=label.__getitem__)
    assert found.first_of.tolist() == [names[0].index(names[0][row]) for row in found.first_of]


def test_without_ids_nothing_is_known(tmp_path: Path) -> None:
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", np.ones((3, 2), np.float32) + np.arange(3)[:, None])
    a, b = (View(open_store(tmp_path / f"{k}.npy")) for k in range(2))
    assert SameIds.between(a, b) is None


words = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=16)


@settings(deadline=None)
@given(known=words.map(lambda pairs: sorted(set(pairs))), asked=words)
def test_hashes_with_equal_first_words_are_told_apart(
    known: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    one, other = (np.array(pairs, np.uint64).reshape(-1, 2) for pairs in (known, asked))
    assert _found(one, other).tolist() == [known.index(pair) if pair in known else -1 for pair in asked]
