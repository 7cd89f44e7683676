"""Limits of the child process that tries an HDF5 file: they begin with its size and grow with what is met in it."""

import resource
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from helpers import run
from stores import names, values, write_by_hand

from contrasim_cli import limits
from contrasim_cli.errors import InputError
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store import open_store
from contrasim_cli.store.child_process import rehearse

ADVICE = "the limit for opening an HDF5 file without a seal (HDF5 hangs on some damaged ones); if it is sound, give --open-limit"
MIB = 1 << 20


def of_size(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def told(path: Path, work: Callable[[], object]) -> str:
    """What the child fails with."""
    with pytest.raises(InputError) as caught:
        rehearse(Snapshot(path), work)
    return str(caught.value).removeprefix(f"{path}: ")


def in_child(path: Path, **grown: int) -> tuple[int, int]:
    """Seconds of processor time and bytes of address space that a child has for a file, after its limits have grown."""

    def work() -> None:
        before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits.grow(**grown)
        raise InputError(
            f"{resource.getrlimit(resource.RLIMIT_CPU)[0]} {resource.getrlimit(resource.RLIMIT_AS)[0] - before}"
        )

    seconds, memory = told(path, work).split()
    return int(seconds), int(memory)


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@linux
@pytest.mark.parametrize(
    ("size", "grown", "seconds", "memory"),
    [
        (0, {}, 2, 256),
        (400 * MIB, {}, 102, 1600),
        (10 * MIB, {"objects": 1000}, 2 + 2.5 + 2, 256 + 62.5),
        (64_000, {"objects": 10**9}, 2 + 0.015 + 2, 256 + 62.5),  # that many do not fit into it
        (MIB, {"read": 40 * MIB}, 2 + 0.25 + 10, 256),
        (MIB, {"read": 1 << 60}, 2 + 0.25 + 25, 256),
        (MIB, {"held": 40 * MIB}, 2 + 0.25, 256 + 40),
        (MIB, {"held": 1 << 60}, 2 + 0.25, 256 + 100),
    ],
)
def test_limits_grow_with_the_file_and_what_is_in_it(
    tmp_path: Path, size: int, grown: dict[str, int], seconds: float, memory: float
) -> None:
    found = in_child(of_size(tmp_path / "a", size), **grown)
    assert found[0] == int(seconds)
    assert found[1] / MIB == pytest.approx(memory, abs=8)  # what the child took before it looked


@linux
def test_the_option_multiplies_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "times", 3.0)
    seconds, memory = in_child(of_size(tmp_path / "a", 0), objects=1)
    assert (seconds, memory / MIB) == (6, pytest.approx(3 * 256, abs=8))


def test_elsewhere_nothing_grows() -> None:
    before = resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)
    limits.grow(objects=10, read=10, held=10)
    assert before == (resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS))


def test_all_that_a_file_holds_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: Counter[str] = Counter()
    monkeypatch.setattr(limits, "grow", lambda **what: met.update(what))
    path = write_by_hand(tmp_path / "a.h5", {f"l{k}": values(50) for k in range(30)}, names(50))
    store = open_store(path)
    assert met["objects"] == 30 + len(["layers", "ids"])
    assert met["held"] >= 50 * 16
    assert store.ids is not None
    assert store.ids.digest
    assert met["read"] >= 50 * 16
    store.close()


def busy() -> None:
    while True:
        pass


@pytest.mark.slow
def test_a_child_that_hangs_is_ended_by_the_limit(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    said = told(of_size(tmp_path / "a", 0), busy)
    assert said == f"needs more than 2 s of processor time, {ADVICE} 10"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < limits.SECONDS + 1.5


@linux
def test_memory_is_a_limit_too_and_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = of_size(tmp_path / "a", MIB)
    monkeypatch.setattr(limits, "times", 2.5)
    line = f"needs more than the memory that a file of its size is given, {ADVICE} 25"
    assert told(path, lambda: bytearray(1 << 30)) == line

    def hidden() -> None:
        try:
            bytearray(1 << 30)
        except MemoryError as error:
            raise InputError("cannot be read as HDF5 (); the file is damaged") from error

    def by_hdf5() -> None:
        raise InputError("the file is damaged") from OSError("Can't read data (memory allocation failed for 1 bytes)")

    assert told(path, hidden) == line
    assert told(path, by_hdf5) == line
    rehearse(Snapshot(path), lambda: bytearray(100 * MIB))


def test_commands_take_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = values()
    monkeypatch.setattr(limits, "SECONDS", -1.0)
    times: list[float] = []
    begin = limits.begin
    monkeypatch.setattr(
        "contrasim_cli.store.child_process._prepare",
        lambda: times.append(limits.times) or begin(limits.Start(0)) or busy(),
    )
    done = run("inspect", path, "--open-limit", "1.5")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr == f"contrasim: error: {path}: needs more than 1 s of processor time, {ADVICE} 15\n"
    assert limits.times == 1
    assert run("inspect", path, "--open-limit", "0.5").code == 2
