"""Which standardisation rows ask for: scores against a slow oracle, and what is made of them."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from helpers import run

from contrasim_cli import encoder as encoders
from contrasim_cli import training
from contrasim_cli.encoder import Config
from contrasim_cli.training import Choice, Data, choose
from contrasim_cli.training import hard_negatives as margins
from contrasim_cli.training import standardization as choice
from contrasim_cli.training.shuffle import held_out_rows
from contrasim_cli.transforms import Standardizer

ROWS = 120
PLENTY = 1 << 40
SHRINKAGES = (0.6, 0.3, 0.1, 0.03, 0.01)


def config(**options: Any) -> Config:
    return Config(**{"task": "pairs", "objective": "supcon", "widths": (6,)} | options)


def two(kind: str, seed: int = 0, rows: int = ROWS) -> list[dict[str, Any]]:
    """Two views. wide: noise fills a direction across neurons; alike: wide directions tell most; unlike: no common basis."""
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=(rows, 6)), rng.normal(size=(2, rows, 6))
    if kind == "wide":  # what tells rows apart is a hundredth of the variance
        turned = np.linalg.qr(rng.normal(size=(6, 6)))[0]
        return [{"l": 5 + (signal * 0.1 + noise[v] * ([8] + [0.02] * 5)) @ turned} for v in range(2)]
    if kind == "alike":
        return [{"l": 5 + signal * [2, 1.9, 1.8, 0, 0, 0] + noise[v] * 0.1} for v in range(2)]
    mixes = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2)]
    return [{"l": signal @ mix} for mix in mixes]


def data_of(folder: Path, layers: list[dict[str, Any]]) -> Data:
    views = [made.view(folder / f"{name}.h5", one) for name, one in zip("abc", layers, strict=False)]
    return Data(views, [list(one) for one in layers])


def chosen(folder: Path, layers: list[dict[str, Any]], **options: Any) -> Choice:
    data = data_of(folder, layers)
    return choose(data, Standardizer(data.views), config(widths=data.widths, **options), PLENTY)


def slow_scores(layers: list[dict[str, Any]], name: str) -> list[float]:
    """Row by row, by scipy's root of the shrunk covariance, for every way of the ladder in turn."""
    linalg = pytest.importorskip("scipy.linalg")

    def standard(rows: Any, way: str | float) -> Any:
        centred = rows - rows.mean(0)
        if way == "none":
            return rows
        if way == "center":
            return centred
        if way == "zscore":
            return centred / rows.std(0)
        covariance = np.cov(rows.T, bias=True)
        p = len(covariance)
        shrunk = (1 - way) * covariance + way * np.trace(covariance) / p * np.eye(p)
        return centred @ linalg.inv(linalg.sqrtm(shrunk))

    hard, soft = [], []
    for way in ("none", "center", "zscore", 0.6, 0.3, 0.1, 0.03, 0.01):
        found: list[list[float]] = [[], []]
        for a, b in itertools.permutations(layers, 2):
            raw, x, y = b[name], standard(a[name].astype(float), way), standard(b[name].astype(float), way)
            x, y = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))
            for r, row in enumerate(x):
                near = np.argsort(np.linalg.norm(raw - raw[r], axis=1))[1 : 1 + margins.NEIGHBOURS]
                others = [row @ y[t] for t in near]
                found[0].append(row @ y[r] - max(others))
                found[1].append(row @ y[r] - sum(others) / len(others))
        hard.append(float(np.mean(found[0]) / np.std(found[0])))
        soft.append(float(np.mean(found[1]) / np.std(found[1])))
    return hard if max(hard) > 0 else soft


