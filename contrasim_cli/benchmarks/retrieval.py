"""Retrieval (§5.2, §5.3, A.1.1): among ten wrong batches of the other view, is the right one the most similar?

One protocol for the multilingual and the image-caption benchmark: rows are cut into batches; batch b of view i is
compared with b of view j and with ten candidates from view j. All scorers face the same candidates. Where rows belong to
items, batches are of different items and siblings are no candidates.

It goes layer by layer: rows and candidates once per view, then chunks of batches that fit a cache.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from contrasim_cli import distributed
from contrasim_cli.arrays import Device, host, on_numpy
from contrasim_cli.benchmarks import check_depth
from contrasim_cli.benchmarks.batch_scores import Compared, by_key, takes_near
from contrasim_cli.benchmarks.outcomes import Judged, Trials, judge
from contrasim_cli.benchmarks.retrieval_task import RetrievalTask, random_candidates
from contrasim_cli.cautions import zero_row
from contrasim_cli.device import device_budget
from contrasim_cli.errors import ContraSimError, InputError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.progress import Advance, Progress, silent
from contrasim_cli.rows import Room, Rows, scored_rows, stored_rows
from contrasim_cli.rows.exact_search import CANDIDATES, Pool, Tell, nearest_candidates
from contrasim_cli.scoring import Scorer
from contrasim_cli.store.align import misfits
from contrasim_cli.store.blocks import RowIndex, spans
from contrasim_cli.transforms import Standardizer

log = logging.getLogger(__name__)

CHANCE = 1 / (1 + CANDIDATES)
BYTES_PER_TRIAL = 24  # what it is judged to be
LEAST_COPIES = 2  # of a batch with its candidates
# of candidates' rows, compared at once: what a cache holds, and what keeps a device busy
CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
WIDENED_SHARE = 8  # of the budget: rows that fit are held as they are taken, not as they are stored
CHUNK_SHARE = 16  # of the budget that such rows may take
Bools = npt.NDArray[np.bool_]


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
    task: RetrievalTask,
    scorers: Sequence[Scorer],
    *,
    hold_out: bool,
    device: Device,
    budget: int,
    progress: Progress = silent,
    unseen: bool = False,
) -> list[Trials]:
    """Trials of every scorer under every kind of negatives.

    With `hold_out`, an encoder is not judged on the pair of views that it was trained on, in either order; unless that leaves
    nothing, and no row was trained on (`unseen`).

    Raises:
        MismatchError: views differ in depth, or widths do not fit an encoder.
        InputError: too few rows, a bad value, or not even a batch at a time fits the budget.
    """
    budget = _check(task, scorers, budget)
    kept = [_kept_pairs(task, scorer, unseen) if hold_out else list(range(len(task.pairs))) for scorer in scorers]
    run = Run(task, scorers, task.cut, device, budget)
    whole, together = _cut_of_layers(len(task.layers[0]))
    own = distributed.share(whole)
    with progress("comparing", (len(own) + len(together)) * run.steps, "batches") as advance:
        with distributed.alone():
            for k in own:
                run.layer(k, advance)
        run.gather(own)
        for k in together:
            run.layer(k, advance, shared=True)
    run.warn()
    labels = [f"{task.names[i]}-{task.names[j]}" for i, j in task.pairs]
    return [
        Trials(
            scorers[s],
            kind,
            [labels[k] for k in kept[s]],
            task.layer_names,
            *judged,
            CHANCE,
            recalls=recalls,
            blocks=task.blocks,
        )
        for (s, kind), found in run.judged.items()
        for judged in [Judged(*(values[kept[s]] for values in found))]
        for recalls in [run.recalls[kept[s]] if kind == "faiss" and task.index != "exact" else None]
    ]


def _cut_of_layers(count: int) -> tuple[range, range]:
    """Layers that ranks have as many of each, and those that are left, which all ranks work on together.

    Both ways give the same bits.
    """
    whole = count - count % distributed.world()
    return range(whole), range(whole, count)


def _check(task: RetrievalTask, scorers: Sequence[Scorer], budget: int) -> int:
    """Refuse what cannot be compared; the bytes that results leave of the budget."""
    for scorer in scorers:
        if scorer.stacked:
            raise UsageError(
                f"{scorer.name}: compares whole layers and no batches of rows; it goes with bench layers and score"
            )
    if len(task.views) < 2:
        raise UsageError("retrieval compares two or more stores, one per view")
    check_depth(task.views, task.layers)
    problems: list[ContraSimError] = []
    for view, names in zip(task.views, task.layers, strict=True):
        problems.extend(problem for scorer in scorers for problem in scorer.check(view.store, names))
    if pool := task.candidates_from:
        problems.extend(misfits(task.views[-1].store, pool.store, task.layers[-1], "draw candidates from"))
    raise_all(problems)
    cut = task.cut
    if task.siblings and task.siblings.n_items < task.batch_size + 2:
        raise InputError(
            f"{quoted(task.views[0].store.path)}: {task.n_rows} rows are of {task.siblings.n_items} items, which make fewer than "
            f"two batches of {task.batch_size}; give a smaller --batch-size"
        )
    if len(cut) < 2:
        raise InputError(
            f"{quoted(task.views[0].store.path)}: {task.n_rows} rows make fewer than two batches of {task.batch_size}"
        )
    trials = len(task.pairs) * len(task.layers[0]) * len(cut) * len(scorers) * len(task.negatives)
    widest = max(v.store.layer(n).width for v, names in zip(task.views, task.layers, strict=True) for n in names)
    left = budget - BYTES_PER_TRIAL * trials
    need = LEAST_COPIES * 8 * len(task.views) * CANDIDATES * len(cut[0]) * widest
    if need > left:
        raise InputError(
            f"{trials} trials and one batch of {len(cut[0])} rows with its candidates take "
            f"{(need + budget - left) / 2**20:.1f} MiB, --memory allows {budget / 2**20:.1f}; raise it, or give a smaller "
            "--batch-size or fewer measures"
        )
    return left


def _kept_pairs(task: RetrievalTask, scorer: Scorer, unseen: bool) -> list[int]:
    """Which pairs of views the scorer is judged on; all of them where it was trained on all, and on none of the rows."""
    stems = [view.store.stem for view in task.views]
    trained = trained_views(scorer, stems)
    kept = [k for k, (i, j) in enumerate(task.pairs) if stems[i] == stems[j] or not {stems[i], stems[j]} <= trained]
    if not kept and unseen:
        return list(range(len(task.pairs)))
    if not kept:
        which = "the only pair of views there is" if len(trained) == 2 else "all pairs of views there are"
        raise UsageError(
            f"{scorer.name}: was trained on {which} ({' and '.join(map(quoted, sorted(trained)))}), "
            "and is judged on other pairs, or on rows that it was not trained on; give more views, stores of other rows, or an "
            "encoder made with train --holdout 0.2"
        )
    return kept


# --- layer by layer -----------------------------------------------------------------------------------------------------


def by_rows(scorers: Sequence[Scorer], batch_size: int) -> list[list[int]]:
    """Positions of the scorers that take rows in the same form: standardised alike, and through the same encoder."""
    groups: dict[object, list[int]] = {}
    for s, scorer in enumerate(scorers):
        form = id(scorer.checkpoint), scorer.standardize, takes_near(scorer, batch_size)
        groups.setdefault(form, []).append(s)
    return list(groups.values())


def workers(device: Device) -> int:
    """Chunks that are compared at the same time: their matrices are too small for a product to be shared by threads."""
    if device.type == "cuda" or on_numpy(device):
        return 1
    import torch

    return torch.get_num_threads()


@contextlib.contextmanager
def one_thread_each(device: Device) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads whose own arithmetic is not threaded."""
    count = workers(device)
    if on_numpy(device):
        with ThreadPoolExecutor(count) as pool:
            yield pool
        return
    import torch

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _says_nothing(scorer: Scorer, size: int) -> str:
    """Why a scorer gives all batches of a size the same score, or none."""
    if size < scorer.fewest:
        of = f" (k = {scorer.measure.k})" if scorer.measure.k else ""
        return f"are too few: {scorer.fewest} or more are needed{of}"
    return "span every direction, so that each canonical correlation is 1"


