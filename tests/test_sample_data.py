"""The sample data are what their README says: sizes, rows that line up, and benchmarks that mean something."""

import csv
import io
import json
from itertools import combinations
from pathlib import Path

import pytest
from helpers import run

from contrasim_cli.store import align, open_stores

SAMPLE = Path(__file__).parent.parent / "sample_data"
LANGUAGES = ("en", "ar", "zh", "ru", "tr")
GROUPS = {
    "layers": [f"seed_{k}.h5" for k in range(6)],
    "multilingual": [f"{language}.h5" for language in LANGUAGES],
    "image_caption": ["image.h5", "caption.h5"],
}
LEAST_TEST_ROWS = {"layers": 500, "multilingual": 500, "image_caption": 1280}


def paths(group: str, part: str) -> list[Path]:
    return [SAMPLE / group / part / name for name in GROUPS[group]]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("part", ["train", "test"])
def test_stores_line_up_and_hold_float16(group: str, part: str) -> None:
    stores = open_stores(paths(group, part))
    views = align(stores)
    assert all(view.rows is None for view in views)
    assert all(not store.ids.automatic for store in stores if store.ids)
    assert {layer.dtype.name for store in stores for layer in store.layers.values()} == {"float16"}
    if part == "test":
        assert stores[0].n_rows >= LEAST_TEST_ROWS[group]


@pytest.mark.parametrize("group", GROUPS)
def test_no_test_row_is_a_training_row(group: str) -> None:
    train, test = (open_stores(paths(group, part)[:1])[0] for part in ("train", "test"))
    assert train.ids is not None
    assert test.ids is not None
    assert not set(train.ids.read(0, train.n_rows)) & set(test.ids.read(0, test.n_rows))


def test_sentences_are_distinct_in_every_language() -> None:
    rows = [
        row
        for part in ("train", "test")
        for row in csv.DictReader((SAMPLE / "multilingual" / f"{part}.tsv").open(), delimiter="\t")
    ]
    for language in LANGUAGES:
        assert len({row[language] for row in rows}) == len(rows)
    for a, b in combinations(LANGUAGES, 2):
        assert all(row[a] != row[b] for row in rows)


def test_the_two_caption_models_share_a_tokenizer_and_differ_in_size() -> None:
    folders = [SAMPLE / "models" / name for name in ("caption_bert", "caption_bert_small")]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders}) == 1
    settings = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert [(each["hidden_size"], each["num_hidden_layers"]) for each in settings] == [(48, 4), (32, 3)]


def test_everything_fits_twenty_megabytes() -> None:
    files = [path for path in SAMPLE.rglob("*") if path.is_file() and "cache" not in str(path)]
    assert sum(path.stat().st_size for path in files) <= 20_000_000


@pytest.mark.parametrize(
    ("options", "group"),
    [
        (["layers", "--pairs", "all"], "layers"),
        (["multilingual", "--negatives", "faiss"], "multilingual"),
        (["image-caption", "--negatives", "faiss"], "image_caption"),
    ],
)
def test_cka_is_above_chance_and_far_from_perfect(options: list[str], group: str) -> None:
    ran = run("bench", *options, *map(str, paths(group, "test")), "--measure", "cka")
    assert ran.code == 0, ran.stderr
    rows = csv.DictReader(io.StringIO(ran.stdout), delimiter="\t")
    overall = next(row for row in rows if (row["pair"], row["layer"]) == ("all", "all"))
    assert float(overall["chance"]) < float(overall["ci_low"])
    assert float(overall["ci_high"]) < 0.75
