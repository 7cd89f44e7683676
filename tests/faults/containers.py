"""Small files and folders of the kinds that need a library, or are several files; and hostile ones of the same kinds."""

import gzip
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stores import names, values

HUGE = 2**40
ZSTD = struct.pack("<I", 0xFD2FB528)
ROWS = 20


# small ones


def columns() -> dict[str, Any]:
    """A table with names of rows, neurons and a label."""
    return {"ids": names(ROWS), "label": np.arange(ROWS) % 3, **{f"x{k}": values(ROWS, 4)[:, k] for k in range(4)}}


def lists() -> dict[str, Any]:
    """A table of lists."""
    return {"ids": names(ROWS), "a": values(ROWS, 6).tolist(), "b": values(ROWS, 3).tolist()}


def parquet(path: Path) -> Path:
    """Columns in Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns()), path, row_group_size=7, write_page_checksum=True)
    return path


def lists_in_parquet(path: Path) -> Path:
    """Lists in Parquet, without checksums."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(lists()), path, row_group_size=7, compression="zstd")
    return path


def feather(path: Path) -> Path:
    """Columns in a packed Arrow file."""
    import pyarrow as pa
    from pyarrow import feather

    feather.write_feather(pa.table(columns()), path, compression="lz4", chunksize=7)
    return path


def stream(path: Path) -> Path:
    """Lists in an Arrow stream."""
    import pyarrow as pa

    table = pa.table(lists())
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def delimited(path: Path) -> Path:
    """A table as text."""
    rows = zip(names(ROWS), values(ROWS, 4).tolist(), strict=True)
    path.write_text("ids,x0,x1,x2,x3\n" + "".join(f'"{name}",{",".join(map(repr, row))}\n' for name, row in rows))
    return path


def spaced(path: Path) -> Path:
    """Numbers apart by spaces, as NumPy writes them, packed."""
    np.savetxt(path.with_suffix(".plain"), values(ROWS, 4))
    path.write_bytes(gzip.compress(path.with_suffix(".plain").read_bytes()))
    return path


def packed_npy(path: Path) -> Path:
    """An array of NumPy, packed."""
    with gzip.open(path, "wb") as stream:
        np.save(stream, values(ROWS, 6))
    return path


def _matlab(path: Path, **how: Any) -> Path:
    from scipy import io

    cells = np.empty(ROWS, object)
    cells[:] = [np.array([name]) for name in names(ROWS)]
    with path.open("wb") as stream:
        io.savemat(stream, {"x": values(ROWS, 6), "ids": cells, "s": {"y": values(ROWS, 3)}, "n": 3.0}, **how)
    return path


def matlab(path: Path) -> Path:
    """A file of MATLAB 6."""
    return _matlab(path)


def packed_matlab(path: Path) -> Path:
    """A file of MATLAB 7."""
    return _matlab(path, do_compression=True)


