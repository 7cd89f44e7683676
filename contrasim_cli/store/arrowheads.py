"""The heads of the messages of an Arrow stream, which say what a batch takes before anything is unpacked."""

import struct
from typing import Any


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
