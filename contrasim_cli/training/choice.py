"""Which standardisation the rows of two views ask for, told before training by how well rows find their own across views.

Rows of a sample are standardised in every way of a ladder, weakest first, and compared by their cosines. A way's score is the
part of the rows, of either view, to which their own row is strictly the most similar of all rows of the other view, on
average over layers. The best way wins, and of ways that are about as good the weakest. Where no way does better than
chance, as for views that share no basis, scores say nothing: rows are whitened, and training has a longer way to go.

Where whitening by little shrinkage wins, how the views of a row differ (`within`) may do better still. By which of the two
rows lie more clearly nearer to their own than to its nearest neighbours decides. Where weaker ways win, how these views
differ says little about others.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contrasim_cli.encoder import Config
from contrasim_cli.progress import Progress, silent
from contrasim_cli.training.data import Data
from contrasim_cli.training.margins import WITHIN, compared
from contrasim_cli.training.order import CHOICE, HELD_OUT_ROWS, Rows, held_out_rows
from contrasim_cli.training.validation import row_accuracy
from contrasim_cli.training.within import misfit
from contrasim_cli.transforms import Standardization, Standardizer, each_transform

log = logging.getLogger(__name__)

LADDER = (
    Standardization("center"),
    *(Standardization("whiten", shrinkage) for shrinkage in (0.6, 0.3, 0.1, 0.03, 0.01)),
)
SAMPLE_ROWS = 2000
SAMPLE_LAYERS = 6
ABOUT_AS_GOOD = 0.005
CHANCE_HITS = 5  # rows that find their own by chance are 1 in expectation, and hardly ever more than this
SHRINKAGE, MOST_SHRINKAGE = 0.1, 0.6  # where scores say nothing
FINE = 0.03  # whitening by no more shrinkage is near the answer already, and long steps lead away from it
FINE_LR, LR, FAR_LR = 1e-4, 1e-3, 1e-2


@dataclass(frozen=True)
class Choice:
    """A standardisation and a learning rate, and what they were chosen by."""

    kind: str
    shrinkage: float
    lr: float
    because: str  # scores, chance or widths
    rows: int = 0
    layers: list[str] = field(default_factory=list)  # of the first view
    scores: dict[str, float] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)

    def of(self, config: Config, with_lr: bool) -> Config:
        """The configuration with what was chosen."""
        chosen = replace(config, standardize=self.kind, shrinkage=self.shrinkage)
        return replace(chosen, lr=self.lr) if with_lr else chosen

    @property
    def record(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The same in a line."""
        reasons = {
            "widths": "the views differ in width",
            "chance": "by cosine, rows find their own in the other view no better than by chance",
            "scores": "by cosine, rows find their own in the other view",
        }
        found = ", ".join(f"{100 * score:.1f} % ({name})" for name, score in self.scores.items())
        how = Standardization(self.kind, self.shrinkage).text
        clear = ", ".join(f"{margin:.3f} ({name})" for name, margin in self.margins.items())
        return (
            f"standardising rows by {how}: {reasons[self.because]}"
            + (f": {found}" if found else "")
            + (f"; margins to near rows, mean over deviation: {clear}" if clear else "")
        )


def choose(data: Data, standardizer: Standardizer, config: Config, budget: int, progress: Progress = silent) -> Choice:
    """The standardisation that these views ask for; the same for the same data and seed.

    Raises:
        InputError: the covariances that whitening may need do not fit the budget.
    """
    standardizer.check_memory("auto", data.layers, budget)
    layers = _comparable(data, config)
    if not layers:
        return _far(data, "widths")
    rows = _sample(data.n_rows, config)
    with progress("choosing", len(layers), "layers") as advance:
        table = []
        for k in layers:
            table.append(_scores(data, standardizer, k, rows))
            advance(1)
    scores = [float(score) for score in np.mean(table, axis=0)]
    names = [data.layers[0][k] for k in layers]
    seen = {"rows": len(rows), "layers": names, "scores": {how.text: s for how, s in zip(LADDER, scores, strict=True)}}
    best = max(scores)
    if best * len(rows) <= CHANCE_HITS:
        return replace(_far(data, "chance"), **seen)  # type: ignore[arg-type]
    how = next(how for how, score in zip(LADDER, scores, strict=True) if score >= best - ABOUT_AS_GOOD)
    fine = how.kind == "whiten" and how.shrinkage <= FINE
    chosen = Choice(how.kind, how.shrinkage, FINE_LR if fine else LR, "scores", **seen)  # type: ignore[arg-type]
    if not fine or misfit(data):
        return chosen
    margins = compared(data, standardizer, config, layers, rows, how)
    ways = (how, *WITHIN)
    best_way = max(ways, key=lambda way: margins[way.text])  # of equals the first
    if best_way is how:
        return replace(chosen, margins=margins)
    return replace(chosen, kind="within", shrinkage=best_way.shrinkage, lr=FINE_LR, margins=margins)


def _far(data: Data, because: str) -> Choice:
    """Whitening where nothing is known: the fewer rows per neuron, the more shrinkage; below ten more than 0.1."""
    shrinkage = min(MOST_SHRINKAGE, max(SHRINKAGE, data.widths[-1] / data.n_rows))
    return Choice("whiten", round(shrinkage, 2), FAR_LR, because)


def _comparable(data: Data, config: Config) -> Sequence[int]:
    """Positions of layers that are as wide in all views: all such, or some if they are many."""
    found = []
    for k, names in enumerate(zip(*data.layers, strict=True)):
        widths = {view.store.layer(name).width for view, name in zip(data.views, names, strict=True)}
        if len(widths) == 1:
            found.append(k)
    if len(found) <= SAMPLE_LAYERS:
        return found
    rng = np.random.default_rng([config.seed, 0, CHOICE])
    return [int(k) for k in np.sort(rng.choice(found, SAMPLE_LAYERS, replace=False))]


def _sample(n_rows: int, config: Config) -> Rows:
    """Some of the rows that are trained on, sorted."""
    rng = np.random.default_rng([config.seed, 1, CHOICE])
    drawn = rng.choice(n_rows, min(n_rows, SAMPLE_ROWS + HELD_OUT_ROWS), replace=False)
    return np.sort(drawn[~np.isin(drawn, held_out_rows(n_rows, config))][:SAMPLE_ROWS])


def _scores(data: Data, standardizer: Standardizer, k: int, rows: Rows) -> list[float]:
    """Of every way to standardise, on one layer; over all pairs of views."""
    names = [layers[k] for layers in data.layers]
    read = [view.read(name, rows) for view, name in zip(data.views, names, strict=True)]
    made = [each_transform(LADDER, standardizer.statistics(v, name)) for v, name in enumerate(names)]
    scores = []
    for transforms in zip(*made, strict=True):
        unit = [_unit(transform(block)) for transform, block in zip(transforms, read, strict=True)]
        pairs = [row_accuracy(a, b) for a, b in itertools.combinations(unit, 2)]
        scores.append(sum(pairs) / len(pairs))
    return scores


def _unit(rows: np.ndarray[Any, Any]) -> Tensor:
    return functional.normalize(torch.from_numpy(rows).float(), dim=-1)
