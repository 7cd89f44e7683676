"""`contrasim score --plot-rows`: a few rows of the stores on a plane, before and after each encoder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from contrasim_cli import distributed
from contrasim_cli.commands.emit import FIGURE_FORMATS, check_plots
from contrasim_cli.errors import UsageError
from contrasim_cli.report.look import Look

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


@dataclass(frozen=True, kw_only=True)
class RowsPlot:
    """A few rows on a plane."""

    PANEL: ClassVar = "Picture of rows"
    paths: Annotated[
        list[Path] | None,
        typer.Option(
            "--plot-rows",
            help="Draw a few rows of the last selected layer on a plane, before and after the encoder "
            f"({FIGURE_FORMATS}); may repeat.",
        ),
    ] = None
    asked_count: Annotated[
        int | None, typer.Option("--plot-rows-count", min=1, help="Number of rows to draw; default: 5.")
    ] = None
    projection: Annotated[
        Literal["umap", "pca"] | None,
        typer.Option("--projection", help="--plot-rows: umap (extra: umap) or pca; default: umap if it is installed."),
    ] = None

    @property
    def count(self) -> int:
        """How many rows are drawn."""
        return self.asked_count or COUNT

    def check(self, stores: Sequence[Path], force: bool) -> None:
        """Refuse what cannot be drawn, before any work is done for it.

        Raises:
            UsageError: the suffix stands for no format, there are more stores than shapes, or nothing is to be drawn.
            MissingError: the extra `plot` is not there, or `umap` where it is asked for.
            OutputExistsError, OutputError: the file exists, or cannot be written.
        """
        if not self.paths:
            if self.asked_count is not None or self.projection is not None:
                raise UsageError("--plot-rows-count and --projection go with --plot-rows")
            return
        if len(stores) > MOST_VIEWS:
            raise UsageError(f"--plot-rows draws {MOST_VIEWS} stores at most, {len(stores)} given")
        distributed.by_first(lambda: check_plots(self.paths, force, "--plot-rows"))
        from contrasim_cli.projection import chosen_kind

        chosen_kind(self.projection)


def draw_rows(
    options: RowsPlot,
    inputs: "Inputs",
    layers: Sequence[str],
    scorers: "Sequence[Scorer]",
    standardizer: "Standardizer",
    *,
    device: "torch.device",
    budget: int,
    seed: int,
    names: Sequence[str],
    force: bool,
    look: Look,
) -> None:
    """Draw rows of one layer of every store, as they are and as each encoder sees them, to the paths of the options."""
    from contrasim_cli import plots, seeds
    from contrasim_cli.plots.rows import Plane
    from contrasim_cli.projection import FITTED, chosen_kind, project

    n_rows = inputs.views[0].n_rows
    sample = seeds.stream(seed, seeds.PROJECTED_ROWS).permutation(n_rows)[: max(FITTED, options.count)]
    kind = chosen_kind(options.projection)
    method = f"({kind.upper()} of {len(sample)} rows)"
    panels = []
    raw = [view.read(name, sample) for view, name in zip(inputs.views, layers, strict=True)]
    if len({rows.shape[1] for rows in raw}) == 1:
        panels.append(Plane(f"{'/'.join(dict.fromkeys(layers))} as stored {method}", project(raw, kind, seed)))
    else:
        log.info(
            "--plot-rows: layers of different widths share no space before the encoder; only rows after it are drawn"
        )
    for scorer in scorers:
        views = standardizer.views(scorer.standardize, [[name] for name in layers], budget)
        rows = [view.read(name, sample) for view, name in zip(views, layers, strict=True)]
        encoded = [
            scorer.rows(own, view.store, name, device).cpu().numpy()
            for own, view, name in zip(rows, inputs.views, layers, strict=True)
        ]
        panels.append(Plane(f"after {scorer.name} {method}", project(encoded, kind, seed)))
    count = min(options.count, n_rows)
    plots.draw_planes(panels, names, _ids(inputs, sample[:count]), options.paths or (), force, look)


def _ids(inputs: "Inputs", rows: "npt.NDArray[np.int64]") -> list[str]:
    """The names of some rows, or their numbers where they have none."""
    view = inputs.views[0]
    places: Any = rows if view.rows is None else view.rows[rows]
    ids = view.store.ids
    return [ids.read(int(place), int(place) + 1)[0] if ids else f"row {place}" for place in places]
