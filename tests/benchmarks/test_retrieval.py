"""Retrieval against loops over views, batches and candidates."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import numpy as np
import oracles
import pytest
import torch

from contrasim_cli.arrays import NUMPY
from contrasim_cli.benchmarks import retrieval as run
from contrasim_cli.benchmarks.batch_scores import Compared
from contrasim_cli.benchmarks.outcomes import judge as judged
from contrasim_cli.benchmarks.outcomes import tabulate
from contrasim_cli.benchmarks.retrieval import all_pairs, retrieval, trained_views
from contrasim_cli.benchmarks.retrieval_task import CANDIDATES, RetrievalTask, batches, random_candidates
from contrasim_cli.errors import InputError, MismatchError, Problems, UsageError
from contrasim_cli.measures.load import similarity
from contrasim_cli.rows.exact_search import Pool, nearest_candidates
from contrasim_cli.rows.rows import Room
from contrasim_cli.scoring import Scorer, closed_form, learned
from contrasim_cli.store import View
from contrasim_cli.transforms import Standardization

CPU = torch.device("cpu")
LARGE = 1 << 40


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Notes and warnings that the benchmark logs."""
    heard: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: heard.append(f"{record.levelname}: {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("contrasim_cli.benchmarks")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield heard
    logger.removeHandler(handler)
    logger.setLevel(level)


def task(folder: Path, stores: dict[str, Any], **options: Any) -> RetrievalTask:
    views = [made.view(folder / f"{name}.h5", layers) for name, layers in stores.items()]
    defaults = {
        "names": list(stores),
        "layers": [list(view.store.layers) for view in views],
        "pairs": all_pairs(len(views)),
        "negatives": ["random", "faiss"],
        "batch_size": 4,
    }
    return RetrievalTask(views, **(defaults | options))


def judge(given: RetrievalTask, scorers: list[Scorer], *, hold_out: bool = True) -> Any:
    return retrieval(given, scorers, hold_out=hold_out, device=CPU, budget=LARGE)


def views_of(count: int, rows: int, noise: float = 0.4) -> dict[str, Any]:
    """The same rows with other noise, in two layers."""
    (base,) = made.related(1, 2, rows, (7,))
    rng = np.random.default_rng(1)
    return {
        view: {name: (x + noise * rng.normal(size=x.shape)).astype(np.float32) for name, x in base.items()}
        for view in ("en", "ar", "zh")[:count]
    }


# 30 rows make 7 batches of 4 and one of 2; 29 leave one row out
@pytest.mark.slow
@pytest.mark.parametrize("rows", [30, 29])
@pytest.mark.parametrize("chunk", [run.CHUNK_BYTES["cpu"], 1])
def test_outcomes_equal_a_loop_over_views_batches_and_candidates(
    tmp_path: Path, rows: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run.CHUNK_BYTES, "cpu", chunk)
    stores = views_of(3, rows)
    paths = [made.encoder_file(tmp_path / "e.pt", widths=(7,), output=6),
             made.encoder_file(tmp_path / "d.pt", widths=(7,), objective="deepcka")]  # fmt: skip
    scorers = [*closed_form(["cka", "dot", "norm"]), *(learned(paths) if CPU is not NUMPY else [])]
    given = task(tmp_path, stores, seed=3)
    found = judge(given, scorers)
    cut = batches(rows, 4)
    assert len(cut) == 7 + (rows == 30)
    drawn = random_candidates(rows, cut, 3)
    assert [(t.scorer.name, t.negatives) for t in found] == [(s.name, k) for s in scorers for k in ("random", "faiss")]
    for trials in found:
        assert trials.pairs == ["en-ar", "en-zh", "ar-en", "ar-zh", "zh-en", "zh-ar"]
        assert trials.layers == ["layer_0", "layer_1"]
        assert trials.outcomes.shape == (6, 2, len(cut))
        assert trials.chance == 1 / 11
        for k, (i, j) in enumerate(given.pairs):
            for layer in range(2):
                own, other = (encoded(trials.scorer, list(stores.values())[v][f"layer_{layer}"]) for v in (i, j))
                raw = list(stores.values())[j][f"layer_{layer}"]
                near = np.array(oracles.nearest_neighbours(raw, raw, 10, range(rows)))
                chosen = drawn if trials.negatives == "random" else near
                for b, batch in enumerate(cut):
                    if len(batch) == 2 and trials.scorer.fewest > 2:  # CKA of two rows is 1
                        assert np.isnan([values[k, layer, b] for values in (trials.outcomes, trials.margins)]).all()
                        continue
                    right = oracle(trials.scorer, own[batch], other[batch])
                    wrong = [oracle(trials.scorer, own[batch], other[chosen[batch, t]]) for t in range(10)]
                    assert trials.outcomes[k, layer, b] == oracles.retrieval_is_right(right, wrong)
                    assert trials.reciprocal_ranks[k, layer, b] == oracles.reciprocal_rank(right, wrong)
                    assert trials.margins[k, layer, b] == pytest.approx(
                        oracles.margin(right, wrong), abs=1e-4, nan_ok=True
                    )
    means = [np.nanmean(trials.outcomes) for trials in found]
    assert max(means) > 0.3
    assert min(means) < 0.9  # neither all right nor all wrong


def encoded(scorer: Scorer, rows: Any) -> Any:
    return rows if scorer.checkpoint is None else scorer.checkpoint.encode(rows, 0, "l", CPU).numpy()


def oracle(scorer: Scorer, x: Any, y: Any) -> float:
    name = scorer.name if scorer.checkpoint is None else scorer.checkpoint.config.scored_by
    return oracles.MEASURES[name](x, y)


@pytest.mark.torch_only
def test_every_scorer_faces_the_same_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rows are encoded: neighbours are those of the raw rows, and are searched once per view and layer."""
    calls = []

    def counted(queries: Pool, pool: Pool, **options: Any) -> Any:
        calls.append((queries.view.store.stem, queries.layer))
        return nearest_candidates(queries, pool, **options)

    monkeypatch.setattr(run, "nearest_candidates", counted)
    scorers = [*closed_form(["cka", "dot"]), *learned([made.encoder_file(tmp_path / "e.pt", widths=(7,))])]
    judge(task(tmp_path, views_of(3, 30)), scorers)
    assert sorted(calls) == sorted((view, f"layer_{k}") for view in ("en", "ar", "zh") for k in range(2))


@pytest.mark.parametrize(("rows", "size", "count"), [(5000, 64, 79), (5000, 8, 625), (632, 8, 79), (633, 8, 79)])
def test_trials_are_the_papers(tmp_path: Path, rows: int, size: int, count: int) -> None:
    rng = np.random.default_rng(0)
    stores = {name: {"l": rng.normal(size=(rows, 3)).astype(np.float32)} for name in ("image", "caption")}
    given = task(tmp_path, stores, pairs=[(0, 1)], negatives=["random"], batch_size=size)
    (trials,) = judge(given, closed_form(["dot"]), hold_out=False)
    assert trials.outcomes.size == count


@pytest.mark.torch_only
def test_a_constant_encoder_is_never_right(tmp_path: Path) -> None:
    """It ties with everything: under `arg max` it would be right always."""
    for objective, similarity_ in (("contrasim", "dot"), ("contrasim", "norm"), ("deepcka", "dot")):
        checkpoint = made.checkpoint(widths=(7,), objective=objective, similarity=similarity_)
        with torch.no_grad():
            for name, value in checkpoint.encoder.named_parameters():
                value.fill_(0.3 if name.endswith("bias") else 0.0)
        path = tmp_path / f"{objective}-{similarity_}.pt"
        module_save(path, checkpoint)
        for trials in judge(task(tmp_path, views_of(2, 40)), learned([path]), hold_out=False):
            assert trials.outcomes.mean() == 0


def module_save(path: Path, checkpoint: Any) -> None:
    from contrasim_cli import encoder

    encoder.save(path, checkpoint, force=True)


def test_equal_views_are_always_right(tmp_path: Path) -> None:
    (rows,) = made.related(1, 2, 40, (7,))
    for trials in judge(task(tmp_path, {"en": rows, "ar": rows}), closed_form(["cka", "norm"])):
        assert trials.outcomes.mean() == 1


def test_lower_is_more_similar_where_the_registry_says_so(tmp_path: Path) -> None:
    from dataclasses import replace

    from contrasim_cli.measures.protocol import Measure

    (cka,) = closed_form(["cka"])
    turned = Measure(cka.measure.prepare, lambda a, b: 1 - cka.measure.compare(a, b))
    distance = replace(cka, name="distance", measure=turned, entry=replace(cka.entry, higher_is_more_similar=False))
    first, second = judge(task(tmp_path, views_of(2, 40), negatives=["random"]), [cka, distance])
    np.testing.assert_array_equal(first.outcomes, second.outcomes)


# --- the trained pair -------------------------------------------------------------------------------------------------


@pytest.mark.torch_only
@pytest.mark.parametrize("trained", [("en", "ar"), ("ar", "en")])
def test_the_trained_views_is_left_out_in_both_orders(tmp_path: Path, trained: tuple[str, str]) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=trained)
    scorers = [*closed_form(["dot"]), *learned([path])]
    dot, encoder = judge(task(tmp_path, views_of(3, 30), negatives=["random"]), scorers)
    assert encoder.pairs == ["en-zh", "ar-zh", "zh-en", "zh-ar"]
    assert encoder.outcomes.shape[0] == 4
    assert len(dot.pairs) == 6
    all_of_it = judge(task(tmp_path, views_of(3, 30), negatives=["random"]), scorers, hold_out=False)[1]
    np.testing.assert_array_equal(encoder.outcomes, all_of_it.outcomes[[1, 3, 4, 5]])


@pytest.mark.torch_only
def test_an_encoder_of_other_views_is_judged_on_all_pairs_and_that_is_said(tmp_path: Path, messages: list[str]) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=("en", "de"))
    (trials,) = judge(task(tmp_path, views_of(3, 30), negatives=["random"]), learned([path]))
    assert len(trials.pairs) == 6
    assert messages == [
        "INFO: e.pt: was trained on en and de, which are not two of these views by their file names; no pair is left out"
    ]


def test_an_encoder_of_another_task_has_no_trained_views(tmp_path: Path, messages: list[str]) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=("en", "ar"), task="layers")
    assert trained_views(learned([path])[0], ["en", "ar"]) == frozenset()
    assert messages == []


@pytest.mark.torch_only
def test_the_trained_views_is_known_by_file_name_where_results_show_paths(tmp_path: Path) -> None:
    """Two of the views share a file name, so that results name views by path; each of them counts as trained."""
    layers = made.related(3, 1, 30, (7,))
    views = []
    for k, name in enumerate(["x/en", "x/ar", "y/ar"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        views.append(made.view(tmp_path / f"{name}.h5", layers[k]))
    given = RetrievalTask(views, ["x/en.h5", "x/ar.h5", "y/ar.h5"], [["layer_0"]] * 3, all_pairs(3), ["random"], 4)
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=("en", "ar"))
    (trials,) = judge(given, learned([path]))
    assert trials.pairs == ["x/ar.h5-y/ar.h5", "y/ar.h5-x/ar.h5"]


def test_no_pair_left_is_refused_before_anything_is_compared(tmp_path: Path) -> None:
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,), stores=("en", "ar"))
    with pytest.raises(UsageError) as refused:
        judge(task(tmp_path, views_of(2, 30)), learned([path]))
    assert str(refused.value) == (
        "e.pt: was trained on the only pair of views there is (ar and en), and is judged on other pairs, or on rows that it "
        "was not trained on; give more views, stores of other rows, or an encoder made with train --holdout 0.2"
    )


# --- what cannot be compared ------------------------------------------------------------------------------------------


def test_the_cca_family_is_left_empty_in_small_batches_with_one_warning(tmp_path: Path, messages: list[str]) -> None:
    rng = np.random.default_rng(0)
    stores = {name: {f"l{k}": rng.normal(size=(64, 12)) for k in range(2)} for name in ("en", "ar", "zh")}
    found = judge(task(tmp_path, stores, batch_size=8), closed_form(["cca", "cka"]))
    for trials in found:
        assert np.isnan(trials.outcomes).all() == (trials.scorer.name == "cca")
    assert messages == [
        "WARNING: cca: batches of 8 rows span every direction, so that each canonical correlation is 1; left empty in layers l0, l1"
    ]


def test_the_cca_family_is_compared_where_batches_are_large_enough(tmp_path: Path, messages: list[str]) -> None:
    stores = {name: {"l": x["layer_0"][:, :3]} for name, x in views_of(2, 60).items()}
    given = task(tmp_path, stores, batch_size=12)
    for trials in judge(given, closed_form(["cca", "pwcca"]), hold_out=False):
        matrices = [layers["l"] for layers in stores.values()]
        cut = batches(60, 12)
        chosen = {
            "random": random_candidates(60, cut, 0),
            "faiss": np.array(oracles.nearest_neighbours(matrices[1], matrices[1], 10, range(60))),
        }[trials.negatives]
        for b, batch in enumerate(cut):
            scores = [similarity(trials.scorer.name, matrices[0][batch], matrices[1][rows])
                      for rows in (batch, *chosen[batch].T)]  # fmt: skip
            assert trials.outcomes[0, 0, b] == oracles.retrieval_is_right(scores[0], scores[1:])
    assert messages == []


@pytest.mark.torch_only
def test_unequal_widths_leave_dot_and_norm_empty(tmp_path: Path, messages: list[str]) -> None:
    layers = made.related(2, 1, 32, (7, 9))
    given = task(tmp_path, dict(zip(["image", "caption"], layers, strict=True)), pairs=[(0, 1)], negatives=["random"])
    path = made.encoder_file(tmp_path / "e.pt", widths=(7, 9))
    dot, cka, encoder = judge(given, [*closed_form(["dot", "cka"]), *learned([path])], hold_out=False)
    assert np.isnan(dot.outcomes).all()
    assert not np.isnan(cka.outcomes).any()
    assert not np.isnan(encoder.outcomes).any()
    assert messages == ["WARNING: dot: undefined (the widths differ); left empty in layers layer_0"]


def test_views_of_unequal_depth_are_refused_or_zipped(tmp_path: Path) -> None:
    a, b = made.related(1, 3, 30, (7,))[0], made.related(1, 2, 30, (7,), seed=1)[0]
    with pytest.raises(MismatchError, match="2 layers are selected where"):
        judge(task(tmp_path, {"image": a, "caption": b}), closed_form(["cka"]))
    zipped = [["layer_0", "layer_2"], ["layer_1", "layer_0"]]
    given = task(tmp_path, {"image": a, "caption": b}, layers=zipped, pairs=[(0, 1)], negatives=["random"])
    (trials,) = judge(given, closed_form(["cka"]), hold_out=False)
    assert trials.layers == ["layer_0/layer_1", "layer_2/layer_0"]
    drawn = random_candidates(30, batches(30, 4), 0)
    batch = np.arange(4)
    for k, (first, second) in enumerate(zip(*zipped, strict=True)):
        right = similarity("cka", a[first][batch], b[second][batch])
        wrong = [similarity("cka", a[first][batch], b[second][drawn[batch, t]]) for t in range(CANDIDATES)]
        assert trials.outcomes[0, k, 0] == oracles.retrieval_is_right(right, wrong)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"en\.h5: 4 rows make fewer than two batches of 4"):
        judge(task(tmp_path, views_of(2, 4)), closed_form(["cka"]))
    with pytest.raises(InputError, match="there are 6 rows for batches of 4"):
        judge(task(tmp_path, views_of(2, 6)), closed_form(["cka"]))


def test_data_beyond_the_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"80 trials and one batch of 4 rows .* take .* MiB, --memory allows 0.0; raise it"
    ):
        retrieval(task(tmp_path, views_of(2, 40)), closed_form(["cka"]), hold_out=True, device=CPU, budget=1000)


# --- candidates from a larger store -----------------------------------------------------------------------------------


@pytest.mark.torch_only
def test_candidates_come_from_the_larger_store(tmp_path: Path) -> None:
    stores = dict(zip(["image", "caption"], made.related(2, 1, 32, (7,)), strict=True))
    rng = np.random.default_rng(5)
    more = np.concatenate([stores["caption"]["layer_0"], rng.normal(size=(70, 7)).astype(np.float32)])
    pool = made.view(tmp_path / "pool.h5", {"layer_0": more}, [f"p{k}" for k in range(102)])
    path = made.encoder_file(tmp_path / "e.pt", widths=(7,))
    given = task(tmp_path, stores, pairs=[(0, 1)], negatives=["faiss"], candidates_from=pool)
    scorers = [*closed_form(["cka"]), *learned([path])]
    near = np.array(oracles.nearest_neighbours(stores["caption"]["layer_0"], more, 10, [None] * 32))
    assert (near >= 32).any()
    for trials in judge(given, scorers, hold_out=False):
        own, other, rows = (
            encoded(trials.scorer, x) for x in (stores["image"]["layer_0"], stores["caption"]["layer_0"], more)
        )
        for b, batch in enumerate(batches(32, 4)):
            right = oracle(trials.scorer, own[batch], other[batch])
            wrong = [oracle(trials.scorer, own[batch], rows[near[batch, t]]) for t in range(10)]
            assert trials.outcomes[0, 0, b] == oracles.retrieval_is_right(right, wrong)


def test_a_larger_store_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    stores = dict(zip(["image", "caption"], made.related(2, 2, 30, (7,)), strict=True))
    pool = made.view(tmp_path / "pool.h5", {"layer_0": np.eye(40, 8), "other": np.eye(40, 7)})
    given = task(tmp_path, stores, pairs=[(0, 1)], negatives=["faiss"], candidates_from=View(pool.store))
    with pytest.raises(Problems) as refused:
        judge(given, closed_form(["cka"]), hold_out=False)
    assert list(refused.value.lines) == [
        f"{tmp_path}/pool.h5: layer layer_0 has width 8, that of {tmp_path}/caption.h5 has 7",
        f"{tmp_path}/pool.h5: has no layer layer_1 to draw candidates from; it has layer_0, other",
    ]


# --- exactness on nasty rows ------------------------------------------------------------------------------------------


def nasty(kind: str, rows: int) -> dict[str, Any]:
    """Three views of the same rows in one layer, with something that costs digits."""
    stores = {name: {"l": layers["layer_0"].astype(np.float64)} for name, layers in views_of(3, rows).items()}
    rng = np.random.default_rng(4)
    clusters = 1e4 * np.repeat(rng.normal(size=(rows // 4 + 1, 7)), 4, axis=0)[:rows]
    for layers in stores.values():
        x = layers["l"]
        if kind == "scales":
            x *= 10.0 ** rng.choice([-6, 0, 6], size=(rows, 1))
        elif kind == "offset":
            x += 1e5
        elif kind == "clusters":
            x += clusters
        elif kind == "constant rows":
            x[4:8] = x[4]
            x[12:20] = 0
        elif kind == "duplicates":
            x[20:24], x[1] = x[:4], x[0]
        layers["l"] = x.astype(np.float16 if kind == "float16" else np.float32)
    return stores


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scales", "offset", "clusters", "constant rows", "duplicates", "float16"])
def test_scores_equal_the_oracles_on_nasty_rows(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a last batch of 3 rows."""
    stores = nasty(kind, 31)
    seen: dict[str, Any] = {}
    judge_ = run.Run.judge

    def spied(self: Any, k: int, s: int, negatives: str, scores: Any, answered: Any) -> None:
        seen[self.scorers[s].name] = scores
        judge_(self, k, s, negatives, scores, answered)

    monkeypatch.setattr(run.Run, "judge", spied)
    names = ["cka", "dot", "cosine", "norm"]
    if kind != "scales":  # of four rows, one of which is all, the debiased estimate is a difference of rounding
        names.append("cka_debiased")
    given = task(tmp_path, stores, negatives=["random"])
    judge(given, closed_form(names))
    cut = batches(31, 4)
    drawn = random_candidates(31, cut, 0)
    matrices = [layers["l"] for layers in stores.values()]
    for k, (i, j) in enumerate(given.pairs):
        for b, batch in enumerate(cut):
            for name in names:
                expected = [
                    similarity(name, matrices[i][batch].astype(np.float64), matrices[j][rows].astype(np.float64))
                    for rows in (batch, *drawn[batch].T)
                ]
                np.testing.assert_allclose(seen[name][k, b], expected, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_candidates_that_tie_but_for_rounding_are_wrong() -> None:
    """Other scale and offset, same CKA: float32 alone would make one of the two the higher."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(40, 8, 30)).astype(np.float32)) for _ in range(2))
    wrong = (3 * y + 5).unsqueeze(1)

    def taken(rows: torch.Tensor) -> Any:
        return rows, lambda marked: rows[marked]

    compared = Compared([closed_form(["cka"])[0].measure], [taken(x), taken(y)], near=True)
    (scores,) = compared.scores([0], 1, taken(wrong))
    assert not judged(scores.numpy()).outcomes.any()
    monkey = Compared([closed_form(["cka"])[0].measure], [taken(x), taken(y)], near=True)
    monkey._settle = lambda *_: None  # type: ignore[method-assign]
    (unsettled,) = monkey.scores([0], 1, taken(wrong))
    assert not torch.equal(scores, unsettled)


@pytest.mark.torch_only
def test_rows_that_do_not_fit_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outcomes whether rows are held or not, for every form in which rows are taken."""
    from dataclasses import replace

    scorers = [*closed_form(["cka", "dot"]), *learned([made.encoder_file(tmp_path / "e.pt", widths=(7,))])]
    scorers.append(replace(scorers[1], name="zscored", standardize=Standardization("zscore")))
    pool = made.view(tmp_path / "pool.h5", made.related(1, 2, 90, (7,))[0], [f"p{k}" for k in range(90)])
    for larger in (None, pool):
        given = task(tmp_path, views_of(2, 30), pairs=[(0, 1)], candidates_from=larger)
        held = judge(given, scorers, hold_out=False)
        with monkeypatch.context() as patch:
            patch.setattr(Room, "takes", lambda self, size: False)
            anew = judge(given, scorers, hold_out=False)
        for one, other in zip(held, anew, strict=True):
            np.testing.assert_array_equal(one.outcomes, other.outcomes)
            np.testing.assert_allclose(one.margins, other.margins, atol=1e-3)


def test_what_is_held_fits_the_room() -> None:
    room = Room(100)
    assert room.takes(60)
    assert not room.takes(41)
    assert room.takes(40)
    assert room.left == 0


def test_a_last_batch_that_says_nothing_to_the_cca_family_is_left_out_alone(
    tmp_path: Path, messages: list[str]
) -> None:
    stores = {name: {"l": x["layer_0"][:, :3]} for name, x in views_of(2, 63).items()}
    given = task(tmp_path, stores, batch_size=12, negatives=["random"])
    cca, cka = judge(given, closed_form(["cca", "cka"]), hold_out=False)
    assert np.isnan(cca.outcomes[..., -1]).all()
    assert not np.isnan(cca.outcomes[..., :-1]).any()
    assert not np.isnan(cka.outcomes).any()
    assert messages == [
        "WARNING: cca: the 3 rows of the last batch span every direction, so that each canonical correlation is 1; left out"
    ]
    found = {(row.measure, row.layer): row for row in tabulate("multilingual", [cca, cka], 0) if row.pair == "all"}
    assert found["cca", "all"].trials == 2 * 5
    assert found["cka", "all"].trials == 2 * 6
    assert found["cca", "l"].accuracy == pytest.approx(cca.outcomes[..., :-1].mean())
    assert found["cca", "l"].ci_low is not None
