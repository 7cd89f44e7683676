"""The seal of a store, the child process for files without one, and what both let through."""

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from stores import names, values, write

from contrasim_cli import snapshot
from contrasim_cli.errors import InputError
from contrasim_cli.limits import Start as limits_start
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store import child_process, open_store, seal
from contrasim_cli.store import open as opening

A = values(3000, 300)  # several chunks
DAMAGED = "its ids, names or attributes do not match its seal; the file is damaged, copy or extract it again"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.h5", {"x": A, "y": A[:, :3]})


def test_the_seal_is_of_every_byte_but_the_rows(path: Path) -> None:
    """A byte of the rows may change, which their checksums tell; any other breaks the seal."""
    whole = path.read_bytes()
    at = whole.find(A[:10].tobytes()) + 17
    places = [at, *np.random.default_rng(0).integers(0, len(whole), 40).tolist(), len(whole) - 1]
    with h5py.File(path) as file:
        chunks = [
            file[name].id.get_chunk_info(k)
            for name in ("layers/x", "layers/y")
            for k in range(file[name].id.get_num_chunks())
        ]
    assert len(chunks) > 3
    for place in [*places, 0, 9, chunks[0].byte_offset - 1, chunks[-1].byte_offset + chunks[-1].size]:
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        in_rows = any(c.byte_offset <= place < c.byte_offset + c.size for c in chunks)
        assert bool(seal.holds(path)) is in_rows


def test_a_broken_seal_is_refused_before_hdf5_sees_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bytearray(path.read_bytes())
    whole[3000] ^= 255
    path.write_bytes(whole)
    monkeypatch.setattr(h5py, "File", None)
    with pytest.raises(InputError) as caught:
        open_store(path)
    assert str(caught.value) == f"{path}: {DAMAGED}"


def test_a_seal_costs_no_child(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", None)
    with contextlib.closing(open_store(path)) as store:
        assert store.n_rows == 3000


def test_a_store_changed_by_hand_has_no_seal_and_is_read(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = file.attrs["digest"]
    assert seal.holds(path) is None
    open_store(path).close()


def test_half_a_seal_is_damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="the store has lost its seal; the file is damaged"):
        open_store(path)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 63, bytes(64), seal.MAGIC + bytes(48), b"1" + seal.FOOTER.pack(seal.MAGIC, 1, 0, b"")]
)
def test_other_files_have_no_seal_that_holds(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert not seal.holds(tmp_path / "a")


# the child process


def refusal(path: Path, work) -> str:
    with pytest.raises(InputError) as caught:
        child_process.rehearse(Snapshot(path), work)
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_the_child_dies_of_is_told(path: Path) -> None:
    end = "; the file is damaged, copy or extract it again"
    assert refusal(path, lambda: os.kill(os.getpid(), signal.SIGSEGV)) == f"HDF5 crashes on it (SIGSEGV){end}"
    assert refusal(path, lambda: os.kill(os.getpid(), signal.SIGKILL)) == (
        "the process that tried to open it was ended by signal 9, as where memory runs out; try again"
    )


def test_a_process_that_is_not_told_how_its_children_end(path: Path) -> None:
    """As when whoever started it ignores SIGCHLD."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child_process.rehearse(Snapshot(path), lambda: None)
        assert refusal(path, lambda: os.kill(os.getpid(), signal.SIGSEGV)).startswith("HDF5 crashes on it;")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_errors_of_inputs_are_those_of_the_child(path: Path) -> None:
    def fail() -> None:
        raise InputError(f"{path}: pid {os.getpid()}")

    said = refusal(path, fail)
    assert said.startswith("pid ")
    assert said != f"pid {os.getpid()}"


def test_other_errors_are_left_to_the_parent(path: Path) -> None:
    def fail() -> None:
        path.with_name("ran").touch()
        raise KeyError

    child_process.rehearse(Snapshot(path), fail)
    assert path.with_name("ran").exists()


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_is_changed_after_it_was_tried_is_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Where the system has no name for what is open, a file of the same name may be another."""
    if not named:
        monkeypatch.setattr(Snapshot, "name", property(lambda file: file.path))
    file = Snapshot(path)
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    child_process.rehearse(file, lambda: os.replace(other, path) if named else None)
    other.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match="is being written"):
        child_process.rehearse(file, lambda: other.rename(path) if not named else file.name.write_bytes(b"other"))


def test_the_size_of_a_file_is_that_of_what_is_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sizes = Snapshot(path), []
    size, small = file.size, path.with_name("small")
    small.write_bytes(b"")
    small.replace(path)
    monkeypatch.setattr(
        child_process.limits, "Start", lambda size, *more: sizes.append(size) or limits_start(size, *more)
    )
    child_process.rehearse(file, lambda: None)
    assert sizes == [size]


def test_no_child_is_left_by_an_interrupt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    fork = child_process._fork
    monkeypatch.setattr(child_process, "_fork", lambda: made.append(fork()) or made[-1])

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            child_process.rehearse(Snapshot(path), lambda: time.sleep(60))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert made
    with pytest.raises(ChildProcessError):
        os.waitpid(made[0], os.WNOHANG)


def test_without_room_for_a_child_files_are_read_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = file.attrs["digest"]
    monkeypatch.setattr(os, "fork", full)
    with contextlib.closing(open_store(path)) as store:
        assert store.n_rows == 3000


# files that are replaced


def test_a_file_replaced_while_it_is_opened_is_opened_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was checked is the one that is read."""
    other = write(path.with_name("b.h5"), {"x": A + 1}, names(3000, "other"))
    plain = opening._read_hdf5

    def replaced(*args):
        if other.exists():
            os.replace(other, path)
        return plain(*args)

    monkeypatch.setattr(opening, "_read_hdf5", replaced)
    store = open_store(path)
    np.testing.assert_array_equal(store.read("x", 0, 5), A[:5] + 1)
    assert store.ids.read(0, 1) == ["other 0"]
    store.close()


def test_a_file_changed_again_and_again_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, count = opening._read_hdf5, itertools.count(1)

    def changed(*args):
        os.utime(path, ns=(0, next(count)))
        return plain(*args)

    monkeypatch.setattr(opening, "_read_hdf5", changed)
    monkeypatch.setattr(snapshot, "PAUSE", 0)
    with pytest.raises(InputError, match="keeps being replaced while it is opened; wait until it has been written"):
        open_store(path)
