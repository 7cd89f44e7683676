"""Outputs are whole or absent, whoever stops or competes."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from contrasim_cli import output_files
from contrasim_cli.errors import OutputError, OutputExistsError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import atomic_output, check_output, write_atomic


def refusal(path: Path, force: bool = False) -> str:
    """The message with which an output is refused, without its name; nothing is left behind."""
    with pytest.raises(OutputError) as caught:
        check_output(path, force)
    with pytest.raises(OutputError) as again:
        write_atomic(path, b"new", force)
    assert str(again.value) == str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_an_output_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a [1]*.tsv"
    with atomic_output(path, False) as temporary:
        temporary.write_bytes(b"ha")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_bytes() == b"ha"
    assert os.listdir(tmp_path) == [path.name]


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OutputExistsError) as caught:
        write_atomic(path, b"new", False)
    assert str(caught.value) == f"{path}: already exists; give --force to replace it"
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new", True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_stops_the_writing_leaves_the_old_output(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_output(path, True) as temporary:
            temporary.write_bytes(b"half")
            raise stop

    with pytest.raises(stop):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path) == "cannot be written: it is a folder"
    assert refusal(tmp_path, force=True) == "cannot be written: it is a folder"
    assert refusal(tmp_path / "none" / "a") == (
        f"cannot be written: there is no folder {tmp_path / 'none'}; create it first"
    )
    assert refusal(tmp_path / "file" / "a") == "cannot be written: Not a directory"
    assert refusal(tmp_path / "loop") == "cannot be written: Too many levels of symbolic links"
    for special in (tmp_path / "fifo", Path("/dev/null"), Path("/dev/full")):
        assert refusal(special, force=True) == "cannot be written: it is not a regular file"
    assert refusal(tmp_path / ("x" * 300)) == "cannot be written: File name too long"
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert refusal(tmp_path / "a") == f"cannot be written: the folder {tmp_path} is not writable"


def test_a_read_only_file_system(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert refusal(tmp_path / "a") == f"cannot be written: the folder {tmp_path} is not writable"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "a"
    link.symlink_to(target)
    write_atomic(link, b"1", False)  # a link to a file that is not there yet
    write_atomic(link, b"2", True)
    assert link.is_symlink()
    assert target.read_bytes() == b"2"
    assert sorted(os.listdir(tmp_path)) == ["link", "there"]
    with pytest.raises(OutputExistsError):
        check_output(link, False)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o7777 for path in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", b"", False)
        write_atomic(tmp_path / "b", b"", True)
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"a": 0o666 & ~umask, "b": 0o666 & ~umask}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666, 0o755])
def test_what_replaces_a_file_has_its_mode_and_nobody_reads_it_before(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    inode = path.stat().st_ino
    with atomic_output(path, True) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_bytes(b"new")
    assert modes(tmp_path) == {"a": mode}
    assert path.stat().st_ino != inode  # it was replaced, and not written to
    (tmp_path / "link").symlink_to(path)
    write_atomic(tmp_path / "link", b"newer", True)
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes() == b"newer"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_replaces_a_file_has_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    os.chown(path, 1234, 4321)
    write_atomic(path, b"new", True)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@pytest.mark.parametrize(("mode", "left"), [(0o660, 0o600), (0o664, 0o644), (0o640, 0o600)])
def test_where_the_group_cannot_be_kept_it_may_do_what_others_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, left: int
) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(mode)
    old = path.stat()
    replaced = os.stat_result([*old[:4], old.st_uid, old.st_gid + 1, *old[6:10]])

    def refused(*args: int) -> None:
        raise PermissionError

    plain = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: replaced if self == path else plain(self, **more))
    monkeypatch.setattr(output_files.os, "fchown", refused)
    write_atomic(path, b"new", True)
    monkeypatch.undo()
    assert path.stat().st_mode & 0o777 == left


def test_a_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(output_files.os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_atomic(path, b"new", True)
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_system_without_links_locks_or_folder_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    whole = output_files.sync
    monkeypatch.setattr(output_files, "sync", lambda path: no() if path.is_dir() else whole(path))
    monkeypatch.setattr(output_files.os, "link", no)
    monkeypatch.setattr(output_files.fcntl, "flock", no)
    write_atomic(tmp_path / "a", b"1", False)
    write_atomic(tmp_path / "a", b"2", True)
    assert (tmp_path / "a").read_bytes() == b"2"
    assert os.listdir(tmp_path) == ["a"]


# leftovers and competitors


def test_leftovers_of_the_same_output_are_swept(tmp_path: Path) -> None:
    for name in (".a.0123456789ab.tmp", ".b.0123456789ab.tmp", ".a.txt", "a.tmp"):
        (tmp_path / name).touch()
    write_atomic(tmp_path / "a", b"", False)
    assert sorted(os.listdir(tmp_path)) == [".a.txt", ".b.0123456789ab.tmp", "a", "a.tmp"]


def test_a_temporary_file_in_use_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_output(path, True) as slow:
        slow.write_bytes(b"slow")
        write_atomic(path, b"fast", True)
        assert slow.exists()
        assert path.read_bytes() == b"fast"
    assert path.read_bytes() == b"slow"
    assert os.listdir(tmp_path) == ["a"]


def test_a_leftover_of_a_killed_process_is_swept_and_that_of_a_living_one_is_kept(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom contrasim_cli.output_files import atomic_output\n"
        "with atomic_output(Path(sys.argv[1]), True) as t:\n    print(t.name, flush=True)\n    sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "a"], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        temporary = tmp_path / child.stdout.readline().strip()
        write_atomic(tmp_path / "a", b"1", True)
        assert temporary.exists()
        child.kill()
    assert temporary.exists()
    write_atomic(tmp_path / "a", b"2", True)
    assert os.listdir(tmp_path) == ["a"]


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write_slowly() -> None:
        with atomic_output(path, False) as temporary:
            temporary.write_bytes(b"slow")
            write_atomic(path, b"fast", False)

    with pytest.raises(OutputExistsError) as caught:
        write_slowly()
    assert str(caught.value) == f"{path}: another process wrote it meanwhile; give --force to replace it"
    assert path.read_bytes() == b"fast"
    assert os.listdir(tmp_path) == ["a"]


def test_many_writers_of_one_output(tmp_path: Path) -> None:
    path, problems = tmp_path / "a", []

    def writer(number: int) -> None:
        try:
            for _ in range(20):
                write_atomic(path, bytes([number]) * 1000, True)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    content = path.read_bytes()
    assert content == content[:1] * 1000
    assert os.listdir(tmp_path) == ["a"]


def test_a_temporary_file_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, swept = fcntl.flock, []

    def lock(descriptor: int, how: int) -> None:
        plain(descriptor, how)
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()

    monkeypatch.setattr(output_files.fcntl, "flock", lock)
    with atomic_output(tmp_path / "a", False) as temporary:
        assert temporary.exists()
        assert temporary not in swept
    assert os.listdir(tmp_path) == ["a"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        write_atomic(tmp_path / "a", b"", True)
        with pytest.raises(OutputExistsError):
            write_atomic(tmp_path / "a", b"", False)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.h5", "plain name.h5"),
        ("naïve ☃ 😀", "naïve ☃ 😀"),
        ("a\nb\r\t\x1b[31m\x7f", r"a\nb\r\t\x1b[31m\x7f"),
        ("\u202e\u2028\x85\udc80", r"\u202e\u2028\x85\udc80"),
        (r"a\nb", r"a\nb"),
    ],
)
def test_names_are_shown_in_one_line(name: str, shown: str) -> None:
    assert quoted(name) == shown
    assert len(quoted(name).splitlines()) == 1
