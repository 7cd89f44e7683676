"""Our own layout: what is written, what is refused, and that a store at its path is whole."""

import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
from stores import names, values, write, write_by_hand

from contrasim_cli.errors import InputError, OutputError, OutputExistsError
from contrasim_cli.store import LayerSpec, StoreWriter, align, open_store

A, B = values(20, 3), values(20, 5, seed=1)


def refusal(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert len(caught.value.lines) == 1
    return str(caught.value)


def read_all(path: Path) -> dict[str, np.ndarray]:
    """All values of a store."""
    store = open_store(path)
    try:
        return {name: store.read(name, 0, store.n_rows) for name in store.layers}
    finally:
        store.close()


# what is written


def test_the_layout_is_that_of_the_format(tmp_path: Path) -> None:
    attrs = {"model": "bert", "data": "words", "unit": "word", "pooling": "cls"}
    ids = ["plain", "naïve ☃", "two\nlines", "", *names(16)]
    wide = values(20, 200_000, seed=2).astype(np.float16)
    path = write(tmp_path / "a.h5", {"last": A, "first": wide}, ids, attrs=attrs, provenance={"config": {"b": 1}})
    with h5py.File(path) as file:
        assert set(file) == {"layers", "ids", "provenance"}
        assert set(file.attrs) == {
            "format", "format_version", "complete", "model", "data", "unit", "pooling", "created", "contrasim_version",
            "digest", "provenance_digest",
        }  # fmt: skip
        assert file.attrs["format"] == "contrasim-activations"
        assert file.attrs["format_version"] == 1
        assert file.attrs["complete"]
        assert {name: file.attrs[name] for name in attrs} == attrs
        assert file["provenance"].asstr()[()] == '{"config": {"b": 1}}'
        for index, (name, matrix) in enumerate({"last": A, "first": wide}.items()):
            dataset = file["layers"][name]
            assert dataset.attrs["index"] == index
            assert dataset.dtype == matrix.dtype
            assert dataset.fletcher32
            assert dataset.compression is None
            np.testing.assert_array_equal(dataset[:], matrix)
        assert file["layers/last"].chunks == (20, 3)
        assert file["layers/first"].chunks == (2, 200_000)  # 2 rows of 400 kB: the most that 1 MiB holds
        info = h5py.check_string_dtype(file["ids"].dtype)
        assert (info.encoding, info.length) == ("utf-8", None)
        assert file["ids"].asstr()[:].tolist() == ids
    assert path.read_bytes()[8] == 0  # superblock 0: the earliest version of HDF5 reads it


def test_a_store_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "a.h5", {"z": A, "a": B.astype(np.float64)}, attrs={"model": "m"}))
    assert list(store.layers) == ["z", "a"]  # by index, not by name
    np.testing.assert_array_equal(store.read("a", 3, 7), B[3:7])
    assert (store.n_rows, store.layer("a").width, store.layer("a").dtype) == (20, 5, np.float64)
    assert store.ids is not None
    assert store.ids.read(0, 20) == names(20)
    assert store.attrs["model"] == "m"


def test_eleven_layers_keep_their_order(tmp_path: Path) -> None:
    wanted = [f"layer{k}" for k in (3, 10, 2, 0, 1, 4, 5, 6, 7, 8, 9)]
    store = open_store(write(tmp_path / "a.h5", dict.fromkeys(wanted, A)))
    assert list(store.layers) == wanted


def test_a_store_of_somebody_elses_needs_no_digest(tmp_path: Path) -> None:
    store = open_store(write_by_hand(tmp_path / "a.h5", {"b": A, "a": B}, names(20)))
    assert list(store.layers) == ["b", "a"]
    assert store.kind == "contrasim store"
    assert open_store(write_by_hand(tmp_path / "b.h5", {"b": A})).ids is None


