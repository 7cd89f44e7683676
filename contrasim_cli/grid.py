"""The grid: every layer of some stores against every layer of others.

Each layer is read in blocks of rows and factored once. Which way a measure goes:

- row-wise measures (dot, cosine, norm, learned scores) add up over blocks;
- measures of second moments add up XᵀX per layer and XᵀY per pair over blocks, one matrix product per pair of stores;
- CKA needs only ‖XᵀY‖²: through those moments, or through tiles of Gram matrices where that costs less;
- the CCA family adds up moments twice: of the rows, which gives whitening maps, then of the whitened rows;
- all others, and layers with fewer rows than neurons, are prepared in memory.

Memory is bounded by `budget`: what does not fit is worked off in tiles of layers, each with a pass of its own.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contrasim_cli.energies import KernelEnergies, kernel_energies
from contrasim_cli.errors import InputError
from contrasim_cli.files import quoted
from contrasim_cli.measures.cca import from_whitened
from contrasim_cli.measures.protocol import Moments
from contrasim_cli.moments import MomentSums, chunks, tile_passes
from contrasim_cli.plan import Kept, Layer, Plan, Reader, Rows, size, spans
from contrasim_cli.progress import Progress, silent
from contrasim_cli.scoring import Scorer

log = logging.getLogger(__name__)

NEARLY = 1e-2  # by which whitened rows may be off orthonormal

Cell = tuple[int, Layer, Layer]  # position of the scorer, both layers
Scores = dict[Cell, float]


@dataclass
class Grid:
    """Scores of every scorer for every pair of layers of a plan."""

    plan: Plan
    scorers: Sequence[Scorer]
    device: torch.device
    budget: int
    precision: torch.dtype = torch.float32
    max_rows: int | None = None  # of measures that cost n²
    seed: int = 0
    progress: Progress = silent

    def __post_init__(self) -> None:
        self.reader = Reader(self.plan, self.device, self.budget)
        self.scores: Scores = {}
        self._full_rank: set[Layer] = set()

    def compute(self) -> Scores:
        """All scores; NaN where a measure is undefined.

        Raises:
            InputError: a value is NaN or Inf, or a layer does not fit the budget and its measure needs it whole.
        """
        self.reader.load(self.progress)
        if self.rows_of_subset is not None:
            text = "%s: a random subset of %d of %d rows (--seed %d)"
            names = ", ".join(scorer.name for scorer in self.scorers if scorer.entry.quadratic)
            log.info(text, names, self.rows_of_subset, self.plan.n_rows, self.seed)
        for run, members in self._by_form().items():
            run(members)
        return self.scores

    def _by_form(self) -> dict[Callable[[list[int]], None], list[int]]:
        streams = self._streams()
        groups: dict[Callable[[list[int]], None], list[int]] = {}
        for s, scorer in enumerate(self.scorers):
            measure = scorer.measure
            run: Callable[[list[int]], None] = self._in_memory
            if measure.rowwise is not None:
                run = self._rowwise
            elif scorer.checkpoint is None and measure.whiten is not None and streams:
                run = self._whitened
            elif scorer.checkpoint is None and measure.energy is not None:
                run = self._energies if streams or self.reader.in_memory else self._in_memory
            elif scorer.checkpoint is None and measure.moments is not None and streams:
                run = self._moments
            groups.setdefault(run, []).append(s)
        return groups

    def _streams(self) -> bool:
        """Whether second moments serve: there are rows enough for them, and no square leaves float64."""
        narrow = all(self.plan.n_rows > self.plan.width(layer) + 1 for layer in self.plan.layers)
        return narrow and all(map(self.reader.squares_fit, self.plan.layers))

    # --- row-wise -----------------------------------------------------------------------------------------------------

    def _rowwise(self, members: list[int]) -> None:
        """Σ_r f(x_r, y_r) over blocks, for all pairs of layers of two views in one product."""
        plan, layers = self.plan, self.plan.layers
        sums = {
            (s, pair): torch.zeros(len(plan.first[pair[0]]), len(plan.second[pair[1]]), dtype=torch.float64)
            for s in members
            for pair in plan.pairs
        }
        step = self.reader.block_rows(layers, itemsize=16)
        with self.progress("comparing", plan.n_rows, "rows") as advance:
            for start, stop in spans(plan.n_rows, step):
                raw = {layer: self.reader.rows(layer, start, stop) for layer in layers}
                self._add_rowwise(members, raw, sums)
                advance(stop - start)
        for (s, (a, b)), total in sums.items():
            for i, one in enumerate(plan.first[a]):
                for j, other in enumerate(plan.second[b]):
                    self.scores[s, (a, one), (b, other)] = float(total[i, j]) / plan.n_rows

    def _add_rowwise(self, members: list[int], raw: Mapping[Layer, Tensor], sums: dict[Any, Tensor]) -> None:
        by_map: dict[Any, list[int]] = {}
        for s in members:
            form = self.scorers[s].measure.rowwise
            assert form is not None
            by_map.setdefault((id(self.scorers[s].checkpoint), form.map), []).append(s)
        for (_, mapping), same in by_map.items():
            scorer = self.scorers[same[0]]
            mapped = {layer: mapping(self.encoded(scorer, layer, rows)) for layer, rows in raw.items()}
            for s in same:
                for a, b in self.plan.pairs:
                    sums[s, (a, b)] += self._pair_sums(s, mapped, a, b)

    def encoded(self, scorer: Scorer, layer: Layer, rows: Tensor) -> Tensor:
        """Rows as the scorer's measure takes them: through its encoder, if it has one."""
        if scorer.checkpoint is None:
            return rows
        store = self.plan.views[layer[0]].store
        return scorer.checkpoint.encode(rows, scorer.checkpoint.view_of(store.stem, store.path), self.device)

    def _pair_sums(self, s: int, mapped: Mapping[Layer, Tensor], a: int, b: int) -> Tensor:
        """[layers of a, layers of b] sums over a block; NaN where widths differ."""
        form = self.scorers[s].measure.rowwise
        assert form is not None
        one, other = [mapped[a, n] for n in self.plan.first[a]], [mapped[b, n] for n in self.plan.second[b]]
        out = torch.full((len(one), len(other)), torch.nan, dtype=torch.float64)
        for width in {rows.shape[1] for rows in one} & {rows.shape[1] for rows in other}:
            i, j = ([k for k, rows in enumerate(side) if rows.shape[1] == width] for side in (one, other))
            part = form.sums(torch.stack([one[k] for k in i]), torch.stack([other[k] for k in j]))
            out[torch.tensor(i).unsqueeze(1), torch.tensor(j)] = part.cpu()
        return out

    # --- second moments -----------------------------------------------------------------------------------------------

    def _moments(self, members: list[int]) -> None:
        forms = {s: self.scorers[s].measure.moments for s in members}
        widths = {layer: self.plan.width(layer) for layer in self.plan.layers}
        own: dict[Any, Any] = {}
        for sums in self.passes(widths, torch.float64, self._doubled):
            for layer, scatter in sums.scatter.items():
                moments = Moments(self.plan.n_rows, sums.means[layer] + self.reader.first(layer)[0].double(), scatter)
                for form in forms.values():
                    assert form is not None
                    if (form.own, layer) not in own:
                        own[form.own, layer] = form.own(moments)
            for one, other, cross in sums.crosses():
                for s, form in forms.items():
                    assert form is not None
                    value = form.pair(own[form.own, one], own[form.own, other], cross)
                    self.scores[s, one, other] = float(value)

    def _doubled(self, layer: Layer, start: int, stop: int) -> Tensor:
        return self.reader.shifted(layer, start, stop, torch.float64)

    def passes(
        self, widths: Mapping[Layer, int], dtype: torch.dtype, rows: Rows, held: int = 0
    ) -> Iterator[MomentSums]:
        """One read of the rows per pass; every layer's own moments are added up in the first pass that reads it."""
        passes = tile_passes(self.plan, widths, max(1, (self.reader.free - held) // 4))
        log.debug(
            "second moments: %d pass(es) over the rows, %s products", len(passes), str(dtype).removeprefix("torch.")
        )
        done: set[Layer] = set()
        for tiles in passes:
            needed = list(dict.fromkeys(la for tile in tiles for la in (*tile.first, *tile.second)))
            sums = MomentSums(widths, [la for la in needed if la not in done], tiles, dtype, self.device)
            done.update(needed)
            step = self.reader.block_rows(needed, itemsize=dtype.itemsize)
            with self.progress("comparing", self.plan.n_rows, "rows") as advance:
                for start, stop in spans(self.plan.n_rows, step):
                    sums.add({layer: rows(layer, start, stop) for layer in needed})
                    advance(stop - start)
            yield sums

    # --- factors: the CCA family and regression -----------------------------------------------------------------------

    def _whitened(self, members: list[int]) -> None:
        """Moments of the rows give whitening maps; moments of the whitened rows, which are nearly orthonormal, the rest."""
        for whiten in dict.fromkeys(self.scorers[s].measure.whiten for s in members):
            assert whiten is not None
            same = [s for s in members if self.scorers[s].measure.whiten == whiten]
            left = []
            means, maps = self._whitenings(whiten)
            for one, other, products in self._whitened_products(means, maps):
                if products is None:
                    left.append((one, other))
                    continue
                sides = from_whitened(maps[one], maps[other], products)
                for s in same:
                    self.scores[s, one, other] = float(self.scorers[s].measure.compare(*sides))
            if left:
                self._in_memory(same, left)

    def _whitenings(self, whiten: Callable[[Moments], Any]) -> tuple[dict[Layer, Tensor], dict[Layer, Any]]:
        """Means of the shifted rows and factors of every layer, as many layers at once as fit."""
        means: dict[Layer, Tensor] = {}
        maps: dict[Layer, Any] = {}
        widths = {layer: self.plan.width(layer) for layer in self.plan.layers}
        for layers in chunks(self.plan.layers, widths, max(1, self.reader.free // 16), max(widths.values())):
            sums = MomentSums(widths, layers, [], torch.float64, self.device)
            for start, stop in spans(self.plan.n_rows, self.reader.block_rows(layers, itemsize=8)):
                sums.add({layer: self._doubled(layer, start, stop) for layer in layers})
            means |= sums.means
            maps |= {layer: whiten(Moments(self.plan.n_rows, means[layer], sums.scatter[layer])) for layer in layers}
        return means, maps

    def _whitened_products(
        self, means: Mapping[Layer, Tensor], maps: Mapping[Layer, Any]
    ) -> Iterator[tuple[Layer, Layer, Tensor | None]]:
        """UᵀU' [r, s] for every pair of layers; None where moments did not resolve a layer's directions.

        Rounding of the moments leaves whitened rows a little off orthonormal; their own moments set that right.
        """

        def rows(layer: Layer, start: int, stop: int) -> Tensor:
            whitened: Tensor = (self._doubled(layer, start, stop) - means[layer]) @ maps[layer].map
            return whitened

        mends: dict[Layer, Tensor | None] = {}
        ranks = {layer: factors.rank for layer, factors in maps.items()}
        for sums in self.passes(ranks, torch.float64, rows, held=sum(map(size, maps.values()))):
            mends |= {layer: _inverse_root(scatter) for layer, scatter in sums.scatter.items()}
            for one, other, cross in sums.crosses():
                first, second = mends[one], mends[other]
                yield one, other, None if first is None or second is None else first @ cross @ second.T

    # --- CKA ----------------------------------------------------------------------------------------------------------

    def _energies(self, members: list[int]) -> None:
        """Inner products of Gram matrices, by whichever way costs less, make every measure of the family."""
        for precision in dict.fromkeys([self.precision, torch.float64]):
            if members:
                diagonals = any(self.scorers[s].measure.diagonals for s in members)
                found = kernel_energies(self, precision, diagonals)
                members = [s for s in members if not self._resolved(s, found)]

    def _resolved(self, s: int, found: KernelEnergies) -> bool:
        """Score all pairs of layers; whether the energies are fine enough wherever both sides vary."""
        energy, enough = self.scorers[s].measure.energy, True
        assert energy is not None
        for one, other in self.plan.cells():
            given = found.of(one, other)
            score = float(energy(given))
            self.scores[s, one, other] = score
            enough &= not np.isnan(score) or not bool(given.first > 0) or not bool(given.second > 0)
        return enough

    def note_full_rank(self, scorer: Scorer, layer: Layer, prepared: Any) -> None:
        """Say once per layer that its rows are too few for canonical correlations to mean anything."""
        rows = self.plan.n_rows
        if not scorer.entry.trivial_at_full_rank or layer in self._full_rank or int(prepared.rank) < rows - 1:
            return
        self._full_rank.add(layer)
        log.warning(
            "%s: layer %s: %d rows span every direction (rank %d), so that each canonical correlation is 1 whatever "
            "the other side; the CCA family needs more rows than neurons",
            quoted(self.plan.views[layer[0]].store.path),
            quoted(layer[1]),
            rows,
            rows - 1,
        )

    # --- whatever needs whole layers ----------------------------------------------------------------------------------

    def _in_memory(self, members: list[int], cells: Sequence[tuple[Layer, Layer]] | None = None) -> None:
        cells = cells or list(self.plan.cells())
        by_preparation: dict[Any, list[int]] = {}
        for s in members:
            by_preparation.setdefault(self.scorers[s].key, []).append(s)
        with self.progress("comparing", len(cells) * len(by_preparation), "pairs") as advance:
            for same in by_preparation.values():
                prepared = Prepared(self, self.scorers[same[0]])
                for one, other in cells:
                    self._compare(same, prepared, one, other)
                    advance(1)

    def _compare(self, members: list[int], prepared: "Prepared", one: Layer, other: Layer) -> None:
        """One cell of measures that prepare layers alike."""
        mismatch = prepared.scorer.mismatch(self.plan.width(one), self.plan.width(other))
        sides = None if mismatch else (prepared.first(one), prepared.get(other))
        for s in members:
            score = float("nan") if sides is None else float(self.scorers[s].measure.compare(*sides))
            self.scores[s, one, other] = score

    @property
    def rows_of_subset(self) -> int | None:
        """How many rows measures that cost n² take, if not all."""
        limited = any(scorer.entry.quadratic for scorer in self.scorers)
        return self.max_rows if limited and self.max_rows is not None and self.max_rows < self.plan.n_rows else None

    def whole(self, scorer: Scorer, layer: Layer) -> Tensor:
        """All rows of a layer as the scorer's measure takes them, or the seeded subset where the measure costs n².

        Raises:
            InputError: they do not fit the budget.
        """
        n_rows, quadratic = self.plan.n_rows, scorer.entry.quadratic
        rows = self.rows_of_subset or n_rows if quadratic else n_rows
        # rows, centred rows and two factors in float64; or two matrices of all pairs of rows
        width = scorer.checkpoint.config.output if scorer.checkpoint else self.plan.width(layer)
        need = 8 * rows * max(4 * width, 2 * rows if quadratic else 0)
        if need > 2 * self.budget:
            advice = "give --max-rows" if quadratic else "raise it or compare fewer rows"
            raise InputError(
                f"{quoted(self.plan.views[layer[0]].store.path)}: layer {quoted(layer[1])} needs about {need / 2**30:.1f} GiB "
                f"at once for {scorer.name}, --memory allows {self.budget / 2**30:.1f}; {advice}"
            )
        if rows < n_rows:
            chosen = np.sort(np.random.default_rng([self.seed, 2]).choice(n_rows, rows, replace=False))
            return self.encoded(scorer, layer, self.reader.chosen(layer, chosen))
        if scorer.checkpoint is None:
            return self.reader.rows(layer, 0, n_rows)
        blocks = spans(n_rows, self.reader.block_rows([layer]))  # encoded rows are often much narrower
        return torch.cat([self.encoded(scorer, layer, self.reader.rows(layer, *block)) for block in blocks])


def _inverse_root(scatter: Tensor) -> Tensor | None:
    """M with M S Mᵀ = I, lower triangular; None where S is not near I, so that what was whitened is mostly rounding."""
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    if scatter.numel() and float((scatter - identity).abs().amax()) > NEARLY:
        return None
    inverse: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(scatter), identity, upper=False)
    return inverse


@dataclass
class Prepared:
    """Layers as a measure prepares them; keeps what fits, prepares the rest anew when asked."""

    grid: Grid
    scorer: Scorer
    _last: tuple[Layer, Any] | None = None

    def __post_init__(self) -> None:
        self._kept = Kept(self._make, self.grid.reader.free)

    def first(self, layer: Layer) -> Any:
        """The prepared layer, which is kept until another is asked for here: cells of one first layer follow each other."""
        if self._last is None or self._last[0] != layer:
            self._last = (layer, self.get(layer))
        return self._last[1]

    def get(self, layer: Layer) -> Any:
        """The prepared layer."""
        return self._kept.get(layer)

    def _make(self, layer: Layer) -> Any:
        made = self.scorer.measure.prepare(self.grid.whole(self.scorer, layer))
        self.grid.note_full_rank(self.scorer, layer, made)
        return made


def layer_grids(grid: Grid) -> dict[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Scores [layers of a, layers of b] by scorer and pair of views (s, a, b); a warning names what is undefined."""
    scores = grid.compute()
    plan = grid.plan
    found = {}
    for s, scorer in enumerate(grid.scorers):
        undefined: list[tuple[Layer, Layer]] = []
        for a, b in plan.pairs:
            values = np.array([[scores[s, (a, i), (b, j)] for j in plan.second[b]] for i in plan.first[a]])
            values[~np.isfinite(values)] = np.nan
            found[s, a, b] = values
            undefined.extend(((a, plan.first[a][i]), (b, plan.second[b][j])) for i, j in np.argwhere(np.isnan(values)))
        if undefined:
            _warn_undefined(plan, scorer, undefined)
    return found


def _warn_undefined(plan: Plan, scorer: Scorer, cells: Sequence[tuple[Layer, Layer]]) -> None:
    first, second = (f"{quoted(name)} of {quoted(plan.views[view].store.path)}" for view, name in cells[0])
    more = f" and {len(cells) - 1} more pairs of layers" if len(cells) > 1 else ""
    log.warning(
        "%s is undefined (%s) for %s and %s%s; left empty", scorer.name, scorer.entry.undefined, first, second, more
    )
