"""Scores of many small batches at once: each view's batches against the right one and the wrong ones of another view.

What a measure makes of a candidate is made once and compared with every view that is asked about it: of CKA the Gram matrix
of 8 rows, for example, so that a comparison costs 64 products and not those of the rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contrasim_cli.arrays import Tensor, xp
from contrasim_cli.measures.protocol import InnerForm, Measure, RowForm, expand
from contrasim_cli.rows.rows import Taken
from contrasim_cli.scoring import Scorer

DOUBT = 1e-6  # scores of vectors made in float32 that differ by less are taken again in float64: a tie is a tie
VECTOR_ROWS = 256  # larger batches are compared as `prepare` makes them: a Gram matrix has rows² values


def takes_near(scorer: Scorer, batch_size: int) -> bool:
    """Whether rows had better be taken relative to their mean."""
    inner = scorer.measure.inner if scorer.checkpoint is None and batch_size <= VECTOR_ROWS else None
    return inner is not None and inner.near is not None


def by_key(scorers: Sequence[Scorer], positions: Sequence[int]) -> Iterator[list[int]]:
    """Positions of scorers that share what they make of a batch."""
    groups: dict[Any, list[int]] = {}
    for s in positions:
        measure = scorers[s].measure
        shared = measure.inner or measure.rowwise or scorers[s].key
        groups.setdefault((shared, scorers[s].entry.needs_equal_widths), []).append(s)
    yield from groups.values()


@dataclass
class Compared:
    """A chunk of batches as some measures that share their preparation see it.

    `own` holds the batches of every view, [batches, rows, width] each; with `near` relative to their mean.
    """

    measures: Sequence[Measure]
    own: Sequence[Taken]
    near: bool

    def __post_init__(self) -> None:
        self._prepared = [self._prepare(taken) for taken in self.own]

    @property
    def _inner(self) -> InnerForm | None:
        return self.measures[0].inner if self.own[0][0].shape[1] <= VECTOR_ROWS else None

    @property
    def _rowwise(self) -> RowForm | None:
        return self.measures[0].rowwise

    def _prepare(self, taken: Taken) -> Any:
        x, as_they_were = taken
        if self._inner and self._inner.near and self.near:
            vectors, lost = self._inner.near(x)
            if bool(lost.any()):
                vectors[lost] = self._inner.vector(as_they_were(lost))
            return vectors
        if self._inner:
            return self._inner.vector(x)
        return self._rowwise.map(x) if self._rowwise else self.measures[0].prepare(x)

    @property
    def full_rank(self) -> bool:
        """Whether a batch of some view spans every direction; of measures whose preparation knows the rank."""
        pairs = zip(self._prepared, self.own, strict=True)
        return any(bool((side.rank >= x.shape[1] - 1).any()) for side, (x, _) in pairs)

    def scores(self, queries: Sequence[int], j: int, candidates: Taken) -> list[Tensor]:
        """Per measure [queries, batches, 1 + candidates]: batches of the queried views against those of view j.

        Candidates [batches, candidates, rows, width] come after the right batch.
        """
        wrong = self._prepare(candidates)
        if self._inner:
            own = xp.stack([self._prepared[i] for i in queries], dim=1)
            found = self._inner_scores(self._inner, own, self._prepared[j], wrong)
            if self.near:
                self._settle(self._inner, found, queries, j, candidates)
            return [found] * len(self.measures)
        if self._rowwise:
            return [self._rowwise_scores(self._rowwise, queries, j, wrong)] * len(self.measures)
        return [self._any_scores(measure, queries, j, wrong) for measure in self.measures]

    @staticmethod
    def _inner_scores(form: InnerForm, own: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        return form.score(own @ xp.cat([right.unsqueeze(1), wrong], dim=1).mT).transpose(0, 1)

    def _settle(self, form: InnerForm, found: Tensor, queries: Sequence[int], j: int, candidates: Taken) -> None:
        """Take the scores of batches again in float64 where rounding may have made or broken a tie."""
        doubtful = ((found[..., :1] - found[..., 1:]).abs() < DOUBT).any(dim=-1).any(dim=0)
        if bool(doubtful.any()):
            taken = [self.own[i] for i in queries], self.own[j], candidates
            own = xp.stack([_exactly(form, side, doubtful) for side in taken[0]], dim=1)
            right, wrong = (_exactly(form, side, doubtful) for side in taken[1:])
            found[:, doubtful] = self._inner_scores(form, own, right, wrong)

    def _rowwise_scores(self, form: RowForm, queries: Sequence[int], j: int, wrong: Tensor) -> Tensor:
        own = xp.stack([self._prepared[i] for i in queries])
        against = xp.cat([self._prepared[j].unsqueeze(1), wrong], dim=1).transpose(0, 1)
        batches, rows = own.shape[1:3]
        values = form.values(own.flatten(1, 2), against.flatten(1, 2))
        return values.reshape(batches, rows, len(own), -1).mean(dim=1).transpose(0, 1)

    def _any_scores(self, measure: Measure, queries: Sequence[int], j: int, wrong: Any) -> Tensor:
        found = []
        for query in (self._prepared[i] for i in queries):
            right = measure.compare(query, self._prepared[j]).unsqueeze(1)
            found.append(xp.cat([right, measure.compare(expand(query, 1), wrong)], dim=1))
        return xp.stack(found)


def _exactly(form: InnerForm, taken: Taken, batches: Tensor) -> Tensor:
    return form.vector(taken[1](batches).double())
