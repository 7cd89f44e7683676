"""Parquet and Arrow: columns of numbers and of lists, names of rows, what is missing, and rows that are read on."""

import datetime
import decimal
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import values

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

from contrasim_cli.errors import InputError, MissingError  # noqa: E402
from contrasim_cli.snapshot import Snapshot  # noqa: E402
from contrasim_cli.store import Hints, arrow, arrow_batches, arrow_cursors, kinds, open_store  # noqa: E402
from contrasim_cli.store.arrow_tables import read_table  # noqa: E402
from contrasim_cli.store.content import Content  # noqa: E402

ROWS = 50
A = values(ROWS, 4)
IDS = [f"row {k}" for k in range(ROWS)]


def as_parquet(path: Path, table: pa.Table) -> None:
    parquet.write_table(table, path, row_group_size=7, write_page_checksum=True)


def as_feather(path: Path, table: pa.Table) -> None:
    feather.write_feather(table, path, compression="uncompressed", chunksize=7)


def as_packed(path: Path, table: pa.Table) -> None:
    feather.write_feather(table, path, compression="zstd", chunksize=7)


def as_stream(path: Path, table: pa.Table) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=7)


SAVE = [as_parquet, as_feather, as_packed, as_stream]
Save = Callable[[Path, "pa.Table"], None]


def content(path: Path, save: Save, columns: dict) -> Content:
    """The content of a table of these columns."""
    save(path / "a.any", pa.table(columns))
    return read_table(Snapshot(path / "a.any"))


def held(found: Content) -> dict[str, np.ndarray]:
    """Every array of it, whole."""
    return {name: np.asarray(array[slice(None)]) for name, array in found.arrays.items()}


def lists(rows: np.ndarray) -> "pa.Array":
    """A column of lists of any length."""
    return pa.array(rows.tolist(), pa.list_(pa.from_numpy_dtype(rows.dtype)))


def read_all(path: Path) -> None:
    """Read every layer."""
    store = open_store(path)
    for name in store.layers:
        store.read(name, 0, store.n_rows)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_all(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("save", SAVE)
def test_columns_of_numbers_are_a_layer(tmp_path: Path, save: Save) -> None:
    columns = {"name": IDS, "label": np.arange(ROWS) % 3, **{f"f{k}": A[:, k] for k in range(4)}}
    found = content(tmp_path, save, columns)
    assert list(found.arrays) == ["label", "a"]
    assert (found.ordered, found.arrays["a"].dtype, found.arrays["label"].dtype) == (True, np.float32, np.int64)
    np.testing.assert_array_equal(held(found)["a"], A)
    np.testing.assert_array_equal(held(found)["label"], np.arange(ROWS) % 3)
    assert found.texts["name"].read(3, ROWS) == IDS[3:]


@pytest.mark.parametrize("save", SAVE)
def test_columns_of_lists_are_layers(tmp_path: Path, save: Save) -> None:
    columns = {
        "z": lists(A),
        "a": pa.FixedSizeListArray.from_arrays(pa.array(A[:, :2].ravel()), 2),
        "large": lists(A.astype(np.float64)).cast(pa.large_list(pa.float64())),
        "half": lists(A.astype(np.float16)),
        "whole": lists((A * 9).astype(np.int16)),
        "cube": pa.array(A.reshape(ROWS, 2, 2).tolist(), pa.list_(pa.list_(pa.float32()))),
        "id": pa.array(IDS).dictionary_encode(),
    }
    found = content(tmp_path, save, columns)
    assert list(found.arrays) == ["z", "a", "large", "half", "whole", "cube"]
    for name, right in {
        "z": A, "a": A[:, :2], "large": A.astype(np.float64), "half": A.astype(np.float16),
        "whole": (A * 9).astype(np.int16), "cube": A.reshape(ROWS, 2, 2),
    }.items():  # fmt: skip
        assert found.arrays[name].dtype == right.dtype
        np.testing.assert_array_equal(held(found)[name], right)
    np.testing.assert_array_equal(found.arrays["cube"][3:30, 1], A.reshape(ROWS, 2, 2)[3:30, 1])
    np.testing.assert_array_equal(found.arrays["cube"][8], A[8].reshape(2, 2))
    assert found.texts["id"].read(0, ROWS) == IDS


@pytest.mark.parametrize("save", SAVE)
def test_what_is_missing_is_nan(tmp_path: Path, save: Save) -> None:
    columns = {
        "list": pa.array([None, [1.0, 2.0], [3.0, None]]),
        "fixed": pa.array([[1.0, 2.0], None, [None, 4.0]], pa.list_(pa.float32(), 2)),
        "whole": pa.array([[1, 2], [3, None], None], pa.list_(pa.int16())),
        "label": pa.array([1, None, 3]),
        "flag": pa.array([True, None, False]),
        "money": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("2")]),
        "when": pa.array([datetime.date(2020, 1, 1)] * 3),
        "both": pa.array([{"x": 1}] * 3),
    }
    if save is as_parquet:  # which older writers cannot write
        del columns["fixed"]
    found = content(tmp_path, save, columns)
    nan = np.nan
    right = {
        "list": [[nan, nan], [1, 2], [3, nan]], "fixed": [[1, 2], [nan, nan], [nan, 4]], "whole": [[1, 2], [3, nan], [nan, nan]],
        "label": [1, nan, 3], "flag": [1, nan, 0], "money": [1.25, nan, 2],
    }  # fmt: skip
    for name, rows in held(found).items():
        np.testing.assert_array_equal(rows, right[name])
    assert found.arrays.keys() == right.keys() & columns.keys()
    assert found.passed == {"when": "of type date32[day]", "both": "of type struct<x: int64>"}


