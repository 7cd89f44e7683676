"""`contrasim score --null`: columns against slow formulas, in memory and streamed."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli.measures.load import similarity
from contrasim_cli.seeds import CONFIDENCE_SHUFFLE as SHUFFLE

COLUMNS = ["calibrated", "null_z", "null_p", "null"]


def scored(*arguments: Any) -> list[dict[str, str]]:
    done = run("score", *arguments)
    assert done.code == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))


def stores_of(folder: Path, rows: int = 60, count: int = 2) -> tuple[list[dict[str, Any]], list[Path]]:
    layers = made.related(count, 2, rows, (6,))
    return layers, [made.store(folder / f"{'abc'[k]}.h5", x) for k, x in enumerate(layers)]


@pytest.mark.parametrize(("name", "options"), [
    ("dot", {}), ("norm", {"similarity": "norm"}), ("cka", {"objective": "deepcka"})
])  # fmt: skip
def test_columns_are_those_of_the_formulas(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    layers, paths = stores_of(tmp_path)
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,), **options)
    rows = scored(*paths, "--encoder", path, "--null", 200, "--seed", 3)
    assert list(rows[0]) == ["measure", "store_a", "layer_a", "store_b", "layer_b", "score", *COLUMNS]
    loaded = encoders.load(path).encoder
    for row in rows:
        with torch.no_grad():
            x, y = (loaded(torch.from_numpy(np.float32(layers["ab".index(s)][row[f"layer_{s}"]]))) for s in "ab")
        x, y = x.double().numpy(), y.double().numpy()
        orders = [np.random.default_rng([3, SHUFFLE, k]).permutation(60) for k in range(200)]
        nulls = np.array([similarity(name, x, y[order]) for order in orders])
        level = {"dot": x.mean(0) @ y.mean(0), "norm": nulls.mean(), "cka": _expected_cka(x, y)}[name]
        score = float(row["score"])
        assert float(row["calibrated"]) == pytest.approx((score - level) / (1 - level), rel=1e-3)
        assert float(row["null_z"]) == pytest.approx((score - level) / nulls.std(ddof=1), rel=2e-3)
        assert float(row["null"]) == pytest.approx(level, rel=1e-3, abs=1e-6)
        assert float(row["null_p"]) == pytest.approx((1 + (nulls >= score).sum()) / 201)
        assert level == pytest.approx(nulls.mean(), abs=4 * nulls.std() / 200**0.5)


def _expected_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of CKA over all permutations of the rows of Y."""
    x, y = x - x.mean(0), y - y.mean(0)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float((x**2).sum() * (y**2).sum() / (len(x) - 1) / norms)


def test_a_layer_with_itself_is_1_and_shuffled_rows_are_0(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 6)).astype(np.float32)
    paths = [
        made.store(tmp_path / f"{name}.h5", {"l": rows})
        for name, rows in [("a", x), ("same", x), ("shuffled", x[rng.permutation(2000)])]
    ]
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,))
    same, shuffled, _ = scored(*paths, "--encoder", path, "--null", 99)
    assert float(same["calibrated"]) == pytest.approx(1, abs=1e-5)
    assert float(same["null_z"]) > 5
    assert float(same["null_p"]) == 0.01
    assert abs(float(shuffled["calibrated"])) < 0.05
    assert abs(float(shuffled["null_z"])) < 4
    assert float(shuffled["score"]) > 0.5  # of an untrained encoder: the score on its own says nothing


@pytest.mark.parametrize("similarity", ["dot", "norm"])
def test_rows_that_are_streamed_have_the_same_standing(tmp_path: Path, similarity: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12_000, 6)).astype(np.float32)
    y = x + 3 * rng.normal(size=x.shape).astype(np.float32)
    paths = [made.store(tmp_path / "a.h5", {"l": x}), made.store(tmp_path / "b.h5", {"l": y})]
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,), similarity=similarity, hidden=(8,), output=4)
    (held,) = scored(*paths, "--encoder", path, "--null", 40)
    (streamed,) = scored(*paths, "--encoder", path, "--null", 40, "--memory", "1M")
    assert float(streamed["score"]) == pytest.approx(float(held["score"]), rel=1e-5)
    assert float(streamed["calibrated"]) == pytest.approx(float(held["calibrated"]), rel=0.02)
    assert float(streamed["null_z"]) == pytest.approx(float(held["null_z"]), rel=0.4)
    assert streamed["null_z"] != held["null_z"]
    assert streamed["null_p"] == held["null_p"]


def test_columns_come_after_those_of_confidence_and_agree_with_permutations(tmp_path: Path) -> None:
    _, paths = stores_of(tmp_path)
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,), similarity="norm")
    asked = ["--encoder", path, "--permutations", 20, "--null", 20, "--bootstrap", 5]
    rows = scored(*paths, *asked)
    assert list(rows[0])[6:] == ["ci_low", "ci_high", "p_value", "z_score", *COLUMNS]
    for row in rows:
        assert row["null_p"] == row["p_value"]
        assert float(row["null_z"]) == pytest.approx(float(row["z_score"]))
    assert rows[0]["p_value"] == scored(*paths, *asked[:4])[0]["p_value"]


@pytest.mark.parametrize("options", [[], ["--null", 0]])
def test_without_a_null_there_are_no_columns(tmp_path: Path, options: list[Any]) -> None:
    _, paths = stores_of(tmp_path)
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,))
    assert list(scored(*paths, "--encoder", path, *options)[0])[-1] == "score"


def test_a_negative_number_is_refused(tmp_path: Path) -> None:
    _, paths = stores_of(tmp_path)
    done = run("score", *paths, "--encoder", made.encoder_file(tmp_path / "e.pt", widths=(6,)), "--null", -1)
    assert (done.code, done.stdout) == (2, "")
    assert "--null" in done.stderr


def test_how_it_was_done_is_said(tmp_path: Path) -> None:
    _, paths = stores_of(tmp_path)
    path = made.encoder_file(tmp_path / "e.pt", widths=(6,))
    done = run("score", *paths, "--encoder", path, "--null", 7, "--format", "json")
    assert "contrasim: note: null from 7 shuffles, 60 rows of Y (e.pt)" in done.stderr.splitlines()
    assert json.loads(done.stdout)["confidence_method"]["null"] == {"e.pt": "60 rows of Y"}
    table = run("score", *paths, "--encoder", path, "--null", 7, "--format", "table").stdout
    assert "; → calibrated" in table.splitlines()[0]