class Run:
    """The scores of every scorer under every kind of negatives, as they are found."""

    def __init__(
        self, task: RetrievalTask, scorers: Sequence[Scorer], cut: Sequence[RowIndex], device: Device, budget: int
    ) -> None:
        self.task, self.scorers, self.cut, self.device, self.budget = task, scorers, cut, device, budget
        self.on_device = device_budget(budget, device)
        self.standardizer = task.standardizer or Standardizer(task.views)
        self.groups = by_rows(scorers, task.batch_size)
        self.drawn = self._drawn() if "random" in task.negatives else None
        shape = (len(task.pairs), len(task.layers[0]), len(cut))
        self.judged = {
            (s, kind): Judged(*(np.full(shape, np.nan) for _ in range(3)))
            for s in range(len(scorers))
            for kind in task.negatives
        }
        self.recalls = np.full(shape[:2], np.nan)
        self.empty: dict[tuple[str, str], list[str]] = {}  # scorer and reason: layers without a result
        self.short: dict[int, str] = {}  # scorers to which the smaller batches at the end say nothing, and why
        self.undefined: dict[int, tuple[int, str]] = {}  # scorers: trials without a score, and where a zero row is

    def _drawn(self) -> RowIndex:
        if self.task.siblings is None:
            return random_candidates(self.task.n_rows, list(self.cut), self.task.seed)
        return self.task.siblings.random_candidates(self.cut, self.task.seed)

    @property
    def smaller(self) -> Bools:
        """[batches] which have fewer rows than the first; they come last."""
        return np.array([len(batch) < len(self.cut[0]) for batch in self.cut])

    @property
    def steps(self) -> int:
        """Batches that a layer is compared in."""
        return len(self.groups) * len(self.cut)

    def layer(self, k: int, advance: Advance, shared: bool = False) -> None:
        """Compare one layer; with `shared` all ranks do so together."""
        layer = _Layer(self, k, advance, shared)
        for group in self.groups:
            layer.compare(group, advance)
        self.standardizer.forget()

    def judge(self, k: int, s: int, kind: str, scores: npt.NDArray[np.float64], answered: Bools) -> None:
        """Keep how scores [pairs, batches, 1 + candidates] of one layer are judged."""
        found = judge(scores, self.scorers[s].entry.higher_is_more_similar, answered)
        for values, new in zip(self.judged[s, kind], found, strict=True):
            values[:, k] = new

    def gather(self, own: Sequence[int]) -> None:
        """Take up what other ranks found in other layers; `own` are those of this rank."""
        if distributed.world() == 1:
            return
        every = slice(0, len(own) * distributed.world())
        for found in self.judged.values():
            for values in found:
                values[:, every] = distributed.joined_rows(values[:, list(own)], axis=1)
        self.recalls[:, every] = distributed.joined_rows(self.recalls[:, list(own)], axis=1)
        parts = distributed.gathered(
            [list(map(list, self.empty.items())), list(self.short.items()), list(self.undefined.items())]
        )
        self.empty, self.short, self.undefined = {}, {}, {}
        for empty, short, undefined in parts:
            for (name, why), layers in empty:
                self.empty.setdefault((name, why), []).extend(layers)
            self.short |= dict(short)
            for s, (count, zero) in undefined:
                before, place = self.undefined.get(s, (0, ""))
                self.undefined[s] = before + count, place or zero

    def warn(self) -> None:
        """Say what is left empty, and why; smaller batches are left out of all layers or of none."""
        for (name, why), layers in self.empty.items():
            log.warning("%s: %s; left empty in layers %s", name, why, ", ".join(dict.fromkeys(map(quoted, layers))))
        for s, why in sorted(self.short.items()):
            count = int(self.smaller.sum())
            which = "the last batch" if count == 1 else f"each of the last {count} batches"
            log.warning("%s: the %d rows of %s %s; left out", self.scorers[s].name, len(self.cut[-1]), which, why)
            for kind in self.task.negatives:
                for values in self.judged[s, kind]:
                    values[..., self.smaller] = np.nan
        for s, (count, zero) in sorted(self.undefined.items()):
            scorer = self.scorers[s]
            text = "%s: undefined (%s) in %d trials, which count as wrong%s"
            log.warning(text, scorer.name, scorer.entry.undefined, count, zero)


