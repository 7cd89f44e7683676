"""Files as people have them, through the command line: the number that comes out is the one of the formula."""

from pathlib import Path

import h5py
import numpy as np
import oracles
import pytest
import torch
from helpers import Result, run

from contrasim_cli.store import open_store


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def score(*args: object) -> float:
    done = run("baseline", *args, "--format", "value")
    assert done.code == 0, done
    return float(done.stdout)


def extracted(source: str, *options: object) -> str:
    target = f"{source}.store"
    done = run("extract", "--from", source, *options, "-o", target)
    assert done.code == 0, done
    return target


def inspected(*paths: str) -> tuple[list[list[str]], Result]:
    """Layer, rows and width of every layer."""
    done = run("inspect", *paths)
    assert done.code == 0, done
    return [line.split("\t")[1:4] for line in done.stdout.splitlines()[1:]], done


def related(rng: np.random.Generator, rows: int, widths: tuple[int, int]) -> list[np.ndarray]:
    shared = rng.normal(size=(rows, 6))
    return [shared @ rng.normal(size=(6, width)) + rng.normal(size=(rows, width)) for width in widths]


def test_matlab(rng: np.random.Generator) -> None:
    x, y = related(rng, 60, (16, 16))
    for path, matrix in (("a.mat", x), ("b.mat", y)):
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_dataset("feat", data=matrix.T.copy()).attrs["MATLAB_class"] = np.bytes_("double")
        with open(path, "r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    assert abs(score("a.mat", "b.mat") - oracles.cka(x, y)) < 1e-6
    assert abs(score("a.mat", "b.mat") - oracles.cka(x.T, y.T)) > 0.01


def test_batch_position_width(rng: np.random.Generator) -> None:
    batch, positions = 8, 10
    models = []
    for name in "ab":
        layers = {f"layer_{k}": rng.normal(size=(batch, positions, 32)).astype("f4") for k in range(4)}
        np.savez(f"{name}.npz", **layers)
        models.append(layers)
    stores = [extracted(f"{name}.npz", "--axes", "rows,rows,width") for name in "ab"]
    a, b = (model["layer_1"].reshape(-1, 32) for model in models)
    assert inspected(stores[0])[0] == [[f"layer_{k}", "80", "32"] for k in range(4)]
    assert abs(score(*stores, "--layers", "layer_1") - oracles.cka(a, b)) < 1e-6
    assert open_store(Path(stores[0])).ids.read(10, 12) == ["1:0", "1:1"]


def test_order_of_layers(rng: np.random.Generator) -> None:
    names = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    a, b = ({name: rng.normal(size=(50, 9)) for name in names} for _ in range(2))
    np.savez("a.npz", **a)
    torch.save({name: torch.from_numpy(layer) for name, layer in b.items()}, "b.pt")
    assert abs(score("a.npz", "b.pt", "--layers", -1) - oracles.cka(a["fc"], b["fc"])) < 1e-6
    assert (
        abs(score("a.npz", "b.pt", "--layers-a", 1, "--layers-b", "layer4") - oracles.cka(a["layer1"], b["layer4"]))
        < 1e-6
    )


def test_netcdf(rng: np.random.Generator) -> None:
    x = rng.normal(size=(24, 16)).astype("f4")
    with h5py.File("dims.nc", "w") as file:
        data = file.create_dataset("data", data=x)
        for axis, name in enumerate(("presentation", "neuroid")):
            scale = file.create_dataset(name, shape=(x.shape[axis],), dtype=">f4")
            scale.make_scale(f"This is a netCDF dimension but not a netCDF variable. {x.shape[axis]:9}")
            data.dims[axis].attach_scale(scale)
    assert inspected("dims.nc")[0] == [["data", "24", "16"]]


def test_beside_the_data(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 16)).astype("f4")
    with h5py.File("head.h5", "w") as file:
        file["acts"], file["classifier_weight"] = rng.normal(size=(60, 16)), rng.normal(size=(10, 16))
    assert abs(score("head.h5", "head.h5", "--layers", "acts") - 1) < 1e-6
    np.savez("tokens.npz", vectors=x, tokens=np.array([f"t{k}" for k in range(20)], dtype=object))
    tensor = torch.from_numpy(x)
    torch.save({"feats": tensor, "num_params": 7}, "beside.pt")
    torch.save([tensor] * 3, "list.pt")
    torch.save({"layers": {"0": tensor}}, "nested.pt")
    found, done = inspected("tokens.npz", "beside.pt", "list.pt", "nested.pt")
    assert [line[0] for line in found] == ["vectors", "feats", "0", "1", "2", "layers.0"]
    assert "note: tokens.npz: not taken as layers: tokens (an array of Python objects" in done.stderr
    assert "note: beside.pt: not taken as layers: num_params (int)" in done.stderr


