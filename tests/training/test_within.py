"""Maps by how the views of a row differ, and the margins that decide about them: against slow oracles, and through commands."""

import itertools
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
from contrasim_cli.errors import ContraSimError, MismatchError, UsageError
from contrasim_cli.training import Data, choose
from contrasim_cli.training import hard_negatives as margins_module
from contrasim_cli.training import standardization as choice
from contrasim_cli.training.hard_negatives import NEIGHBOURS, clearness, margins, nearest, weakest
from contrasim_cli.training.shuffle import held_out_rows
from contrasim_cli.training.standardization import within
from contrasim_cli.transforms import Standardizer

ROWS, P = 80, 5


def config(**options: Any) -> Config:
    return Config(**{"task": "pairs", "objective": "supcon", "widths": (P,), "standardize": "within"} | options)


def views(folder: Path, layers: list[dict[str, Any]]) -> Data:
    opened = [made.view(folder / f"{name}.h5", one) for name, one in zip("abc", layers, strict=False)]
    return Data(opened, [list(one) for one in layers])


def apart(
    count: int = 2, rows: int = ROWS, seed: int = 0, layers: tuple[str, ...] = ("l", "m")
) -> list[dict[str, Any]]:
    """Views that differ in one direction above all, in which rows differ little, far from the origin."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in layers:
        own, mix = rng.normal(size=(rows, P)), np.linalg.qr(rng.normal(size=(P, P)))[0]
        for view in found:
            view[name] = 7 + (own + rng.normal(size=(rows, P)) * ([3, 0.4, 0.3, 0.3, 0.2])) @ mix
    return found


def slow(layers: list[Any], shrinkage: float, rows: Any) -> Any:
    """W_s^(-1/2), row by row; centred by the means of all rows."""
    centred = [one - one.mean(0) for one in layers]
    p, total = centred[0].shape[1], 0.0
    for r in rows:
        mean = sum(one[r] for one in centred) / len(centred)
        total = total + sum(np.outer(one[r] - mean, one[r] - mean) for one in centred) / (len(centred) - 1)
    level = np.mean([np.trace(one.T @ one / len(one)) / p for one in centred])
    shrunk = (1 - shrinkage) * total / len(rows) + shrinkage * level * np.eye(p)
    values, vectors = np.linalg.eigh(shrunk)
    return vectors @ np.diag(values**-0.5) @ vectors.T


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("validation", [0.0, 0.3])
def test_maps_are_those_of_a_slow_oracle(tmp_path: Path, count: int, validation: float) -> None:
    layers = apart(count)
    data, asked = views(tmp_path, layers), config(shrinkage=0.2, validation=validation)
    found = within(data, Standardizer(data.views), asked)
    rows = sorted(set(range(ROWS)) - set(held_out_rows(ROWS, asked).tolist()))
    for name in ("l", "m"):
        assert found.factors[name] == pytest.approx(slow([one[name] for one in layers], 0.2, rows), rel=1e-5, abs=1e-6)


def test_differences_come_out_round_and_whitened_rows_do_not(tmp_path: Path) -> None:
    layers = apart(rows=4000)
    data = views(tmp_path, layers)
    maps = within(data, Standardizer(data.views), config(shrinkage=1e-6)).factors["l"]

    def differences(by: Any) -> Any:
        first, second = ((one["l"] - one["l"].mean(0)) @ by for one in layers)
        return np.linalg.eigvalsh((first - second).T @ (first - second) / 2 / 4000)

    assert differences(maps) == pytest.approx(np.ones(P), rel=1e-3)
    values, vectors = np.linalg.eigh(np.cov(layers[0]["l"].T))
    whitened = differences(vectors @ np.diag(values**-0.5) @ vectors.T)
    assert whitened[-1] / whitened[0] > 5


def test_columns_that_do_not_vary_come_out_0_and_columns_without_a_difference_do_not(tmp_path: Path) -> None:
    layers = apart()
    for one in layers:
        one["l"][:, 0] = 3.0
        one["l"][:, 1] = layers[0]["l"][:, 1]
    data = views(tmp_path, layers)
    found = within(data, Standardizer(data.views), config(shrinkage=0.01)).factors["l"]
    assert (found[0] == 0).all()
    assert (found[:, 0] == 0).all()
    assert np.isfinite(found).all()
    assert found[1, 1] > found[2, 2]


def test_what_has_no_differences_is_refused(tmp_path: Path) -> None:
    layers = apart()
    narrow = [layers[0], {name: rows[:, :3] for name, rows in layers[1].items()}]
    data = views(tmp_path, narrow)
    with pytest.raises(MismatchError, match="layer l has the widths 5 and 3; give --standardize whiten"):
        within(data, Standardizer(data.views), config())
    crossed = Data(views(tmp_path, layers).views, [["l", "m"], ["m", "l"]])
    with pytest.raises(MismatchError, match="has two partners"):
        within(crossed, Standardizer(crossed.views), config())
    data = views(tmp_path, layers)
    with pytest.raises(UsageError, match="--shrinkage greater than 0"):
        within(data, Standardizer(data.views), config(shrinkage=0.0))
    assert issubclass(MismatchError, ContraSimError)


# --- margins ----------------------------------------------------------------------------------------------------------


def slow_nearest(rows: Any) -> list[list[int]]:
    """Nearest first, rows of equal values left out."""
    found = []
    for r, row in enumerate(rows):
        others = [k for k in range(len(rows)) if k != r and not np.array_equal(rows[k], row)]
        found.append(sorted(others, key=lambda k: float(np.sum((rows[k] - row) ** 2)))[:NEIGHBOURS])
    return found


def test_neighbours_and_margins_are_those_of_a_slow_oracle() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 40, P))
    rows[0, 11] = rows[0, 10]
    rows[0, 12] = rows[0, 10]
    near = [nearest(one) for one in rows]
    for one, found in zip(rows, near, strict=True):
        for r, (places, expected) in enumerate(zip(found.tolist(), slow_nearest(one), strict=True)):  # of equals any
            distances = [np.linalg.norm(one[several] - one[r], axis=1) for several in (places, expected)]
            assert distances[0] == pytest.approx(distances[1])
        assert nearest(one, np.array([3, 7])).tolist() == found[[3, 7]].tolist()
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    which = np.arange(5, 20)
    expected = [
        unit[i, r] @ unit[j, r] - max(unit[i, r] @ unit[j, t] for t in slow_nearest(rows[j])[r])
        for i, j in itertools.permutations(range(2), 2)
        for r in which
    ]
    found = margins(torch.from_numpy(unit), [one[which] for one in near], which)
    assert found.flatten().tolist() == pytest.approx(expected)
    assert clearness(found) == pytest.approx(np.mean(expected) / np.std(expected))


def test_rows_that_are_all_equal_have_no_margins() -> None:
    rows = np.ones((6, P))
    rows[5] = 2.0
    assert nearest(rows)[:5].tolist() == [[5, *[-1] * (NEIGHBOURS - 1)]] * 5
    rows[5] = 1.0
    none = [nearest(rows)] * 2
    assert (none[0] == -1).all()
    assert clearness(margins(torch.ones(2, 6, P), none)) == 0.0


def test_the_weakest_way_is_taken_that_the_clearest_does_not_clearly_beat() -> None:
    noise = torch.randn(2, 2, 400, generator=torch.Generator().manual_seed(0))
    one, other = (noise - noise.mean(dim=(1, 2), keepdim=True)) / noise.std(dim=(1, 2), correction=0, keepdim=True)
    assert weakest([one + 1, one + 1.03]) == 1  # the same rows are hard for both
    assert weakest([one + 1, other + 1.03]) == 0  # others are: the difference is in their noise
    assert weakest([one + 1, one + 1.5, one + 1.3]) == 1
    assert weakest([one + 1, one + 1]) == 0


def test_the_error_of_a_difference_is_that_of_a_jackknife() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2, 300)) + 1
    one, other = (torch.from_numpy(shared + rng.normal(size=(2, 300)) ** 2 * scale) for scale in (0.1, 0.5))
    kept = [np.delete(np.arange(300), r) for r in range(300)]
    values = [clearness(one[:, rows]) - clearness(other[:, rows]) for rows in kept]
    jackknife = np.sqrt(299 / 300 * np.sum((np.array(values) - np.mean(values)) ** 2))
    assert margins_module._error(one, other) == pytest.approx(jackknife, rel=0.02)


# --- through the commands ---------------------------------------------------------------------------------------------

TRAIN = ["--task", "pairs", "--epochs", "2", "--batch-size", "16", "-q"]


def stores_of(folder: Path, layers: list[dict[str, Any]]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [made.store(folder / f"{name}.h5", one) for name, one in zip("ab", layers, strict=True)]


@pytest.mark.slow
def test_an_encoder_scores_by_its_maps(tmp_path: Path) -> None:
    layers = apart()
    stores, encoder = stores_of(tmp_path, layers), tmp_path / "e.pt"
    options = [
        "--standardize",
        "within",
        "--shrinkage",
        "0.2",
        "--lr",
        "1e-12",
    ]  # so that the linear map stays as it starts
    assert run("train", *stores, *TRAIN, *options, "-o", encoder).code == 0
    assert encoders.load(encoder).config.within == (("l", P), ("m", P))
    few = stores_of(tmp_path / "few", [{name: rows[:7] for name, rows in one.items()} for one in layers])
    done = run("score", *few, "--encoder", encoder, "--layers", "m", "--format", "value", "-q")
    by = slow([one["m"] for one in layers], 0.2, range(ROWS))
    first, second = ((one["m"][:7] - one["m"][:7].mean(0)) @ by for one in layers)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert float(done.stdout) == pytest.approx(float(np.mean((first * second).sum(1) / norms)), rel=1e-4)
    facts = run("inspect", encoder).stdout
    assert "standardize\twithin\n" in facts
    assert "within\tl m\n" in facts
    for command in (["image-caption", "--batch-size", "8"], ["layers"]):
        assert run("bench", *command, *stores, "--encoder", encoder, "-q").code == 0
    assert run("bench", "sanity", stores[0], "--encoder", encoder, "-q").code == 0


def test_layers_that_the_encoder_has_no_map_of_are_refused(tmp_path: Path) -> None:
    layers, encoder = apart(), tmp_path / "e.pt"
    stores = stores_of(tmp_path, layers)
    options = ["--standardize", "within", "--shrinkage", "0.2", "--layers", "l"]
    assert run("train", *stores, *TRAIN, *options, "-o", encoder).code == 0
    done = run("score", *stores, "--encoder", encoder, "-q")
    assert done.code == 4
    assert done.stderr.splitlines()[0] == (
        f"contrasim: error: {stores[0]}: layer m cannot be standardised as the encoder {encoder} was trained, which knows how "
        "views differ in l alone; train on that layer too, or with --standardize whiten"
    )
    assert run("score", *stores, "--encoder", encoder, "--standardize", "whiten", "-q").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "layers", "--standardize", "within"], "--standardize within goes with --task pairs"),
        (
            ["--task", "pairs", "--standardize", "within", "--shrinkage", "0", "--layers", "l"],
            "takes a --shrinkage greater than 0",
        ),
        (["--task", "pairs", "--standardize", "within", "--layers-a", "l", "--layers-b", "n"], "widths 5 and 2"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    layers = apart()
    layers[1]["n"] = layers[1]["l"][:, :2]
    done = run("train", *stores_of(tmp_path, layers), *options, "-o", tmp_path / "e.pt")
    assert done.code in (2, 4)
    assert said in done.stderr
    assert not (tmp_path / "e.pt").exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = stores_of(tmp_path, apart())
    options = [*TRAIN, "--standardize", "within", "--shrinkage", "0.2"]
    assert run("train", *stores, *options, "-o", tmp_path / "whole.pt").code == 0

    def full(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "_check_outputs", full)
        assert run("train", *stores, *options, "--save-every", "3", "-o", tmp_path / "e.pt").code == 130
    assert encoders.load(tmp_path / "e.pt.partial").config.within
    assert run("train", *stores, *options, "-o", tmp_path / "e.pt", "--resume").code == 0
    digests = [encoders.weights_digest(encoders.load(tmp_path / n).encoder.state_dict()) for n in ("e.pt", "whole.pt")]
    assert digests[0] == digests[1]


def test_a_map_that_was_changed_is_noticed(tmp_path: Path) -> None:
    stores, encoder = stores_of(tmp_path, apart()), tmp_path / "e.pt"
    assert run("train", *stores, *TRAIN, "--standardize", "within", "-o", encoder).code == 0
    content = torch.load(encoder, weights_only=True)
    content["state_dict"]["within_0"][0, 0] += 1
    torch.save(content, encoder)
    done = run("score", *stores, "--encoder", encoder)
    assert done.code == 3
    assert "digest" in done.stderr


# --- the choice -------------------------------------------------------------------------------------------------------


def wide(noise: list[float], seed: int = 0, rows: int = 200) -> list[dict[str, Any]]:
    """Two views: a wide direction says nothing, and views differ in the others by `noise`."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(rows, 6))
    turned = np.linalg.qr(rng.normal(size=(6, 6)))[0]  # so that no neuron is the wide direction
    return [{"l": (own * 0.3 + rng.normal(size=(rows, 6)) * [8, *noise]) @ turned} for _ in range(2)]