def test_rows_may_come_in_any_order_and_size(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.h5", [LayerSpec("x", 3)], 20, iter(names(20))) as writer:
        for start, stop in ((13, 20), (0, 1), (1, 13)):
            writer.write("x", start, A[start:stop])
    np.testing.assert_array_equal(read_all(tmp_path / "a.h5")["x"], A)


def test_two_writes_of_the_same_rows_give_the_same_digest(tmp_path: Path) -> None:
    attrs = {"created": "2024-01-01"}
    first, second = (open_store(write(tmp_path / n, {"x": A}, attrs=attrs)) for n in ("a.h5", "b.h5"))
    assert first.digest == second.digest


# what a writer refuses


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (70000.0, "70000 does not fit float16; store it as float32 (--store-dtype float32)"),
        (np.nan, "the value is nan; activations must be finite"),
        (-np.inf, "the value is -inf; activations must be finite"),
    ],
)
def test_values_that_cannot_be_stored_are_refused_where_they_are(tmp_path: Path, value: float, message: str) -> None:
    bad, path = A.copy(), tmp_path / "a.h5"
    bad[17, 2] = value

    def write_in_halves() -> None:
        with StoreWriter(path, [LayerSpec("x", 3, "float16")], 20, names(20)) as writer:
            writer.write("x", 0, bad[:10])
            writer.write("x", 10, bad[10:])

    with pytest.raises(InputError) as caught:
        write_in_halves()
    assert str(caught.value) == f"{path}: layer x: row 17, column 2: {message}"
    assert not os.listdir(tmp_path)


def test_float16_takes_what_rounds_down_to_its_largest_value(tmp_path: Path) -> None:
    top = np.full((2, 1), 65519.0, np.float32)
    with StoreWriter(tmp_path / "a.h5", [LayerSpec("x", 1, "float16")], 2, names(2)) as writer:
        writer.write("x", 0, top)
    assert read_all(tmp_path / "a.h5")["x"].max() == 65504


@pytest.mark.parametrize(
    ("specs", "rows", "ids", "error", "message"),
    [
        ([LayerSpec("a/b", 3)], 2, "ab", InputError, "layer name 'a/b' cannot be stored"),
        ([LayerSpec("", 3)], 2, "ab", InputError, "layer name '' cannot be stored"),
        ([LayerSpec("a\0", 3)], 2, "ab", InputError, r"layer name 'a\x00' cannot be stored"),
        ([LayerSpec("a\udc80", 3)], 2, "ab", InputError, r"layer name 'a\udc80' cannot be stored"),
        ([LayerSpec("a", 0)], 2, "ab", InputError, "layer a: has no columns"),
        ([LayerSpec("a", 3, "int8")], 2, "ab", InputError, "layer a: type int8 cannot be stored; float16, float32"),
        ([LayerSpec("a", 3), LayerSpec("a", 3)], 2, "ab", InputError, "layer name a is given to more than one layer"),
        ([LayerSpec("a", 3)], 0, "", InputError, "nothing to store: 1 layers of 0 rows"),
        ([], 2, "ab", InputError, "nothing to store: 0 layers of 2 rows"),
        ([LayerSpec("a", 3)], 2, "a", OutputError, "1 ids for 2 rows"),
        ([LayerSpec("a", 3)], 2, "abc", OutputError, "more ids than the 2 rows of the store"),
        ([LayerSpec("a", 3)], 2, ["a", "b\0"], InputError, r"the id of row 1 (b\x00) cannot be stored"),
        ([LayerSpec("a", 3)], 2, ["\udcff", "b"], InputError, r"the id of row 0 (\udcff) cannot be stored"),
    ],
)
def test_what_hdf5_cannot_hold_is_refused(tmp_path: Path, specs, rows, ids, error, message) -> None:
    with pytest.raises(error) as caught, StoreWriter(tmp_path / "x.h5", specs, rows, ids):
        pass
    assert message in str(caught.value)
    assert not os.listdir(tmp_path)


def test_attributes_of_any_text_can_be_stored(tmp_path: Path) -> None:
    attrs = {"model": "/a/\udcff\0\nb", "data": "x" * 100_000}
    store = open_store(write(tmp_path / "a.h5", {"x": A}, attrs=attrs))
    assert store.attrs["model"] == r"/a/\udcff\x00\nb"
    assert len(store.attrs["data"]) == 100_000


