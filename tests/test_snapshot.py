"""A file that is replaced or rewritten while it is opened is read as one of its versions, whole."""

import contextlib
import gzip
import json
import os
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import made
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stores import values, write

from contrasim_cli import encoder, snapshot
from contrasim_cli.errors import InputError
from contrasim_cli.extraction.sources.arrays import array_source
from contrasim_cli.snapshot import Snapshot, one_version
from contrasim_cli.store import align, open_store

Act = Callable[[], object]


def matrix(version: int) -> np.ndarray:
    """Rows of a version, which has a shape of its own."""
    return values(30 + version, 4, seed=version)


def save(path: Path, kind: str, version: int) -> None:
    """A version of a file."""
    rows = matrix(version)
    with path.open("wb") as stream:
        if kind == "npy":
            np.save(stream, rows)
        elif kind == "npz":
            np.savez(stream, x=rows, y=rows + 1)
        elif kind == "packed":
            np.savez_compressed(stream, x=rows, y=rows + 1)
        elif kind == "array":
            np.savez_compressed(stream, x=rows)
        elif kind == "pt":
            torch.save({"x": torch.from_numpy(rows), "y": torch.from_numpy(rows + 1)}, stream)
    if kind in ("h5", "plain"):
        path.unlink()
        (write if kind == "h5" else plain)(path, {"x": rows, "y": rows + 1})
    elif kind == "safetensors":
        save_file({"x": torch.from_numpy(rows), "y": torch.from_numpy(rows + 1)}, path)
    elif kind in TABLES:
        TABLES[kind](path, rows)
    elif kind == "encoder":
        made.encoder_file(path, widths=(3 + version,), seed=version)


def parquet(path: Path, rows: np.ndarray) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    pyarrow.write_table(table(rows), path, row_group_size=7)


def feather(path: Path, rows: np.ndarray) -> None:
    pytest.importorskip("pyarrow.feather").write_feather(table(rows), path, chunksize=7)


def table(rows: np.ndarray) -> Any:
    """A column of lists, and one of names."""
    return pytest.importorskip("pyarrow").table({"x": rows.tolist(), "ids": [f"r{k}" for k in range(len(rows))]})


def delimited(path: Path, rows: np.ndarray) -> None:
    np.savetxt(path, rows, delimiter=",", header="a0,a1,a2,a3", comments="")


def packed(path: Path, rows: np.ndarray) -> None:
    with gzip.open(path, "wb", 1) as stream:
        np.save(stream, rows)


def matlab(path: Path, rows: np.ndarray) -> None:
    with path.open("wb") as stream:
        pytest.importorskip("scipy.io").savemat(stream, {"x": rows, "y": rows + 1})


