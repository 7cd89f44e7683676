"""Tables of numbers as text: what separates columns, headers, names of rows, exact values, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import values

from contrasim_cli.errors import InputError
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store import delimited, open_store
from contrasim_cli.store.content import Content
from contrasim_cli.store.delimited import read_delimited

A = values(300, 4).astype(np.float64)
IDS = [f"row {k}" for k in range(300)]


def table(path: Path, text: str) -> Content:
    """The content of a table."""
    path.write_text(text, encoding="utf-8", newline="")
    return read_delimited(Snapshot(path))


def lines(rows: np.ndarray, delimiter: str, ids: list[str] | None = None, header: list[str] | None = None) -> str:
    """A table as text."""
    cells = [[*([ids[k]] if ids else []), *map(repr, row)] for k, row in enumerate(rows.tolist())]
    return "".join(delimiter.join(line) + "\n" for line in ([header] if header else []) + cells)


def refusal(path: Path, text: str | bytes) -> str:
    """Why a table is refused."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        open_store(path)
    return str(caught.value).removeprefix(f"{path}: ")


def held(content: Content) -> dict[str, np.ndarray]:
    """Every array of it, whole."""
    return {name: np.asarray(array[slice(None)]) for name, array in content.arrays.items()}


@pytest.mark.parametrize("named", [True, False], ids=["header", "bare"])
@pytest.mark.parametrize(("delimiter", "kind"), [(",", "CSV"), ("\t", "TSV"), (";", "CSV"), (" ", "table of text")])
def test_the_delimiter_is_found_and_values_are_exact(tmp_path: Path, delimiter: str, kind: str, named: bool) -> None:
    header = ["id", *(f"f{k}" for k in range(4))] if named else None
    found = table(tmp_path / "a.any", lines(A, delimiter, [name.replace(" ", "_") for name in IDS], header))
    assert (found.kind, found.ordered, list(found.arrays)) == (kind, True, ["a"])
    np.testing.assert_array_equal(held(found)["a"], A)
    (ids,) = found.texts.values()
    assert ids.read(298, 300) == ["row_298", "row_299"]
    assert found.names == (None if named else "index")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=5)
)
def test_every_double_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]) -> None:
    path = tmp_path_factory.getbasetemp() / "a.csv"
    found = table(path, "a,b,c\n" + lines(np.array(rows), ","))
    assert held(found)["a"].tobytes() == np.array(rows).tobytes()


def test_blocks_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 4 * 7)
    found = table(tmp_path / "a.csv", lines(A, ","))
    np.testing.assert_array_equal(found.arrays["a"][3:40], A[3:40])
    np.testing.assert_array_equal(held(found)["a"], A)


def test_the_index_of_pandas_is_no_neuron(tmp_path: Path) -> None:
    """`to_csv` writes the index as a column without a name, and numbers columns that have none."""
    found = table(tmp_path / "a.csv", ",0,1,2\n0,0.5,1,2\n1,3,4,5.5\n")
    np.testing.assert_array_equal(held(found)["a"], [[0.5, 1, 2], [3, 4, 5.5]])
    assert found.names == "index"
    assert held(found)["index"].dtype == np.int64
    found = table(tmp_path / "a.csv", "0,1,2\n0.5,1,2\n3,4,5.5\n")
    np.testing.assert_array_equal(held(found)["a"], [[0.5, 1, 2], [3, 4, 5.5]])
    assert found.names is None
    found = table(tmp_path / "a.csv", "Unnamed: 0,path,f0,f1,f2\n0,x.jpg,.5,1,2\n1,y.jpg,3,4,5.5\n")
    np.testing.assert_array_equal(held(found)["a"], [[0.5, 1, 2], [3, 4, 5.5]])
    assert (list(found.texts), found.names) == (["path"], None)  # which says more than numbers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a 0.5 1 2\nb 3 4 5.5\n", ["a", "b"]),  # GloVe
        ("2 3\na 0.5 1 2\nb 3 4 5.5\n", ["a", "b"]),  # word2vec: rows and neurons come first
        ('"V1" "V2" "V3"\n"a" 0.5 1 2\n"b" 3 4 5.5\n', ['"a"', '"b"']),  # R: the names of rows have no name
        ("# x y z\n0.5 1 2\n3 4 5.5\n", None),  # NumPy
        ("#id\tx0\tx1\tx2\na\t0.5\t1\t2\nb\t3\t4\t5.5\n", ["a", "b"]),
        ("id,x0,x1,x2\r\n a ,0.5,1,2\r\n\r\n b ,3,4,5.5", [" a ", " b "]),
        ('name,x0,x1,x2\n"a, b",0.5, 1,"2"\n"say ""c""",3,4,5.5\n', ["a, b", 'say "c"']),
        ("\ufeffkey;x0;x1;x2\na;.5;1;2.\nb;3;4;5.5e0\n", ["a", "b"]),
    ],
)
def test_what_programs_write(tmp_path: Path, text: str, names: list[str] | None) -> None:
    found = table(tmp_path / "a.txt", text)
    np.testing.assert_array_equal(held(found)["a"], [[0.5, 1, 2], [3, 4, 5.5]])
    assert [ids.read(0, 2) for ids in found.texts.values()] == ([names] if names else [])


