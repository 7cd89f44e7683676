"""Memory to work in: the least of what is free on the machine and under each limit, in made-up trees and a real cgroup."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from contrasim_cli import memory

G = 1 << 30
PAGE = os.sysconf("SC_PAGE_SIZE")
V1_MOUNT = "35 32 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V2_FILES = ("memory.max", "memory.current", "active_file", "inactive_file")
V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file")


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def machine(root: Path, group: str = "0::/", mounts: str = V2_MOUNT, available: int = 64 * G) -> Path:
    """A root whose /proc says so; the process has 3 pages of address space, 2 of them resident, 1 of data."""
    put(root / "proc/meminfo", f"MemTotal: {99 * G >> 10} kB\nMemAvailable: {available >> 10} kB\n")
    put(root / "proc/self/cgroup", f"3:cpuset:/\n{group}\n")
    put(root / "proc/self/mountinfo", f"24 31 0:22 / / rw - ext4 /dev/sda rw\n{mounts}\n")
    put(root / "proc/self/statm", "3 2 1 1 0 1 0\n")
    return root


def cgroup(path: Path, limit: int | str, used: int, cache: int = 0, files: tuple[str, ...] = V2_FILES) -> None:
    """A memory cgroup; `cache` bytes of what it uses are files, half of them active."""
    put(path / files[0], f"{limit}\n")
    put(path / files[1], f"{used}\n")
    put(path / "memory.stat", f"anon 5\n{files[2]} {cache // 2}\n{files[3]} {cache // 2}\n")


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert memory.free_memory(machine(tmp_path)) == 64 * G
    assert memory.free_memory(machine(tmp_path, mounts="")) == 64 * G
    (tmp_path / "proc/self/cgroup").unlink()
    assert memory.free_memory(tmp_path) == 64 * G


def test_the_budget_is_half_of_it_or_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 11)
    assert memory.memory_budget(None) == 5
    assert memory.memory_budget(1000) == 1000


@pytest.mark.parametrize("limited", range(4))
def test_every_level_of_a_job_as_slurm_nests_it_counts(tmp_path: Path, limited: int) -> None:
    """Each level has its own use: the least left counts, not the least limit."""
    parts = ["system.slice", "slurmstepd.scope", "job_7", "step_0/user/task_0"]
    root = machine(tmp_path, "0::/" + "/".join(parts))
    for depth in range(4):
        limit = 3 * G if depth == limited else 2 * G if depth == 3 else "max"
        used = int(2.5 * G) if depth == limited else G // 4
        cgroup(root / "sys/fs/cgroup" / "/".join(parts[: depth + 1]), limit, used, cache=G // 8)
    assert memory.free_memory(root) == 3 * G - int(2.5 * G) + G // 8


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    root = machine(tmp_path, "9:cpu,cpuacct:/other\n4:hugetlb,memory:/slurm/uid_0/job_7\n0::/unused", V1_MOUNT)
    top = root / "sys/fs/cgroup/memory"
    cgroup(top, 9223372036854771712, 50 * G, files=V1_FILES)
    cgroup(top / "slurm/uid_0/job_7", 9223372036854771712, G, files=V1_FILES)
    cgroup(top / "slurm/uid_0", 5 * G, 2 * G, cache=G, files=V1_FILES)
    cgroup(top / "other", G, G, files=V1_FILES)  # of processes that are not this one
    assert memory.free_memory(root) == 4 * G


def test_both_versions_at_once(tmp_path: Path) -> None:
    """As with systemd's hybrid: the second is mounted beside the first, and has no memory files."""
    mounts = f"{V1_MOUNT}\n36 32 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    root = machine(tmp_path, "4:memory:/a\n0::/a", mounts)
    cgroup(root / "sys/fs/cgroup/memory/a", 2 * G, G, files=V1_FILES)
    (root / "sys/fs/cgroup/unified/a").mkdir(parents=True)
    assert memory.free_memory(root) == G


@pytest.mark.parametrize(("group", "shown"), [("/docker/ab/in", "/docker/ab"), ("/docker/ab", "/docker/ab")])
def test_a_container_that_is_shown_its_own_group_alone(tmp_path: Path, group: str, shown: str) -> None:
    root = machine(tmp_path, f"0::{group}", V2_MOUNT.replace(" / /sys", f" {shown} /sys"))
    cgroup(root / "sys/fs/cgroup", 2 * G, G)
    assert memory.free_memory(root) == G


