"""Which standardisation rows ask for: scores against a slow oracle, and what is made of them."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli import training
from contrasim_cli.encoder import Config
from contrasim_cli.training import Choice, Data, choice, choose, validation
from contrasim_cli.training.order import held_out_rows
from contrasim_cli.transforms import Standardizer

ROWS = 120
PLENTY = 1 << 40


def config(**options: Any) -> Config:
    return Config(**{"task": "pairs", "objective": "supcon", "widths": (6,)} | options)


def two(kind: str, seed: int = 0, rows: int = ROWS) -> list[dict[str, Any]]:
    """Two views of one layer. wide: noise fills one direction; alike: the widest directions tell most; unlike: no common basis."""
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=(rows, 6)), rng.normal(size=(2, rows, 6))
    if kind == "wide":  # what tells rows apart is a hundredth of the variance
        return [{"l": 5 + signal * 0.1 + noise[v] * ([8] + [0.02] * 5)} for v in range(2)]
    if kind == "alike":
        return [{"l": 5 + signal * [2, 1.9, 1.8, 0, 0, 0] + noise[v] * 0.4} for v in range(2)]
    mixes = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2)]
    return [{"l": signal @ mix} for mix in mixes]


def data_of(folder: Path, layers: list[dict[str, Any]]) -> Data:
    views = [made.view(folder / f"{name}.h5", one) for name, one in zip("abc", layers, strict=False)]
    return Data(views, [list(one) for one in layers])


def chosen(folder: Path, layers: list[dict[str, Any]], **options: Any) -> Choice:
    data = data_of(folder, layers)
    return choose(data, Standardizer(data.views), config(widths=data.widths, **options), PLENTY)


def slow_scores(layers: list[dict[str, Any]]) -> list[float]:
    """Row by row, by scipy's root of the shrunk covariance."""
    linalg = pytest.importorskip("scipy.linalg")

    def standard(rows: Any, shrinkage: float | None) -> Any:
        centred = rows - rows.mean(0)
        if shrinkage is None:
            return centred
        covariance = np.cov(rows.T, bias=True)
        p = len(covariance)
        shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / p * np.eye(p)
        return centred @ linalg.inv(linalg.sqrtm(shrunk))

    scores = []
    for shrinkage in (None, 0.6, 0.3, 0.1, 0.03, 0.01):
        right = []
        for name, (a, b) in itertools.product(layers[0], itertools.combinations(layers, 2)):
            x, y = (standard(one[name].astype(float), shrinkage) for one in (a, b))
            for first, second in ((x, y), (y, x)):
                for r, row in enumerate(first):
                    cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in second]
                    right.append(all(cosines[r] - c > 1e-6 * abs(cosines[r]) for k, c in enumerate(cosines) if k != r))
        scores.append(float(np.mean(right)))
    return scores


@pytest.mark.parametrize("count", [2, 3])
def test_scores_are_those_of_a_slow_oracle(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "TILE_ROWS", 16)
    layers = made.related(count, 2, 50, (6,), noise=0.3)
    found = chosen(tmp_path, layers)
    expected = slow_scores(layers)
    assert list(found.scores.values()) == pytest.approx(expected)
    assert len(set(expected)) > 2
    assert (found.rows, found.layers) == (50, ["layer_0", "layer_1"])
    assert list(found.scores) == ["center", *(f"whiten, shrinkage {s}" for s in (0.6, 0.3, 0.1, 0.03, 0.01))]


def test_equal_rows_are_wrong(tmp_path: Path) -> None:
    one = two("alike")[0]
    rows = np.concatenate([one["l"][:60], one["l"][:60]])
    assert set(chosen(tmp_path, [{"l": rows}, {"l": rows}]).scores.values()) == {0.0}
    assert set(chosen(tmp_path, [one, one]).scores.values()) == {1.0}


@pytest.mark.parametrize(("kind", "fine"), [("wide", True), ("alike", False)])
def test_the_way_by_which_rows_find_their_own_is_chosen(tmp_path: Path, kind: str, fine: bool) -> None:
    found = chosen(tmp_path, two(kind))
    assert found.because == "scores"
    assert bool(found.margins) == fine  # looked at where little shrinkage wins
    assert next(iter(found.margins), "whiten").startswith("whiten")
    assert found.lr == (choice.FINE_LR if fine else choice.LR)


def test_of_ways_about_as_good_the_weakest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(*values: float) -> Choice:
        monkeypatch.setattr(choice, "_scores", lambda *_: list(values))
        monkeypatch.setattr(choice, "misfit", lambda _: "nothing else to look at")
        return chosen(tmp_path, two("alike"))

    assert scores(0.5, 0.5, 0.5, 0.5, 0.5, 0.5).kind == "center"
    assert scores(0.496, 0.5, 0.5, 0.5, 0.5, 0.5).kind == "center"
    assert scores(0.494, 0.496, 0.5, 0.5, 0.5, 0.5).shrinkage == 0.6
    assert scores(0.1, 0.2, 0.3, 0.4, 0.494, 0.5).shrinkage == 0.01
    assert scores(0.1, 0.2, 0.3, 0.4, 0.496, 0.5).shrinkage == 0.03


