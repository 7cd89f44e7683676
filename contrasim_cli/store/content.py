"""What a file of somebody else's holds, before anything is made of it.

A module per kind of container opens the file and returns a `Content`: arrays and texts by name. What their axes, names and order
mean is decided in one place for all of them, by `foreign.store_of`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contrasim_cli.errors import InputError, reason
from contrasim_cli.names import quoted
from contrasim_cli.store.sixteen_bits import is_two_bytes
from contrasim_cli.store.store import Array, Ids

NUMBERS = "biuf"


@dataclass(frozen=True)
class Content:
    """What a container holds.

    `arrays`: numbers of one dimension or more, in the container's own order. They are sliced as NumPy's are: a matrix by rows
    (`array[2:5]`), and an array of any shape by a tuple with a slice or a number per axis (`array[2:5, 0, :]`).
    `ordered`: the container keeps the order in which arrays were written; otherwise they are sorted by name.
    `texts`: vectors of strings, any of which may name the rows. Vectors of integers, which may too, are among the arrays.
    `names`: the text or vector of integers that the container itself says to be the rows' names.
    `axes`: what the axes of an array are, in the words of `--axes`, where the container itself says it.
    `levels`: of arrays within groups or nested dicts, the keys from the outermost on; by default the name, cut at slashes.
    `files`: what was read, where that is not the one file that was opened.
    `passed`: what no layer can be made of, and why: {"tokens": "an array of Python objects"}.
    """

    kind: str
    arrays: Mapping[str, Array]
    ordered: bool = False
    texts: Mapping[str, Ids] = field(default_factory=dict)
    names: str | None = None
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    passed: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    close: Callable[[], None] = lambda: None


def sorted_out(
    path: Path, kind: str, members: Mapping[str, Any], passed: Mapping[str, str] | None = None, **more: Any
) -> Content:
    """The content of a container whose members are NumPy arrays, or have a shape and a type and are sliced like them.

    Numbers are told from texts, and from what is neither, which is passed over. Texts may be given as `Ids`, and what is passed
    over as None, with the reason in `passed`. `more` are other fields of `Content`.
    """
    arrays: dict[str, Array] = {}
    texts: dict[str, Ids] = {}
    left = {name: why for name, why in (passed or {}).items() if members.get(name) is None}
    for name, member in members.items():
        if member is None:
            continue
        if isinstance(member, Ids):
            texts[name] = member
        elif (member.dtype.kind in NUMBERS or is_two_bytes(member)) and member.shape:
            arrays[name] = member
        elif member.dtype.kind in "US" and tuple(member.shape[1:]) in ((), (1,)) and member.shape:
            texts[name] = texts_of(path, name, member)
        else:
            left[name] = no_layer(member)
    return Content(kind, arrays, texts=texts, passed=left, **more)


def texts_of(path: Path, name: str, array: Any) -> Ids:
    """A vector of strings, or of UTF-8, as names of rows."""

    def read(start: int, stop: int) -> list[str]:
        try:
            values = np.asarray(array[start:stop]).ravel().tolist()
            return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        except UnicodeDecodeError as error:
            raise InputError(
                f"{quoted(path)}: {quoted(name)} is not UTF-8 ({reason(error)}); store it as text"
            ) from error

    return Ids(int(array.shape[0]), read)


def no_layer(array: Any) -> str:
    """Why no layer can be made of an array."""
    if array.dtype.kind == "O":
        return "an array of Python objects"
    if array.dtype.kind in "US":
        return "text"
    return f"one value of {array.dtype}" if not array.shape else str(array.dtype)


def unreadable(path: Path, kind: str, error: Exception) -> InputError:
    """The error for a file whose reader tripped over something."""
    return InputError(
        f"{quoted(path)}: cannot be read as {kind} ({reason(error)}); the file is damaged or holds Python objects"
    )


def check_held(path: Path, name: str, size: int, budget: int | None) -> None:
    """Refuse to hold more in memory than there is for it: an archive may unpack to any size.

    Raises:
        InputError: `size` bytes are more than `budget`, or than half of what is free where `budget` is None.
    """
    from contrasim_cli.memory import memory_budget

    limit = memory_budget(budget)
    if size > limit:
        raise InputError(
            f"{quoted(path)}: {quoted(name)} takes {size / 1e9:.3g} GB of memory once it is unpacked, and there are "
            f"{limit / 1e9:.3g} GB for it; give --memory, or save it uncompressed"
        )


KERAS = {"keras_version", "model_config", "layer_names"}  # attributes of the file, of all versions but the third
PARAMETERS = {
    "weight", "bias", "kernel", "gamma", "beta", "running_mean", "running_var", "moving_mean", "moving_variance",
    "in_proj_weight", "in_proj_bias", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
}  # fmt: skip


def refuse_weights(path: Path, names: Iterable[str], attributes: Iterable[str] = ()) -> None:
    """Refuse a file whose attributes, or at least half of whose arrays, are those of a model's parameters.

    Raises:
        InputError: it is one.
    """
    known = [_is_parameter(name) for name in names]
    if KERAS & set(attributes) or (known and 2 * sum(known) >= len(known)):
        raise InputError(
            f"{quoted(path)}: holds the weights of a model, not activations; run the model, and save what its layers return "
            "(contrasim extract --model does so)"
        )


def _is_parameter(name: str) -> bool:
    """Whether an array is called as parameters are: `conv.weight`, `dense/kernel:0`, `layers/dense/vars/0`."""
    levels = name.replace("/", ".").split(".")
    keras = levels[-2:-1] == ["vars"] and levels[-1].isdigit()
    return keras or (len(levels) > 1 and levels[-1].partition(":")[0] in PARAMETERS)
