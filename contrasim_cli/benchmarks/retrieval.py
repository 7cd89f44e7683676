"""Retrieval (§5.2, §5.3, A.1.1): among ten wrong batches of the other view, is the right one the most similar?

One protocol for the multilingual and the image-caption benchmark: rows are cut into batches; batch b of view i is
compared with b of view j and with ten candidates from view j. All scorers face the same candidates. Where rows belong to
items, batches are of different items and siblings are no candidates.
"""

import logging
from collections.abc import Sequence

import torch

from contrasim_cli import distributed
from contrasim_cli.benchmarks import check_depth
from contrasim_cli.benchmarks.layer_runs import Run
from contrasim_cli.benchmarks.outcomes import Judged, Trials
from contrasim_cli.benchmarks.retrieval_task import RetrievalTask
from contrasim_cli.errors import ContraSimError, InputError, UsageError, raise_all
from contrasim_cli.names import quoted
from contrasim_cli.progress import Progress, silent
from contrasim_cli.rows.exact_search import CANDIDATES
from contrasim_cli.scoring import Scorer
from contrasim_cli.store.align import misfits

log = logging.getLogger(__name__)

CHANCE = 1 / (1 + CANDIDATES)
BYTES_PER_TRIAL = 24  # what it is judged to be
LEAST_COPIES = 2  # of a batch with its candidates


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
    device: torch.device,
    budget: int,
    progress: Progress = silent,
) -> list[Trials]:
    """Trials of every scorer under every kind of negatives.

    With `hold_out`, an encoder is not judged on the pair of views that it was trained on, in either order.

    Raises:
        MismatchError: views differ in depth, or widths do not fit an encoder.
        InputError: too few rows, a bad value, or not even a batch at a time fits the budget.
    """
    budget = _check(task, scorers, budget)
    kept = [_kept_pairs(task, scorer) if hold_out else list(range(len(task.pairs))) for scorer in scorers]
    run = Run(task, scorers, task.cut, device, budget)
    own = distributed.share(range(len(task.layers[0])))
    with progress("comparing", len(own) * run.steps, "batches") as advance:
        for k in own:
            run.layer(k, advance)
    run.gather(own)
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


def _kept_pairs(task: RetrievalTask, scorer: Scorer) -> list[int]:
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
