"""The writer of stores by itself: killed, and on disks that are full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import values, write

from contrasim_cli.store import open_store

A = values(20, 3)

KILLED = """
import sys, numpy as np
from pathlib import Path
from contrasim_cli.store import LayerSpec, StoreWriter
with StoreWriter(Path(sys.argv[1]), [LayerSpec("x", 64)], 40_000, (str(k) for k in range(40_000)), force=True) as writer:
    print("go", flush=True)
    for start in range(0, 40_000, 400):
        writer.write("x", start, np.ones((400, 64), "float32"))
print("end", flush=True)
"""


def test_a_killed_writer_leaves_nothing_at_the_path_and_the_next_sweeps_up(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    whole = 0
    for pause in (0.0, 0.003, 0.01, 0.02, 0.05):
        path.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if path.exists():
            whole += 1
            assert open_store(path).read("x", 0, 40_000).sum() == 40_000 * 64
    assert whole < 5  # or the test kills nobody
    write(path, {"x": A}, force=True)
    assert os.listdir(tmp_path) == ["a.h5"]


FULL = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from contrasim_cli.errors import OutputError
from contrasim_cli.store import LayerSpec, StoreWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
try:
    with StoreWriter(Path(sys.argv[1]), [LayerSpec("x", 64)], 4_000, (str(k) for k in range(4_000)), force=True) as writer:
        for start in range(0, 4_000, 400):
            writer.write("x", start, np.ones((400, 64), "float32"))
except OutputError as error:
    print(error)
"""


def fill(path: Path, limit: int) -> str:
    """Write a store of 1 MB where there is no room for it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, path, str(limit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("limit", [1, 3_000, 50_000, 600_000])
def test_a_file_size_limit_is_an_error_and_the_old_output_stays(tmp_path: Path, limit: int) -> None:
    path = write(tmp_path / "a.h5", {"x": A})
    before = path.read_bytes()
    assert fill(path, limit) == f"{path}: cannot be written: File too large\n"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_full_disk_is_an_error_and_the_old_output_stays(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        path = write(tmp_path / "a.h5", {"x": A})
        before = path.read_bytes()
        assert fill(path, 0) == f"{path}: cannot be written: No space left on device\n"
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["a.h5"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
