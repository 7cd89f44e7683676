"""Arrow's columns as arrays of NumPy, and the heads of its messages, which say what a batch takes. Needs pyarrow."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

Values = npt.NDArray[Any]


class RaggedError(Exception):
    """A row, counted from the start of a batch, whose list has another length than expected: row, length, expected length."""


def plain(kind: pa.DataType) -> pa.DataType:
    """A type as it is stored, which for texts that repeat is that of the texts."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    return plain(kind.value_type) if types.is_dictionary(kind) else kind


def is_number(kind: pa.DataType) -> bool:
    """Whether it is one, or a truth value."""
    return any(test(kind) for test in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal))


def is_text(kind: pa.DataType) -> bool:
    """Whether it is a string."""
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view))


def depth(kind: pa.DataType) -> int:
    """How many lists of numbers lie in each other; 0 of other types."""
    if any(test(kind) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        inner = plain(kind.value_type)
        return 1 + depth(inner) if is_number(inner) or depth(inner) else 0
    return 0


def numpy_type(kind: pa.DataType, missing: bool) -> np.dtype[Any]:
    """What the numbers of a column are as NumPy has them; `missing` ones make them floats."""
    leaf = kind
    while depth(leaf):
        leaf = plain(leaf.value_type)
    if types.is_decimal(leaf) or (missing and not types.is_floating(leaf)):
        return np.dtype(np.float64)
    dtype: np.dtype[Any] = (
        pa.array([], leaf).to_numpy(zero_copy_only=False).dtype
    )  # older ones ask pandas for it otherwise
    return dtype


def stored(values: pa.Array) -> pa.Array:
    """Values as they are stored, each by itself."""
    while isinstance(values, pa.ExtensionArray):
        values = values.storage
    return values.dictionary_decode() if types.is_dictionary(values.type) else values


def strings(values: pa.Array) -> list[str | None]:
    """Texts, of which each that repeats is held once."""
    while isinstance(values, pa.ExtensionArray):
        values = values.storage
    if not types.is_dictionary(values.type):
        return list(values.to_pylist())
    strings: list[str | None] = [None] * len(values)
    used, numbers = np.unique(values.indices.drop_null().to_numpy(zero_copy_only=False), return_inverse=True)
    texts = values.dictionary.take(pa.array(used, values.type.index_type)).to_pylist()
    for place, number in zip(np.flatnonzero(values.indices.is_valid()), numbers.tolist(), strict=True):
        strings[place] = texts[number]
    return strings


def has_nulls(values: pa.Array) -> bool:
    """Whether a value is missing, or one in a list."""
    values = stored(values)
    return bool(values.null_count) or (depth(values.type) > 0 and has_nulls(values.flatten()))


def lengths_of(values: pa.Array) -> tuple[int, ...] | None:
    """The lengths of lists in each other, by the first that is not missing; None if all are."""
    values = stored(values)
    if not depth(values.type):
        return ()
    values = values.drop_null()
    inner = lengths_of(values.flatten()) if len(values) else None
    return None if inner is None else (len(values.slice(0, 1).flatten()), *inner)


def dense(values: pa.Array, tail: Sequence[int]) -> Values:
    """The numbers [rows, *tail] in a column; what is missing is NaN.

    Raises:
        RaggedError: lists are of other lengths.
    """
    values = stored(values)
    if not tail:
        if types.is_boolean(values.type):
            values = values.cast(pa.uint8())
        elif types.is_decimal(values.type):
            values = values.cast(pa.float64())
        return np.asarray(values.to_numpy(zero_copy_only=False))
    missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False))
    lists = values.drop_null()
    _check_lengths(lists, missing, tail[0])
    inner = dense(lists.flatten(), tail[1:]).reshape(len(lists), *tail)
    if not missing.any():
        return inner
    out = np.full((len(values), *tail), np.nan, np.result_type(inner.dtype, np.float16))
    out[~missing] = inner
    return out


def _check_lengths(lists: pa.Array, missing: Values, expected: int) -> None:
    if types.is_fixed_size_list(lists.type):
        lengths = np.full(len(lists), lists.type.list_size)
    else:
        lengths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False))
    wrong = np.flatnonzero(lengths != expected)
    if wrong.size:
        raise RaggedError(int(np.flatnonzero(~missing)[wrong[0]]), int(lengths[wrong[0]]), expected)


def claims(message: Any) -> tuple[bool, int, int]:
    """What a message of an Arrow stream says: whether it has rows of the table, how many, and the bytes that they take unpacked.

    The head of a message is a FlatBuffer, whose tables begin with the distance of a list of their fields' places.
    """
    head, body = message.metadata.to_pybytes(), message.body
    kinds = {"record batch": True, "dictionary": False}
    if message.type not in kinds or body is None:
        return False, 0, 0
    table = _table(head, _field(head, _number("<I", head, 0), 2))
    if message.type == "dictionary":
        table = _table(head, _field(head, table, 1))
    rows = _field(head, table, 0)
    count = _number("<q", head, rows) if rows else 0
    if _field(head, table, 3) is None:
        return kinds[message.type], count, 0
    buffers = _table(head, _field(head, table, 2))
    places = struct.iter_unpack("<qq", head[buffers + 4 : buffers + 4 + 16 * _number("<I", head, buffers)])
    sizes = [_number("<q", body[start : start + 8].to_pybytes(), 0) for start, length in places if length]
    return kinds[message.type], count, sum(size for size in sizes if size > 0)


def _number(kind: str, data: bytes, place: int) -> int:
    return int(struct.unpack_from(kind, data, place)[0])


def _field(data: bytes, table: int, slot: int) -> int | None:
    """Where a field of a table is, if it has one."""
    fields = table - _number("<i", data, table)
    if 4 + 2 * slot >= _number("<H", data, fields):
        return None
    distance = _number("<H", data, fields + 4 + 2 * slot)
    return table + distance if distance else None


def _table(data: bytes, place: int | None) -> int:
    """Where what a field points to is."""
    if place is None:
        raise ValueError("a field is missing in the head of a batch")
    return place + _number("<I", data, place)
