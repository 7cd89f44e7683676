"""How the views of one row differ, layer by layer, and the maps that make all their differences equally large (WCCN).

With x_v the row in view v less that view's mean, and x̄ the mean of the x_v, W is the mean over rows of Σ_v (x_v - x̄)(x_v - x̄)ᵀ
/ (V - 1): the covariance within rows, of what is not the row's own. Rows are multiplied by

    W_s^(-1/2), W_s = (1 - s) W + s (tr Σ / p) I

where Σ is the mean covariance of the views and s the shrinkage (within-class covariance normalisation: Hatch et al. 2006).
Unlike whitening this keeps the directions wide in which rows differ and views do not; and it is estimated once, where rows
are many, so that stores of few rows need no covariance of their own when they are scored.
"""

import numpy as np

from contrasim_cli.encoder import Config
from contrasim_cli.errors import MismatchError, UsageError
from contrasim_cli.names import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.store.blocks import row_blocks
from contrasim_cli.training.data import Data
from contrasim_cli.training.shuffle import Rows, held_out_rows
from contrasim_cli.transforms import Doubles, Standardizer, Within, shrunk_inverse_root


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
    """The scatter of all rows that are not held out, streamed, and their number."""
    rows = np.setdiff1d(np.arange(data.n_rows), held_out_rows(data.n_rows, config))
    layer = data.views[0].store.layer(data.layers[0][k])
    blocks = (rows[slice(*block)] for block in row_blocks(layer, len(rows)))
    return sum(scatter(centred_rows(data, standardizer, k, block)) for block in blocks), len(rows)  # type: ignore[return-value]


def level(data: Data, standardizer: Standardizer, k: int) -> Doubles:
    """The views' mean variance [p] of each column of the k-th layer."""
    found: Doubles = np.mean(
        [standardizer.statistics(v, names[k]).variance for v, names in enumerate(data.layers)], axis=0
    )
    return found


Spectrum = tuple[Doubles, Doubles]  # eigenvalues [p], vectors [p, p]


def spectrum(covariance: Doubles) -> Spectrum:
    """Of W [p, p]; it serves every shrinkage."""
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
            "--standardize within takes a --shrinkage greater than 0: views may not differ in some direction"
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
