"""How far each layer goes from its rows as they are towards the trained map, told by cross-validation.

The map of a linear path starts as the identity I and is trained to M; a layer goes I + s (M - I), s its step, 0 to 1. Maps are
trained on all folds of a sample but one, and the margins (`margins`) of the rows of that fold tell steps apart. Of each layer
the shortest step is taken that the clearest does not beat by more than the standard error of their difference, row by row: where
training does not help rows that it has not seen, its layer stays as it was.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from contrasim_cli.encoder import Config, Encoder
from contrasim_cli.errors import Terminated
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store import View
from contrasim_cli.training.data import Data
from contrasim_cli.training.hard_negatives import clearness, margins, nearest, weakest
from contrasim_cli.training.loop import Run
from contrasim_cli.training.rows import Source
from contrasim_cli.training.shuffle import Order, Rows
from contrasim_cli.training.standardization import Choice, sample, within
from contrasim_cli.training.state import new_state
from contrasim_cli.transforms import Standardizer

STEPS = (0.0, 0.1, 0.25, 0.5, 1.0)
FOLDS = 4
SAMPLE_ROWS = 4000  # trained on and judged by
JUDGED_ROWS = 1000  # are enough: further folds are left out


def with_steps(
    choice: Choice,
    data: Data,
    standardizer: Standardizer,
    config: Config,
    device: torch.device,
    budget: int,
    progress: Progress = silent,
) -> Choice:
    """The choice with the step of each layer, where layers have one; the same for the same data and seed.

    Raises:
        Terminated, KeyboardInterrupt: a signal; nothing is kept.
    """
    config = replace(choice.of(config, with_lr=False), validation=0.0, patience=0)
    if not config.steps:
        return choice
    rows = sample(data.n_rows, config, SAMPLE_ROWS)
    folds = [rows[start::FOLDS] for start in range(min(FOLDS, len(rows) // 2))]
    judged = folds[: math.ceil(JUDGED_ROWS / len(folds[0]))]
    table: list[list[list[Tensor]]] = []  # by fold, layer and step
    with progress("trying steps", len(judged), "folds") as advance:
        for fold in judged:
            softly = [layer.softly for layer in choice.layers]
            table.append(_fold(data, standardizer, config, rows, fold, device, budget, softly))
            advance(1)
    layers = []
    for layer, of_folds in zip(choice.layers, zip(*table, strict=True), strict=True):
        found = [torch.cat(parts, dim=1) for parts in zip(*of_folds, strict=True)]
        scores = {f"{step:g}": clearness(of_step) for step, of_step in zip(STEPS, found, strict=True)}
        layers.append(replace(layer, step=STEPS[weakest(found)], steps=scores))
    return replace(choice, layers=layers)


def _fold(
    data: Data,
    standardizer: Standardizer,
    config: Config,
    rows: Rows,
    fold: Rows,
    device: torch.device,
    budget: int,
    softly: Sequence[bool],
) -> list[list[Tensor]]:
    """Margins of the fold's rows, by layer and step, by a map that was trained on the other rows."""
    part = replace(data, views=[_some(view, np.setdiff1d(rows, fold)) for view in data.views])
    how = config.standardization
    how = replace(how, within=within(part, standardizer, config) if "within" in how.kinds else None)
    part = replace(part, transforms=standardizer.transforms(how, data.layers, budget))
    run = Run(Source(part, Order.of(part, config), budget, device=device), config, new_state(config, device), device)
    try:
        encoder = run.train().result.eval()
    except (Terminated, KeyboardInterrupt) as stop:
        raise type(stop)("stopped while trying steps; nothing of this is kept, --resume starts over") from stop
    whole = replace(part, views=[_some(view, rows) for view in data.views])
    which = np.searchsorted(rows, fold).astype(np.int64)
    return [_layer(whole, encoder, k, which, device, softly[k]) for k in range(data.n_layers)]


def _some(view: View, rows: Rows) -> View:
    return View(view.store, rows if view.rows is None else view.rows[rows])


@torch.inference_mode()
def _layer(data: Data, encoder: Encoder, k: int, which: Rows, device: torch.device, softly: bool) -> list[Tensor]:
    """Margins [ordered pairs, rows] of the rows at `which`, by step."""
    near, made = [], []
    for v, names in enumerate(data.layers):
        raw = data.views[v].read(names[k])
        near.append(nearest((raw - raw.mean(axis=0)).astype(np.float64), which))
        made.append(torch.from_numpy(data.formed(v, names[k], raw)).float().to(device))
    return [
        margins(torch.stack([encoder(rows, v, step) for v, rows in enumerate(made)]).cpu(), near, which, softly)
        for step in STEPS
    ]
