"""`contrasim bench` that trains what it needs, keeps every trial and compares them, through the real entry point."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import Result, run

from contrasim_cli import encoder
from contrasim_cli.benchmarks.trials import read_trials

QUICK = ["--epochs", "2", "--train-batch-size", "16"]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def overall(text: str, **where: str) -> list[dict[str, str]]:
    """The lines of all layers, but for the package's encoder, which stands beside them in `bench layers`."""
    rows = [row for row in table(text) if row["layer"] == "all" and row["pair"] in ("all", where.get("pair", "all"))]
    rows = [row for row in rows if row["measure"] != "universal"]
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def noisy(views: int, rows: int, seed: int, widths: tuple[int, ...] = (7,)) -> list[dict[str, Any]]:
    """The same rows with other noise, in views of these widths in turn."""
    (base,) = made.related(1, 2, rows, (7,), seed=seed)
    rng = np.random.default_rng(seed)
    found = []
    for v in range(views):
        width = widths[v % len(widths)]
        mix = np.eye(7)[:, :width] if width <= 7 else np.eye(7, width)
        found.append({n: (x @ mix + 0.4 * rng.normal(size=(rows, width))).astype(np.float32) for n, x in base.items()})
    return found


def written(folder: Path, names: list[str], layers: list[dict[str, Any]], prefix: str = "r") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{prefix}{k}" for k in range(len(next(iter(layers[0].values()))))]
    return [made.store(folder / f"{name}.h5", x, ids) for name, x in zip(names, layers, strict=True)]


@pytest.fixture
def models(tmp_path: Path) -> tuple[list[Path], str]:
    names = [f"m{k}" for k in range(4)]
    written(tmp_path / "ptb" / "train", names, made.related(4, 3, 48, (7,), seed=0), "t")
    return written(tmp_path / "ptb" / "test", names, made.related(4, 3, 40, (7,), seed=0)), f"{tmp_path}/ptb/train/*.h5"


@pytest.fixture
def views(tmp_path: Path) -> tuple[list[Path], str]:
    names = ["en", "ar", "zh"]
    written(tmp_path / "train", names, noisy(3, 48, 0), "t")
    return written(tmp_path / "test", names, noisy(3, 91, 1)), f"{tmp_path}/train/*.h5"


def bench(kind: str, tested: list[Path], train: object, folder: Path, *options: object) -> Result:
    trains = train if isinstance(train, list) else [train]
    stores = [word for store in trains for word in ("--train", store)]
    return run("bench", kind, *tested, *stores, "--encoder-dir", folder / "enc", *QUICK, *options)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_layers_trains_what_is_missing_once(models: tuple[list[Path], str], tmp_path: Path) -> None:
    options = [
        "--objective",
        "contrasim",
        "--objective",
        "deepcka",
        "--measure",
        "cka",
        "--seeds",
        "2",
        "--pairs",
        "all",
    ]
    done = bench("layers", *models, tmp_path, *options)
    assert done.code == 0
    assert done.stderr.startswith(f"contrasim: note: training 4 of 4 encoders, 0 are there, in {tmp_path}/enc\n")
    rows = overall(done.stdout)
    assert [(r["measure"], r["test_data"], r["train_data"], r["models"], r["encoders"], r["trials"]) for r in rows] == [
        ("cka", "ptb", "", "", "0", "36"),
        ("contrasim", "ptb", "ptb", "", "2", "72"),
        ("deepcka", "ptb", "ptb", "", "2", "72"),
    ]
    assert list(table(done.stdout)[0])[-4:] == ["test_data", "train_data", "models", "encoders"]
    of_package = [row for row in table(done.stdout) if row["measure"] == "universal"]
    (ours,) = (row for row in of_package if row["layer"] == row["pair"] == "all")
    assert (ours["test_data"], ours["train_data"], ours["encoders"], ours["trials"]) == ("ptb", "", "1", "36")
    files = sorted((tmp_path / "enc").iterdir())
    assert [file.name.rsplit("-", 1)[0] for file in files] == [
        "contrasim-layers-seed0", "contrasim-layers-seed1", "deepcka-layers-seed0", "deepcka-layers-seed1"
    ]  # fmt: skip
    again = bench("layers", *models, tmp_path, *options)
    assert (again.code, again.stdout) == (0, done.stdout)
    assert again.stderr == (
        "contrasim: warning: deepcka on ptb, seed 0 and deepcka on ptb, seed 1: 40 rows are fewer than the 128 dimensions of "
        "encoded rows, where unrelated rows look alike too; give more rows\n"
    )


