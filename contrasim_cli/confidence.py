"""How sure each score of a grid is: 95 % intervals by resampling rows, p-values and z-scores against shuffled rows of Y.

Rows are taken to be independent draws. θ(N) is the score on all N rows.

Intervals
- Row-wise measures are means of f(x_r, y_r): the bootstrap draws N rows with replacement, and its percentiles are the
  interval.
- For all others a row that is drawn twice is its own nearest neighbour and weighs double in a kernel, so that the bootstrap
  is biased. Replicates are the score on m of n rows without replacement, m = n/2, n a seeded subset of all N
  (subsampling: Politis & Romano 1994; half-sampling: Shao & Wu 1989). The interval is

      θ(N) + √(m n / ((n - m) N)) · (quantile - mean of the replicates),

  because two sets of m out of n rows share rows: the replicates' variance is σ²(1/m - 1/n), that of θ(N) is σ²/N. It
  assumes that a spread falls with the root of the number of rows, which fails where m is not well above the widths
  (CCA family) or k. What θ(N) is biased by, in a measure that overestimates on few rows, the interval does not see.

Permutations
- Y's rows are shuffled, X's stay: what the measure says of unrelated sides of the same shape. p = (1 + number of shuffles
  at least as similar) / (B + 1), z = (score - mean) / std over the shuffles, signed so that larger is more similar. Both are
  of one set of rows: all for row-wise measures where they fit in memory, else the seeded subset.

Nothing is read or factored anew for a shuffle: a shuffled layer is the prepared one with its rows permuted. Every draw and
shuffle has a seed of its own, so that no result depends on how many are worked off at once.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.benchmarks.intervals import LEVEL
from contrasim_cli.errors import InputError
from contrasim_cli.grid import Cell, Grid
from contrasim_cli.grid.plan import Kept, Layer, size, spans
from contrasim_cli.measures.cka import Centred, Debiased, gram_form
from contrasim_cli.measures.permuted import OF_INNER_PRODUCT, flat, permute_rows
from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)

ROWS = 2000  # of the subset
FEWEST_ROWS = 4  # of which half can be drawn
DRAWN_ROWS = 1024  # whose bootstrap weights are drawn together
DRAWN_TOGETHER = 256  # replicates whose weights are drawn together
CHUNK_BYTES = 256 << 20  # of replicates worked off at once
GATHER = 150  # multiplications in the time of moving one value of a Gram matrix
TIE = 1e-9  # scores closer than this part of them differ by rounding
GROWTH = {
    "rsm_norm_difference": 1.0,
    "permutation_procrustes": 0.5,
    "procrustes_size_shape": 0.5,
}  # θ ∝ rows to this power
SUBSET, DRAW, SHUFFLE, WEIGHTS = range(4)  # what a seed is for

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """Replicates of either kind, 0 for none; at most `rows` rows where not all are used."""

    bootstrap: int = 0
    permutations: int = 0
    rows: int = ROWS
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """What is found for a cell, by the names of result columns."""
        interval = ("ci_low", "ci_high") if self.bootstrap else ()
        return (*interval, "p_value", "z_score") if self.permutations else interval


class Confidence(NamedTuple):
    """Of one cell; None where it was not asked for or is undefined."""

    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    z_score: float | None = None


@dataclass(frozen=True)
class Use:
    """How a scorer's confidence was found, and on how many rows."""

    rows: int
    method: str


def interval(replicates: Values, score: float, scale: float | None) -> tuple[float | None, float | None]:
    """Percentiles of the replicates [B]; with a scale, scaled around the score. None where one is undefined."""
    if not (np.isfinite(score) and replicates.size and np.isfinite(replicates).all()):
        return None, None
    ends = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if scale is not None:
        ends = score + scale * (ends - replicates.mean())
    return float(ends[0]), float(ends[1])


def significance(shuffled: Values, observed: float, higher: bool) -> tuple[float | None, float | None]:
    """P-value and z-score of an observed score among shuffled ones [B]; z is None where these are all equal."""
    if not (np.isfinite(observed) and np.isfinite(shuffled).all()):
        return None, None
    sign = 1.0 if higher else -1.0
    rounding = TIE * max(abs(observed), float(np.abs(shuffled).max()))
    as_similar = int((sign * shuffled >= sign * observed - rounding).sum())
    spread = float(shuffled.std(ddof=1)) if shuffled.size > 1 else 0.0
    z = sign * (observed - float(shuffled.mean())) / spread if spread > rounding else None
    return (1 + as_similar) / (shuffled.size + 1), z


