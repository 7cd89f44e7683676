import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from contrasim_cli.errors import InputError, MismatchError, OutputError, UsageError
from contrasim_cli.extraction.importing import ImportOptions, import_file, planned
from contrasim_cli.extraction.sources.open import Choice, file_digest
from contrasim_cli.store import Hints, Store, align, blocks, open_store

RNG = np.random.default_rng(0)
A = RNG.normal(size=(7, 3)).astype(np.float32)
B = RNG.normal(size=(7, 4)).astype(np.float16)
CUBE = RNG.normal(size=(2, 7, 3)).astype(np.float32)


def write_npz(path: Path) -> None:
    np.savez(path, a=A, b=B)


def write_safetensors(path: Path) -> None:
    save_file({"a": A, "b": B}, path)


def write_pt(path: Path) -> None:
    torch.save({"a": torch.from_numpy(A), "b": torch.from_numpy(B)}, path)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = A, B


WRITERS: dict[str, Callable[[Path], None]] = {
    "x.npz": write_npz,
    "x.safetensors": write_safetensors,
    "x.pt": write_pt,
    "x.h5": write_hdf5,
}


def converted(path: Path, **options: object) -> Store:
    output = path.with_name("out.h5")
    import_file(path, replace(ImportOptions(output, force=True), **options))
    return open_store(output)


def ids(store: Store) -> list[str]:
    assert store.ids is not None
    return store.ids.read(0, store.n_rows)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_keeps_its_values_and_types(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    store = converted(tmp_path / name)
    assert store.kind == "contrasim store"
    for layer, values in {"a": A, "b": B}.items():
        assert store.layer(layer).dtype == values.dtype
        np.testing.assert_array_equal(store.read(layer, 0, 7), values)
    assert store.ids is not None
    assert (ids(store)[-1], store.ids.automatic) == ("6", True)
    assert store.ids.source == file_digest(tmp_path / name)
    assert (store.attrs["data"], store.attrs["unit"]) == (name, "row")


def test_an_npy_matrix_is_one_layer(tmp_path: Path) -> None:
    np.save(tmp_path / "acts.npy", A)
    np.testing.assert_array_equal(converted(tmp_path / "acts.npy").read("acts", 0, 7), A)


def test_bfloat16_and_integers_become_float32(tmp_path: Path) -> None:
    tensors = {"h": torch.from_numpy(A).bfloat16(), "i": torch.arange(14).view(7, 2)}
    torch.save(tensors, tmp_path / "x.pt")
    store = converted(tmp_path / "x.pt")
    for name, tensor in tensors.items():
        assert store.layer(name).dtype == np.float32
        np.testing.assert_array_equal(store.read(name, 0, 7), tensor.float().numpy())


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors", "x.pt", "x.h5"])
@pytest.mark.parametrize(
    ("axes", "cube"), [("layers,rows,width", CUBE), ("rows, layers, width", CUBE.transpose(1, 0, 2))]
)
def test_axes_say_what_a_cube_is(tmp_path: Path, name: str, axes: str, cube: np.ndarray) -> None:
    cube, path = np.ascontiguousarray(cube), tmp_path / name
    if name == "x.npy":
        np.save(path, cube)
    elif name == "x.npz":
        np.savez(path, c=cube)
    elif name == "x.safetensors":
        save_file({"c": cube}, path)
    elif name == "x.pt":
        torch.save(torch.from_numpy(cube), path)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("c", data=cube, chunks=(1, 2, 3))
    store = converted(path, hints=Hints(axes=axes))
    assert list(store.layers) == ["layer_0", "layer_1"]
    for index in range(2):
        np.testing.assert_array_equal(store.read(f"layer_{index}", 0, 7), CUBE[index])


def test_a_cube_without_axes_is_refused_with_the_remedy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", CUBE)
    with pytest.raises(InputError, match=r"--axes layers,rows,width \(2 layers of 7 rows x 3\)"):
        converted(tmp_path / "x.npy")
    with pytest.raises(UsageError) as caught:
        converted(tmp_path / "x.npy", hints=Hints(axes="layers,parts,width"))
    assert str(caught.value) == (
        "--axes layers,parts,width: parts is not a word for an axis; write one per axis of the array: layers, rows, width or "
        "pool, as in rows,layers,width"
    )


def test_axes_that_fit_no_array_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz")
    with pytest.raises(InputError) as caught:
        converted(tmp_path / "x.npz", hints=Hints(axes="rows,layers,width"))
    assert str(caught.value) == (
        f"{tmp_path / 'x.npz'}: --axes rows,layers,width fits no array of it; it holds a float32 (7, 3), b float16 (7, 4)"
    )


def test_what_a_file_says_itself_is_not_said_again(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz")
    import_file(tmp_path / "x.npz", ImportOptions(tmp_path / "own.h5"))
    with pytest.raises(UsageError, match=r"--keys rows is for files that do not say so .*own\.h5 is a contrasim store"):
        converted(tmp_path / "own.h5", hints=Hints(keys="rows"))


def test_layers_limit_type_and_ids_are_chosen(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz")
    (tmp_path / "ids.txt").write_text("".join(f"r{row}\n" for row in range(7)))
    store = converted(
        tmp_path / "x.npz", layers=["b"], choice=Choice(tmp_path / "ids.txt", limit=3), store_dtype="float64"
    )
    assert list(store.layers) == ["b"]
    assert ids(store) == ["r0", "r1", "r2"]
    np.testing.assert_array_equal(store.read("b", 0, 3), B[:3].astype(np.float64))


def test_ids_of_another_count_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz")
    (tmp_path / "ids.txt").write_text("a\nb\n")
    with pytest.raises(MismatchError, match="has 2 ids for the 7 rows of"):
        converted(tmp_path / "x.npz", choice=Choice(ids=tmp_path / "ids.txt"))


def test_ids_in_the_file_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=A, ids=np.array([f"q{row}" for row in range(7)]))
    assert ids(converted(tmp_path / "x.npz"))[:2] == ["q0", "q1"]


def test_a_store_of_our_own_keeps_what_it_says(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz")
    import_file(tmp_path / "x.npz", ImportOptions(tmp_path / "one.h5", attrs={"model": "m", "pooling": "cls"}))
    store = converted(tmp_path / "one.h5", store_dtype="float16", attrs={"unit": "word"})
    assert [store.attrs[name] for name in ("model", "data", "unit", "pooling")] == ["m", "x.npz", "word", "cls"]
    assert store.ids is not None
    assert store.ids.source == file_digest(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, None, r"x\.npy: layer x: row 5 holds nan in column 2; activations must be finite"),
        (1e6, "float16", r"x\.npy: layer x: 1e\+06 does not fit float16; store it as float32"),
    ],
)
def test_values_that_cannot_be_stored_are_refused(
    tmp_path: Path, value: float, dtype: str | None, message: str
) -> None:
    bad = A.copy()
    bad[5, 2] = value
    np.save(tmp_path / "x.npy", bad)
    with pytest.raises(InputError, match=message):
        converted(tmp_path / "x.npy", store_dtype=dtype)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_chosen_by_id_and_keep_their_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2 * 4 * 4)  # two rows to a block
    WRITERS[name](tmp_path / name)
    (tmp_path / "only.txt").write_text("5\n1\n2\n6\n")
    store = converted(tmp_path / name, choice=Choice(only=tmp_path / "only.txt", skip=1))
    assert ids(store) == ["2", "5", "6"]
    for layer, values in {"a": A, "b": B}.items():
        np.testing.assert_array_equal(store.read(layer, 0, 3), values[[2, 5, 6]])


