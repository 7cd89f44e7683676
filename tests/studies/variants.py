"""What the default recipe for pairs might be given besides, each tried alone: held-out views of real text.

Run: python tests/studies/variants.py --model DIR_OF_A_BERT --text FILE [--train-rows 4000] [--test-rows 1600]
     [--seeds 2] [--folder recipes_study] [--distract 0.05] [--only NAME …]

Views and judgement are those of `recipes.py`, whose folder serves here too. Variants that are no options of `contrasim train`
change its loop (`Run`) from outside.
"""

import argparse
import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from recipes import line, text_study, trained
from torch import Tensor

from contrasim_cli.training import job
from contrasim_cli.training.hard_negatives import nearest
from contrasim_cli.training.loop import Run
from contrasim_cli.training.rows import Held, Part, encode_parts
from contrasim_cli.training.shuffle import Step


@dataclass
class _Altered:
    """A part of a step whose rows come out changed."""

    part: Part
    change: Callable[[Tensor], Tensor]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    def rows(self, where: slice) -> Tensor:
        return self.change(self.part.rows(where).float())


class _Changed(Run):
    """Rows are changed before they are encoded."""

    def change(self, rows: Tensor) -> Tensor:
        raise NotImplementedError

    def _encode(self, encoder: Any, held: Held, step: Step, train: bool = False) -> Tensor:
        if not train:
            return super()._encode(encoder, held, step)
        parts: Iterable[Any] = (_Altered(part, self.change) for part in held.take(step.rows, step.layer))
        return encode_parts(encoder, parts, self.device, self.config)


class Noise(_Changed):
    """Gaussian noise of a tenth of the rows' own deviation."""

    def change(self, rows: Tensor) -> Tensor:
        return rows + 0.1 * rows.std() * torch.randn_like(rows)


class Dropout(_Changed):
    """A tenth of the inputs is left out."""

    def change(self, rows: Tensor) -> Tensor:
        return torch.nn.functional.dropout(rows, 0.1)


class Averaged(Run):
    """The result is a running mean of the weights."""

    rate = 0.99
    _mean: Any = None

    def _step(self, step: Step, held: Held) -> float:
        value = super()._step(step, held)
        self._mean = self._mean or copy.deepcopy(self.state.encoder)
        with torch.no_grad():
            for mean, now in zip(self._mean.parameters(), self.state.encoder.parameters(), strict=True):
                mean.lerp_(now, 1 - self.rate)
        return value

    def _save(self, finished: bool) -> None:
        if finished:
            self.state.best = self._mean
        super()._save(finished)


class DecayToStart(Run):
    """Weights are drawn back to where they began."""

    rate = 10.0  # times the learning rate
    _start: Any = None

    def _step(self, step: Step, held: Held) -> float:
        self._start = self._start or copy.deepcopy(self.state.encoder)
        value = super()._step(step, held)
        with torch.no_grad():
            for first, now in zip(self._start.parameters(), self.state.encoder.parameters(), strict=True):
                now.lerp_(first, self.rate * self._learning_rate)
        return value


class _Tempered(Run):
    """Similarities are divided by another temperature than the configuration's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = self.objective
        self.objective = lambda z: plain(z * (self.config.temperature / self.temperature()) ** 0.5)  # type: ignore[assignment]

    def temperature(self) -> Any:
        raise NotImplementedError


class LearnedTemperature(_Tempered):
    """Trained with the weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.logarithm = torch.nn.Parameter(torch.tensor(math.log(self.config.temperature)))
        self.state.optimizer.add_param_group({"params": [self.logarithm]})

    def temperature(self) -> Any:
        return self.logarithm.exp().clamp(0.02, 1)


class FallingTemperature(_Tempered):
    """From 0.2 to 0.05."""

    def temperature(self) -> float:
        done = self.steps_done / (self.config.epochs * self.epoch_steps)
        return float(0.2 * (0.05 / 0.2) ** done)


class LayersTogether(Run):
    """A batch has its rows of every layer, which are negatives of each other; the steps of all layers but one are left out."""

    def _step(self, step: Step, held: Held) -> float:
        return super()._step(step, held) if step.layer == 0 else 0.0

    def _encode(self, encoder: Any, held: Held, step: Step, train: bool = False) -> Tensor:
        layers = range(self.source.data.n_layers) if train else [step.layer]
        return torch.cat(
            [super(LayersTogether, self)._encode(encoder, held, Step(step.rows, k), train) for k in layers], 1
        )


class HardNegatives(Run):
    """Half of a batch is the nearest neighbours of the other half, by the rows that are trained on, equal ones left out."""

    _near: Any = None

    def _step(self, step: Step, held: Held) -> float:
        self._near = self._near or {}
        if step.layer not in self._near:
            (rows,) = (part.rows(slice(None)) for part in held.take(np.arange(self.source.data.n_rows), step.layer))
            self._near[step.layer] = nearest(rows[: self.source.data.n_rows].double().numpy())[:, 0].numpy()
        half = step.rows[: len(step.rows) // 2]
        near = self._near[step.layer][half]
        rows = np.unique(np.concatenate([half, near[near >= 0]]))
        return super()._step(Step(rows, step.layer), held)


VARIANTS: dict[str, tuple[type[Run], list[object]]] = {
    "default": (Run, []),
    "noise 0.1": (Noise, []),
    "dropout 0.1": (Dropout, []),
    "weights averaged": (Averaged, []),
    "decay to the start": (DecayToStart, []),
    "learned temperature": (LearnedTemperature, []),
    "temperature 0.2 to 0.05": (FallingTemperature, []),
    "layers together": (LayersTogether, ["--batch-size", 64]),
    "hard negatives": (HardNegatives, []),
    "stops early": (Run, ["--validation", 0.1, "--patience", 2]),
    "output 256": (Run, ["--dim", 256]),
    "temperature 0.07": (Run, ["--temperature", 0.07]),
    "temperature 0.5": (Run, ["--temperature", 0.5]),
    "Eq. 3": (Run, ["--objective", "contrasim"]),
    "an MLP beside": (Run, ["--path", "both"]),
    "batches of 1,024": (Run, ["--batch-size", 1024]),
    "AdamW, decay 0.05": (Run, ["--optimizer", "adamw", "--weight-decay", 0.05]),
    "constant rate": (Run, ["--schedule", "constant", "--warmup", 0]),
}


def variants(names: Iterable[str]) -> Iterator[tuple[str, list[object]]]:
    """Name and options of each, while it is in force."""
    for name in names:
        loop, options = VARIANTS[name]
        with mock.patch.object(job, "Run", loop):
            yield name, options


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("recipes_study"))
    for name, value in (("train-rows", 4000), ("test-rows", 1600), ("seeds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--distract", type=float, default=0.05)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    study = text_study(arguments)
    head = True
    for name, options in variants(arguments.only):
        found, seconds, how = trained(study, arguments.folder / "views", options, arguments.seeds, None)
        named = [{("", kind): value for (_, kind), value in one.items()} for one in found]
        line(f"{name} ({how})", named, seconds, head)
        head = False


if __name__ == "__main__":
    main()
