"""Damaged files, and a process that reads them one after the other: what it believes, refuses, or dies of."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import made
import numpy as np
import torch
from faults import containers
from faults.warm import Warm
from faults.workplace import rows_of
from stores import names, values, write

from contrasim_cli import encoder as encoders
from contrasim_cli.errors import ContraSimError
from contrasim_cli.store import Hints, align, open_store

MEMORY = 500 << 20  # bytes that reading a small file may need
SECONDS = 10  # of processor time
SEVERAL = 20  # bytes

# what a file is damaged by


def cut(content: bytes, chance: random.Random) -> bytes:
    """Its first part."""
    return content[: chance.randrange(len(content))]


def flipped(content: bytes, chance: random.Random) -> bytes:
    """Some bytes are others: mostly one, and mostly of the values that lengths and flags have trouble with."""
    broken = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, SEVERAL])):
        broken[chance.randrange(len(broken))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return bytes(broken)


def overwritten(content: bytes, chance: random.Random) -> bytes:
    """A piece of it is lost to zeros, to noise, or to another piece, as when a disk or a copy fails."""
    size = chance.choice([4, 64, 512, 4096])
    at, other = chance.randrange(len(content)), chance.randrange(len(content))
    piece = chance.choice([bytes(size), chance.randbytes(size), content[other : other + size]])
    return content[:at] + piece[: len(content) - at] + content[at + len(piece) :]


def longer(content: bytes, chance: random.Random) -> bytes:
    """Something is behind its end."""
    return content + chance.choice([b"\0" * 100, chance.randbytes(300), content[: chance.randrange(len(content))]])


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut, "flipped": flipped, "overwritten": overwritten, "longer": longer,
}  # fmt: skip


# what is damaged


def store(path: Path) -> Path:
    """A store of our own."""
    provenance = {"config": {"model": "m"}, "config_digest": "0123"}
    return write(path, {"x": values(), "y": values(width=5, seed=1)}, attrs={"model": "m"}, provenance=provenance)


def unsealed(path: Path) -> Path:
    """The same without its seal, as when somebody has changed it."""
    store(path)
    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = file.attrs["digest"]
    return path


def plain(path: Path) -> Path:
    """Somebody's HDF5 file with a bit of everything."""
    with h5py.File(path, "w") as file:
        file.create_dataset("group/layer_1", data=values(40, 6), chunks=(7, 3), compression="gzip", shuffle=True)
        file.create_dataset("group/layer_2", data=values(40, 3), fletcher32=True)
        file["layer_3"] = values(40, 4).astype(np.int16)
        file["ids"] = names(40)
        file["layer_3"].attrs["note"] = "text"
    return path


def sentences(path: Path) -> Path:
    """A file of NeuroX."""
    with h5py.File(path, "w") as file:
        for number in range(4):
            file[str(number)] = values(2 * (number + 1), 5).reshape(2, number + 1, 5)
        file["sentence_to_index"] = [json.dumps({f"s{number}": str(number) for number in range(4)})]
    return path


def archive(path: Path) -> Path:
    """A packed archive of NumPy."""
    np.savez_compressed(path, layer_1=values(40, 6), layer_2=values(40, 3), ids=np.array(names(40)))
    return path


def loose(path: Path) -> Path:
    """An archive that is not packed."""
    np.savez(path, layer_1=values(40, 6), layer_2=values(40, 3), ids=np.array(names(40)))
    return path


def array(path: Path) -> Path:
    """A file of NumPy."""
    np.save(path, values(40, 6))
    return path


def tensors(path: Path) -> Path:
    """Tensors of torch."""
    torch.save({"a": torch.from_numpy(values(40, 6)), "b": torch.from_numpy(values(40, 3)).half()}, path)
    return path


def safe(path: Path) -> Path:
    """Tensors of safetensors."""
    from safetensors.torch import save_file

    save_file({"a": torch.from_numpy(values(40, 6)), "b": torch.from_numpy(values(40, 3)).half()}, path)
    return path


