"""Folders of thingsvision: features, whole or in parts, and the names of their rows."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from contrasim_cli.errors import InputError
from contrasim_cli.store import Hints, align, open_store

ROWS = 11
A = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
PARTS = {f"features_{part:02d}": A[start:stop] for part, (start, stop) in enumerate([(0, 5), (5, 9), (9, 11)], 1)}


def folder(path: Path, names: list[str] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    lines = [f"img/{row}.jpg" for row in range(ROWS)] if names is None else names
    (path / "file_names.txt").write_text("".join(f"{line}\n" for line in lines))
    return path


def as_npy(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)


def as_pt(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        torch.save(torch.from_numpy(array.copy()), path / f"{name}.pt")


def as_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with h5py.File(path / "features.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array


def as_txt(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        np.savetxt(path / f"{name}.txt", array)


def as_matrices(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As older versions write MATLAB files."""
    io = pytest.importorskip("scipy.io")
    for name, array in arrays.items():
        io.savemat(path / f"{name}.mat", {"features": array})


def as_variables(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As newer ones do: a variable per row, named for its file."""
    io = pytest.importorskip("scipy.io")
    names = iter((path / "file_names.txt").read_text().split())
    for name, array in arrays.items():
        rows = {next(names).removesuffix(".jpg"): row for row in array}
        io.savemat(path / f"{name}.mat", dict(reversed(rows.items())))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_store(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("arrays", [{"features": A}, PARTS], ids=["whole", "parts"])
@pytest.mark.parametrize("save", [as_npy, as_pt, as_hdf5, as_txt, as_matrices, as_variables])
def test_features_are_a_layer_and_file_names_its_ids(
    tmp_path: Path, save: Callable[[Path, dict[str, np.ndarray]], None], arrays: dict[str, np.ndarray]
) -> None:
    path = folder(tmp_path / "model")
    save(path, arrays)
    (path / "config.json").write_text("{}")
    store = open_store(path)
    assert (store.kind, store.stem, list(store.layers)) == ("thingsvision", "model", ["features"])
    np.testing.assert_array_equal(align([store])[0].read("features"), A)
    np.testing.assert_array_equal(store.read("features", 4, 10), A[4:10])
    assert store.ids is not None
    assert store.ids.read(9, 11) == ["img/9.jpg", "img/10.jpg"]
    assert not store.ids.automatic
    store.close()


def test_parts_are_sorted_as_numbers(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_npy(path, {f"features_{row + 1}": A[row : row + 1] for row in range(ROWS)})
    np.testing.assert_array_equal(open_store(path).read("features", 0, ROWS), A)


def test_arrays_that_each_have_all_rows_are_layers(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_npy(path, {"features_01": A, "features_02": A * 2})
    store = open_store(path)
    assert list(store.layers) == ["features_01", "features_02"]
    np.testing.assert_array_equal(store.read("features_02", 0, ROWS), A * 2)


def test_what_does_not_add_up_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_npy(path, {name: array for name, array in PARTS.items() if name != "features_02"})
    assert refusal(path) == (
        "file_names.txt has 11 lines, which are not the rows of features_01 (5, 3), features_03 (2, 3); correct one of them"
    )
    as_npy(path, PARTS | {"features": A})
    assert refusal(path).startswith(
        "file_names.txt has 11 lines, which are not the rows of features (11, 3), features_01"
    )
    as_npy(folder(tmp_path / "wide"), {"features": A.reshape(ROWS, 3, 1)})
    assert refusal(tmp_path / "wide") == (
        "features is float32 (11, 3, 1); expected numbers [rows, width]: flatten them"
    )


def test_two_files_of_the_same_features_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_npy(path, {"features": A})
    as_hdf5(path, {"features": A})
    assert refusal(path) == "two files hold features; keep one, or give the file itself"
    as_hdf5(path, {"other": A})
    assert (
        refusal(path)
        == "other is not a name that thingsvision writes; expected features or features_01, features_02, …"
    )


def test_features_without_names_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_npy(path, {"features": A})
    (path / "file_names.txt").unlink()
    assert refusal(path) == ("holds features.npy, but no file_names.txt that names its rows; give the file itself")
    open_store(path / "features.npy").close()


def test_parts_without_their_names_are_ambiguous_until_keys_are_said(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_hdf5(path, PARTS)
    file = path / "features.hdf5"
    assert refusal(file) == (
        "are these layers, or parts of the rows of one, as thingsvision writes them? features_01 float32 (5, 3), "
        "features_02 float32 (4, 3), features_03 float32 (2, 3); give the folder with its file_names.txt, or convert it with "
        "contrasim extract --from FILE, and say which they are: --keys rows --axes rows,width (1 layer of 11 rows x 3) or "
        "pool,width (1 layer of 3 rows x 3); other orders of the words work too (contrasim guide hooks)"
    )
    store = open_store(file, Hints(keys="rows"))
    assert list(store.layers) == ["features"]
    np.testing.assert_array_equal(store.read("features", 0, ROWS), A)


def test_a_folder_that_holds_none_is_a_folder(tmp_path: Path) -> None:
    assert refusal(folder(tmp_path / "model")) == "cannot be read: it is a folder"


def test_variables_that_are_not_the_rows_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_variables(path, {"features": A})
    folder(path, [f"img/{row}.jpg" for row in range(ROWS - 1)])
    assert (
        refusal(path)
        == "img/10 is not a variable of its own in the .mat files and in file_names.txt; correct one of them"
    )
    folder(path, [f"img/{row}.jpg" for row in range(ROWS + 1)])
    assert (
        refusal(path)
        == "img/11 is not a variable of its own in the .mat files and in file_names.txt; correct one of them"
    )
    folder(path, [*(f"img/{row}.jpg" for row in range(ROWS)), "img/3.png"])
    assert (
        refusal(path)
        == "img/3 is not a variable of its own in the .mat files and in file_names.txt; correct one of them"
    )


def test_features_that_change_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    as_npy(path, {"features": A})
    store = open_store(path)
    store.read("features", 0, 3)
    as_npy(path, {"features": A + 1})
    with pytest.raises(InputError, match="has changed while it was read"):
        store.read("features", 0, 3)
