"""MATLAB files before version 7.3: matrices, alone or in structs and cells, and texts that may name rows. Needs scipy.

scipy makes nothing of functions and objects but data; as it may crash on a damaged file, a child process reads the file first.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import io, sparse
from scipy.io.matlab import MatReadWarning

from contrasim_cli.errors import ContraSimError, InputError, reason
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.child_process import rehearse
from contrasim_cli.store.content import Content, check_held, sorted_out

MAGIC = b"MATLAB 5.0 MAT-file"
MAX_DEPTH = 8  # of structs in structs
EXACT = 2**53  # integers below that a double holds
SIZES = {"single": 4, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "logical": 1, "char": 4}

FLOATS = {"double": np.float64, "single": np.float32}

Claim = tuple[tuple[int, ...], str]  # shape and class
Member = tuple[str, Any, str | None]  # name, array, and why there is none


def read_matlab(file: Snapshot, budget: int | None = None) -> Content:
    """What lies in the variables of such a file.

    Raises:
        InputError: it is damaged, or takes more than `budget` bytes of memory.
    """
    path = file.path
    rehearse(file, lambda: _claims(file), "scipy", most=memory_budget(budget))
    claims = _claims(file)
    # what lies in structs and cells is not told, and bounded only by the limits of the child
    held = sum(math.prod(shape) * SIZES.get(kind, 8) for shape, kind in claims.values())
    check_held(path, path.name, held, budget)
    rehearse(file, lambda: _variables(file, claims), "scipy", held, memory_budget(budget))
    entries = [member for name, value in _variables(file, claims).items() for member in _members(name, value, 0)]
    members = {name: value for name, value, why in entries if why is None}
    passed = {name: why for name, _, why in entries if why is not None}
    return sorted_out(path, "MATLAB", members, passed, ordered=True)


def _claims(file: Snapshot) -> dict[str, Claim]:
    return {name: (shape, kind) for name, shape, kind in _read(file, io.whosmat)}


def _variables(file: Snapshot, claims: Mapping[str, Claim]) -> dict[str, Any]:
    """The variables; doubles and singles that are kept as integers, to save room, are floats again."""
    variables = {name: value for name, value in _read(file, io.loadmat).items() if not name.startswith("__")}
    for name, value in variables.items():
        kind = FLOATS.get(claims[name][1]) if name in claims else None
        if kind and isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            variables[name] = value.astype(kind)
    return variables


def _read(file: Snapshot, read: Any) -> Any:
    path = file.path
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", MatReadWarning)  # of two variables of the same name
            return read(file.reader())
    except (ContraSimError, MemoryError):
        raise
    except Exception as error:  # scipy and zlib raise whatever they trip over
        raise InputError(f"{quoted(path)}: cannot be read as MATLAB ({reason(error)}); the file is damaged") from error


def _members(name: str, value: Any, depth: int) -> Iterator[Member]:
    """The arrays in a variable; those in a struct or a cell array are named by what they lie in."""
    if sparse.issparse(value):
        yield name, None, "a sparse matrix, save full(x)"
    elif not isinstance(value, np.ndarray) or depth > MAX_DEPTH:
        yield name, None, "an object of MATLAB"
    elif value.dtype.names and value.size == 1:
        for field in value.dtype.names:
            yield from _members(f"{name}.{field}", value[field].item(), depth + 1)
    elif value.dtype == object and value.size:
        yield from _cells(name, value.ravel("F").tolist(), depth)
    else:
        yield name, _unpadded(value) if value.dtype.kind == "U" else _vector(value), None


def _cells(name: str, cells: list[Any], depth: int) -> Iterator[Member]:
    """A cell array of texts is a vector of texts; in one of matrices, each is named by its number."""
    arrays = [cell for cell in cells if isinstance(cell, np.ndarray)]
    texts = [cell.size <= 1 and (cell.dtype.kind == "U" or not cell.size) for cell in arrays]
    if len(arrays) == len(cells) and all(texts) and any(cell.dtype.kind == "U" for cell in arrays):
        yield name, np.array([str(cell.item()) if cell.size else "" for cell in arrays]), None
        return
    for number, cell in enumerate(cells):
        yield from _members(f"{name}.{number}", cell, depth + 1)


def _unpadded(texts: Any) -> Any:
    return np.char.rstrip(texts)


def _vector(value: Any) -> Any:
    """What is a vector or one number, which MATLAB has as a matrix; whole numbers, which it has as doubles, are integers there."""
    if value.ndim != 2 or 1 not in value.shape:
        return value
    vector = value.reshape(-1) if value.size > 1 else value.reshape(())
    whole = (
        vector.dtype.kind == "f" and bool((np.abs(vector) < EXACT).all()) and bool((vector == np.rint(vector)).all())
    )
    return vector.astype(np.int64) if whole else vector
