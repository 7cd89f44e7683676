"""`train --inputs measures`, and what its encoders give to `score`, `bench` and `inspect`; the encoder of the package."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import run as contrasim

from contrasim_cli import encoder as encoders
from contrasim_cli.stacking import universal

LAYERS, ROWS = 4, 120


def write(path: Path, seed: int, layers: int = LAYERS, width: int = 12, rows: int = ROWS, ids: str = "row") -> Path:
    """A made-up model: every layer adds some of its own rows, which all models share, to the one before."""
    shared = np.random.default_rng(0).normal(size=(24, ROWS, 6))
    rng = np.random.default_rng(seed)
    state = 0
    with h5py.File(path, "w") as store:
        for k in range(layers):
            state = 0.7 * state + shared[round(k * (LAYERS - 1) / max(1, layers - 1)), :rows]
            values = np.tanh(state @ rng.normal(size=(6, width))) + 0.3 * rng.normal(size=(rows, width))
            store[f"layers/l{k}"] = values.astype(np.float32)
            store[f"layers/l{k}"].attrs["index"] = k
        store.create_dataset("ids", data=[f"{ids}_{k}" for k in range(rows)], dtype=h5py.string_dtype())
        store.attrs.update(format="contrasim-activations", format_version=1, complete=True, model=path.stem)
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write(folder / f"m{seed}.h5", seed) for seed in range(4)]


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "over.pt"
    train(path, stores[:2])
    return path


def train(path, stores, *more):
    return contrasim(
        "train",
        *stores,
        "--task",
        "layers",
        "--inputs",
        "measures",
        "--start",
        "none",
        "--epochs",
        "1",
        "-o",
        path,
        *more,
    )


def scores(*arguments):
    return json.loads(contrasim("score", *arguments, "--format", "json").stdout)["results"]


@pytest.mark.slow
def test_an_encoder_of_measures_scores_models_of_any_width(trained, stores, tmp_path):
    wide = write(tmp_path / "wide.h5", 9, width=20)
    found = scores(stores[2], wide, "--encoder", trained)
    assert len(found) == LAYERS**2
    same = [row["score"] for row in found if row["layer_a"] == row["layer_b"]]
    others = [row["score"] for row in found if row["layer_a"] != row["layer_b"]]
    assert np.mean(same) > np.mean(others)


def test_scores_come_with_their_null(trained, stores):
    found = scores(stores[2], stores[3], "--encoder", trained)
    same = [row for row in found if row["layer_a"] == row["layer_b"]]
    assert all(0.05 < row["calibrated"] < 1 and row["null_z"] > 5 and row["null_p"] < 0.05 for row in same)
    assert "calibrated" not in scores(stores[2], stores[3], "--encoder", trained, "--null", "0")[0]


@pytest.mark.parametrize(("options", "shuffles"), [([], 7), (["--null", "3"], 3)])
def test_the_smallest_null_p_is_that_of_the_shuffles_of_all_cells(trained, stores, options, shuffles):
    found = scores(stores[2], stores[3], "--encoder", trained, *options)
    assert min(row["null_p"] for row in found) == pytest.approx(1 / (shuffles * LAYERS**2 + 1))


def test_a_layer_with_itself_is_1_and_shuffled_rows_are_0(trained, stores, tmp_path):
    itself = scores(stores[2], stores[2], "--encoder", trained)
    assert all(row["calibrated"] == pytest.approx(1, abs=1e-4) for row in itself if row["layer_a"] == row["layer_b"])
    shuffled = tmp_path / "shuffled.h5"
    with h5py.File(stores[3]) as old, h5py.File(shuffled, "w") as new:
        order = np.random.default_rng(3).permutation(ROWS)
        for name, layer in old["layers"].items():
            new[name] = layer[:][order]
    run = contrasim("score", stores[2], shuffled, "--encoder", trained, "--format", "json")
    unrelated = [row["calibrated"] for row in json.loads(run.stdout)["results"]]
    assert abs(np.mean(unrelated)) < 0.05
    assert "is clearly more similar" in run.stderr
    assert "is clearly more similar" not in contrasim("score", stores[2], stores[3], "--encoder", trained).stderr


def test_scores_do_not_mind_the_order_of_stores(trained, stores):
    ahead = {(r["layer_a"], r["layer_b"]): r["calibrated"] for r in scores(stores[2], stores[3], "--encoder", trained)}
    back = {(r["layer_b"], r["layer_a"]): r["calibrated"] for r in scores(stores[3], stores[2], "--encoder", trained)}
    assert [back[key] for key in ahead] == pytest.approx(list(ahead.values()), abs=0.05)  # shuffles differ


def test_rows_may_be_fewer(trained, stores):
    run = contrasim("score", stores[2], stores[3], "--encoder", trained, "--max-rows", "60", "--format", "json")
    assert json.loads(run.stdout)["max_rows"] == 60
    assert "--max-rows: 60 of 120 rows, in blocks chosen at random (--seed 0)" in run.stderr


def test_bootstrap_and_permutations_take_it(trained, stores):
    found = scores(
        stores[2], stores[3], "--encoder", trained, "--layers", "0-1", "--bootstrap", "4", "--permutations", "4"
    )
    assert all(row["ci_low"] <= row["ci_high"] for row in found)
    assert [row["p_value"] for row in found if row["layer_a"] == row["layer_b"]] == [0.2, 0.2]


def test_layers_one_by_one_are_the_calibrated_mean(trained, stores):
    (row,) = scores(stores[2], stores[3], "--encoder", trained, "--layers", "-1")
    gain = encoders.load(trained).encoder.grids.members[0].gain.item()
    assert row["score"] == pytest.approx(gain * row["calibrated"], rel=0.2)  # members differ a little


@pytest.mark.slow
def test_training_repeats_bit_for_bit(trained, stores, tmp_path):
    again, other = tmp_path / "again.pt", tmp_path / "other.pt"
    train(again, stores[:2])
    train(other, stores[:2], "--seed", "1")
    digests = [encoders.weights_digest(encoders.load(p).encoder.state_dict()) for p in (trained, again, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(trained, stores, tmp_path):
    whole, stopped = tmp_path / "whole.pt", tmp_path / "stopped.pt"
    train(whole, stores[:2], "--epochs", "2", "--force")
    state = encoders.load(whole)
    assert state.training["epochs_done"] == 2
    assert "already exists" in train(stopped, stores[:2], "--epochs", "2").stderr or stopped.exists()
    resumed = train(stopped, stores[:2], "--epochs", "2", "--resume")
    assert "is complete already" in resumed.stderr
    digests = [encoders.weights_digest(encoders.load(p).encoder.state_dict()) for p in (whole, stopped)]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_models_of_other_depths_correspond_by_relative_depth(stores, tmp_path):
    deep = write(tmp_path / "deep.h5", 7, layers=7)
    refused = train(tmp_path / "e.pt", [stores[0], deep])
    assert refused.code == 4
    assert "--match depth" in refused.stderr
    assert train(tmp_path / "e.pt", [stores[0], deep], "--match", "depth").code == 0


@pytest.mark.slow
def test_stores_of_other_rows_are_pairs_among_themselves(stores, tmp_path):
    others = [write(tmp_path / f"n{seed}.h5", seed, rows=80, ids="other") for seed in (11, 12)]
    run = train(tmp_path / "e.pt", [*stores[:2], *others])
    assert run.code == 0
    assert "2 pairs of stores" in run.stderr
    alone = train(tmp_path / "f.pt", [*stores[:2], others[0]])
    assert alone.code == 4
    assert "no other store has its rows" in alone.stderr


@pytest.mark.slow
def test_stores_of_one_layer_work(trained, stores, tmp_path):
    assert train(tmp_path / "e.pt", stores[:2], "--layers", "-1").code == 0


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--measures", "pwcca"), 2, "--measures pwcca: is not the same for X, Y and Y, X"),
        (("--measures", "ckka"), 2, "is unknown; did you mean cka"),
        (("--anchors", "64"), 2, "--anchors does not go with --inputs measures"),
        (("--recipe", "paper"), 2, "--recipe paper compares rows"),
        (("--objective", "deepcka"), 2, "learns from negatives"),
        (("--start", "missing.pt"), 3, "missing.pt"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(stores, tmp_path, more, code, said):
    run = train(tmp_path / "e.pt", stores[:2], *more)
    assert run.code == code
    assert said in run.stderr
    assert run.stderr.count("contrasim: error:") == 1


def test_pairs_of_rows_are_refused(stores, tmp_path):
    run = contrasim("train", *stores[:2], "--task", "pairs", "--inputs", "measures", "-o", tmp_path / "e.pt")
    assert run.code == 2
    assert "compares whole layers" in run.stderr
    run = contrasim("train", *stores[:2], "--task", "layers", "--match", "depth", "-o", tmp_path / "e.pt")
    assert "go with --inputs measures" in run.stderr


def test_retrieval_refuses_it(trained, stores):
    run = contrasim("bench", "multilingual", *stores[:3], "--encoder", trained)
    assert run.code == 2
    assert "compares whole layers" in run.stderr


# --- the encoder of the package -----------------------------------------------------------------------------------------


def test_universal_is_what_score_takes_without_an_encoder(stores):
    run = contrasim("score", stores[0], stores[1], "--format", "json")
    assert "no --encoder given: universal" in run.stderr
    found = json.loads(run.stdout)["results"]
    assert {row["measure"] for row in found} == {"universal"}
    named = contrasim("score", stores[0], stores[1], "--encoder", "universal", "--format", "json")
    assert json.loads(named.stdout)["results"] == found
    assert "no --encoder" not in named.stderr


def test_universal_is_small_and_of_the_measures_that_it_says():
    assert sum(path.stat().st_size for path in universal.SHIPPED.values()) < 1 << 20
    assert "procrustes_size_shape" in encoders.load(universal.FILE).config.measures
    assert "procrustes_size_shape" not in encoders.load(universal.SCALE_FREE_FILE).config.measures


@pytest.mark.slow
def test_bench_layers_shows_it_unless_measures_alone_are_asked_for(stores, trained):
    def measures(*more):
        run = contrasim("bench", "layers", *stores, "--format", "tsv", *more)
        assert run.code == 0, run.stderr
        return list(dict.fromkeys(line.split("\t")[1] for line in run.stdout.splitlines()[1:]))

    assert measures() == ["cka", "universal"]
    assert measures("--measure", "cka") == ["cka"]
    assert measures("--measure", "cka", "--encoder", trained) == ["cka", "over.pt", "universal"]
    assert measures("--encoder", "universal") == ["universal"]


def test_inspect_tells_how_it_was_tested():
    run = contrasim("inspect", "universal", "--format", "tsv")
    assert run.code == 0
    assert "left out vit, test, seed" in run.stdout


@pytest.mark.slow
def test_training_starts_from_it(stores, tmp_path):
    path = tmp_path / "e.pt"
    run = contrasim("train", *stores[:2], "--task", "layers", "--inputs", "measures", "--epochs", "1", "-o", path)
    assert run.code == 0, run.stderr
    assert encoders.load(path).provenance["start"] == encoders.weights_digest(
        encoders.load(universal.FILE).encoder.state_dict()
    )
    wrong = contrasim(
        "train", *stores[:2], "--task", "layers", "--inputs", "measures", "--measures", "cka", "--start", "universal",
        "-o", tmp_path / "f.pt",
    )  # fmt: skip
    assert wrong.code == 2
    assert "is not an encoder of the measures" in wrong.stderr


@pytest.mark.parametrize("name", list(universal.SHIPPED))
def test_universal_is_sane(name):
    store = Path(__file__).parents[2] / "sample_data" / "layers" / "test" / "seed_0.h5"
    run = contrasim("bench", "sanity", store, "--encoder", name, "--format", "tsv")
    assert run.code == 0
    assert "fails" not in run.stdout
    assert "\tok" in run.stdout


@pytest.mark.slow
def test_bench_trains_encoders_of_measures(stores, tmp_path):
    folder, out = tmp_path / "enc", tmp_path / "over.pt"
    trains = [word for store in stores[:2] for word in ("--train", store)]
    options = ["--inputs", "measures", "--epochs", "1", "--encoder-dir", folder]
    plan = contrasim("bench", "layers", *stores, *trains, *options, "--dry-run")
    assert plan.code == 0
    assert plan.stdout.split("\n")[1].split("\t")[1:6] == ["supcon", stores[0].parent.name, "0", str(ROWS), "100"]
    done = contrasim("bench", "layers", *stores, *trains, *options)
    assert done.code == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    named = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["measure"] for row in named if row["layer"] == row["pair"] == "all"] == ["universal", "supcon"]
    assert train_of_package(out, stores[:2]).code == 0
    (kept,) = folder.glob("*.pt")
    ours, theirs = encoders.load(kept), encoders.load(out)
    assert ours.config == theirs.config
    assert ours.training["loss_curve"] == theirs.training["loss_curve"]
    again = contrasim("bench", "layers", *stores, *trains, *options)
    assert (again.code, again.stdout) == (0, done.stdout)
    assert "training" not in again.stderr


def train_of_package(path, stores):
    """What train makes of them, beginning with the encoder of the package."""
    return contrasim("train", *stores, "--task", "layers", "--inputs", "measures", "--epochs", "1", "-o", path)


@pytest.mark.parametrize(
    ("benchmark", "options", "says"),
    [
        ("layers", ["--recipe", "paper"], "--recipe paper compares rows"),
        ("layers", ["--objective", "deepcka"], "--objective deepcka does not go with --inputs measures"),
        ("layers", ["--anchors", "4"], "--anchors goes with --inputs anchors"),
        ("multilingual", [], "compares whole layers; it goes with bench layers"),
    ],
)
def test_what_encoders_of_measures_do_not_have_is_refused(stores, tmp_path, benchmark, options, says):
    trains = [word for store in stores for word in ("--train", store)]
    more = ["--inputs", "measures", "--encoder-dir", tmp_path, *options]
    done = contrasim("bench", benchmark, *stores, *trains, *more)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr
