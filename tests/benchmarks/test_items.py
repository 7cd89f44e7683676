"""Rows of one item in a retrieval benchmark: against loops over items, batches and candidates."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import made
import numpy as np
import numpy.typing as npt
import oracles
import pytest
import torch
from every_oracle import ORACLES
from helpers import run

from contrasim_cli.benchmarks import items
from contrasim_cli.benchmarks.items import Siblings, by_pattern, by_table, find_siblings, labels_in_pool, repeats
from contrasim_cli.benchmarks.outcomes import cluster_interval
from contrasim_cli.benchmarks.retrieval import retrieval
from contrasim_cli.benchmarks.retrieval_task import RetrievalTask
from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.rows.exact_search import Pool, nearest_candidates
from contrasim_cli.scoring import closed_form, learned
from contrasim_cli.store import View, open_store

CPU = torch.device("cpu")
CAPTIONS = 3  # of an image
Rows = npt.NDArray[np.float32]


def captioned(images: int, seed: int = 0, noise: float = 0.6) -> tuple[Rows, Rows, list[str], list[int]]:
    """Images, each there once per caption; their captions; ids `image:caption`; and the item of every row."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(images, 6))
    items = np.repeat(np.arange(images), CAPTIONS)
    maps = [np.linalg.qr(rng.normal(size=(width, 6)))[0].T for width in (8, 7)]
    image = (meaning @ maps[0])[items]
    caption = (meaning[items] + noise * rng.normal(size=(len(items), 6))) @ maps[1]
    ids = [f"{item:03d}:{k % CAPTIONS}" for k, item in enumerate(items)]
    return image.astype(np.float32), caption.astype(np.float32), ids, items.tolist()


def expected_batches(items: list[int], size: int) -> list[list[int]]:
    """Items with as many rows as others together, in blocks; of a block its first rows, then its second ones, …"""
    rows: dict[int, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item, []).append(row)
    by_count = sorted(rows.values(), key=lambda own: -len(own))
    blocks = [by_count[k : k + size] for k in range(0, len(by_count), size)]
    return [[own[k] for own in block] for block in blocks if len(block) > 1 for k in range(min(map(len, block)))]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_batches_hold_different_items_by_hand() -> None:
    #                            rows: 0  1  2  3  4  5  6  7  8  9
    siblings = Siblings([np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])])
    cut, blocks = siblings.cut(2)
    assert [batch.tolist() for batch in cut] == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 9]]
    assert blocks.tolist() == [0, 0, 1, 1, 2]
    cut, blocks = siblings.cut(4)
    assert [batch.tolist() for batch in cut] == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 9]]
    assert blocks.tolist() == [0, 0, 1]


def test_items_of_more_rows_than_the_others_of_their_block_give_as_many_as_these() -> None:
    cut, blocks = Siblings([np.array([0, 1, 1, 1, 2, 3, 3])]).cut(2)
    assert [batch.tolist() for batch in cut] == [[1, 5], [2, 6], [0, 4]]
    assert blocks.tolist() == [0, 0, 1]


def test_a_sibling_is_no_neighbour_by_hand(tmp_path: Path) -> None:
    """Twelve items on a line, of two rows each: the nearest row of every row is its sibling."""
    line = np.arange(24, dtype=np.float64)[:, None] // 2 * 10 + np.arange(24)[:, None] % 2
    pool = Pool(made.view(tmp_path / "a.h5", {"l": line}), "l")
    labels = np.arange(24) // 2
    assert nearest_candidates(pool, pool)[0, :2].tolist() == [1, 2]
    near = nearest_candidates(pool, pool, siblings=[(labels, labels)])
    assert near[0].tolist() == list(range(2, 12))
    assert near.tolist() == oracle_neighbours(line, labels.tolist())


def oracle_neighbours(rows: Any, items: list[int], only: int | None = None) -> list[list[int]]:
    """The ten nearest rows of other items, of every row or of one."""
    queries = list(range(len(rows))) if only is None else [only]
    every = oracles.nearest_neighbours(rows[queries], rows, len(rows), queries)
    return [[j for j in near if items[j] != items[i]][:10] for i, near in zip(queries, every, strict=True)]


# --- against loops ----------------------------------------------------------------------------------------------------


