"""Files that were made to do harm: refused in a line, within a second and 500 MB, and nothing in them is run."""

import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import made
import numpy as np
import pytest
import torch
from faults import containers
from faults.warm import Warm
from stores import names, values, write

MEMORY = 500 << 20
SECONDS = 3.0  # of processor time, which does not depend on what else a machine does; most take 0.3
HUGE = 2**60


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


class Program(torch.nn.Module):
    """Leaves a trace when it is loaded as TorchScript."""

    def __init__(self, trace: str) -> None:
        super().__init__()
        self.trace, self.kept = trace, torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.kept[0]

    @torch.jit.export
    def __getstate__(self) -> str:
        return self.trace

    @torch.jit.export
    def __setstate__(self, state: str) -> None:
        self.training, self.trace = False, state
        self.kept = torch.from_file(state, True, 4)


Make = Callable[[Path, Path], None]  # a file at the first path, which would leave its trace at the second


def tensors_and_payload(path: Path, trace: Path) -> None:
    torch.save({"x": torch.ones(4, 3), "y": Payload(trace)}, path)


def payload_alone(path: Path, trace: Path) -> None:
    torch.save(Payload(trace), path)


def script(path: Path, trace: Path) -> None:
    torch.jit.save(torch.jit.script(Program(str(trace))), path)


def exported(path: Path, trace: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(2, 3),)), path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def bare_pickle(path: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(trace)))


def old_torch(path: Path, trace: Path) -> None:
    torch.save(Payload(trace), path, _use_new_zipfile_serialization=False)


def objects_in_npz(path: Path, trace: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, y=np.array([[Payload(trace)]]))


def objects_as_ids(path: Path, trace: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, x=values(1), ids=np.array([Payload(trace)]))


def objects_in_npy(path: Path, trace: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([Payload(trace)]), allow_pickle=True)


def pickle_in_zip(path: Path, trace: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Payload(trace)))


def safetensors_header(path: Path, trace: Path) -> None:
    path.write_bytes(struct.pack("<Q", HUGE) + b'{"x":1}')


def safetensors_shape(path: Path, trace: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def safetensors_nested(path: Path, trace: Path) -> None:
    header = b'{"x":' + b"[" * 100_000
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def npy_claim(path: Path, trace: Path, shape: tuple[int, ...] = (2**40, 256)) -> None:
    header = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(64))


def npz_claim(path: Path, trace: Path) -> None:
    npy_claim(path, trace, (2**33, 1))
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)


def npz_bomb(path: Path, trace: Path) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, x=np.zeros((1 << 18, 100), np.float32))


def npz_bomb_of_ids(path: Path, trace: Path) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, x=np.zeros((4, 3)), ids=np.full(4, "", "U5000000"))


def npz_lie(path: Path, trace: Path) -> None:
    """A kilobyte that says, in every place, that it unpacks to a terabyte."""
    npy_claim(path, trace, (2**38, 1))
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
        archive.filelist[0].file_size = len(content) - 64 + 2**40


def npz_twice(path: Path, trace: Path) -> None:
    """Two arrays of one name."""
    content = io.BytesIO()
    np.save(content, values())
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("x.npy", content.getvalue())