def matlab(path: Path) -> Path:
    """A file of MATLAB, with names of rows in a cell."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, kind, width in (("conv", "single", 5), ("fc", "double", 3)):
            file.create_dataset(name, data=values(12, width).astype(kind).T).attrs["MATLAB_class"] = np.bytes_(kind)
        references = []
        for k, name in enumerate(names(12)):
            letters = file.create_dataset(f"#refs#/{k}", data=np.frombuffer(name.encode("utf-16-le"), "<u2")[:, None])
            letters.attrs["MATLAB_class"] = np.bytes_("char")
            references.append(letters.ref)
        cell = file.create_dataset("files", (1, 12), h5py.ref_dtype)
        cell[0] = np.array(references, dtype=h5py.ref_dtype)
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def netcdf(path: Path) -> Path:
    """A file of NetCDF-4 that lies on its side, with a dimension without coordinates and a coordinate that names rows."""
    with h5py.File(path, "w", track_order=True) as file:
        file["acts"] = values(12, 5).T
        file["image_id"] = names(12)
        for dim, length in (("neuroid", 5), ("presentation", 12)):
            scale = file.create_dataset(dim, (length,), ">f4")
            scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{length:10}")
        for axis, dim in enumerate(("neuroid", "presentation")):
            file["acts"].dims[axis].attach_scale(file[dim])
        file["image_id"].dims[0].attach_scale(file["presentation"])
    return path


def anndata(path: Path) -> Path:
    """A file of AnnData with a sparse matrix."""
    thin = np.where(values(12, 5) > 0.5, values(12, 5), 0)
    rows, columns = np.nonzero(thin)
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file["X/data"], file["X/indices"] = thin[rows, columns], columns.astype(np.int32)
        file["X/indptr"] = np.searchsorted(rows, np.arange(13)).astype(np.int32)
        file["X"].attrs.update({"encoding-type": "csr_matrix", "shape": (12, 5)})
        file["obsm/X_pca"], file["obs/_index"], file["var/_index"] = values(12, 2), names(12), names(5)
        file["obs"].attrs["_index"] = "_index"
    return path


def keyed(path: Path) -> Path:
    """A vector per key, in a group per sample."""
    with h5py.File(path, "w", track_order=True) as file:
        for k in range(8):
            file[f"P{k}/conv"], file[f"P{k}/fc"] = values(1, 5, seed=k)[0], values(1, 3, seed=k)[0].astype(np.float16)
    return path


def nested(path: Path) -> Path:
    """Tensors in dicts and lists, with names of rows beside them."""
    rows = torch.from_numpy(values(12, 5))
    torch.save({"acts": [rows, {"deep": rows.bfloat16()}], "files": names(12), "epoch": 3}, path)
    return path


def maps(path: Path) -> Path:
    """Maps of bfloat16 kept as integers."""
    bits = torch.from_numpy(values(12, 24)).bfloat16().view(torch.int16).numpy()
    np.savez(path, conv=bits.reshape(12, 4, 3, 2), ids=np.arange(12))
    return path


def sparse(path: Path) -> Path:
    """What scipy.sparse.save_npz writes, by NumPy."""
    thin = np.where(values(12, 5) > 0.5, values(12, 5), 0)
    rows, columns = np.nonzero(thin)
    ends = np.searchsorted(rows, np.arange(13))
    parts = {"data": thin[rows, columns], "indices": columns, "indptr": ends, "shape": [12, 5], "format": b"csr"}
    np.savez_compressed(path, **parts)
    return path


def checkpoint(path: Path) -> Path:
    """An encoder."""
    return made.encoder_file(path, widths=(5,), stores=("a", "b"))


def unfinished(path: Path) -> Path:
    """The state of a run that goes on."""
    encoder = made.checkpoint(widths=(5,), stores=("a", "b"))
    optimizer = torch.optim.Adam(encoder.encoder.parameters())
    encoder.encoder(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    encoder.training |= {
        "finished": False,
        "step": 3,
        "loss_sum": 1.5,
        "optimizer": optimizer.state_dict(),
        "scaler": {},
    }
    encoders.save(path, encoder, force=False)
    return path


def loaded(path: Path) -> str:
    """All that an encoder says."""
    found = encoders.load(path)
    return encoders.weights_digest(found.encoder.state_dict()) + str((found.config, found.training, found.provenance))


def values_of(path: Path) -> str:
    """A digest of the values of a store whose layer is named for the file."""
    store = open_store(path)
    return hashlib.sha256(b"".join(align([store])[0].read(name).tobytes() for name in store.layers)).hexdigest()


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made and read; `checked` if it has checksums, so that nothing wrong may be believed.

    A file of a folder is put into its place in one, which is read.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], str]
    checked: bool = True
    in_folder: bool = False


def part(make: Callable[[Path], Path], name: str) -> Kind:
    """A file of a folder."""

    def taken(path: Path) -> Path:
        shutil.rmtree(path.with_suffix(".made"), ignore_errors=True)
        shutil.copy(make(path.with_suffix(".made")) / name, path)
        return path

    def read(path: Path) -> str:
        folder = path.with_suffix(".folder")
        if not folder.exists():
            make(folder)
        shutil.copy(path, folder / name)
        return rows_of(folder)

    return Kind(taken, read, checked=False, in_folder=True)


KINDS = {
    "store.h5": Kind(store, rows_of),
    "unsealed.h5": Kind(unsealed, rows_of),
    "encoder.pt": Kind(checkpoint, loaded),
    "unfinished.pt": Kind(unfinished, loaded),
    "archive.npz": Kind(archive, rows_of),
    "loose.npz": Kind(loose, rows_of),
    "tensors.pt": Kind(tensors, rows_of),
    "plain.h5": Kind(plain, rows_of, checked=False),
    "sentences.h5": Kind(sentences, rows_of, checked=False),
    "array.npy": Kind(array, rows_of, checked=False),
    "safe.safetensors": Kind(safe, rows_of, checked=False),
    "matlab.mat": Kind(matlab, rows_of, checked=False),
    "netcdf.nc": Kind(netcdf, rows_of, checked=False),
    "anndata.h5ad": Kind(anndata, rows_of, checked=False),
    "keyed.h5": Kind(keyed, partial(rows_of, how=Hints(keys="rows", axes="layers,width")), checked=False),
    "nested.pt": Kind(nested, rows_of),
    "maps.npz": Kind(maps, partial(rows_of, how=Hints(axes="rows,width,pool,pool", read_as="bfloat16"))),
    "sparse.npz": Kind(sparse, rows_of, checked=False),  # its layer is called as the file
    "columns.parquet": Kind(containers.parquet, rows_of, checked=False),
    "lists.parquet": Kind(containers.lists_in_parquet, rows_of, checked=False),
    "columns.feather": Kind(containers.feather, rows_of, checked=False),
    "lists.arrow": Kind(containers.stream, rows_of, checked=False),
    "table.csv": Kind(containers.delimited, rows_of, checked=False),
    "table.txt.gz": Kind(containers.spaced, values_of),
    "array.npy.gz": Kind(containers.packed_npy, values_of),
    "plain.mat": Kind(containers.matlab, rows_of, checked=False),
    "packed.mat": Kind(containers.packed_matlab, rows_of, checked=False),
    "zarr.zip": Kind(containers.zipped, rows_of, checked=False),
    "chunk.blosc": part(containers.chunks, "x/1.0"),
    "chunk.zstd": part(lambda folder: containers.chunks(folder, "zstd"), "x/1.0"),
    "chunk.lz4": part(lambda folder: containers.chunks(folder, "lz4"), "x/1.0"),
    "metadata.zarray": part(containers.chunks, "x/.zarray"),
    "metadata.zarr.json": part(containers.shards, "zarr.json"),
    "shard.zstd": part(containers.shards, "c/0/0"),
    "index.json": part(containers.indexed, "model.safetensors.index.json"),
}


# the process that reads


def broken(content: bytes, damage: str, number: int) -> bytes:
    """The content damaged for the n-th time."""
    return DAMAGES[damage](content, random.Random(f"{damage} {number}"))


def outcome(kind: Kind, path: Path, whole: str) -> str:
    """What comes of reading a damaged file: `same`, `refused`, `unchecked`, or what is wrong with it."""
    try:
        found = kind.read(path)
    except ContraSimError as error:
        begins = str(path.with_suffix(".folder")) if kind.in_folder else f"{path}: "
        clear = error.exit_code == 3 and all(line.startswith(begins) and line.isprintable() for line in error.lines)
        return "refused" if clear else f"refused with {error.exit_code}: {error}"
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {error}"
    if found == whole:
        return "same"
    return "wrong" if kind.checked else "unchecked"


def read_them(folder: str, name: str, damage: str, first: int, stop: int) -> None:
    """Read damaged files until all are read, or one kills this process; a line per file tells what came of it."""
    kind, work = KINDS[name], Path(folder)
    content, whole = (work / name).read_bytes(), kind.read(work / name)
    # an encoder's first line of error names the file, and torch looks at its suffix
    path = work / f"damaged{Path(name).suffix}"
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with (work / "outcomes").open("a", buffering=1) as told:
        for number in range(first, stop):
            path.write_bytes(broken(content, damage, number))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            print(number, outcome(kind, path, whole), file=told)
            signal.setitimer(signal.ITIMER_PROF, 0)
    os._exit(0)


@dataclass
class Tally:
    """What came of many damaged files, and which of them were not dealt with as they should be."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, int, str]] = field(default_factory=list)


def survey(warm: Warm, folder: Path, name: str, damage: str, count: int, tally: Tally) -> None:
    """Read so many damaged files of a kind."""
    folder.mkdir(exist_ok=True)
    if not (folder / name).exists():
        KINDS[name].make(folder / name)
    done = 0
    while done < count:
        (folder / "outcomes").write_text("")
        call = f"from faults.damage import read_them; read_them({str(folder)!r}, {name!r}, {damage!r}, {done}, {count})"
        ended = warm.run(cwd=folder, before=call)
        lines = [line.split(" ", 1) for line in (folder / "outcomes").read_text("utf-8").splitlines()]
        for number, said in lines:
            tally.counts[said if said in {"same", "refused", "unchecked"} else "failure"] += 1
            if said not in {"same", "refused", "unchecked"}:
                tally.failures.append((name, damage, int(number), said))
        done += len(lines)
        if ended.code:
            tally.failures.append((name, damage, done, f"ended with {ended.code}: {ended.stderr[-300:]}"))
            done += 1
