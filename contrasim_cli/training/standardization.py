"""How each layer's rows are best standardised, told before training by how clearly rows lie nearer to their own across views.

Rows of a sample are standardised in every way of a ladder, weakest first, and compared by their cosines: a way's score is the
clearness of the rows' margins (`hard_negatives`), over both directions. Of each layer the weakest way is taken that the clearest
does not beat by more than the standard error of their difference, row by row. Where that is whitening by little shrinkage, how the
views of a row differ (`within`) may do better still: estimated without the rows that it is judged by, it is taken by the same
rule. Where weaker ways win, how two views differ says little about others.

Where no way does better than chance, as for views that share no basis, scores say nothing: rows are whitened, and training has
a longer way to go. Where layers cannot be told apart by name, or some differ in width across views, one way serves all of them.

`within` makes all differences of the views of a row equally large, layer by layer (within-class covariance normalisation, WCCN:
Hatch et al. 2006). With x_v the row in view v less that view's mean, and x̄ the mean of the x_v, W is the mean over rows of
Σ_v (x_v - x̄)(x_v - x̄)ᵀ / (V - 1): the covariance within rows, of what is not the row's own. Rows are multiplied by

    W_s^(-1/2), W_s = (1 - s) W + s (tr Σ / p) I

where Σ is the mean covariance of the views and s the shrinkage. Unlike whitening this keeps the directions wide in which rows
differ and views do not; and it is estimated once, where rows are many, so that stores of few rows need no covariance of their own
when they are scored.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contrasim_cli import distributed, seeds
from contrasim_cli.encoder import Config
from contrasim_cli.errors import MismatchError, UsageError
from contrasim_cli.names import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store.blocks import row_blocks
from contrasim_cli.training.data import Data
from contrasim_cli.training.hard_negatives import clearness, margins, nearest, weakest
from contrasim_cli.training.objective import row_accuracy
from contrasim_cli.training.shuffle import HELD_OUT_ROWS, Rows, held_out_rows
from contrasim_cli.transforms import (
    Doubles,
    Standardization,
    Standardizer,
    Transform,
    Within,
    each_transform,
    shrunk_inverse_root,
    transform,
)

log = logging.getLogger(__name__)

LADDER = (
    *(Standardization(kind) for kind in ("none", "center", "zscore")),
    *(Standardization("whiten", shrinkage) for shrinkage in (0.6, 0.3, 0.1, 0.03, 0.01)),
)
WITHIN = tuple(Standardization("within", shrinkage) for shrinkage in (0.3, 0.1, 0.03, 0.01))
FOLDS = 4
SAMPLE_ROWS = 2000
CHANCE_HITS = 5  # rows that find their own by chance are 1 in expectation, and hardly ever more than this
SHRINKAGE, MOST_SHRINKAGE = 0.1, 0.6  # where scores say nothing
FINE = 0.1  # whitening by no more shrinkage is near the answer already
LR, FAR_LR = 1e-3, 1e-2

Spectrum = tuple[Doubles, Doubles]  # eigenvalues [p], vectors [p, p]


@dataclass(frozen=True)
class LayerChoice:
    """How one layer is standardised and how far it goes towards the trained map, with the clearness of each way and step."""

    names: list[str]
    kind: str
    shrinkage: float
    step: float = 1.0
    scores: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    softly: bool = False  # whether margins are to the mean of the neighbours

    @property
    def text(self) -> str:
        """The standardisation in words."""
        way = Standardization(self.kind, self.shrinkage).text
        return f"{self.names[0]}: {way}" + (f", step {self.step:g}" if self.steps else "")


@dataclass(frozen=True)
class Choice:
    """A standardisation, of all layers or of each, and a learning rate, and what they were chosen by."""

    kind: str  # of layers that have none of their own
    shrinkage: float
    lr: float
    because: str  # scores, chance or widths
    rows: int = 0
    layers: list[LayerChoice] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)  # where one way serves all layers

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Choice":
        """What a checkpoint holds."""
        return cls(**{**record, "layers": [LayerChoice(**layer) for layer in record["layers"]]})

    def of(self, config: Config, with_lr: bool) -> Config:
        """The configuration with what was chosen."""
        own = tuple((name, one.kind, one.shrinkage, one.step) for one in self.layers for name in one.names)
        chosen = replace(config, standardize=self.kind, shrinkage=self.shrinkage, by_layer=own)
        return replace(chosen, lr=self.lr) if with_lr else chosen

    @property
    def record(self) -> dict[str, Any]:
        """The record for the checkpoint."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The statistics in a line."""
        if self.layers:
            ways = "; ".join(layer.text for layer in self.layers)
            return f"standardising rows layer by layer, by how clearly they find their own in the other view: {ways}"
        reasons = {
            "widths": "the views differ in width",
            "chance": "by cosine, rows find their own in the other view no better than by chance",
            "scores": "by cosine, rows find their own in the other view; clearness",
        }
        found = ", ".join(f"{score:.3f} ({name})" for name, score in self.scores.items())
        how = Standardization(self.kind, self.shrinkage).text
        return f"standardising rows by {how}: {reasons[self.because]}" + (f": {found}" if found else "")


