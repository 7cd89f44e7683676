"""Opening what a command was given: stores, lined up, with their layers chosen."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from contrasim_cli import __version__
from contrasim_cli.commands.options import Align, OnNan
from contrasim_cli.errors import UsageError
from contrasim_cli.store import Store, View, align, drop_nonfinite, open_stores, select_layers


@dataclass
class Inputs(AbstractContextManager["Inputs"]):
    """Stores as views: row r of each is the same example."""

    paths: Sequence[Path]
    how: Align
    nan: OnNan

    def __enter__(self) -> "Inputs":
        self.stores: list[Store] = open_stores(self.paths)
        self.views: list[View] = align(self.stores, self.how.value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for store in self.stores:
            store.close()

    def select(self, *patterns: Sequence[str] | None, embeddings: bool = True) -> list[list[list[str]]]:
        """For each set of patterns, the layers of every store; and with `--nan drop`, leave bad rows out."""
        chosen = [
            [select_layers(list(s.layers), wanted, where=str(s.path), embeddings=embeddings) for s in self.stores]
            for wanted in patterns
        ]
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