def zip_members_overlap(path: Path, trace: Path) -> None:
    """A thousand entries of the directory name the same bytes."""
    content = io.BytesIO()
    np.save(content, np.zeros((1000, 100), np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content.getvalue())
        first = archive.infolist()[0]
        archive.filelist += [first] * 1000


def pt_bomb(path: Path, trace: Path) -> None:
    """The tensors of a .pt are never packed; these are."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(100 << 20, dtype=torch.int8).reshape(-1, 100)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))


def pt_in_places(path: Path, trace: Path) -> None:
    """A tensor in 10^12 places."""
    below: Any = {"x": torch.ones(20, 3)}
    for _ in range(12):
        below = [below] * 10
    torch.save(below, path)


def pt_in_itself(path: Path, trace: Path) -> None:
    below: list[Any] = [torch.ones(20, 3)]
    below.append(below)
    torch.save(below, path)


def pt_expanded(path: Path, trace: Path) -> None:
    torch.save(torch.zeros(1, 1).expand(10**9, 10**6), path)


def encoder_claim(path: Path, trace: Path) -> None:
    """A configuration of a thousand million weights."""
    made.encoder_file(path, widths=(3,))
    content = torch.load(path, weights_only=True)
    content["config"] |= {"hidden": [2**20, 2**20], "output": 2**20}
    torch.save(content, path)


def encoder_payload(path: Path, trace: Path) -> None:
    torch.save({"format": "contrasim-encoder", "format_version": 2, "config": Payload(trace)}, path)


def elsewhere(link: Callable[[h5py.File, Path], None], own: bool) -> Make:
    """A store in which something leads to another file."""

    def make(path: Path, trace: Path) -> None:
        other = path.with_name("other.h5")
        with h5py.File(other, "w") as file:
            file["x"] = values(20, 3)
        os.mkfifo(trace.with_name("fifo"))  # whoever opens it waits for ever
        with h5py.File(path, "w") as file:
            file["layers/x" if own else "x"] = values(20, 3)
            if own:
                file.attrs.update({"format": "contrasim-activations", "format_version": 1, "complete": True})
            link(file, other)

    return make


def external(file: h5py.File, other: Path) -> None:
    file["layers/y"] = h5py.ExternalLink(str(other), "/x")


def external_fifo(file: h5py.File, other: Path) -> None:
    file["layers/y"] = h5py.ExternalLink(str(other.with_name("fifo")), "/x")


def soft(file: h5py.File, other: Path) -> None:
    file["layers/y"] = h5py.SoftLink("/layers/x")


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((20, 3), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (20, 3))
    file.create_virtual_dataset("layers/y", layout)


def raw(file: h5py.File, other: Path) -> None:
    file.create_dataset("layers/y", (4, 3), "f4", external=[("/etc/passwd", 0, 48)])


def linked_ids(file: h5py.File, other: Path) -> None:
    file["ids"] = h5py.ExternalLink(str(other.with_name("fifo")), "/x")


def many_ids(path: Path, trace: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers/x"] = values(20, 3)
        file.create_dataset("ids", (HUGE,), h5py.string_dtype(), chunks=(1024,))


def many_rows_and_ids(path: Path, trace: Path) -> None:
    """Rows and ids agree on 2^60, and none of them was written."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "contrasim-activations", "format_version": 1, "complete": True})
        file.create_dataset("layers/x", (HUGE, 3), "f4", chunks=(1024, 3))
        file.create_dataset("ids", (HUGE,), h5py.string_dtype(), chunks=(1024,))


def fill_values(path: Path, trace: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**40, 256), "f4", chunks=(1024, 256), fillvalue=1.0)


def one_piece(path: Path, trace: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**30, 256), "f4")


def large_chunk(path: Path, trace: Path) -> None:
    """Gigabytes of zeros in one chunk of a megabyte."""
    with h5py.File(path, "w") as file:
        rows = 3 << 20
        dataset = file.create_dataset("x", (rows, 256), "f4", chunks=(rows, 256), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), __import__("zlib").compress(bytes(64 << 20)))


