"""Where arithmetic runs, and how much memory there is for it: without a device, by what torch would say of one."""

import math
from pathlib import Path

import made
import pytest
import torch
from helpers import run

from contrasim_cli import device as devices
from contrasim_cli.arrays import NUMPY
from contrasim_cli.encoder import Config, training_bytes
from contrasim_cli.errors import MissingError, UsageError
from contrasim_cli.training import Data, Order, Source
from contrasim_cli.training import rows as training_rows

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def says(monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, allocated: int) -> None:
    """From now on torch says so of a device."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""])
def test_what_is_no_device_is_refused(asked: str) -> None:
    if not asked:
        assert devices.pick_device(asked).type in ("cpu", "cuda")
        return
    with pytest.raises(UsageError, match=r"--device .*: write cpu, cuda, cuda:N \(the Nth from 0\)$"):
        devices.pick_device(asked)


def test_a_device_is_taken_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.pick_device("cuda:1") == torch.device("cuda", 1)
    assert devices.pick_device("CUDA:0") == torch.device("cuda", 0)
    assert devices.pick_device("cuda") == devices.pick_device(None) == CUDA
    assert devices.pick_device("cpu") == CPU
    with pytest.raises(MissingError, match=r"^--device cuda:2: this machine has 2 CUDA devices, from cuda:0$"):
        devices.pick_device("cuda:2")
    monkeypatch.setattr("contrasim_cli.distributed.world", lambda: 2)
    with pytest.raises(UsageError, match="every rank has a device of its own"):
        devices.pick_device("cuda:1")


def test_numpy_does_more_where_there_is_no_gpu_and_few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(asked: str | None, times: float, cores: int, files: list[str]) -> str:
        monkeypatch.setattr(devices.os, "cpu_count", lambda: cores)
        monkeypatch.setattr(devices.os, "listdir", lambda folder: files)
        return "numpy" if devices.pick_device(asked, work=times * devices.LITTLE) is NUMPY else "torch"

    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "ON_PROCESSOR", 32)
    gpu, none = ["null", "nvidia0"], ["null", "nvme0"]
    assert library(None, 1, 1, gpu) == library("cpu", 31, 1, gpu) == library(None, 31, 1, none) == "numpy"
    assert library(None, 2, 1, gpu) == library("cpu", 33, 1, gpu) == library(None, 33, 1, none) == "torch"
    assert [library("cpu", 3, cores, gpu) for cores in (8, 16, 64)] == ["numpy", "torch", "torch"]
    assert library("cpu", 1, 64, gpu) == "numpy"
    assert library("cpu", math.inf, 1, none) == "torch"
    # of ranks on unlike machines all go by the first one's
    monkeypatch.setattr(devices.distributed, "gathered", lambda value: [4.0, value])
    assert [library(None, times, 64, gpu) for times in (4, 5)] == ["numpy", "torch"]
    monkeypatch.setattr(devices.distributed, "gathered", lambda value: [1.0, value])
    assert [library(None, times, 1, none) for times in (1, 2)] == ["numpy", "torch"]


def test_a_device_without_float64_is_for_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--device mps: has no float64"):
        devices.pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(MissingError, match="no such device is available"):
        devices.pick_device("mps", in_float32=True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.pick_device("mps", in_float32=True) == torch.device("mps")


def test_half_of_what_is_free_on_a_device_bounds_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch, free=1000, reserved=600, allocated=200)  # 400 of what torch has is used by nothing
    assert devices.free_on(CUDA) == 1400
    assert devices.device_budget(10_000, CUDA) == 700
    assert devices.device_budget(500, CUDA) == 500
    assert devices.device_budget(10_000, CPU) == 10_000


@pytest.mark.parametrize(("spare", "there"), [(0, True), (-2, False)])
def test_training_rows_lie_on_a_device_that_has_room(
    spare: int, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = made.related(2, 2, 40, (10,))
    views = [made.view(tmp_path / f"{k}.h5", x) for k, x in enumerate(layers)]
    data = Data(views, [list(x) for x in layers])
    config = Config("layers", "contrasim", (10,), batch_size=8)
    rows = 4 * 4 * 40 * 10
    says(monkeypatch, free=2 * rows + training_bytes(config) + spare, reserved=0, allocated=0)
    where: list[str] = []
    held = training_rows.Held

    def made_there(*given: object) -> object:
        where.append(given[4].type)  # type: ignore[attr-defined]
        return held(*given[:4])  # type: ignore[arg-type]

    monkeypatch.setattr(training_rows, "Held", made_there)
    source = Source(data, Order.of(data, config), 100, device=CUDA)  # the host's budget has no room for them
    assert (source.in_memory, where[0]) == ((True, "cuda") if there else (False, "cpu"))


def test_members_average_dot_products_alone(tmp_path: Path) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 2, 60, (10,)))]
    train = ["train", *stores, "--task", "layers", "--inputs", "anchors", "--anchors", "8", "--epochs", "1", "-q"]
    for option, value in (("--similarity", "norm"), ("--objective", "deepcka")):
        done = run(*train, option, value, "--members", "2", "-o", tmp_path / "e.pt")
        line = "--members 2 averages dot products; give it without --similarity norm and --objective deepcka"
        assert (done.code, done.stderr) == (2, f"contrasim: error: {line}\n")
        assert run(*train, option, value, "-o", tmp_path / f"{value}.pt").code == 0
