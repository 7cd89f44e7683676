"""What encoders know of their training rows and models, and what they say of others."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import Result, run

import contrasim_cli as contrasim
from contrasim_cli import encoder as encoders
from contrasim_cli.errors import ContraSimWarning
from contrasim_cli.neuron_moments import FAR, Moments, pooled, sampled_rows, trained_stores

WIDTH, ROWS = 24, 300


def network(seed: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Two layers [n, WIDTH] of a network of its own on some inputs [n, 5]."""
    rng = np.random.default_rng([1, seed])
    found = {}
    for name in ("one", "two"):
        hidden = np.maximum(rows @ rng.normal(size=(5, WIDTH)) + rng.normal(size=WIDTH), 0)
        found[name] = rows = hidden.astype(np.float32)
        rows = rows[:, :5]
    return found


def inputs(seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng([2, seed]).normal(size=(ROWS, 5)) + shift


def stores(folder: Path, part: str, seeds: Sequence[int], rows: np.ndarray, attrs: bool = True) -> list[Path]:
    ids = [f"{part}_{row}" for row in range(ROWS)]
    paths = []
    for seed in seeds:
        named = {"model": f"net_{seed}", "pooling": "cls"} if attrs else {}
        paths.append(made.store(folder / f"{part}_{seed}.h5", network(seed, rows), ids, **named))
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domain")
    train = stores(folder, "train", range(3), inputs(0))
    stores(folder, "test", range(5), inputs(1))
    stores(folder, "shifted", range(3), inputs(2, shift=3.0))
    small = ["--epochs", 1, "--hidden", 8, "--dim", 4, "-q"]
    assert run("train", *train, "--task", "layers", "--recipe", "paper", "-o", folder / "raw.pt", *small).code == 0
    anchored = ["--inputs", "anchors", "--anchors", 20, "--copies", 0, "--members", 1]
    assert run("train", *train, "--task", "layers", *anchored, "-o", folder / "any.pt", *small).code == 0
    return folder


def score(folder: Path, encoder: str, *paths: Any) -> Result:
    return run("score", *paths, "--encoder", folder / encoder, "--null", 9, "--layers", "two")


def calibrated(result: Result) -> list[str]:
    assert result.code == 0, result.stderr
    return [line.split("\t")[6] for line in result.stdout.splitlines()[1:]]


def warnings(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if "warning" in line]


def test_the_distance_is_bhattacharyyas_of_normal_distributions() -> None:
    one, other = (
        Moments(np.array([0.0, 1.0]), np.array([1.0, 4.0])),
        Moments(np.array([2.0, 1.0]), np.array([1.0, 1.0])),
    )
    assert one.distance(other) == pytest.approx((4 / 8 + 0.5 * np.log(5 / 4)) / 2)
    assert one.distance(one) == 0


def test_constant_neurons_are_left_out() -> None:
    one, other = (
        Moments(np.array([0.0, 5.0]), np.array([1.0, 0.0])),
        Moments(np.array([0.0, 9.0]), np.array([1.0, 2.0])),
    )
    assert one.distance(other) == 0
    constant = Moments(np.array([1.0]), np.array([0.0]))
    assert constant.distance(constant) == 0
    assert constant.distance(Moments(np.array([1.0]), np.array([1.0]))) == np.inf


def test_moments_are_kept_as_text_and_pooled() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 50, 3))
    again = Moments.from_text(Moments.of(rows[0]).text)
    assert again.mean == pytest.approx(rows[0].mean(axis=0), rel=1e-6)
    assert again.variance == pytest.approx(rows[0].var(axis=0), rel=1e-6)
    both = pooled([Moments.of(part) for part in rows])
    assert both.mean == pytest.approx(rows.reshape(-1, 3).mean(axis=0))
    assert both.variance == pytest.approx(rows.reshape(-1, 3).var(axis=0))


def test_a_sample_lies_evenly_in_all_rows() -> None:
    assert sampled_rows(10).tolist() == list(range(10))
    rows = sampled_rows(1_000_000)
    assert (len(rows), rows[0], rows[-1]) == (2048, 0, 999_999)
    assert np.diff(rows).max() < 1_000_000 / 30


def test_rows_of_the_trained_models_are_known(folder: Path) -> None:
    result = score(folder, "raw.pt", folder / "test_0.h5", folder / "test_1.h5")
    assert warnings(result) == []
    assert calibrated(result) != [""]


def test_a_model_that_an_encoder_was_not_trained_on_is_told_and_not_calibrated(folder: Path) -> None:
    result = score(folder, "raw.pt", folder / "test_0.h5", folder / "test_1.h5", folder / "test_4.h5")
    assert len(warnings(result)) == 1
    assert "warning: raw.pt: was not trained on net_4; " in warnings(result)[0]
    assert [bool(cell) for cell in calibrated(result)] == [True, False, False]


@pytest.mark.parametrize("renamed", [False, True])
def test_without_attributes_models_are_known_by_their_neurons(folder: Path, tmp_path: Path, renamed: bool) -> None:
    paths = stores(tmp_path, "renamed", [0, 4] if renamed else [0, 1], inputs(1), attrs=False)
    result = score(folder, "raw.pt", *paths)
    assert warnings(result) == [] or "was not trained on renamed_4;" in warnings(result)[0]
    assert [bool(cell) for cell in calibrated(result)] == [not renamed]


