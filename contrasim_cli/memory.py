"""How much memory there is to work in: the least of what is free on the machine and under each limit on this process."""

import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

UNITS = {"K": 1 << 10, "": 1 << 20, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}  # SLURM counts in MB


class Names(NamedTuple):
    """The files of a memory cgroup: its limits, what it uses, and, in memory.stat, the cache that counts as used but makes way."""

    limits: tuple[str, ...]
    used: str
    cache: tuple[str, ...]


V1 = Names(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
V2 = Names(("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))


def memory_budget(budget: int | None) -> int:
    """Bytes to work in: what was asked for, or half of what is free."""
    return budget if budget is not None else free_memory() // 2


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take.

    That is the least of what the machine has free, and of what is left under every level of the process's own cgroup, its
    RLIMIT_AS and RLIMIT_DATA, and the memory that SLURM gave the job.
    """
    limits = [_available(root), *_left_in_cgroups(root), *_room_of_rlimits(root), *_left_of_slurm(root, os.environ)]
    return max(0, min(limits))


def _available(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left_in_cgroups(root: Path) -> Iterator[int]:
    """What is left under each limit of the process's memory cgroup and of the groups around it."""
    groups = dict(_groups(root))
    for names, shown, mount in _mounts(root):
        for level in _levels(groups[names], shown) if names in groups else ():
            yield from _room_in(root / mount / level, names)


def _groups(root: Path) -> Iterator[tuple[Names, str]]:
    """The process's cgroup in each hierarchy that may limit memory."""
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            yield V2 if number == "0" else V1, path


def _mounts(root: Path) -> Iterator[tuple[Names, str, str]]:
    """Where each of these hierarchies is mounted: its version, the cgroup that is its top there, and the place."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        (_, _, _, shown, mount, *_), (kind, *rest) = before.split(" "), after.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in rest[-1].split(",")):
            yield V2 if kind == "cgroup2" else V1, _unescaped(shown), _unescaped(mount).lstrip("/")


def _unescaped(path: str) -> str:
    """A path of mountinfo, which writes spaces and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _levels(path: str, shown: str) -> list[PurePosixPath]:
    """A cgroup and all those around it as paths below a mount whose top is `shown`; the top alone where it is not below."""
    group = PurePosixPath(path)
    if ".." in group.parts or not group.is_relative_to(shown):
        return [PurePosixPath()]
    below = group.relative_to(shown)
    return [below, *below.parents]


def _room_in(group: Path, names: Names) -> Iterator[int]:
    limits = [int(text) for name in names.limits for text in _lines(group / name) if text.isdigit()]
    used = [int(text) for text in _lines(group / names.used) if text.isdigit()]
    if limits and used:
        stat = dict(line.split(" ", 1) for line in _lines(group / "memory.stat") if " " in line)
        yield min(limits) - used[0] + sum(int(stat.get(name, 0)) for name in names.cache)


def _room_of_rlimits(root: Path) -> Iterator[int]:
    for what, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit = resource.getrlimit(what)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - _bytes_used(root, field)


def _left_of_slurm(root: Path, given: Mapping[str, str]) -> Iterator[int]:
    """What is left of the memory of the job on this node; a process of a job knows its own part of what is used."""
    for name, times in (("NODE", ()), ("CPU", ("CPUS_ON_NODE", "CPUS_PER_TASK")), ("GPU", ("GPUS_ON_NODE",))):
        limit = _slurm_size(given.get(f"SLURM_MEM_PER_{name}", ""))
        counts = [given[f"SLURM_{key}"] for key in times if given.get(f"SLURM_{key}", "").isdigit()]
        if limit:
            yield limit * int(next(iter(counts), 1)) - _bytes_used(root, 1)


def _slurm_size(text: str) -> int:
    """Bytes; 0, which SLURM writes for all memory of the node, where there is no limit."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip().upper())
    return int(match[1]) * UNITS[match[2]] if match else 0


def _bytes_used(root: Path, field: int) -> int:
    """Bytes that this process has: field 0 of statm is its address space, 1 what is resident, 5 its data."""
    return sum(int(line.split()[field]) for line in _lines(root / "proc/self/statm")) * resource.getpagesize()


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel, which ends them with a newline alone; none where it is not there."""
    try:
        return [line for line in file.read_text("utf-8", "surrogateescape").split("\n") if line]
    except OSError:
        return []
