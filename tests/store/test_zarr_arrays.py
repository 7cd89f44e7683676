"""Zarr of both versions, in folders and archives, with every codec, against zarr itself; and what is refused."""

import json
import os
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import values

zarr = pytest.importorskip("zarr", "3")
numcodecs = pytest.importorskip("numcodecs")

from zarr import codecs as v3  # noqa: E402

from contrasim_cli.errors import InputError, MissingError  # noqa: E402
from contrasim_cli.snapshot import Snapshot  # noqa: E402
from contrasim_cli.store import codecs, kinds, open_store  # noqa: E402
from contrasim_cli.store.content import Content  # noqa: E402
from contrasim_cli.store.zarr_arrays import read_zarr  # noqa: E402

ROWS = 25
A = values(ROWS, 7)
IDS = [f"row {k}" for k in range(ROWS)]
CODECS: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "none": {"compressors": None}, "gzip": {"compressors": numcodecs.GZip()}, "zlib": {"compressors": numcodecs.Zlib()},
        "bz2": {"compressors": numcodecs.BZ2()}, "lzma": {"compressors": numcodecs.LZMA()}, "lz4": {"compressors": numcodecs.LZ4()},
        "zstd": {"compressors": numcodecs.Zstd()}, "blosc": {"compressors": numcodecs.Blosc(shuffle=2)},
        "shuffle": {"filters": [numcodecs.Shuffle(4)]}, "fortran": {"order": "F"},
    },
    3: {
        "none": {"compressors": None}, "gzip": {"compressors": v3.GzipCodec()}, "zstd": {"compressors": v3.ZstdCodec()},
        "blosc": {"compressors": v3.BloscCodec(cname="lz4hc")}, "crc32c": {"compressors": [v3.ZstdCodec(), v3.Crc32cCodec()]},
        "transpose": {"filters": [v3.TransposeCodec(order=(1, 0))]}, "big": {"serializer": v3.BytesCodec(endian="big")},
        "shards": {"chunks": (5, 7), "shards": (10, 7)},
        "both": {"chunks": (5, 1), "shards": (5, 7), "filters": [v3.TransposeCodec(order=(1, 0))]},
    },
}  # fmt: skip
PACKED = [(version, name) for version, names in CODECS.items() for name in names]


def group(path: Path, version: int = 3) -> Any:
    """An empty group."""
    return zarr.open_group(str(path), mode="w", zarr_format=version)


def held(found: Content) -> dict[str, np.ndarray]:
    """Every array of it, whole."""
    return {name: np.asarray(array[slice(None)]) for name, array in found.arrays.items()}


def read_all(path: Path) -> None:
    """Read every layer."""
    store = open_store(path)
    for name in store.layers:
        store.read(name, 0, store.n_rows)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_all(path)
    return str(caught.value).removeprefix(f"{path}: ")


