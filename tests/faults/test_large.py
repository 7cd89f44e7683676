"""Large files without a seal are read: HDF5 of somebody else's with as much in it as people bring."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from contrasim_cli.store import open_store

SMALL = np.arange(32, dtype=np.float32).reshape(8, 4)
TEXT = h5py.string_dtype("utf-8")


def layers(file: h5py.File, count: int) -> None:
    for number in range(count):
        file[f"layer_{number}"] = SMALL + number


def sentences(file: h5py.File, count: int) -> None:
    for number in range(count):
        file[str(number)] = (SMALL + number)[None, :5]
    file.create_dataset("sentence_to_index", data=[json.dumps({f"s {k}": str(k) for k in range(count)})], dtype=TEXT)


def ids(file: h5py.File, count: int) -> None:
    file["x"] = np.arange(count, dtype=np.float32)[:, None]
    file.create_dataset("ids", data=np.array([f"{k}" for k in range(count)], object), dtype=TEXT)


def packed_ids(file: h5py.File, count: int) -> None:
    file.create_dataset("x", data=np.arange(count, dtype=np.float32)[:, None], compression="gzip")
    file.create_dataset("ids", data=np.arange(count).astype("S8"), compression="gzip", chunks=(count,))


@pytest.mark.parametrize(
    ("make", "count", "n_layers", "n_rows"),
    [
        (layers, 10_000, 10_000, 8),
        (sentences, 20_000, 1, 100_000),
        (ids, 2_000_000, 1, 2_000_000),
        (packed_ids, 2_000_000, 1, 2_000_000),
    ],
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_as_much_as_people_bring(
    tmp_path: Path,
    long: bool,
    make: Callable[[h5py.File, int], None],
    count: int,
    n_layers: int,
    n_rows: int,
    libver: str,
) -> None:
    """A hundredth of it without --faults=long."""
    share = 1 if long else 100
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        make(file, count // share)
    store = open_store(tmp_path / "a.h5")
    assert len(store.layers) == (n_layers // share if make is layers else n_layers)
    assert store.n_rows == (n_rows if make is layers else n_rows // share)
    last = list(store.layers)[-1]
    assert store.read(last, store.n_rows - 1, store.n_rows)[0, -1] > 0
    if store.ids is not None:
        assert len(set(store.ids.read(0, 5))) == 5
    store.close()
