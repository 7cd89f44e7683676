"""Disks that are full, broken or not to be written to, and two runs that write one output."""

import contextlib
import errno
import os
import random
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.conftest import Figures
from faults.test_kills import check_end, uninterrupted
from faults.warm import Ended, Fault, Warm
from faults.workplace import COMMANDS, ONE_OF_EACH, Command, clear

ERRORS = {
    errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded", errno.EIO: "Input/output error",
    errno.EROFS: "Read-only file system",
}  # fmt: skip
OLD = b"what was there before\n"
STATES = (".partial", ".parts")


def put_old_outputs(command: Command, folder: Path) -> None:
    """Something is there already, which --force would replace."""
    for name in command.outputs:
        (folder / name).write_bytes(OLD)


def check_failure(command: Command, ended: Ended, folder: Path, expected: dict[str, str], *reasons: str) -> None:
    """One line, exit 7, and every output is the old one or, if it could be written, the new one."""
    for name in command.outputs:
        if (folder / name).read_bytes() != OLD:
            assert command.content(folder / name) == expected[name]
    if ended.code == 0:
        assert command.contents(folder) == expected
        return
    line = ended.stderr.splitlines()[-1]
    assert (ended.code, ended.stdout, ended.stderr.count("contrasim: error: ")) == (7, "", 1), ended
    assert line.startswith("contrasim: error: "), ended
    assert any(reason in line for reason in reasons), ended


def leftovers(folder: Path) -> list[Path]:
    """Temporary files, but not the states to go on from."""
    return list(folder.glob("**/.*.tmp"))


@pytest.mark.slow
def test_errors_at_operations_on_files(warm: Warm, inputs: Path, tmp_path: Path, long: bool, figures: Figures) -> None:
    """Every operation fails once in the long run; some of each command do in the short one."""
    chance, folder = random.Random(0), tmp_path / "work"
    for command in COMMANDS if long else ONE_OF_EACH:
        _, _, expected = uninterrupted(warm, command, inputs, folder)
        args = (*command.args, "--force")
        operations = warm.operations(*args, cwd=folder)
        every = range(1, operations + 1)
        for at in every if long else sorted(chance.sample(every, 1)):
            number = chance.choice(list(ERRORS))
            clear(folder, inputs)
            put_old_outputs(command, folder)
            ended = warm.run(*args, cwd=folder, fault=Fault(at, number))
            figures.add("errors at operations")
            check_failure(command, ended, folder, expected, ERRORS[number])
            for name in command.outputs:
                (folder / name).unlink()
            check_end(warm, command, inputs, folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_file_size_limit(warm: Warm, inputs: Path, tmp_path: Path, long: bool, command: Command) -> None:
    """As a quota is: every file may have so many bytes."""
    folder = tmp_path / "work"
    _, _, expected = uninterrupted(warm, command, inputs, folder)
    clear(folder, inputs)
    assert warm.run(*command.args, cwd=folder).code == 0
    sizes = [(folder / name).stat().st_size for name in command.outputs]
    chance = random.Random(0)
    limits = [0, 1, min(sizes) - 1, *(chance.randrange(max(sizes)) for _ in range(30))]
    for limit in limits if long else limits[1:3]:
        clear(folder, inputs)
        put_old_outputs(command, folder)
        ended = warm.run(*command.args, "--force", cwd=folder, limits={resource.RLIMIT_FSIZE: limit})
        check_failure(
            command, ended, folder, expected, "File too large", "no folder for temporary files can be written to"
        )
        assert not leftovers(folder)


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own in the folder."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "none", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_full_disk(warm: Warm, inputs: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "disk"
    _, _, expected = uninterrupted(warm, command, inputs, tmp_path / "work")
    with mounted(folder, "-o", "size=1m"):
        for path in inputs.iterdir():
            (folder / path.name).symlink_to(path)
        put_old_outputs(command, folder)
        with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)) == 4096:
                pass
        ended = warm.run(*command.args, "--force", cwd=folder)
        assert ended.code == 7
        # an import looks at the disk before it writes
        check_failure(command, ended, folder, expected, "No space left on device", "kB of disk")
        assert not leftovers(folder)
        (folder / "ballast").unlink()
        again = warm.run(*command.args, "--force", cwd=folder)
        assert again.code == 0, again
        assert command.contents(folder) == expected


@pytest.mark.parametrize("command", ONE_OF_EACH, ids=lambda command: command.name)
def test_a_read_only_file_system(warm: Warm, inputs: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "disk"
    with mounted(folder, "-o", "size=1m"):
        for path in inputs.iterdir():
            (folder / path.name).symlink_to(path)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        said = warm.run(*command.args, cwd=folder).refused(7)
    assert said.endswith(f"cannot be written: the folder {folder} is not writable")


# root without its capabilities: permissions count for it, too, and it still reads the package, wherever that is
POWERLESS = (
    "import ctypes, struct; "
    "head = ctypes.create_string_buffer(struct.pack('Ii', 0x20080522, 0)); "
    "assert ctypes.CDLL(None).capset(head, ctypes.create_string_buffer(24)) == 0"
)


@pytest.mark.parametrize("command", ONE_OF_EACH, ids=lambda command: command.name)
def test_a_folder_of_somebody_elses(warm: Warm, inputs: Path, command: Command) -> None:
    """In which nobody may write who is not almighty."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        clear(folder / "work", inputs)
        for path in [folder / "work", *(folder / "work").iterdir()]:
            path.chmod(0o555)
        said = warm.run(*command.args, cwd=folder / "work", before=POWERLESS if os.geteuid() == 0 else "").refused(7)
        assert said.endswith(f"cannot be written: the folder {folder / 'work'} is not writable")
        (folder / "work").chmod(0o755)


@pytest.mark.parametrize("command", ONE_OF_EACH, ids=lambda command: command.name)
def test_a_folder_that_is_not_there(warm: Warm, inputs: Path, tmp_path: Path, command: Command) -> None:
    """Is known before any work is done."""
    clear(tmp_path / "work", inputs)
    args = [f"none/{arg}" if arg in command.outputs else arg for arg in command.args]
    ended = warm.run(*args, cwd=tmp_path / "work")
    assert ended.refused(7) == (
        f"none/{command.outputs[0]}: cannot be written: there is no folder {tmp_path}/work/none; create it first"
    )


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True], ids=["", "--force"])
@pytest.mark.parametrize("command", ONE_OF_EACH, ids=lambda command: command.name)
def test_two_runs_write_one_output(
    warm: Warm, inputs: Path, tmp_path: Path, long: bool, command: Command, force: bool
) -> None:
    """One of them at least succeeds; the other does too, or says in a line why it does not."""
    folder = tmp_path / "work"
    _, _, expected = uninterrupted(warm, command, inputs, folder)
    for _ in range(10 if long else 1):
        clear(folder, inputs)
        args = (*command.args, "--force") if force else command.args
        processes = [warm.start(*args, cwd=folder) for _ in range(2)]
        ended = sorted((process.wait() for process in processes), key=lambda one: one.code)
        assert ended[0].code == 0, ended
        assert ended[1].code in ({0, 7} if force else {5, 7}), ended
        if ended[1].code:
            assert ended[1].stderr.count("contrasim: error: ") == 1
            assert any(
                words in ended[1].stderr
                for words in (
                    "another process wrote it meanwhile",
                    "already exists",
                    "another process is writing this output",
                )
            )
        assert command.contents(folder) == expected
        assert not leftovers(folder)