def test_what_it_trains_is_what_train_trains(models: tuple[list[Path], str], tmp_path: Path) -> None:
    tested, pattern = models
    done = bench("layers", tested, pattern, tmp_path, "--recipe", "paper", "--train-seed", "5", "--lr", "0.01")
    out = tmp_path / "e.pt"
    stores = sorted(Path(pattern).parent.glob("*.h5"))
    made_by = [
        "--task",
        "layers",
        "--recipe",
        "paper",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--seed",
        "5",
        "--lr",
        "0.01",
    ]
    assert run("train", *stores, *made_by, "-o", out).code == done.code == 0
    (kept,) = (tmp_path / "enc").iterdir()
    ours, theirs = encoder.load(kept), encoder.load(out)
    assert ours.config == theirs.config
    assert ours.provenance == theirs.provenance
    assert ours.training["loss_curve"] == theirs.training["loss_curve"]
    alone = run("bench", "layers", *tested, "--encoder", out)
    assert overall(alone.stdout)[0]["accuracy"] == overall(done.stdout)[0]["accuracy"]


def test_every_training_set_is_tested_on_every_test_set(models: tuple[list[Path], str], tmp_path: Path) -> None:
    names = [f"m{k}" for k in range(4)]
    written(tmp_path / "wiki" / "train", names, made.related(4, 3, 48, (7,), seed=1), "u")
    wiki = written(tmp_path / "wiki" / "test", names, made.related(4, 3, 30, (7,), seed=1), "v")
    options = ["--measure", "cka", "--seeds", "2", "--format", "json", "--plot", tmp_path / "p.svg"]
    done = bench("layers", [*models[0], *wiki], f"{tmp_path}/*/train/*.h5", tmp_path, *options)
    assert done.code == 0
    content = json.loads(done.stdout)
    rows = [row for row in content["results"] if row["layer"] == row["pair"] == "all" and row["measure"] != "universal"]
    assert [(r["measure"], r["train_data"], r["test_data"]) for r in rows] == [
        ("cka", "", "ptb"), ("contrasim_norm", "ptb", "ptb"), ("contrasim_norm", "wiki", "ptb"),
        ("cka", "", "wiki"), ("contrasim_norm", "ptb", "wiki"), ("contrasim_norm", "wiki", "wiki"),
    ]  # fmt: skip
    assert [one["train_data"] for one in content["encoders"]] == ["ptb", "ptb", "wiki", "wiki"]
    assert all(Path(one["file"]).exists() for one in content["encoders"])
    assert len(content["train"]) == 8
    alone = run("bench", "layers", *wiki, "--measure", "cka")
    assert float(overall(alone.stdout)[0]["accuracy"]) == rows[3]["accuracy"]


def test_models_that_are_held_out_are_tested_beside_the_others(models: tuple[list[Path], str], tmp_path: Path) -> None:
    done = bench("layers", *models, tmp_path, "--hold-out-models", "2", "--measure", "cka")
    assert done.code == 0
    rows = overall(done.stdout)
    assert [(r["measure"], r["models"]) for r in rows] == [
        ("cka", "seen"), ("contrasim_norm", "seen"), ("cka", "unseen"), ("contrasim_norm", "unseen")
    ]  # fmt: skip
    (kept,) = (tmp_path / "enc").iterdir()
    assert [store["name"] for store in encoder.load(kept).provenance["stores"]] == ["m0", "m1"]
    unseen = run("bench", "layers", *models[0][2:], "--measure", "cka")
    assert overall(unseen.stdout)[0]["accuracy"] == rows[2]["accuracy"]
    given = run("bench", "layers", *models[0], "--encoder", kept, "--hold-out-models", "2")
    of_encoder = [r["accuracy"] for r in overall(given.stdout)]
    assert of_encoder == [rows[1]["accuracy"], rows[3]["accuracy"]]
    wrong = run("bench", "layers", *models[0][1:], models[0][0], "--encoder", kept, "--hold-out-models", "2")
    assert (wrong.code, wrong.stdout) == (2, "")
    assert "was trained on m0, which --hold-out-models holds out" in wrong.stderr


