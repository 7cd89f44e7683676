"""Ranks that are killed, stand still, are late or never come: one line, the right code, outputs as they were, within seconds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ranks import Done, finish, start, start_anew

from contrasim_cli import distributed, launch, peers

FAULTS = Path(__file__).with_name("faults")
SECONDS = 10  # until all ranks have ended

# phase -> where a rank fails
PHASES = {
    "start": "contrasim_cli.distributed _check_arguments",
    "reading": "contrasim_cli.store.store Store.read",
    "products": "contrasim_cli.distributed total",
    "writing": "contrasim_cli.output_files _publish",
    "step": "contrasim_cli.training.loop Run._step",
    "saving": "contrasim_cli.encoder save",
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of 97 rows."""
    folder, draw = tmp_path_factory.mktemp("ranks"), np.random.default_rng(0)
    for name in "ab":
        np.savez(folder / f"{name}.npz", x=draw.normal(size=(97, 6)), y=draw.normal(size=(97, 5)))
    return [folder / "a.npz", folder / "b.npz"]


def command(stores: Sequence[Path], out: Path, phase: str) -> list[object]:
    """A command that comes to a phase, and would replace the file `kept` in a folder."""
    out.mkdir()
    (out / "kept").write_text("as before")
    if phase in ("step", "saving"):
        small = ["--hidden", 8, "--dim", 4, "--batch-size", 16, "--epochs", 2, "--recipe", "paper"]
        return ["train", *stores, "--task", "layers", *small, "--standardize", "none", "-o", out / "kept", "--force"]
    (out / "kept").rename(out / "kept.tsv")
    return ["baseline", *stores, "-o", out / "kept.tsv", "--force"]


def fault(rank: int, action: str, phase: str, at: Path, **seconds: float) -> dict[str, str]:
    """The environment in which a rank fails; `seconds` are settings of `peers` that all ranks have."""
    return {
        "PYTHONPATH": os.pathsep.join([str(FAULTS), os.environ.get("PYTHONPATH", "")]),
        "FAULT": f"{rank} {action} {PHASES[phase]}",
        "FAULT_AT": str(at),
        "SECONDS_OF": " ".join(f"peers.{name}={value}" for name, value in seconds.items()),
    }


def errors(done: Sequence[Done]) -> list[str]:
    """What all ranks say went wrong."""
    lines = [line for one in done for line in one.stderr.splitlines()]
    return [line for line in lines if not line.startswith(("contrasim: note:", "contrasim: warning:"))]


def unchanged(out: Path) -> bool:
    """Whether outputs are as before, and nothing lies beside them."""
    (file,) = out.iterdir()
    return file.read_text() == "as before"