@pytest.mark.parametrize("noise", [0.5, 0.1])
@pytest.mark.parametrize("count", [2, 3])
def test_scores_are_those_of_a_slow_oracle(
    tmp_path: Path, count: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(margins, "TILE_ROWS", 16)
    rng = np.random.default_rng(0)
    own = {name: rng.normal(size=(50, 6)) for name in ("layer_0", "layer_1")}
    layers = [{name: 2 + x @ np.diag([3, 1, 1, 1, 1, 0.3]) + noise * rng.normal(size=x.shape) for name, x in own.items()}
              for _ in range(count)]  # fmt: skip
    found = chosen(tmp_path, layers)
    assert (found.rows, [layer.names for layer in found.layers]) == (50, [["layer_0"], ["layer_1"]])
    assert any(layer.softly for layer in found.layers) == (noise == 0.5)
    for layer in found.layers:
        expected = slow_scores(layers, layer.names[0])
        values = [value for name, value in layer.scores.items() if "within" not in name]
        assert values == pytest.approx(expected, rel=1e-4)
        assert len(set(expected)) == len(expected)
        assert list(layer.scores)[:8] == ["none", "center", "zscore", *(f"whiten, shrinkage {s}" for s in SHRINKAGES)]


def test_rows_that_repeat_have_no_margins_over_each_other(tmp_path: Path) -> None:
    once = [{"l": one["l"][:60]} for one in two("wide")]
    twice = [{"l": np.concatenate([one["l"]] * 2)} for one in once]
    scores = []
    for layers in (once, twice):
        data = data_of(tmp_path, layers)
        rows = np.arange(data.n_rows)
        seen = choice._Layer(data, Standardizer(data.views), config(), 0, rows)
        scores.append([margins.clearness(found) for found in seen.ladder])
        assert (seen.found > 0) == (layers is once)  # but no row is the most similar of all
    # rows of all ten nearest, of which five have a twin, are five
    assert scores[1] != pytest.approx(scores[0], rel=1e-4)
    assert np.argmax(scores[0]) == np.argmax(scores[1])


def test_each_layer_has_the_way_that_suits_it(tmp_path: Path) -> None:
    both = zip(two("wide", rows=400), two("alike", rows=400), strict=True)
    found = chosen(tmp_path, [{"l": wide["l"], "m": alike["l"]} for wide, alike in both])
    assert (found.because, found.lr, found.kind) == ("scores", choice.LR, "center")
    fine, mild = found.layers
    assert fine.kind in ("whiten", "within")
    assert fine.shrinkage <= choice.FINE
    assert any("within" in name for name in fine.scores)  # looked at where little shrinkage wins
    assert not any("within" in name for name in mild.scores)
    assert mild.kind in ("none", "center", "zscore") or mild.shrinkage > choice.FINE
    configured = found.of(config(), with_lr=False)
    assert [name for name, *_ in configured.by_layer] == ["l", "m"]
    assert configured.standardization.of("l").kind == fine.kind
    assert configured.standardization.of("another").kind == "center"


def lost(seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Two views in which noise far wider than the rows, of heavy tails, hides nearly each row behind a neighbour of its own."""
    rng = np.random.default_rng(seed)
    wide = np.where(np.arange(24) < 4, 30, 0)
    rows = rng.normal(size=(600, 24)) * (wide == 0)
    turned = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    views = []
    for _ in range(2):
        tails = np.exp(rng.normal(size=(600, 1)))
        noise = 2 * rng.normal(size=rows.shape) + wide * (4 + tails * rng.normal(size=rows.shape))
        views.append({"l": ((rows + noise) @ turned).astype(np.float32)})
    return views


def test_where_no_way_has_positive_margins_the_noisiest_does_not_win(tmp_path: Path) -> None:
    data = data_of(tmp_path, lost())
    statistics = [Standardizer(data.views).statistics(v, "l") for v in range(2)]
    read = [view.read("l") for view in data.views]
    near = [margins.nearest((rows - rows.mean(axis=0)).astype(np.float64)) for rows in read]
    units = [choice._units([choice.transform(way, of) for of in statistics], read) for way in choice.LADDER]
    hard = [margins.clearness(margins.margins(unit, near)) for unit in units]
    assert max(hard) == hard[0] < 0  # rows as they are, which the old rule took
    (layer,) = chosen(tmp_path, lost()).layers
    assert layer.softly
    assert (layer.kind, layer.shrinkage) in (("whiten", 0.01), ("within", 0.01))
    soft = [margins.clearness(margins.margins(unit, near, softly=True)) for unit in units]
    assert list(layer.scores.values())[:8] == pytest.approx(soft)


def test_soft_margins_are_to_the_mean_of_the_neighbours() -> None:
    rng = np.random.default_rng(0)
    unit = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(2, 30, 4))), dim=-1)
    near = [margins.nearest(side.numpy()) for side in unit]
    near[1][0, 3:] = -1  # a neighbour that is missing counts as opposite
    found = margins.margins(unit, near, softly=True)
    for row in range(30):
        cosines = [float(unit[0, row] @ unit[1, k]) if k >= 0 else -1.0 for k in near[1][row].tolist()]
        assert float(found[0, row]) == pytest.approx(float(unit[0, row] @ unit[1, row]) - np.mean(cosines))


@pytest.mark.parametrize(("rows", "shrinkage"), [(600, 0.1), (60, 0.1), (20, 0.3), (8, 0.6)])
def test_where_scores_are_chance_rows_are_whitened_the_more_gently_the_fewer_they_are(
    tmp_path: Path, rows: int, shrinkage: float
) -> None:
    if rows > 20:  # with a few rows six columns look alike
        found = chosen(tmp_path, two("unlike", rows=rows))
        assert (found.kind, found.shrinkage, found.lr, found.because) == ("whiten", shrinkage, choice.FAR_LR, "chance")
        assert found.layers == []
    widths = [{"l": one["l"][:, : 6 - v]} for v, one in enumerate(two("alike", rows=rows))]
    found = chosen(tmp_path, widths)
    assert (found.kind, found.lr, found.because) == ("whiten", choice.FAR_LR, "widths")
    assert (found.shrinkage, found.scores, found.layers) == (shrinkage, {}, [])


def test_layers_of_equal_width_decide_for_all_where_some_differ(tmp_path: Path) -> None:
    layers = [{"l": one["l"], "m": one["l"][:, : 6 - v]} for v, one in enumerate(two("wide"))]
    found, alone = chosen(tmp_path, layers), chosen(tmp_path, two("wide")).layers[0]
    assert found.layers == []
    assert found.kind == "whiten"
    assert found.scores == {name: value for name, value in alone.scores.items() if "within" not in name}


def test_a_sample_of_rows_is_that_of_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "SAMPLE_ROWS", 40)
    layers = two("wide")
    one, same, other = (chosen(tmp_path, layers, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one.rows == 40
    assert one.layers[0].scores != other.layers[0].scores
    asked = config(validation=0.5)
    drawn = choice.sample(ROWS, asked, 40)
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
    found = Choice.read(checkpoint.provenance["choice"])
    (layer,) = found.layers
    assert replace(layer, step=1.0, steps={}) == chosen(tmp_path, two("wide")).layers[0]
    assert checkpoint.config.by_layer == (("l", layer.kind, layer.shrinkage, layer.step),)
    assert (checkpoint.config.standardize, checkpoint.config.lr) == ("center", found.lr)
    way = f"{layer.kind}, shrinkage {layer.shrinkage:g}"
    assert (
        "contrasim: note: standardising rows layer by layer, by how clearly they find their own in the other view: "
        f"l: {way}, step {layer.step:g}; learning rate {found.lr:g}"
    ) in done.stderr.splitlines()
    facts = run("inspect", tmp_path / "e.pt").stdout
    assert f"\tway of l\t{way}\n" in facts
    assert f"\tstep of l\t{layer.step:g}\n" in facts
    tried = ", ".join(f"{value:.3f} ({step})" for step, value in layer.steps.items())
    assert f"\tclearness of l by step\t{tried}\n" in facts
    scored = json.loads(run("score", *stores, "--encoder", tmp_path / "e.pt", "--format", "json").stdout)
    assert scored["standardize"]["e.pt"]["layers"]["l"] == {"kind": layer.kind, "shrinkage": layer.shrinkage}


def test_a_learning_rate_that_is_given_stays(tmp_path: Path) -> None:
    stores = stores_of(tmp_path, "wide")
    for name, options, lr in (
        ("a", ["--lr", "0.02"], 0.02),
        ("b", ["--recipe", "paper", "--standardize", "auto"], 1e-3),
    ):
        assert run("train", *stores, *TRAIN, *options, "-q", "-o", tmp_path / f"{name}.pt").code == 0
        found = encoders.load(tmp_path / f"{name}.pt").config
        assert (found.lr, found.standardize) == (lr, "center")
        assert found.by_layer[0][1] in ("whiten", "within")
        assert found.steps == (name == "a")  # the paper's network has no way between rows as they are and itself


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