def test_anchors_of_the_tested_rows_come_from_the_training_stores(
    models: tuple[list[Path], str], tmp_path: Path
) -> None:
    """Those of models that are held out too, whose training rows nothing is trained on."""
    tested, pattern = models
    options = ["--hold-out-models", "2", "--pairs", "all"]
    done = bench("layers", tested, pattern, tmp_path, *options, "--inputs", "anchors", "--anchors", "12")
    assert done.code == 0, done.stderr
    rows = overall(done.stdout)
    assert [(r["measure"], r["models"]) for r in rows] == [("supcon", "seen"), ("supcon", "unseen")]
    (kept,) = (tmp_path / "enc").iterdir()
    found = encoder.load(kept)
    assert [store["name"] for store in found.provenance["stores"]] == ["m0", "m1"]
    assert len(found.config.anchors) == 36
    assert set(found.config.anchors) <= {f"t{k}" for k in range(48)}  # no row that is tested
    stores = [word for path in sorted(Path(pattern).parent.glob("*.h5")) for word in ("--anchor-store", path)]
    given = run("bench", "layers", *tested, "--encoder", kept, *options, *stores)
    of_encoder = [r["accuracy"] for r in overall(given.stdout)]
    assert of_encoder == [r["accuracy"] for r in rows]
    without = run("bench", "layers", *tested, "--encoder", kept, *options)
    assert (without.code, without.stderr.count("36 of the encoder's 36 anchor rows are missing")) == (4, 4)


@pytest.mark.slow
def test_anchors_of_each_data_set_are_its_own(models: tuple[list[Path], str], tmp_path: Path) -> None:
    tested, pattern = models
    names = [f"m{k}" for k in range(4)]
    anchored = ["--inputs", "anchors", "--anchors", "12"]
    wiki = written(tmp_path / "wiki" / "test", names, made.related(4, 3, 40, (7,), seed=1), "v")
    written(tmp_path / "wiki" / "train", names, made.related(4, 3, 48, (7,), seed=1), "u")
    both = bench("layers", [*tested, *wiki], f"{tmp_path}/*/train/*.h5", tmp_path, *anchored)
    alone = bench("layers", [*tested], pattern, tmp_path, *anchored)
    assert (both.code, alone.code) == (0, 0)
    assert "train" not in alone.stderr  # they are trained already
    (same,) = overall(both.stdout, train_data="ptb", test_data="ptb")
    assert overall(alone.stdout)[0]["accuracy"] == same["accuracy"]
    written(tmp_path / "wiki" / "train", names, made.related(4, 3, 48, (7,), seed=1), "t")
    alike = bench("layers", [*tested, *wiki], f"{tmp_path}/*/train/*.h5", tmp_path, *anchored)
    assert (alike.code, alike.stdout) == (2, "")
    assert "rows of ptb and wiki have the same ids, so that the anchors of one could be taken" in alike.stderr


# --- retrieval --------------------------------------------------------------------------------------------------------


def test_multilingual_trains_on_every_pair_and_tests_on_the_others(
    views: tuple[list[Path], str], tmp_path: Path
) -> None:
    options = ["--measure", "cka", "--seeds", "2", "--negatives", "random", "--negatives", "faiss"]
    trials = tmp_path / "t.json"
    done = bench("multilingual", *views, tmp_path, *options, "--trials", trials)
    assert done.code == 0
    assert len(list((tmp_path / "enc").iterdir())) == 6  # both orders of a pair have the same encoder
    rows = {(r["measure"], r["negatives"]): r for r in overall(done.stdout)}
    assert list(rows) == [("cka", "random"), ("cka", "faiss"), ("supcon", "random"), ("supcon", "faiss")]
    batches = 12  # 11 of 8 and one of 3
    assert rows["cka", "random"]["trials"] == str(6 * 2 * batches)
    assert rows["supcon", "random"]["trials"] == str(6 * 4 * 2 * batches)
    assert rows["supcon", "random"]["encoders"] == "6"
    members = [one for one in read_trials(trials).measures if (one.measure, one.negatives) == ("supcon", "random")]
    assert [one.encoder for one in members] == [
        f"{pair}, seed {k}" for pair in ("en-ar", "en-zh", "ar-zh") for k in range(2)
    ]
    assert members[0].pairs == ["en-zh", "ar-zh", "zh-en", "zh-ar"]
    means = np.concatenate([one.outcomes.mean(axis=(1, 2)) for one in members])
    assert float(rows["supcon", "random"]["accuracy"]) == pytest.approx(means.mean())
    assert float(rows["supcon", "random"]["std"]) == pytest.approx(means.std())  # over encoders and pairs
    per_layer = next(r for r in table(done.stdout) if r["measure"] == "supcon" and r["pair"] == "all")
    by_side = np.concatenate([one.outcomes[:, 0].mean(axis=1) for one in members])
    assert float(per_layer["accuracy"]) == pytest.approx(by_side.mean())
    assert float(per_layer["std"]) == pytest.approx(by_side.std())


