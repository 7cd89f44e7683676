"""Files of tensors: `.safetensors`, and `.pt` with tensors, or dicts, lists and tuples of them; nothing else is unpickled.

Items of a list are called 0 to n-1, keys of nested dicts are joined by dots.
"""

import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli import archives
from contrasim_cli.errors import InputError, MissingError, reason
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.content import Content, sorted_out, unreadable
from contrasim_cli.store.store import Ids

MAX_SAFETENSORS_HEADER = 100 << 20
MAX_DEPTH = 16
PLAIN = (int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Tensor:
    """A tensor in memory or mapped, as an array; floats that NumPy lacks, such as bfloat16, become float32 when they are read."""

    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of what is read."""
        return self[tuple(slice(0, 0) for _ in self.tensor.shape)].dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Some of the values."""
        import torch

        part = self.tensor[key]
        small = part.is_floating_point() and part.element_size() <= 2 and part.dtype != torch.float16
        values: npt.NDArray[Any] = (part.float() if small else part).numpy()
        return values


def read_safetensors(file: Snapshot) -> Content:
    """A `.safetensors` file (needs the extra `hf`); it is sorted by type and name, whatever the order it was given."""
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
        raise unreadable(path, ".safetensors", error) from error
    passed: dict[str, str] = {}
    members = {name: _array(path, name, tensor, passed) for name, tensor in tensors.items()}
    return sorted_out(path, ".safetensors", members, passed)


def _check_safetensors_header(file: Snapshot) -> None:
    (length,) = struct.unpack("<Q", file.start(8))
    if length > min(MAX_SAFETENSORS_HEADER, file.size):
        raise InputError(f"{quoted(file.path)}: the safetensors header claims {length} bytes; the file is damaged")


def read_torch(file: Snapshot) -> Content:
    """A `.pt` file in the order in which it holds its tensors."""
    import torch

    path = file.path
    try:
        archives.check_stored(file)
        with warnings.catch_warnings():  # of types that torch is about to drop
            warnings.simplefilter("ignore")
            content = torch.load(file.name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch and zipfile raise whatever they trip over
        raise InputError(
            f"{quoted(path)}: holds more than tensors (or is damaged); save a tensor or a dict of tensors, pickles are refused"
        ) from error
    if isinstance(content, Mapping) and str(content.get("format", "")).startswith("contrasim-"):
        raise InputError(
            f"{quoted(path)}: is an encoder, not a store of activations; give it to contrasim score or bench as --encoder"
        )
    members: dict[str, Any] = {}
    passed: dict[str, str] = {}
    levels: dict[str, tuple[str, ...]] = {}
    for keys, value in _leaves(path, content):
        name = ".".join(keys) or quoted(path.stem)
        if name in levels:
            raise InputError(f"{quoted(path)}: two tensors are called {quoted(name)} once keys are text; rename them")
        levels[name] = keys or (name,)
        if isinstance(value, torch.Tensor):
            members[name] = _array(path, name, value, passed)
        else:
            members[name] = _vector(value)
            passed[name] = type(value).__name__
    return sorted_out(path, ".pt", members, passed, ordered=True, levels=levels)


def _leaves(path: Path, content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything that dicts, lists and tuples hold in the end, with the keys that lead to it; a list of plain values is one.

    Raises:
        InputError: they are nested too deep, or one is in two places, which could be 10^16 places.
    """
    addresses: set[int] = set()
    left: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while left:
        keys, value = left.pop()
        items = _items(value)
        if items is None:
            yield keys, value
            continue
        if len(keys) >= MAX_DEPTH or id(value) in addresses:
            problem = "is in two places" if id(value) in addresses else f"is nested deeper than {MAX_DEPTH}"
            raise InputError(f"{quoted(path)}: {quoted('.'.join(keys))} {problem}; save tensors by name")
        addresses.add(id(value))
        left += reversed([((*keys, str(key)), member) for key, member in items])


def _items(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """The keys and members of a container; None of anything else, and of lists of plain values."""
    if isinstance(value, Mapping):
        return value.items()
    is_list = isinstance(value, (list, tuple)) and not all(isinstance(member, PLAIN) for member in value)
    return enumerate(value) if is_list else None


def _vector(value: Any) -> Any:
    """A list of texts, or of integers, which may name rows; None of anything else."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if all(isinstance(member, str) for member in value):
        return Ids(len(value), lambda start, stop: list(value[start:stop]))
    whole = all(isinstance(member, int) and not isinstance(member, bool) and abs(member) < 1 << 63 for member in value)
    return np.array(value, dtype=np.int64) if whole else None


def _array(path: Path, name: str, tensor: Any, passed: dict[str, str]) -> Tensor | None:
    """A tensor as an array; None, with the reason, of one that NumPy has no array for.

    Raises:
        InputError: it claims more values than there are.
    """
    try:
        tensor = tensor.detach()
        full = tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        array = Tensor(tensor)
        array.dtype  # noqa: B018  which some types do not have
    except (TypeError, RuntimeError) as error:
        passed[name] = f"{tensor.dtype}, {tensor.layout}, no plain array ({reason(error)}): save it dense, as float32"
        return None
    if not full:
        raise InputError(
            f"{quoted(path)}: {quoted(name)} claims shape {tuple(tensor.shape)}, but holds fewer values; save it with .contiguous()"
        )
    return array
