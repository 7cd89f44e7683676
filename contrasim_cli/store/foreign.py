"""Other people's files as stores: plain HDF5, .npy, .npz, .safetensors, and .pt with a tensor or a dict of tensors.

Every 2-D numeric array is a layer; they must agree on rows. A one-dimensional array of strings named `ids` names the
rows. One-dimensional numbers (labels) are passed over. Anything else is ambiguous and refused with the list of what
is there.
"""

import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, MissingError, raise_all, reason
from contrasim_cli.files import quoted
from contrasim_cli.store.format import check_rows, read_ids
from contrasim_cli.store.hdf5 import check_dataset, datasets, is_text
from contrasim_cli.store.store import Array, Ids, Layer, Store

log = logging.getLogger(__name__)

MAX_SAFETENSORS_HEADER = 100 << 20
NUMERIC = "fiu"


def read_plain_hdf5(path: Path, file: h5py.File, layers_axis: int | None = None) -> Store:
    """An HDF5 file of anybody's."""
    found = dict(datasets(path, file))
    ids = None
    arrays: dict[str, Array] = {}
    for name, dataset in found.items():
        if is_text(dataset) or dataset.shape is None:
            continue
        check_dataset(path, name, dataset)
        arrays[name] = dataset
    layers = choose_layers(path, arrays, layers_axis)
    text = found.get("ids")
    if text is not None and text.ndim == 1:
        ids = read_ids(path, text, layers[0].n_rows)
    return Store(path, "HDF5", {layer.name: layer for layer in layers}, ids, close=file.close)


def read_npy(path: Path, layers_axis: int | None = None) -> Store:
    """A `.npy` matrix, memory-mapped."""
    try:
        with np.errstate(over="ignore"):  # of sizes that a damaged header claims
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises whatever its parser of headers trips over
        raise _unreadable(path, ".npy", error) from error
    return _of_arrays(path, ".npy", {path.stem: array}, None, layers_axis)


