"""MATLAB files before version 7.3, written by scipy as MATLAB does; what lies in structs and cells, and what is refused."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from stores import values

io = pytest.importorskip("scipy.io")
sparse = pytest.importorskip("scipy.sparse")

from contrasim_cli.errors import InputError, MissingError  # noqa: E402
from contrasim_cli.snapshot import Snapshot  # noqa: E402
from contrasim_cli.store import kinds, matlab5, open_store  # noqa: E402
from contrasim_cli.store.content import Content  # noqa: E402
from contrasim_cli.store.matlab5 import read_matlab  # noqa: E402

A = values(5, 4).astype(np.float64)
IDS = ["a", "bb", "ccc", "d", ""]


def cells(*members: object) -> np.ndarray:
    """A cell array."""
    found = np.empty((1, len(members)), object)
    for k, member in enumerate(members):
        found[0, k] = member
    return found


def held(found: Content) -> dict[str, np.ndarray]:
    """Every array of it, whole."""
    return {name: np.asarray(array[slice(None)]) for name, array in found.arrays.items()}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_store(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("packed", [False, True])
def test_matrices_in_their_order(tmp_path: Path, packed: bool) -> None:
    members = {
        "z": A, "a": A.astype(np.float32), "whole": np.round(A * 9), "short": (A * 9).astype(np.int16), "flag": A > 0,
        "cube": A.reshape(5, 2, 2),
    }  # fmt: skip
    io.savemat(tmp_path / "a.mat", members, do_compression=packed)
    found = read_matlab(Snapshot(tmp_path / "a.mat"))
    assert (found.ordered, list(found.arrays)) == (True, list(members))
    for name, right in members.items():
        np.testing.assert_array_equal(held(found)[name], right)
    kinds = {name: array.dtype.kind + str(array.dtype.itemsize) for name, array in found.arrays.items()}
    assert kinds == {"z": "f8", "a": "f4", "whole": "f8", "short": "i2", "flag": "u1", "cube": "f8"}


def test_doubles_that_are_kept_as_integers_are_doubles(tmp_path: Path) -> None:
    """MATLAB keeps them so to save room."""
    io.savemat(tmp_path / "a.mat", {"x": np.array([[1.0, 2], [3, 40000]])})
    content = (tmp_path / "a.mat").read_bytes()
    doubles = struct.pack("<II4d", 9, 32, 1, 3, 2, 40000)
    assert content.endswith(doubles)
    short = struct.pack("<II4H", 4, 8, 1, 3, 2, 40000)
    place = len(content) - len(doubles)
    head = bytearray(content[:place])
    struct.pack_into("<I", head, 132, struct.unpack_from("<I", head, 132)[0] - 24)  # bytes of the variable
    (tmp_path / "a.mat").write_bytes(bytes(head) + short)
    assert io.loadmat(tmp_path / "a.mat")["x"].dtype == np.uint16
    (array,) = read_matlab(Snapshot(tmp_path / "a.mat")).arrays.values()
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array[0:2], [[1, 2], [3, 40000]])


def test_vectors_and_names(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {
        "x": A, "names": cells(*map(np.array, (["a"], ["bb"], ["ccc"], ["d"], []))), "chars": np.array(["x", "yy", "z", "w", "v"]),
        "labels": np.array([3.0, 1, 2, 1, 1]), "column": np.array([[0.5], [1], [2], [3], [4]]), "n": 5, "empty": np.zeros((0, 0)),
    })  # fmt: skip
    found = read_matlab(Snapshot(tmp_path / "a.mat"))
    assert {name: ids.read(0, ids.count) for name, ids in found.texts.items()} == {
        "names": IDS,
        "chars": ["x", "yy", "z", "w", "v"],
    }
    assert held(found)["labels"].dtype == np.int64
    np.testing.assert_array_equal(held(found)["labels"], [3, 1, 2, 1, 1])
    np.testing.assert_array_equal(held(found)["column"], [0.5, 1, 2, 3, 4])
    assert found.passed == {"n": "one value of int64"}


def test_structs_and_cells(tmp_path: Path) -> None:
    acts = {"conv": A, "deep": {"fc": A + 1, "note": "text"}}
    io.savemat(tmp_path / "a.mat", {"acts": acts, "layers": cells(A, A[:, :2])})
    found = read_matlab(Snapshot(tmp_path / "a.mat"))
    assert list(found.arrays) == ["acts.conv", "acts.deep.fc", "layers.0", "layers.1"]
    np.testing.assert_array_equal(held(found)["acts.deep.fc"], A + 1)
    np.testing.assert_array_equal(held(found)["layers.1"], A[:, :2])


def test_what_is_no_matrix_of_numbers(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {"s": sparse.csc_matrix(A), "c": A * 1j, "x": A})
    found = read_matlab(Snapshot(tmp_path / "a.mat"))
    assert list(found.arrays) == ["x"]
    assert found.passed == {"s": "a sparse matrix, save full(x)", "c": "complex128"}


def test_it_is_a_store(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.any", {"x": A, "y": A + 1})
    np.testing.assert_array_equal(open_store(tmp_path / "a.any").read("y", 1, 3), A[1:3] + 1)


# hostile files


def test_a_variable_that_takes_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {"x": np.zeros((1000, 1000))}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 20_000
    read_matlab(Snapshot(tmp_path / "a.mat"), 8_000_000)
    with pytest.raises(InputError, match="--memory"):
        read_matlab(Snapshot(tmp_path / "a.mat"), 7_999_999)


@pytest.mark.slow
def test_a_struct_that_unpacks_to_more_than_its_file_can_hold_is_refused(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {"x": {"y": np.zeros((1 << 12, 1 << 13))}}, do_compression=True)
    assert refusal(tmp_path / "a.mat") == (
        "needs more than the memory that a file of its size is given, the limit for reading a MATLAB file before version 7.3 "
        "(small ones can claim gigabytes); if it is sound, give --open-limit 10"
    )


def test_variables_of_the_same_name_are_refused(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {"x": A})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content + content[128:])
    assert refusal(tmp_path / "a.mat").startswith('cannot be read as MATLAB (Duplicate variable name "x"')


@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_cut_short_are_refused(tmp_path: Path, packed: bool) -> None:
    io.savemat(tmp_path / "a.mat", {"x": A, "y": A}, do_compression=packed)
    content = (tmp_path / "a.mat").read_bytes()
    for cut in (90, 129, 140, 200, len(content) - 9):
        (tmp_path / "a.mat").write_bytes(content[:cut])
        assert "the file is damaged" in refusal(tmp_path / "a.mat")


def test_a_checksum_that_does_not_match_is_refused(tmp_path: Path) -> None:
    io.savemat(tmp_path / "a.mat", {"x": A}, do_compression=True)
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(zlib.error):
        zlib.decompress(content[136:])
    assert "the file is damaged" in refusal(tmp_path / "a.mat")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, matlab5.__name__, None)
    monkeypatch.delattr("contrasim_cli.store.matlab5")
    io.savemat(tmp_path / "a.mat", {"x": A})
    with pytest.raises(MissingError) as caught:
        kinds.read_matlab(Snapshot(tmp_path / "a.mat"))
    assert str(caught.value).endswith(
        "a.mat: reading MATLAB files before version 7.3 needs the extra match: pip install 'contrasim[match]'; "
        "or save it by save('x.mat', '-v7.3')"
    )