def large_chunk_of_ids(path: Path, trace: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = values(20, 3)
        chunks = (1 << 27,)
        dataset = file.create_dataset("ids", (20,), "S8", chunks=chunks, maxshape=(None,), compression="gzip")
        dataset.id.write_direct_chunk((0,), __import__("zlib").compress(bytes(64 << 20)))


def groups_in_groups(path: Path, trace: Path) -> None:
    with h5py.File(path, "w") as file:
        below = file.create_group("g0")
        below["x"] = values()
        for level in range(1, 13):
            above = file.create_group(f"g{level}")
            for k in range(10):
                above[str(k)] = below
            below = above


def many_axes(path: Path, trace: Path) -> None:
    """More readings than could ever be listed."""
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((2,) * 18, "i1")


def many_vectors(path: Path, trace: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **{f"{k}": np.ones(1 + k % 977) for k in range(500)})


def matlab_of(fill: Callable[[h5py.File], Any]) -> Make:
    """A file of MATLAB whose cell `names`, beside a matrix, refers to something."""

    def make(path: Path, trace: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=values(20, 3).T).attrs["MATLAB_class"] = np.bytes_("single")
            target = fill(file)
            cell = file.create_dataset("ids", (1, 20), h5py.ref_dtype)
            cell[0] = np.array([target.ref] * 20, dtype=h5py.ref_dtype)
            cell.attrs["MATLAB_class"] = np.bytes_("cell")

    return make


def text_of(file: h5py.File, **options: Any) -> h5py.Dataset:
    """A text of MATLAB that is not what texts are."""
    target = file.create_dataset("#refs#/a", dtype="u2", **options)
    target.attrs["MATLAB_class"] = np.bytes_("char")
    return target


def sparse_of(**parts: Any) -> Make:
    """An AnnData whose sparse matrix has one part that cannot be."""

    def make(path: Path, trace: Path) -> None:
        whole = {"data": np.ones(20), "indices": np.arange(20) % 4, "indptr": np.arange(21), "shape": (20, 4)} | parts
        with h5py.File(path, "w") as file:
            file.attrs["encoding-type"] = "anndata"
            for name in ("data", "indices", "indptr"):
                file[f"X/{name}"] = whole[name]
            file["X"].attrs.update({"encoding-type": "csr_matrix", "shape": whole["shape"]})
            file["obs/_index"] = names(20)

    return make


def unwritten_dimension(path: Path, trace: Path) -> None:
    """All there is are dimensions of NetCDF, which are no data."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**40, 256), "f4").make_scale(
            "This is a netCDF dimension but not a netCDF variable.  1"
        )


def sealed_claim(path: Path, trace: Path) -> None:
    """A whole store of ours, made anew by somebody who knows its seal, of rows that were never written."""
    from contrasim_cli.store import seal

    write(path, {"x": values()}, names(20))
    with h5py.File(path, "r+") as file:
        del file["layers/x"]
        file.create_dataset("layers/x", (2**40, 3), "f4", chunks=(1024, 3), fletcher32=True)
    seal.append(path, [])


STORES: dict[str, Make] = {
    f.__name__: f
    for f in (
        tensors_and_payload, payload_alone, script, bare_pickle, old_torch, objects_in_npz, objects_as_ids, objects_in_npy,
        pickle_in_zip, safetensors_header, safetensors_shape, safetensors_nested, npy_claim, npz_claim, npz_lie, npz_twice,
        zip_members_overlap, pt_bomb, pt_in_places, pt_in_itself, pt_expanded, many_ids, many_rows_and_ids, fill_values,
        one_piece, large_chunk, large_chunk_of_ids, groups_in_groups, many_axes, many_vectors, unwritten_dimension, sealed_claim,
    )
}  # fmt: skip
STORES |= {
    "matlab_cell_of_groups": matlab_of(lambda file: file.create_group("#refs#/a")),
    "matlab_cell_of_cells": matlab_of(lambda file: file.create_dataset("#refs#/a", (1, 2), h5py.ref_dtype)),
    "matlab_text_of_terabytes": matlab_of(lambda file: text_of(file, shape=(2**40, 1), chunks=(1024, 1))),
    "matlab_long_text": matlab_of(lambda file: text_of(file, data=np.ones((2**22, 1)), compression="gzip")),
    "matlab_text_elsewhere": matlab_of(lambda file: text_of(file, shape=(48, 1), external=[("/etc/passwd", 0, 96)])),
    "sparse_width": sparse_of(shape=(20, HUGE)),
    "sparse_rows": sparse_of(shape=(HUGE, 4)),
    "sparse_negative": sparse_of(shape=(-20, 4)),
    "sparse_three_axes": sparse_of(shape=(20, 4, 4)),
    "sparse_columns": sparse_of(indices=np.array([*range(4)] * 4 + [0, 1, 2, HUGE])),
    "sparse_back": sparse_of(indptr=np.array([*range(19), -2, 20])),
    "sparse_beyond": sparse_of(indptr=np.array([*range(20), HUGE])),
    "sparse_text": sparse_of(data=[str(k) for k in range(20)]),
}
STORES |= {
    f"{link.__name__}{'_in_ours' * own}": elsewhere(link, own)
    for own in (False, True)
    for link in (external, external_fifo, soft, virtual, raw, linked_ids)
}


STORES |= containers.HOSTILE


def check_refused(warm: Warm, folder: Path, trace: Path, *args: str) -> None:
    """The command refuses its input in a line, in time and memory, and runs nothing of it."""
    done = warm.run(*args, cwd=folder)
    said = done.refused(3)
    assert said.startswith(("h: ", "h/")), done  # or a file in the folder h
    assert said.isprintable()
    assert done.processor < SECONDS, done
    assert done.peak < MEMORY, done
    assert not trace.exists()


@pytest.mark.slow
@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_a_hostile_store_is_refused(warm: Warm, tmp_path: Path, make: Make) -> None:
    write(tmp_path / "a.h5", {"x": values()})
    make(tmp_path / "h", tmp_path / "trace")
    check_refused(warm, tmp_path, tmp_path / "trace", "baseline", "a.h5", "h")


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [encoder_payload, encoder_claim, pt_bomb, script, bare_pickle, old_torch, tensors_and_payload, npz_bomb, npz_lie],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_a_hostile_encoder_is_refused(warm: Warm, tmp_path: Path, make: Make) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.h5", {"x": values()})
    make(tmp_path / "h", tmp_path / "trace")
    check_refused(warm, tmp_path, tmp_path / "trace", "score", "a.h5", "b.h5", "--encoder", "h")


@pytest.mark.parametrize(
    "make",
    [bare_pickle, objects_in_npz, objects_in_npy, npz_lie, npy_claim, containers.bomb_in_zarr],
    ids=lambda make: make.__name__,
)
def test_a_hostile_input_of_extract_is_refused(warm: Warm, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "h", tmp_path / "trace")
    check_refused(warm, tmp_path, tmp_path / "trace", "extract", "--from", "h", "-o", "o.h5")
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.parametrize("make", [script, exported, payload_alone, bare_pickle], ids=lambda make: make.__name__)
def test_a_file_of_a_model_is_not_loaded(warm: Warm, tmp_path: Path, make: Make) -> None:
    np.save(tmp_path / "x.npy", values())
    make(tmp_path / "h", tmp_path / "trace")
    check_refused(warm, tmp_path, tmp_path / "trace", "extract", "--model", "h", "--arrays", "x.npy", "-o", "o.h5")


def test_the_payload_of_a_program_does_work(tmp_path: Path) -> None:
    script(tmp_path / "h", tmp_path / "trace")
    assert not (tmp_path / "trace").exists()
    torch.jit.load(tmp_path / "h")
    assert (tmp_path / "trace").exists()


@pytest.mark.slow
@pytest.mark.parametrize("make", [npz_bomb, npz_bomb_of_ids], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "args", [("baseline", "a.h5", "h"), ("extract", "--from", "h", "-o", "o.h5")], ids=lambda args: args[0]
)
def test_a_bomb_is_what_does_not_fit(warm: Warm, tmp_path: Path, make: Make, args: tuple[str, ...]) -> None:
    write(tmp_path / "a.h5", {"x": values()})
    make(tmp_path / "h", tmp_path / "trace")
    check_refused(warm, tmp_path, tmp_path / "trace", *args, "--memory", "60M")


def test_the_payload_does_work(tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    objects_in_npy(tmp_path / "h", tmp_path / "trace")
    np.load(tmp_path / "h", allow_pickle=True)
    assert (tmp_path / "trace").exists()


def test_memory_and_time_are_measured(warm: Warm, tmp_path: Path) -> None:
    done = warm.run("--version", cwd=tmp_path, before="x = b'1' * 800_000_000; [k for k in range(10**7)]")
    assert done.peak > MEMORY
    assert done.processor > 0.2