def test_rows_of_other_inputs_are_told_by_store_and_layer(folder: Path) -> None:
    result = score(folder, "raw.pt", folder / "shifted_0.h5", folder / "shifted_1.h5")
    assert len(warnings(result)) == 1
    assert "rows lie far from all that the encoder was trained on" in warnings(result)[0]
    assert f"{folder}/shifted_0.h5 (two) and {folder}/shifted_1.h5 (two)" in warnings(result)[0]
    found, kept = Moments.of(network(0, inputs(2, 3.0))["two"]), Moments.of(network(0, inputs(0))["two"])
    assert found.distance(kept) > FAR


def test_a_layer_of_another_name_that_lies_far_is_one_that_was_not_trained_on(folder: Path, tmp_path: Path) -> None:
    paths = []
    for k in (0, 1):
        rows = network(k, inputs(1))
        paths.append(made.store(tmp_path / f"net_{k}.h5", {"hidden_0": 5 + rows["two"], **rows}, model=f"net_{k}"))
    (warning,) = warnings(run("score", *paths, "--encoder", folder / "raw.pt"))
    assert warning.endswith(
        f"was not trained on hidden_0 of {paths[0]} and {paths[1]}; rows of such layers lie far from those that it was trained on; "
        "leave them out with --layers 1-2, or train on them too"
    )


def test_a_benchmark_tells_too(folder: Path) -> None:
    tests = [folder / f"test_{k}.h5" for k in (3, 4)]
    result = run("bench", "layers", *tests, "--encoder", folder / "raw.pt")
    assert result.code == 0
    assert "was not trained on net_3 and net_4;" in warnings(result)[0]
    known = run("bench", "layers", folder / "test_0.h5", folder / "test_1.h5", "--encoder", folder / "raw.pt")
    assert [line for line in warnings(known) if "trials" not in line] == []


def test_anchored_encoders_take_any_model_and_tell_of_other_inputs(folder: Path) -> None:
    anchors = [option for k in (3, 4) for option in ("--anchor-store", folder / f"anchors_{k}.h5")]
    ids = [f"train_{row}" for row in range(ROWS)]
    for k in (3, 4):
        made.store(folder / f"anchors_{k}.h5", network(k, inputs(0)), ids, model=f"net_{k}", pooling="cls")
    result = score(folder, "any.pt", folder / "test_3.h5", folder / "test_4.h5", *anchors)
    assert warnings(result) == []
    assert calibrated(result) != [""]


@pytest.mark.parametrize("attrs", [True, False])
def test_swapped_anchors_are_refused(folder: Path, tmp_path: Path, attrs: bool) -> None:
    anchors, tests = (stores(tmp_path, part, [3, 4], inputs(k), attrs) for k, part in enumerate(("train", "test")))
    right, swapped = (["--anchor-store", one, "--anchor-store", other] for one, other in (anchors, anchors[::-1]))
    assert score(folder, "any.pt", *tests, *right).code == 0
    result = score(folder, "any.pt", *tests, *swapped)
    assert (result.code, result.stdout) == (4, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("contrasim: error: --anchor-store: ")
    assert ("is of model net_4 and not net_3" if attrs else "by its neurons") in line
    assert line.endswith("give the same model's anchors, in the order of the stores")


def test_anchors_that_are_pooled_otherwise_are_refused(folder: Path, tmp_path: Path) -> None:
    ids = [f"train_{row}" for row in range(ROWS)]
    other = made.store(tmp_path / "mean.h5", network(0, inputs(0)), ids, model="net_0", pooling="mean")
    asked = ["--anchor-store", other, "--anchor-store", folder / "train_1.h5"]
    result = score(folder, "any.pt", folder / "test_0.h5", folder / "test_1.h5", *asked)
    assert result.code == 4
    assert "mean.h5 has pooling mean and not cls, in the place of" in result.stderr


def test_encoders_without_moments_say_nothing_of_rows(folder: Path, tmp_path: Path) -> None:
    old = encoders.load(folder / "raw.pt")
    del old.provenance["moments"]
    encoders.save(tmp_path / "old.pt", old, force=True)
    assert trained_stores(old.provenance)[0].layers == {}
    assert warnings(score(tmp_path, "old.pt", folder / "shifted_0.h5", folder / "shifted_1.h5")) == []
    assert "not trained on net_4" in warnings(score(tmp_path, "old.pt", folder / "test_0.h5", folder / "test_4.h5"))[0]


def test_moments_are_under_the_digest_and_not_shown(folder: Path, tmp_path: Path) -> None:
    changed = encoders.load(folder / "raw.pt")
    assert set(changed.provenance["moments"][0]["layers"]) == {"one", "two"}
    shown = run("inspect", folder / "raw.pt", "--format", "json").stdout
    assert "moments" not in json.loads(shown)["provenance"]


@pytest.mark.filterwarnings("error::contrasim_cli.errors.ContraSimWarning")
def test_python_warns_of_such_a_model_too(folder: Path) -> None:
    measure = contrasim.load_encoder(folder / "raw.pt")
    measure.score(folder / "test_0.h5", folder / "test_1.h5")  # a warning is an error
    with pytest.warns(ContraSimWarning, match=r"^raw\.pt: was not trained on net_4; "):
        measure.score(folder / "test_0.h5", folder / "test_4.h5")