@pytest.mark.slow
@pytest.mark.parametrize("save", SAVE)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)), min_size=1, max_size=6))
def test_any_rows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, save: Save, spans: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    found = content(folder, save, {"x": lists(A), "y": lists(A + 1), "id": IDS})
    for start, stop in spans:
        np.testing.assert_array_equal(found.arrays["x"][start:stop], A[start:stop])
        np.testing.assert_array_equal(found.arrays["y"][start:stop], A[start:stop] + 1)
        assert found.texts["id"].read(start, stop) == IDS[start:stop]


def test_rows_are_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one group is gone through once, and not from its start for every block; few columns are kept at a time."""
    parquet.write_table(pa.table({f"x{k}": lists(A + k) for k in range(5)}), tmp_path / "a.parquet")
    monkeypatch.setattr(arrow_cursors, "BATCH_BYTES", 4 * A[0].nbytes)
    monkeypatch.setattr(arrow_cursors, "ACTIVE", 2)
    found = read_table(Snapshot(tmp_path / "a.parquet"))
    begun = []
    plain = arrow_batches.Parquet.batches
    monkeypatch.setattr(arrow_batches.Parquet, "batches", lambda self, *args: begun.append(args) or plain(self, *args))
    for start in range(0, ROWS, 10):
        np.testing.assert_array_equal(found.arrays["x0"][start : start + 10], A[start : start + 10])
    assert len(begun) == 1
    for start, k in itertools.product(range(0, ROWS, 10), range(5)):
        np.testing.assert_array_equal(found.arrays[f"x{k}"][start : start + 10], A[start : start + 10] + k)


def test_the_index_of_pandas_names_rows(tmp_path: Path) -> None:
    """As pandas writes it into the metadata; a range of numbers is no column."""
    table = pa.table({"x0": A[:, 0], "x1": A[:, 1], "__index_level_0__": IDS})
    said = {"index_columns": ["__index_level_0__"], "columns": []}
    for save in SAVE:
        save(tmp_path / "a", table.replace_schema_metadata({"pandas": json.dumps(said)}))
        found = read_table(Snapshot(tmp_path / "a"))
        assert (found.names, list(found.arrays)) == ("__index_level_0__", ["a"])
    for index in ([{"kind": "range"}], ["x0"], ["none"], "text", 3, [["x"]]):
        as_parquet(tmp_path / "a", table.replace_schema_metadata({"pandas": json.dumps({"index_columns": index})}))
        assert read_table(Snapshot(tmp_path / "a")).names is None
    as_parquet(tmp_path / "a", table.replace_schema_metadata({"pandas": b"[" * 100_000}))
    assert read_table(Snapshot(tmp_path / "a")).names is None


def test_a_table_is_a_store(tmp_path: Path) -> None:
    as_parquet(tmp_path / "a.parquet", pa.table({"ids": IDS, "layer_2": lists(A), "layer_10": lists(A + 1)}))
    store = open_store(tmp_path / "a.parquet")
    assert set(store.layers) == {"layer_2", "layer_10"}
    np.testing.assert_array_equal(store.read("layer_10", 4, 20), A[4:20] + 1)
    assert store.ids is not None
    assert store.ids.read(0, 2) == IDS[:2]
    store.close()


@pytest.mark.parametrize("save", SAVE)
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, save: Save) -> None:
    path = tmp_path / "a"
    ragged = pa.array([[1.0, 2.0]] * 9 + [[1.0]])
    for columns, message in [
        ({"x": ragged}, "x has 1 values in row 9, and 2 in the first; lists of one layer have the same length"),
        (
            {"en": IDS, "ar": IDS, "score": A[:, 0]},
            "holds texts (en, ar), not activations; run a model on them",
        ),
        (
            {"en": IDS},
            "holds texts (en), not activations; run a model on them: contrasim extract",
        ),
    ]:
        save(path, pa.table(columns))
        assert refusal(path).startswith(message)
    save(path, pa.Table.from_arrays([pa.array(A[:, 0]), pa.array(A[:, 1])], names=["x", "x"]))
    assert refusal(path) == "two columns have the same name; rename one of them"
    save(path, pa.table({"ids": pa.array(["a", None]), "x": lists(A[:2])}))
    store = open_store(path)
    with pytest.raises(InputError, match="ids is missing in row 1"):
        store.ids.digest  # noqa: B018


def test_old_and_sealed_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"FEA1" + bytes(50))
    assert refusal(tmp_path / "a").startswith("is a Feather file of version 1, write it again as version 2; a store is")
    (tmp_path / "a").write_bytes(b"PARE" + bytes(50) + b"PARE")
    assert refusal(tmp_path / "a").startswith("is of no kind that is read; a store is")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_parquet(tmp_path / "a", pa.table({"x": lists(A)}))
    monkeypatch.setitem(__import__("sys").modules, "contrasim_cli.store.arrow_tables", None)
    monkeypatch.delattr("contrasim_cli.store.arrow_tables")
    with pytest.raises(MissingError) as caught:
        kinds.read_table(Snapshot(tmp_path / "a"))
    assert str(caught.value).endswith(
        "a: reading Parquet and Arrow needs the extra table: pip install 'contrasim[table]'"
    )


# hostile files


def test_more_rows_than_are_there_are_refused(tmp_path: Path) -> None:
    """The footer of Parquet has no checksum; a claim of rows is looked at before room is made for their names."""
    path = tmp_path / "a"
    parquet.write_table(pa.table({"x": lists(A[:20])}), path)
    content = path.read_bytes()
    (length,) = np.frombuffer(content[-8:-4], "<u4")
    footer = content[-8 - int(length) : -8]
    claim = (2**40).to_bytes(6, "little")
    zigzag = bytes([0x80 | claim[0] << 1 & 0x7F, 0x80, 0x80, 0x80, 0x80, 0x40])  # a varint of 2^40, doubled
    patched = footer.replace(b"\x16\x28", b"\x16" + zigzag)  # both claims of 20 rows
    assert patched.count(zigzag) >= 2
    path.write_bytes(content[: -8 - int(length)] + patched + len(patched).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InputError, match="the file is damaged"):
        open_store(path)


def test_a_batch_that_unpacks_to_more_than_there_is_memory_is_refused(tmp_path: Path) -> None:
    zeros = np.zeros((4096, 1024), np.float32)
    as_packed(tmp_path / "a", pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(zeros.ravel()), 1024)}))
    feather.write_feather(
        pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(zeros.ravel()), 1024)}),
        tmp_path / "a",
        compression="zstd",
    )
    assert (tmp_path / "a").stat().st_size < zeros.nbytes / 100
    read_table(Snapshot(tmp_path / "a"), zeros.nbytes + 4096)
    with pytest.raises(InputError, match="--memory"):
        read_table(Snapshot(tmp_path / "a"), zeros.nbytes - 1)


@pytest.mark.parametrize("save", [as_feather, as_packed, as_stream])
def test_claims_of_batches(tmp_path: Path, save: Save) -> None:
    """What the heads of batches say of their rows and sizes is what is in them."""
    table = pa.table({"x": lists(A), "id": pa.array(IDS).dictionary_encode()})
    save(tmp_path / "a", table)
    start = 0 if save is as_stream else 8
    source = pa.py_buffer((tmp_path / "a").read_bytes()).slice(start)
    said = []
    for message in pa.ipc.MessageReader.open_stream(source):
        said.append(arrow.claims(message))
        if sum(rows for is_rows, rows, _ in said if is_rows) == ROWS:
            break
    assert [rows for is_rows, rows, _ in said if is_rows] == [7] * 7 + [1]
    packed = save is not as_feather
    assert all((size >= 7 * 4 * 4) == packed for is_rows, rows, size in said if rows == 7 and is_rows)


def test_a_file_that_lacks_batches_is_refused(tmp_path: Path) -> None:
    as_feather(tmp_path / "a", pa.table({"x": lists(A)}))
    content = (tmp_path / "a").read_bytes()
    place = content.index(b"\xff\xff\xff\xff", len(content) // 2)
    (tmp_path / "a").write_bytes(
        content[:place] + b"\xff\xff\xff\xff\0\0\0\0" + content[place + 8 :]
    )  # ends the stream
    assert refusal(tmp_path / "a").endswith("the file is damaged")


# what takes more memory than a file of its size is given


@pytest.mark.slow
@pytest.mark.parametrize("write", [parquet.write_table, feather.write_feather])
def test_a_long_text_that_repeats_is_held_once(tmp_path: Path, write: Callable[..., None]) -> None:
    long = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["x" * (1 << 20)])  # 20 GB, each by itself
    rows = values(20_000, 2)
    write(pa.table({"ids": [f"r{k}" for k in range(20_000)], "said": long, "x": lists(rows)}), tmp_path / "a")
    store = open_store(tmp_path / "a")
    assert store.ids is not None
    assert store.ids.read(19_998, 20_000) == ["r19998", "r19999"]
    assert np.array_equal(store.read("x", 0, 20_000), rows)
    texts = read_table(Snapshot(tmp_path / "a")).texts["said"]
    assert len(set(map(id, texts.read(0, 20_000)))) <= 5  # one per batch
    assert texts.digest
    store.close()


def test_texts_that_repeat_are_those_of_the_column() -> None:
    texts = pa.array(["b", None, "a", "b", None, "c"])
    assert arrow.strings(texts.dictionary_encode()[1:]) == texts.to_pylist()[1:]
    assert arrow.strings(pa.array([None, None], pa.string()).dictionary_encode()) == [None, None]
    assert arrow.strings(pa.DictionaryArray.from_arrays([0, 1, None], ["a", None])) == ["a", None, None]
    with pytest.raises(IndexError):
        arrow.strings(pa.DictionaryArray.from_arrays(pa.array([0, 9]), ["a"], safe=False))


@pytest.mark.parametrize("how", [{}, {"use_dictionary": False}, {"dictionary_pagesize_limit": 100}])
@pytest.mark.parametrize("encoding", [None, "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_of_every_encoding(tmp_path: Path, how: dict, encoding: str | None) -> None:
    more = {} if encoding is None else {"column_encoding": {"ids": encoding}, "use_dictionary": False}
    parquet.write_table(pa.table({"ids": IDS, "x": lists(A)}), tmp_path / "a", row_group_size=30, **how | more)
    store = open_store(tmp_path / "a")
    assert store.ids is not None
    assert store.ids.read(0, ROWS) == IDS
    store.close()


LIMITED = """
import sys
from pathlib import Path
from contrasim_cli.errors import InputError
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.arrow_tables import read_table
read_table(Snapshot(Path(sys.argv[1])), 800 << 20)
try:
    read_table(Snapshot(Path(sys.argv[2])), 1 << 20)
