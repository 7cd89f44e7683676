"""Rows in two dimensions, to be looked at: UMAP (McInnes et al. 2018; extra `umap`) or principal components.

Distances on a plane say little of those between rows; that a row of one view lies beside the same row of the other is
what such a figure can show.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import MissingError

KINDS = ("umap", "pca")
FITTED = 500  # rows of each view that a plane is laid through
NEIGHBOURS = 15  # UMAP's own default

Doubles = npt.NDArray[np.float64]


def chosen_kind(asked: str | None) -> str:
    """The kind asked for; without one, UMAP where it is installed, else PCA.

    Raises:
        MissingError: UMAP is asked for without its extra.
    """
    there = importlib.util.find_spec("umap") is not None
    if asked == "umap" and not there:
        raise MissingError("--projection umap needs the extra umap: pip install 'contrasim[umap]'")
    return asked or ("umap" if there else "pca")


def project(views: Sequence[npt.NDArray[np.floating[Any]]], kind: str, seed: int) -> list[Doubles]:
    """Rows [n, p] of every view as points [n, 2] of one plane, laid through all of them together; the same for one seed."""
    together = np.concatenate(views).astype(np.float64)
    points = _umap(together, seed) if kind == "umap" else principal_components(together)
    return np.split(points, np.cumsum([len(view) for view in views])[:-1])


def principal_components(rows: Doubles) -> Doubles:
    """Rows [n, p] by their two widest directions [n, 2]; of a direction's two signs the one whose largest entry is positive."""
    centred = rows - rows.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    signs = [np.sign(one[np.abs(one).argmax()]) or 1.0 for one in directions]
    points = np.zeros((len(rows), 2))
    points[:, : len(directions)] = centred @ (directions * np.array(signs)[:, None]).T
    return points


def _umap(rows: Doubles, seed: int) -> Doubles:
    import umap

    neighbours = max(2, min(NEIGHBOURS, len(rows) - 1))
    start = principal_components(rows)
    spread = np.abs(start).max() or 1.0
    made = umap.UMAP(
        n_neighbors=neighbours, random_state=seed % 2**32, n_jobs=1, init=(10 * start / spread).astype(np.float32)
    )
    points: Doubles = made.fit_transform(rows).astype(np.float64)
    return points
