"""More stores than files may be open: they are read as if all were, and as one version each."""

import gc
import logging
import os
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faults import containers
from faults.warm import Warm
from stores import names, values, write, write_by_hand

from contrasim_cli import snapshot
from contrasim_cli.errors import ContraSimError, InputError
from contrasim_cli.store import close_stores, open_files, open_stores
from contrasim_cli.store.store import Store


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm() as process:
        yield process


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for two files."""
    gc.collect()
    before = open_files.descriptors()
    assert before is not None
    monkeypatch.setattr(open_files, "has_room", lambda: (open_files.descriptors() or 0) < before + 2)
    monkeypatch.setattr("contrasim_cli.store.open.has_room", open_files.has_room)
    monkeypatch.setattr("contrasim_cli.store.open.raise_limit", lambda: None)


def stores(folder: Path, count: int) -> list[Path]:
    """Stores by hand, so that no seal says that they are sound."""
    return [
        write_by_hand(folder / f"{k}.h5", {"x": values(seed=k), "y": values(seed=k + 100)}, names(20))
        for k in range(count)
    ]


def rows(found: Store, name: str = "x") -> np.ndarray:
    return found.read(name, 0, found.n_rows)


def check_same(path: Path, found: Store) -> None:
    """A store is what it is where it is the only one."""
    (alone,) = open_stores([path])
    assert list(alone.layers) == list(found.layers)
    for name, layer in alone.layers.items():
        assert (layer.dtype, layer.width) == (found.layer(name).dtype, found.layer(name).width)
        assert np.array_equal(rows(found, name), rows(alone, name), equal_nan=True), path
    assert (alone.ids is None) == (found.ids is None)
    assert alone.ids is None or found.ids is None or alone.ids.digest == found.ids.digest
    alone.close()


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "count"), [(16, 40), (64, 300)])
def test_three_hundred_stores_with_few_descriptors(warm: Warm, tmp_path: Path, limit: int, count: int) -> None:
    for k in range(8):
        write(tmp_path / f"{k:03}.h5", {"x": values(seed=k), "y": values(seed=k + 8)}, names(20))
    for k in range(8, count):
        shutil.copy(tmp_path / f"{k % 8:03}.h5", tmp_path / f"{k:03}.h5")
    paths = [f"{k:03}.h5" for k in range(count)]
    command = ("bench", "layers", *paths, "--measure", "cka")
    before = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    expected, found = warm.run(*command, cwd=tmp_path), warm.run(*command, cwd=tmp_path, before=before)
    assert found.code == expected.code == 0, found
    assert found.stdout == expected.stdout
    assert len(found.stdout.splitlines()) > count // 2
    assert found.stderr == expected.stderr


@pytest.mark.parametrize("room", range(8))
def test_a_limit_that_leaves_no_room_is_named(warm: Warm, tmp_path: Path, room: int) -> None:
    """Whatever it is that cannot be opened: a module of Python, a store, a pipe."""
    paths = stores(tmp_path, 2)
    before = (
        f"import os, resource; most = len(os.listdir('/proc/self/fd')) + {room};"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)); os.dup(0)"
    )
    done = warm.run("inspect", *paths, cwd=tmp_path, before=before)
    assert done.code == 0 or "files open, and has; raise the limit with ulimit -n" in done.stderr.splitlines()[-1], done
    assert done.code if room < 2 else room < 7 or not done.code, done


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_every_kind_is_opened_again(tmp_path: Path) -> None:
    kinds = [
        containers.parquet,
        containers.lists_in_parquet,
        containers.feather,
        containers.zipped,
        containers.packed_npy,
    ]
    kinds += [containers.chunks, containers.indexed, containers.delimited, containers.matlab]
    paths = [kind(tmp_path / kind.__name__) for kind in kinds]
    paths += stores(tmp_path, 3)
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", values(seed=k))
    paths += [tmp_path / f"{k}.npy" for k in range(3)]
    gc.collect()  # else what tests before this one left open may be closed meanwhile
    before = open_files.descriptors()
    assert before is not None
    opened = open_stores(paths)
    for _ in range(2):
        for path, found in zip(paths, opened, strict=True):
            check_same(path, found)
            assert (open_files.descriptors() or 0) <= before + 4  # a Parquet file takes two
    close_stores(opened)
    assert open_files.descriptors() == before
    assert not open_files.SHELF.stores


@pytest.mark.usefixtures("few")
def test_a_store_that_is_replaced_while_it_is_closed_is_refused(tmp_path: Path) -> None:
    paths = stores(tmp_path, 4)
    opened = open_stores(paths)
    for found in opened:
        rows(found)
    write_by_hand(tmp_path / "new", {"x": values(seed=9), "y": values(seed=9)}, names(20)).replace(paths[0])
    with pytest.raises(InputError, match=r"0\.h5: was replaced while it was read"):
        rows(opened[0])
    assert np.array_equal(rows(opened[1]), values(seed=1))
    close_stores(opened)


@pytest.mark.usefixtures("few")
def test_a_store_that_is_replaced_while_it_is_opened_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = stores(tmp_path, 4)
    new = write_by_hand(tmp_path / "new", {"x": values(seed=9), "y": values(seed=9)}, names(20))
    plain, seen = snapshot.identity_of, []

    def identity(path: Path) -> tuple[int, ...]:
        if path == paths[3] and not seen:  # after what it is has been noted
            seen.append(plain(path))
            new.replace(path)
            return seen[0]
        return plain(path)

    monkeypatch.setattr(open_files, "identity_of", identity)
    opened = open_stores(paths)
    assert seen
    for _ in range(2):
        assert [rows(found)[0, 0] for found in opened] == [values(seed=k)[0, 0] for k in (0, 1, 2, 9)]
    close_stores(opened)


@pytest.mark.usefixtures("few")
def test_threads_read_what_others_have_closed(tmp_path: Path) -> None:
    opened = open_stores(stores(tmp_path, 6))
    wrong: list[object] = []

    def read(first: int) -> None:
        for k in range(60):
            which = (first + k * (first + 1)) % 6
            if not np.array_equal(rows(opened[which]), values(seed=which)):
                wrong.append(which)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    close_stores(opened)


@pytest.mark.usefixtures("few")
def test_notes_are_said_once_and_files_tried_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks: list[int] = []
    fork = os.fork
    monkeypatch.setattr("contrasim_cli.store.child_process._fork", lambda: forks.append(fork()) or forks[-1])
    logger = logging.getLogger("contrasim_cli")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, logger="contrasim_cli")
    paths = [containers.lists_in_parquet(tmp_path / f"{k}.parquet") for k in range(5)]
    opened = open_stores(paths)
    tried = len(forks)
    for _ in range(3):
        for found in opened:
            rows(found, "a")
    said = [record.message for record in caplog.records if "rows are named by" in record.message]
    assert sorted(said) == sorted(f"{path}: rows are named by ids" for path in paths) or not said
    assert len(said) == len(set(said))
    assert len(forks) == tried
    close_stores(opened)


def test_problems_are_told_together_and_nothing_is_left_open(tmp_path: Path, few: None) -> None:
    paths = stores(tmp_path, 5)
    paths[3].write_bytes(b"no store")
    gc.collect()
    before = open_files.descriptors()
    with pytest.raises(ContraSimError, match=r"3\.h5"):
        open_stores([*paths, tmp_path / "none.h5"])
    assert open_files.descriptors() == before
    assert not open_files.SHELF.stores


def test_where_all_may_be_open_they_are(tmp_path: Path) -> None:
    opened = open_stores(stores(tmp_path, 5))
    assert not open_files.SHELF.stores
    close_stores(opened)


def test_a_limit_that_may_be_raised_is(warm: Warm, tmp_path: Path) -> None:
    paths = stores(tmp_path, 30)
    done = warm.run(
        "inspect", *paths, "--no-scan", cwd=tmp_path, limits={resource.RLIMIT_NOFILE: 32},
        before="from contrasim_cli.store import open_files; open_files.Shelf.keep = None",
    )  # fmt: skip
    assert done.code == 0, done