def zarr(path: Path, rows: np.ndarray) -> None:
    """An archive of chunks of seven rows."""
    said = {"zarr_format": 2, "shape": rows.shape, "chunks": [7, 4], "dtype": "<f4", "fill_value": 0, "order": "C"}
    padded = np.concatenate([rows, np.zeros((-len(rows) % 7, 4), np.float32)])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        archive.writestr("x/.zarray", json.dumps(said | {"filters": None, "compressor": None}))
        for k in range(len(padded) // 7):
            archive.writestr(f"x/{k}.0", padded[7 * k : 7 * k + 7].tobytes())


TABLES: dict[str, Callable[[Path, np.ndarray], None]] = {
    "parquet": parquet, "feather": feather, "csv": delimited, "npy.gz": packed, "mat": matlab, "zarr.zip": zarr,
}  # fmt: skip


def plain(path: Path, layers: dict[str, np.ndarray]) -> None:
    """HDF5 of anybody's."""
    with h5py.File(path, "w") as file:
        for name, rows in layers.items():
            file[name] = rows


def content(path: Path, kind: str) -> Any:
    """What is read of a file, values and all."""
    if kind == "encoder":
        return encoder.weights_digest(encoder.load(path).encoder.state_dict())
    if kind == "array":
        return np.concatenate(list(array_source(path).blocks(7))).tolist()
    store = open_store(path)
    try:
        view = align([store])[0]
        return [view.read(name).tolist() for name in store.layers]
    finally:
        store.close()


class _Watch:
    """Acts at the n-th opening of a file; an audit hook cannot be taken away, and is asleep without a path."""

    path = ""
    at = seen = 0
    act: Act = staticmethod(lambda: None)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not self.path or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if os.fsdecode(arguments[0]) != self.path:
            return
        self.seen += 1
        if self.seen == self.at:
            self.act()


WATCH = _Watch()
sys.addaudithook(WATCH)


@contextlib.contextmanager
def at_opening(path: Path, number: int, act: Act) -> Iterator[_Watch]:
    """Act before the n-th opening of the path."""
    WATCH.at, WATCH.seen, WATCH.act, WATCH.path = number, 0, act, str(path)
    try:
        yield WATCH
    finally:
        WATCH.path = ""


KINDS = ["h5", "plain", "npy", "npz", "packed", "array", "pt", "safetensors", "encoder", *TABLES]


@pytest.mark.parametrize("how", [os.replace, shutil.copyfile], ids=["renamed", "rewritten"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_moment_of_a_replacement_gives_one_version(tmp_path: Path, kind: str, how: Callable[..., Any]) -> None:
    path, other, mine = tmp_path / "a", tmp_path / "b", tmp_path / "a0"
    for version, name in enumerate((mine, other)):
        save(name, kind, version)
    shutil.copy(mine, path)
    first = content(path, kind)
    shutil.copy(other, path)
    second = content(path, kind)
    assert first != second
    with at_opening(path, 0, lambda: None) as watch:
        content(path, kind)
        openings = watch.seen
    assert openings > 0
    for number in range(1, openings + 1):
        shutil.copy(mine, path)
        os.utime(path, ns=(0, number))  # or the clock may not have moved on
        shutil.copy(other, tmp_path / "next")
        with at_opening(path, number, lambda: how(tmp_path / "next", path)):
            assert content(path, kind) in (first, second), number


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5", *TABLES])
def test_a_file_that_is_replaced_all_the_time_is_read_as_one_version(tmp_path: Path, kind: str) -> None:
    """By a process that puts one and then the other in its place; readers never find it damaged."""
    versions = [tmp_path / "0", tmp_path / "1"]
    for version, path in enumerate(versions):
        save(path, kind, version)
    known = [content(path, kind) for path in versions]
    assert known[0] != known[1]
    shutil.copy(versions[0], tmp_path / "a")
    pid = os.fork()
    if pid == 0:
        for k in range(10**9):
            shutil.copy(versions[k % 2], tmp_path / "next")
            os.replace(tmp_path / "next", tmp_path / "a")
            time.sleep(0.0005)
    try:
        found = [known.index(content(tmp_path / "a", kind)) for _ in range(40)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert set(found) == {0, 1}


def test_a_folder_of_chunks_that_is_exchanged_is_one_version_or_refused(tmp_path: Path) -> None:
    """A folder gets its name by a link that is replaced; its chunks are files of their own."""
    for version in range(2):
        zarr(tmp_path / f"{version}.zip", matrix(0) + version)
        shutil.unpack_archive(tmp_path / f"{version}.zip", tmp_path / f"{version}")
    known = [content(tmp_path / f"{version}", "zarr") for version in range(2)]
    (tmp_path / "a").symlink_to("0")
    pid = os.fork()
    if pid == 0:
        for k in range(10**9):
            (tmp_path / "next").symlink_to(str(k % 2))
            os.replace(tmp_path / "next", tmp_path / "a")
            time.sleep(0.0005)
    found: list[int] = []
    refused: list[str] = []
    try:
        for _ in range(60):
            try:
                found.append(known.index(content(tmp_path / "a", "zarr")))
            except InputError as error:
                refused.append(str(error))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert set(found) <= {0, 1}
    assert not [said for said in refused if "damaged" in said]


def test_opened_by_name_versions_are_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above could not fail: NumPy opens a `.npy` for its header, and again for its values."""
    monkeypatch.setattr(Snapshot, "name", property(lambda file: file.path))
    monkeypatch.setattr(snapshot, "identity_of", lambda path: (0,))
    strange = 0
    for number in range(1, 8):
        save(tmp_path / "a", "npy", 0)
        save(tmp_path / "b", "npy", 1)
        with at_opening(tmp_path / "a", number, lambda: os.replace(tmp_path / "b", tmp_path / "a")):
            strange += content(tmp_path / "a", "npy") not in ([matrix(0).tolist()], [matrix(1).tolist()])
    assert strange


def test_a_system_without_names_for_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened by their own names there, and anew where others got them."""
    monkeypatch.setattr(Snapshot, "name", property(lambda file: file.path))
    for number in range(1, 8):
        save(tmp_path / "a", "npy", 0)
        save(tmp_path / "b", "npy", 1)
        with at_opening(tmp_path / "a", number, lambda: os.replace(tmp_path / "b", tmp_path / "a")):
            assert content(tmp_path / "a", "npy") in ([matrix(0).tolist()], [matrix(1).tolist()])


def test_a_snapshot_stays_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one, and more of it")
    (tmp_path / "b").write_bytes(b"two")
    kept = Snapshot(tmp_path / "a")
    one, other = kept.reader(), kept.reader()
    assert one.read(3) == b"one"
    os.replace(tmp_path / "b", tmp_path / "a")
    assert other.read(3) == b"one"
    assert one.read() == b", and more of it"
    assert bytes(kept.content[:3]) == kept.name.read_bytes()[:3] == b"one"
    assert kept.size == 19
    assert one.seek(-2, os.SEEK_END) == 17
    assert one.read(9) == b"it"
    with pytest.raises(OSError, match="Invalid argument"):
        one.seek(-1)


def test_packed_rows_are_of_the_file_that_was_opened(tmp_path: Path) -> None:
    save(tmp_path / "a", "array", 0)
    save(tmp_path / "b", "array", 1)
    source = array_source(tmp_path / "a")
    os.replace(tmp_path / "b", tmp_path / "a")
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(8))), matrix(0))


def test_an_archive_of_many_arrays_takes_one_descriptor_and_gives_it_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{f"x{k}": matrix(0) for k in range(20)})
    before = len(os.listdir("/proc/self/fd"))
    store = open_store(tmp_path / "a.npz")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    np.testing.assert_array_equal(store.read("x19", 0, 30), matrix(0))
    del store
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_error_of_a_file_that_stays_is_raised_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    tried = []

    def read(file: Snapshot) -> None:
        tried.append(1)
        raise InputError("damaged")

    with pytest.raises(InputError, match="damaged"):
        one_version(tmp_path / "a", read)
    assert len(tried) == 1


def test_what_was_read_of_an_old_version_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    given_back: list[int] = []

    def read(file: Snapshot) -> int:
        count = len(given_back)
        if count < 2:
            (tmp_path / "a").write_bytes(bytes(count + 1))
        return count

    assert one_version(tmp_path / "a", read, given_back.append) == 2
    assert given_back == [0, 1]
