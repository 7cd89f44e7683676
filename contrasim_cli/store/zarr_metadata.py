"""The metadata of an array of zarr, versions 2 and 3."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrasim_cli.store.codecs import UNPACK
from contrasim_cli.store.zarr_chunks import Layout, Sharding

TYPE_2 = re.compile(r"[<>|]([biuf]\d|[SU]\d{1,9})")
TYPE_3 = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
FIXED = {"fixed_length_utf32": "<U", "null_terminated_bytes": "S"}

Config = Mapping[str, Any]


class StrangeError(ValueError):
    """What the metadata say is not read; the reason."""


def layout_of(metadata: Mapping[str, Any], prefix: str) -> Layout:
    """The layout of an array; the names of its files begin with `prefix`.

    Raises:
        StrangeError: it is sound, and not read.
        KeyError, TypeError, ValueError, …: it is damaged.
    """
    layout = _version_3(metadata, prefix) if metadata["zarr_format"] == 3 else _version_2(metadata, prefix)
    sizes = (*layout.shape, *(size - 1 for size in (*layout.chunks, *layout.outer)))
    fits = len(layout.shape) == len(layout.chunks) == len(layout.outer)
    if not fits or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise ValueError(f"shape {layout.shape}, chunks {layout.chunks}")
    if sorted(layout.order) != list(range(len(layout.shape))):
        raise ValueError(f"order of axes {layout.order}")
    return layout


def _version_2(metadata: Mapping[str, Any], prefix: str) -> Layout:
    filters, kind, wide = list(metadata.get("filters") or ()), metadata["dtype"], metadata["dtype"] == "bfloat16"
    stored: np.dtype[Any] | None = None
    if kind == "|O" and [config.get("id") for config in filters] == ["vlen-utf8"]:
        filters = []
    elif wide or (isinstance(kind, str) and TYPE_2.fullmatch(kind)):
        stored = np.dtype("<u2" if wide else kind)
    else:
        raise StrangeError("an array of Python objects" if kind == "|O" else f"of type {str(kind)[:40]}")
    axes = range(len(metadata["shape"]))
    order = tuple(reversed(axes)) if metadata["order"] == "F" else tuple(axes)
    codecs = [*filters, *([metadata["compressor"]] if metadata["compressor"] else [])]
    return Layout(
        tuple(metadata["shape"]), tuple(metadata["chunks"]), stored, _fill(metadata["fill_value"], stored, wide),
        order, _known(codecs), prefix, _separator(metadata.get("dimension_separator", ".")), wide=wide,
    )  # fmt: skip


def _version_3(metadata: Mapping[str, Any], prefix: str) -> Layout:
    shape, grid = tuple(metadata["shape"]), metadata["chunk_grid"]
    if grid["name"] != "regular":
        raise StrangeError(f"in chunks of the kind {str(grid['name'])[:40]}")
    outer = tuple(grid["configuration"]["chunk_shape"])
    codecs = metadata["codecs"]
    sharding, chunks = None, outer
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        how = codecs[0]["configuration"]
        index = _configs(how["index_codecs"])
        if index[0] != {"id": "bytes", "endian": "little"}:
            raise StrangeError("in shards whose index is packed otherwise")
        sharding = Sharding(outer, _known(index[1:]), how.get("index_location", "end") == "end")
        chunks, codecs = tuple(how["chunk_shape"]), how["codecs"]
        if len(chunks) != len(outer) or any(size % inner for size, inner in zip(outer, chunks, strict=True)):
            raise ValueError(f"shards {outer} of chunks {chunks}")
    stored, order, rest = _stored_3(metadata["data_type"], _configs(codecs), len(shape))
    encoding = metadata.get("chunk_key_encoding", {"name": "default"})
    plain = encoding["name"] == "default"
    separator = _separator((encoding.get("configuration") or {}).get("separator", "/" if plain else "."))
    wide = metadata["data_type"] == "bfloat16"
    return Layout(
        shape, chunks, stored, _fill(metadata["fill_value"], stored, wide), order, _known(rest),
        f"{prefix}c{separator}" if plain else prefix, separator, sharding, wide,
    )  # fmt: skip


def _stored_3(kind: Any, codecs: list[Config], dimensions: int) -> tuple[Any, tuple[int, ...], list[Config]]:
    """The type of the values as they are stored, the order of the axes, and the codecs that bytes go through."""
    order = tuple(range(dimensions))
    while codecs and codecs[0]["id"] == "transpose":
        codec_order = codecs[0]["order"]
        axes = {"C": order, "F": order[::-1]}[codec_order] if isinstance(codec_order, str) else tuple(codec_order)
        order, codecs = tuple(order[axis] for axis in axes), codecs[1:]
    if not codecs or codecs[0]["id"] not in {"bytes", "vlen-utf8"}:
        raise StrangeError("packed in a way that is not known")
    if (codecs[0]["id"] == "vlen-utf8") != (kind == "string"):
        raise StrangeError(f"of type {str(kind)[:40]}")
    stored = None if kind == "string" else _type_3(kind, ">" if codecs[0].get("endian") == "big" else "<")
    return stored, order, codecs[1:]


def _type_3(kind: Any, endian: str) -> np.dtype[Any]:
    if isinstance(kind, Mapping) and kind["name"] in FIXED:
        size = int(kind["configuration"]["length_bytes"])
        letter = FIXED[kind["name"]]
        return np.dtype(f"{letter}{size // (4 if letter == '<U' else 1)}").newbyteorder(endian)  # type: ignore[arg-type]
    if kind == "bfloat16":
        return np.dtype(np.uint16).newbyteorder(endian)  # type: ignore[arg-type]
    if not isinstance(kind, str) or not TYPE_3.fullmatch(kind):
        raise StrangeError(f"of type {str(kind)[:40]}")
    return np.dtype(kind).newbyteorder(endian)  # type: ignore[arg-type]


def _fill(value: Any, stored: np.dtype[Any] | None, wide: bool) -> Any:
    """What stands for values that were not written; None if nothing is said."""
    if value is None or stored is None:
        return "" if stored is None else None
    if isinstance(value, str) and stored.kind == "f":
        return SPECIAL[value] if value in SPECIAL else _bits(value, stored)
    if stored.kind in "US":
        return np.zeros((), stored)[()]
    return float(value) if wide or stored.kind == "f" else np.array(value).astype(stored)[()]


def _bits(digits: str, stored: np.dtype[Any]) -> Any:
    return np.frombuffer(int(digits, 16).to_bytes(stored.itemsize, "little"), stored.newbyteorder("<"))[0]


def _configs(codecs: Sequence[Any]) -> list[Config]:
    """Codecs of version 3 as those of version 2 are written."""
    configs: list[Config] = []
    for codec in codecs:
        name, how = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration") or {})
        configs.append({**how, "id": str(name).removeprefix("numcodecs.")})
    return configs


def _known(codecs: Sequence[Config]) -> list[Config]:
    unknown = next((str(config.get("id"))[:40] for config in codecs if config.get("id") not in UNPACK), None)
    if unknown is not None:
        raise StrangeError(f"packed with {unknown}, which is not undone")
    return list(codecs)


def _separator(separator: Any) -> str:
    if separator not in (".", "/"):
        raise ValueError(f"{separator} between the numbers of chunks")
    return str(separator)
