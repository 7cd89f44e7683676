"""Dissimilarities across repeated measurements, against formulas said again, the theorem they are made for, and rsatoolbox."""

from typing import Any

import numpy as np
import oracles_repeats as oracles
import pytest
import torch
from libraries import assert_close, tensor

from contrasim_cli.arrays import Tensor
from contrasim_cli.measures import Options
from contrasim_cli.measures.load import load
from contrasim_cli.measures.matrices import COMPARISONS, RSMS
from contrasim_cli.measures.repeats import ACROSS, cross_validated

CROSS_VALIDATED = [name for name in ACROSS if name != "split-half"]
NAMES = {  # of comparisons in rsatoolbox
    "spearman": "spearman",
    "pearson": "corr",
    "cosine-rdm": "cosine",
    "rho-a": "rho-a",
    "tau-a": "tau-a",
    "corr-cov": "corr_cov",
    "cosine-cov": "cosine_cov",
}
Measured = list[Any]


def measured(n: int, p: int, repeats: int, seed: int = 0, signal: float = 1.0) -> Measured:
    """Measurements [n, p] of one pattern, whose noise is correlated and of several sizes."""
    rng = np.random.default_rng(seed)
    pattern = signal * rng.normal(size=(n, p))
    mixing = np.eye(p) + rng.normal(size=(p, p)) / p**0.5
    return [pattern + (rng.normal(size=(n, p)) @ mixing) * np.linspace(0.4, 1.5, p) for _ in range(repeats)]


def cases() -> dict[str, Measured]:
    """The inputs of the table."""
    each = measured(12, 5, 3)
    dead = [np.insert(x, 2, 0.1, axis=1) for x in each]
    silent = [np.insert(x, 2, np.arange(12), axis=1) for x in each]
    return {
        "generic": each,
        "two repeats": measured(9, 4, 2),
        "n k < width": measured(6, 40, 2),
        "one neuron": measured(9, 1, 4),
        "offset": [x + 1e6 for x in each],
        "scale": [x * 1e-60 for x in each],
        "float32": [x.astype(np.float32) for x in each],
        "duplicate rows": [np.repeat(x[:6], 2, axis=0) for x in each],
        "drift": [x + 5 * k for k, x in enumerate(each)],
        "a dead neuron": dead,
        "a neuron without noise": silent,
        "no noise": [each[0]] * 3,
        "three rows": measured(3, 4, 2),
    }


def beside(each: Measured) -> Tensor:
    """X [n, k p]."""
    return tensor(np.concatenate(each, axis=1))


def score(model: Any, each: Measured, distance: str, rsm: str, compare: str) -> float:
    """What the measure says."""
    across = load("rsa", Options(rsm=rsm, rsm_compare=compare)).across
    assert across is not None
    measure = across(distance)
    assert measure.prepare_repeats is not None
    side = measure.prepare_repeats(beside(each), len(each))
    return float(measure.compare(measure.prepare(tensor(model)), side))


@pytest.mark.parametrize("case", list(cases()))
@pytest.mark.parametrize("distance", ACROSS)
def test_scores_equal_the_oracle(case: str, distance: str) -> None:
    each = cases()[case]
    model = np.random.default_rng(1).normal(size=(len(each[0]), 4)) + each[0][:, :1].astype(np.float64) % 1
    digits = 1e-7 if case in ("offset", "scale") else 1e-9  # what the oracle has
    for rsm in RSMS if distance == "split-half" else ["sqeuclidean"]:
        if case in ("one neuron", "scale") and rsm == "pearson":
            continue
        for compare in [name for name in COMPARISONS if name != "cosine"]:
            wanted = oracles.rsa(model, each, distance, rsm, compare)
            found = score(model, each, distance, rsm, compare)
            assert found == pytest.approx(wanted, abs=digits, nan_ok=True), (rsm, compare)


@pytest.mark.parametrize("distance", ["crossnobis", "crossnobis-diag"])
def test_without_noise_there_is_nothing_to_divide_by(distance: str) -> None:
    for case, undefined in (("a dead neuron", False), ("a neuron without noise", True), ("no noise", True)):
        found = cross_validated(beside(cases()[case]), 3, distance)
        assert bool(found.isnan().all()) == bool(found.isnan().any()) == undefined


def test_a_covariance_that_is_singular_and_not_shrunk_has_no_inverse() -> None:
    """Noise of 1 or -1, the same in both neurons, is known to be: λ is 0."""
    pattern = np.random.default_rng(0).normal(size=(8, 2)).round(2)
    each = [pattern + 1, pattern - 1]
    assert cross_validated(beside(each), 2, "crossnobis-diag").isfinite().all()
    assert cross_validated(beside(each), 2, "crossnobis").isnan().all()


@pytest.mark.parametrize("distance", CROSS_VALIDATED)
def test_noise_alone_is_no_distance_on_average(distance: str) -> None:
    """And is one where nothing is cross-validated."""
    each = measured(200, 6, 3, signal=0)
    found = cross_validated(beside(each), 3, distance)
    apart = torch.cdist(torch.from_numpy(np.mean(each, axis=0)), torch.from_numpy(np.mean(each, axis=0))).square()
    spread = float(found.std())
    assert abs(float(found.mean())) < 0.05 * spread
    assert float(apart.mean()) > 1.0


def test_draws_are_prepared_together() -> None:
    x = beside(measured(14, 5, 3))
    draws = np.stack([np.random.default_rng(k).permutation(14)[:8] for k in range(3)])
    for distance in ACROSS:
        across = load("rsa").across
        assert across is not None
        prepare = across(distance).prepare_repeats
        assert prepare is not None
        together = prepare(x[draws], 3).values
        for one, draw in zip(together, draws, strict=True):
            assert_close(one, prepare(x[draw], 3).values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("distance", CROSS_VALIDATED)
def test_rsatoolbox_finds_the_same(distance: str) -> None:
    """`crossnobis` with the precision of `prec_from_unbalanced`; `prec_from_measurements` counts other degrees of freedom."""
    data = pytest.importorskip("rsatoolbox.data")
    noise, rdm = pytest.importorskip("rsatoolbox.data.noise"), pytest.importorskip("rsatoolbox.rdm")
    for n, p, repeats in [(20, 7, 3), (14, 30, 2), (10, 60, 4)]:
        each, model = measured(n, p, repeats), np.random.default_rng(1).normal(size=(n, 5))
        rows = {"row": np.tile(np.arange(n), repeats), "repeat": np.repeat(np.arange(repeats), n)}
        theirs = data.Dataset(np.concatenate(each), obs_descriptors=rows)
        method = {"crossnobis": "shrinkage_diag", "crossnobis-diag": "diag"}.get(distance)
        precision = method and noise.prec_from_unbalanced(theirs, "row", method=method)
        found = rdm.calc_rdm(theirs, "crossnobis", "row", noise=precision, cv_descriptor="repeat")
        of_model = rdm.calc_rdm(data.Dataset(model), "euclidean")
        for compare, name in NAMES.items():
            wanted = float(np.squeeze(rdm.compare(of_model, found, method=name)))
            assert score(model, each, distance, "sqeuclidean", compare) == pytest.approx(wanted, abs=1e-9)
