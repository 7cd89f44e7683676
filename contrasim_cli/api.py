"""What `import contrasim_cli as contrasim` offers: a few functions over arrays, tensors and activation files.

Nothing else is public: other modules may change with every release. Errors are those of `contrasim_cli.errors`, each a
`ContraSimError` whose text is one line. What commands warn of is a `ContraSimWarning` of the same module.

A *side* of a comparison is a mapping from names of layers to matrices [rows, width] (arrays or tensors), an open store, or the path
of an activation file. Row r of both sides must be the same example.
"""

import functools
import logging
import math
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from contrasim_cli import store as stores
from contrasim_cli.anchors import Anchoring, Anchors
from contrasim_cli.arrays import is_tensor
from contrasim_cli.cautions import Compared, check_familiar, compared, warn_few_rows, warn_unclear
from contrasim_cli.device import pick_device
from contrasim_cli.errors import ContraSimWarning, InputError, MismatchError, UsageError, raise_all
from contrasim_cli.grid import Grid, Plan, layer_grids
from contrasim_cli.grid.work import multiplications
from contrasim_cli.measures import Options, check_names
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.matrices import COMPARISONS, RSMS
from contrasim_cli.memory import memory_budget
from contrasim_cli.names import quoted
from contrasim_cli.nulls import exact
from contrasim_cli.scoring import Scorer, closed_form, learned
from contrasim_cli.store import Layer, Store, View, align, select_layers
from contrasim_cli.store.align import position_reason
from contrasim_cli.store.zero_rows import warn_zero_rows
from contrasim_cli.transforms import Standardization, Standardizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Matrix: TypeAlias = "npt.ArrayLike | Tensor"
Side: TypeAlias = Mapping[str, Matrix] | Store | Path | str
Values = npt.NDArray[np.float64]
Align = Literal["order", "ids", "position"]
Given = ParamSpec("Given")
Result = TypeVar("Result")

log = logging.getLogger(__name__)
CHOICES = {
    "rsm": RSMS,
    "rsm_compare": COMPARISONS,
    "encoding_score": ("r2", "correlation"),
    "neurons": ("median", "mean"),
}
BOUNDS: dict[str, tuple[float, float]] = {  # as `contrasim baseline` has them
    "k": (1, math.inf),
    "clamp": (0.5, 1),
    "rbf_threshold": (1e-6, math.inf),
    "ridge": (0, math.inf),
    "minibatch": (4, math.inf),
    "folds": (2, 50),
    "components": (1, math.inf),
    "topology_rows": (4, 4000),
    "topology_trials": (1, math.inf),
}
COMMANDS_NAMES = {"compare": "rsm_compare"}  # of options that `contrasim baseline` calls otherwise


class _Warnings(logging.Handler):
    """The texts of the warnings that the package logs, each once and in their order."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.texts[record.getMessage()] = None


def _warns(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, whose logged warnings become Python's, at the line that calls it."""

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        handler, logger = _Warnings(), logging.getLogger("contrasim_cli")
        logger.addHandler(handler)
        try:
            result = function(*args, **kwargs)
        finally:
            logger.removeHandler(handler)
        for text in handler.texts:
            warnings.warn(text, ContraSimWarning, stacklevel=2)
        return result

    return call


@dataclass(frozen=True)
class LayerScores:
    """Scores of every layer of one side with every layer of the other.

    `values`, `null`, `null_z` and `calibrated` are matrices [layers of the first side, layers of the second]; NaN where undefined.
    `null` is what shuffled rows score on average, `null_z` how many standard deviations a score is more similar than that, and
    `calibrated` 0 for unrelated rows and 1 for a layer with itself; each is None where the measure does not bring it.
    """

    measure: str
    first: list[str]
    second: list[str]
    values: Values
    higher_is_more_similar: bool
    null: Values | None = None
    null_z: Values | None = None
    calibrated: Values | None = None

    def __getitem__(self, layers: tuple[str, str]) -> float:
        """The score of one layer of the first side with one of the second."""
        return float(self.values[self.first.index(layers[0]), self.second.index(layers[1])])

    def best(self) -> dict[str, str | None]:
        """The most similar layer of the second side for each of the first; None where all scores are undefined."""
        similar = self.values if self.higher_is_more_similar else -self.values
        return {
            name: self.second[int(np.nanargmax(row))] if np.isfinite(row).any() else None
            for name, row in zip(self.first, similar, strict=True)
        }