@pytest.mark.parametrize(
    ("phase", "killed", "world"),
    [
        ("writing", 0, 2),
        pytest.param("start", 1, 2, marks=pytest.mark.slow),
        pytest.param("reading", 0, 3, marks=pytest.mark.slow),
        pytest.param("products", 2, 3, marks=pytest.mark.slow),
        pytest.param("step", 1, 2, marks=pytest.mark.slow),
        pytest.param("saving", 0, 2, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_killed_ends_the_others(
    stores: list[Path], tmp_path: Path, phase: str, killed: int, world: int
) -> None:
    arguments = command(stores, tmp_path / "out", phase)
    done = finish(start(world, *arguments, env=fault(killed, "SIGKILL", phase, tmp_path / "at")))
    assert time.time() - float((tmp_path / "at").read_text()) < SECONDS
    assert [one.code for one in done] == [-9 if rank == killed else 1 for rank in range(world)]
    (line,) = errors(done)
    assert line.startswith(f"contrasim: error: rank {killed} on ")
    assert line.endswith(" is gone (killed?)")
    assert unchanged(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "killed"), [("products", 1), ("writing", 0)])
@pytest.mark.parametrize("launcher", ["--ranks", "torchrun"])
def test_launchers_are_told_of_a_rank_that_is_killed(
    stores: list[Path], tmp_path: Path, launcher: str, phase: str, killed: int
) -> None:
    arguments = ["-m", "contrasim_cli", *map(str, command(stores, tmp_path / "out", phase))]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *arguments]
    asked = [*arguments, "--ranks", "2"] if launcher == "--ranks" else torchrun
    env = os.environ | fault(killed, "SIGKILL", phase, tmp_path / "at")
    done = subprocess.run([sys.executable, *asked], capture_output=True, text=True, env=env, timeout=120, check=False)
    assert time.time() - float((tmp_path / "at").read_text()) < SECONDS
    assert (done.returncode, done.stdout) == (137 if launcher == "--ranks" else 1, "")
    if launcher == "--ranks":
        again = "; nothing is kept, the same command starts again"
        line = f"contrasim: error: rank {killed} was killed by signal 9 (out of memory?){again}"
        assert errors([Done(1, "", done.stderr)]) == [line]
    assert unchanged(tmp_path / "out")


def children(parent: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes do not learn of the end of their parent")
def test_ranks_end_with_their_launcher(stores: list[Path], tmp_path: Path) -> None:
    small = [
        "--task",
        "layers",
        "--hidden",
        8,
        "--dim",
        4,
        "--batch-size",
        16,
        "--epochs",
        100_000,
        "--recipe",
        "paper",
    ]
    arguments = ["train", *stores, *small, "--standardize", "none", "-o", tmp_path / "e.pt", "--ranks", 2]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "contrasim_cli", *map(str, arguments)], stderr=subprocess.DEVNULL
    )
    try:
        partial, end = tmp_path / "e.pt.partial", time.monotonic() + 60
        while not partial.exists() and time.monotonic() < end:
            time.sleep(0.1)
        ranks = children(launcher.pid)
        assert len(ranks) == 2
    finally:
        launcher.kill()
        launcher.wait()
    end = time.monotonic() + SECONDS
    alive = ranks
    while alive and time.monotonic() < end:
        time.sleep(0.1)
        alive = [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
    assert not alive
    assert partial.exists()
    assert not (tmp_path / "e.pt").exists()


@pytest.mark.parametrize(
    ("ends", "blamed"),
    [
        ({0: (7, 1), 1: (7, -9)}, (1, -9)),  # found by one look, in the order of the ranks
        ({0: (7, 1), 1: (8, -9)}, (1, -9)),  # the one that misses it was seen to end first
        ({1: (7, 3), 0: (7, 143)}, (1, 3)),
        ({1: (7, 3), 0: (7, -15), 2: (37, -9)}, (1, 3)),  # the launcher's own signals
        ({0: (7, -15), 1: (7, -15)}, (0, -15)),
    ],
)
def test_a_rank_that_was_killed_is_blamed(ends: dict[int, tuple[int, int]], blamed: tuple[int, int]) -> None:
    assert launch._first_failure(ends) == blamed


@pytest.mark.slow
@pytest.mark.parametrize("ended", [0, 1])
def test_a_rank_that_ends_without_a_word_is_told(stores: list[Path], tmp_path: Path, ended: int) -> None:
    arguments = [sys.executable, "-m", "contrasim_cli", *map(str, command(stores, tmp_path / "out", "products"))]
    env = os.environ | fault(ended, "exit", "products", tmp_path / "at")
    done = subprocess.run(
        [*arguments, "--ranks", "2"], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = errors([Done(1, "", done.stderr)])
    assert line.startswith("contrasim: error: ")
    assert line.endswith("; nothing is kept, the same command starts again")
    assert unchanged(tmp_path / "out")


@pytest.mark.slow
def test_a_bug_is_shown_by_the_rank_that_has_it(stores: list[Path], tmp_path: Path) -> None:
    arguments = [*command(stores, tmp_path / "out", "products"), "--debug"]
    first, second = finish(start(2, *arguments, env=fault(1, "bug", "products", tmp_path / "at")))
    assert (first.code, second.code) == (1, 1)
    assert "internal error: ZeroDivisionError: nobody expects this" in first.stderr
    assert second.stderr.startswith("Traceback")
    assert "sitecustomize.py" in second.stderr
    assert unchanged(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_stands_still_is_given_up(stores: list[Path], tmp_path: Path, stopped: int) -> None:
    """As one whose machine has vanished does."""
    seconds = {"LOST_SECONDS": 2, "BEAT_SECONDS": 0.3, "GRACE_SECONDS": 0.5}
    arguments = command(stores, tmp_path / "out", "products")
    ranks = start(3, *arguments, env=fault(stopped, "SIGSTOP", "products", tmp_path / "at", **seconds))
    codes = [rank.wait(60) for k, rank in enumerate(ranks) if k != stopped]
    assert time.time() - float((tmp_path / "at").read_text()) < SECONDS
    ranks[stopped].kill()
    assert codes == [1, 1]
    (line,) = errors(finish(ranks))
    assert line.startswith(f"contrasim: error: rank {stopped} on ")
    assert line.endswith(" has given no sign of life for 2 s")
    assert unchanged(tmp_path / "out")


@pytest.mark.slow
def test_a_slow_rank_is_waited_for(stores: list[Path], tmp_path: Path) -> None:
    """It gives signs of life, though it is late by more than the time after which it would be given up."""
    seconds = {"LOST_SECONDS": 2, "BEAT_SECONDS": 0.3}
    arguments = ["baseline", *stores]
    done = finish(start(2, *arguments, env=fault(1, "late:5", "reading", tmp_path / "at", **seconds)))
    assert [one.code for one in done] == [0, 0], done
    assert time.time() - float((tmp_path / "at").read_text()) > 5
    assert distributed.COLLECTIVE.total_seconds() >= 24 * 3600
    assert peers.LOST_SECONDS < 300
    assert distributed.JOIN_SECONDS < 300


@pytest.mark.slow
def test_collectives_end_after_the_time_that_is_set_for_them(stores: list[Path], tmp_path: Path) -> None:
    """So that what is set is what slow readers have."""
    program = (
        "import contrasim_cli.distributed as d, datetime; d.COLLECTIVE = datetime.timedelta(seconds=1)\n"
        "from contrasim_cli.cli import main\nmain()"
    )
    env = fault(1, "late:5", "reading", tmp_path / "at")
    done = finish(start(2, "baseline", *stores, env=env, python=("-c", program)))
    assert [one.code for one in done] == [1, 1]
    assert len(errors(done)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("here", "line"), [(0, "waited 2 s for 2 ranks (WORLD_SIZE), and not all came"), (1, "waited 2 s for rank 0 at ")]
)
def test_a_rank_that_never_comes_is_told(stores: list[Path], here: int, line: str) -> None:
    env = {"PYTHONPATH": fault(0, "", "start", Path())["PYTHONPATH"], "SECONDS_OF": "distributed.JOIN_SECONDS=2"}
    done = finish(start(2, "baseline", *stores, env=env, only=[here]))
    assert done[0].code == 2
    (told,) = errors(done)
    assert told.startswith(f"contrasim: error: {line}")
    assert told.endswith("unset WORLD_SIZE to run alone")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["srun", "--ranks"])
def test_a_signal_to_all_ends_all(stores: list[Path], tmp_path: Path, launcher: str) -> None:
    arguments, env = command(stores, tmp_path / "out", "products"), fault(1, "late:60", "products", tmp_path / "at")
    if launcher == "srun":
        processes = start_anew(2, *arguments, env=env)
    else:
        asked = [sys.executable, "-m", "contrasim_cli", *map(str, arguments), "--ranks", "2"]
        processes = [subprocess.Popen(asked, stdout=-1, stderr=-1, text=True, env=os.environ | env)]
    while not (tmp_path / "at").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    done = finish(processes)
    assert [one.code for one in done] == [143] * len(processes), done
    assert errors(done) == ["contrasim: error: terminated; nothing is kept, the same command starts again"]
    assert unchanged(tmp_path / "out")


@pytest.mark.slow
def test_nobody_reads_results(stores: list[Path]) -> None:
    """A pipe that is closed is no error, as with one process."""
    program = f"{sys.executable} -m contrasim_cli baseline {stores[0]} {stores[1]} --ranks 2"
    for end, code in ((">/dev/full", 7), ("| head -c 0", 0)):
        asked = f"{program} {end}; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.splitlines()[-1] == str(code), done
        assert len(errors([Done(0, "", done.stderr)])) == (1 if code else 0), done