def test_numbers_beside_the_neurons(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "id,label,x0,x1,x2\n1234567890123456789,1,.1,.2,.3\n5,0,.4,.5,.6\n")
    np.testing.assert_array_equal(held(found)["a"], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    np.testing.assert_array_equal(held(found)["label"], [1, 0])
    assert found.texts["id"].read(0, 2) == ["1234567890123456789", "5"]  # which no double holds
    found = table(tmp_path / "a.csv", "007,.1,.2\n008,.4,.5\n")
    assert found.texts["index"].read(0, 2) == ["007", "008"]
    found = table(tmp_path / "a.csv", "0,.1,.2\n1,.4,.5\n2,.7,.8\n")
    np.testing.assert_array_equal(held(found)["index"], [0, 1, 2])
    np.testing.assert_array_equal(held(found)["a"], [[0.1, 0.2], [0.4, 0.5], [0.7, 0.8]])


def test_columns_of_several_layers(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "id,conv_0,conv_1,fc_0,fc_1,fc_2\na,1,2,3,4,5\nb,6,7,8,9,.5\n")
    assert list(found.arrays) == ["conv", "fc"]
    np.testing.assert_array_equal(held(found)["fc"], [[3, 4, 5], [8, 9, 0.5]])
    found = table(tmp_path / "a.csv", "mean,std,q1,q3,max\n1,2,3,4,5\n6,7,8,9,.5\n")
    assert list(found.arrays) == ["a"]  # few columns are numbered
    assert held(found)["a"].shape == (2, 5)


def test_what_is_missing_is_nan(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "id,x0,x1,x2,x3\na,,NA,nan,1\nb,null,N/A,2,-inf\n")
    np.testing.assert_array_equal(held(found)["a"], [[np.nan, np.nan, np.nan, 1], [np.nan, np.nan, 2, -np.inf]])
    found = table(tmp_path / "b.csv", "x\n1.5\n\n2\n")
    np.testing.assert_array_equal(held(found)["b"], [[1.5], [2]])  # an empty line is no row
    found = table(tmp_path / "c.csv", 'id,x,y\na,1.5,\n"",,\nc,,\n')
    np.testing.assert_array_equal(held(found)["c"], [[1.5, np.nan], [np.nan, np.nan]])  # nor is one without any value


@pytest.mark.parametrize(
    "text", ["id\ten\tar\n1\thello you\tyou\n2\ta\tb\n", "a sentence,0.7\nanother one,0.5\n", "s,t\nx,y\nz,z\n"]
)
def test_tables_of_texts_are_refused(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path / "a.tsv", text)
    assert "contrasim extract --model MODEL --text FILE" in message
    assert message.startswith(("holds texts (", "holds text and no numbers"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x0,x1\n1,2\n3\n", "line 3 has 1 cells, and those before it 2; the file is no table of numbers, or is damaged"),
        ("x0,x1\n1,2\n\n3,4,5\n", "line 4 has 3 cells, and those before it 2; the file is no table of numbers, or is damaged"),
        ("x,y,z\n1,2\n", "names 3 columns, and its first row has 2 cells; the file is no table of numbers, or is damaged"),
        ("x0,x1\n1,2\n3,4\n5,x\n", "line 4, column 2: x is not a number"),
        ("x0,x1\n1,2\n3,4\n5,1_000\n", "line 4, column 2: 1_000 is not a number"),
        ("x0,x1\n1,2\n3,0x10\n5,6\n", "line 3, column 2: 0x10 is not a number"),
        ("0,5;1,5\n2,5;3,25\n", "has numbers with commas, such as 2,5; write decimals with a point"),
        ("id;x\na;0,5\nb;1,25\n", "has numbers with commas, such as 0,5; write decimals with a point"),
        ('id,v\na,"[1.0, 2.0]"\nb,"[3.0, 4.0]"\n', "holds lists that are written as text, such as [1.0, 2.0]; write a col"),
        ('id,v\n1,"[1.0, 2.0]"\n2,"[3.0, 4.0]"\n', "holds lists that are written as text, such as [1.0, 2.0]; write a col"),
        ("x0,x1\n1,2\n3,\xff\n".encode("latin-1"), "is text, and not in UTF-8: convert it first (iconv"),
        (b"\xff\xfex\0,\0", "is text in UTF-16, convert it first (iconv -f utf-16 -t utf-8); a store is"),
        ('{"x": [1, 2]}\n', "is of no kind that is read; a store is"),
        ("[[1, 2], [3, 4]]\n", "is of no kind that is read; a store is"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path / "a.csv", text).startswith(message)


def test_a_broken_number_behind_the_sample_is_refused(tmp_path: Path) -> None:
    text = "x0,x1\n" + "1,2\n" * 500
    assert refusal(tmp_path / "a.csv", text + "1,two\n") == "line 502, column 2: two is not a number"
    (tmp_path / "a.csv").write_text(text + "1,\xff\n", encoding="latin-1")
    many = b"x0,x1\n" + b"1,2\n" * 40000 + b"1,\xff\n"
    assert refusal(tmp_path / "a.csv", many).startswith("is not UTF-8 (")


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(lines(A, ","), encoding="utf-8")
    held_bytes = A.nbytes
    read_delimited(Snapshot(path), held_bytes)
    with pytest.raises(InputError, match="--memory"):
        read_delimited(Snapshot(path), held_bytes - 1)


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_LINE", 1000)
    assert (
        refusal(tmp_path / "a.csv", "1,2\n" + "1," * 500)
        == "has a line of more than 1000 characters, and is no table of numbers"
    )


def test_lines_without_end_are_refused(tmp_path: Path) -> None:
    """A packed file of a megabyte may hold a thousand million of them."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n" + b"\n" * (64 << 20)))
    assert refusal(tmp_path / "a.csv.gz", (tmp_path / "a.csv.gz").read_bytes()) == (
        "has more than 10000 empty lines, and is no table of numbers"
    )


def test_packed_tables(tmp_path: Path) -> None:
    content = gzip.compress(lines(A, "\t", IDS).encode())
    (tmp_path / "a.tsv.gz").write_bytes(content)
    found = read_delimited(Snapshot(tmp_path / "a.tsv.gz"))
    np.testing.assert_array_equal(held(found)["a"], A)
    (tmp_path / "a.tsv.gz").write_bytes(content[:-100])
    with pytest.raises(InputError, match="the file is damaged"):
        open_store(tmp_path / "a.tsv.gz")


def test_a_table_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(lines(A, ",", IDS, ["ids", "a", "b", "c", "d"]), encoding="utf-8")
    store = open_store(tmp_path / "a.csv")
    np.testing.assert_array_equal(store.read("a", 10, 200), A[10:200])
    assert store.ids is not None
    assert store.ids.read(5, 7) == IDS[5:7]


@pytest.mark.parametrize(("separator", "before"), [(",", "# "), (",", "#"), (", ", "# "), ("\t", "# "), (" ", "# ")])
def test_a_comment_that_names_the_columns_loses_none(tmp_path: Path, separator: str, before: str) -> None:
    matrix = values(5, 4)
    names = separator.join(f"d{k}" for k in range(4))
    np.savetxt(tmp_path / "x.txt", matrix, "%.17g", separator, header=names, comments=before)
    store = open_store(tmp_path / "x.txt")
    ((_, layer),) = store.layers.items()
    np.testing.assert_array_equal(layer.array[0:5], matrix)