def read_npz(path: Path, layers_axis: int | None = None) -> Store:
    """A `.npz` archive, read whole."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            members = {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # zipfile and zlib raise whatever they trip over
        raise _unreadable(path, ".npz", error) from error
    ids = members.pop("ids") if members.get("ids", np.empty(())).ndim == 1 else None
    return _of_arrays(path, ".npz", members, ids, layers_axis)


def read_safetensors(path: Path, layers_axis: int | None = None) -> Store:
    """A `.safetensors` file (needs the extra `hf`)."""
    _check_safetensors_header(path)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingError(
            f"{quoted(path)}: reading .safetensors needs the extra hf: pip install 'contrasim[hf]'"
        ) from error
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises errors of its own, and torch's
        raise _unreadable(path, ".safetensors", error) from error
    return _of_tensors(path, ".safetensors", tensors, layers_axis)


def _check_safetensors_header(path: Path) -> None:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(MAX_SAFETENSORS_HEADER, path.stat().st_size):
        raise InputError(f"{quoted(path)}: the safetensors header claims {length} bytes; the file is damaged")


def read_torch(path: Path, layers_axis: int | None = None) -> Store:
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
    return _of_tensors(path, ".pt", tensors, layers_axis)


def _of_tensors(path: Path, kind: str, tensors: Mapping[Any, Any], layers_axis: int | None) -> Store:
    arrays = {str(name): _numpy(path, str(name), tensor) for name, tensor in tensors.items()}
    if len(arrays) < len(tensors):
        raise InputError(f"{quoted(path)}: two tensors have the same name once names are text; rename them")
    return _of_arrays(path, kind, arrays, None, layers_axis)


def _numpy(path: Path, name: str, tensor: Any) -> npt.NDArray[Any]:
    """A tensor as an array; bfloat16 and smaller floats, which NumPy lacks, become float32."""
    import torch

    try:
        tensor = tensor.detach()
        full = tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        small = tensor.is_floating_point() and tensor.element_size() <= 2 and tensor.dtype != torch.float16
        if full:
            array: npt.NDArray[Any] = (tensor.float() if small else tensor).numpy()
            return array
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{quoted(path)}: {quoted(name)} is {tensor.dtype}, {tensor.layout}, and no plain array ({reason(error)}); "
            "save it dense, as float32"
        ) from error
    raise InputError(
        f"{quoted(path)}: {quoted(name)} claims shape {tuple(tensor.shape)}, but holds fewer values; save it with .contiguous()"
    )


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"{quoted(path)}: cannot be read as {kind} ({reason(error)}); the file is damaged or holds Python objects"
    )


def _of_arrays(
    path: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]], ids: npt.NDArray[Any] | None, layers_axis: int | None
) -> Store:
    layers = choose_layers(path, arrays, layers_axis)
    return Store(path, kind, {layer.name: layer for layer in layers}, _array_ids(path, ids, layers[0].n_rows))


def _array_ids(path: Path, ids: npt.NDArray[Any] | None, n_rows: int) -> Ids | None:
    if ids is None:
        return None
    if ids.shape != (n_rows,) or ids.dtype.kind not in "US":
        raise InputError(
            f"{quoted(path)}: ids are {ids.dtype} {ids.shape}; expected {n_rows} strings; store them as text"
        )
    try:
        names = ids if ids.dtype.kind == "U" else np.char.decode(ids, "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{quoted(path)}: ids are no UTF-8 ({reason(error)}); store them as text") from error
    return Ids(n_rows, lambda start, stop: [str(name) for name in names[start:stop]])


def choose_layers(path: Path, arrays: Mapping[str, Array], layers_axis: int | None = None) -> list[Layer]:
    """The layers among named arrays, or in the one 3-D array whose axis `layers_axis` counts them.

    Raises:
        InputError: there is no matrix of numbers, an array's shape is ambiguous, or matrices disagree on rows.
    """
    if layers_axis is not None:
        arrays = _slabs(path, arrays, layers_axis)
    raise_all([problem for name, array in arrays.items() if (problem := _refusal(path, name, array, arrays))])
    layers = [Layer(name, array, _chunk_rows(array)) for name, array in arrays.items() if len(array.shape) == 2]
    if not layers:
        raise InputError(f"{quoted(path)}: holds no matrix [rows, width] of numbers: {listing(arrays)}")
    raise_all(check_rows(path, layers))
    skipped = [name for name, array in arrays.items() if len(array.shape) < 2]
    if skipped:
        log.info("%s: %s: one-dimensional, not taken as a layer", quoted(path), ", ".join(map(quoted, skipped)))
    return sorted(layers, key=lambda layer: _natural(layer.name))


@dataclass(frozen=True)
class Slab:
    """One layer of a 3-D array: a matrix that is read when its rows are asked for."""

    whole: Any
    layers_axis: int
    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        return (int(self.whole.shape[1 - self.layers_axis]), int(self.whole.shape[2]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        found: np.dtype[Any] = self.whole.dtype
        return found

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Rows that are best read together."""
        chunks = getattr(self.whole, "chunks", None)
        return (int(chunks[1 - self.layers_axis]),) if chunks else None

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Some rows [k, width]."""
        return np.asarray(self.whole[self.index, rows] if self.layers_axis == 0 else self.whole[rows, self.index])


def _slabs(path: Path, arrays: Mapping[str, Array], layers_axis: int) -> dict[str, Array]:
    solid = [array for array in arrays.values() if len(array.shape) == 3]
    if len(solid) != 1 or any(len(array.shape) == 2 for array in arrays.values()):
        raise InputError(
            f"{quoted(path)}: --axes is for a file with one array of three dimensions; it holds {listing(arrays)}"
        )
    return {f"layer_{index}": Slab(solid[0], layers_axis, index) for index in range(solid[0].shape[layers_axis])}


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