@pytest.mark.parametrize(("group", "shown"), [("/../other", "/"), ("/docker/cd", "/docker/ab"), ("/", "/../..")])
def test_a_group_that_is_not_below_the_mount_has_the_limits_of_the_mount(
    tmp_path: Path, group: str, shown: str
) -> None:
    root = machine(tmp_path, f"0::{group}", V2_MOUNT.replace(" / /sys", f" {shown} /sys"))
    cgroup(root / "sys/fs/cgroup", 2 * G, G)
    cgroup(root / "sys/fs", G, G)
    assert memory.free_memory(root) == G


def test_a_mount_with_spaces_in_its_path(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a b:c", V2_MOUNT.replace("/sys/fs/cgroup", r"/my\040groups"))
    cgroup(root / "my groups/a b:c", 2 * G, G)
    assert memory.free_memory(root) == G


def test_where_the_kernel_slows_a_group_down_is_a_limit_too(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a")
    cgroup(root / "sys/fs/cgroup/a", 8 * G, G)
    put(root / "sys/fs/cgroup/a/memory.high", f"{3 * G}\n")
    assert memory.free_memory(root) == 2 * G


def test_a_group_that_uses_more_than_its_limit_leaves_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a")
    cgroup(root / "sys/fs/cgroup/a", G, 2 * G)
    assert memory.free_memory(root) == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"MEM_PER_NODE": "4096"}, 4 * G),
        ({"MEM_PER_NODE": "4G"}, 4 * G),
        ({"MEM_PER_CPU": "1024", "CPUS_ON_NODE": "6", "CPUS_PER_TASK": "2"}, 6 * G),
        ({"MEM_PER_CPU": "1024", "CPUS_PER_TASK": "2"}, 2 * G),
        ({"MEM_PER_CPU": "1024"}, G),
        ({"MEM_PER_GPU": "2048", "GPUS_ON_NODE": "4"}, 8 * G),
        ({"MEM_PER_CPU": "1024", "CPUS_ON_NODE": "8", "MEM_PER_NODE": "2048"}, 2 * G),
    ],
)
def test_what_slurm_gave_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str], expected: int
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert memory.free_memory(machine(tmp_path)) == expected - 2 * PAGE


@pytest.mark.parametrize("value", ["0", "", "all", "-1"])
def test_all_of_the_node_and_nonsense_are_no_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", value)
    assert memory.free_memory(machine(tmp_path)) == 64 * G


def asked(before: str = "") -> int:
    """What a new process finds free, that did something first; it has not loaded torch."""
    code = (
        f"import resource, sys; {before}; from contrasim_cli.memory import free_memory; "
        "print(free_memory(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    free, torch_is_loaded = done.stdout.split()
    assert torch_is_loaded == "False"
    return int(free)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("what", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process(what: str) -> None:
    free = asked(f"resource.setrlimit(resource.{what}, ({G}, {G}))")
    assert 0.5 * G < free < G
    assert asked("pass") > G


@contextlib.contextmanager
def real_cgroups() -> Iterator[Path]:
    """A new memory cgroup with one inside it, in which the processes will be; skips where they cannot be made."""
    mounts = list(memory._mounts(Path("/")))
    groups = dict(memory._groups(Path("/")))
    places = [Path("/", mount, groups.get(names, "/").lstrip("/")) for names, _, mount in mounts]
    places += [Path("/", mount) for _, _, mount in mounts]
    for place in places:
        outer = place / f"contrasim-test-{os.getpid()}"
        try:
            outer.mkdir()
        except OSError:
            continue
        try:
            with contextlib.suppress(OSError):
                put(outer / "cgroup.subtree_control", "+memory")
            (outer / "step").mkdir()
            if any((outer / "step" / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
                yield outer
                return
        finally:
            for path in (outer / "step", outer):
                with contextlib.suppress(OSError):
                    path.rmdir()
    pytest.skip("memory cgroups cannot be made here")


def test_a_process_in_a_real_cgroup_without_a_limit_in_one_of_1_gib() -> None:
    with real_cgroups() as outer:
        name = "memory.max" if (outer / "memory.max").exists() else "memory.limit_in_bytes"
        (outer / name).write_text(str(G))
        enter = f"open({str(outer / 'step/cgroup.procs')!r}, 'w').write('0')"
        free = asked(enter)
        assert 0.8 * G < free <= G
    assert asked("pass") > G