def test_a_row_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError) as caught,
        StoreWriter(tmp_path / "a.h5", [LayerSpec("x", 3)], 20, names(20)) as writer,
    ):
        writer.write("x", 0, A[:19])
    assert str(caught.value) == f"{tmp_path / 'a.h5'}: layer x: 1 of 20 rows were not written"
    assert not os.listdir(tmp_path)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with StoreWriter(tmp_path / "a.h5", [LayerSpec("x", 3)], 20, names(20)) as writer:
            writer.write("x", 0, A)
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert not os.listdir(tmp_path)


def test_an_error_among_the_ids_leaves_nothing(tmp_path: Path) -> None:
    def failing():
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "a.h5", [LayerSpec("x", 3)], 20, failing()):
        pass
    assert not os.listdir(tmp_path)


def test_an_existing_store_is_replaced_by_force_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A})
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        write(path, {"x": B})
    assert path.read_bytes() == before
    write(path, {"x": B}, force=True)
    np.testing.assert_array_equal(read_all(path)["x"], B)


# what a reader refuses


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"format_version": 2}, "store format_version is 2, this contrasim reads 1; install a newer one"),
        ({"format_version": None}, "store format_version is None, this contrasim reads 1; install a newer one"),
        ({"complete": None}, "the store is not complete: its writer was stopped; extract it again"),
        ({"complete": False}, "the store is not complete: its writer was stopped; extract it again"),
        ({"format": "contrasim-activatioms"}, "its attribute format is not contrasim-activations; the file is damaged"),
        ({"contrasim_version": "0.1"}, "layer x has lost its checksums; the file is damaged"),
    ],
)
def test_a_store_that_cannot_be_trusted_is_refused(tmp_path: Path, attrs: dict, message: str) -> None:
    path = write_by_hand(tmp_path / "a.h5", {"x": A}, names(20), **attrs)
    assert refusal(path) == f"{path}: {message}"


def test_layers_that_disagree_on_rows_are_all_named(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "a.h5", {"x": A, "y": A[:19], "z": A[:3]})
    with pytest.raises(InputError) as caught:
        open_store(write_by_hand(tmp_path / "b.h5", {"x": A, "y": A[:19]}))
    assert str(caught.value) == (
        f"{tmp_path / 'b.h5'}: layer y has 19 rows where x has 20; every layer of a store has the same rows"
    )
    from contrasim_cli.errors import Problems

    with pytest.raises(Problems) as both:
        open_store(path)
    assert len(both.value.lines) == 2


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (A.astype(np.int32), "layer x is int32 (20, 3); a layer is a matrix [rows, width] of floats"),
        (A[0], "layer x is float32 (3,); a layer is a matrix [rows, width] of floats"),
        (A[None], "layer x is float32 (1, 20, 3); a layer is a matrix [rows, width] of floats"),
        (A.astype(complex), "layer x is complex128 (20, 3); a layer is a matrix [rows, width] of floats"),
        (A[:, :0], "layer x has no columns"),
    ],
)
def test_layers_are_matrices_of_floats(tmp_path: Path, matrix: np.ndarray, message: str) -> None:
    path = write_by_hand(tmp_path / "a.h5", {"x": matrix})
    assert refusal(path) == f"{path}: {message}"


def test_ids_are_as_many_strings_as_rows(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "a.h5", {"x": A}, names(19))
    assert refusal(path) == f"{path}: ids are object (19,); expected 20 strings; store them as text"
    with h5py.File(path, "r+") as file:
        del file["ids"]
        file["ids"] = np.arange(20)
    assert refusal(path) == f"{path}: ids are int64 (20,); expected 20 strings; store them as text"


def test_no_layers(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "a.h5", {})
    assert refusal(path) == f"{path}: the store has no layers"


def test_provenance_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "a.h5", {"x": A})
    with h5py.File(path, "r+") as file:
        file["provenance"] = "{"
    assert refusal(path) == f"{path}: /provenance is not valid JSON; the file is damaged"
    with h5py.File(path, "r+") as file:
        del file["provenance"]
        file["provenance"] = '{"loss": NaN}'
    assert open_store(path).provenance == {"loss": None}  # JSON knows no NaN, and results are JSON


