"""Other people's files: what is read as layers, and what is refused without running or inventing anything."""

import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stores import values

from contrasim_cli.errors import ContraSimError, InputError, MissingError
from contrasim_cli.store import Hints, Store, align, open_store

A, B = values(4, 3), values(4, 5, seed=1)
T = torch.from_numpy(A)


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def hdf5(path: Path, **members: object) -> Path:
    """A plain HDF5 file."""
    with h5py.File(path, "w") as file:
        for name, member in members.items():
            file[name] = member
    return path


def refusal(path: Path) -> str:
    """The message with which a file is refused, without the file's name; quickly."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        open_store(path)
    assert time.monotonic() - started < 1
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def check(store: Store, **expected: np.ndarray) -> None:
    """The layers of a store, in this order, hold these values."""
    assert list(store.layers) == list(expected)
    for name, matrix in expected.items():
        np.testing.assert_array_equal(align([store])[0].read(name), matrix)
    store.close()


# what is read


def test_hdf5_layers_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("layer10", "layer2", "group/layer1", "layer_3"):
            file[name] = A + len(name)
        file["ids"] = ["a", "b", "c", "d"]
        file["labels"] = np.arange(4)
        file["comment"] = "text"
        file["nothing"] = h5py.Empty("f4")
    store = open_store(tmp_path / "a.h5")
    assert store.ids is not None
    assert store.ids.read(1, 3) == ["b", "c"]
    check(store, **{name: A + len(name) for name in ("group/layer1", "layer2", "layer10", "layer_3")})


def test_one_dimensional_numbers_are_passed_over_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = hdf5(tmp_path / "a.h5", x=A, labels=np.arange(4))
    with caplog.at_level("INFO", "contrasim_cli"):
        open_store(path).close()
    assert caplog.messages == [f"{path}: not taken as layers: labels (one dimension)"]


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i1", "u2", "i8"])
def test_every_real_type_is_widened(tmp_path: Path, dtype: str) -> None:
    matrix = (A * 10).astype(dtype)
    exact = np.dtype(dtype).itemsize <= (4 if np.dtype(dtype).kind == "f" else 2)
    for path in (hdf5(tmp_path / "a.h5", x=matrix), tmp_path / "x.npy"):
        if path.suffix == ".npy":
            np.save(path, matrix)
        read = align([open_store(path)])[0].read("x")
        assert read.dtype == (np.float32 if exact else np.float64)
        np.testing.assert_array_equal(read, matrix)


def test_hdf5_behind_a_user_block_and_compressed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=1024) as file:
        file.create_dataset("x", data=A, compression="gzip", chunks=(3, 2))
    check(open_store(tmp_path / "a.h5"), x=A)


def test_bytes_as_ids(tmp_path: Path) -> None:
    store = open_store(hdf5(tmp_path / "a.h5", x=A, ids=np.array([b"a", "é".encode(), b"c", b"d"])))
    assert store.ids is not None
    assert store.ids.read(0, 4) == ["a", "é", "c", "d"]
    np.savez(tmp_path / "a.npz", x=A, ids=np.array([b"a", "é".encode(), b"c", b"d"]))
    archived = open_store(tmp_path / "a.npz")
    assert archived.ids is not None
    assert archived.ids.digest == store.ids.digest


def test_npy_is_mapped_into_memory(tmp_path: Path) -> None:
    for name, matrix in (("c", A), ("f", np.asfortranarray(A))):
        np.save(tmp_path / f"{name}.npy", matrix)
        store = open_store(tmp_path / f"{name}.npy")
        assert isinstance(store.layer(name).array, np.memmap)
        check(store, **{name: A})


def test_npz_with_ids(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", layer10=A, layer9=B, ids=np.array(["a", "b", "c", "naïve"]))
        store = open_store(tmp_path / "a.npz")
        assert store.ids is not None
        assert store.ids.read(2, 4) == ["c", "naïve"]
        check(store, layer10=A, layer9=B)


def test_safetensors_and_torch_files(tmp_path: Path) -> None:
    half = T.bfloat16()
    tensors = {"b10": T.clone(), "b2": half, "b3": T.half(), "b4": T.to(torch.float8_e4m3fn)}
    expected = {"b2": half.float(), "b3": T.half().float(), "b4": tensors["b4"].float(), "b10": T}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pt")
    check(open_store(tmp_path / "a.safetensors"), **{key: tensor.numpy() for key, tensor in expected.items()})
    check(open_store(tmp_path / "a.pt"), **{key: expected[key].numpy() for key in tensors})


@pytest.mark.parametrize("tensor", [T, T.T.contiguous().T, torch.nn.Parameter(T), T[1:3]], ids=str)
def test_one_tensor_is_a_layer_named_by_its_file(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save(tensor, tmp_path / "acts.pt")
    check(open_store(tmp_path / "acts.pt"), acts=tensor.detach().numpy())


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.npy", x=A)
    np.save(tmp_path / "b.npy", A)
    (tmp_path / "b.npy").rename(tmp_path / "b.h5")
    torch.save({"x": T}, tmp_path / "c.npz")
    save_file({"x": T.clone()}, tmp_path / "d.pt")
    check(open_store(tmp_path / "a.npy"), x=A)
    check(open_store(tmp_path / "b.h5"), b=A)
    check(open_store(tmp_path / "c.npz"), x=A)
    check(open_store(tmp_path / "d.pt"), x=A)


# what is ambiguous or no layer


def test_archives_are_mapped_unless_they_are_compressed(tmp_path: Path) -> None:
    matrix = np.asfortranarray(values(50, 7))
    for save, mapped in ((np.savez, True), (np.savez_compressed, False)):
        save(tmp_path / "a.npz", x=matrix, empty=matrix[:, :0])
        with pytest.raises(InputError, match="layer empty has no columns"):
            open_store(tmp_path / "a.npz")
        save(tmp_path / "a.npz", x=matrix, y=matrix.copy())
        store = open_store(tmp_path / "a.npz")
        assert [isinstance(store.layer(name).array, np.memmap) for name in "xy"] == [mapped, mapped]
        check(store, x=matrix, y=matrix)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x": A.astype(complex)}, "holds no matrix [rows, width] of numbers: x (complex128)"),
        ({"x": A[0]}, "holds no matrix [rows, width] of numbers: x float32 (3,)"),
        ({"x": A[:, :0]}, "layer x has no columns"),
    ],
)
def test_what_is_no_layer_is_refused_in_hdf5_and_npz(tmp_path: Path, members: dict, message: str) -> None:
    assert refusal(hdf5(tmp_path / "a.h5", **members)) == message
    np.savez(tmp_path / "a.npz", **members)
    assert refusal(tmp_path / "a.npz") == message


def test_bool_is_read_as_zeros_and_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=A > 0)
    torch.save(T > 0, tmp_path / "x.pt")
    for path in (tmp_path / "a.npz", tmp_path / "x.pt", hdf5(tmp_path / "a.h5", x=A > 0)):
        read = align([open_store(path)])[0].read("x")
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, np.where(A > 0, 1, 0))


def test_nothing_at_all(tmp_path: Path) -> None:
    assert refusal(hdf5(tmp_path / "a.h5")) == "holds no matrix [rows, width] of numbers: nothing"
    torch.save({}, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt") == "holds no matrix [rows, width] of numbers: nothing"


def test_strings_are_no_layer(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=A.astype(str))
    assert refusal(tmp_path / "a.npz") == "holds no matrix [rows, width] of numbers: x (text)"
    assert refusal(hdf5(tmp_path / "a.h5", x=A.astype("S9"))) == "holds no matrix [rows, width] of numbers: x (text)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: T, "0": T}, "two tensors are called 0 once keys are text; rename them"),
        (T.to(torch.complex64), "holds no matrix [rows, width] of numbers: a (complex64)"),
        (
            T.to_sparse(),
            "holds no matrix [rows, width] of numbers: a (torch.float32, torch.sparse_coo, no plain array (",
        ),
        (T.to("meta"), "holds no matrix [rows, width] of numbers: a (torch.float32, torch.strided, no plain array ("),
        (torch.nn.Linear(2, 2), "holds more than tensors (or is damaged); save a tensor or a dict of tensors, pickles"),
        (
            {"format": "contrasim-encoder"},
            "is an encoder, not a store of activations; give it to contrasim score or",
        ),
    ],
    ids=lambda p: p[:20] if isinstance(p, str) else "",
)
def test_torch_files_of_something_else(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt").startswith(message)


def test_safetensors_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"x": T.clone()}, tmp_path / "a.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingError) as caught:
        open_store(tmp_path / "a.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'a.safetensors'}: reading .safetensors needs the extra hf: pip install 'contrasim[hf]'"
    )


# hostile files


def test_no_pickle_is_run(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "trace")
    torch.save(payload, tmp_path / "a.pt")
    torch.save({"x": T, "y": payload}, tmp_path / "b.pt")
    torch.save(T, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(payload))
    np.save(tmp_path / "d.npy", np.array([payload]), allow_pickle=True)
    np.savez(tmp_path / "e.npz", x=A, y=np.array([payload]))
    more = "holds more than tensors (or is damaged); save a tensor or a dict of tensors, pickles are refused"
    assert refusal(tmp_path / "a.pt") == refusal(tmp_path / "b.pt") == more
    assert refusal(tmp_path / "c.npy") == refusal(tmp_path / "legacy.pt")
    assert refusal(tmp_path / "c.npy") == (
        "looks like a pickle, which is refused because it can run code; a store is HDF5, .npy, .npz, .safetensors, .pt, .mat, "
        "zarr, Parquet, Arrow, or a table of numbers as text (.csv, .tsv)"
    )
    assert refusal(tmp_path / "d.npy").endswith("the file is damaged or holds Python objects")
    check(open_store(tmp_path / "e.npz"), x=A)  # the other one is passed over
    assert not payload.trace.exists()
    np.load(tmp_path / "d.npy", allow_pickle=True)
    assert payload.trace.exists()  # the payload does work


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 3))
    file.create_virtual_dataset("v", layout)


def external_link(file: h5py.File) -> None:
    file["v"] = h5py.ExternalLink("other.h5", "/x")


def soft_link(file: h5py.File) -> None:
    file["v"] = h5py.SoftLink("/x")


def raw(file: h5py.File) -> None:
    file.create_dataset("v", (4, 3), "f4", external=[("/etc/passwd", 0, 48)])


LINKS = {
    virtual: "takes its values from other files; only data inside the file is read",
    raw: "takes its values from other files; only data inside the file is read",
    external_link: "is an external link; only data inside the file is read",
    soft_link: "is a soft link; only data inside the file is read",
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("link", LINKS, ids=lambda f: f.__name__)
def test_data_outside_the_file_is_refused(tmp_path: Path, link: Callable[[h5py.File], None], own: bool) -> None:
    hdf5(tmp_path / "other.h5", x=A)
    path = hdf5(tmp_path / "a.h5", **{"layers/x" if own else "x": A})
    with h5py.File(path, "r+") as file:
        if own:
            file.attrs.update({"format": "contrasim-activations", "format_version": 1, "complete": True})
        link(file["layers"] if own else file)
    said = refusal(path)
    assert said.endswith(f"v {LINKS[link]}")


def test_layers_or_provenance_elsewhere(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # whoever opens it waits for ever
    for name in ("layers", "provenance", "ids"):
        path = hdf5(tmp_path / f"{name}.h5", **({} if name == "layers" else {"layers/x": A}))
        with h5py.File(path, "r+") as file:
            file.attrs.update({"format": "contrasim-activations", "format_version": 1, "complete": True})
            file[name] = h5py.ExternalLink(str(tmp_path / "fifo"), "/x")
        assert refusal(path) == f"{name} is an external link; only data inside the file is read"


def test_claims_of_terabytes_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (2**40, 256), "f4", chunks=(1024, 256))
    assert refusal(tmp_path / "a.h5") == (
        "x: shape (1099511627776, 256) is claimed, but not all of its values were ever written"
    )
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = A
        file.create_dataset("ids", (2**60,), h5py.string_dtype(), chunks=(1024,))
    assert refusal(tmp_path / "b.h5") == (
        f"ids: shape ({2**60},) is claimed, but not all of its values were ever written"
    )
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", (2**30, 256), "f4")  # one piece, of which nothing was written
    assert refusal(tmp_path / "c.h5").endswith("is claimed, but not all of its values were ever written")
    for name, dtype in (("d.pt", torch.float32), ("e.pt", torch.bfloat16)):
        torch.save(torch.zeros((1, 1), dtype=dtype).expand(10**9, 10**6), tmp_path / name)
        assert refusal(tmp_path / name) == (
            f"{name[0]} claims shape (1000000000, 1000000), but holds fewer values; save it with .contiguous()"
        )
    header = str({"descr": "<f4", "fortran_order": False, "shape": (2**50, 4)}).encode() + b"\n"
    (tmp_path / "f.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(64))
    assert "mmap length is greater than file size" in refusal(tmp_path / "f.npy")
    (tmp_path / "g.safetensors").write_bytes(struct.pack("<Q", 2**60) + b'{"x":1}')
    assert refusal(tmp_path / "g.safetensors") == (f"the safetensors header claims {2**60} bytes; the file is damaged")


def test_groups_within_themselves_end(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["group/x"] = A
        file["group/again"] = file["group"]
    assert refusal(path) == "group/again/ is the same group as group/; keep one of them"
    with h5py.File(path, "w") as file:  # 10^12 paths to one dataset
        below = file.create_group("g0")
        below["x"] = A
        for level in range(1, 13):
            above = file.create_group(f"g{level}")
            for k in range(10):
                above[str(k)] = below
            below = above
    assert refusal(path) == "g1/0/ is the same group as g0/; keep one of them"
    deep = hdf5(path, **{"/".join("g" * 18): A})
    assert refusal(deep) == "groups are nested deeper than 16"


@pytest.mark.parametrize(
    "header",
    [b"{'descr'", b"(" * 3000, b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4)}", b"\xff" * 9, b""],
)
def test_npy_headers_of_any_kind(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(64))
    assert refusal(tmp_path / "a.npy").startswith("cannot be read as .npy (")


@pytest.mark.parametrize(
    "header",
    [
        "{",
        '{"a":{"dtype":"Z9","shape":[1,1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,8]}}',
    ],
)
def test_safetensors_headers_of_any_kind(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
    assert refusal(tmp_path / "a.safetensors").startswith("cannot be read as .safetensors (")


def test_a_torchscript_program_is_no_store(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Identity()), tmp_path / "a.pt")
    recwarn.clear()
    assert refusal(tmp_path / "a.pt").startswith("holds more than tensors (or is damaged); ")
    assert not recwarn.list


def test_damaged_archives(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=values(100, 8))
    torch.save({"x": T}, tmp_path / "a.pt")
    refused = 0
    for name in ("a.npz", "a.pt"):
        whole = (tmp_path / name).read_bytes()
        for at in range(4, len(whole), 17):
            for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
                (tmp_path / "b").write_bytes(broken)
                try:
                    store = open_store(tmp_path / "b")
                    align([store])[0].read(next(iter(store.layers)))
                except ContraSimError:
                    refused += 1
    assert refused > 100
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    assert refusal(tmp_path / "c.zip") == "is a zip archive, but neither .npz nor .pt nor zarr"


@pytest.mark.parametrize("axes", ["rows,rows,width", "rows,pool,width"])
def test_padding_that_is_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, axes: str) -> None:
    """A mask beside the layers says what is padding; one without zeros says that nothing is."""
    states, mask = np.ones((4, 5, 3), np.float32), np.arange(5) < np.array([[5], [3], [2], [5]])
    for name, some in (("some", mask), ("none", mask | True)):
        np.savez(tmp_path / f"{name}.npz", h0=states, attention_mask=some.astype(np.int64))
    open_store(tmp_path / "none.npz", Hints(axes=axes))
    assert "padding" not in caplog.text
    open_store(tmp_path / "some.npz", Hints(axes=axes))
    assert "some.npz: attention_mask is 0 for 5 of 20 tokens: this padding is read too" in caplog.text
