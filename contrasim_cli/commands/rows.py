"""`contrasim score --plot-rows`: a few rows of the stores on a plane, before and after each encoder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrasim_cli.commands.emit import check_plot
from contrasim_cli.errors import UsageError
from contrasim_cli.names import distinct_names
from contrasim_cli.output_files import check_output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from contrasim_cli.commands.inputs import Inputs
    from contrasim_cli.scoring import Scorer
    from contrasim_cli.transforms import Standardizer

log = logging.getLogger(__name__)

COUNT = 5  # of the paper's Figure 5
MOST_VIEWS = 10  # as many shapes as there are


@dataclass(frozen=True)
class RowsPlot:
    """What is asked for; `kind` umap, pca, or None for the best that is installed."""

    path: Path
    count: int = COUNT
    kind: str | None = None

    def check(self, stores: Sequence[Path], force: bool) -> None:
        """Refuse what cannot be drawn, before any work is done for it.

        Raises:
            UsageError: the suffix stands for no format, or there are more stores than shapes.
            MissingError: the extra `plot` is not there, or `umap` where it is asked for.
            OutputExistsError, OutputError: the file exists, or cannot be written.
        """
        if len(stores) > MOST_VIEWS:
            raise UsageError(f"--plot-rows draws {MOST_VIEWS} stores at most, {len(stores)} given")
        check_plot(self.path, "--plot-rows")
        check_output(self.path, force)
        from contrasim_cli.projection import chosen_kind

        chosen_kind(self.kind)


def draw_rows(
    asked: RowsPlot,
    inputs: "Inputs",
    layers: Sequence[str],
    scorers: "Sequence[Scorer]",
    standardizer: "Standardizer",
    *,
    device: "torch.device",
    budget: int,
    seed: int,
    force: bool,
) -> None:
    """Draw rows of one layer of every store, as they are and as each encoder sees them."""
    from contrasim_cli import plots, seeds
    from contrasim_cli.plots.rows import Plane
    from contrasim_cli.projection import FITTED, chosen_kind, project

    n_rows = inputs.views[0].n_rows
    chosen = seeds.stream(seed, seeds.PROJECTED_ROWS).permutation(n_rows)[: max(FITTED, asked.count)]
    kind = chosen_kind(asked.kind)
    said = f"({kind.upper()} of {len(chosen)} rows)"
    panels = []
    raw = [view.read(name, chosen) for view, name in zip(inputs.views, layers, strict=True)]
    if len({rows.shape[1] for rows in raw}) == 1:
        panels.append(Plane(f"{'/'.join(dict.fromkeys(layers))} as stored {said}", project(raw, kind, seed)))
    else:
        log.info("--plot-rows: layers of different widths are in no one space before the encoder; drawn after it alone")
    for scorer in scorers:
        views = standardizer.views(scorer.standardize, [[name] for name in layers], budget)
        rows = [view.read(name, chosen) for view, name in zip(views, layers, strict=True)]
        encoded = [
            scorer.rows(own, view.store, name, device).cpu().numpy()
            for own, view, name in zip(rows, inputs.views, layers, strict=True)
        ]
        panels.append(Plane(f"after {scorer.name} {said}", project(encoded, kind, seed)))
    count = min(asked.count, n_rows)
    plots.draw_planes(panels, distinct_names(inputs.paths), _ids(inputs, chosen[:count]), asked.path, force)


def _ids(inputs: "Inputs", rows: "npt.NDArray[np.int64]") -> list[str]:
    """The names of some rows, or their numbers where they have none."""
    view = inputs.views[0]
    places: Any = rows if view.rows is None else view.rows[rows]
    ids = view.store.ids
    return [ids.read(int(place), int(place) + 1)[0] if ids else f"row {place}" for place in places]
