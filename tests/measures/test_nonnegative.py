"""Layers behind a ReLU: which measures call unrelated rows similar there, as the guide says."""

import numpy as np
import numpy.typing as npt
import pytest

from contrasim_cli.measures.load import similarity

Rows = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def noise() -> tuple[Rows, Rows]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(1000, 64)), rng.normal(size=(1000, 64))


def behind(rows: Rows) -> Rows:
    """The rows behind a ReLU."""
    return np.maximum(rows, 0)


@pytest.mark.parametrize(("measure", "before", "after"), [("cosine", 0.0, 0.32), ("norm", -0.41, -0.16)])
def test_raw_directions_are_alike_behind_a_relu_until_rows_are_centred(
    noise: tuple[Rows, Rows], measure: str, before: float, after: float
) -> None:
    x, y = noise
    assert similarity(measure, x, y) == pytest.approx(before, abs=0.01)
    assert similarity(measure, behind(x), behind(y)) == pytest.approx(after, abs=0.01)
    centred = [behind(side) - behind(side).mean(0) for side in noise]
    assert similarity(measure, *centred) == pytest.approx(before, abs=0.01)


@pytest.mark.parametrize("measure", ["cka", "cca", "procrustes", "rsa", "linear_regression"])
def test_other_measures_do_not_change(noise: tuple[Rows, Rows], measure: str) -> None:
    x, y = noise
    assert similarity(measure, behind(x), behind(y)) == pytest.approx(similarity(measure, x, y), abs=0.01)
