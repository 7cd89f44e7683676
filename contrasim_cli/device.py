"""Where arithmetic runs, and how much of the memory there it may take."""

import math
import os
import re
import sys
from typing import TYPE_CHECKING

from contrasim_cli import distributed
from contrasim_cli.arrays import NUMPY
from contrasim_cli.errors import MissingError, UsageError
from contrasim_cli.names import quoted

if TYPE_CHECKING:
    import torch

LITTLE = 6e10  # multiplications (`measures.work`) that NumPy has done in about the time of torch's start
# times as many are NumPy's where there is no GPU, over the machine's cores, of which torch makes more use
ON_PROCESSOR = 64
GPU_FILES = ("nvidia", "nvhost", "nvmap", "kfd", "dxg")  # what Linux calls those that CUDA, ROCm and WSL go through


def pick_device(asked: str | None, in_float32: bool = False, work: float = math.inf) -> "torch.device":
    """The device asked for, `cpu`, `cuda`, `cuda:N` or `mps`; without one, cuda if there is one.

    `in_float32`: the work needs no float64, which devices such as Apple's (`mps`) do not have. `work`: multiplications that closed
    forms take; a little is done in NumPy on the processor, unless a device is asked for, and more where there is no other device.

    Raises:
        UsageError: it is no device's name, or has no float64 and that is needed.
        MissingError: it is not there.
    """
    asked = asked.lower() if asked else None
    if asked is not None and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", asked):
        raise UsageError(f"--device {quoted(asked)}: write cpu, cuda, cuda:N (the Nth from 0){' or mps' * in_float32}")
    if asked in (None, "cpu") and (is_little(work) or (work < math.inf and work <= _most(asked))):
        return NUMPY  # type: ignore[no-any-return]
    import torch

    torch.backends.cudnn.allow_tf32 = False  # by default convolutions are rounded to ten bits
    if asked == "mps":
        return _mps(in_float32)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked is not None and asked.startswith("cuda") and not count:
        raise MissingError(f"--device {asked}: no CUDA device is available; give --device cpu or leave it out")
    if (asked or "cuda") == "cpu" or not count:
        return torch.device("cpu")
    if asked is not None and ":" in asked:
        return _numbered(torch.device(asked), count)
    if distributed.world() == 1:
        return torch.device("cuda")
    if count <= distributed.local_rank():
        raise MissingError(
            f"--device cuda: this machine has {count} CUDA devices, fewer than ranks; start one rank per device (--ranks auto), or "
            "give --device cpu"
        )
    return torch.device("cuda", distributed.local_rank())


def is_little(work: float) -> bool:
    """Whether NumPy does so many multiplications in about the time of torch's start."""
    return work <= LITTLE


def _most(asked: str | None) -> float:
    """How many multiplications are NumPy's: of all ranks as many as on rank 0's machine, so that all choose the same library.

    As many for one process as for several on its machine, which give the same bits for it: threads do not count, which ranks share.
    """
    more = ON_PROCESSOR / (os.cpu_count() or 1) if asked == "cpu" or _without_gpu() else 1.0
    return LITTLE * max(1.0, float(distributed.gathered(more)[0]))


def _without_gpu() -> bool:
    """Whether this machine is seen to have no GPU without asking torch, which takes a second to be imported."""
    return sys.platform == "linux" and not any(name.startswith(GPU_FILES) for name in os.listdir("/dev"))


def _numbered(device: "torch.device", count: int) -> "torch.device":
    if distributed.world() > 1:
        raise UsageError(f"--device {device}: every rank has a device of its own; give --device cuda")
    if device.index is not None and device.index >= count:
        raise MissingError(f"--device {device}: this machine has {count} CUDA devices, from cuda:0")
    return device


def _mps(in_float32: bool) -> "torch.device":
    import torch

    if not in_float32:
        raise UsageError("--device mps: has no float64, in which sums are kept; give --device cpu (extract takes mps)")
    if not torch.backends.mps.is_available():
        raise MissingError("--device mps: no such device is available; give --device cpu or leave it out")
    return torch.device("mps")


def device_budget(budget: int, device: "torch.device") -> int:
    """What work on a device may take of a budget: on a CUDA device no more than half of what is free there."""
    return min(budget, free_on(device) // 2) if device.type == "cuda" else budget


def free_on(device: "torch.device") -> int:
    """Bytes that are free on a CUDA device; what torch has of it and does not use is free."""
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
