"""Folders: an array per file, tensors in several files with an index, and what happens when files change or lead elsewhere."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import values

from contrasim_cli.errors import InputError
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store import align, folders, open_store
from contrasim_cli.store.folders import Watched, state
from contrasim_cli.store.npy import read_packed
from contrasim_cli.store.store import Store

safetensors = pytest.importorskip("safetensors.torch")

ROWS = 20
A = values(ROWS, 3)
IDS = np.array([f"row {k}" for k in range(ROWS)])


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_store(path)
    return str(caught.value).removeprefix(f"{path}: ")


def held(store: Store) -> dict[str, np.ndarray]:
    """Every layer of it."""
    view = align([store])[0]
    return {name: view.read(name) for name in store.layers}


# an array per file


def per_layer(path: Path, **members: np.ndarray) -> Path:
    """A folder of `.npy` files."""
    path.mkdir()
    for name, array in members.items():
        np.save(path / f"{name}.npy", array)
    return path


def test_a_file_per_layer(tmp_path: Path) -> None:
    folder = per_layer(tmp_path / "acts", layer_2=A, layer_10=A + 1, ids=IDS)
    (folder / "conv.1.npy.gz").write_bytes(gzip.compress((folder / "layer_2.npy").read_bytes()))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "below").mkdir()
    store = open_store(folder)
    assert (store.kind, store.stem, list(store.layers)) == (
        "folder of arrays",
        "acts",
        ["conv.1", "layer_2", "layer_10"],
    )
    assert [path.name for path in store.files] == ["conv.1.npy.gz", "ids.npy", "layer_10.npy", "layer_2.npy"]
    found = held(store)
    np.testing.assert_array_equal(found["layer_10"], A + 1)
    np.testing.assert_array_equal(found["conv.1"], A)
    assert store.ids is not None
    assert store.ids.read(0, ROWS) == IDS.tolist()


def test_a_tensor_per_file(tmp_path: Path) -> None:
    (tmp_path / "acts").mkdir()
    for name in ("b", "a"):
        torch.save(torch.from_numpy(A), tmp_path / "acts" / f"{name}.pt")
    assert list(open_store(tmp_path / "acts").layers) == ["a", "b"]


def test_other_files_are_passed_over_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = per_layer(tmp_path / "acts", x=A)
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(b"\x80\x04")
    assert list(open_store(folder).layers) == ["x"]
    assert "config.json" in caplog.text
    assert "model.bin" in caplog.text


def test_folders_that_are_no_store_or_an_unclear_one(tmp_path: Path) -> None:
    folder = per_layer(tmp_path / "acts", x=A)
    (folder / "x.npy.gz").write_bytes(gzip.compress((folder / "x.npy").read_bytes()))
    assert refusal(folder) == "two files are named x; keep one of them"
    (folder / "x.npy.gz").write_bytes(gzip.compress(b"hello"))
    assert refusal(folder / "x.npy.gz").startswith("holds text and no numbers")
    several = tmp_path / "several"
    several.mkdir()
    torch.save({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}, several / "m.pt")
    assert refusal(several) == "m.pt holds several arrays, so that it is a store by itself; give the file"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == "cannot be read: it is a folder"


# links


@pytest.mark.parametrize("name", ["layer.npy", "other.txt"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    folder = per_layer(tmp_path / "acts", x=A)
    np.save(tmp_path / "secret.npy", A)
    (folder / name).symlink_to("../secret.npy")
    assert refusal(folder) == f"{name} leads out of the folder; only files inside it are read"
    (folder / name).unlink()
    (folder / name).symlink_to("x.npy")
    assert "x" in open_store(folder).layers
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    assert refusal(folder).startswith(f"{name} cannot be read: ")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refusal(folder) == f"{name} cannot be read: it is not a regular file"


def test_a_folder_that_is_a_link_is_read(tmp_path: Path) -> None:
    per_layer(tmp_path / "acts", x=A)
    (tmp_path / "link").symlink_to("acts")
    np.testing.assert_array_equal(open_store(tmp_path / "link").read("x", 0, ROWS), A)


def test_links_of_the_hub_are_followed(tmp_path: Path) -> None:
    """Its cache keeps files as blobs, and snapshots of links to them; nothing else beside a snapshot is read."""
    hub = tmp_path / "models--a--b"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots").mkdir()
    folder = per_layer(hub / "snapshots/0123", x=A)
    (folder / "x.npy").rename(hub / "blobs/4567")
    (folder / "x.npy").symlink_to("../../blobs/4567")
    np.testing.assert_array_equal(open_store(folder).read("x", 0, ROWS), A)
    (folder / "y.npy").symlink_to("../../../secret")
    (tmp_path / "secret").write_bytes(b"x")
    assert refusal(folder) == "y.npy leads out of the folder; only files inside it are read"


# files that change


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    folder = per_layer(tmp_path / "acts", x=A, y=A + 1)
    store = open_store(folder)
    np.testing.assert_array_equal(store.read("y", 0, 5), A[:5] + 1)
    np.save(tmp_path / "new.npy", A + 2)
    os.replace(tmp_path / "new.npy", folder / "y.npy")
    np.testing.assert_array_equal(store.read("x", 0, ROWS), A)
    message = f"{folder / 'y.npy'}: has changed while it was read; wait until it has been written, and start again"
    with pytest.raises(InputError) as caught:
        store.read("y", 0, ROWS)
    assert str(caught.value) == message
    (folder / "x.npy").unlink()
    with pytest.raises(InputError, match=r"x\.npy: cannot be read: No such file"):
        store.read("x", 0, ROWS)


def test_a_file_that_changes_while_the_folder_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = per_layer(tmp_path / "acts", x=A)
    states = iter([(0,), (1,)])
    monkeypatch.setattr("contrasim_cli.store.folders.state", lambda path: next(states))
    monkeypatch.setattr(folders, "state", lambda path: next(states))
    assert "has changed while it was read" in refusal(folder)


def test_what_is_watched_is_read_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", A)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    watched = Watched(mapped, tmp_path / "x.npy", state(tmp_path / "x.npy"))
    block = watched[2:5]
    assert not np.shares_memory(block, mapped)
    np.testing.assert_array_equal(block, A[2:5])
    np.testing.assert_array_equal(watched[2:5, 1], A[2:5, 1])
    assert (watched.shape, watched.dtype, watched.chunks) == ((ROWS, 3), np.float32, None)


# packed arrays


@pytest.mark.parametrize("array", [A, np.asfortranarray(A), A.astype(">f8"), A[:0], np.float32(3)])
def test_packed_arrays(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.npy.gz").write_bytes(gzip.compress((tmp_path / "a.npy").read_bytes()))
    found = read_packed(Snapshot(tmp_path / "a.npy.gz"))
    if np.ndim(array):
        np.testing.assert_array_equal(found.arrays["a"][slice(None)], array)
        assert found.arrays["a"].dtype == array.dtype
    else:
        assert found.passed == {"a": "one value of float32"}


def test_packed_arrays_that_are_damaged_or_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.npy.gz"
    np.save(tmp_path / "a.npy", np.zeros((1 << 10, 1 << 10)))
    content = gzip.compress((tmp_path / "a.npy").read_bytes())
    path.write_bytes(content)
    assert len(content) < (8 << 20) / 100
    read_packed(Snapshot(path), 8 << 20)
    with pytest.raises(InputError, match="--memory"):
        read_packed(Snapshot(path), (8 << 20) - 1)
    path.write_bytes(content[:-1000])
    assert "the file is damaged" in refusal(path)
    path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    assert "CRC check failed" in refusal(path)
    raw = (tmp_path / "a.npy").read_bytes()
    path.write_bytes(gzip.compress(raw.replace(b"(1024, 1024)", b"(1024, 9024)")))
    assert refusal(path) == "cannot be read as .npy.gz (it ends within its array); the file is damaged"
    path.write_bytes(gzip.compress(raw + b"x"))
    assert refusal(path) == "cannot be read as .npy.gz (something is behind its array); the file is damaged"
    path.write_bytes(gzip.compress(raw.replace(b"(1024, 1024)", b"(-102, 1024)")))
    assert "the file is damaged" in refusal(path)
    np.save(tmp_path / "a.npy", np.array([None]), allow_pickle=True)
    path.write_bytes(gzip.compress((tmp_path / "a.npy").read_bytes()))
    assert refusal(path) == "cannot be read as .npy.gz (it holds Python objects); the file is damaged"


# tensors in several files


def sharded(path: Path, places: dict[str, dict[str, torch.Tensor]]) -> Path:
    """A folder of safetensors with an index."""
    path.mkdir(exist_ok=True)
    for file, tensors in places.items():
        safetensors.save_file(tensors, path / file)
    index(path, {tensor: file for file, tensors in places.items() for tensor in sorted(tensors)})
    return path


def index(path: Path, places: Any) -> None:
    said = {"metadata": {"total_size": 1}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(said))


T = torch.from_numpy(A)
FILES = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
PLACES = {FILES[0]: {"layer_10": T, "layer_2": T + 1}, FILES[1]: {"layer_11": T + 2}}


@pytest.mark.parametrize("given", ["", "model.safetensors.index.json"])
def test_tensors_in_several_files(tmp_path: Path, given: str) -> None:
    folder = sharded(tmp_path / "acts", PLACES)
    store = open_store(folder / given)
    assert (store.kind, list(store.layers)) == ("safetensors in several files", ["layer_2", "layer_10", "layer_11"])
    assert [path.name for path in store.files] == ["model.safetensors.index.json", *FILES]
    found = held(store)
    for name, right in {"layer_2": A + 1, "layer_10": A, "layer_11": A + 2}.items():
        np.testing.assert_array_equal(found[name], right)
    safetensors.save_file({"layer_11": T + 9}, folder / FILES[1])
    with pytest.raises(InputError, match="has changed while it was read"):
        store.read("layer_11", 0, 3)


def test_half_precision_is_widened_as_it_is_read(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "acts", {FILES[0]: {"x": T.bfloat16()}})
    np.testing.assert_array_equal(open_store(folder).read("x", 0, ROWS), T.bfloat16().float().numpy())


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/outside.safetensors", "below/../../outside.safetensors", "a\0b", "."]
)
def test_an_index_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    folder = sharded(tmp_path / "acts", PLACES)
    (folder / "below").mkdir()
    outside = tmp_path / "outside.safetensors"
    safetensors.save_file({"x": T}, outside)
    index(folder, {"x": name.replace("/outside", str(outside.with_suffix(""))) if name.startswith("/") else name})
    message = refusal(folder)
    assert message.endswith(
        (
            "leads out of the folder; only files inside it are read",
            "it is not the name of a file",
            "it is not a regular file",
        )
    )
    (folder / FILES[0]).unlink()
    (folder / FILES[0]).symlink_to("../outside.safetensors")
    index(folder, {"x": FILES[0]})
    assert refusal(folder) == f"{FILES[0]} leads out of the folder; only files inside it are read"


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "acts", PLACES)
    file = folder / "model.safetensors.index.json"
    index(folder, {"layer_2": FILES[0], "layer_11": FILES[1]})
    assert f"says that layer_10 does not lie in {FILES[0]}, which is not so" in refusal(folder)
    index(folder, {**{name: file for file, names in PLACES.items() for name in names}, "more": FILES[1]})
    assert (
        refusal(folder)
        == f"{file}: says that more lies in {FILES[1]}, which is not so; the files do not belong together"
    )
    index(folder, {"x": "none.safetensors"})
    assert refusal(folder) == "none.safetensors cannot be read: No such file or directory"
    for places in ({}, [], 3, {"x": 3}):
        index(folder, places)
        assert refusal(file) == "its weight_map does not say which file each tensor lies in; the file is damaged"
    index(folder, {"layer_11": FILES[1]})
    shutil.copy(file, folder / "other.safetensors.index.json")
    assert refusal(folder) == (
        "holds several indices: model.safetensors.index.json, other.safetensors.index.json; give the one that is meant"
    )
    file.write_text("[" * 100_000)
    (folder / "other.safetensors.index.json").unlink()
    assert refusal(folder) == "cannot be read: it is a folder"


def test_an_index_that_names_itself_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "acts"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": index.name}}))
    assert refusal(index) == "is an index of other files, not a file of arrays"
    assert refusal(folder) == f"{index}: is an index of other files, not a file of arrays"
