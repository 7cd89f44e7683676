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


def memory_budget(asked: int | None) -> int:
    """Bytes to work in: what was asked for, or half of what is free (of a container's limit, where there is one)."""
    return asked if asked is not None else min(_available(), _cgroup_free()) // 2


def device_budget(budget: int, device: torch.device) -> int:
    """What work on a device may take of a budget: on a CUDA device no more than half of what is free there."""
    return min(budget, free_on(device) // 2) if device.type == "cuda" else budget


def free_on(device: torch.device) -> int:
    """Bytes that are free on a CUDA device; what torch has of it and does not use is free."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


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