def chunks(folder: Path, codec: str = "blosc") -> Path:
    """Zarr, version 2, of one array in two chunks."""
    import numcodecs

    packed = {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), "lz4": numcodecs.LZ4(), "gzip": numcodecs.GZip()}[
        codec
    ]
    (folder / "x").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    said = {
        "zarr_format": 2,
        "shape": [ROWS, 6],
        "chunks": [ROWS // 2, 6],
        "dtype": "<f4",
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (folder / "x/.zarray").write_text(json.dumps(said | {"compressor": {"id": codec}}))
    for k, rows in enumerate(np.split(values(ROWS, 6), 2)):
        (folder / f"x/{k}.0").write_bytes(bytes(packed.encode(rows.tobytes())))
    return folder


def shards(folder: Path) -> Path:
    """Zarr, version 3, of one array in a shard of two chunks, written by hand."""
    import google_crc32c
    import numcodecs

    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner = {
        "chunk_shape": [ROWS // 2, 6], "codecs": [little, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
        "index_codecs": [little, {"name": "crc32c"}], "index_location": "end",
    }  # fmt: skip
    said = {
        "zarr_format": 3, "node_type": "array", "shape": [ROWS, 6], "data_type": "float32", "fill_value": 0.0, "attributes": {},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [ROWS, 6]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }  # fmt: skip
    (folder / "c/0").mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(said))
    parts = [bytes(numcodecs.Zstd().encode(rows.tobytes())) for rows in np.split(values(ROWS, 6), 2)]
    index = struct.pack("<4Q", 0, len(parts[0]), len(parts[0]), len(parts[1]))
    (folder / "c/0/0").write_bytes(b"".join(parts) + index + struct.pack("<I", google_crc32c.value(index)))
    return folder


def zipped(path: Path) -> Path:
    """Zarr in an archive."""
    folder = path.with_suffix(".folder")
    shutil.rmtree(folder, ignore_errors=True)
    made = shutil.make_archive(str(folder), "zip", chunks(folder))
    Path(made).rename(path)
    return path


def indexed(folder: Path) -> Path:
    """Tensors in two files, with an index."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    places = {"a": "one.safetensors", "b": "two.safetensors"}
    for k, (name, file) in enumerate(places.items()):
        save_file({name: torch.from_numpy(values(ROWS, 3, seed=k))}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


# hostile ones

Make = Callable[[Path, Path], None]


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def _said(folder: Path, **changes: Any) -> None:
    file = folder / "x/.zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def pickle_in_zarr(path: Path, trace: Path) -> None:
    chunks(path)
    _said(path, dtype="|O", filters=[{"id": "pickle"}], compressor=None)
    (path / "x/0.0").write_bytes(pickle.dumps([Payload(trace)] * 120))


def pickle_as_codec_of_zarr(path: Path, trace: Path) -> None:
    chunks(path)
    _said(path, compressor={"id": "pickle"})
    (path / "x/0.0").write_bytes(pickle.dumps(Payload(trace)))


def rows_of_zarr(path: Path, trace: Path) -> None:
    chunks(path)
    _said(path, shape=[HUGE, 6])


def chunk_of_zarr(path: Path, trace: Path) -> None:
    chunks(path)
    _said(path, shape=[HUGE, 6], chunks=[HUGE, 6])


def bomb_in_zarr(path: Path, trace: Path) -> None:
    chunks(path, "gzip")
    (path / "x/1.0").write_bytes(zlib.compress(bytes(64 << 20)))


def link_in_zarr(path: Path, trace: Path) -> None:
    chunks(path)
    (path / "x/1.0").unlink()
    (path / "x/1.0").symlink_to("/etc/passwd")


def fifo_in_zarr(path: Path, trace: Path) -> None:
    chunks(path)
    os.mkfifo(path / "x/2.0")


def index_that_leads_out(path: Path, trace: Path) -> None:
    indexed(path)
    shutil.copy(path / "two.safetensors", path.with_name("outside.safetensors"))
    places = {"a": "one.safetensors", "b": "../outside.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def index_of_fifo(path: Path, trace: Path) -> None:
    indexed(path)
    (path / "two.safetensors").unlink()
    os.mkfifo(path / "two.safetensors")


def index_nested(path: Path, trace: Path) -> None:
    path.write_text('{"weight_map":' + "[" * 1_000_000)


def link_in_folder(path: Path, trace: Path) -> None:
    path.mkdir()
    np.save(path / "x.npy", values())
    np.save(path.with_name("outside.npy"), values())
    (path / "y.npy").symlink_to("../outside.npy")


def objects_in_folder(path: Path, trace: Path) -> None:
    path.mkdir()
    np.save(path / "x.npy", values())
    np.save(path / "y.npy", np.array([[Payload(trace)]]), allow_pickle=True)


def objects_in_packed_npy(path: Path, trace: Path) -> None:
    with gzip.open(path, "wb") as stream:
        np.save(stream, np.array([[Payload(trace)]]), allow_pickle=True)


def packed_npy_claim(path: Path, trace: Path) -> None:
    header = str({"descr": "<f4", "fortran_order": False, "shape": (HUGE, 256)}).encode() + b"\n"
    path.write_bytes(gzip.compress(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(1 << 20)))


def packed_npy_with_more(path: Path, trace: Path) -> None:
    with gzip.open(path, "wb") as stream:
        np.save(stream, values())
        stream.write(bytes(64 << 20))


def empty_lines(path: Path, trace: Path) -> None:
    path.write_bytes(gzip.compress(b"1,2\n" + b"\n" * (64 << 20)))


def batch_of_arrow(path: Path, trace: Path) -> None:
    """A packed batch says that it unpacks to 2^40 bytes."""
    import pyarrow as pa
    from pyarrow import feather

    feather.write_feather(pa.table({"x": values(1000, 1)[:, 0]}), path, compression="zstd")
    content = path.read_bytes()
    assert content.count(struct.pack("<q", 4000) + struct.pack("<I", 0xFD2FB528)) == 1
    path.write_bytes(
        content.replace(struct.pack("<q", 4000) + struct.pack("<I", 0xFD2FB528), struct.pack("<qI", HUGE, 0xFD2FB528))
    )


def _varint(content: bytes, place: int) -> int:
    """Where a number of variable length ends."""
    return next(k for k in range(place, len(content)) if content[k] < 0x80) + 1


def page_of_parquet(path: Path, trace: Path, compression: str = "zstd") -> None:
    """The head of a page of 3 kB says that it unpacks to 2 GB; the head is Thrift: (kind, size unpacked, size packed, …)."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"x": pa.array(values(100, 8).tolist(), pa.list_(pa.float32()))}), path, compression=compression
    )
    column = parquet.read_metadata(path).row_group(0).column(0)
    content, start = path.read_bytes(), column.dictionary_page_offset
    size = _varint(content, start + 1)  # behind the kind; a byte says that a number of 32 bits comes
    assert (content[start], content[size]) == (0x15, 0x15)
    path.write_bytes(content[: size + 1] + b"\xfe\xff\xff\xff\x0f" + content[_varint(content, size + 1) :])


def page_of_snappy(path: Path, trace: Path) -> None:
    page_of_parquet(path, trace, "snappy")


def zeros_of_parquet(path: Path, trace: Path) -> None:
    """A page of 40 kB that does unpack to a gigabyte: zstd has blocks of one byte that repeats."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = values(1300, 8).tolist()
    parquet.write_table(pa.table({"x": pa.array(rows, pa.list_(pa.float32()))}), path, compression="zstd")
    content, start = path.read_bytes(), parquet.read_metadata(path).row_group(0).column(0).dictionary_page_offset
    size = _varint(content, start + 1)
    packed, first = _varint(content, size + 1), content.index(ZSTD, start)
    room = sum((byte & 0x7F) << 7 * k for k, byte in enumerate(content[packed + 1 : _varint(content, packed + 1)])) // 2
    blocks = [struct.pack("<I", (1 << 17) << 3 | 1 << 1 | (k == 8191)) for k in range(8192)]
    frame = ZSTD + b"\0\x40" + b"".join(blocks)
    frame += struct.pack("<II", 0x184D2A50, room - len(frame) - 8)  # a frame that is skipped fills the page
    said = content[: size + 1] + b"\x80\x80\x80\x80\x08" + content[packed:first]
    path.write_bytes(said + frame + content[first + len(frame) :])


def row_of_parquet(path: Path, trace: Path) -> None:
    """A list of 40 million numbers in a kilobyte."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = pa.ListArray.from_arrays(pa.array([0, 3, 6, 40_000_000], pa.int32()), np.zeros(40_000_000))
    parquet.write_table(pa.table({"x": rows}), path)


def prefixes_of_parquet(path: Path, trace: Path) -> None:
    """Texts of a megabyte, each of which says that it begins as the one before it."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema({"ids": pa.string(), "x": pa.list_(pa.float32())})
    how: dict[str, Any] = {
        "use_dictionary": False,
        "column_encoding": {"ids": "DELTA_BYTE_ARRAY"},
        "compression": "zstd",
    }
    with parquet.ParquetWriter(path, schema, **how) as writer:
        for k in range(0, 400, 20):
            texts = ["x" * (1 << 20) + str(k + row) for row in range(20)]
            writer.write_batch(pa.record_batch([texts, values(20, 4).tolist()], schema=schema))


def texts_of_arrow(path: Path, trace: Path) -> None:
    """Four hundred texts of a megabyte, all of which are at the same place."""
    import pyarrow as pa

    long = bytes(1 << 20)
    views = struct.pack("<i4sii", len(long), long[:4], 0, 0) * 400
    texts = pa.Array.from_buffers(pa.string_view(), 400, [None, pa.py_buffer(views), pa.py_buffer(long)])
    table = pa.table({"ids": texts, "x": values(400, 4).tolist()})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def lists_of_arrow(path: Path, trace: Path) -> None:
    """A list of a million numbers that is named in four hundred rows."""
    import pyarrow as pa

    lists = pa.ListArray.from_arrays(pa.array([0, 3, 1 << 20], pa.int32()), np.zeros(1 << 20, np.float32))
    table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0] + [1] * 400, pa.int32()), lists)})
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)


def struct_of_matlab(path: Path, trace: Path) -> None:
    """A struct of a file of MATLAB unpacks to a thousand times its size."""
    from scipy import io

    with path.open("wb") as stream:
        io.savemat(stream, {"x": {"y": np.zeros((1 << 12, 1 << 13))}}, do_compression=True)


HOSTILE: dict[str, Make] = {
    f.__name__: f
    for f in (
        pickle_in_zarr, pickle_as_codec_of_zarr, rows_of_zarr, chunk_of_zarr, link_in_zarr, fifo_in_zarr,
        index_that_leads_out, index_of_fifo, index_nested, link_in_folder, objects_in_folder, objects_in_packed_npy,
        packed_npy_claim, packed_npy_with_more, empty_lines, batch_of_arrow, struct_of_matlab,
        page_of_parquet, page_of_snappy, zeros_of_parquet, row_of_parquet, prefixes_of_parquet, texts_of_arrow, lists_of_arrow,
    )
}  # fmt: skip
