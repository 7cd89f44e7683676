"""Opening what a command was given: stores, lined up, with their layers chosen."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from contrasim_cli import __version__
from contrasim_cli.commands.options import Align, OnNan
from contrasim_cli.errors import ContraSimError, UsageError, raise_all
from contrasim_cli.store import Store, View, align, close_stores, drop_nonfinite, open_stores, select_layers


@dataclass
class Inputs(AbstractContextManager["Inputs"]):
    """Stores as views: row r of each is the same example."""

    paths: Sequence[Path]
    how: Align
    nan: OnNan

    def __enter__(self) -> "Inputs":
        self.stores: list[Store] = open_stores(self.paths)
        try:
            self.views: list[View] = align(self.stores, self.how.value)
        except BaseException:
            close_stores(self.stores)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_stores(self.stores)

    def select(self, *patterns: Sequence[str] | None, embeddings: bool = True) -> list[list[list[str]]]:
        """For each set of patterns, the layers of every store; and with `--nan drop`, leave bad rows out."""
        problems: list[ContraSimError] = []
        chosen: list[list[list[str]]] = [[] for _ in patterns]
        for found, wanted in zip(chosen, patterns, strict=True):
            for store in self.stores:
                try:
                    found.append(
                        select_layers(list(store.layers), wanted, where=str(store.path), embeddings=embeddings)
                    )
                except ContraSimError as problem:
                    problems.append(problem)
        raise_all(list({str(problem): problem for problem in problems}.values()))  # sides often ask for the same
        self.drop(chosen)
        return chosen

    def drop(self, chosen: Sequence[Sequence[Sequence[str]]]) -> None:
        """With `--nan drop`, leave out the rows that are bad in any of the chosen layers."""
        if self.nan is OnNan.drop:
            together = [
                list(dict.fromkeys(n for names in per_store for n in names)) for per_store in zip(*chosen, strict=True)
            ]
            self.views = drop_nonfinite(self.views, together)

    def about(self, **more: Any) -> dict[str, Any]:
        """What JSON carries besides the results."""
        import torch

        return {
            "inputs": [str(path) for path in self.paths],
            "rows": self.views[0].n_rows,
            "widths": [{name: layer.width for name, layer in store.layers.items()} for store in self.stores],
            "versions": {"contrasim": __version__, "torch": str(torch.__version__)},
            **more,
        }


def at_least(paths: Sequence[Path], count: int, command: str) -> None:
    """Refuse too few stores.

    Raises:
        UsageError: fewer than `count`.
    """
    if len(paths) < count:
        raise UsageError(f"{command} compares {count} or more stores, {len(paths)} given")
