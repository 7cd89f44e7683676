"""Retrieval (§5.2, §5.3, A.1.1): among ten wrong batches of the other view, is the right one the most similar?

One protocol for the multilingual and the image-caption benchmark: rows are cut into batches; batch b of view i is
compared with b of view j and with ten candidates from view j. All scorers face the same candidates.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from contrasim_cli.benchmarks.layers import check_depth
from contrasim_cli.benchmarks.negatives import CANDIDATES, Pool, batches, nearest_candidates, random_candidates
from contrasim_cli.benchmarks.outcomes import Trials, judge
from contrasim_cli.errors import ContraSimError, InputError, MismatchError, UsageError, raise_all
from contrasim_cli.files import quoted
from contrasim_cli.measures.protocol import expand
from contrasim_cli.progress import Progress, silent
from contrasim_cli.scoring import Scorer
from contrasim_cli.store import View
from contrasim_cli.store.blocks import RowIndex
from contrasim_cli.transforms import RowsAs, Standardizer

log = logging.getLogger(__name__)

CHANCE = 1 / (1 + CANDIDATES)
CHUNK_BYTES = 128 << 20
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Task:
    """What is compared: views with their layers in matching order, ordered pairs of views, the kinds of negatives."""

    views: Sequence[View]
    names: Sequence[str]
    layers: Sequence[Sequence[str]]
    pairs: Sequence[tuple[int, int]]
    negatives: Sequence[str]
    batch_size: int
    seed: int = 0
    candidates_from: View | None = None
    standardizer: Standardizer | None = None  # by the views' own statistics unless given
    empty: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # scorer and reason: layers without a result

    @property
    def n_rows(self) -> int:
        """Rows of every view."""
        return self.views[0].n_rows

    @property
    def layer_names(self) -> list[str]:
        """Names of the zipped layers: one where the views agree, both where not."""
        together = zip(*self.layers, strict=True)
        return [names[0] if len(set(names)) == 1 else "/".join(dict.fromkeys(names)) for names in together]


def all_pairs(n_views: int) -> list[tuple[int, int]]:
    """Every ordered pair of different views."""
    return [(i, j) for i in range(n_views) for j in range(n_views) if i != j]


def trained_views(scorer: Scorer, stems: Sequence[str]) -> frozenset[str]:
    """The file names of the views that the scorer's encoder was trained on in pairs, where two or more are among these.

    A note says where they are not, for then nothing is left out.
    """
    if scorer.checkpoint is None or scorer.checkpoint.config.task != "pairs":
        return frozenset()
    trained = [str(store["name"]) for store in scorer.checkpoint.provenance.get("stores", ())]
    among = frozenset(trained) & frozenset(stems)
    if len(among) >= 2:
        return among
    log.info(
        "%s: was trained on %s, %s these views by their file names; no pair is left out",
        scorer.name,
        " and ".join(map(quoted, trained)),
        "which are not two of" if len(trained) == 2 else "no two of which are among",
    )
    return frozenset()


def retrieval(
    task: Task,
    scorers: Sequence[Scorer],
    *,
    hold_out: bool,
    device: torch.device,
    budget: int,
    progress: Progress = silent,
) -> list[Trials]:
    """Outcomes [pairs, layers, batches] of every scorer under every kind of negatives.

    With `hold_out`, an encoder is not judged on the pair of views that it was trained on, in either order.

    Raises:
        MismatchError: views differ in depth, or widths do not fit an encoder.
        InputError: too few rows, or a bad value.
    """
    _check(task, scorers, budget)
    cut = batches(task.n_rows, task.batch_size)
    shape = (len(task.pairs), len(task.layers[0]), len(cut))
    kept = [_kept_pairs(task, scorer) if hold_out else list(range(len(task.pairs))) for scorer in scorers]
    scores = {
        (s, kind): np.full((*shape, 1 + CANDIDATES), np.nan) for s in range(len(scorers)) for kind in task.negatives
    }
    answered = {key: np.zeros(shape, dtype=bool) for key in scores}
    drawn = random_candidates(task.n_rows, cut, task.seed) if "random" in task.negatives else None
    with progress("comparing", len(task.layers[0]) * len(task.negatives), "layers") as advance:
        for k in range(len(task.layers[0])):
            layer = _Layer(task, k)
            for kind in task.negatives:
                candidates = {j: layer.candidates(j, kind, drawn) for j in {j for _, j in task.pairs}}
                for s, scorer in enumerate(scorers):
                    scores[s, kind][:, k], answered[s, kind][:, k] = layer.scores(scorer, candidates, cut, device)
                advance(1)
            layer.standardizer.forget()
    for (name, reason), layers in task.empty.items():
        log.warning("%s: %s; left empty in layers %s", name, reason, ", ".join(dict.fromkeys(map(quoted, layers))))
    labels = [f"{task.names[i]}-{task.names[j]}" for i, j in task.pairs]
    found = []
    for (s, kind), values in scores.items():
        judged = judge(values[kept[s]], scorers[s].entry.higher_is_more_similar, answered[s, kind][kept[s]])
        found.append(Trials(scorers[s], kind, [labels[k] for k in kept[s]], task.layer_names, *judged, CHANCE))
    return found


def _check(task: Task, scorers: Sequence[Scorer], budget: int) -> None:
    if len(task.views) < 2:
        raise UsageError("retrieval compares two or more stores, one per view")
    check_depth(task.views, task.layers)
    problems: list[ContraSimError] = []
    for view, names in zip(task.views, task.layers, strict=True):
        problems.extend(problem for scorer in scorers for problem in scorer.check(view.store, names))
    problems.extend(_candidates_problems(task))
    raise_all(problems)
    if len(batches(task.n_rows, task.batch_size)) < 2:
        raise InputError(
            f"{quoted(task.views[0].store.path)}: {task.n_rows} rows make fewer than two batches of {task.batch_size}"
        )
    widest = max(
        sum(v.store.layer(n).width for v, n in zip(task.views, names, strict=True))
        for names in zip(*task.layers, strict=True)
    )
    need = 8 * task.n_rows * widest
    if need > budget:
        raise InputError(
            f"one layer of all views takes {need / 2**30:.1f} GiB, --memory allows {budget / 2**30:.1f}; raise it or use fewer rows"
        )


def _candidates_problems(task: Task) -> Iterator[ContraSimError]:
    """Why nearest neighbours cannot be drawn from the store that was given for them."""
    if task.candidates_from is None:
        return
    pool, view = task.candidates_from.store, task.views[-1]
    for name in task.layers[-1]:
        if name not in pool.layers:
            there = ", ".join(map(quoted, pool.layers))
            yield MismatchError(
                f"{quoted(pool.path)}: has no layer {quoted(name)} to draw candidates from; it has {there}"
            )
        elif pool.layer(name).width != view.store.layer(name).width:
            yield MismatchError(
                f"{quoted(pool.path)}: layer {quoted(name)} has width {pool.layer(name).width}, "
                f"{quoted(view.store.path)} has {view.store.layer(name).width}"
            )


def _kept_pairs(task: Task, scorer: Scorer) -> list[int]:
    """Which pairs of views the scorer is judged on."""
    stems = [view.store.stem for view in task.views]
    trained = trained_views(scorer, stems)
    kept = [k for k, (i, j) in enumerate(task.pairs) if stems[i] == stems[j] or not {stems[i], stems[j]} <= trained]
    if not kept:
        which = "the only pair of views there is" if len(trained) == 2 else "all pairs of views there are"
        raise UsageError(
            f"{scorer.name}: was trained on {which} ({' and '.join(map(quoted, sorted(trained)))}), "
            "and is judged on other pairs alone; give more views"
        )
    return kept


class _Layer:
    """One layer of all views: raw rows, which are read once, and what scorers standardise them to."""

    def __init__(self, task: Task, k: int) -> None:
        self.task = task
        self.standardizer = task.standardizer or Standardizer(task.views)
        self._standardized: dict[RowsAs, list[Floats]] = {}
        self.names = [names[k] for names in task.layers]
        self.raw = [view.read(name) for view, name in zip(task.views, self.names, strict=True)]

    def candidates(self, j: int, kind: str, drawn: RowIndex | None) -> tuple[RowIndex, Floats]:
        """Candidate rows of view j: [n, 10] indices, and the raw matrix that they index."""
        if kind == "random":
            assert drawn is not None
            return drawn, self.raw[j]
        queries = Pool(self.task.views[j], self.names[j])
        if self.task.candidates_from is None:
            return nearest_candidates(queries, queries), self.raw[j]
        pool = Pool(self.task.candidates_from, self.names[j])
        chosen = nearest_candidates(queries, pool)
        distinct, places = np.unique(chosen, return_inverse=True)
        return places.reshape(chosen.shape), pool.view.read(pool.layer, distinct)

    def rows(self, scorer: Scorer) -> list[Floats]:
        """The rows of every view as the scorer standardises them."""
        how = scorer.standardize
        if how not in self._standardized:
            self._standardized[how] = [self._apply(j, how, raw) for j, raw in enumerate(self.raw)]
        return self._standardized[how]

    def _apply(self, j: int, how: RowsAs, raw: Floats) -> Floats:
        return self.standardizer.transform(j, self.names[j], how)(raw) if how else raw

    def scores(
        self,
        scorer: Scorer,
        candidates: dict[int, tuple[RowIndex, Floats]],
        cut: Sequence[RowIndex],
        device: torch.device,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """s_0 and the candidates' scores [pairs, batches, 11], and where the measure says something [pairs, batches]."""
        task = self.task
        out = np.full((len(task.pairs), len(cut), 1 + CANDIDATES), np.nan)
        answered = np.zeros((len(task.pairs), len(cut)), dtype=bool)
        stores = [view.store for view in task.views]
        rows = [scorer.rows(own, store, device) for own, store in zip(self.rows(scorer), stores, strict=True)]
        pools = {
            j: rows[j]
            if pool is self.raw[j]
            else scorer.rows(self._apply(j, scorer.standardize, pool), stores[j], device)
            for j, (_, pool) in candidates.items()
        }
        usable = [
            k for k, (i, j) in enumerate(task.pairs) if not scorer.mismatch(self.raw[i].shape[1], self.raw[j].shape[1])
        ]
        if len(usable) < len(task.pairs):
            task.empty.setdefault((scorer.name, f"undefined ({scorer.entry.undefined})"), []).append(self.names[0])
        for chunk in _chunks(cut, max(len(rows_of[0]) for rows_of in rows)):
            where = torch.from_numpy(np.stack([cut[b] for b in chunk]))
            own = [scorer.measure.prepare(matrix[where]) for matrix in rows]
            if scorer.entry.trivial_at_full_rank and any(bool((side.rank >= where.shape[1] - 1).any()) for side in own):
                self.task.empty.setdefault(
                    (
                        scorer.name,
                        f"batches of {where.shape[1]} rows span every direction, so that each canonical correlation is 1",
                    ),
                    [],
                ).append(self.names[0])
                return out, np.zeros_like(answered)
            for j, (index, _) in candidates.items():
                wrong = scorer.measure.prepare(pools[j][torch.from_numpy(index)[where].transpose(1, 2)])
                for k in usable:
                    if task.pairs[k][1] == j:
                        out[k, chunk] = _scores(scorer, own[task.pairs[k][0]], own[j], wrong)
                        answered[k, chunk] = True
        return out, answered


def _scores(scorer: Scorer, query: Any, right: Any, wrong: Any) -> npt.NDArray[np.float64]:
    """[batches, 1 + candidates] s_0 and the scores of the candidates."""
    first = scorer.measure.compare(query, right).unsqueeze(1)
    others = scorer.measure.compare(expand(query, 1), wrong)
    return torch.cat([first, others], dim=1).cpu().numpy()


def _chunks(cut: Sequence[RowIndex], width: int) -> Iterator[list[int]]:
    """Batches of equal size in groups that take about CHUNK_BYTES with their candidates."""
    size = len(cut[0])
    step = max(1, CHUNK_BYTES // (8 * CANDIDATES * size * width))
    whole = [b for b, batch in enumerate(cut) if len(batch) == size]
    for start in range(0, len(whole), step):
        yield whole[start : start + step]
    if len(whole) < len(cut):
        yield [len(cut) - 1]
