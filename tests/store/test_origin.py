"""Stores of models with random weights are called so."""

import json
from pathlib import Path

import h5py
import made
import numpy as np
import pytest
from helpers import run


@pytest.mark.parametrize(
    "command",
    [("baseline",), ("bench", "layers", "--measure", "cka", "--pairs", "all"), ("inspect",), ("bench", "multilingual")],
)
def test_random_weights_stand_behind_the_name(tmp_path: Path, command: tuple[str, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    paths = [made.store(tmp_path / f"{name}.h5", {"l": x}) for name in ("trained", "control")]
    with h5py.File(paths[1], "a") as file:
        file["provenance"] = json.dumps({"config": {"random_weights": True}})
    done = run(command[0], *command[1:2], *paths, *command[2:])
    assert done.code == 0, done.stderr
    assert "control (random)" in done.stdout
    assert "trained (random)" not in done.stdout


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".SAFETENSORS"])
def test_a_store_is_not_written_under_the_name_of_another_format(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "x.npy"
    np.save(source, np.ones((3, 2)))
    out = tmp_path / f"out{suffix}"
    done = run("extract", "--from", source, "-o", out)
    assert done.code == 2
    assert (
        done.stderr
        == f"contrasim: error: -o {out}: extract writes HDF5, not {suffix}; call it {out.with_suffix('.h5')}\n"
    )
    assert not out.exists()