@pytest.mark.parametrize(("rows", "shrinkage"), [(600, 0.1), (60, 0.1), (20, 0.3), (8, 0.6)])
def test_where_scores_are_chance_rows_are_whitened_the_more_gently_the_fewer_they_are(
    tmp_path: Path, rows: int, shrinkage: float
) -> None:
    found = chosen(tmp_path, two("unlike", rows=rows))
    if rows > 20:  # with a few rows six columns look alike
        assert max(found.scores.values()) * rows <= choice.CHANCE_HITS
        assert (found.kind, found.shrinkage, found.lr, found.because) == ("whiten", shrinkage, choice.FAR_LR, "chance")
    widths = [{"l": one["l"][:, : 6 - v]} for v, one in enumerate(two("alike", rows=rows))]
    found = chosen(tmp_path, widths)
    assert (found.kind, found.lr, found.because) == ("whiten", choice.FAR_LR, "widths")
    assert (found.shrinkage, found.scores) == (shrinkage, {})


def test_layers_of_equal_width_decide_for_the_others(tmp_path: Path) -> None:
    layers = [{"l": one["l"], "m": one["l"][:, : 6 - v]} for v, one in enumerate(two("wide"))]
    found, alone = chosen(tmp_path, layers), chosen(tmp_path, two("wide"))
    assert (found.scores, found.layers) == (alone.scores, alone.layers)
    assert found.kind == "whiten"
    assert alone.margins
    assert not found.margins


def test_a_sample_of_rows_and_layers_is_that_of_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "SAMPLE_ROWS", 40)
    layers = made.related(2, 9, ROWS, (6,), noise=0.4)
    one, same, other = (chosen(tmp_path, layers, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert (one.rows, len(one.layers)) == (40, choice.SAMPLE_LAYERS)
    assert one.layers != other.layers
    assert one.scores != other.scores
    asked = config(validation=0.5)
    drawn = choice._sample(ROWS, asked)
    assert len(drawn) == 40
    assert not set(drawn) & set(held_out_rows(ROWS, asked))


# --- through the command ----------------------------------------------------------------------------------------------

TRAIN = ["--task", "pairs", "--epochs", "2", "--batch-size", "32"]


def stores_of(folder: Path, kind: str) -> list[Path]:
    return [made.store(folder / f"{name}.h5", one) for name, one in zip("ab", two(kind), strict=True)]


def test_the_checkpoint_holds_what_was_chosen_and_why(tmp_path: Path) -> None:
    stores = stores_of(tmp_path, "wide")
    done = run("train", *stores, *TRAIN, "-o", tmp_path / "e.pt")
    assert done.code == 0
    checkpoint = encoders.load(tmp_path / "e.pt")
    found = Choice(**checkpoint.provenance["choice"])
    assert found == chosen(tmp_path, two("wide"))
    assert checkpoint.config.standardize == found.kind == "within"
    assert (checkpoint.config.shrinkage, checkpoint.config.lr) == (found.shrinkage, found.lr)
    table = ", ".join(f"{100 * score:.1f} % ({how})" for how, score in found.scores.items())
    assert (
        f"contrasim: note: standardising rows by within, shrinkage {found.shrinkage:g}: by cosine, rows find their own "
        in (line := next(line for line in done.stderr.splitlines() if "standardising" in line))
    )
    clear = ", ".join(f"{margin:.3f} ({how})" for how, margin in found.margins.items())
    assert line.endswith(
        f"in the other view: {table}; margins to near rows, mean over deviation: {clear}; learning rate {found.lr:g}"
    )
    told = ["--standardize", "within", "--shrinkage", found.shrinkage, "--lr", found.lr]
    assert run("train", *stores, *TRAIN, *told, "-o", tmp_path / "told.pt", "-q").code == 0
    digests = [encoders.weights_digest(encoders.load(tmp_path / n).encoder.state_dict()) for n in ("e.pt", "told.pt")]
    assert digests[0] == digests[1]
    assert "choice" not in encoders.load(tmp_path / "told.pt").provenance
    assert f"score of center\t{found.scores['center']:.4f}\n" in run("inspect", tmp_path / "e.pt").stdout
    scores = [run("score", *stores, "--encoder", tmp_path / n, "--format", "value").stdout for n in ("e.pt", "told.pt")]
    assert scores[0] == scores[1] != ""


def test_a_learning_rate_that_is_given_stays(tmp_path: Path) -> None:
    stores = stores_of(tmp_path, "wide")
    for name, options, lr in (
        ("a", ["--lr", "0.02"], 0.02),
        ("b", ["--recipe", "paper", "--standardize", "auto"], 1e-3),
    ):
        assert run("train", *stores, *TRAIN, *options, "-q", "-o", tmp_path / f"{name}.pt").code == 0
        found = encoders.load(tmp_path / f"{name}.pt").config
        assert (found.lr, found.standardize) == (lr, "within")


def test_a_resumed_run_does_not_choose_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores, output = stores_of(tmp_path, "unlike"), tmp_path / "e.pt"
    assert run("train", *stores, *TRAIN, "-q", "-o", tmp_path / "whole.pt").code == 0

    def full(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "_check_outputs", full)
        assert run("train", *stores, *TRAIN, "--save-every", "2", "-o", output).code == 130
    monkeypatch.setattr(training, "choose", lambda *_: pytest.fail("chosen again"))
    done = run("train", *stores, *TRAIN, "-o", output, "--resume")
    assert done.code == 0
    assert "standardising rows" not in done.stderr
    one, other = encoders.load(output), encoders.load(tmp_path / "whole.pt")
    assert (one.config, one.provenance) == (other.config, other.provenance)
    assert encoders.weights_digest(one.encoder.state_dict()) == encoders.weights_digest(other.encoder.state_dict())
    done = run("train", *stores, *TRAIN, "-o", output, "--resume")
    assert (done.code, done.stderr) == (0, f"contrasim: note: {output} is complete already\n")
    assert replace(one.config, standardize="auto") != one.config
