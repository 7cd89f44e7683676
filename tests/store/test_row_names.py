"""Names of rows under any key and in any container: used where one vector can be them, asked for where several can."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers import run
from safetensors.numpy import save_file

from contrasim_cli.errors import InputError, MismatchError, Problems
from contrasim_cli.store import Hints, Store, align, open_store

RNG = np.random.default_rng(0)
N = 12
X = RNG.normal(size=(N, 5))
FILES = [f"img_{k}.jpg" for k in range(N)]
NUMBERS = RNG.permutation(1000)[:N]

Save = Callable[[Path, dict[str, Any]], Path]


def as_npz(path: Path, members: dict[str, Any]) -> Path:
    path = path.with_suffix(".npz")
    np.savez(path, **{name: np.asarray(value) for name, value in members.items()})
    return path


def as_hdf5(path: Path, members: dict[str, Any]) -> Path:
    path = path.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        for name, value in members.items():
            file[name] = value
    return path


def as_torch(path: Path, members: dict[str, Any]) -> Path:
    path = path.with_suffix(".pt")
    tensors = {
        name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for name, value in members.items()
    }
    torch.save(tensors, path)
    return path


def as_safetensors(path: Path, members: dict[str, Any]) -> Path:
    path = path.with_suffix(".safetensors")
    save_file(members, path)
    return path


WITH_TEXT: list[Save] = [as_npz, as_hdf5, as_torch]
ALL: list[Save] = [*WITH_TEXT, as_safetensors]


def ids(store: Store) -> list[str] | None:
    return None if store.ids is None else store.ids.read(0, store.n_rows)


@pytest.mark.parametrize("save", WITH_TEXT)
@pytest.mark.parametrize("key", ["ids", "filenames", "path_images", "names", "keys", "obs_names", "stimulus_id"])
def test_texts_under_any_key_name_the_rows(
    tmp_path: Path, save: Save, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "a", {"acts": X, key: FILES})
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        store = open_store(path)
    assert ids(store) == FILES
    assert store.facts["ids_key"] == key
    assert caplog.messages == ([] if key == "ids" else [f"{path}: rows are named by {key}"])


@pytest.mark.parametrize("save", ALL)
@pytest.mark.parametrize("key", ["ids", "image_id", "index"])
@pytest.mark.parametrize("dtype", ["i8", "i4", "u2"])
def test_integers_are_ids_in_every_container(tmp_path: Path, save: Save, key: str, dtype: str) -> None:
    if dtype == "u2" and save in (as_torch, as_safetensors):
        dtype = "i2"
    store = open_store(save(tmp_path / "a", {"acts": X, key: NUMBERS.astype(dtype)}))
    assert ids(store) == [str(number) for number in NUMBERS]


@pytest.mark.parametrize("save", ALL)
def test_ids_that_are_numbers_line_rows_up(tmp_path: Path, save: Save) -> None:
    order = RNG.permutation(N)
    a = open_store(save(tmp_path / "a", {"acts": X, "ids": NUMBERS}))
    b = open_store(save(tmp_path / "b", {"acts": X[order] * 2, "ids": NUMBERS[order]}))
    with pytest.raises(MismatchError):
        align([a, b])
    views = align([a, b], "ids")
    np.testing.assert_array_equal(2 * views[0].read("acts"), views[1].read("acts"))
    by_position = align([a, b], "position")
    assert not np.array_equal(2 * by_position[0].read("acts"), by_position[1].read("acts"))


def test_where_several_could_be_names_a_note_offers_the_option(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = as_npz(tmp_path / "a", {"acts": X, "filenames": FILES, "index": NUMBERS, "labels": np.arange(N)})
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        assert open_store(path).ids is None
    assert caplog.messages[0] == (
        f"{path}: rows are named by none of filenames, index: more than one could be their names; say which with "
        "contrasim extract --from FILE --ids-key NAME"
    )
    assert ids(open_store(path, Hints(ids_key="index"))) == [str(number) for number in NUMBERS]
    assert ids(open_store(path, Hints(ids_key="filenames"))) == FILES
    assert ids(open_store(path, Hints(ids_key="labels"))) == [str(k) for k in range(N)]  # whoever asks for it


@pytest.mark.parametrize(
    "vector", [np.arange(N) % 3, np.arange(N - 1), np.arange(N) / 2, np.arange(N) > 5, ["cat"] * N], ids=str
)
def test_what_is_no_name_names_nothing(tmp_path: Path, vector: Any) -> None:
    """Classes, other counts, fractions, flags, texts that repeat."""
    assert open_store(as_npz(tmp_path / "a", {"acts": X, "thing": vector})).ids is None


def test_classes_are_no_names_even_where_each_has_one_row(tmp_path: Path) -> None:
    for key in ("labels", "y", "target", "meta/Label"):
        assert open_store(as_hdf5(tmp_path / key.replace("/", "_"), {"acts": X, key: np.arange(N)})).ids is None


def test_texts_that_repeat_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = as_npz(tmp_path / "a", {"acts": X, "words": ["a", "b", "a", *FILES[3:]]})
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        assert open_store(path).ids is None
    assert caplog.messages[0] == f"{path}: words names rows more than once, and is not taken as their ids"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ids": FILES[:-1]}, "ids has 11 ids for 12 rows; correct one of them"),
        ({"ids": X[:, 0]}, "ids cannot name the rows: it is float64 (12,); expected a text or an integer per row"),
        ({"ids": X}, "ids cannot name the rows: it is float64 (12, 5); expected a text or an integer per row"),
        ({"ids": np.array(FILES, object), "n": [3]}, "ids cannot name the rows: it is an array of Python objects, which would "
         "have to be unpickled; save texts with .astype(str); expected a text or an integer per row; the file has n"),
    ],
)  # fmt: skip
def test_ids_that_cannot_be_are_refused(tmp_path: Path, members: dict[str, Any], message: str) -> None:
    path = as_npz(tmp_path / "a", {"acts": X, **members})
    with pytest.raises(InputError) as caught:
        open_store(path)
    assert str(caught.value) == f"{path}: {message}"


def test_an_ids_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = as_npz(tmp_path / "a", {"acts": X, "names": FILES, "few": np.arange(3)})
    with pytest.raises(InputError) as caught:
        open_store(path, Hints(ids_key="name"))
    assert str(caught.value) == (
        f"{path}: name cannot name the rows: it is not there; expected a text or an integer per row; the file has names, few"
    )
    with pytest.raises(InputError, match="few has 3 ids for 12 rows"):
        open_store(path, Hints(ids_key="few"))


def test_align_position_needs_no_unique_ids(tmp_path: Path) -> None:
    paths = [as_npz(tmp_path / name, {"acts": X * k, "ids": ["same"] * N}) for k, name in enumerate("ab", 1)]
    stores = [open_store(path) for path in paths]
    for how in ("order", "ids"):
        with pytest.raises(Problems, match="id same occurs twice, in rows 0 and 1"):
            align(stores, how)
    views = align(stores, "position")
    np.testing.assert_array_equal(2 * views[0].read("acts"), views[1].read("acts"))
    assert run("baseline", *paths, "--align", "position", "--format", "value").code == 0


def test_extract_keeps_the_names_under_another_key(tmp_path: Path) -> None:
    path = as_npz(tmp_path / "a", {"acts": X, "filenames": FILES, "index": NUMBERS})
    assert run("extract", "--from", path, "--ids-key", "filenames", "-o", tmp_path / "o.h5").code == 0
    assert ids(open_store(tmp_path / "o.h5")) == FILES


def test_texts_are_utf8(tmp_path: Path) -> None:
    assert (
        ids(open_store(as_npz(tmp_path / "a", {"acts": X, "n": np.array([f"é{k}".encode() for k in range(N)])})))[2]
        == "é2"
    )
    bad = np.array([b"\xff%d" % k for k in range(N)])
    with pytest.raises(InputError, match="n is not UTF-8"):
        open_store(as_npz(tmp_path / "b", {"acts": X, "n": bad}))


@pytest.mark.parametrize("key", ["ids", "image_id", "subject"])
@pytest.mark.parametrize("save", ALL)
def test_whole_numbers_in_a_matrix_of_one_column_name_rows(tmp_path: Path, save: Save, key: str) -> None:
    store = open_store(save(tmp_path / "a", {"features": X, key: NUMBERS[:, None].copy()}))
    assert list(store.layers) == ["features"]
    assert store.ids is not None
    assert store.ids.read(0, N) == [str(number) for number in NUMBERS]


@pytest.mark.parametrize("save", [as_npz, as_hdf5])
def test_texts_in_a_matrix_of_one_column_name_rows(tmp_path: Path, save: Save) -> None:
    texts = np.array(FILES, dtype="S")[:, None]
    store = open_store(save(tmp_path / "a", {"features": X, "files": texts}))
    assert store.ids is not None
    assert store.ids.read(2, 5) == FILES[2:5]


@pytest.mark.parametrize("column", [NUMBERS[:, None].astype(float), NUMBERS[:-1, None].copy()])
def test_a_matrix_of_one_column_of_floats_or_of_other_rows_is_a_layer(tmp_path: Path, column: np.ndarray) -> None:
    path = as_npz(tmp_path / "a", {"features": X, "depth": column})
    if len(column) < N:
        with pytest.raises(InputError, match=f"layer depth has {N - 1} rows where features has {N}"):
            open_store(path)
    else:
        assert list(open_store(path).layers) == ["features", "depth"]


def test_integers_of_one_column_alone_are_a_layer(tmp_path: Path) -> None:
    assert list(open_store(as_npz(tmp_path / "a", {"spikes": NUMBERS[:, None]})).layers) == ["spikes"]