@pytest.mark.torch_only
@pytest.mark.parametrize("images", [16, 18])  # 18: a last block of two items, of three batches
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_accuracies_equal_a_loop_over_items_batches_and_candidates(tmp_path: Path, images: int, index: str) -> None:
    image, caption, ids, items = captioned(images)
    views = [made.view(tmp_path / f"{name}.h5", {"l": x}, ids) for name, x in (("img", image), ("cap", caption))]
    siblings = find_siblings(views, [["l"], ["l"]])
    assert siblings is not None
    encoder = made.encoder_file(tmp_path / "e.pt", widths=(7, 8), output=6)
    scorers = [*closed_form(["procrustes_size_shape", "rsm_norm_difference"]), *learned([encoder])]
    given = RetrievalTask(
        views, ["img", "cap"], [["l"], ["l"]], [(0, 1)], ["random", "faiss"], 4, 3, index=index, siblings=siblings
    )
    cut = expected_batches(items, 4)
    assert [batch.tolist() for batch in given.cut] == cut
    assert len(cut) == CAPTIONS * math.ceil(images / 4)
    drawn = siblings.random_candidates(given.cut, 3)
    near = np.array(oracle_neighbours(caption, items))
    for batch in cut:
        for t in range(10):
            others = [items[row] for row in drawn[batch, t]]
            assert len(set(others)) == len(batch)
            assert not set(others) & {items[row] for row in batch}
    right_ones = []
    for trials in retrieval(given, scorers, hold_out=False, device=CPU, budget=1 << 40):
        chosen = drawn if trials.negatives == "random" else near
        checkpoint = trials.scorer.checkpoint
        x, y = (
            rows if checkpoint is None else checkpoint.encode(rows, 0, "l", CPU).numpy() for rows in (image, caption)
        )
        name = trials.scorer.name if checkpoint is None else checkpoint.config.scored_by
        higher = trials.scorer.entry.higher_is_more_similar
        for b, batch in enumerate(cut):
            right = ORACLES[name](x[batch], y[batch])
            wrong = [ORACLES[name](x[batch], y[chosen[batch, t]]) for t in range(10)]
            assert trials.outcomes[0, 0, b] == oracles.retrieval_is_right(right, wrong, higher=higher)
        right_ones.append(trials.outcomes.mean())
    assert max(right_ones) > 0


def test_siblings_as_candidates_would_cost_accuracy(tmp_path: Path) -> None:
    """The negative control: an exact model of the images is right in every batch, and is not where siblings are wrong."""
    image, caption, ids, _ = captioned(40, noise=0.02)
    views = [made.view(tmp_path / f"{name}.h5", {"l": x}, ids) for name, x in (("img", image), ("cap", caption))]
    siblings = find_siblings(views, [["l"], ["l"]])
    accuracy = []
    for known in (siblings, None):
        task = RetrievalTask(views, ["img", "cap"], [["l"], ["l"]], [(0, 1)], ["faiss"], 8, siblings=known)
        (trials,) = retrieval(task, closed_form(["cka"]), hold_out=False, device=CPU, budget=1 << 40)
        accuracy.append(trials.outcomes.mean())
    assert accuracy[0] == 1
    assert accuracy[1] < 0.7


def test_random_candidates_are_as_often_of_one_item_as_of_another() -> None:
    items = np.repeat(np.arange(60), [1, 2, 3] * 20)
    siblings = Siblings([items])
    cut, _ = siblings.cut(4)
    drawn = np.concatenate([siblings.random_candidates(cut, seed)[np.concatenate(cut)] for seed in range(40)])
    counts = np.bincount(items[drawn].ravel(), minlength=60)
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


def test_items_of_many_rows_have_neighbours_too(tmp_path: Path) -> None:
    """More siblings than spare neighbours are asked for."""
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(4), 100)
    rows = (10 * rng.normal(size=(4, 3)))[items] + rng.normal(size=(400, 3))
    pool = Pool(made.view(tmp_path / "a.h5", {"l": rows}), "l")
    near = nearest_candidates(pool, pool, siblings=[(items, items)])
    sample = list(range(0, 400, 37))
    assert near[sample].tolist() == [oracle_neighbours(rows, items.tolist(), only=k)[0] for k in sample]


def test_two_ways_to_be_siblings_both_count() -> None:
    """Captions that are equal across images are no wrong candidates of either image."""
    items, captions = np.arange(20) // 2, np.arange(20)
    captions[[1, 6]] = 19  # one caption of item 0, one of item 3, the last of item 9
    siblings = Siblings([items, captions])
    cut, _ = siblings.cut(2)
    for batch, of in zip(cut, siblings.random_candidates(cut, 0)[np.array(cut)], strict=True):
        if 1 in batch:
            assert not {0, 1, 3, 9} & set(items[of].ravel().tolist())