def choose(data: Data, standardizer: Standardizer, config: Config, budget: int, progress: Progress = silent) -> Choice:
    """The standardisations that these views ask for; the same for the same data and seed.

    Raises:
        InputError: the covariances that whitening may need do not fit the budget.
    """
    standardizer.check_memory(["auto"], data.layers, budget)
    comparable = _comparable(data)
    if not comparable:
        return _far(data, "widths")
    rows = sample(data.n_rows, config, SAMPLE_ROWS)
    with progress("choosing", len(comparable), "layers") as advance:
        seen = []
        for k in comparable:
            seen.append(_Layer(data, standardizer, config, k, rows))
            advance(1)
    if np.mean([layer.found for layer in seen]) * len(rows) <= CHANCE_HITS:
        return replace(_far(data, "chance"), rows=len(rows))
    if misfit(data):
        return _together([layer.ladder for layer in seen], len(rows))
    return Choice("center", Config.shrinkage, LR, "scores", len(rows), [layer.choice for layer in seen])


def _together(ladders: Sequence[Sequence[Tensor]], n_rows: int) -> Choice:
    """One way for all layers."""
    found = [torch.cat(of_layers) for of_layers in zip(*ladders, strict=True)]
    how = LADDER[weakest(found)]
    scores = {way.text: clearness(of_way) for way, of_way in zip(LADDER, found, strict=True)}
    return Choice(how.kind, how.shrinkage, LR, "scores", n_rows, scores=scores)


def _far(data: Data, because: str) -> Choice:
    """Whitening where nothing is known: the fewer rows per neuron, the more shrinkage; below ten more than 0.1."""
    shrinkage = min(MOST_SHRINKAGE, max(SHRINKAGE, data.widths[-1] / data.n_rows))
    return Choice("whiten", round(shrinkage, 2), FAR_LR, because)


def _comparable(data: Data) -> list[int]:
    """Positions of layers that are as wide in all views."""
    found = []
    for k, names in enumerate(zip(*data.layers, strict=True)):
        widths = {view.store.layer(name).width for view, name in zip(data.views, names, strict=True)}
        if len(widths) == 1:
            found.append(k)
    return found


def sample(n_rows: int, config: Config, count: int) -> Rows:
    """Some of the rows that are trained on, sorted."""
    rng = seeds.stream(config.seed, 1, seeds.CHOSEN_ROWS)
    drawn = rng.choice(n_rows, min(n_rows, count + HELD_OUT_ROWS), replace=False)
    return np.sort(drawn[~np.isin(drawn, held_out_rows(n_rows, config))][:count])


class _Layer:
    """What one layer's rows say about ways to standardise them."""

    def __init__(self, data: Data, standardizer: Standardizer, config: Config, k: int, rows: Rows) -> None:
        self.names = [layers[k] for layers in data.layers]
        statistics = [standardizer.statistics(v, name) for v, name in enumerate(self.names)]
        read = [view.read(name, rows) for view, name in zip(data.views, self.names, strict=True)]
        near = [nearest((block - of.mean).astype(np.float64)) for block, of in zip(read, statistics, strict=True)]
        made = [each_transform(LADDER, of) for of in statistics]
        units = [_units(transforms, read) for transforms in zip(*made, strict=True)]
        self.ladder = [margins(unit, near) for unit in units]
        softly = max(map(clearness, self.ladder)) <= 0
        if softly:
            self.ladder = [margins(unit, near, softly=True) for unit in units]
        scores = {way.text: clearness(found) for way, found in zip(LADDER, self.ladder, strict=True)}
        how = LADDER[distributed.gathered(weakest(self.ladder))[0]]  # ranks go on together, and rounding might decide
        unit = _units([transform(how, of) for of in statistics], read)
        pairs = [row_accuracy(a, b) for a, b in itertools.combinations(unit, 2)]
        self.found = sum(pairs) / len(pairs)
        if how.kind == "whiten" and how.shrinkage <= FINE and not misfit(data):
            differences = _by_differences(data, standardizer, config, k, rows, near, softly)
            scores |= {way.text: clearness(found) for way, found in zip(WITHIN, differences, strict=True)}
            how = (how, *WITHIN)[weakest([self.ladder[LADDER.index(how)], *differences])]
        self.choice = LayerChoice(
            list(dict.fromkeys(self.names)), how.kind, how.shrinkage, scores=scores, softly=softly
        )


def _by_differences(
    data: Data,
    standardizer: Standardizer,
    config: Config,
    k: int,
    rows: Rows,
    near: Sequence[Tensor],
    softly: bool = False,
) -> list[Tensor]:
    """Margins by how views differ, for each shrinkage, estimated a fold of the rows at a time without these."""
    centred = centred_rows(data, standardizer, k, rows)
    total, count = trained_scatter(data, standardizer, k, config)
    variance = level(data, standardizer, k)
    folds = [part for part in np.array_split(np.arange(len(rows)), FOLDS) if len(part)]
    left = [spectrum((total - scatter(centred[:, fold])) / (count - len(fold))) for fold in folds]
    found = []
    for way in WITHIN:
        maps = [factor(of, variance, way.shrinkage) for of in left]
        parts = [
            margins(_unit(centred @ made), [of[torch.from_numpy(fold)] for of in near], fold, softly)
            for made, fold in zip(maps, folds, strict=True)
        ]
        found.append(torch.cat(parts, dim=1))
    return found