class _Layer:
    """One layer of all views, and the candidates that all scorers face there."""

    def __init__(self, run: Run, k: int, advance: Advance, shared: bool) -> None:
        self.run, self.task, self.k, self.shared = run, run.task, k, shared
        self.names = [names[k] for names in run.task.layers]
        self.room = Room(run.budget // 2)
        self.targets = sorted({j for _, j in run.task.pairs})
        layers = [view.store.layer(name) for view, name in zip(run.task.views, self.names, strict=True)]
        wide = run.task.n_rows * sum(layer.width * layer.read_dtype.itemsize for layer in layers)
        # each row is taken some ten times by every other view
        self.raw = [
            stored_rows(view, name, host(run.device), widened=wide <= run.budget // WIDENED_SHARE).hold(self.room)
            for view, name in zip(run.task.views, self.names, strict=True)
        ]
        self.candidates = {(j, kind): self._draw(j, kind, advance) for kind in run.task.negatives for j in self.targets}

    def _draw(self, j: int, kind: str, advance: Advance) -> tuple[RowIndex, Rows]:
        """Candidates of the rows of view j: [n, 10] positions, and the raw rows that these are of."""
        if kind == "random":
            assert self.run.drawn is not None
            return self.run.drawn, self.raw[j]
        queries = Pool(self.task.views[j], self.names[j])
        larger = self.task.candidates_from
        pool = queries if larger is None else Pool(larger, self.names[j])
        chosen = self._neighbours(queries, pool, j, lambda note: advance(0, note))
        if larger is None:
            return chosen, self.raw[j]
        distinct, places = np.unique(chosen, return_inverse=True)
        rows = stored_rows(pool.view, pool.layer, host(self.run.device)).within(distinct).hold(self.room)
        return places.reshape(chosen.shape), rows

    def _neighbours(self, queries: Pool, pool: Pool, j: int, tell: Tell) -> RowIndex:
        budget, siblings = self.run.budget // 2, self._siblings()
        if self.task.index == "exact":
            return nearest_candidates(
                queries,
                pool,
                budget=budget,
                tell=tell,
                siblings=siblings,
                device=self.run.device,
                shared=self.shared,
            )
        from contrasim_cli.benchmarks.approximate_search import approximate_candidates  # what imports faiss

        found = approximate_candidates(queries, pool, budget=budget, tell=tell, siblings=siblings)
        at = [k for k, (_, target) in enumerate(self.task.pairs) if target == j]
        self.run.recalls[at, self.k] = found.recall
        return found.neighbours

    def _siblings(self) -> list[tuple[RowIndex, RowIndex]]:
        """Labels of rows and of candidates; equal ones are no candidates of each other."""
        own = self.task.siblings.labels if self.task.siblings else ()
        return list(zip(own, own if self.task.candidates_from is None else self.task.pool_labels, strict=True))

    def _formed(self, raw: Rows, j: int, scorer: Scorer, room: Room) -> Rows:
        """Rows as a scorer takes them, held where they fit."""
        how, name = scorer.standardize, self.names[j]
        transform = self.run.standardizer.transform(j, name, how) if how else None
        rows = scored_rows(raw, transform, scorer, self.task.views[j].store, name, self.run.device)
        return (rows.near() if takes_near(scorer, self.task.batch_size) else rows).hold(room)

    def compare(self, group: Sequence[int], advance: Advance) -> None:
        """Score and judge this layer by scorers that take rows in the same form."""
        run, first = self.run, self.run.scorers[group[0]]
        room = Room(self.room.left if run.device.type == "cpu" else run.on_device // 2)
        with distributed.alone():
            rows = [self._formed(raw, j, first, room) for j, raw in enumerate(self.raw)]
            pools = {
                (j, kind): rows[j] if pool is self.raw[j] else self._formed(pool, j, first, room)
                for (j, kind), (_, pool) in self.candidates.items()
            }
        shape = (len(self.task.pairs), len(run.cut), 1 + CANDIDATES)
        scores = {(s, kind): np.full(shape, np.nan) for s in group for kind in self.task.negatives}
        trivial: dict[int, set[int]] = {s: set() for s in group}  # scorers: sizes of the batches that say nothing
        usable = {s: self._usable(s) for s in group}
        chunks = list(self._chunks([*rows, *pools.values()]))
        own = distributed.share(chunks) if self.shared else chunks
        with distributed.alone(), one_thread_each(run.device) as pool:
            for size in pool.map(lambda chunk: self._compare(chunk, rows, pools, usable, scores, trivial), own):
                advance(size)
        if self.shared:
            self._gather(own, scores, trivial)
        for (s, kind), values in scores.items():
            answered = np.zeros(shape[:2], dtype=bool)
            answered[usable[s]] = len(run.cut[0]) not in trivial[s]
            run.judge(self.k, s, kind, values, answered)
            self._note_undefined(
                s, np.isnan(values).any(axis=-1) & answered & ~(run.smaller & (len(run.cut[-1]) in trivial[s]))
            )
        self._note(usable, trivial)

    def _gather(
        self,
        own: Sequence[RowIndex],
        scores: Mapping[tuple[int, str], npt.NDArray[np.float64]],
        trivial: dict[int, set[int]],
    ) -> None:
        """Take up what other ranks found in other batches; `own` are those of this rank."""
        batches = [int(b) for chunk in own for b in chunk]
        for values in scores.values():
            values[:] = distributed.joined_rows(values[:, batches], axis=1)
        for sizes in distributed.gathered([[s, sorted(found)] for s, found in trivial.items()]):
            for s, found in sizes:
                trivial[s] |= set(found)

    def _compare(
        self,
        chunk: RowIndex,
        rows: Sequence[Rows],
        pools: Mapping[tuple[int, str], Rows],
        usable: Mapping[int, Sequence[int]],
        scores: Mapping[tuple[int, str], npt.NDArray[np.float64]],
        trivial: Mapping[int, set[int]],
    ) -> int:
        """Fill in the scores of some batches of one size; how many these are."""
        run = self.run
        where = np.stack([run.cut[b] for b in chunk])
        own = [side.taken(where, run.device) for side in rows]
        compared = []
        for members in by_key(run.scorers, [s for s, pairs in usable.items() if pairs]):
            compared.append((members, Compared([run.scorers[s].measure for s in members], own, rows[0].is_near)))
            for s in members:
                few = where.shape[1] < run.scorers[s].fewest
                if few or (run.scorers[s].entry.trivial_at_full_rank and compared[-1][1].full_rank):
                    trivial[s].add(where.shape[1])
        for (j, kind), pool in pools.items():
            wrong = pool.taken(self.candidates[j, kind][0][where].swapaxes(1, 2), run.device)
            for members, sides in compared:
                pairs = [k for k in usable[members[0]] if self.task.pairs[k][1] == j]
                if pairs:
                    found = sides.scores([self.task.pairs[k][0] for k in pairs], j, wrong)
                    for s, values in zip(members, found, strict=True):
                        scores[s, kind][np.array(pairs)[:, None], chunk] = values.cpu().numpy()
        return len(chunk)

    def _usable(self, s: int) -> list[int]:
        """Which pairs the scorer can compare: of such widths."""
        widths = [raw.width for raw in self.raw]
        scorer = self.run.scorers[s]
        return [k for k, (i, j) in enumerate(self.task.pairs) if not scorer.mismatch(widths[i], widths[j])]

    def _note(self, usable: Mapping[int, Sequence[int]], trivial: Mapping[int, set[int]]) -> None:
        """Remember what is left empty in this layer."""
        run = self.run
        size = len(run.cut[0])
        for s, pairs in usable.items():
            scorer, reasons = run.scorers[s], []
            if len(pairs) < len(self.task.pairs):
                reasons.append(f"undefined ({scorer.entry.undefined})")
            if size in trivial[s]:
                reasons.append(f"batches of {size} rows {_says_nothing(scorer, size)}")
            elif trivial[s]:
                run.short[s] = _says_nothing(scorer, len(run.cut[-1]))
            for why in reasons:
                run.empty.setdefault((scorer.name, why), []).append(self.names[0])

    def _note_undefined(self, s: int, undefined: Bools) -> None:
        """Remember trials [pairs, batches] that have no score, and the first zero row that may be why."""
        run, scorer = self.run, self.run.scorers[s]
        if not undefined.any():
            return
        count, zero = run.undefined.get(s, (0, ""))
        if not zero and scorer.entry.empty_on_zero_rows and scorer.encoder is None and not scorer.standardize:
            zero = zero_row(zip(self.task.views, self.names, strict=True))
        run.undefined[s] = count + int(undefined.sum()), zero

    def _chunks(self, rows: Sequence[Rows]) -> Iterator[RowIndex]:
        """Batches of equal size, in groups of CHUNK_BYTES of their candidates, or of a share of the budget.

        Rows that are not held are read anew for every group, so that these are as large as may be.
        """
        cut, share = self.run.cut, self.run.on_device // CHUNK_SHARE // workers(self.run.device)
        size = len(cut[0])
        each = CANDIDATES * size * max(side.width * side.dtype.itemsize for side in rows)
        held = all(side.held for side in rows)
        step = max(1, (min(CHUNK_BYTES[self.run.device.type], share) if held else share) // each)
        if self.shared:
            step = min(distributed.gathered(step))
        whole = sum(len(batch) == size for batch in cut)
        for first, last in ((0, whole), (whole, len(cut))):
            yield from (first + np.arange(*span) for span in spans(last - first, step))
