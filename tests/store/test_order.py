"""The order of layers is the one in which a file holds them, where its container keeps one; numbers that are names."""

import logging
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import oracles
import pytest
import torch
from helpers import run
from safetensors.numpy import save_file

from contrasim_cli.store import open_store, select_layers

NAMES = ["conv1", "layer1", "layer10", "layer2", "fc"]
BY_NAME = ["conv1", "fc", "layer1", "layer2", "layer10"]
LAYERS = {name: np.random.default_rng(k).normal(size=(9, 4)).astype(np.float32) for k, name in enumerate(NAMES)}

Save = Callable[[Path], None]


def npz(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **LAYERS)


def packed_npz(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, **LAYERS)


def torch_dict(path: Path) -> None:
    torch.save({name: torch.from_numpy(layer) for name, layer in LAYERS.items()}, path)


def tracked_hdf5(path: Path) -> None:
    with h5py.File(path, "w", track_order=True) as file:
        for name, layer in LAYERS.items():
            file[name] = layer


def tracked_group(path: Path) -> None:
    with h5py.File(path, "w") as file:  # whose root holds but one thing, so that there is no order to keep
        group = file.create_group("acts", track_order=True)
        for name, layer in LAYERS.items():
            group[name] = layer


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, layer in LAYERS.items():
            file[name] = layer


def tracked_within_untracked(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("acts", track_order=True)
        for name, layer in LAYERS.items():
            group[name] = layer
        file["other"] = LAYERS["fc"]


def safetensors(path: Path) -> None:
    save_file(LAYERS, path)


@pytest.mark.parametrize("save", [npz, packed_npz, torch_dict, tracked_hdf5, tracked_group])
def test_the_order_of_the_file_is_kept(tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a")
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        store = open_store(tmp_path / "a")
    assert [name.removeprefix("acts/") for name in store.layers] == NAMES
    assert caplog.messages == [f"{tmp_path / 'a'}: its 5 layers are in the order of the file"]
    assert store.facts["order_of_layers"] == "in the order of the file"


@pytest.mark.parametrize("save", [hdf5, safetensors])
def test_names_are_sorted_where_the_file_keeps_no_order(
    tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "a")
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        store = open_store(tmp_path / "a")
    assert list(store.layers) == BY_NAME
    assert caplog.messages == [f"{tmp_path / 'a'}: its 5 layers are sorted by name, since the file keeps no order"]


def test_an_order_that_is_kept_in_parts_is_none(tmp_path: Path) -> None:
    tracked_within_untracked(tmp_path / "a")
    assert list(open_store(tmp_path / "a").layers) == [*(f"acts/{name}" for name in BY_NAME), "other"]


def test_one_layer_has_no_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "a.npz", x=LAYERS["fc"])
    with caplog.at_level(logging.INFO, "contrasim_cli"):
        assert "order_of_layers" not in open_store(tmp_path / "a.npz").facts
    assert not caplog.messages


def test_the_last_layer_is_the_last_of_the_file(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz")
    hdf5(tmp_path / "b.h5")
    for second, last in (("a.npz", "fc"), ("b.h5", "layer10")):
        done = run("baseline", tmp_path / "a.npz", tmp_path / second, "--layers", -1, "--format", "json")
        assert done.code == 0
        expected = oracles.cka(LAYERS["fc"].astype(float), LAYERS[last].astype(float))
        assert f'"layer_b": "{last}"' in done.stdout
        assert abs(float(done.stdout.split('"score": ')[1].split(",")[0].split("}")[0]) - expected) < 1e-6


def test_inspect_says_which_order_it_is(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz")
    hdf5(tmp_path / "b.h5")
    done = run("inspect", tmp_path / "a.npz", tmp_path / "b.h5", "--format", "json")
    assert '"order_of_layers": "in the order of the file"' in done.stdout
    assert '"order_of_layers": "sorted by name, since the file keeps no order"' in done.stdout


# numbers that are names


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["1", "2", "3"], "1", ["1"]),
        (["1", "2", "3"], "1-2", ["1", "2"]),  # as names, and not the positions 1 to 2
        (["3", "1", "2"], "1-2", ["1", "2"]),
        (["0", "1", "2"], "1-2", ["1", "2"]),
        (["01", "02"], "1", ["01"]),
        (["1", "2", "fc"], "1-2", ["1", "2"]),
        (["1", "2", "fc"], "2", ["2"]),
        (["a", "b", "c"], "1-2", ["b", "c"]),
        (["1", "2", "3"], "-1", ["3"]),
    ],
)
def test_numbers_mean_names_where_names_are_numbers(names: list[str], pattern: str, expected: list[str]) -> None:
    assert select_layers(names, [pattern], where="a.npz") == expected


@pytest.mark.parametrize("pattern", ["0", "0-1", "3-4"])
def test_a_number_that_is_no_name_is_no_position_there(pattern: str) -> None:
    with pytest.raises(Exception, match="matches no layer"):
        select_layers(["1", "2", "3"], [pattern], where="a.npz")
