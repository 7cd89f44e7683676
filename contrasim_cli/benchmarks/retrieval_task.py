"""What a retrieval benchmark compares."""

from collections.abc import Sequence
from dataclasses import dataclass

from contrasim_cli.benchmarks.items import Labels, Siblings
from contrasim_cli.benchmarks.negatives import batches
from contrasim_cli.store import View
from contrasim_cli.store.blocks import RowIndex
from contrasim_cli.transforms import Standardizer


@dataclass(frozen=True)
class RetrievalTask:
    """What is compared: views with their layers in matching order, ordered pairs of views, the kinds of negatives."""

    views: Sequence[View]
    names: Sequence[str]
    layers: Sequence[Sequence[str]]
    pairs: Sequence[tuple[int, int]]
    negatives: Sequence[str]
    batch_size: int
    seed: int = 0
    candidates_from: View | None = None
    index: str = "exact"  # or ivf, which searches approximately
    standardizer: Standardizer | None = None  # by the views' own statistics unless given
    siblings: Siblings | None = None
    pool_labels: Sequence[Labels] = ()  # of the rows of `candidates_from`, in every way in which siblings are labelled

    @property
    def n_rows(self) -> int:
        """Rows of every view."""
        return self.views[0].n_rows

    @property
    def cut(self) -> list[RowIndex]:
        """Rows of every batch; the last ones may have fewer than the others."""
        return self.siblings.cut(self.batch_size)[0] if self.siblings else batches(self.n_rows, self.batch_size)

    @property
    def blocks(self) -> Labels | None:
        """[batches] which are of the same items, where rows belong to items."""
        return self.siblings.cut(self.batch_size)[1] if self.siblings else None

    @property
    def layer_names(self) -> list[str]:
        """Names of the zipped layers: one where the views agree, both where not."""
        together = zip(*self.layers, strict=True)
        return [names[0] if len(set(names)) == 1 else "/".join(dict.fromkeys(names)) for names in together]
