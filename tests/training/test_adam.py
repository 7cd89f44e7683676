"""Adam by the fused kernel alone: the numbers and states of torch's own, without its imports."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from contrasim_cli.training.adam import Adam

KINDS = {
    "adam": (torch.optim.Adam, 0.0, False),
    "adam with decay": (torch.optim.Adam, 0.1, False),
    "adamw": (torch.optim.AdamW, 0.1, True),
}


def networks(count: int) -> list[nn.Module]:
    made = []
    for _ in range(count):
        torch.manual_seed(0)
        made.append(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)))
    return made


def run(network: nn.Module, optimizer: Any, steps: range, scaler: Any = None) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        loss = network(torch.randn(4, 7)).square().sum() * (torch.inf if scaler and step == 3 else 1.0)
        optimizer.zero_grad()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_steps_are_those_of_torch_bit_by_bit(kind: str, scaled: bool) -> None:
    make, decay, decoupled = KINDS[kind]
    ours, theirs = networks(2)
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0) if scaled else None for _ in range(2)]
    own, other = (
        Adam(ours.parameters(), 1e-2, decay, decoupled),
        make(theirs.parameters(), lr=1e-2, weight_decay=decay, fused=True),
    )
    run(ours, own, range(6), scalers[0])
    run(theirs, other, range(6), scalers[1])
    assert same(ours, theirs)
    assert not same(ours, networks(1)[0])
    assert float(own.state[next(ours.parameters())]["step"]) == (5 if scaled else 6)


@pytest.mark.parametrize("kind", KINDS)
def test_states_go_from_torch_to_here_and_back(kind: str) -> None:
    make, decay, decoupled = KINDS[kind]
    whole, here, there = networks(3)
    run(whole, make(whole.parameters(), lr=1e-2, weight_decay=decay, fused=True), range(6))
    torchs = make(here.parameters(), lr=1e-2, weight_decay=decay, fused=True)
    run(here, torchs, range(2))
    own = Adam(here.parameters(), 1e-2, decay, decoupled)
    own.load_state_dict(torchs.state_dict())
    run(here, own, range(2, 4))
    there.load_state_dict(here.state_dict())
    torchs = make(there.parameters(), lr=1e-2, weight_decay=decay, fused=True)
    torchs.load_state_dict(own.state_dict())
    run(there, torchs, range(4, 6))
    assert same(whole, there)


def test_a_parameter_without_gradient_stays_where_it_is() -> None:
    (network,) = networks(1)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = Adam(network.parameters(), 1e-2)
    optimizer.step()
    network[2].weight.sum().backward()  # type: ignore[index,union-attr,operator]
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert moved == [False, False, True, False]


def test_a_state_of_other_parameters_is_refused() -> None:
    narrow, wide = nn.Linear(3, 2), nn.Linear(4, 2)
    optimizer = Adam(narrow.parameters(), 1e-2)
    narrow(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match=r"moments \[2, 4\], found \[2, 3\]"):
        Adam(wide.parameters(), 1e-2).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="1 parameters, found that of 2"):
        Adam([wide.weight], 1e-2).load_state_dict(optimizer.state_dict())


STEP = """
import sys, torch
from contrasim_cli.training.adam import Adam
net = torch.nn.Linear(3, 2)
made = {make}
net(torch.ones(1, 3)).sum().backward()
made.step()
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize(
    ("make", "found"), [("Adam(net.parameters(), 1e-3)", "False"), ("torch.optim.Adam(net.parameters())", "True")]
)
def test_a_step_does_not_import_torchs_compiler(make: str, found: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", STEP.format(make=make)], check=True, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.strip() == found
