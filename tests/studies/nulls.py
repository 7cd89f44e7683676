"""Do calibrated scores lie at 0, and are p-values uniform, where rows have nothing to do with each other?

Run: python tests/studies/nulls.py --zoos FOLDER [--encoder universal] [--rows 2000] [--draws 3] [--random FOLDER]

For pairs of the first seeds of every zoo that `zoos.py` made, the second store's rows are replaced by unrelated ones:

- shuffled: its own rows in another order;
- Gaussian: rows drawn from the normal distribution of each layer's mean and covariance, all layers at once independently;
- other data: what the same network makes of another data set;
- random weights (`--random`, zoos of networks that were not trained): the same inputs, so that they are related; reported alone.

Cells of one grid share rows, so that of every grid one cell is drawn, and the p-values of these are held against the uniform
distribution (Kolmogorov and Smirnov). `same layer`: z of the cells on the diagonal of the stores as they are.
"""

import argparse
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from scipy import stats

from contrasim_cli.grid import Grid, Plan, compute
from contrasim_cli.scoring import Scorer, learned
from contrasim_cli.store import View, open_store

Rows = dict[str, Any]
CLEAR = 5.0
COUNTER = itertools.count()


def read(path: Path, rows: int) -> Rows:
    """The first rows of all layers of a store, in float64."""
    view = View(open_store(path))
    return {
        name: np.asarray(view.read(name, np.arange(min(rows, view.n_rows))), np.float64) for name in view.store.layers
    }


def write(path: Path, layers: Rows) -> View:
    """A store of these layers in a new file, opened."""
    path = path.with_stem(f"{path.stem}{next(COUNTER)}")
    with h5py.File(path, "w") as file:
        file.attrs.update(format="contrasim-activations", format_version=1, complete=True)
        for k, (name, values) in enumerate(layers.items()):
            file[f"layers/{name}"] = values.astype(np.float32)
            file[f"layers/{name}"].attrs["index"] = k
    return View(open_store(path))


def shuffled(layers: Rows, rng: np.random.Generator) -> Rows:
    """Rows in another order, the same for all layers."""
    order = rng.permutation(len(next(iter(layers.values()))))
    return {name: values[order] for name, values in layers.items()}


def gaussian(layers: Rows, rng: np.random.Generator) -> Rows:
    """Normal rows of the same mean and covariance."""
    found = {}
    for name, values in layers.items():
        mean, (n, p) = values.mean(axis=0), values.shape
        noise = rng.normal(size=(n, n)) if n < p else rng.normal(size=(n, p))
        left, sizes, right = np.linalg.svd((values - mean) / np.sqrt(n - 1), full_matrices=False)
        found[name] = mean + noise[:, : len(sizes)] * sizes @ right
        assert left.shape[0] == n
    return found


def standing(scorer: Scorer, one: View, other: View, seed: int) -> tuple[Any, Any, Any]:
    """Calibrated scores, z and p [L, M] of a pair."""
    layers = [list(one.store.layers), list(other.store.layers)]
    grid = Grid(Plan([one, other], [(0, 1)], layers, layers), [scorer], torch.device("cpu"), 4 << 30, seed=seed)
    compute(grid)
    found = grid.nulls[0, 0, 1].standing(grid.scores_of(0, 0, 1))
    return found.calibrated, found.null_z, found.null_p


def pairs(folder: Path, zoo: str, data: str, count: int) -> Iterator[tuple[Path, Path]]:
    """Pairs of the first seeds of a zoo."""
    names = sorted(path.name for path in (folder / zoo / data).glob("s*.h5") if path.stem[1:].isdigit())
    for one, other in itertools.islice(itertools.combinations(names, 2), count):
        yield folder / zoo / data / one, folder / zoo / data / other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoos", type=Path, required=True)
    parser.add_argument("--random", type=Path)
    parser.add_argument("--encoder", type=Path, default=Path("universal"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("contrasim_cli").setLevel(logging.ERROR)  # that rows are unrelated is warned of
    (scorer,) = learned([options.encoder])
    rng = np.random.default_rng(0)
    changes: dict[str, Callable[[Rows, np.random.Generator], Rows]] = {"shuffled": shuffled, "Gaussian": gaussian}
    means: dict[str, list[float]] = {}
    drawn: dict[str, list[float]] = {}
    own: dict[str, list[float]] = {}

    def note(kind: str, zoo: str, found: tuple[Any, Any, Any]) -> None:
        calibrated, _, p = found
        means.setdefault(kind, []).append(float(calibrated.mean()))
        drawn.setdefault(kind, []).append(float(p.flat[rng.integers(p.size)]))
        means.setdefault(f"{kind}, {zoo}", []).append(float(calibrated.mean()))

    with tempfile.TemporaryDirectory() as folder:
        for zoo in sorted(path.name for path in options.zoos.iterdir()):
            for k, (a, b) in enumerate(pairs(options.zoos, zoo, "test", options.pairs)):
                first, second = read(a, options.rows), read(b, options.rows)
                one = write(Path(folder) / "a.h5", first)
                same = standing(scorer, one, write(Path(folder) / "b.h5", second), k)
                own.setdefault(zoo, []).extend(np.diagonal(same[1]))
                for kind, change in changes.items():
                    for draw in range(options.draws):
                        note(kind, zoo, standing(scorer, one, write(Path(folder) / "b.h5", change(second, rng)), draw))
                elsewhere = read(options.zoos / zoo / "other" / b.name, options.rows)
                note("other data", zoo, standing(scorer, one, write(Path(folder) / "b.h5", elsewhere), k))
                if options.random and (options.random / zoo / "test" / b.name).exists():
                    untrained = read(options.random / zoo / "test" / b.name, options.rows)
                    note("random weights", zoo, standing(scorer, one, write(Path(folder) / "b.h5", untrained), k))
            print(f"{zoo}: same layer z {min(own[zoo]):.1f} to {max(own[zoo]):.1f}", flush=True)
    print("| rows | grids | mean calibrated | of a zoo, least to greatest | p: KS |\n" + "|---" * 5 + "|")
    for kind, values in drawn.items():
        zoos = [np.mean(found) for name, found in means.items() if name.startswith(f"{kind}, ")]
        uniform = stats.kstest(values, "uniform").pvalue
        print(
            f"| {kind} | {len(values)} | {np.mean(means[kind]):+.3f} | {min(zoos):+.3f} to {max(zoos):+.3f} | {uniform:.2f} |"
        )
    every = np.concatenate([np.array(values) for values in own.values()])
    share = 100 * np.mean(every >= CLEAR)
    print(f"same layer: z of {CLEAR:g} or more in {share:.1f} % of {len(every)} cells, least {every.min():.1f}")


if __name__ == "__main__":
    main()