# damage

DIGEST = (
    "ids, layer names or attributes do not match the store's digest; the file is damaged or was changed by hand "
    "(delete its attribute digest to read it all the same)"
)


def rename(file: h5py.File) -> None:
    file.move("layers/x", "layers/w")


def swap(file: h5py.File) -> None:
    file["layers/x"].attrs["index"], file["layers/y"].attrs["index"] = 1, 0


def another_id(file: h5py.File) -> None:
    file["ids"][7] = "row 8"


def no_ids(file: h5py.File) -> None:
    del file["ids"]


def another_attr(file: h5py.File) -> None:
    file.attrs["pooling"] = "mean"


def no_attr(file: h5py.File) -> None:
    del file.attrs["pooling"]


def automatic(file: h5py.File) -> None:
    file["ids"].attrs["automatic"] = True


def bytes_swapped(file: h5py.File) -> None:
    del file["layers/x"]
    swapped = file.create_dataset("layers/x", data=A.astype(">f4"), chunks=True, fletcher32=True)
    swapped.attrs["index"] = 0


@pytest.mark.parametrize(
    "change",
    [rename, swap, another_id, no_ids, another_attr, no_attr, automatic, bytes_swapped],
    ids=lambda f: f.__name__,
)
def test_changed_metadata_does_not_match_the_digest(tmp_path: Path, change) -> None:
    path = write(tmp_path / "a.h5", {"x": A, "y": B}, attrs={"pooling": "cls"})
    with h5py.File(path, "r+") as file:
        change(file)
    assert refusal(path) == f"{path}: {DIGEST}"
    if change is not bytes_swapped:
        with h5py.File(path, "r+") as file:
            del file.attrs["digest"], file.attrs["contrasim_version"]
        open_store(path)


def test_a_store_of_ours_that_lost_its_digest_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A})
    with h5py.File(path, "r+") as file:
        del file.attrs["digest"]
    assert refusal(path) == f"{path}: the store has lost its digest; the file is damaged"


def test_a_flipped_byte_in_the_data_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A, "y": B})
    whole = bytearray(path.read_bytes())
    at = whole.find(B.tobytes())
    assert at > 0
    whole[at + 41] ^= 4
    path.write_bytes(whole)
    store = open_store(path)
    np.testing.assert_array_equal(store.read("x", 0, 20), A)
    with pytest.raises(InputError) as caught:
        store.read("y", 2, 5)
    message = str(caught.value)
    assert message.startswith(f"{path}: layer y: rows 2 to 4 cannot be read (")
    assert message.endswith("); the file is damaged, copy or extract it again")
    store.close()


def test_values_that_were_never_written_are_not_invented(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_by_hand(path, {})
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/x", (100, 3), "f4", chunks=(10, 3))[:50] = 1
    assert refusal(path) == f"{path}: x: shape (100, 3) is claimed, but not all of its values were ever written"


def test_a_chunk_that_a_damaged_index_has_lost_is_no_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A})
    with h5py.File(path, "r+"):
        pass  # which takes the seal off
    whole = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["layers/x"].id.get_chunk_info(0).byte_offset
    # the index entry of a chunk: size, filter mask, three numbers that say which rows and columns it holds, its address
    at = whole.find(chunk.to_bytes(8, "little"))
    whole[at - 6] = 138
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"layer x: row 0 \(id row 0\) holds nan in column 0"):
        align([open_store(path)])[0].read("x")


def test_flipped_data_bytes_are_never_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": A, "y": B})
    whole = path.read_bytes()
    spans = [range(whole.find(m.tobytes()), whole.find(m.tobytes()) + m.nbytes) for m in (A, B)]
    rng = random.Random(0)
    for at in rng.sample([*spans[0], *spans[1]], 60):
        broken = bytearray(whole)
        broken[at] ^= rng.randrange(1, 256)
        path.write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read"):
            read_all(path)