@dataclass
class Resampling:
    """Confidence for every cell of a grid that has its scores."""

    grid: Grid
    asked: Asked
    found: dict[Cell, Confidence] = field(default_factory=dict)
    intervals: dict[str, Use] = field(default_factory=dict)  # by scorer
    shuffles: dict[str, Use] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw the subset.

        Raises:
            InputError: its rows do not fit the budget.
        """
        rows = self.grid.plan.n_rows
        count = min(rows, self.asked.rows, self.grid.rows_of_subset or rows)
        chosen = np.arange(rows) if count == rows else np.sort(self._rng(SUBSET).choice(rows, count, replace=False))
        self.subset = torch.from_numpy(chosen)
        self.half = count // 2
        self._encoded: dict[Any, Tensor] = {}
        self._check_memory(count)

    def _check_memory(self, count: int) -> None:
        widths = [self.grid.plan.width(layer) for layer in self.grid.plan.layers]
        need = 8 * count * (sum(widths) + 4 * max(count, *widths))
        if self._wholes and need > self.grid.reader.free:
            raise InputError(
                f"--confidence-rows {count} needs about {need / 2**20:.0f} MiB besides what is kept, --memory leaves "
                f"{self.grid.reader.free / 2**20:.0f}; raise --memory or ask for fewer rows"
            )

    def compute(self) -> dict[Cell, Confidence]:
        """Everything asked for; `intervals` and `shuffles` then say how."""
        self.found = {
            (s, *cell): Confidence() for s in range(len(self.grid.scorers)) for cell in self.grid.plan.cells()
        }
        rowwise = [s for s, scorer in enumerate(self.grid.scorers) if scorer.measure.rowwise is not None]
        if rowwise:
            self._rowwise(rowwise)
        for members in self._wholes:
            self._whole(members)
        self._note_blind()
        return self.found

    def _note_blind(self) -> None:
        """Say where shuffles tell nothing."""
        for s, scorer in enumerate(self.grid.scorers):
            cells = [self.found[(s, *cell)] for cell in self.grid.plan.cells()]
            blind = sum(cell.p_value == 1.0 and cell.z_score is None for cell in cells)
            if blind and self.asked.permutations > 1:
                text = "%s: every shuffle of rows scores the same for %d pair(s) of layers, so that p is 1 and there is no z-score"
                log.info(text, scorer.name, blind)

    @property
    def _wholes(self) -> list[list[int]]:
        """Scorers that are not row-wise, those together that share prepared layers."""
        groups: dict[Any, list[int]] = {}
        for s, scorer in enumerate(self.grid.scorers):
            if scorer.measure.rowwise is None:
                groups.setdefault(scorer.key, []).append(s)
        return list(groups.values())

    @property
    def about(self) -> dict[str, Any]:
        """What JSON says of how it was done."""
        kinds = {
            "bootstrap": (self.asked.bootstrap, self.intervals),
            "permutations": (self.asked.permutations, self.shuffles),
        }
        return {
            "replicates": {kind: count for kind, (count, _) in kinds.items()},
            "confidence_rows": {
                kind: {name: use.rows for name, use in uses.items()} for kind, (_, uses) in kinds.items()
            },
            "confidence_method": {
                kind: {name: use.method for name, use in uses.items()} for kind, (_, uses) in kinds.items()
            },
        }

    def note(self) -> None:
        """Say on stderr how it was done."""
        for text, count, uses in (
            ("95 %% intervals from %d replicates, %s (%s)", self.asked.bootstrap, self.intervals),
            ("p-values from %d shuffles, %s (%s)", self.asked.permutations, self.shuffles),
        ):
            for use in dict.fromkeys(uses.values()):
                names = ", ".join(name for name, found in uses.items() if found == use)
                log.info(text, count, use.method, names)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.asked.seed, *purpose])

    def _orders(self, count: int, start: int, stop: int) -> Tensor:
        """Shuffles [stop - start, count] of so many rows."""
        found = np.stack([self._rng(SHUFFLE, replicate).permutation(count) for replicate in range(start, stop)])
        return torch.from_numpy(found).to(self.grid.device)

    def _draws(self, start: int, stop: int) -> Tensor:
        """Positions [stop - start, m] in the subset, without replacement, in order."""
        count = len(self.subset)
        draws = [self._rng(DRAW, r).choice(count, self.half, replace=False) for r in range(start, stop)]
        return torch.from_numpy(np.sort(np.stack(draws), axis=-1)).to(self.grid.device)

    def _set(self, s: int, cell: tuple[Layer, Layer], **values: float | None) -> None:
        self.found[(s, *cell)] = self.found[(s, *cell)]._replace(**values)

    def _set_intervals(self, s: int, replicates: Mapping[tuple[Layer, Layer], Values], scale: float | None) -> None:
        empty = 0
        for cell, values in replicates.items():
            score = self.grid.scores[(s, *cell)]
            low, high = interval(values, score, scale)
            empty += low is None and np.isfinite(score)
            self._set(s, cell, ci_low=low, ci_high=high)
        if empty:
            log.warning(
                "%s: no interval for %d pair(s) of layers: the measure is undefined on some draw of rows (%s)",
                self.grid.scorers[s].name,
                empty,
                self.grid.scorers[s].entry.undefined,
            )

    def _set_significance(self, s: int, cell: tuple[Layer, Layer], observed: float, shuffled: Values) -> None:
        if not np.isfinite(self.grid.scores[(s, *cell)]):
            return
        p, z = significance(shuffled, observed, self.grid.scorers[s].entry.higher_is_more_similar)
        self._set(s, cell, p_value=p, z_score=z)

    # --- row-wise -----------------------------------------------------------------------------------------------------

    def _rowwise(self, members: Sequence[int]) -> None:
        plan, cells = self.grid.plan, list(self.grid.plan.cells())
        if self.asked.bootstrap:
            means = self._bootstrap_means(members)
            for k, s in enumerate(members):
                part = means[:, k * len(cells) : (k + 1) * len(cells)]
                self._set_intervals(s, dict(zip(cells, part.T, strict=True)), None)
                self.intervals[self.grid.scorers[s].name] = Use(
                    plan.n_rows, f"bootstrap of {plan.n_rows} rows, percentiles"
                )
        for s in members if self.asked.permutations else ():
            fit = self.grid.reader.in_memory and self._mapped_bytes(s) <= self.grid.reader.free // 2
            rows = torch.arange(plan.n_rows) if fit else self.subset
            self._shuffle_pairs(s, rows)
            self.shuffles[self.grid.scorers[s].name] = Use(len(rows), f"{len(rows)} rows of Y")

    def _mapped_bytes(self, s: int) -> int:
        widths = [self._width(self.grid.scorers[s], layer) for layer in self.grid.plan.layers]
        return 8 * self.grid.plan.n_rows * sum(widths)

    def _bootstrap_means(self, members: Sequence[int]) -> Values:
        """[B, scorers · cells] means over rows drawn with replacement, as weighted sums over blocks of rows."""
        plan = self.grid.plan
        rows, replicates = plan.n_rows, self.asked.bootstrap
        blocks = list(spans(rows, DRAWN_ROWS))
        sizes = np.array([stop - start for start, stop in blocks])
        drawn = self._rng(WEIGHTS).multinomial(rows, sizes / rows, size=replicates)  # rows of each block
        total = torch.zeros(replicates, len(members) * sum(1 for _ in plan.cells()), dtype=torch.float64)
        with self.grid.progress("bootstrap", rows, "rows") as advance:
            for k, (start, stop) in enumerate(blocks):
                values = self._row_values(members, start, stop)
                for first, last in spans(replicates, DRAWN_TOGETHER):
                    rng = self._rng(WEIGHTS, k, first)
                    total[first:last] += torch.from_numpy(_weights(rng, drawn[first:last, k], stop - start)) @ values
                advance(stop - start)
        return (total / rows).numpy()

    def _row_values(self, members: Sequence[int], start: int, stop: int) -> Tensor:
        """f(x_r, y_r) [rows, scorers · cells] of a block, in smaller ones where that does not fit."""
        step = self.grid.reader.block_rows(self.grid.plan.layers, itemsize=16)
        found = []
        for first, last in spans(stop - start, step):
            raw = {layer: self.grid.reader.rows(layer, start + first, start + last) for layer in self.grid.plan.layers}
            found.append(torch.cat([self._values_of(s, raw, last - first) for s in members], dim=1))
        return torch.cat(found)

    def _values_of(self, s: int, raw: Mapping[Layer, Tensor], count: int) -> Tensor:
        scorer = self.grid.scorers[s]
        form = scorer.measure.rowwise
        assert form is not None
        mapped = {layer: form.map(self.grid.encoded(scorer, layer, rows)) for layer, rows in raw.items()}
        pairs = self._pairs(mapped, mapped, form.values, (count,))
        return torch.cat([values.flatten(1) for values in pairs], dim=1)

    def _pairs(
        self,
        first: Mapping[Layer, Tensor],
        second: Mapping[Layer, Tensor],
        function: Callable[[Tensor, Tensor], Tensor],
        lead: tuple[int, ...] = (),
    ) -> Iterator[Tensor]:
        """A row form's function [*lead, layers of a, layers of b] for every pair of views; NaN where widths differ."""
        plan = self.grid.plan
        for a, b in plan.pairs:
            one, other = [first[a, n] for n in plan.first[a]], [second[b, n] for n in plan.second[b]]
            out = torch.full((*lead, len(one), len(other)), torch.nan, dtype=torch.float64)
            for width in {rows.shape[1] for rows in one} & {rows.shape[1] for rows in other}:
                i, j = ([k for k, rows in enumerate(side) if rows.shape[1] == width] for side in (one, other))
                part = function(torch.stack([one[k] for k in i]), torch.stack([other[k] for k in j]))
                out[..., torch.tensor(i).unsqueeze(1), torch.tensor(j)] = part.cpu()
            yield out

    def _shuffle_pairs(self, s: int, rows: Tensor) -> None:
        """Mean of f(x_r, y_π(r)) for every shuffle π, of rows that are mapped once."""
        scorer, count = self.grid.scorers[s], len(rows)
        form = scorer.measure.rowwise
        assert form is not None
        mapped = {layer: form.map(self._rows_of(scorer, layer, rows)) for layer in self.grid.plan.layers}
        step = max(64, CHUNK_BYTES // (16 * sum(side.shape[1] for side in mapped.values())))

        def means(order: Tensor) -> Tensor:
            total = torch.zeros(())
            for start, stop in spans(count, step):
                ahead = {layer: side[start:stop] for layer, side in mapped.items()}
                shuffled = {layer: side[order[start:stop]] for layer, side in mapped.items()}
                sums = torch.cat([values.flatten() for values in self._pairs(ahead, shuffled, form.sums)])
                total = total + sums / count
            return total

        observed = means(torch.arange(count, device=self.grid.device))
        found = []
        with self.grid.progress("shuffling", self.asked.permutations, "times") as advance:
            for replicate in range(self.asked.permutations):
                found.append(means(self._orders(count, replicate, replicate + 1)[0]))
                advance(1)
        for cell, score, values in zip(self.grid.plan.cells(), observed, torch.stack(found).T.numpy(), strict=True):
            self._set_significance(s, cell, float(score), values)

    # --- all others ---------------------------------------------------------------------------------------------------

    def _rows_of(self, scorer: Scorer, layer: Layer, rows: Tensor) -> Tensor:
        """Some rows [k, p] as the scorer's measure takes them."""
        reader = self.grid.reader
        if reader.in_memory:
            raw = reader.rows(layer, 0, self.grid.plan.n_rows)[rows.to(self.grid.device)]
        else:
            raw = torch.from_numpy(self.grid.plan.views[layer[0]].read(layer[1], rows.numpy())).to(self.grid.device)
        return self.grid.encoded(scorer, layer, raw)

    def _subset_rows(self, scorer: Scorer, layer: Layer) -> Tensor:
        """The subset [n, p], read and encoded once."""
        key = (id(scorer.checkpoint), layer)
        if key not in self._encoded:
            self._encoded[key] = self._rows_of(scorer, layer, self.subset)
        return self._encoded[key]

    def _whole(self, members: Sequence[int]) -> None:
        if self.asked.bootstrap:
            self._draw_halves(members)
        if self.asked.permutations:
            self._shuffle_prepared(members)

    def _scored_rows(self, scorer: Scorer) -> int:
        """Rows that the score is of."""
        limited = self.grid.rows_of_subset if scorer.entry.quadratic else None
        return limited or self.grid.plan.n_rows

    def _scale(self, scorer: Scorer) -> float:
        """What takes the spread of scores on m of n rows to that of the score on all N."""
        rows, count = self._scored_rows(scorer), len(self.subset)
        growth = (rows / self.half) ** GROWTH.get(scorer.entry.name, 0.0)
        return float(growth * (self.half * count / ((count - self.half) * rows)) ** 0.5)

    def _draw_halves(self, members: Sequence[int]) -> None:
        replicates, count = self.asked.bootstrap, len(self.subset)
        scorers = [self.grid.scorers[s] for s in members]
        for scorer in scorers:
            method = (
                f"{self.half} of {count} rows without replacement, spread scaled to {self._scored_rows(scorer)} rows"
            )
            self.intervals[scorer.name] = Use(count, method)
            self._warn_narrow(scorer)
        if count < FEWEST_ROWS:
            log.warning(
                "no interval from %d rows for %s: too few to draw from", count, ", ".join(s.name for s in scorers)
            )
            return
        rows = {layer: self._subset_rows(scorers[0], layer) for layer in self.grid.plan.layers}
        each = sum(8 * self.half * max(side.shape[1], self.half) for side in rows.values())
        found: dict[tuple[int, tuple[Layer, Layer]], list[Tensor]] = {}
        with self.grid.progress("subsampling", replicates, "draws") as advance:
            for start, stop in spans(replicates, self._together(each)):
                draws = self._draws(start, stop)
                kept = Kept(lambda layer: self._prepare(scorers[0], rows[layer][draws]), self._room)  # noqa: B023
                for a, b in self.grid.plan.pairs:
                    ones, others = [(a, n) for n in self.grid.plan.first[a]], [(b, n) for n in self.grid.plan.second[b]]
                    for s, cell, values in self._compared(members, kept, ones, others):
                        found.setdefault((s, cell), []).append(values)
                advance(stop - start)
        for s in members:
            cells = {cell: torch.cat(found[s, cell]).numpy() for cell in self.grid.plan.cells()}
            self._set_intervals(s, cells, self._scale(self.grid.scorers[s]))

    def _warn_narrow(self, scorer: Scorer) -> None:
        widest = max(self._width(scorer, one) + self._width(scorer, other) for one, other in self.grid.plan.cells())
        if scorer.entry.trivial_at_full_rank and self.half <= widest:
            log.warning(
                "%s: intervals are from %d rows, fewer than the %d neurons of two layers: they are too narrow; raise "
                "--confidence-rows",
                scorer.name,
                self.half,
                widest,
            )

    def _width(self, scorer: Scorer, layer: Layer) -> int:
        return self.grid.plan.width(layer) if scorer.checkpoint is None else scorer.checkpoint.config.output

    @property
    def _room(self) -> int:
        return self.grid.reader.free // 2

    def _together(self, each: int) -> int:
        """Replicates worked off at once, of so many bytes each."""
        return max(1, min(CHUNK_BYTES, self._room // 4) // max(1, each))

    def _prepare(self, scorer: Scorer, rows: Tensor) -> Any:
        """Rows [n, p], or [c, m, p] of draws, as the measure prepares them; CKA's as Gram matrices where those cost less."""
        prepared = scorer.measure.prepare(rows)
        if isinstance(prepared, Centred | Debiased) and self._gram_is_cheaper(scorer, rows.shape[-2], rows.ndim > 2):
            return gram_form(prepared)
        return prepared

    def _gram_is_cheaper(self, scorer: Scorer, count: int, drawn: bool) -> bool:
        """Count operations of a replicate: cross products of features, or of Gram matrices, made for a draw or shuffled."""
        plan = self.grid.plan
        cells = [(self._width(scorer, one), self._width(scorer, other)) for one, other in plan.cells()]
        each = [self._width(scorer, layer) if drawn else GATHER for layer in plan.layers]
        return count * (sum(each) + len(cells)) < sum(p * q for p, q in cells)

    def _compared(
        self, members: Sequence[int], kept: "Kept", ones: Sequence[Layer], others: Sequence[Layer]
    ) -> Iterator[tuple[int, tuple[Layer, Layer], Tensor]]:
        """Scores [c] of all layers of one side with all of the other, both with a leading dimension c."""
        compares = {s: self.grid.scorers[s].measure.compare for s in members}
        products: Tensor | None = None
        if not OF_INNER_PRODUCT.keys().isdisjoint(compares.values()):
            first, second = (_stacked(kept.get(layer) for layer in side) for side in (ones, others))
            products = None if first is None or second is None else first @ second.mT
        for (i, one), (j, other) in product(enumerate(ones), enumerate(others)):
            for s, compare in compares.items():
                if products is None or compare not in OF_INNER_PRODUCT:
                    yield s, (one, other), compare(kept.get(one), kept.get(other)).cpu()
                else:
                    yield s, (one, other), OF_INNER_PRODUCT[compare](products[:, i, j]).cpu()

    def _shuffle_prepared(self, members: Sequence[int]) -> None:
        scorer, count = self.grid.scorers[members[0]], len(self.subset)
        for s in members:
            self.shuffles[self.grid.scorers[s].name] = Use(count, f"{count} rows of Y")
        kept = Kept(lambda layer: self._prepare(scorer, self._subset_rows(scorer, layer)), self._room)
        facing: dict[Layer, list[Layer]] = {}
        for one, other in self.grid.plan.cells():
            facing.setdefault(other, []).append(one)
        with self.grid.progress("shuffling", self.asked.permutations * len(facing), "layers") as advance:
            for other, ones in facing.items():
                self._shuffle_layer(members, kept, ones, other, advance)

    def _shuffle_layer(
        self, members: Sequence[int], kept: "Kept", ones: Sequence[Layer], other: Layer, advance: Callable[[int], None]
    ) -> None:
        """Shuffle one layer's rows, and compare with every layer that faces it."""
        scorer, prepared = self.grid.scorers[members[0]], kept.get(other)
        rows = self._subset_rows(scorer, other)
        widest = max(self._width(scorer, one) for one in ones)
        each = 2 * size(prepared) + 8 * widest * (len(rows) + rows.shape[1])
        found: dict[tuple[int, Layer], list[Tensor]] = {}
        for start, stop in spans(self.asked.permutations, self._together(each)):
            orders = self._orders(len(rows), start, stop)
            shuffled = permute_rows(prepared, orders)
            if shuffled is None:
                shuffled = scorer.measure.prepare(rows[orders])
            for s, one, values in self._against(members, kept, ones, shuffled):
                found.setdefault((s, one), []).append(values.cpu().expand(stop - start))
            advance(stop - start)
        for (s, one), parts in found.items():
            observed = self.grid.scorers[s].measure.compare(kept.get(one), prepared)
            self._set_significance(s, (one, other), float(observed), torch.cat(parts).numpy())

    def _against(
        self, members: Sequence[int], kept: "Kept", ones: Sequence[Layer], shuffled: Any
    ) -> Iterator[tuple[int, Layer, Tensor]]:
        """Scores [c] of layers with a shuffled one."""
        values = flat(shuffled)
        for some in self._fitting(ones, 0 if values is None else values.shape[-1]):
            side = None if values is None else _stacked(kept.get(one) for one in some)
            products = None if values is None or side is None else side @ values.mT
            for s in members:
                compare = self.grid.scorers[s].measure.compare
                for i, one in enumerate(some):
                    if products is None or compare not in OF_INNER_PRODUCT:
                        yield s, one, compare(kept.get(one), shuffled)
                    else:
                        yield s, one, OF_INNER_PRODUCT[compare](products[i])

    def _fitting(self, layers: Sequence[Layer], each: int) -> Iterator[Sequence[Layer]]:
        """Runs of layers whose float64 values, so many each, take no more than CHUNK_BYTES; one layer at least."""
        step = max(1, min(CHUNK_BYTES, self._room // 4) // (8 * each)) if each else len(layers)
        for start in range(0, len(layers), step):
            yield layers[start : start + step]


def _stacked(prepared: Iterable[Any]) -> Tensor | None:
    """The kernels of prepared layers [..., layers, d]; None where one has none."""
    values = [flat(layer) for layer in prepared]
    found = [value for value in values if value is not None]
    return torch.stack(found, dim=-2) if len(found) == len(values) else None


def _weights(rng: np.random.Generator, drawn: npt.NDArray[np.int64], rows: int) -> Values:
    """How often each row of a block is drawn [replicates, rows], given how many rows each replicate draws of it."""
    replicate = np.repeat(np.arange(len(drawn)), drawn)
    places = replicate * rows + rng.integers(0, rows, size=len(replicate))
    return np.bincount(places, minlength=len(drawn) * rows).reshape(len(drawn), rows).astype(np.float64)
