"""Grids by every way that measures have, over stores of a folder: run by every rank, prints JSON of all scores.

`no-sums` takes the first rank's part for the sum over ranks, to show that this would be seen.
"""

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from contrasim_cli import distributed, transforms
from contrasim_cli.errors import InputError
from contrasim_cli.grid import Grid, layer_grids
from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import MEASURES, Options
from contrasim_cli.scoring import Scorer, closed_form, learned
from contrasim_cli.store import Store, View, open_store
from contrasim_cli.store.blocks import spans
from contrasim_cli.store.zeros import ZeroRows
from contrasim_cli.transforms import Standardization, Standardizer

compute_module: Any = importlib.import_module("contrasim_cli.grid.compute")  # whose name in the package is a function
CPU = torch.device("cpu")
LARGE, SMALL = (
    1 << 40,
    20_000,
)  # all rows are kept; so little that they are read in every pass, of which there are several
EDGE = 1_700_000  # so much that one process keeps all rows and those shuffled, and the larger share of one of two is too large
EVERY = [name for name in MEASURES if not MEASURES[name].extra]
QUICK = Options(topology_rows=60, topology_trials=2)  # of loops, which are no sums over ranks
WHOLE = [s.name for s in closed_form(EVERY) if not any((s.measure.moments, s.measure.energy, s.measure.whiten, s.measure.rowwise,
                                                       s.measure.own, s.measure.batches, s.measure.pairs))]  # fmt: skip
STREAMED = [name for name in EVERY if name not in WHOLE]

Found = dict[str, Any]


def grid(folder: Path, stores: str, scorers: list[Scorer], budget: int, **options: Any) -> Found:
    """Scores of two stores by name, and by which way they came."""
    views = [View(open_store(folder / f"{name}.h5")) for name in stores]
    layers = [list(view.store.layers) for view in views]
    ways: dict[str, str] = {}
    chosen = compute_module._form

    def noted(grid: Grid, scorer: Scorer) -> Any:
        way = chosen(grid, scorer)
        ways[scorer.name] = f"{way.__module__.rpartition('.')[2]}.{way.__name__}"
        return way

    compute_module._form = noted
    try:
        whole = Grid(Plan(views, [(0, 1)], layers, layers), scorers, CPU, budget, levels=True, **options)
        found = layer_grids(whole)
    finally:
        compute_module._form = chosen
    return {
        scorers[s].name: {
            "scores": scores.tolist(),
            "way": ways.get(scorers[s].name),
            "shuffled": [values.tolist() for values in whole.shuffled_of(s, 0, 1) or ()],
        }
        for (s, _, _), scores in found.items()
    }


def statistics(folder: Path, kind: str) -> list[Any]:
    """Rows of a store as its own statistics standardise them."""
    views = [View(open_store(folder / "a.h5"))]
    layers = [list(views[0].store.layers)]
    transforms.row_blocks = lambda layer, n_rows: spans(n_rows, 50)  # type: ignore[assignment]
    (view,) = Standardizer(views).views(Standardization(kind), layers, LARGE)
    return [view.read(name)[::50].tolist() for name in layers[0]]


def zero_rows() -> list[Any]:
    """What is known of five rows, of which every rank saw one, and the last rank one more that is alive."""
    rows, own = ZeroRows(5), torch.zeros(1, 2).numpy()
    rows.look(distributed.rank(), own)
    if distributed.rank() == distributed.world() - 1:
        rows.look(0, own + 1)
    rows.merge()
    return [rows.seen.tolist(), rows.places.tolist()]


def rows_read(folder: Path) -> list[int]:
    """How many rows of a layer this rank reads for measures that go by rows; of one layer and measure after another."""
    counts: dict[str, int] = {}
    read = Store.read

    def counted(store: Store, name: str, start: int, stop: int) -> Any:
        counts[name] = counts.get(name, 0) + stop - start
        return read(store, name, start, stop)

    found = []
    for name in ("cka", "gulp", "dot", "cka_minibatch"):
        counts.clear()
        with mock.patch.object(Store, "read", counted):
            grid(folder, "ae", closed_form([name], Options(minibatch=16)), LARGE)
        found += [*counts.values()]
    return found


def layers_made(folder: Path) -> list[Any]:
    """How many layers this rank prepares where measures make something of each of them, and the scores."""
    module: Any = importlib.import_module("contrasim_cli.grid.prepared")
    with mock.patch.object(module, "_own", side_effect=module._own) as made:
        scores = grid(folder, "ab", closed_form(["frechet_distance"]), LARGE)["frechet_distance"]["scores"]
    return [made.call_count, scores]


def found(folder: Path) -> dict[str, Any]:
    """Everything, by the name of the case."""
    encoders = [folder / "enc.pt", Path("universal")]
    return {
        "kept": grid(folder, "ab", closed_form(EVERY, QUICK), LARGE),
        "kept, exact": grid(folder, "ab", closed_form(EVERY, QUICK), LARGE, precision=torch.float64),
        "streamed": grid(folder, "ab", closed_form(STREAMED), SMALL),
        "streamed, exact": grid(folder, "ab", closed_form(STREAMED), SMALL, precision=torch.float64),
        "wide": grid(folder, "cd", closed_form(["cka", "cka_debiased", "cca", "gulp"]), LARGE, precision=torch.float64),
        "wide, streamed": grid(folder, "cd", closed_form(["cka", "cka_debiased"]), SMALL, precision=torch.float64),
        "encoders": grid(folder, "ae", learned(encoders), LARGE),
        "encoders, at the edge": grid(folder, "ae", learned(encoders), EDGE // distributed.world()),
        "whitened rows": statistics(folder, "whiten"),
        "scaled rows": statistics(folder, "zscore"),
    }


def everything(folder: Path) -> dict[str, Any]:
    """And what only ranks know."""
    return found(folder) | {"zero rows": zero_rows(), "read": rows_read(folder), "made": layers_made(folder)}


def first_part(*tensors: torch.Tensor) -> None:
    """What a sum over ranks is not."""
    for tensor in tensors:
        tensor.copy_(torch.from_numpy(distributed.gathered_arrays(tensor.numpy())[0]))


def without_sums(folder: Path) -> dict[str, Any]:
    """Streamed scores of each measure, None of one that fails, where ranks take the first one's part for the sum."""
    distributed.total = first_part
    scores: Found = {}
    for name in STREAMED:
        scores[name] = None
        with contextlib.suppress(RuntimeError):
            scores |= grid(folder, "ab", closed_form([name]), SMALL)
    rows: list[Any] = []
    with contextlib.suppress(InputError):
        rows = statistics(folder, "whiten")
    return {"streamed": scores, "whitened rows": rows}


if __name__ == "__main__":
    of = without_sums if sys.argv[2:] == ["no-sums"] else everything
    with distributed.joined():
        result = of(Path(sys.argv[1]))
    json.dump(result, sys.stdout)  # more than a pipe takes, which is read one rank after another
