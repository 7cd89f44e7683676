"""One vocabulary for arithmetic, whichever library does it: torch's tensors, or NumPy's arrays under the same names.

Formulas are written once, by torch's names: methods of their arguments (`x.square().sum(dim=-1)`) and functions of `xp`
(`xp.linalg.qr(x)`). `xp` is torch where arguments are its tensors, and `arrays.functions` where they are `Array`s: so small work
need not import torch, which takes longer than the work. What is made from nothing says where: on `device=NUMPY`, or on one of
torch's. To a type checker `xp` is torch, and `Tensor` is `torch.Tensor`.

Formulas use what `Array` and `functions` name, and no more. `view` is NumPy's: formulas say `reshape`.
A type is named as in `xp.float64`; to a method of a tensor it is given by `native`, because torch's take torch's types alone.
"""

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from contrasim_cli.arrays import functions
from contrasim_cli.arrays.array import NUMPY, Array

if TYPE_CHECKING:
    import torch as xp
    from torch import Tensor
    from torch import device as Device
    from torch import dtype as DType
    from torch.nn.functional import pad

__all__ = [
    "NUMPY",
    "Array",
    "DType",
    "Device",
    "Tensor",
    "as_tensor",
    "host",
    "is_tensor",
    "native",
    "on_numpy",
    "pad",
    "xp",
]


DECOMPOSITIONS = ("eigh", "eigvalsh", "svd", "svdvals", "qr")
FOR_ONE_THREAD = 1 << 20  # values of a matrix that torch decomposes no faster with more threads on idle cores

# On busy cores the same takes up to twenty times as long with more threads, as each step waits for all of them.


class Kind(str):
    """A type of numbers by its name, equal to that of either library."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str(other).removeprefix("torch.") == str(self)

    def __ne__(self, other: object) -> bool:
        return not self == other


def on_numpy(device: "Device") -> bool:
    """Whether arithmetic there is NumPy's."""
    return device is NUMPY


def host(device: "Device") -> "Device":
    """The processor beside a device, by the same library."""
    if device is NUMPY or device.type == "cpu":
        return device
    import torch

    return torch.device("cpu")


def is_tensor(value: object) -> "TypeGuard[Tensor]":
    """Whether it is an array of either library."""
    return isinstance(value, Array) or ("torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor))


def native(kind: "DType | np.dtype[Any] | str", device: "Device") -> "DType":
    """A type of numbers as the library of a device has it."""
    name = kind.name if isinstance(kind, np.dtype) else str(kind).removeprefix("torch.")
    found: Any = np.dtype(name) if device is NUMPY else getattr(sys.modules["torch"], name)
    return found  # type: ignore[no-any-return]


def as_tensor(rows: "np.typing.NDArray[Any] | Tensor", device: "Device") -> "Tensor":
    """Rows on a device, without a copy where they are there."""
    if device is NUMPY:
        return functions.as_tensor(rows)  # type: ignore[return-value]
    import torch

    return torch.as_tensor(rows).to(device)


class _Names:
    """Functions that go to the library of their arguments."""

    def __init__(self, path: str, ours: object) -> None:
        self._path, self._ours = path, ours

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._ours, name, None)
        found = own if isinstance(own, float) else _dispatched(own, [*filter(None, self._path.split(".")), name])
        setattr(self, name, found)  # the next time it is there
        return found


def _dispatched(own: Callable[..., Any] | None, path: list[str]) -> Callable[..., Any]:
    theirs: Callable[..., Any] | None = None

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal theirs
        if _is_numpy(args, kwargs):
            assert own is not None, f"{'.'.join(path)} has no form of NumPy"
            return own(*args, **kwargs)
        if theirs is None:
            import torch

            theirs = torch  # type: ignore[assignment]
            for name in path:
                theirs = getattr(theirs, name)
            if path[-1] in DECOMPOSITIONS:
                theirs = _decomposition(theirs)
        assert theirs is not None
        if isinstance(kwargs.get("dtype"), Kind):
            kwargs["dtype"] = getattr(sys.modules["torch"], kwargs["dtype"])
        return theirs(*args, **kwargs)

    return call


def _decomposition(theirs: Any) -> Callable[..., Any]:
    """A decomposition of torch that takes one thread for a small matrix on the processor."""
    torch = sys.modules["torch"]

    def call(matrix: Any, *args: Any, **kwargs: Any) -> Any:
        threads = torch.get_num_threads()
        if threads == 1 or matrix.device.type != "cpu" or math.prod(matrix.shape[-2:]) > FOR_ONE_THREAD:
            return theirs(matrix, *args, **kwargs)
        torch.set_num_threads(1)
        try:
            return theirs(matrix, *args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return call


def _is_numpy(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the first array among the arguments, or the device, is NumPy's."""
    return kwargs.get("device") is NUMPY or any(isinstance(_innermost(one), Array | np.dtype) for one in args)


def _innermost(value: Any) -> Any:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return value


if not TYPE_CHECKING:
    Tensor = Device = DType = Array  # in annotations, which nothing reads
    pad = _dispatched(functions.pad, ["nn", "functional", "pad"])
    xp = _Names("", functions)
    xp.linalg = _Names("linalg", functions.linalg)
    xp.float64, xp.float32, xp.int64, xp.bool = map(Kind, ("float64", "float32", "int64", "bool"))
