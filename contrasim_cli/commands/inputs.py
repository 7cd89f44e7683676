"""Opening what a command was given: stores, lined up, with their layers chosen."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from contrasim_cli.commands import complete, record
from contrasim_cli.errors import ContraSimError, UsageError, raise_all

if TYPE_CHECKING:
    from contrasim_cli.anchors import Anchoring
    from contrasim_cli.commands.options import Standardizing
    from contrasim_cli.scoring import Scorer
    from contrasim_cli.store import Store, View
    from contrasim_cli.transforms import RowsAs, Standardizer

log = logging.getLogger(__name__)

Align = Literal["order", "ids", "position"]
AlignOption = Annotated[
    Align,
    typer.Option(
        "--align",
        help="order: ids must agree in order; ids: keep the common ids, reordered; position: row by row, ignoring ids.",
    ),
]
ZeroRowsOption = Annotated[
    Literal["keep", "drop"] | None,
    typer.Option(
        "--zero-rows",
        help="Rows that are zero in every layer: keep them, or drop them from every store; default: more than 1 % are refused.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which layers and rows of the stores are read."""

    PANEL: ClassVar = "Layers and rows"
    MAIN: ClassVar = ("layers", "layers_a", "layers_b", "align")
    REST: ClassVar = "Bad rows"
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers",
            help="Layers by name, index (-1 is the last), range (2-5) or glob; repeat for several.",
            autocompletion=complete.layers,
        ),
    ] = None
    layers_a: list[str] | None = None
    layers_b: list[str] | None = None
    align: AlignOption = "order"
    nan: Annotated[
        Literal["error", "drop"],
        typer.Option("--nan", help="error: refuse NaN and Inf; drop: drop such rows from every store."),
    ] = "error"
    zero_rows: ZeroRowsOption = None

    @property
    def sides(self) -> tuple[list[str] | None, list[str] | None]:
        """The patterns of layers of the two sides of a comparison."""
        return self.layers_a or self.layers, self.layers_b or self.layers


@dataclass(frozen=True, kw_only=True)
class SidedRows(Rows):
    """Choice of rows and layers, where the two sides of a comparison may differ in layers."""

    layers_a: Annotated[
        list[str] | None,
        typer.Option("--layers-a", help="As --layers, for the first side only.", autocompletion=complete.layers),
    ] = None
    layers_b: Annotated[
        list[str] | None,
        typer.Option("--layers-b", help="As --layers, for the second side only.", autocompletion=complete.layers),
    ] = None


def _refuse_layers(paths: Sequence[Path]) -> None:
    """Refuse numbers in place of stores, as in `--layers 0 1`: an option takes one value."""
    numbers = [path.name for path in paths if path.name == str(path) and path.name.isdigit() and not path.exists()]
    if numbers:
        raise UsageError(
            f"{numbers[0]}: there is no such file; for several layers repeat the option, --layers 0 --layers {numbers[0]}, or give "
            f"a range, --layers 0-{numbers[0]}"
        )


