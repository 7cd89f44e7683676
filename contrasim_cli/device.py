"""Where arithmetic runs, and how much of the memory there it may take."""

import torch

from contrasim_cli import distributed
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
    if (asked or "cuda") == "cpu" or not there:
        return torch.device("cpu")
    if distributed.world() == 1:
        return torch.device("cuda")
    if torch.cuda.device_count() <= distributed.local_rank():
        raise MissingError(
            f"--device cuda: this machine has {torch.cuda.device_count()} CUDA devices for more ranks; start one rank per device "
            "(--ranks auto), or give --device cpu"
        )
    return torch.device("cuda", distributed.local_rank())


def device_budget(budget: int, device: torch.device) -> int:
    """What work on a device may take of a budget: on a CUDA device no more than half of what is free there."""
    return min(budget, free_on(device) // 2) if device.type == "cuda" else budget


def free_on(device: torch.device) -> int:
    """Bytes that are free on a CUDA device; what torch has of it and does not use is free."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
