"""Other people's files as stores: plain HDF5, .npy, .npz, .safetensors, and .pt with a tensor or a dict of tensors.

Every 2-D numeric array is a layer; they must agree on rows. A one-dimensional array of strings named `ids` names the
rows. One-dimensional numbers (labels) are passed over. Anything else is ambiguous and refused with the list of what
is there; `axes` says what the dimensions are, of which numbered arrays count as the first.
"""

import logging
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contrasim_cli import archives
from contrasim_cli.errors import InputError, MissingError, UsageError, raise_all, reason
from contrasim_cli.files import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content, sorted_out
from contrasim_cli.store.format import check_rows, text_ids
from contrasim_cli.store.hdf5 import check_dataset, is_text
from contrasim_cli.store.joined import Joined, Slab
from contrasim_cli.store.npz import members
from contrasim_cli.store.store import Array, Ids, Layer, Store

log = logging.getLogger(__name__)

MAX_SAFETENSORS_HEADER = 100 << 20
NUMERIC = "fiu"
AXES = (LAYERS_FIRST, ROWS_FIRST, PARTS) = ("layers,rows,width", "rows,layers,width", "parts,rows,width")


def store_of(path: Path, content: Content, axes: str | None = None) -> Store:
    """The layers among the arrays of a file.

    Raises:
        InputError: there are none, their shapes are ambiguous, or they or the ids disagree on rows.
    """
    layers = choose_layers(path, content.arrays, axes)
    for name, why in content.passed.items():
        log.info("%s: %s: %s, not taken as a layer", quoted(path), quoted(name), why)
    ids = _ids(path, content, layers[0].n_rows)
    by_name = {layer.name: layer for layer in layers}
    return Store(path, content.kind, by_name, ids, files=content.files, close=content.close)


def _ids(path: Path, content: Content, n_rows: int) -> Ids | None:
    """The names of the rows."""
    ids = content.texts.get(content.names or "ids")
    if ids is not None and ids.count != n_rows:
        raise InputError(f"{quoted(path)}: has {ids.count} ids for {n_rows} rows; mend one of them")
    return ids


def read_plain_hdf5(path: Path, file: h5py.File, found: Mapping[str, h5py.Dataset]) -> Content:
    """An HDF5 file of anybody's, with its datasets."""
    arrays: dict[str, Array] = {}
    for name, dataset in found.items():
        if is_text(dataset) or dataset.shape is None:
            continue
        check_dataset(path, name, dataset)
        arrays[name] = dataset
    texts = {"ids": text_ids(path, found["ids"])} if "ids" in found and is_text(found["ids"]) else {}
    return Content("HDF5", arrays, texts=texts, close=file.close)


def read_npy(file: Snapshot) -> Content:
    """A `.npy` matrix, memory-mapped."""
    path = file.path
    try:
        with np.errstate(over="ignore"):  # of sizes that a damaged header claims
            array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises whatever its parser of headers trips over
        raise _unreadable(path, ".npy", error) from error
    return sorted_out(path, ".npy", {quoted(path.stem): array})


def read_npz(file: Snapshot) -> Content:
    """A `.npz` archive: arrays are memory-mapped, and read whole if they are compressed."""
    path = file.path
    try:
        arrays = {name: member.array() for name, member in members(file).items()}
    except Exception as error:  # zipfile and zlib raise whatever they trip over
        raise _unreadable(path, ".npz", error) from error
    return sorted_out(path, ".npz", arrays)


def read_safetensors(file: Snapshot) -> Content:
    """A `.safetensors` file (needs the extra `hf`)."""
    path = file.path
    _check_safetensors_header(file)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingError(
            f"{quoted(path)}: reading .safetensors needs the extra hf: pip install 'contrasim[hf]'"
        ) from error
    try:
        tensors = load_file(file.name)
    except Exception as error:  # safetensors raises errors of its own, and torch's
        raise _unreadable(path, ".safetensors", error) from error
    return _of_tensors(path, ".safetensors", tensors)


def _check_safetensors_header(file: Snapshot) -> None:
    (length,) = struct.unpack("<Q", file.start(8))
    if length > min(MAX_SAFETENSORS_HEADER, file.size):
        raise InputError(f"{quoted(file.path)}: the safetensors header claims {length} bytes; the file is damaged")


