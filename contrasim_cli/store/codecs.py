"""What chunks of arrays are packed with. Nothing unpacks to more bytes than it may, and nothing in a file is run. Needs numcodecs.

The codecs are those whose packed bytes tell how many they unpack to, or that can be stopped; pickles are none of them.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numcodecs
from numcodecs import blosc, lz4, zstd

ZSTD_MAGIC = 0xFD2FB528
CHECKSUM = struct.Struct("<I")

Config = Mapping[str, Any]


class UnpackError(ValueError):
    """Packed bytes that are damaged, or that unpack to more than they may."""


def _gzip(data: bytes, limit: int, config: Config) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # of gzip and zlib
    return _whole(unpacker.decompress(data, limit + 1), unpacker.eof)


def _bz2(data: bytes, limit: int, config: Config) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    return _whole(unpacker.decompress(data, limit + 1), unpacker.eof)


def _lzma(data: bytes, limit: int, config: Config) -> bytes:
    unpacker = lzma.LZMADecompressor(memlimit=limit + (256 << 20))
    return _whole(unpacker.decompress(data, limit + 1), unpacker.eof)


def _whole(unpacked: bytes, ended: bool) -> bytes:
    if not ended:
        raise UnpackError("packed bytes are cut short, or unpack to more than a chunk")
    return unpacked


def _blosc(data: bytes, limit: int, config: Config) -> bytes:
    _check(struct.unpack_from("<I", data, 4)[0], limit)
    if struct.unpack_from("<I", data, 12)[0] != len(data):
        raise UnpackError("packed bytes are cut short")
    return bytes(blosc.decompress(data))


def _lz4(data: bytes, limit: int, config: Config) -> bytes:
    _check(struct.unpack_from("<I", data)[0], limit)
    return bytes(lz4.decompress(data))


def _zstd(data: bytes, limit: int, config: Config) -> bytes:
    _check(_zstd_size(data), limit)
    return bytes(zstd.decompress(data))


def _zstd_size(data: bytes) -> int:
    """What a frame of zstd says that it unpacks to (RFC 8878, 3.1.1.1)."""
    magic, flags = struct.unpack_from("<IB", data)
    if magic != ZSTD_MAGIC:
        raise UnpackError("no frame of zstd")
    single = flags >> 5 & 1
    place = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    size = (single, 2, 4, 8)[flags >> 6]
    if not size:
        raise UnpackError(
            "a frame of zstd does not say its size; write the array with zarr-python, or packed with blosc"
        )
    content_size = int.from_bytes(data[place : place + size], "little")
    return content_size + 256 if size == 2 else content_size


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise UnpackError(f"packed bytes claim to unpack to {size}, which is more than a chunk")


def _crc32c(data: bytes, limit: int, config: Config) -> bytes:
    content, checksum = data[: -CHECKSUM.size], data[-CHECKSUM.size :]
    if CHECKSUM.pack(google_crc32c.value(content)) != checksum:
        raise UnpackError("a checksum does not match")
    return content


def _filter(data: bytes, limit: int, config: Config) -> bytes:
    return bytes(numcodecs.get_codec(dict(config)).decode(data))


FILTERS = ("shuffle", "delta", "bitround", "quantize", "fixedscaleoffset")
UNPACK: dict[str, Callable[[bytes, int, Config], bytes]] = {
    "gzip": _gzip, "zlib": _gzip, "bz2": _bz2, "lzma": _lzma, "blosc": _blosc, "lz4": _lz4, "zstd": _zstd, "crc32c": _crc32c,
    **dict.fromkeys(FILTERS, _filter),
}  # fmt: skip
WIDENING = 8  # times that a filter makes values larger


def unpack(data: bytes, limit: int, codecs: list[Config]) -> bytes:
    """Undo the codecs, from the last to the first, each with its name as `id`; at most `limit` bytes come of it.

    Raises:
        UnpackError, and whatever the codecs trip over: the bytes are damaged, or unpack to more.
    """
    limit *= WIDENING if any(config["id"] in FILTERS for config in codecs) else 1
    for config in reversed(codecs):
        data = UNPACK[config["id"]](data, limit + CHECKSUM.size, config)
    return data