def test_an_order_has_its_own_encoder_where_one_side_has_the_anchors(
    views: tuple[list[Path], str], tmp_path: Path
) -> None:
    done = bench("multilingual", *views, tmp_path, "--anchor-side", "first")
    assert done.code == 0
    assert len(list((tmp_path / "enc").iterdir())) == 6


def test_image_caption_over_pairs_of_models(tmp_path: Path) -> None:
    names = ["vit", "convnext", "bert", "gpt2"]
    written(tmp_path / "train", names, noisy(4, 48, 0, (7, 9, 7, 5)), "t")
    vit, convnext, bert, gpt2 = written(tmp_path / "test", names, noisy(4, 90, 1, (7, 9, 7, 5)))
    options = ["--captions", bert, "--captions", gpt2, "--measure", "cka", "--measure", "dot", "--batch-size", "16"]
    trials = ["--trials", tmp_path / "t.json", "--seeds", "2"]
    done = bench("image-caption", [vit, convnext], f"{tmp_path}/train/*.h5", tmp_path, *options, *trials)
    assert done.code == 0
    pairs = ["vit-bert", "vit-gpt2", "convnext-bert", "convnext-gpt2"]
    rows = [row for row in table(done.stdout) if row["layer"] == "all"]
    of = {"cka": "0", "dot": "0", "supcon": "2"}
    assert [(row["pair"], row["measure"], row["encoders"]) for row in rows] == [
        (pair, measure, encoders) for pair in pairs for measure, encoders in of.items()
    ]
    alone = run("bench", "image-caption", vit, gpt2, "--measure", "cka", "--batch-size", "16")
    (found,) = [row for row in rows if (row["pair"], row["measure"]) == ("vit-gpt2", "cka")]
    assert found["accuracy"] == overall(alone.stdout)[0]["accuracy"]
    assert [row["accuracy"] for row in rows if row["measure"] == "dot"][1:] == [""] * 3  # widths differ
    compared = table(run("bench", "compare", tmp_path / "t.json", "--measure", "supcon", "--measure", "cka").stdout)
    assert [row["pair"] for row in compared if row["layer"] == "all"] == pairs


def test_image_caption_of_one_pair_takes_its_training_stores_in_order(tmp_path: Path) -> None:
    trained = written(tmp_path / "train", ["a", "b"], noisy(2, 48, 0), "t")
    tested = written(tmp_path / "test", ["image", "caption"], noisy(2, 90, 1))
    done = bench("image-caption", tested, trained, tmp_path, "--batch-size", "16", "--format", "table")
    assert done.code == 0
    assert "supcon" in done.stdout


def test_retrieval_by_anchored_rows(tmp_path: Path) -> None:
    """Views of differing widths; a pair of images and captions by position, whatever their files are called."""
    anchored = ["--inputs", "anchors", "--anchors", "16", "--negatives", "faiss"]
    names, widths = ["en", "ar", "zh"], (7, 9, 5)
    written(tmp_path / "train", names, noisy(3, 48, 0, widths), "t")
    tested = written(tmp_path / "test", names, noisy(3, 90, 1, widths))
    done = bench("multilingual", tested, f"{tmp_path}/train/*.h5", tmp_path, *anchored)
    assert done.code == 0, done.stderr
    (row,) = overall(done.stdout)
    assert (row["measure"], row["encoders"]) == ("supcon", "3")
    pair = written(tmp_path / "pair", ["images", "captions"], noisy(2, 90, 1, widths))
    trained = [tmp_path / "train" / f"{name}.h5" for name in ("en", "ar")]
    done = bench("image-caption", pair, trained, tmp_path, "--batch-size", "16", *anchored)
    assert done.code == 0, done.stderr
    dry = bench("image-caption", pair, trained, tmp_path, *anchored, "--train-seed", "3", "--dry-run")
    assert (dry.code, "would train 1 of 1 encoders in about" in dry.stderr) == (0, True)