def test_too_few_items_are_refused(tmp_path: Path) -> None:
    image, caption, ids, _ = captioned(5)
    views = [made.view(tmp_path / f"{name}.h5", {"l": x}, ids) for name, x in (("img", image), ("cap", caption))]
    siblings = find_siblings(views, [["l"], ["l"]])
    for size, text in (
        (4, "15 rows are of 5 items, which make fewer than two batches of 4"),
        (3, "random negatives need"),
    ):
        task = RetrievalTask(views, ["img", "cap"], [["l"], ["l"]], [(0, 1)], ["random"], size, siblings=siblings)
        with pytest.raises(InputError, match=text):
            retrieval(task, closed_form(["cka"]), hold_out=False, device=CPU, budget=1 << 40)


# --- what is found by value -------------------------------------------------------------------------------------------


def test_repeats_are_rows_that_are_equal_in_all_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    a[[2, 4, 5]] = a[0]
    b[4] = b[0]
    b[1], a[1] = [0.0, 1.0], -0.0
    b[3], a[3] = [-0.0, 1.0], 0.0
    view = made.view(tmp_path / "a.h5", {"a": a, "b": b, "constant": np.ones((6, 1))})
    found = repeats(view, ["a", "b", "constant"])
    assert found is not None
    assert found.tolist() == [0, 1, 2, 1, 0, 3]
    only_a = repeats(view, ["constant", "a"])
    assert only_a is not None
    assert only_a.tolist() == [0, 1, 0, 1, 0, 0]
    assert repeats(made.view(tmp_path / "b.h5", {"l": rng.normal(size=(6, 2))}), ["l"]) is None
    assert repeats(view, ["constant"]) is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_only_rows_that_may_repeat_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    values = np.random.default_rng(0).normal(size=(3000, 40)).astype(dtype)
    hashed: list[int] = []

    def row_hashes(view: items.View, layer: str, rows: items.RowIndex) -> npt.NDArray[np.void]:
        hashed.extend(rows)
        return whole(view, layer, rows)

    whole = items.row_hashes
    monkeypatch.setattr(items, "row_hashes", row_hashes)
    assert repeats(made.view(tmp_path / "a.h5", {"l": values}), ["l"]) is None
    assert not hashed
    values[2500] = values[7]
    repeated = made.view(tmp_path / "b.h5", {"l": values})
    found = repeats(repeated, ["l"])
    assert hashed == [7, 2500]
    monkeypatch.setattr(items, "_perhaps_repeated", lambda view, layer: np.ones(3000, dtype=bool))
    assert found is not None
    assert (found == repeats(repeated, ["l"])).all()
    assert int(found[2500]) == int(found[7])


def test_repeats_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, caption, ids, _ = captioned(6)
    caption[[1, 9]] = caption[16]  # one sentence for images 0, 3 and 5
    views = [made.view(tmp_path / f"{name}.h5", {"l": x}, ids) for name, x in (("img", image), ("cap", caption))]
    logging.getLogger("contrasim_cli").propagate = True
    with caplog.at_level(logging.INFO):
        siblings = find_siblings(views, [["l"], ["l"]])
    assert siblings is not None
    assert len(siblings.labels) == 2
    assert caplog.messages == [
        f"{tmp_path}/cap.h5: 3 rows equal rows of other items, and are no wrong candidates of theirs; the first is row 1",
        f"18 rows belong to 6 items (equal rows in {tmp_path}/img.h5): batches hold different items, and no row of an item is "
        "a wrong candidate of another",
    ]
    assert find_siblings(views[1:], [["l"]]) is not None
    assert find_siblings([made.view(tmp_path / "x.h5", {"l": np.arange(4)[:, None] * 1.0})], [["l"]]) is None


def test_a_larger_store_knows_the_siblings_by_id_by_value_or_by_what_is_said(tmp_path: Path) -> None:
    _, caption, ids, items = captioned(4)
    view = made.view(tmp_path / "cap.h5", {"l": caption}, ids)
    siblings = Siblings([np.array(items)])
    rng = np.random.default_rng(3)
    order = [5, 0, 11]
    rows = np.concatenate([rng.normal(size=(2, 7)).astype(np.float32), caption[order]])
    names = ["x:0", "003:9", *(ids[k] for k in order)]
    by_id = made.view(tmp_path / "pool.h5", {"l": rows + 1}, names)
    assert [found.tolist() for found in labels_in_pool(siblings, None, view, by_id, "l")] == [[-1, -1, 1, 0, 3]]
    np.savez(tmp_path / "pool.npz", l=rows)
    by_value = View(open_store(tmp_path / "pool.npz"))
    assert by_value.store.ids is None
    assert [found.tolist() for found in labels_in_pool(siblings, None, view, by_value, "l")] == [[-1, -1, 1, 0, 3]]
    said = by_pattern(r"(\w+):")
    both = said.labels(view), said.labels(by_id)
    assert [found.tolist() for found in labels_in_pool(siblings, both, view, by_id, "l")] == [[-1, 3, 1, 0, 3]]


