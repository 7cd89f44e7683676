"""Other people's files as stores: plain HDF5, .npy, .npz, .safetensors, and .pt with a tensor or a dict of tensors.

Every 2-D numeric array is a layer; they must agree on rows. A one-dimensional array of strings named `ids` names the
rows. One-dimensional numbers (labels) are passed over. Anything else is ambiguous and refused with the list of what
is there.
"""

import logging
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, MissingError, raise_all
from contrasim_cli.files import quoted
from contrasim_cli.store.format import check_rows, read_ids
from contrasim_cli.store.hdf5 import check_dataset, datasets, is_text
from contrasim_cli.store.store import Array, Ids, Layer, Store

log = logging.getLogger(__name__)

MAX_SAFETENSORS_HEADER = 100 << 20
NUMERIC = "fiu"


def read_plain_hdf5(path: Path, file: h5py.File) -> Store:
    """An HDF5 file of anybody's."""
    found = dict(datasets(path, file))
    ids = None
    arrays: dict[str, Array] = {}
    for name, dataset in found.items():
        if is_text(dataset):
            continue
        check_dataset(path, name, dataset)
        arrays[name] = dataset
    layers = choose_layers(path, arrays)
    text = found.get("ids")
    if text is not None and is_text(text):
        ids = read_ids(path, text, layers[0].n_rows)
    return Store(path, "HDF5", {layer.name: layer for layer in layers}, ids, close=file.close)


def read_npy(path: Path) -> Store:
    """A `.npy` matrix, memory-mapped."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, ".npy", error) from error
    return _of_arrays(path, ".npy", {path.stem: array}, None)


def read_npz(path: Path) -> Store:
    """A `.npz` archive; its arrays are read when they are first used."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            members = {name: _member(path, archive, name) for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise _unreadable(path, ".npz", error) from error
    ids = members.pop("ids", None)
    return _of_arrays(path, ".npz", members, ids)


def _member(path: Path, archive: Any, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        raise InputError(f"{quoted(path)}: array {quoted(name)} holds Python objects; only numbers are read") from error


def read_safetensors(path: Path) -> Store:
    """A `.safetensors` file (needs the extra `hf`)."""
    _check_safetensors_header(path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingError(
            f"{quoted(path)}: reading .safetensors needs the extra hf: pip install 'contrasim[hf]'"
        ) from error
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, ".safetensors", error) from error
    return _of_arrays(path, ".safetensors", {name: _numpy(tensor) for name, tensor in tensors.items()}, None)


def _check_safetensors_header(path: Path) -> None:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(MAX_SAFETENSORS_HEADER, path.stat().st_size):
        raise InputError(f"{quoted(path)}: the safetensors header claims {length} bytes; the file is damaged")


def read_torch(path: Path) -> Store:
    """A `.pt` file with a tensor or a dict of tensors; nothing else is unpickled."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its unpickler trips over
        raise InputError(
            f"{quoted(path)}: holds more than tensors (or is damaged); save a tensor or a dict of tensors, pickles are refused"
        ) from error
    if isinstance(content, Mapping) and str(content.get("format", "")).startswith("contrasim-"):
        raise InputError(f"{quoted(path)}: is an encoder, not a store of activations; give it as --encoder")
    tensors = {path.stem: content} if isinstance(content, torch.Tensor) else content
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise InputError(f"{quoted(path)}: holds {type(content).__name__}, not a tensor or a dict of tensors")
    return _of_arrays(path, ".pt", {str(name): _numpy(tensor) for name, tensor in tensors.items()}, None)


def _numpy(tensor: Any) -> npt.NDArray[Any]:
    """A tensor as an array; bfloat16, which NumPy lacks, becomes float32."""
    import torch

    tensor = tensor.detach()
    if tensor.is_sparse or tensor.is_quantized:
        tensor = tensor.to_dense() if tensor.is_sparse else tensor.dequantize()
    array: npt.NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"{quoted(path)}: cannot be read as {kind} ({reason}); the file is damaged or holds Python objects"
    )


def _of_arrays(path: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]], ids: npt.NDArray[Any] | None) -> Store:
    layers = choose_layers(path, arrays)
    return Store(path, kind, {layer.name: layer for layer in layers}, _array_ids(path, ids, layers[0].n_rows))


def _array_ids(path: Path, ids: npt.NDArray[Any] | None, n_rows: int) -> Ids | None:
    if ids is None:
        return None
    if ids.shape != (n_rows,) or ids.dtype.kind not in "US":
        raise InputError(f"{quoted(path)}: ids are {ids.dtype} {ids.shape}; expected {n_rows} strings")
    names = ids.astype(str)
    return Ids(n_rows, lambda start, stop: [str(name) for name in names[start:stop]])


def choose_layers(path: Path, arrays: Mapping[str, Array]) -> list[Layer]:
    """The layers among named arrays.

    Raises:
        InputError: there is no matrix of numbers, an array's shape is ambiguous, or matrices disagree on rows.
    """
    raise_all([problem for name, array in arrays.items() if (problem := _refusal(path, name, array, arrays))])
    layers = [Layer(name, array, _chunk_rows(array)) for name, array in arrays.items() if len(array.shape) == 2]
    if not layers:
        raise InputError(f"{quoted(path)}: holds no matrix [rows, width] of numbers: {listing(arrays)}")
    raise_all(check_rows(path, layers))
    skipped = [name for name, array in arrays.items() if len(array.shape) < 2]
    if skipped:
        log.info("%s: %s: one-dimensional, not taken as a layer", quoted(path), ", ".join(map(quoted, skipped)))
    return sorted(layers, key=lambda layer: _natural(layer.name))


def _refusal(path: Path, name: str, array: Array, arrays: Mapping[str, Array]) -> InputError | None:
    if array.dtype.kind not in NUMERIC and len(array.shape) == 2:
        return InputError(f"{quoted(path)}: {quoted(name)} is {array.dtype}; layers are real numbers")
    if len(array.shape) > 2:
        return InputError(
            f"{quoted(path)}: {quoted(name)} has {len(array.shape)} dimensions, and its shape alone does not say which are layers, "
            f"rows and neurons: {listing(arrays)}; convert it with contrasim extract --from FILE --axes layers,rows,width"
        )
    return None


def listing(arrays: Mapping[str, Array]) -> str:
    """Names, types and shapes in one line."""
    shown = [f"{quoted(name)} {array.dtype} {tuple(array.shape)}" for name, array in list(arrays.items())[:20]]
    more = len(arrays) - len(shown)
    return (", ".join(shown) or "nothing") + (f", and {more} more" if more > 0 else "")


def _chunk_rows(array: Array) -> int:
    chunks = getattr(array, "chunks", None)
    return int(chunks[0]) if chunks else 1


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which layer 10 comes after layer 2."""
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for character in name + "\0":
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, character))
    return parts