# --- before anything is trained ---------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_trained_and_what_is_there(views: tuple[list[Path], str], tmp_path: Path) -> None:
    done = bench("multilingual", *views, tmp_path, "--dry-run", "--objective", "contrasim")
    rows = table(done.stdout)
    assert done.code == 0
    assert [(r["objective"], r["trained_on"], r["seed"], r["state"], r["rows"], r["steps"]) for r in rows] == [
        ("contrasim", pair, "0", "missing", "48", "12") for pair in ("en-ar", "en-zh", "ar-zh")
    ]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert "contrasim: note: would train 3 of 3 encoders in about 0:00:0" in done.stderr
    assert not (tmp_path / "enc").exists()
    assert bench("multilingual", *views, tmp_path, "--objective", "contrasim").code == 0
    assert sorted(row["encoder"] for row in rows) == sorted(file.name for file in (tmp_path / "enc").iterdir())
    after = table(bench("multilingual", *views, tmp_path, "--dry-run", "--objective", "contrasim").stdout)
    assert [(row["state"], row["seconds"]) for row in after] == [("trained", "0.0")] * 3


def test_encoders_are_kept_in_the_users_cache(
    models: tuple[list[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = run("bench", "layers", *models[0], "--train", models[1], *QUICK)
    assert done.code == 0
    assert len(list((tmp_path / "cache" / "contrasim" / "encoders").iterdir())) == 1


@pytest.mark.parametrize(("there", "code"), [(False, 3), (True, 2)])
def test_one_training_store_is_missing_or_too_few(
    models: tuple[list[Path], str], tmp_path: Path, there: bool, code: int
) -> None:
    path = tmp_path / "only.h5"
    if there:
        made.store(path, made.related(1, 3, 48, (7,))[0])
    done = run("bench", "layers", *models[0], "--train", path)
    said = (
        f"--train {tmp_path}: encoders are trained on two models or more, found 1 model"
        if there
        else f"{path}: cannot be read: No such file or directory"
    )
    assert (done.code, done.stderr) == (code, f"contrasim: error: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers", "{m}", "--objective", "contrasim"], "--objective is an option of training; give --train STORE with it"),
        (["layers", "{m}", "--inputs", "anchors"], "--inputs is an option of training; give --train STORE with it"),
        (["layers", "{m}", "--train", "{t}", "--anchors", "9"], "--anchors goes with --inputs anchors"),
        (["layers", "{m}", "--dry-run"], "--dry-run is an option of training; give --train STORE with it"),
        (["layers", "{m}", "--hold-out-models", "2"], "--hold-out-models tests on models that encoders were not trained on; "
         "give --train or --encoder"),
        (["layers", "{m}", "--train", "{t}", "--hold-out-models", "3"], "--hold-out-models: 3 models are held out; bench layers "
         "makes disjoint pairs of stores, 3 is odd; leave one out or give --pairs all"),
        (["layers", "{m}", "--train", "{t}", "--hold-out-models", "4"], "--hold-out-models: 0 models are left; bench layers "
         "compares two or more stores, one per model"),
        (["layers", "{m}", "--train", "{t}", "--lr", "0"], "--lr 0: must be greater than 0"),
        (["multilingual", "{two}", "--train", "{t}"], "--train: an encoder is judged on pairs of views that it was not trained "
         "on; give three views or more"),
        (["multilingual", "{m}", "--train", "{strange}"], "--train {strange}: no tested store has this name; they are m0, m1, "
         "m2, m3"),
        (["image-caption", "{m}"], "bench image-caption compares two stores, images and captions, 4 given; for several, give "
         "those of captions with --captions"),
        (["image-caption", "{m}", "--captions", "{one}", "--train", "{strange}", "--train", "{one}"], "--train {strange}: no "
         "tested store has this name; they are m0, m1, m2, m3"),
        (["image-caption", "{m}", "--captions", "{one}", "--train", "{one}"], "--train: there is no training store of the name "
         "m1, m2, m3"),
        (["layers", "{m}", "--train", "/nowhere/*.h5"], "--train /nowhere/*.h5: matches no file"),
        (["layers", "{m}", "--train", "{t}", "--format", "value"], "--format value prints one score; bench has many, give "
         "--format tsv"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_trained(
    models: tuple[list[Path], str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    tested, pattern = models
    names = {"t": pattern, "one": str(tested[0]), "strange": str(tmp_path / "strange.h5")}
    made.store(tmp_path / "strange.h5", made.related(1, 3, 48, (7,))[0])
    words: list[object] = []
    for word in arguments:
        words.extend(tested if word == "{m}" else tested[:2] if word == "{two}" else [word.format(**names)])
    done = run("bench", *words)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"contrasim: error: {message.format(**names)}\n"


# --- trials and comparisons -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_of_trials_are_compared(views: tuple[list[Path], str], tmp_path: Path) -> None:
    for k in range(2):
        options = [
            "--objective",
            "contrasim",
            "--train-seed",
            k,
            "--measure",
            "dot",
            "--trials",
            tmp_path / f"{k}.json",
        ]
        assert bench("multilingual", *views, tmp_path, *options).code == 0
    refused = bench("multilingual", *views, tmp_path, "--objective", "contrasim", "--trials", tmp_path / "0.json")
    assert (refused.code, refused.stdout) == (5, "")
    done = run("bench", "compare", tmp_path / "0.json", tmp_path / "1.json")
    assert done.code == 0
    rows = [row for row in table(done.stdout) if row["layer"] == "all"]
    assert [(row["measure_a"], row["measure_b"], row["verdict"]) for row in rows] == [
        ("dot", "dot", "no difference"), ("contrasim", "contrasim", "no difference")
    ]  # fmt: skip
    assert "contrasim and contrasim: trained alike but for their seeds" in done.stderr
    inside = run(
        "bench", "compare", tmp_path / "0.json", "--measure", "contrasim", "--measure", "dot", "-o", tmp_path / "c.tsv"
    )
    assert inside.code == 0
    assert (tmp_path / "c.tsv").read_text() == inside.stdout
    again = run("bench", "compare", tmp_path / "0.json", "--measure", "contrasim", "--measure", "dot")
    assert again.stdout == inside.stdout


def test_other_trials_are_refused(views: tuple[list[Path], str], tmp_path: Path) -> None:
    for seed in (0, 1):
        run("bench", "multilingual", *views[0], "--seed", seed, "--trials", tmp_path / f"{seed}.json")
    done = run("bench", "compare", tmp_path / "0.json", tmp_path / "1.json")
    assert (done.code, done.stdout) == (4, "")
    assert done.stderr == (f"contrasim: error: {tmp_path}/1.json: seed of the candidates: 1, {tmp_path}/0.json has 0\n")
    assert run("bench", "compare", tmp_path / "0.json").code == 2  # one measure alone
    assert run("bench", "compare", views[0][0], tmp_path / "1.json").code == 3
    three = [tmp_path / "0.json"] * 3
    assert run("bench", "compare", *three).stderr == "contrasim: error: bench compare takes one or two files, 3 given\n"


def test_a_measure_that_is_better_is_told_from_one_that_is_not(tmp_path: Path) -> None:
    stores = written(tmp_path / "x", ["en", "ar", "zh"], noisy(3, 400, 2))
    shuffled = [{n: np.roll(x, k, axis=1) for n, x in layers.items()} for k, layers in enumerate(noisy(3, 400, 2))]
    stores = written(tmp_path / "y", ["en", "ar", "zh"], shuffled)
    out = tmp_path / "t.json"
    run("bench", "multilingual", *stores, "--measure", "cka", "--measure", "rv", "--measure", "dot", "--trials", out)
    same = table(run("bench", "compare", out, "--measure", "cka", "--measure", "rv").stdout)
    other = table(run("bench", "compare", out, "--measure", "cka", "--measure", "dot").stdout)
    assert {row["verdict"] for row in same} == {"no difference"}
    assert other[-1]["verdict"] == "different"
    assert float(other[-1]["difference"]) > 0.2