# --- what is said -----------------------------------------------------------------------------------------------------


def test_the_group_of_an_id_is_the_first_group_or_the_whole_match(tmp_path: Path) -> None:
    view = made.view(tmp_path / "a.h5", {"l": np.ones((4, 1))}, ["b7#1", "a7#0", "b8#2", "a7#9"])
    assert by_pattern(r"^(\w+)#(\d)").labels(view).tolist() == [0, 1, 2, 1]
    assert by_pattern(r"\d").labels(view).tolist() == [0, 0, 1, 0]
    (tmp_path / "t.tsv").write_text("id\tgroup\nb7#1\tx\na7#0\ty\nunused\ty\nb8#2\tx\na7#9\tz\n")
    assert by_table(tmp_path / "t.tsv").labels(view).tolist() == [0, 1, 0, 2]
    (tmp_path / "t.csv").write_text('\ufeffb7#1,"x, y"\r\na7#0,q\r\nb8#2,"x, y"\r\na7#9,q\r\n', encoding="utf-8")
    assert by_table(tmp_path / "t.csv").labels(view).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a\tx\nb\ty\tz\n", "t.tsv: line 2: has 3 columns; a table of --groups has two, id and group (TSV or CSV)"),
        ("a,x\nb\n", "t.tsv: line 2: has 1 columns"),
        ("a\tx\na\ty\n", "t.tsv: line 2: id a is of y, and of x in a line before"),
        (b"a\t\xff\n", "t.tsv: is not a table of ids and groups in UTF-8"),
        ("a\tx\n", "a.h5: id r0 of row 0 is not in --groups "),
    ],
)
def test_a_bad_table_of_groups_is_one_line(tmp_path: Path, content: str | bytes, text: str) -> None:
    (tmp_path / "t.tsv").write_bytes(content.encode() if isinstance(content, str) else content)
    view = made.view(tmp_path / "a.h5", {"l": np.ones((4, 1))})
    with pytest.raises(InputError) as refused:
        by_table(tmp_path / "t.tsv").labels(view)
    assert text in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


# --- intervals --------------------------------------------------------------------------------------------------------


def test_blocks_are_resampled_whole() -> None:
    """Copies of every trial within its block tell nothing new; trials of blocks of unequal size count alike."""
    values = (np.random.default_rng(0).random(40) < 0.6).astype(float)
    alone = cluster_interval(values, 0)
    assert cluster_interval(5 * values, 0, np.full(40, 5.0)) == pytest.approx(alone)
    low, high = cluster_interval(np.array([9.0, 0.0]), 1, np.array([9.0, 1.0]))
    assert (low, high) == (0, 1)
    sums, sizes = np.array([9.0, 0.0, 0.0]), np.array([9.0, 1.0, 1.0])
    rng = np.random.default_rng([2, 95])
    drawn = rng.integers(0, 3, size=(2000, 3))
    means = [sum(sums[k] for k in one) / sum(sizes[k] for k in one) for one in drawn.tolist()]
    assert cluster_interval(sums, 2, sizes) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, Path]:
    image, caption, ids, _ = captioned(24)
    return made.store(tmp_path / "img.h5", {"l": image}, ids), made.store(tmp_path / "cap.h5", {"l": caption}, ids)


def overall(text: str) -> list[dict[str, Any]]:
    return [row for row in json.loads(text)["results"] if row["layer"] == "all"]


def alike(text: str) -> list[tuple[Any, ...]]:
    """Results but for margins, whose last digits depend on what is taken as the rows' mean."""
    return [(row["negatives"], row["accuracy"], row["mrr"], row["trials"]) for row in overall(text)]


BOTH = ("--negatives", "random", "--negatives", "faiss", "--batch-size", "4", "--measure", "cka", "--format", "json")


