import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrasim_cli.errors import InputError, MismatchError, UsageError
from contrasim_cli.extraction.inputs import Source, array_source, image_source, text_source, with_ids

TABLE = 'id\ten\tde\na\tsay "hi\thallo\nb\t\tja\nc\ttwo words\tzwei Worte\n'


def items(source: Source, size: int = 2) -> list[object]:
    return [item for block in source.blocks(size) for item in block]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_text_file_has_one_row_per_line(tmp_path: Path) -> None:
    path = write(tmp_path / "s.txt", "one\r\n\u2028two\n\nlast")
    source = text_source(path, None, None, None)
    assert items(source) == ["one", "\u2028two", "", "last"]
    assert list(source.ids()) == ["0", "1", "2", "3"]
    assert source.automatic
    assert source.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    source = text_source(write(tmp_path / "s.tsv", "\ufeffen\nx\n"), "en", None, None)
    assert items(source) == ["x"]


def test_a_quotation_mark_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    source = text_source(write(tmp_path / "s.tsv", TABLE), "en", "id", None)
    assert items(source) == ['say "hi', "", "two words"]
    assert list(source.ids()) == ["a", "b", "c"]
    assert not source.automatic


def test_a_field_of_a_csv_may_hold_commas_and_lines(tmp_path: Path) -> None:
    source = text_source(write(tmp_path / "s.csv", 'id,en\n1,"a, b"\n2,"two\nlines"\n'), "en", "id", None)
    assert items(source) == ["a, b", "two\nlines"]


def test_limit_takes_the_first_rows_and_leaves_the_digest_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tsv", TABLE)
    source, whole = text_source(path, "en", None, 2), text_source(path, "de", None, None)
    assert (source.n_rows, items(source, 5)) == (2, ['say "hi', ""])
    assert source.digest == whole.digest


@pytest.mark.parametrize(
    ("name", "content", "column", "id_column", "message"),
    [
        ("s.tsv", TABLE, None, None, "say which column holds the text (--column); it has id, en, de"),
        ("s.tsv", TABLE, "fr", None, "has no column fr; it has id, en, de"),
        ("s.tsv", TABLE, "en", "fr", "has no column fr; it has id, en, de"),
        ("s.txt", "a\n", "en", None, "--column needs a table with a header line, named .tsv or .csv"),
    ],
)
def test_the_columns_asked_for_must_fit_the_file(
    tmp_path: Path, name: str, content: str, column: str, id_column: str, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UsageError) as caught:
        text_source(path, column, id_column, None)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id\ten\n", "holds no rows"),
        (b"", "is empty; a table starts with a line that names its columns"),
        (b"id\ten\n1\ta\n2\n", "line 3 has 1 fields where the header has 2; mend the line"),
        (b"id\ten\n1\t\xe9\n", "line 2 is not UTF-8; convert the file first (iconv -t utf-8)"),
        (b"id\ten\n1\ta\n2\tb\n1\tc\n", "column id: rows 0 and 2 have the same id; ids must be unique"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        text_source(path, "en", "id", None)
    assert str(caught.value) == f"{path}: {message}"


def test_arrays_are_mapped_and_read_in_blocks(tmp_path: Path) -> None:
    array = np.arange(5 * 6.0).reshape(5, 2, 3)
    np.save(tmp_path / "a.npy", array)
    blocks = list(array_source(tmp_path / "a.npy", 4).blocks(3))
    assert [len(block) for block in blocks] == [3, 1]
    assert isinstance(blocks[0], np.memmap)
    np.testing.assert_array_equal(np.concatenate(blocks), array[:4])


def test_an_npz_holds_one_array_and_perhaps_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.eye(2), ids=np.array(["p", "q"]))
    assert list(array_source(path, None).ids()) == ["p", "q"]
    np.savez(path, x=np.eye(2), y=np.eye(2))
    with pytest.raises(InputError, match="holds 2 arrays; --arrays takes a file with one"):
        array_source(path, None)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"cannot be read as \.npy or \.npz"):
        array_source(tmp_path / "a.npy", None)


def test_images_are_sorted_bytewise_by_their_relative_paths(tmp_path: Path) -> None:
    for name in ("b/1.png", "B.png", "a.PNG", "é.png", "b-1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = image_source(tmp_path, None)
    assert list(source.ids()) == ["B.png", "a.PNG", "b-1.png", "b/1.png", "é.png"]
    assert items(source)[3] == tmp_path / "b/1.png"


def test_ids_of_a_file_name_the_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    ids = write(tmp_path / "ids.txt", "x\ny\nz\n")
    assert list(with_ids(array_source(tmp_path / "a.npy", None), ids, None).ids()) == ["x", "y", "z"]
    assert list(with_ids(array_source(tmp_path / "a.npy", 2), ids, 2).ids()) == ["x", "y"]
    write(ids, "x\ny\n")
    with pytest.raises(MismatchError, match=r"has 2 ids for the 3 rows of .*a\.npy"):
        with_ids(array_source(tmp_path / "a.npy", None), ids, None)
