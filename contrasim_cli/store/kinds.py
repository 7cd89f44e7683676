"""What a file that is no HDF5 is, or a folder, and what reads it: by its content, never by its name."""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from contrasim_cli.errors import InputError, MissingError
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot, one_version
from contrasim_cli.store import delimited, folders, npy, tensor_shards, tensors
from contrasim_cli.store.content import Content

ZARR = {".zarray", ".zgroup", "zarr.json"}
CONTROLS = {*range(32)} - set(b"\t\r\n")  # bytes that no text has
KINDS = "a store is HDF5, .npy, .npz, .safetensors, .pt, .mat, zarr, Parquet, Arrow, or a table of numbers as text (.csv, .tsv)"
GUESSES = {
    b"version https://git-lfs": "is a Git LFS pointer, fetch the file itself with git lfs pull",
    b"\x80": "looks like a pickle, which is refused because it can run code",
    b"\xff\xfe": "is text in UTF-16, convert it first (iconv -f utf-16 -t utf-8)",
    b"\x1f\x8b": "is packed with gzip, unpack it first",
    b"FEA1": "is a Feather file of version 1, write it again as version 2",
}


def read_table(file: Snapshot, budget: int | None = None) -> Content:
    """A Parquet or Arrow file."""
    os.environ.setdefault(
        "ARROW_DEFAULT_MEMORY_POOL", "system"
    )  # others take a gigabyte ahead, which hides what a file takes
    with _needs(file.path, "Parquet and Arrow", "table"):
        from contrasim_cli.store import arrow_tables
    return arrow_tables.read_table(file, budget)


def read_zarr(source: Path | Snapshot, budget: int | None = None) -> Content:
    """Zarr in a folder or a zip archive."""
    with _needs(source.path if isinstance(source, Snapshot) else source, "zarr", "zarr"):
        from contrasim_cli.store import zarr_arrays
    return zarr_arrays.read_zarr(source, budget)


def read_matlab(file: Snapshot, budget: int | None = None) -> Content:
    """A MATLAB file before version 7.3."""
    with _needs(file.path, "MATLAB files before version 7.3", "match", "; or save it by save('x.mat', '-v7.3')"):
        from contrasim_cli.store import matlab5
    return matlab5.read_matlab(file, budget)


@contextlib.contextmanager
def _needs(path: Path, kind: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Turn the lack of a library into an error that names the extra."""
    try:
        yield
    except ImportError as error:
        raise MissingError(
            f"{quoted(path)}: reading {kind} needs the extra {extra}: pip install 'contrasim[{extra}]'{otherwise}"
        ) from error


def folder_content(path: Path, budget: int | None) -> Content | None:
    """What a folder holds that is a store; None if it is none."""
    with readable(path):
        names = os.listdir(path)
    if not ZARR.isdisjoint(names):
        return read_zarr(path, budget)
    if (index := tensor_shards.index_of(path)) is not None:
        return one_version(index, lambda file: _shards(file, budget))
    files = folders.array_files(path)
    return folders.read_folder(path, files, lambda file: _part(file, budget)) if files else None


def _part(path: Path, budget: int | None) -> Content:
    """What a file of a folder holds, which is no HDF5."""
    return one_version(path, lambda file: _part_content(file, budget), lambda content: content.close())


def _part_content(file: Snapshot, budget: int | None) -> Content:
    if tensor_shards.is_index(file, file.start()):  # which might name itself
        raise InputError(f"{quoted(file.path)}: is an index of other files, not a file of arrays")
    return content_of(file, budget)


def _shards(file: Snapshot, budget: int | None) -> Content:
    return tensor_shards.read_shards(file, lambda path: _part(path, budget))


def _starts(*marks: bytes) -> Callable[[Snapshot, bytes], bool]:
    return lambda file, start: start.startswith(marks)


def _zip(file: Snapshot, budget: int | None) -> Content:
    path = file.path
    try:
        with zipfile.ZipFile(file.reader()) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{quoted(path)}: is a damaged .npz or .pt file") from error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return tensors.read_torch(file)
    if names and all(name.endswith(".npy") for name in names):
        return npy.read_npz(file, budget)
    if any(name.rpartition("/")[2] in ZARR and name.count("/") < 2 for name in names):
        return read_zarr(file, budget)
    raise InputError(f"{quoted(path)}: is a zip archive, but neither .npz nor .pt nor zarr")


# what a file that is no HDF5 is, by its content, and what reads it; the first that fits
DETECTION: tuple[tuple[Callable[[Snapshot, bytes], bool], Callable[[Snapshot, int | None], Content]], ...] = (
    (_starts(b"\x93NUMPY"), lambda file, budget: npy.read_npy(file)),
    (_starts(b"PK\x03\x04"), _zip),
    (_starts(b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"), read_table),
    (_starts(b"MATLAB 5.0 MAT-file"), read_matlab),
    (lambda file, start: start.startswith(b"\x1f\x8b") and npy.starts_with_npy(file), npy.read_packed),
    (tensor_shards.is_index, _shards),
    (
        lambda file, start: start[8:9] == b"{" and b"\0" in start[:8],
        lambda file, budget: tensors.read_safetensors(file),
    ),
    (lambda file, start: delimited.is_text(file), delimited.read_delimited),
)


def content_of(file: Snapshot, budget: int | None = None) -> Content:
    """What a file that is no HDF5 holds."""
    start = file.start()
    for is_kind, read in DETECTION:
        if is_kind(file, start):
            return read(file, budget)
    raise InputError(f"{quoted(file.path)}: {_guess(start)}; {KINDS}")


def _guess(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.lstrip()[:1] == b"<":
        return "looks like a web page"
    known = next((kind for mark, kind in GUESSES.items() if start.startswith(mark)), None)
    if known is None and not CONTROLS & set(start) and not start.isascii():
        return "is text, and not in UTF-8: convert it first (iconv -f latin1 -t utf-8)"
    return known or "is of no kind that is read"