class LearnedMeasure:
    """An encoder that compares layers: one that `contrasim train` made, or `universal`, the one of the package."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def name(self) -> str:
        """The name of its file."""
        return self._scorer.name

    @_warns
    def score(
        self, first: Side, second: Side, *, align: Align = "order", device: str | None = None, seed: int = 0
    ) -> LayerScores:
        """Its score of every layer of one side with every layer of the other.

        Raises:
            ContraSimError: the sides cannot be read, do not line up, or do not fit the encoder.
        """
        return _compared(self._scorer, first, second, align, device, seed)


@_warns
def compare(x: Matrix, y: Matrix, measure: str = "cka", **options: Any) -> float:
    """One closed-form measure of X [n, p] and Y [n, q], whose row r is the same example; NaN where it is undefined.

    `options` are those of `contrasim_cli.measures.Options`, such as k=5 for measures of nearest neighbours. Too few rows for a
    meaningful score are warned of.

    Raises:
        UsageError: there is no such measure, or option.
        MismatchError: the matrices disagree on rows, or on widths where the measure needs equal ones.
        InputError: a value is NaN or infinite.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(compare(x, x @ np.diag([1, 1, 1, -1])), 6)
    1.0
    """
    (name,) = _one(measure)
    first, second = (_matrix(side, where) for side, where in ((x, "X"), (y, "Y")))
    chosen = _options(options)
    try:
        score = similarity(name, first, second, chosen)
    except ValueError as error:
        raise MismatchError(str(error)) from error
    sides = [Compared(None, where, side.shape[1]) for side, where in ((first, "X"), (second, "Y"))]
    warn_few_rows(closed_form([name], chosen), sides, len(first))
    return score


@_warns
def compare_layers(
    first: Side,
    second: Side,
    measure: str = "cka",
    *,
    align: Align = "order",
    device: str | None = None,
    seed: int = 0,
    **options: Any,
) -> LayerScores:
    """One closed-form measure of every layer of one side with every layer of the other.

    Raises:
        ContraSimError: there is no such measure or option, the sides cannot be read, or do not line up.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> found = compare_layers({"top": x}, {"same": -x, "other": x[::-1]})
    >>> found.best()
    {'top': 'same'}
    >>> round(found["top", "same"], 6)
    1.0
    """
    (name,) = _one(measure)
    (scorer,) = closed_form([name], _options(options | {"seed": seed}))
    return _compared(scorer, first, second, align, device, seed)


def load_encoder(path: str | Path = "universal") -> LearnedMeasure:
    """An encoder made by `contrasim train`; `universal` is the one of the package.

    Raises:
        ContraSimError: the file is no finished encoder.

    >>> load_encoder().name
    'universal'
    """
    return LearnedMeasure(learned([Path(path)])[0])


@_warns
def open_store(path: str | Path) -> Store:
    """An activation file of any kind that contrasim reads: `layers` by name, `ids`, and `read(layer, start, stop)`.

    Raises:
        ContraSimError: it cannot be read.
    """
    return stores.open_store(Path(path))


@_warns
def extract(
    module: "torch.nn.Module",
    loader: Iterable[Any],
    layers: Iterable[str],
    *,
    pool: "Callable[[Tensor], Tensor] | None" = None,
) -> dict[str, npt.NDArray[Any]]:
    """What some modules of a network give for every example of a loader: matrices [rows, width] by name.

    `layers` are names of `module.named_modules()`. A batch of the loader is a tensor, a tuple of arguments or a dict of keyword
    arguments. Outputs of more than two axes need `pool`, which makes a matrix [batch, width] of them, such as
    `lambda states: states.mean(dim=1)`. The network is put into evaluation mode while it runs, without gradients. A loader that
    shuffles is warned of: rows of two calls are then different examples.

    Raises:
        UsageError: there is no such module, or its output needs `pool`.
        InputError: a module does not run, or gives no tensor, or the loader is empty.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU())
    >>> found = extract(net, [torch.ones(4, 3), torch.zeros(2, 3)], ["0", "1"])
    >>> {name: rows.shape for name, rows in found.items()}
    {'0': (6, 5), '1': (6, 5)}
    """
    import torch

    modules, names = dict(module.named_modules()), list(dict.fromkeys(layers))
    unknown = [name for name in names if name not in modules]
    if unknown or not names:
        known = ", ".join(map(quoted, [name for name in modules if name][:10]))
        raise UsageError(
            f"{quoted(unknown[0]) if unknown else 'layers'}: is not a module of the network; there are {known}"
        )
    if _shuffles(loader):
        log.warning(
            "the loader shuffles, so that rows of two calls are different examples; give one with shuffle=False"
        )
    rows: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    training = module.training
    with ExitStack() as stack, torch.no_grad():
        stack.callback(module.train, training)
        module.eval()
        batch: dict[str, torch.Tensor] = {}
        for name in names:
            stack.callback(modules[name].register_forward_hook(_keeper(batch, name)).remove)
        for inputs in loader:
            batch.clear()
            _run(module, inputs)
            for name in names:
                if name not in batch:
                    raise InputError(f"{quoted(name)}: did not run, or gave no tensor, for a batch of the loader")
                rows[name].append(_pooled(name, batch[name], pool))
    if not rows[names[0]]:
        raise InputError("the loader gave no batch")
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _shuffles(loader: Iterable[Any]) -> bool:
    """Whether a DataLoader draws examples in random order."""
    from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

    batches = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batches, "sampler", None))
    return any(isinstance(one, RandomSampler | SubsetRandomSampler | WeightedRandomSampler) for one in samplers)


def _keeper(batch: "dict[str, Tensor]", name: str) -> Callable[..., None]:
    import torch

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        state = (
            next((part for part in output if isinstance(part, torch.Tensor)), None)
            if isinstance(output, tuple)
            else output
        )
        if isinstance(state, torch.Tensor):
            batch[name] = state.detach()

    return keep


def _run(module: "torch.nn.Module", inputs: Any) -> None:
    if isinstance(inputs, Mapping):
        module(**inputs)
    elif isinstance(inputs, list | tuple):
        module(*inputs)
    else:
        module(inputs)


def _pooled(name: str, state: "Tensor", pool: "Callable[[Tensor], Tensor] | None") -> npt.NDArray[Any]:
    rows = state if pool is None else pool(state)
    if rows.ndim != 2 or len(rows) != len(state):
        raise UsageError(
            f"{quoted(name)}: gives {tuple(state.shape)}, of which pool must make one row per example, [{len(state)}, width]"
        )
    found: npt.NDArray[Any] = _readable(rows).numpy()
    return found


def _one(measure: str) -> list[str]:
    names = check_names([measure], "measure")
    if len(names) != 1:
        raise UsageError(f"measure {quoted(measure)}: names {len(names)} measures; give one")
    return names


def _options(options: Mapping[str, Any]) -> Options:
    twice = next((name for name, own in COMMANDS_NAMES.items() if name in options and own in options), None)
    if twice:
        raise UsageError(f"{twice} and {COMMANDS_NAMES[twice]} are one option; give one of them")
    for name, value in options.items():
        _check_option(name, value)
    try:
        return Options(**{COMMANDS_NAMES.get(name, name): value for name, value in options.items()})
    except TypeError as error:
        known = ", ".join(Options.__dataclass_fields__)
        raise UsageError(
            f"measures have no option {quoted(str(error).split(chr(39))[-2])}; they are {known}"
        ) from error


def _check_option(name: str, value: Any) -> None:
    own = COMMANDS_NAMES.get(name, name)
    if own in CHOICES and value not in CHOICES[own]:
        raise UsageError(f"{name}={value!r}: expected one of {', '.join(CHOICES[own])}")
    if own in CHOICES or own not in Options.__dataclass_fields__:
        return
    low, high = BOUNDS.get(own, (-math.inf, math.inf))
    whole = isinstance(getattr(Options, own), int)
    is_number = isinstance(value, numbers.Integral if whole else numbers.Real)
    if not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        room = f" from {low:g}" * (low > -math.inf) + f" to {high:g}" * (high < math.inf)
        raise UsageError(f"{name}={value!r}: expected {kind}{room}")


def _matrix(values: Matrix, where: str) -> npt.NDArray[Any]:
    """An array [n, p] of finite numbers."""
    try:
        array = np.asarray(_readable(values.detach()) if is_tensor(values) else values)
    except ValueError as error:
        raise InputError(f"{where}: is not an array of numbers") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where}: holds {array.dtype}, expected real numbers")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{where}: has the shape {array.shape}, expected a matrix of rows and neurons")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{where}: row {row} holds NaN or infinity")
    return array


def _readable(rows: "Tensor") -> "Tensor":
    """Rows in memory that NumPy reads, in a type that it has."""
    return (rows.float() if str(rows.dtype) == "torch.bfloat16" else rows).cpu()


def _opened(side: Side, where: str, stack: ExitStack) -> Store:
    if isinstance(side, Store):
        return side
    if isinstance(side, str | os.PathLike):
        opened = stores.open_store(Path(side))
        stack.callback(opened.close)
        return opened
    if not isinstance(side, Mapping):
        raise UsageError(
            f'{where}: is a {type(side).__name__}, not a mapping of layers; give {{"name": matrix}}, or use compare'
        )
    arrays = {name: _matrix(values, f"{where}: layer {quoted(name)}") for name, values in side.items()}
    if len({len(array) for array in arrays.values()}) != 1:
        counts = ", ".join(f"{quoted(name)} {len(array)}" for name, array in arrays.items()) or "none"
        raise MismatchError(f"{where}: layers must have the same rows, found {counts}")
    return Store(Path(where), "arrays", {name: Layer(name, array) for name, array in arrays.items()})


def _compared(scorer: Scorer, first: Side, second: Side, how: Align, device_name: str | None, seed: int) -> LayerScores:
    with ExitStack() as stack:
        both = [_opened(side, where, stack) for side, where in ((first, "first"), (second, "second"))]
        raw = align(both, how)
        in_memory = isinstance(first, Mapping) or isinstance(second, Mapping)  # which has no ids
        if how != "position" and not in_memory and (why := position_reason(both, how)):
            log.warning("rows are matched by position: %s", why)
        layers = [select_layers(list(one.layers), None, where=str(one.path)) for one in both]
        budget = memory_budget(None)
        standardizer = _standardizer(raw, scorer, layers)
        views = list(standardizer.views(scorer.standardize, layers, budget))
        plan = Plan(views, [(0, 1)], layers, layers)
        device = pick_device(device_name, work=multiplications(plan, [scorer]))
        raise_all(plan.problems(scorer))
        warn_few_rows([scorer], compared(raw, layers), plan.n_rows)
        check_familiar([scorer], layers, standardizer, budget)
        grid = Grid(plan, [scorer], device, budget, seed=seed, levels=True)
        values = layer_grids(grid)[0, 0, 1]
        warn_zero_rows(both)
    levels = grid.shuffled_of(0, 0, 1)
    null = exact(*levels) if levels else grid.nulls.get((0, 0, 1))
    standing = None if null is None else null.standing(values)
    if standing and not scorer.checkpoint:
        warn_unclear({scorer.name: standing}, both)
    shown = {
        name: column if np.isfinite(column).any() else None
        for name, column in (standing._asdict() if standing else {}).items()
        if name != "null_p"
    }
    return LayerScores(
        scorer.name,
        layers[0],
        layers[1],
        values,
        scorer.entry.higher_is_more_similar,
        shown.get("null"),
        shown.get("null_z"),
        shown.get("calibrated"),
    )


def _standardizer(views: list[View], scorer: Scorer, layers: list[list[str]]) -> Standardizer:
    """What makes rows as the scorer takes them."""
    rows_as = scorer.standardize
    anchors = Anchors(views, [], {})
    whitens = isinstance(rows_as, Standardization) and "whiten" in rows_as.kinds
    standardizer = Standardizer(views, None, whitens, anchors)
    standardizer.check(layers)
    if isinstance(rows_as, Anchoring):
        anchors.check(rows_as, layers)
    return standardizer