def test_half_written(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(400, 32)) + 1, rng.normal(size=(400, 24)) + 1
    for name, matrix in (("a.h5", x), ("b.h5", y)):
        with h5py.File(name, "w") as file:
            file.create_dataset("layer", shape=(1000, matrix.shape[1]), dtype="f4")[:400] = matrix
    done = run("baseline", "a.h5", "b.h5")
    assert (done.code, done.stdout) == (3, "")
    assert "a.h5: 600 of 1000 rows are all zero in every layer, the first is row 400" in done.stderr
    assert abs(score("a.h5", "b.h5", "--zero-rows", "drop") - oracles.cka(x.astype("f4"), y.astype("f4"))) < 1e-6


def test_neurons_by_datapoints(rng: np.random.Generator) -> None:
    x, y = related(rng, 300, (10, 7))
    np.save("a.npy", x.T)
    np.savez("b.npz", acts=y.T)
    stores = [extracted(name, "--axes", "width,rows") for name in ("a.npy", "b.npz")]
    assert abs(score(*stores) - oracles.cka(x, y)) < 1e-6


def test_keys_are_rows(rng: np.random.Generator) -> None:
    vectors = {f"P{k:05}": rng.normal(size=16).astype("f2") for k in range(8)}
    with h5py.File("proteins.h5", "w") as file:
        for name, vector in vectors.items():
            file[name] = vector
    store = open_store(Path(extracted("proteins.h5", "--keys", "rows", "--axes", "width")))
    (layer,) = store.layers
    np.testing.assert_array_equal(store.read(layer, 0, 8), np.stack(list(vectors.values())))
    assert store.ids.read(0, 8) == list(vectors)


def test_maps(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(20, 4, 3, 3)).astype("f4")
    np.save("maps.npy", maps)
    pooled = open_store(Path(extracted("maps.npy", "--axes", "rows,width,pool,pool")))
    np.testing.assert_allclose(pooled.read("maps", 0, 20), maps.astype(float).mean(axis=(2, 3)), rtol=1e-6)
    np.save("flat.npy", maps)
    flat = open_store(Path(extracted("flat.npy", "--axes", "rows,width,width,width")))
    np.testing.assert_array_equal(flat.read("flat", 0, 20), maps.reshape(20, 36))


def test_sparse(rng: np.random.Generator) -> None:
    array = np.zeros((1500, 12000), "f4")
    array[np.arange(1500), rng.integers(0, 40, 1500)] = 1
    np.savez_compressed("sparse.npz", layer=array)
    assert array.nbytes > 300 * Path("sparse.npz").stat().st_size
    assert run("inspect", "sparse.npz", "--no-scan").stdout.splitlines()[1].split("\t")[1:4] == [
        "layer",
        "1500",
        "12000",
    ]


@pytest.mark.parametrize("suffix", ["npz", "pt", "h5"])
def test_ids_are_numbers(rng: np.random.Generator, suffix: str) -> None:
    (x, y), order = related(rng, 60, (16, 16)), rng.permutation(60)
    for name, features, ids in (("a", x, np.arange(60)), ("b", y[order], order)):
        if suffix == "npz":
            np.savez(f"{name}.npz", features=features, ids=ids)
        elif suffix == "pt":
            torch.save({"features": torch.from_numpy(features), "ids": torch.from_numpy(ids)}, f"{name}.pt")
        else:
            with h5py.File(f"{name}.h5", "w") as file:
                file["features"], file["ids"] = features, ids
    paths = f"a.{suffix}", f"b.{suffix}"
    assert run("baseline", *paths).code == 4
    assert abs(score(*paths, "--align", "ids") - oracles.cka(x, y)) < 1e-6
    assert abs(score(*paths, "--align", "position") - oracles.cka(x, y[order])) < 1e-6