def test_what_is_said_and_what_is_found_come_to_the_same(coco: tuple[Path, Path], tmp_path: Path) -> None:
    found = run("bench", "image-caption", *coco, *BOTH)
    assert found.code == 0
    assert f"72 rows belong to 24 items (equal rows in {coco[0]})" in found.stderr
    (tmp_path / "g.csv").write_text("".join(f"{k:03d}:{c},image {k}\n" for k in range(24) for c in range(CAPTIONS)))
    by_id = run("bench", "image-caption", *coco, *BOTH, "--group-by", r"^\d+")
    by_file = run("bench", "image-caption", *coco, *BOTH, "--groups", tmp_path / "g.csv")
    assert overall(by_id.stdout) == overall(by_file.stdout) == overall(found.stdout)
    assert "72 rows belong to 24 items (--group-by)" in by_id.stderr
    assert "72 rows belong to 24 items (--groups)" in by_file.stderr
    content = json.loads(by_id.stdout)
    assert (content["items"], content["group_by"]) == ([24], r"^\d+")
    assert [row["trials"] for row in overall(by_id.stdout)] == [18, 18]  # 6 blocks of 4 images, 3 captions each


def test_captions_that_no_value_tells_are_told_by_ids(coco: tuple[Path, Path], tmp_path: Path) -> None:
    """Image rows that differ (another crop per caption): only ids know."""
    image, _, ids, _ = captioned(24)
    crops = made.store(
        tmp_path / "crops.h5", {"l": image + np.random.default_rng(5).normal(size=image.shape).astype("f4") / 9}, ids
    )
    unsaid = run("bench", "image-caption", crops, coco[1], *BOTH)
    said = run("bench", "image-caption", crops, coco[1], *BOTH, "--group-by", r"^(\d+):")
    assert "items" not in unsaid.stderr
    assert "72 rows belong to 24 items (--group-by)" in said.stderr
    assert overall(said.stdout)[1]["accuracy"] > overall(unsaid.stdout)[1]["accuracy"]


def test_candidates_from_a_larger_store_are_no_siblings(coco: tuple[Path, Path], tmp_path: Path) -> None:
    """A pool of the captions and of nothing else gives what the captions give."""
    own = run("bench", "image-caption", *coco, *BOTH, "--group-by", r"^\d+")
    pool = run("bench", "image-caption", *coco, *BOTH, "--group-by", r"^\d+", "--candidates-from", coco[1])
    assert alike(pool.stdout) == alike(own.stdout)
    unsaid = run("bench", "image-caption", *coco, *BOTH, "--candidates-from", coco[1])
    assert alike(unsaid.stdout) == alike(own.stdout)


def test_bad_groups_are_one_line(coco: tuple[Path, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(72, 8)).astype("f4"))
    no_ids = (tmp_path / "a.npy", tmp_path / "a.npy")
    table = tmp_path / "g.tsv"
    table.write_text("000:0\tx\n")
    for stores, options, code, text in (
        (coco, ["--group-by", "^x(.)"], 3, f"{coco[0]}: id 000:0 of row 0 does not match --group-by ^x(.) (and 71 more)"),
        (coco, ["--group-by", "("], 2, "--group-by (: is not a regular expression: missing )"),
        (coco, ["--groups", table], 3, f"{coco[0]}: id 000:1 of row 1 is not in --groups {table} (and 70 more)"),
        (coco, ["--groups", tmp_path / "none"], 3, f"{tmp_path}/none: cannot be read: No such file or directory"),
        (coco, ["--groups", table, "--group-by", "."], 2, "--group-by and --groups both say which item a row belongs to"),
        (no_ids, ["--group-by", "."], 2, f"--group-by says which item an id belongs to, but {no_ids[0]} has no ids"),
    ):  # fmt: skip
        done = run("bench", "image-caption", *stores, *BOTH, *options)
        errors = [line for line in done.stderr.splitlines() if line.startswith("contrasim: error: ")]
        assert (done.code, done.stdout, len(errors)) == (code, "", 1), done
        assert errors[0].startswith(f"contrasim: error: {text}")