def test_words_of_somebody_elses_line_up_with_our_own(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["0"], file["1"] = CUBE[:, :4], CUBE[:, 4:]
        file["sentence_to_index"] = json.dumps({"a b c d": "0", "e f g": "1"})
    store = converted(tmp_path / "w.h5")
    assert ids(store)[3:5] == ["0:3", "1:0"]
    assert store.attrs["unit"] == "word"
    np.testing.assert_array_equal(store.read("layer_1", 0, 7), CUBE[1])
    assert align([store, open_store(tmp_path / "w.h5")])[0].n_rows == 7


def test_a_folder_of_thingsvision(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    np.save(folder / "features.npy", A)
    (folder / "file_names.txt").write_text("".join(f"{row}.jpg\n" for row in range(7)))
    first = converted(folder)
    assert ids(first)[6] == "6.jpg"
    assert first.attrs["data"] == "model"
    before = first.provenance["config"]["input_digest"]
    (folder / "notes.txt").write_text("no part of it")
    assert converted(folder).provenance["config"]["input_digest"] == before
    np.save(folder / "features.npy", A + 1)
    assert converted(folder).provenance["config"]["input_digest"] != before


def test_a_plan_says_what_would_be_written(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz")
    plan = planned(tmp_path / "x.npz", ImportOptions(tmp_path / "out.h5", choice=Choice(limit=4)))
    assert (plan.rows, plan.widths, plan.bytes) == (4, {"a": 3, "b": 4}, 4 * 3 * 4 + 4 * 4 * 2)
    assert not (tmp_path / "out.h5").exists()


def test_a_full_disk_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "x.npz")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OutputError) as caught:
        converted(tmp_path / "x.npz")
    assert str(caught.value) == (
        f"{tmp_path / 'out.h5'}: needs 140 B of disk (2 layers x 7 rows x 3-4, 140 B), and 100 B are free; choose fewer "
        "--layers, --store-dtype float16, or another disk"
    )


def test_a_folder_is_known_by_all_that_was_read_of_it(tmp_path: Path) -> None:
    (tmp_path / "acts").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "acts" / f"{name}.npy", A)
    first = converted(tmp_path / "acts")
    np.testing.assert_array_equal(first.read("b", 0, 7), A)
    assert first.attrs["data"] == "acts"
    (tmp_path / "acts/notes.txt").write_text("not read")
    assert converted(tmp_path / "acts").ids.source == first.ids.source
    np.save(tmp_path / "acts/b.npy", A + 1)
    assert converted(tmp_path / "acts").ids.source != first.ids.source


def test_a_table_of_text_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ids,f0,f1\nx,0.1,2\ny,3,4e-3\n")
    store = converted(tmp_path / "a.csv")
    assert (ids(store), store.layer("a").dtype) == (["x", "y"], np.float64)
    np.testing.assert_array_equal(store.read("a", 0, 2), [[0.1, 2], [3, 4e-3]])
