"""The vectors of small matrices, whose inner products are scores, against the oracle on nasty rows."""

from typing import Any

import numpy as np
import oracles
import pytest
from libraries import tensor

from contrasim_cli.arrays import xp
from contrasim_cli.measures import MEASURES
from contrasim_cli.measures.cka import near_kernels, unit_kernels
from contrasim_cli.measures.load import load

SIZES = [(2, 5), (3, 40), (8, 768), (8, 5), (16, 30), (20, 12), (64, 96)]
WITH_INNER = [name for name in MEASURES if load(name).inner is not None]


def nasty(kind: str, n: int, p: int) -> np.ndarray[Any, Any]:
    """Eleven matrices [11, n, p] in float32."""
    rng = np.random.default_rng(n * p)
    x = rng.normal(size=(11, n, p))
    if kind == "scales":
        x *= 10.0 ** rng.choice([-6, 0, 6], size=(11, 1, 1))
    elif kind == "rows of other scales":
        x *= 10.0 ** rng.choice([-6, 0, 6], size=(11, n, 1))
    elif kind == "offset":
        x += 1e4 * rng.normal(size=p)
    elif kind == "tight clusters":
        x = 1e3 * rng.normal(size=(11, 1, p)) + x
    elif kind == "first row far":
        x[:, 0] += 1e5
    elif kind == "duplicates":
        x[:, 1:] = x[:, :1] + np.where(rng.random((11, n - 1, 1)) < 0.5, 0, x[:, 1:])
        x[:, -1] += 1
    elif kind == "huge and tiny":
        x *= 10.0 ** rng.choice([-30, 30], size=(11, 1, 1))
    elif kind == "float16":
        x = x.astype(np.float16)
    elif kind == "wide columns":
        x[:, :, 0] *= 1e3
    return x.astype(np.float32)


KINDS = ["plain", "scales", "rows of other scales", "offset", "tight clusters", "first row far", "duplicates",
         "huge and tiny", "float16", "wide columns"]  # fmt: skip


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_of_vectors_are_cka(kind: str, n: int, p: int) -> None:
    x = tensor(nasty(kind, n, p))
    vectors = unit_kernels(x)
    assert vectors.shape == (11, n * n)
    assert vectors.dtype == xp.float64
    found = (vectors[:1] @ vectors.mT).flatten().numpy()
    np.testing.assert_allclose(found, [oracles.cka(x[0].numpy(), y) for y in x.numpy()], rtol=0, atol=4e-7)


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_rows_near_the_origin_are_the_same_or_told_to_be_lost(kind: str, n: int, p: int) -> None:
    x = tensor(nasty(kind, n, p))
    vectors, lost = near_kernels(x - x.mean(dim=(0, 1)))
    exact = xp.stack([unit_kernels(y.double()) for y in x])
    found, expected = (v[~lost] @ exact.mT for v in (vectors, exact))
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7)  # ten times the rounding of float32
    if kind in ("plain", "float16", "offset"):
        assert not lost.any()
    if kind == "tight clusters":
        assert lost.all()


def test_what_has_no_variance_is_undefined_and_told() -> None:
    x = tensor(np.ones((3, 8, 20)) * np.array([0.0, 0.1, 1e30])[:, None, None])
    assert unit_kernels(x).isnan().all()
    assert near_kernels(x)[1].all()


@pytest.mark.parametrize("name", WITH_INNER)
@pytest.mark.parametrize("kind", ["plain", "scales", "duplicates", "offset"])
def test_inner_forms_equal_prepare_and_compare(name: str, kind: str) -> None:
    measure = load(name)
    x = tensor(nasty(kind, 8, 20))
    assert measure.inner is not None
    vectors = measure.inner.vector(x.reshape(1, 11, 8, 20))[0]
    found = measure.inner.score(vectors @ vectors.mT)
    expected = xp.stack([measure.compare(measure.prepare(x), measure.prepare(y)) for y in x])
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-7)


def test_double_rows_are_not_narrowed() -> None:
    """Differences that float32 does not see."""
    rng = np.random.default_rng(0)
    x = tensor(1.0 + 1e-9 * rng.normal(size=(4, 8, 30)))
    vectors = unit_kernels(x)
    found = (vectors[:1] @ vectors.mT).flatten().numpy()
    np.testing.assert_allclose(found, [oracles.cka(x[0].numpy(), y) for y in x.numpy()], rtol=1e-6)
