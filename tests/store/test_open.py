"""What a file is, is found by its content; several files' problems are reported together."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from stores import values, write

from contrasim_cli.errors import InputError, Problems
from contrasim_cli.store import close_stores, open_store, open_stores

A = values()
KINDS = "a store is HDF5, .npy, .npz, .safetensors, .pt, .mat, zarr, Parquet, Arrow, or a table of numbers as text (.csv, .tsv)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"is empty; {KINDS}"),
        (b"\n<!DOCTYPE html><html>", f"looks like a web page; {KINDS}"),
        (b"version https://git-lfs.github.com/v1\n", "is a Git LFS pointer, fetch the file itself with git lfs pull; a store"),
        (b"\x80\x04K\x01.", f"looks like a pickle, which is refused because it can run code; {KINDS}"),
        (b"\1word,0.1,0.2\n", f"is of no kind that is read; {KINDS}"),
        (b"\x89HDF\r\n\x1a\n", "cannot be read as HDF5 ("),
        (b"PK\x03\x04" + bytes(90), "is a damaged .npz or .pt file"),
        (b"\x93NUMPY", "cannot be read as .npy ("),
    ],
)  # fmt: skip
def test_files_of_no_kind(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_store(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "a\nb").mkdir()
    shown = {
        "nothing": "No such file or directory",
        "fifo": "it is not a regular file",
        "loop": "Too many levels of symbolic links",
        "a\nb": "it is a folder",
        "x" * 300: "File name too long",
    }
    with pytest.raises(Problems) as caught:
        open_stores([tmp_path / name for name in shown])
    folder = str(tmp_path)
    escaped = [name.replace("\n", "\\n") for name in shown]
    assert caught.value.lines == [
        f"{folder}/{name}: cannot be read: {why}" for name, why in zip(escaped, shown.values(), strict=True)
    ]
    assert caught.value.exit_code == 3


def test_stores_that_could_be_opened_are_closed_when_others_could_not(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.h5", {"x": A}) for k in range(3)]
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(InputError):
            open_stores([*paths, tmp_path / "none"])
    assert len(os.listdir("/proc/self/fd")) == len(before)
    stores = open_stores(paths)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 3
    close_stores(stores)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_refused_store_leaves_no_open_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A})
    with h5py.File(path, "r+") as file:
        file.attrs["model"] = "another"
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(InputError):
            open_store(path)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tried, plain = write(tmp_path / "a.h5", {"x": A}), [], h5py.File

    def lockless(*args: Any, **options: Any) -> h5py.File:
        tried.append(options.get("locking"))
        if options.get("locking", True):
            raise OSError(38, "unable to lock file, errno = 38, error message = 'Function not implemented'")
        return plain(*args, **options)

    monkeypatch.setattr(h5py, "File", lockless)
    store = open_store(path)
    np.testing.assert_array_equal(store.read("x", 0, 20), A)
    store.close()
    assert tried == [None, False]


WRITING = """
import h5py, sys
with h5py.File(sys.argv[1], "w") as file:
    file["x"] = [[1.0]]
    file.flush()
    print("go", flush=True)
    sys.stdin.read()
"""


def test_a_file_that_another_process_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WRITING, path], stdin=pipe, stdout=pipe, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(InputError) as caught:
            open_store(path)
        child.communicate(b"")
    assert str(caught.value) == f"{path}: another process is writing it; wait until it has finished"
    open_store(path).close()


def test_a_store_is_read_by_several_processes_and_twice_by_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A})
    with contextlib.closing(open_store(path)), contextlib.closing(open_store(path)) as again:
        done = subprocess.run(
            [sys.executable, "-c", "import h5py, sys; print(h5py.File(sys.argv[1])['layers/x'].shape)", path],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "(20, 3)\n"
        np.testing.assert_array_equal(again.read("x", 0, 20), A)


def test_a_store_that_is_replaced_while_it_is_read_stays_what_it_was(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "a.h5", {"x": A}))
    write(tmp_path / "a.h5", {"x": A + 1}, force=True)
    np.testing.assert_array_equal(store.read("x", 0, 20), A)
    store.close()


def test_files_that_are_unclear_in_one_way_share_its_readings(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.npy" for name in "abc"]
    for path, shape in zip(paths, ((10, 7, 5), (10, 7, 5), (4, 7, 5)), strict=True):
        np.save(path, np.zeros(shape, np.float32))
    with pytest.raises(Problems) as refused:
        open_stores(paths)
    first, second, third = refused.value.lines
    assert "--axes layers,rows,width (10 layers of 7 rows x 5)" in first
    assert second == f"{paths[1]}: b has 3 dimensions too: b float32 (10, 7, 5); convert it likewise"
    assert "--axes layers,rows,width (4 layers of 7 rows x 5)" in third
