"""Training by every objective: run by every rank, prints JSON of the losses, of the first step's gradient, and of the weights.

`no-sums` takes the first rank's part for the sum over ranks, to show that this would be seen.
"""

import json
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from distributed_grids import first_part

from contrasim_cli import distributed
from contrasim_cli.encoder import Config
from contrasim_cli.store import View, open_store
from contrasim_cli.store.blocks import Floats, RowIndex
from contrasim_cli.training import rows as training_rows
from contrasim_cli.training import shuffle
from contrasim_cli.training.data import Data
from contrasim_cli.training.loop import Run
from contrasim_cli.training.rows import Held, Source
from contrasim_cli.training.shuffle import Order, Step
from contrasim_cli.training.state import new_state

CPU = torch.device("cpu")
OBJECTIVES = ("contrasim", "supcon", "deepdot", "deepcka")

# of 33 rows and batches of 16, so that the last one has fewer rows than there are ranks
CASES: dict[str, dict[str, Any]] = {
    **{f"layers, {name}": {"task": "layers", "objective": name} for name in OBJECTIVES},
    **{f"pairs, {name}": {"task": "pairs", "objective": name} for name in OBJECTIVES},
    **{f"{task}, norm": {"task": task, "objective": "contrasim", "similarity": "norm"} for task in ("layers", "pairs")},
    "layers, norm, supcon": {"task": "layers", "objective": "supcon", "similarity": "norm"},
    "pairs, first": {"task": "pairs", "objective": "contrasim", "anchor_side": "first"},
    "pairs, cold": {"task": "pairs", "objective": "supcon", "temperature": 0.02},
    "layers, members": {"task": "layers", "objective": "contrasim", "members": 2},
    "pairs, members": {"task": "pairs", "objective": "supcon", "members": 2},
    "pairs, validated": {"task": "pairs", "objective": "supcon", "validation": 0.2, "patience": 2},
    "layers, bfloat16": {"task": "layers", "objective": "supcon", "precision": "bfloat16"},
}
STREAMED = {
    "layers, streamed": {"task": "layers", "objective": "contrasim", "validation": 0.2},
    "pairs, streamed": {"task": "pairs", "objective": "supcon", "validation": 0.2},
    "pairs, streamed, deepcka": {"task": "pairs", "objective": "deepcka"},
}
CASES |= STREAMED
EPOCHS = 3
BLOCK, GROUP = 4, 16  # rows, in every case; so that ranks have blocks to share


@dataclass
class Noted(Run):
    """A run that notes its losses and the gradient of its first step."""

    losses: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)

    def _step(self, step: Step, held: Held) -> float:
        self.losses.append(super()._step(step, held))
        if not self.gradient:
            grads = [p.grad for p in self.state.encoder.parameters() if p.grad is not None]
            self.gradient = torch.cat([grad.flatten() for grad in grads]).tolist()
        return self.losses[-1]


@dataclass(frozen=True)
class Counted(View):
    """A view that counts the rows that are read of it."""

    counts: Counter[str] = field(default_factory=Counter)

    def read(self, layer: str, rows: RowIndex | None = None) -> Floats:
        self.counts[layer] += self.n_rows if rows is None else len(rows)
        return super().read(layer, rows)


def trained(folder: Path, name: str) -> dict[str, Any]:
    """What a run of one configuration comes to, and how many rows were read of each layer."""
    parts = CASES[name]
    with ExitStack() as patches:
        for module, constant, value in (
            (shuffle, "BLOCK_ROWS", BLOCK),
            (training_rows, "BLOCK_ROWS", BLOCK),
            (shuffle, "GROUP_ROWS", GROUP),
        ):
            patches.enter_context(mock.patch.object(module, constant, value))
        return _trained(folder, parts, 100 if name in STREAMED else 1 << 30)


def _trained(folder: Path, parts: dict[str, Any], budget: int) -> dict[str, Any]:
    views = [Counted(open_store(folder / f"{name}.h5")) for name in ("xyz" if parts["task"] == "layers" else "xy")]
    data = Data(views, [list(view.store.layers) for view in views])
    config = Config(widths=data.widths, hidden=(8,), output=4, batch_size=16, epochs=EPOCHS, **parts)
    source = Source(data, Order.of(data, config), budget)
    run = Noted(source, config, new_state(config, CPU), CPU)
    run.train()
    weights = torch.cat([p.detach().flatten() for p in run.state.encoder.parameters()])
    found = {"losses": run.losses, "gradient": run.gradient, "weights": weights.tolist(), "curves": run.state.curves}
    return {
        **found,
        "digests": [digest.hexdigest() for digest in source.digests],
        "read": max(count for view in views for count in view.counts.values()),
    }


if __name__ == "__main__":
    if sys.argv[2:] == ["no-sums"]:
        distributed.total = first_part
    with distributed.joined():
        everything = {name: trained(Path(sys.argv[1]), name) for name in CASES}
    json.dump(everything, sys.stdout)  # more than a pipe takes, which is read one rank after another