def read_torch(file: Snapshot) -> Content:
    """A `.pt` file with a tensor or a dict of tensors; nothing else is unpickled."""
    import torch

    path = file.path
    try:
        archives.check_stored(file)
        content = torch.load(file.name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch and zipfile raise whatever they trip over
        raise InputError(
            f"{quoted(path)}: holds more than tensors (or is damaged); save a tensor or a dict of tensors, pickles are refused"
        ) from error
    if isinstance(content, Mapping) and str(content.get("format", "")).startswith("contrasim-"):
        raise InputError(f"{quoted(path)}: is an encoder, not a store of activations; give it as --encoder")
    tensors = {quoted(path.stem): content} if isinstance(content, torch.Tensor) else content
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise InputError(f"{quoted(path)}: holds {type(content).__name__}, not a tensor or a dict of tensors")
    return _of_tensors(path, ".pt", tensors)


def _of_tensors(path: Path, kind: str, tensors: Mapping[Any, Any]) -> Content:
    arrays: dict[str, Array] = {str(name): _numpy(path, str(name), tensor) for name, tensor in tensors.items()}
    if len(arrays) < len(tensors):
        raise InputError(f"{quoted(path)}: two tensors have the same name once names are text; rename them")
    return Content(kind, arrays)


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


def check_axes(axes: str | None) -> str | None:
    """The axes in their usual spelling.

    Raises:
        UsageError: they are others.
    """
    wanted = None if axes is None else axes.replace(" ", "")
    if wanted is not None and wanted not in AXES:
        raise UsageError(f"--axes {quoted(axes)}: write {', '.join(AXES[:-1])} or {AXES[-1]}")
    return wanted


def choose_layers(path: Path, arrays: Mapping[str, Array], axes: str | None = None) -> list[Layer]:
    """The layers among named arrays, as `axes` says if the shapes do not.

    Raises:
        InputError: there is no matrix of numbers, an array's shape is ambiguous, or matrices disagree on rows.
    """
    if axes is not None:
        arrays = _by_axes(path, arrays, axes)
    else:
        _refuse_numbered(path, arrays)
    raise_all([problem for name, array in arrays.items() if (problem := _refusal(path, name, array, arrays))])
    layers = [Layer(name, array, _chunk_rows(array)) for name, array in arrays.items() if len(array.shape) == 2]
    if not layers:
        raise InputError(f"{quoted(path)}: holds no matrix [rows, width] of numbers: {listing(arrays)}")
    raise_all(check_rows(path, layers))
    skipped = [name for name, array in arrays.items() if len(array.shape) < 2]
    if skipped:
        log.info("%s: %s: one-dimensional, not taken as a layer", quoted(path), ", ".join(map(quoted, skipped)))
    return sorted(layers, key=lambda layer: _natural(layer.name))


def _by_axes(path: Path, arrays: Mapping[str, Array], axes: str) -> dict[str, Array]:
    """The layers of one 3-D array, or of numbered arrays of two dimensions or three."""
    solid = {name: array for name, array in arrays.items() if len(array.shape) > 1}
    ordered = dict(sorted(solid.items(), key=lambda item: _natural(item[0])))
    dimensions = {len(array.shape) for array in ordered.values()}
    if dimensions == {2} and axes == LAYERS_FIRST:
        return ordered
    if dimensions == {2} and axes == PARTS and len(set(map(_stem, ordered))) == 1:
        return {_stem(next(iter(ordered))): _joined(path, ordered)}
    if dimensions == {3} and axes == LAYERS_FIRST and len(ordered) > 1:
        return _by_sentence(path, ordered)
    if dimensions == {3} and len(ordered) == 1:
        name, whole = next(iter(ordered.items()))
        axis = 1 if axes == ROWS_FIRST else 0
        slabs: dict[str, Array] = {f"layer_{k}": Slab(whole, axis, k) for k in range(whole.shape[axis])}
        return {name: _joined(path, slabs)} if axes == PARTS else slabs
    raise InputError(
        f"{quoted(path)}: --axes {axes} is for one array of three dimensions, or for numbered matrices; it holds {listing(arrays)}"
    )


def _by_sentence(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The layers of arrays [layers, words, width], one per sentence."""
    depths = {int(array.shape[0]) for array in arrays.values()}
    if len(depths) > 1:
        raise InputError(f"{quoted(path)}: the arrays disagree on layers: {listing(arrays)}")
    return {
        f"layer_{index}": _joined(path, {name: Slab(array, 0, index) for name, array in arrays.items()})
        for index in range(depths.pop())
    }


def _joined(path: Path, parts: Mapping[str, Array]) -> Joined:
    if len({array.shape[1] for array in parts.values()}) > 1:
        raise InputError(f"{quoted(path)}: parts of one layer have the same width; it holds {listing(parts)}")
    return Joined(list(parts.values()))


def _stem(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_.-") or "layer"


def _refuse_numbered(path: Path, arrays: Mapping[str, Array]) -> None:
    """Refuse what may be layers or pieces of them: thingsvision's parts, and sentences without their index."""
    matrices = {name: array for name, array in arrays.items() if len(array.shape) > 1}
    if len(matrices) > 1 and all(re.fullmatch(r"features_\d+", name) for name in matrices):
        raise InputError(
            f"{quoted(path)}: are these layers, or parts of the rows of one, as thingsvision writes them? {listing(matrices)}; "
            f"give the folder with its file_names.txt, or convert it with contrasim extract --from FILE --axes {PARTS} "
            f"(or {LAYERS_FIRST})"
        )
    numbers = {str(number) for number in range(len(matrices))}
    if len(matrices) > 1 and set(matrices) == numbers and all(len(array.shape) == 3 for array in matrices.values()):
        raise InputError(
            f"{quoted(path)}: {len(matrices)} numbered arrays without sentence_to_index: {listing(matrices)}; if each is a "
            f"sentence [layers, words, width], convert it with contrasim extract --from FILE --axes {LAYERS_FIRST}"
        )


def _refusal(path: Path, name: str, array: Array, arrays: Mapping[str, Array]) -> InputError | None:
    if array.dtype.kind not in NUMERIC and len(array.shape) == 2:
        return InputError(f"{quoted(path)}: {quoted(name)} is {array.dtype}; layers are real numbers")
    if len(array.shape) > 2:
        return InputError(
            f"{quoted(path)}: {quoted(name)} has {len(array.shape)} dimensions, and its shape alone does not say which are layers, "
            f"rows and neurons: {listing(arrays)}; convert it with contrasim extract --from FILE --axes {LAYERS_FIRST}"
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
