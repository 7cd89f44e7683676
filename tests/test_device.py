"""Where arithmetic runs, and how much memory there is for it: without a device, by what torch would say of one."""

from pathlib import Path

import made
import pytest
import torch
from helpers import run

from contrasim_cli import device as devices
from contrasim_cli.encoder import Config, training_bytes
from contrasim_cli.training import Data, Order, Source
from contrasim_cli.training import rows as training_rows

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def says(monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, allocated: int) -> None:
    """From now on torch says so of a device."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)


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
        where.append(given[-1].type)  # type: ignore[attr-defined]
        return held(*given[:-1])  # type: ignore[arg-type]

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