def test_how_views_differ_is_taken_where_margins_to_near_rows_are_clearer(tmp_path: Path) -> None:
    layers = wide([0.2, 0.02, 0.02, 0.02, 0.02], rows=400)
    data = views(tmp_path, layers)
    (found,) = choose(data, Standardizer(data.views), config(widths=(6,), standardize="auto"), 1 << 40).layers
    assert found.kind == "within"
    assert found.scores[f"within, shrinkage {found.shrinkage:g}"] > max(
        value for name, value in found.scores.items() if "within" not in name
    )


def test_it_is_not_looked_at_where_weaker_ways_win_or_layers_cross(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(size=(200, 6)) * [2, 1.9, 1.8, 0, 0, 0]
    alike = [{"l": own + rng.normal(size=(200, 6)) * 0.1} for _ in range(2)]
    data = views(tmp_path, alike)
    (found,) = choose(data, Standardizer(data.views), config(widths=(6,), standardize="auto"), 1 << 40).layers
    assert not any("within" in name for name in found.scores)
    crossed = wide([0.2, 0.02, 0.02, 0.02, 0.02])
    crossed = [one | {"m": one["l"]} for one in crossed]
    data = Data(views(tmp_path, crossed).views, [["l", "m"], ["m", "l"]])
    together = choose(data, Standardizer(data.views), config(widths=(6,), standardize="auto"), 1 << 40)
    assert (together.layers, together.kind) == ([], "whiten")
    assert not any("within" in name for name in together.scores)


def test_rows_are_judged_without_themselves(tmp_path: Path) -> None:
    """Of pure noise, in many columns, maps learn by heart what they have seen; what they have not, they say nothing of."""
    rng = np.random.default_rng(0)
    rows = 60
    noise = [{"l": rng.normal(size=(rows, 40))} for _ in range(2)]
    data = views(tmp_path, noise)
    standardizer = Standardizer(data.views)
    near = [nearest(one["l"]) for one in noise]
    judged = choice._by_differences(data, standardizer, config(widths=(40,)), 0, np.arange(rows), near)
    maps = within(data, standardizer, config(widths=(40,), shrinkage=0.01)).factors["l"]
    unit = [(one["l"] - one["l"].mean(0)) @ maps for one in noise]
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in unit]
    seen, unseen = clearness(margins(torch.from_numpy(np.stack(unit)), near)), clearness(judged[-1])
    assert unseen < -0.5  # chance against the largest of ten
    assert seen > unseen + 0.5