def metadata(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is said of an array."""
    (file,) = [found for name in (".zarray", "zarr.json") if (found := path / name).exists()]
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))


@pytest.mark.parametrize(("version", "name"), PACKED)
def test_every_codec(tmp_path: Path, version: int, name: str) -> None:
    group(tmp_path / "a", version).create_array("x", data=A, **{"chunks": (10, 3), **CODECS[version][name]})
    found = read_zarr(tmp_path / "a")
    assert (found.kind, found.ordered, found.arrays["x"].dtype.name) == ("zarr", False, "float32")
    np.testing.assert_array_equal(held(found)["x"], A)
    np.testing.assert_array_equal(found.arrays["x"][3:14], A[3:14])
    np.testing.assert_array_equal(found.arrays["x"][3:14, 2], A[3:14, 2])
    np.testing.assert_array_equal(found.arrays["x"][4, 2:5], A[4, 2:5])


@pytest.mark.parametrize("version", [2, 3])
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_shape_in_any_chunks(tmp_path_factory: pytest.TempPathFactory, version: int, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{version}"
    shutil.rmtree(path, ignore_errors=True)
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    chunks = [data.draw(st.integers(1, size)) for size in shape]
    kind = data.draw(st.sampled_from(["f2", "f4", "f8", "i1", "u2", "i8", "bool"]))
    right = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    more = {}
    if version == 3 and data.draw(st.booleans()):
        more["shards"] = [size * data.draw(st.integers(1, 3)) for size in chunks]
    group(path, version).create_array("x", data=right, chunks=chunks, **more, config={"write_empty_chunks": True})
    found = read_zarr(path).arrays["x"]
    np.testing.assert_array_equal(found[slice(None)], right)
    box = tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in shape)
    np.testing.assert_array_equal(found[box], right[box])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("how", ["folder", "archive", "archive of a folder"])
def test_groups_and_names_of_rows(tmp_path: Path, version: int, how: str) -> None:
    path = tmp_path / "a.zarr"
    made = group(path, version)
    made.create_array("enc/layer_2", data=A, chunks=(10, 7))
    made.create_array("enc/layer_10", data=A + 1, chunks=(10, 7))
    with warnings.catch_warnings():  # of a type that version 3 does not specify
        warnings.simplefilter("ignore")
        made.create_array("ids", data=np.array(IDS), chunks=(4,))
    made.create_array("words", shape=(ROWS,), dtype=str, chunks=(4,))[:] = np.array(IDS, dtype=object)
    made.create_array("one", data=np.array(3.0))
    if how != "folder":
        root = path if how == "archive" else tmp_path
        shutil.make_archive(str(tmp_path / "z"), "zip", root, None if how == "archive" else path.name)
        path = tmp_path / "z.zip"
    found = read_zarr(path if how == "folder" else Snapshot(path))
    assert {name: ids.read(3, 6) for name, ids in found.texts.items()} == {"ids": IDS[3:6], "words": IDS[3:6]}
    assert found.passed == {"one": "one value of float64"}
    store = open_store(path)
    assert set(store.layers) == {"enc/layer_2", "enc/layer_10"}
    np.testing.assert_array_equal(store.read("enc/layer_10", 5, 12), A[5:12] + 1)
    assert store.ids is not None
    assert store.ids.read(0, ROWS) == IDS
    store.close()


def test_an_array_alone(tmp_path: Path) -> None:
    zarr.save_array(str(tmp_path / "acts.zarr"), A)
    np.testing.assert_array_equal(open_store(tmp_path / "acts.zarr").read("acts", 0, ROWS), A)


@pytest.mark.parametrize("version", [2, 3])
def test_coordinates_of_xarray_name_rows(tmp_path: Path, version: int) -> None:
    made = group(tmp_path / "a", version)
    dimensions = {"x": ("image", "neuron"), "image": ("image",), "neuron": ("neuron",)}
    data = {"x": A, "image": np.array(IDS), "neuron": np.arange(7)}
    for name, dims in dimensions.items():
        more = {"dimension_names": dims} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": list(dims)}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.create_array(name, data=data[name], **more)
    found = read_zarr(tmp_path / "a")
    assert found.names == "image"
    made["x"].attrs["scale_factor"] = 0.1
    assert refusal(tmp_path / "a") == "x is packed with scale_factor or add_offset; save it unpacked"


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    """As tensorstore writes it, in both versions."""
    short = (A.view(np.uint32) >> 16).astype(np.uint16)
    for version, key in ((2, "dtype"), (3, "data_type")):
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        group(tmp_path / "a", version).create_array("x", data=short, chunks=(10, 7))
        metadata(tmp_path / "a/x", lambda said, key=key: said.update({key: "bfloat16"}))
        found = held(read_zarr(tmp_path / "a"))["x"]
        np.testing.assert_array_equal(found, (short.astype(np.uint32) << 16).view(np.float32))


# values that are not there


@pytest.mark.parametrize("version", [2, 3])
def test_rows_that_were_never_written_are_refused(tmp_path: Path, version: int) -> None:
    made = group(tmp_path / "a", version).create_array("x", shape=(100, 7), dtype="f4", chunks=(10, 3), fill_value=0)
    made[:40] = values(40, 7)
    assert refusal(tmp_path / "a") == "x: shape (100, 7) is claimed, but nothing was ever written from row 40"


def test_chunks_of_zeros_are_left_out_by_zarr(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    dead = A.copy()
    dead[:, 3:6] = 0
    group(tmp_path / "a").create_array("x", data=dead, chunks=(10, 3))
    np.testing.assert_array_equal(held(read_zarr(tmp_path / "a"))["x"], dead)
    assert "x: 3 chunks were not written, and are taken as 0.0" in caplog.text


def test_a_lost_chunk_without_a_fill_value_is_refused(tmp_path: Path) -> None:
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 3))
    (tmp_path / "a/x/1.1").unlink()
    np.testing.assert_array_equal(held(read_zarr(tmp_path / "a"))["x"][10:20, 3:6], 0)
    metadata(tmp_path / "a/x", lambda said: said.update(fill_value=None))
    assert "it was never written" in refusal(tmp_path / "a")
    metadata(tmp_path / "a/x", lambda said: said.update(fill_value="NaN"))
    assert np.isnan(held(read_zarr(tmp_path / "a"))["x"][10:20, 3:6]).all()


def test_a_chunk_that_changes_is_refused(tmp_path: Path) -> None:
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 7))
    store = open_store(tmp_path / "a")
    store.read("x", 0, ROWS)
    shutil.copy(tmp_path / "a/x/0.0", tmp_path / "a/x/1.0")
    store.read("x", 0, 10)
    with pytest.raises(InputError, match="has changed while it was read"):
        store.read("x", 0, ROWS)


# hostile files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said.update(filters=[{"id": "pickle"}], dtype="|O"), "an array of Python objects"),
        (lambda said: said.update(compressor={"id": "pickle"}), "packed with pickle, which is not undone"),
        (lambda said: said.update(compressor={"id": "jpeg"}), "packed with jpeg, which is not undone"),
        (lambda said: said.update(shape=[2**50, 7]), "is claimed, but nothing was ever written from row 30"),
        (lambda said: said.update(shape=[2**50, 2**50], chunks=[2**50, 2**50]), "GB of memory once it is unpacked"),
        (lambda said: said.update(chunks=[0, 7]), "its metadata are damaged"),
        (lambda said: said.update(shape=[-3, 7]), "its metadata are damaged"),
        (lambda said: said.update(shape=[2**70, 7]), "its metadata are damaged"),
        (lambda said: said.update(shape="25"), "its metadata are damaged"),
        (lambda said: said.update(dtype="<U99999999"), "GB of memory once it is unpacked"),
        (lambda said: said.update(dtype="<f3"), "its metadata are damaged"),
        (lambda said: said.update(dimension_separator="/../"), "its metadata are damaged"),
        (lambda said: said.clear(), "its metadata are damaged"),
        (lambda said: said.update(compressor=None), "cannot be read"),
        (lambda said: said.update(dtype="<f8"), "cannot be read"),
    ],
)
def test_metadata_that_lie(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 7), compressors=numcodecs.Blosc())
    metadata(tmp_path / "a/x", change)
    if "not undone" in message or "objects" in message:
        assert read_zarr(tmp_path / "a").passed == {"x": message}
    else:
        assert message in refusal(tmp_path / "a")


def blosc(size: int) -> bytes:
    chunk = bytearray(numcodecs.Blosc().encode(bytes(1000)))
    struct.pack_into("<I", chunk, 4, size)
    return bytes(chunk)


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("gzip", zlib.compress(bytes(64 << 20))), ("zlib", zlib.compress(bytes(64 << 20))), ("blosc", blosc(2**31 - 1)),
        ("bz2", __import__("bz2").compress(bytes(64 << 20))), ("lzma", __import__("lzma").compress(bytes(64 << 20))),
        ("zstd", bytes(numcodecs.Zstd().encode(bytes(64 << 20)))), ("lz4", struct.pack("<I", 2**31 - 1) + bytes(100)),
        ("zstd", struct.pack("<IBQ", codecs.ZSTD_MAGIC, 0xE0, 2**60) + bytes(10)),
    ],
)  # fmt: skip
def test_chunks_that_unpack_to_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: bytes
) -> None:
    """Before room is made for what comes of them."""
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 7), compressors=None)
    metadata(tmp_path / "a/x", lambda said: said.update(compressor={"id": name}))
    (tmp_path / "a/x/1.0").write_bytes(chunk)
    for module in ("blosc", "lz4", "zstd"):
        monkeypatch.setattr(codecs, module, None)
    with pytest.raises(InputError, match="unpack to") as caught:
        read_zarr(tmp_path / "a").arrays["x"][10:20]
    assert len(str(caught.value)) < 400


def test_a_chunk_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 7), compressors=None)
    os.truncate(tmp_path / "a/x/1.0", 2**40)
    assert "bytes are more than a chunk of 280 can be packed to" in refusal(tmp_path / "a")


@pytest.mark.parametrize("place", [0, 5, -30, -3])
def test_shards_that_are_damaged(tmp_path: Path, place: int) -> None:
    group(tmp_path / "a").create_array("x", data=A, chunks=(5, 7), shards=(25, 7), compressors=[v3.Crc32cCodec()])
    (shard,) = [path for path in (tmp_path / "a/x/c").rglob("*") if path.is_file()]
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    assert refusal(tmp_path / "a").endswith("(a checksum does not match); the file is damaged")
    shard.write_bytes(content[:20])
    assert refusal(tmp_path / "a").endswith("(its shard is cut short); the file is damaged")


@pytest.mark.parametrize("place", ["x/1.0", "x", ".zattrs"])
def test_links_that_lead_out_are_refused(tmp_path: Path, place: str) -> None:
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 7))
    outside = tmp_path / "outside"
    link = tmp_path / "a" / place
    if link.exists():
        link.rename(outside)
    link.symlink_to(outside)
    assert refusal(tmp_path / "a") in (
        f"{place} leads out of the folder; only files inside it are read", f"{place} cannot be read: No such file or directory",
    )  # fmt: skip


def test_an_archive_with_two_files_of_a_name_and_one_cut_short(tmp_path: Path) -> None:
    group(tmp_path / "a", 2).create_array("x", data=A, chunks=(10, 7))
    shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path / "a")
    content = (tmp_path / "z.zip").read_bytes()
    for cut in (100, len(content) // 2, len(content) - 30):
        (tmp_path / "z.zip").write_bytes(content[:cut])
        assert "damaged" in refusal(tmp_path / "z.zip")
    (tmp_path / "z.zip").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "z.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/0.0", (tmp_path / "a/x/1.0").read_bytes())
    assert refusal(tmp_path / "z.zip") == "is a damaged archive (two of its files have the same name)"


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "contrasim_cli.store.zarr_arrays", None)
    monkeypatch.delattr("contrasim_cli.store.zarr_arrays")
    group(tmp_path / "a").create_array("x", data=A)
    with pytest.raises(MissingError, match=r"reading zarr needs the extra zarr: pip install 'contrasim\[zarr\]'"):
        kinds.read_zarr(tmp_path / "a")
