"""Locks: one writer at a time, also while locks are removed, and none that outlives its holder."""

import fcntl
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contrasim_cli import locks
from contrasim_cli.errors import OutputError
from contrasim_cli.locks import BusyError, only_writer


def test_a_second_writer_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    with only_writer(tmp_path / "a"):
        for other in ("a", "link"):
            with pytest.raises(BusyError) as caught, only_writer(tmp_path / other):
                pass
        assert str(caught.value) == (
            f"{tmp_path / 'link'}: another process is writing this output; wait until it has finished"
        )
        with only_writer(tmp_path / "b"):
            pass
    with only_writer(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == ["link"]


def test_an_error_lets_go_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_writer(tmp_path / "a"):
        raise KeyError
    with only_writer(tmp_path / "a"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with only_writer(tmp_path / "a"):
            time.sleep(60)
        os._exit(1)
    while not list(tmp_path.iterdir()) or locks.take(tmp_path / ".a.lock") is not None:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == [".a.lock"]
    with only_writer(tmp_path / "a"):
        pass
    assert not os.listdir(tmp_path)


def test_one_at_a_time_while_locks_come_and_go(tmp_path: Path) -> None:
    inside, ends = threading.Semaphore(1), [0, 0]

    def often() -> None:
        for _ in range(300):
            try:
                with only_writer(tmp_path / "a"):
                    assert inside.acquire(blocking=False)
                    inside.release()
                ends[0] += 1
            except BusyError:
                ends[1] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: often(), range(4)))
    assert min(ends) > 10
    assert not os.listdir(tmp_path)


def test_a_file_system_without_locks_and_one_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(descriptor: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with only_writer(tmp_path / "a"):
        pass
    with (
        pytest.raises(OutputError, match="cannot be written: No such file or directory"),
        only_writer(tmp_path / "x" / "a"),
    ):
        pass
