"""Where encoders of layers start, how many steps they get, and what is said of those that learn nothing."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch

from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import Config, Encoder
from contrasim_cli.errors import TrainingError
from contrasim_cli.recipes import chosen
from contrasim_cli.training import Data, Order
from contrasim_cli.training.job import Files, Job, configuration, train_encoder
from contrasim_cli.training.objective import Objective
from contrasim_cli.training.start import SHRINKAGE, warm, whitening
from contrasim_cli.transforms import Standardizer

CPU = torch.device("cpu")
PLENTY = 1 << 40
P = 12


def layers(seed: int, rows: int = 200) -> list[np.ndarray[Any, Any]]:
    """Rows of three layers: a large mean in common, a small one of their own, and one wide neuron."""
    rng = np.random.default_rng(seed)
    return [20 + rng.normal(size=P) + rng.normal(size=(rows, P)) * ([30] + [1] * (P - 1)) for _ in range(3)]


def zoo(folder: Path, rows: int = 200) -> Data:
    views = [made.view(folder / f"{k}.h5", dict(zip("abc", layers(k, rows), strict=True))) for k in range(3)]
    return Data(views, [["a", "b", "c"]] * 3)


def trained(folder: Path, data: Data, **given: Any) -> dict[str, list[float]]:
    config = configuration(data, "layers", "default", chosen("default", "layers", {"hidden": (32,)} | given))
    return train_encoder(Job(data, config, Standardizer(data.views)), Files(folder / "enc.pt"), CPU, PLENTY)


def test_rows_are_whitened_by_the_mean_covariance_within_layers() -> None:
    blocks = layers(0)
    mean, factor = whitening(blocks)
    covariance = sum(np.cov(rows.T, bias=True) for rows in blocks) / len(blocks)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / P * np.eye(P)
    white = factor @ shrunk @ factor
    assert np.allclose(mean, np.concatenate(blocks).mean(axis=0))
    assert np.allclose(white, white[0, 0] * np.eye(P))
    assert np.square((np.concatenate(blocks) - mean) @ factor).mean() == pytest.approx(1)


def test_the_first_layer_takes_whitened_rows(tmp_path: Path) -> None:
    data = zoo(tmp_path)
    config = Config("layers", "contrasim", (P,), hidden=(16,), output=8, start="whitened")
    torch.manual_seed(0)
    plain, started = Encoder(config).double(), Encoder(config)
    started.load_state_dict(plain.state_dict())
    warm(started, data, replace(config, start="random"))
    assert torch.equal(started.first["view0_width12"].weight, plain.first["view0_width12"].weight.float())
    warm(started, data, config)
    mean, factor = whitening([view.read(name).astype(float) for view in data.views for name in "abc"])
    rows = data.views[0].read("a").astype(float)
    expected = plain(torch.tensor((rows - mean) @ factor))
    assert torch.allclose(started(torch.tensor(rows).float()).double(), expected, atol=1e-4)


def test_rows_that_do_not_vary_leave_the_start_as_it_is(tmp_path: Path) -> None:
    view = made.view(tmp_path / "a.h5", {"a": np.ones((20, 4)), "b": np.ones((20, 4))})
    config = Config("layers", "contrasim", (4,), hidden=(16,), output=8, start="whitened")
    encoder = Encoder(config)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    warm(encoder, Data([view, view], [["a", "b"]] * 2), config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_the_loss_leaves_chance_in_the_first_epoch(tmp_path: Path) -> None:
    data = zoo(tmp_path, rows=640)
    losses = trained(tmp_path, data, epochs=2)["loss"]
    chance = 9 / 2 * math.log(6 / 2)
    assert losses[1] < losses[0] < 0.8 * chance


def test_a_run_that_ends_at_the_loss_of_chance_fails(tmp_path: Path) -> None:
    data = zoo(tmp_path)
    with pytest.raises(TrainingError) as error:
        trained(tmp_path, data, epochs=2, similarity="dot", standardize="whiten", lr=1e-9)
    remedies = "give --epochs above 2 or --similarity norm or --standardize none"
    assert f"chance: the encoder does not distinguish layers; {remedies}" in str(error.value)
    with pytest.raises(TrainingError, match=r"give --epochs above 2 or --standardize none;"):
        trained(tmp_path, data, epochs=2, similarity="norm", standardize="whiten", lr=1e-9)
    assert not (tmp_path / "enc.pt").exists()


@pytest.mark.parametrize("objective", ["contrasim", "supcon"])
@pytest.mark.parametrize(("n_models", "n_layers"), [(2, 2), (3, 4), (5, 2)])
def test_chance_is_the_loss_of_outputs_that_are_all_alike(objective: str, n_models: int, n_layers: int) -> None:
    loss = Objective(Config("layers", objective, (4,)), n_models, n_layers, CPU)
    alike = torch.nn.functional.normalize(torch.ones(n_models * n_layers, 5, 3), dim=-1)
    assert loss.chance == pytest.approx(float(loss(alike)), rel=1e-5)


@pytest.mark.parametrize(("task", "objective"), [("pairs", "contrasim"), ("layers", "deepdot")])
def test_there_is_no_loss_of_chance_for_others(task: str, objective: str) -> None:
    assert Objective(Config(task, objective, (4,)), 2, 3, CPU).chance is None


@pytest.mark.parametrize("rows", [30, 200, 20_000])
def test_few_rows_get_as_many_steps(tmp_path: Path, rows: int) -> None:
    view = made.view(tmp_path / "a.h5", {"a": np.zeros((rows, 2)), "b": np.zeros((rows, 2))})
    data = Data([view, view], [["a", "b"]] * 2)
    config = configuration(data, "layers", "default", chosen("default", "layers", {}))
    per_epoch = Order.of(data, config).n_steps
    assert config.epochs >= 5
    assert config.epochs * per_epoch >= 320
    assert config.epochs == 5 or (config.epochs - 1) * per_epoch < 320
    given = configuration(data, "layers", "default", chosen("default", "layers", {"epochs": 3}))
    paper = configuration(data, "layers", "paper", chosen("paper", "layers", {}))
    assert given.epochs == 3
    assert (paper.epochs, paper.start, paper.similarity, paper.temperature) == (50, "random", "dot", 0.07)


@pytest.mark.parametrize(("objective", "similarity"), [("supcon", "norm"), ("deepdot", "dot"), ("deepcka", "dot")])
def test_the_similarity_is_the_recipes_where_there_are_negatives(objective: str, similarity: str) -> None:
    assert chosen("default", "layers", {"objective": objective})["similarity"] == similarity
    assert chosen("default", "layers", {"objective": objective, "similarity": "norm"})["similarity"] == "norm"


def test_a_start_repeats_bit_for_bit(tmp_path: Path) -> None:
    data, digests = zoo(tmp_path), []
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        trained(tmp_path / str(k), data, epochs=2)
        digests.append(encoders.weights_digest(encoders.load(tmp_path / str(k) / "enc.pt").encoder.state_dict()))
    assert digests[0] == digests[1]
