"""Where arithmetic runs and how much memory there is for it."""

import os
from pathlib import Path

import torch

from contrasim_cli.errors import MissingError


def pick_device(asked: str | None) -> torch.device:
    """The device asked for; without one, cuda if there is one.

    Raises:
        MissingError: cuda was asked for and is not there.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise MissingError("--device cuda: no CUDA device is available; give --device cpu or leave it out")
    torch.backends.cudnn.allow_tf32 = False  # by default convolutions are rounded to ten bits
    return torch.device(asked or ("cuda" if there else "cpu"))


def memory_budget(asked: int | None, device: torch.device | None = None) -> int:
    """Bytes to work in: what was asked for, or half of what is free (of a container's limit, where there is one).

    Where the work lies on a CUDA device, no more than half of what is free there.
    """
    budget = asked if asked is not None else min(_available(), _cgroup_free()) // 2
    return budget if device is None or device.type == "cpu" else min(budget, torch.cuda.mem_get_info(device)[0] // 2)


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_free() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(stat["active_file"]) + int(stat["inactive_file"])  # counts as used, but makes way
        return max(0, limit - used + cache)
    except (OSError, ValueError, KeyError):
        return 2**62
