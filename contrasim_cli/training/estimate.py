"""How long training takes, told by one of its steps."""

import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from contrasim_cli.encoder import Config
from contrasim_cli.store import View
from contrasim_cli.training.anchored_rows import anchored
from contrasim_cli.training.data import Data
from contrasim_cli.training.loop import Run
from contrasim_cli.training.rows import Held, Source
from contrasim_cli.training.shuffle import Order, Step
from contrasim_cli.training.state import new_state


@dataclass
class _Timed(Run):
    """A run that notes how long its steps take."""

    seconds: list[float] = field(default_factory=list)

    def _step(self, step: Step, held: Held) -> float:
        before = time.perf_counter()
        value = super()._step(step, held)
        self.seconds.append(time.perf_counter() - before)
        return value


def step_seconds(data: Data, config: Config, device: torch.device, budget: int) -> float:
    """Seconds of one step on the first batch of the rows; nothing else of the data is read.

    The first step, which also warms up what later ones find warm, is left out.
    """
    rows = min(data.n_rows, config.batch_size)
    views = [View(v.store, np.arange(rows) if v.rows is None else v.rows[:rows]) for v in data.views]
    few = Data(views, [names[:1] for names in data.layers] if config.task == "pairs" else data.layers)
    if config.anchoring:
        few = anchored(few, config)
    once = replace(config, epochs=2, standardize="none", validation=0.0, patience=0, schedule="constant", warmup=0.0)
    run = _Timed(Source(few, Order.of(few, once), budget, device=device), once, new_state(once, device), device)
    run.train()
    return run.seconds[-1]