def test_multilingual_takes_groups_and_trains(tmp_path: Path) -> None:
    _, first, ids, _ = captioned(16)
    stores = []
    for k, name in enumerate(("en", "ar", "zh")):
        rows = first + np.random.default_rng(k).normal(size=first.shape).astype("f4") / 4
        stores.append(made.store(tmp_path / f"{name}.h5", {"l": rows}, ids))
    options = ["--negatives", "random", "--batch-size", "4", "--format", "json", "--group-by", r"^\d+"]
    train = [part for path in stores for part in ("--train", path)]
    done = run(
        "bench", "multilingual", *stores, *options, *train, "--epochs", "1", "--encoder-dir", tmp_path / "enc", "--measure", "cka",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    rows = overall(done.stdout)
    assert {row["measure"] for row in rows} == {"cka", "supcon"}
    assert all(row["trials"] % 12 == 0 for row in rows)  # 4 blocks of 4 items, 3 rows each
    assert json.loads(done.stdout)["items"] == [16]


def test_compare_resamples_blocks(coco: tuple[Path, Path], tmp_path: Path) -> None:
    trials, other = tmp_path / "t.json", tmp_path / "o.json"
    options = ("--measure", "cka", "--measure", "procrustes", "--negatives", "random", "--batch-size", "3")
    assert run("bench", "image-caption", *coco, *options, "--trials", trials).code == 0
    done = run("bench", "compare", trials, "--format", "json")
    assert done.code == 0
    assert {row["clusters"] for row in json.loads(done.stdout)["results"]} == {8}  # 24 images in blocks of 3
    (facts,) = json.loads(trials.read_text())["tested_on"]
    assert facts["blocks"] == np.repeat(np.arange(8), 3).tolist()
    options = (*options, "--group-by", r"^(\d)")  # other items
    assert run("bench", "image-caption", *coco, *options, "--trials", other, "--batch-size", "2").code != 0
    content = json.loads(trials.read_text())
    content["tested_on"][0]["blocks"] = [0]
    other.write_text(json.dumps(content))
    assert "the trials are damaged" in run("bench", "compare", other).stderr


def test_the_group_of_a_said_id_may_not_be_guessed_from_no_ids() -> None:
    with pytest.raises(UsageError, match="is not a regular expression"):
        by_pattern("[")


# --- measures that say nothing of small batches -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 11])  # below k + 1 the sets are undefined, at k + 1 they are all rows
def test_neighbour_measures_are_left_empty_in_batches_of_too_few_rows(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    stores = [made.store(tmp_path / f"{n}.h5", {"l": rng.normal(size=(4 * size, 6))}) for n in ("a", "b")]
    done = run(
        "bench", "image-caption", *stores, "--batch-size", size, "--measure", "mutual_knn", "--measure", "jaccard_knn",
        "--measure", "procrustes_size_shape", "--format", "json",
    )  # fmt: skip
    rows = {row["measure"]: row for row in overall(done.stdout)}
    assert rows["mutual_knn"]["accuracy"] is rows["jaccard_knn"]["accuracy"] is None
    assert rows["mutual_knn"]["trials"] == 0
    assert rows["procrustes_size_shape"]["accuracy"] is not None
    text = f"batches of {size} rows are too few: 12 or more are needed (k = 10); left empty in layers l"
    assert f"contrasim: warning: mutual_knn: {text}\n" in done.stderr


def test_neighbour_measures_are_judged_in_batches_that_are_large_enough(tmp_path: Path) -> None:
    """And a last batch that is too small is left out alone."""
    (layers,) = made.related(1, 1, 12 * 4 + 3, (6,))
    rng = np.random.default_rng(1)
    stores = [
        made.store(tmp_path / f"{n}.h5", {"l": layers["layer_0"] + 0.1 * rng.normal(size=(51, 6))}) for n in ("a", "b")
    ]
    done = run(
        "bench", "image-caption", *stores, "--batch-size", "12", "--measure", "mutual_knn", "--format", "json"
    )  # fmt: skip
    (row,) = overall(done.stdout)
    assert (row["trials"], row["accuracy"]) == (4, 1.0)
    assert (
        "contrasim: warning: mutual_knn: the 3 rows of the last batch are too few: 12 or more are needed (k = 10); left out\n"
        in done.stderr
    )


def test_trials_without_a_score_are_told_with_the_zero_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6))
    a = made.store(tmp_path / "a.h5", {"l": rows, "m": rows}, [f"s{k}" for k in range(40)])
    rows[17] = 0
    b = made.store(tmp_path / "b.h5", {"l": rows, "m": rng.normal(size=(40, 6))}, [f"s{k}" for k in range(40)])
    done = run("bench", "image-caption", a, b, "--batch-size", "8", "--measure", "cosine", "--format", "json")
    (message,) = [line for line in done.stderr.splitlines() if "cosine" in line]
    assert message.startswith("contrasim: warning: cosine: undefined (a row is zero or the widths differ) in ")
    assert message.endswith(f" trials, which count as wrong; row 17 (id s17) of layer l of {b} is zero")