except InputError as error:
    print(error)
"""


def test_memory_that_was_asked_for_is_the_limit(tmp_path: Path) -> None:
    """Of files that would be given more for their size; in a process that has let go of no memory before."""
    for name, width in (("a", 5_000_000), ("b", 20_000_000)):
        rows = pa.ListArray.from_arrays(pa.array([0, width], pa.int32()), np.arange(width, dtype=np.float32))
        parquet.write_table(pa.table({"x": rows}), tmp_path / name, compression="none", use_dictionary=False)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"{tmp_path / 'b'}: needs more memory than the 0.00105 GB that there are for it; give --memory\n"
    )


def test_numbers_that_are_packed_well_are_read(tmp_path: Path) -> None:
    """A gigabyte of activations of dead neurons, most of which are zero, is some megabytes."""
    rows = pa.FixedSizeListArray.from_arrays(np.tile(np.eye(1, 512, dtype=np.float32)[0], 40_000), 512)
    parquet.write_table(pa.table({"x": rows}), tmp_path / "a", compression="zstd")
    assert (tmp_path / "a").stat().st_size < 40_000 * 512 * 4 / 100
    store = open_store(tmp_path / "a")
    assert store.read("x", 39_999, 40_000).sum() == 1
    store.close()


def test_a_child_process_reads_numbers_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, here = arrow_cursors.Columns.__getitem__, os.getpid()

    def crash(self: arrow_cursors.Columns, index: slice) -> np.ndarray:
        return plain(self, index) if os.getpid() == here else os.kill(os.getpid(), signal.SIGSEGV)

    as_parquet(tmp_path / "a", pa.table({"x": lists(A)}))
    monkeypatch.setattr(arrow_cursors.Columns, "__getitem__", crash)
    assert refusal(tmp_path / "a") == "pyarrow crashes on it (SIGSEGV); the file is damaged, copy or extract it again"


def test_a_column_that_cannot_be_read_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    ragged = pa.array([[1.0] * (1 + k % 3) for k in range(ROWS)])
    as_parquet(tmp_path / "a", pa.table({"tokens": ragged, "x": lists(A)}))
    store = open_store(tmp_path / "a", Hints(layers=["x"]))
    assert np.array_equal(store.read("x", 0, ROWS), A)
    with pytest.raises(InputError, match="has 2 values in row 1, and 1 in the first"):
        store.read("tokens", 0, ROWS)
    store.close()