def _units(transforms: Sequence[Transform], read: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    return _unit(np.stack([made(block) for made, block in zip(transforms, read, strict=True)]))


def _unit(rows: Doubles) -> Tensor:
    return functional.normalize(torch.from_numpy(rows).float(), dim=-1)


# --- how the views of a row differ --------------------------------------------------------------------------------------


def scatter(centred: Doubles) -> Doubles:
    """Σ_r Σ_v (x_v - x̄)(x_v - x̄)ᵀ / (V - 1) [p, p] of rows [views, n, p]."""
    apart = (centred - centred.mean(axis=0)).reshape(-1, centred.shape[-1])
    found: Doubles = apart.T @ apart / (len(centred) - 1)
    return found


def centred_rows(data: Data, standardizer: Standardizer, k: int, rows: Rows) -> Doubles:
    """Rows [views, n, p] of the k-th layer of all views, each less its view's mean."""
    names = [layers[k] for layers in data.layers]
    return np.stack(
        [
            view.read(n, rows) - standardizer.statistics(v, n).mean
            for v, (view, n) in enumerate(zip(data.views, names, strict=True))
        ]
    ).astype(np.float64)


def trained_scatter(data: Data, standardizer: Standardizer, k: int, config: Config) -> tuple[Doubles, int]:
    """The scatter of all rows that are not held out, streamed, in blocks that ranks share, and their number."""
    held_out = held_out_rows(data.n_rows, config)
    layer = data.views[0].store.layer(data.layers[0][k])
    for v, names in enumerate(data.layers):
        standardizer.statistics(v, names[k])  # of which ranks make a part each, before they go their own ways
    total = np.zeros((layer.width, layer.width))
    for block in distributed.share(list(row_blocks(layer, data.n_rows))):
        rows = np.setdiff1d(np.arange(*block), held_out, assume_unique=True)
        total += scatter(centred_rows(data, standardizer, k, rows))
    return distributed.total_of(total), data.n_rows - len(held_out)


def level(data: Data, standardizer: Standardizer, k: int) -> Doubles:
    """The views' mean variance [p] of each column of the k-th layer."""
    found: Doubles = np.mean(
        [standardizer.statistics(v, names[k]).variance for v, names in enumerate(data.layers)], axis=0
    )
    return found


def spectrum(covariance: Doubles) -> Spectrum:
    """The spectrum of W [p, p]; it serves every shrinkage."""
    values, vectors = np.linalg.eigh(covariance)
    return values, vectors


def factor(of: Spectrum, variance: Doubles, shrinkage: float) -> Doubles:
    """W_s^(-1/2) [p, p] in digits that float32 holds, as checkpoints do; 0 in columns that are constant in every view."""
    root = shrunk_inverse_root(shrinkage, float(variance.mean()), *of)
    varies = variance > 0
    return (root * varies * varies[:, None]).astype(np.float32).astype(np.float64)


def misfit(data: Data) -> str:
    """Why these data have no covariance within rows, layer by layer and by name; empty where they do."""
    places: dict[str, int] = {}
    for k in range(data.n_layers):
        names = [layers[k] for layers in data.layers]
        widths = [view.store.layer(name).width for view, name in zip(data.views, names, strict=True)]
        if len(set(widths)) > 1:
            return f"layer {quoted(names[0])} has the widths {' and '.join(map(str, widths))}"
        for name in names:
            if places.setdefault(name, k) != k:
                return f"layer {quoted(name)} has two partners"
    return ""


def check_within(data: Data, config: Config) -> None:
    """Refuse data and options that --standardize within does not go with.

    Raises:
        MismatchError, UsageError: they differ in width, cross their layers, or ask for no shrinkage.
    """
    problem = misfit(data)
    if problem:
        raise MismatchError(
            f"{quoted(data.views[0].store.path)}: --standardize within compares the views of a row neuron by neuron, layer by "
            f"layer, and {problem}; give --standardize whiten"
        )
    if not config.shrinkage > 0:
        raise UsageError(
            "--standardize within takes a --shrinkage greater than 0: in some directions views may not differ at all"
        )


def within(data: Data, standardizer: Standardizer, config: Config, progress: Progress = silent) -> Within:
    """The maps of all layers that are standardised so, by name.

    Raises:
        MismatchError, UsageError: as for `check_within`.
    """
    check_within(data, config)
    made: dict[str, Doubles] = {}
    ways = [config.standardization.of(name) for name in data.layers[0]]
    chosen = [k for k, way in enumerate(ways) if way.kind == "within"]
    with progress("comparing views", len(chosen), "layers") as advance:
        for k in chosen:
            total, count = trained_scatter(data, standardizer, k, config)
            found = factor(spectrum(total / count), level(data, standardizer, k), ways[k].shrinkage)
            made |= {layers[k]: found for layers in data.layers}
            advance(1)
    return Within(made)
