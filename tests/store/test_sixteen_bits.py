"""Bits of floats kept as 16-bit integers; sparse arrays, which are held against the memory there is and not against a ratio."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli.errors import InputError
from contrasim_cli.store import Hints, align, open_store
from contrasim_cli.store.sixteen_bits import looks_like_bfloat16

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
BITS = torch.from_numpy(X).bfloat16().view(torch.int16).numpy()
ROUNDED = torch.from_numpy(X).bfloat16().float().numpy()
HALF = X.astype(np.float16)


def save(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, a=array)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(array), path)
    else:
        with h5py.File(path, "w") as file:
            file["a"] = array
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".pt"])
@pytest.mark.parametrize("dtype", ["<i2", "<u2", ">u2", ">i2"])
def test_bfloat16_kept_as_integers_is_refused_until_it_is_said(tmp_path: Path, suffix: str, dtype: str) -> None:
    if suffix == ".pt" and dtype != "<i2":
        pytest.skip("torch has no such type")
    path = save(tmp_path / f"a{suffix}", BITS.view(np.uint16).astype(dtype))
    with pytest.raises(InputError) as caught:
        open_store(path)
    assert str(caught.value) == (
        f"{path}: layer a is {np.dtype(dtype)} whose bits make sense as bfloat16; convert it with contrasim extract --from FILE "
        "--read-as bfloat16 (or float16, or integers, if they are that)"
    )
    store = open_store(path, Hints(read_as="bfloat16"))
    np.testing.assert_array_equal(store.read("a", 3, 30), ROUNDED[3:30])
    as_they_are = open_store(path, Hints(read_as="integers"))
    np.testing.assert_array_equal(as_they_are.read("a", 0, 40), BITS.view(np.uint16).astype(dtype))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_raw_pairs_of_bytes_are_what_they_are_said_to_be(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", BITS.view("V2"))  # as NumPy saves an array of JAX
    with pytest.raises(InputError, match="layer a is raw pairs of bytes; convert it with"):
        open_store(path)
    np.testing.assert_array_equal(open_store(path, Hints(read_as="bfloat16")).read("a", 0, 40), ROUNDED)
    save(path, HALF.view("V2"))
    np.testing.assert_array_equal(open_store(path, Hints(read_as="float16")).read("a", 0, 40), HALF)


def test_bits_are_averaged_as_the_floats_that_they_are(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", BITS.reshape(40, 2, 3))
    store = open_store(path, Hints(axes="rows,width,pool", read_as="bfloat16"))
    np.testing.assert_allclose(store.read("a", 0, 40), ROUNDED.reshape(40, 2, 3).mean(axis=2), rtol=1e-6)
    with pytest.raises(InputError, match="whose bits make sense as bfloat16"):
        open_store(save(tmp_path / "b.npz", BITS.reshape(8, 5, 6)), Hints(axes="rows,rows,width"))


def test_extract_reads_them(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", BITS)
    assert run("extract", "--from", path, "-o", tmp_path / "o.h5").code == 3
    assert run("extract", "--from", path, "--read-as", "bfloat16", "-o", tmp_path / "o.h5").code == 0
    store = open_store(tmp_path / "o.h5")
    assert store.layer("a").dtype == np.float32
    np.testing.assert_array_equal(store.read("a", 0, 40), ROUNDED)
    done = run("extract", "--from", save(tmp_path / "b.npz", X), "--read-as", "bfloat16", "-o", tmp_path / "p.h5")
    assert (done.code, done.stderr.strip()) == (
        3,
        f"contrasim: error: {tmp_path / 'b.npz'}: --read-as bfloat16 is for 16-bit integers; it holds a float32 (40, 6)",
    )


@pytest.mark.parametrize(
    "integers",
    [
        RNG.poisson(30, (200, 8)), RNG.integers(-3000, 3000, (200, 8)), RNG.integers(-(2**15), 2**15, (200, 8)),
        RNG.integers(0, 256, (200, 8)), np.zeros((200, 8)), np.full((200, 8), 16256), RNG.integers(0, 2, (200, 8)),
        np.zeros((0, 8)), np.zeros((8, 0)),
    ],
    ids=lambda array: f"{array.shape} {array.min(initial=0)} {array.max(initial=0)}",
)  # fmt: skip
def test_integers_that_are_integers_are_read(integers: np.ndarray) -> None:
    assert not looks_like_bfloat16(integers.astype(np.int16))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 300.0])
def test_activations_of_any_scale_look_like_it(scale: float) -> None:
    for rows in (X * scale, np.maximum(X, 0) * scale, np.where(RNG.random(X.shape) < 0.95, 0, X * scale)):
        bits = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).bfloat16().view(torch.int16).numpy()
        assert looks_like_bfloat16(bits)


# what is packed


def sparse(rows: int = 3000, width: int = 8000) -> np.ndarray:
    """A hundred megabytes that deflate to less than one."""
    array = np.zeros((rows, width), np.float32)
    array[np.arange(rows), RNG.integers(0, 40, rows)] = RNG.integers(1, 9, rows)
    return array


def test_sparse_arrays_are_read_within_the_memory_there_is(tmp_path: Path) -> None:
    array = sparse()
    path = tmp_path / "a.npz"
    np.savez_compressed(path, layer=array)
    assert array.nbytes > 300 * path.stat().st_size
    np.testing.assert_array_equal(open_store(path).read("layer", 2000, 2100), array[2000:2100])
    with pytest.raises(InputError) as caught:
        open_store(path, Hints(budget=90 << 20))
    assert str(caught.value) == (
        f"{path}: layer.npy (3000, 8000) takes 0.096 GB of memory once it is unpacked, and there are 0.0944 GB for it; give "
        "--memory, or save it uncompressed"
    )
    assert run("inspect", path, "--no-scan", "--memory", "90M").code == 3
    assert run("inspect", path, "--no-scan", "--memory", "92M").code == 0


def test_a_bomb_is_what_does_not_fit_all_together(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{f"layer_{k}": np.zeros((1000, 1000), np.float32) for k in range(5)})
    with pytest.raises(InputError, match=r"layer_0.npy \(1000, 1000\) and the rest takes 0.02 GB"):
        open_store(tmp_path / "a.npz", Hints(budget=19 << 20))
    np.savez(tmp_path / "b.npz", x=np.ones((1000, 1000)))  # which is mapped, and held nowhere
    assert open_store(tmp_path / "b.npz", Hints(budget=1)).n_rows == 1000


def test_large_chunks_of_hdf5_are_read_within_the_memory_there_is(tmp_path: Path) -> None:
    array = sparse()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("layer", data=array, chunks=array.shape, compression="gzip")
    assert array.nbytes > 300 * (tmp_path / "a.h5").stat().st_size
    views = align([open_store(tmp_path / "a.h5")])
    np.testing.assert_array_equal(views[0].read("layer", np.array([5, 2999])), array[[5, 2999]])
    with pytest.raises(
        InputError, match="a single chunk takes 96000000 bytes of memory once it is unpacked, and there are"
    ):
        open_store(tmp_path / "a.h5", Hints(budget=90 << 20))
