"""Rows that are zero in every layer: counted, warned of, refused above one in a hundred, kept or dropped."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import made
import numpy as np
import oracles
import pytest
from helpers import run

from contrasim_cli.errors import InputError
from contrasim_cli.store import blocks, open_store
from contrasim_cli.store.zero_rows import check_zero_rows, probe_zero_rows, zero_rows
from contrasim_cli.store.zeros import ZeroRows

RNG = np.random.default_rng(0)
N = 1000
X, Y = RNG.normal(size=(N, 8)) + 1, RNG.normal(size=(N, 6)) + 1

Save = Callable[[Path, dict[str, np.ndarray]], Path]


def contiguous(path: Path, layers: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, layer in layers.items():
            file.create_dataset(name, shape=layer.shape, dtype=layer.dtype)[:] = layer
    return path


def npz(path: Path, layers: dict[str, np.ndarray]) -> Path:
    with path.open("wb") as stream:
        np.savez(stream, **layers)
    return path


def without(array: np.ndarray, rows: object) -> np.ndarray:
    out = array.copy()
    out[rows] = 0
    return out


TAIL, FEW, SCATTERED = slice(400, None), [3, 500], RNG.choice(N, 20, replace=False)


@pytest.mark.parametrize("save", [contiguous, npz])
@pytest.mark.parametrize("command", ["baseline", "bench", "extract", "train"])
def test_a_half_written_file_is_refused_with_its_rows(tmp_path: Path, save: Save, command: str) -> None:
    a = save(tmp_path / "a", {"l0": without(X, TAIL), "l1": without(X, TAIL)})
    b = save(tmp_path / "b", {"l0": Y, "l1": Y})
    args = {
        "baseline": ("baseline", a, b),
        "bench": ("bench", "layers", b, a),
        "extract": ("extract", "--from", a, "-o", tmp_path / "o.h5"),
        "train": ("train", b, a, "--task", "pairs", "-o", tmp_path / "o.pt"),
    }[command]
    done = run(*args)
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1] == (
        f"contrasim: error: {a}: 600 of 1000 rows are all zero in every layer, the first is row 400; was the file written to "
        "its end? --zero-rows drop leaves them out, --zero-rows keep takes them"
    )
    assert not (tmp_path / "o.h5").exists()
    assert not (tmp_path / "o.pt").exists()


def test_rows_may_be_dropped_or_kept(tmp_path: Path) -> None:
    a, b = (
        contiguous(tmp_path / "a", {"l": without(X, TAIL)}),
        contiguous(tmp_path / "b", {"l": without(Y, slice(350, 500))}),
    )
    options = ("--format", "value", "--align", "position")
    dropped = run("baseline", a, b, *options, "--zero-rows", "drop")
    assert abs(float(dropped.stdout) - oracles.cka(X[:350], Y[:350])) < 1e-6
    assert (
        "--zero-rows drop: 650 of 1000 rows are zero in every layer and are left out of every store" in dropped.stderr
    )
    kept = run("baseline", a, b, *options, "--zero-rows", "keep")
    assert abs(float(kept.stdout) - oracles.cka(without(X, TAIL), without(Y, slice(350, 500)))) < 1e-6
    assert "all zero" not in kept.stderr
    nothing = contiguous(tmp_path / "c", {"l": np.zeros((N, 3))})
    assert (
        "leaves no row: every row is zero in every layer in"
        in run("baseline", nothing, a, "--zero-rows", "drop").stderr
    )


def test_extract_drops_or_keeps_them_with_their_ids(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", {"l": without(X, TAIL), "m": without(Y, slice(300, None)), "ids": np.arange(N)})
    out = tmp_path / "o.h5"
    assert run("extract", "--from", path, "-o", out).code == 3
    assert run("extract", "--from", path, "--zero-rows", "drop", "-o", out).code == 0
    store = open_store(out)
    assert store.ids is not None
    assert store.ids.read(0, 400) == [str(k) for k in range(400)]  # zero in m alone is no reason
    np.testing.assert_array_equal(store.read("m", 0, 400), without(Y, slice(300, None))[:400])
    store.close()
    assert run("extract", "--from", path, "--zero-rows", "keep", "-o", out, "--force").code == 0
    assert open_store(out).n_rows == N
    assert run("baseline", out, out).code == 0  # a store with a digest is taken as it is
    assert (
        run("extract", "--from", path, "--limit", 400, "-o", out, "--force").code == 0
    )  # of the rows that are taken none is
    assert (
        run(
            "extract", "--from", contiguous(tmp_path / "z", {"l": X * 0}), "--zero-rows", "drop", "-o", out, "--force"
        ).code
        == 3
    )


def test_a_few_are_warned_of(tmp_path: Path) -> None:
    a, b = contiguous(tmp_path / "a", {"l": without(X, FEW)}), contiguous(tmp_path / "b", {"l": Y})
    done = run("baseline", a, b, "--format", "value")
    assert abs(float(done.stdout) - oracles.cka(without(X, FEW), Y)) < 1e-6
    assert done.stderr.count("all zero") == 1
    assert (
        f"contrasim: warning: {a}: 2 of 1000 rows are all zero in every layer, the first is row 3; --zero-rows drop leaves them out"
        in done.stderr
    )


def test_scattered_rows_are_found_where_rows_are_read_anyway(tmp_path: Path) -> None:
    """Whether or not the few rows that are looked at before are among them."""
    a, b = contiguous(tmp_path / "a", {"l": without(X, SCATTERED)}), contiguous(tmp_path / "b", {"l": Y})
    done = run("baseline", b, a)
    assert (done.code, done.stdout) == (3, "")
    assert f"{a}: 20 of 1000 rows are all zero in every layer, the first is row {min(SCATTERED)};" in done.stderr


def test_a_row_that_is_zero_in_one_layer_is_none(tmp_path: Path) -> None:
    a = npz(tmp_path / "a", {"l": without(X, TAIL), "m": Y})
    assert run("baseline", a, a).code == 0
    assert run("baseline", a, a, "--layers", "l").code == 3  # all that is read of it is zero
    assert "all zero" not in run("baseline", a, a, "--layers", "m").stderr


def test_inspect_counts_them(tmp_path: Path) -> None:
    a = npz(tmp_path / "a", {"l": without(X, TAIL), "m": without(Y, slice(700, 900))})
    done = run("inspect", a)
    assert done.code == 0
    header, *lines = (line.split("\t") for line in done.stdout.splitlines())
    assert [(line[1], line[header.index("zero_rows")]) for line in lines] == [("l", "600"), ("m", "200")]
    assert f"contrasim: warning: {a}: 200 of 1000 rows are all zero in every layer, the first is row 700" in done.stderr
    store = json.loads(run("inspect", a, "--format", "json").stdout)["stores"]["a"]
    assert (store["zero_rows"], store["first_zero_row"]) == (200, 700)
    b = npz(tmp_path / "b", {"l": X})
    whole = run("inspect", b)
    assert "zero_rows" not in whole.stdout
    assert "all zero" not in whole.stderr
    assert json.loads(run("inspect", b, "--format", "json").stdout)["stores"]["b"]["zero_rows"] == 0


def test_the_first_row_is_named_by_its_id(tmp_path: Path) -> None:
    a = npz(tmp_path / "a", {"l": without(X, TAIL), "ids": np.array([f"im{k}" for k in range(N)])})
    assert "the first is row 400 (id im400); was the file" in run("baseline", a, a).stderr


def test_a_good_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the few rows that are looked at before."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100 * 8 * 8)
    store = open_store(contiguous(tmp_path / "a", {"l": X, "m": X}))
    read: list[int] = []
    original = type(store).read

    def counting(self: object, name: str, start: int, stop: int) -> np.ndarray:
        read.append(stop - start)
        return original(self, name, start, stop)

    monkeypatch.setattr(type(store), "read", counting)
    probe_zero_rows(store, ["l", "m"])
    assert sum(read) <= 128
    assert len(zero_rows(store, ["l", "m"])) == 0
    assert sum(read) <= 128 + N  # where a row is known not to be zero, no other layer is read


def test_the_bookkeeping_against_a_plain_count() -> None:
    for _ in range(20):
        layers = [np.where(RNG.random((50, 1)) < 0.5, 0, RNG.normal(size=(50, 3))) for _ in range(3)]
        found = ZeroRows(50)
        for layer in layers:
            for start in range(0, 50, 7):
                found.look(start, layer[start : start + 7])
        expected = [row for row in range(50) if not any(layer[row].any() for layer in layers)]
        assert found.places.tolist() == expected
    partial = ZeroRows(50)
    partial.look(10, np.zeros((5, 3)))
    assert (partial.places.tolist(), len(partial.seen)) == ([10, 11, 12, 13, 14], 5)
    assert not partial.are_alive(10, 11)


def test_what_is_told_once_is_not_told_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(contiguous(tmp_path / "a", {"l": without(X, FEW)}))
    store.read("l", 0, N)
    check_zero_rows([store, store])
    check_zero_rows([store])
    assert len(caplog.messages) == 1
    other = open_store(contiguous(tmp_path / "b", {"l": without(X, TAIL)}))
    other.read("l", 0, N)
    with pytest.raises(InputError, match="600 of 1000 rows"):
        check_zero_rows([other])


def test_stores_written_by_hand_are_looked_at_too(tmp_path: Path) -> None:
    a = made.store(tmp_path / "a.h5", {"l": without(X, TAIL)})
    assert run("baseline", a, a).code == 3