@dataclass
class Inputs(AbstractContextManager["Inputs"]):
    """Stores as views: row r of each is the same example. `budget` are the bytes that what is held of a file may take.

    `most`: how many rows are taken at most, a choice of blocks by `seed`.
    """

    paths: Sequence[Path]
    rows: Rows
    budget: int | None = None
    most: int | None = None
    seed: int = 0
    no_embeddings: bool = field(default=False, init=False)  # left out of a store, where nobody chose layers

    def __enter__(self) -> "Inputs":
        from contrasim_cli.store import align, close_stores
        from contrasim_cli.store.sample import sampled

        self._sources: list[Store] = []
        self.stores: list[Store] = self._open(self.paths)
        try:
            self.views: list[View] = sampled(align(self.stores, self.rows.align), self.most, self.seed)
        except BaseException:
            close_stores(self.stores)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from contrasim_cli.store import close_stores

        try:
            if kind is None:
                self.check_zero_rows()
        finally:
            close_stores([*self.stores, *self._sources])

    def _open(self, paths: Sequence[Path]) -> "list[Store]":
        from contrasim_cli.store import Hints, open_stores

        _refuse_layers(paths)
        first, second = self.rows.sides  # which decide in files whose arrays have different rows
        patterns = list(dict.fromkeys([*first, *second])) if first and second else None
        stores = open_stores(paths, Hints(layers=patterns, budget=self.budget))
        for store in stores:
            if self.rows.zero_rows is not None and store.zero_rows is not None:
                store.zero_rows.settled = True
        return stores

    def check_zero_rows(self) -> None:
        """Warn of the rows that were zero in all layers that were read of a store.

        Raises:
            InputError: they are more than a few, and nobody has said what to do with them.
        """
        from contrasim_cli.store.zero_rows import check_zero_rows, share_zero_rows

        stores = [*self.stores, *self._sources]
        share_zero_rows(stores)
        check_zero_rows(stores)

    def select(self, embeddings: bool = True) -> list[list[str]]:
        """The chosen layers of every store; with `--nan drop`, rows that are bad in one of them are left out."""
        return self._choose([self.rows.layers], embeddings)[0]

    def select_sides(self, embeddings: bool = True, repeats: int = 0) -> tuple[list[list[str]], list[list[str]]]:
        """Choose layers for the two sides of a comparison; the last store is never a first side, the first never a second.

        `repeats`: how many stores follow the last one that are repeats of it, and as it is second sides alone.
        """
        as_first, as_second = self._choose(self.rows.sides, embeddings, repeats)
        return as_first, as_second

    def _choose(
        self, sides: Sequence[Sequence[str] | None], embeddings: bool, repeats: int = 0
    ) -> list[list[list[str]]]:
        from contrasim_cli.store import select_layers

        problems: dict[str, ContraSimError] = {}  # both sides often ask for the same
        layers: list[list[list[str]]] = [[[] for _ in self.stores] for _ in sides]
        for side, patterns in enumerate(sides):
            stores = list(enumerate(self.stores))
            for k, store in stores if len(sides) == 1 else (stores[: -1 - repeats], stores[1:])[side]:
                try:
                    names = select_layers(list(store.layers), patterns, where=str(store.path), embeddings=embeddings)
                    layers[side][k] = names
                    self.no_embeddings |= not patterns and len(names) < len(store.layers)
                except ContraSimError as problem:
                    problems[str(problem)] = problem
        raise_all(list(problems.values()))
        self._drop([list(dict.fromkeys(itertools.chain(*names))) for names in zip(*layers, strict=True)])
        return layers

    def _drop(self, layers: Sequence[Sequence[str]]) -> None:
        """Leave out rows that are bad, or zero, in the chosen layers of any store, where that is asked for."""
        from contrasim_cli.store import drop_nonfinite, drop_zero_rows
        from contrasim_cli.store.zero_rows import probe_zero_rows

        if self.rows.zero_rows == "drop":
            self.views = drop_zero_rows(self.views, layers)
        elif self.rows.zero_rows is None:
            for store, names in zip(self.stores, layers, strict=True):
                probe_zero_rows(store, names)
        if self.rows.nan == "drop":
            self.views = drop_nonfinite(self.views, layers)

    def standardizer(
        self,
        statistics_from: Sequence[Path],
        hows: Sequence["RowsAs"],
        layers: Sequence[Sequence[str]],
        anchor_stores: Sequence[Path] = (),
        anchors_of: "Mapping[Anchoring, Sequence[Path]] | None" = None,
    ) -> "Standardizer":
        """What standardises these layers of the stores, by the statistics of the stores asked for or by their own.

        Where rows are to be anchored, their anchors are those of the anchor stores, or of the stores themselves; `anchors_of`
        has the stores, one per store, of certain ones.

        Raises:
            UsageError: statistics or anchors are asked for that nothing needs.
            MismatchError: anchors are missing.
        """
        from contrasim_cli.anchors import Anchoring, Anchors
        from contrasim_cli.store import View, drop_nonfinite
        from contrasim_cli.transforms import Standardization, Standardizer

        anchorings = list(dict.fromkeys(how for how in hows if isinstance(how, Anchoring)))
        if anchor_stores and not anchorings:
            raise UsageError("--anchor-store goes with an encoder trained on anchored rows (train --inputs anchors)")
        if statistics_from and not any(how for how in hows if how not in anchorings):
            raise UsageError("--standardize-from goes with --standardize, or an encoder trained on standardised rows")
        sources = self._open(statistics_from)
        self._sources += sources
        of = {} if anchor_stores else dict(anchors_of or {})
        paths = list(dict.fromkeys((*anchor_stores, *itertools.chain(*of.values()))))
        opened = dict(zip(paths, self._open(paths), strict=True))
        self._sources += opened.values()
        anchors = Anchors(
            self.views,
            [opened[path] for path in anchor_stores],
            {anchoring: [opened[path] for path in stores] for anchoring, stores in of.items()},
        )
        whitens = any("whiten" in how.kinds for how in hows if isinstance(how, Standardization))
        standardizer = Standardizer(self.views, [View(store) for store in sources] or None, whitens, anchors)
        standardizer.check(layers)
        for anchoring in anchorings:
            standardizer.anchors.check(anchoring, layers)
        if self.rows.nan == "drop":
            standardizer.sources = [
                drop_nonfinite([v], [n])[0] for v, n in zip(standardizer.sources, layers, strict=True)
            ]
        return standardizer

    def standardizer_of(
        self,
        options: "Standardizing",
        scorers: Sequence["Scorer"],
        layers: Sequence[Sequence[str]],
        anchors_of: "Mapping[Anchoring, Sequence[Path]] | None" = None,
    ) -> "Standardizer":
        """The standardiser for all that scorers take rows as."""
        hows = [scorer.standardize for scorer in scorers]
        return self.standardizer(options.standardize_from or (), hows, layers, options.anchor_stores or (), anchors_of)

    def about(self, **more: Any) -> dict[str, Any]:
        """What JSON carries besides the results."""
        return {
            "inputs": [str(path) for path in self.paths],
            "rows": self.views[0].n_rows,
            "widths": [{name: layer.width for name, layer in store.layers.items()} for store in self.stores],
            "versions": record.versions(),
            **more,
        }


def note_embeddings(inputs: Sequence[Inputs]) -> None:
    """Say once that embeddings are left out, where nobody chose layers."""
    if any(one.no_embeddings for one in inputs):
        from contrasim_cli.store.select_layers import EMBEDDINGS

        log.info("%s (the embeddings) is left out; --layers '*' includes it", EMBEDDINGS)


def note_trained(scorers: "Sequence[Scorer]", views: "Sequence[View]") -> None:
    """Say which of the rows and models encoders were trained on; without encoders nothing is loaded for it."""
    if any(scorer.checkpoint for scorer in scorers):
        from contrasim_cli.training import recognised

        recognised.note_trained(scorers, views)
