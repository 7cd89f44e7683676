"""Standardised rows, against the definition on whole matrices in long double."""

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import values

from contrasim_cli import transforms
from contrasim_cli.errors import InputError, MismatchError, UsageError
from contrasim_cli.store import Layer, Store, View
from contrasim_cli.store.blocks import spans
from contrasim_cli.transforms import Standardization, StandardizedView, Standardizer, Transform, statistics

KINDS = ["center", "zscore", "whiten"]
Matrix = np.ndarray[Any, Any]


def memory_view(matrix: Matrix, name: str = "a") -> View:
    """A view of one layer `x` that is in memory."""
    return View(Store(Path(f"{name}.h5"), "memory", {"x": Layer("x", matrix)}))


def oracle(rows: Matrix, of: Matrix, how: Standardization) -> Matrix:
    """Rows standardised by the statistics of others, from the definition."""
    of, rows = of.astype(np.longdouble), rows.astype(np.longdouble)
    mean = of.mean(axis=0)
    centred = of - mean
    covariance = centred.T @ centred / len(of)
    if how.kind == "center":
        return (rows - mean).astype(np.float64)
    if how.kind == "zscore":
        spread = np.sqrt(np.diagonal(covariance))
        return np.where(spread > 0, (rows - mean) / np.where(spread > 0, spread, 1), 0).astype(np.float64)
    p = covariance.shape[0]
    shrunk = (1 - how.shrinkage) * covariance + how.shrinkage * np.trace(covariance) / p * np.eye(p)
    w, v = np.linalg.eigh(shrunk.astype(np.float64))
    root = sum((np.outer(v[:, k], v[:, k]) / np.sqrt(w[k]) for k in range(p) if w[k] > 1e-12 * w[-1]), np.zeros((p, p)))
    return np.asarray((rows - mean) @ root * (np.diagonal(covariance) > 0), dtype=np.float64)


def standardized(matrix: Matrix, how: Standardization) -> Matrix:
    """What a view of the rows gives."""
    (view,) = Standardizer([memory_view(matrix)]).views(how, [["x"]], 1 << 40)
    found: Matrix = view.read("x")
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 60),
    width=st.integers(1, 12),
    kind=st.sampled_from(KINDS),
    shrinkage=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    offset=st.sampled_from([0.0, 3.0, 1e4]),
    dtype=st.sampled_from([np.float32, np.float64]),
    block=st.integers(1, 70),
    seed=st.integers(0, 3),
)
def test_rows_equal_the_definition(
    rows: int, width: int, kind: str, shrinkage: float, offset: float, dtype: type, block: int, seed: int
) -> None:
    matrix = (values(rows, width, seed) * np.linspace(0.1, 3, width) + offset).astype(dtype)
    how = Standardization(kind, shrinkage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "row_blocks", lambda layer, n_rows: spans(n_rows, block))
        found = standardized(matrix, how)
    assert found.dtype == dtype
    expected = oracle(matrix, matrix, how)
    # the root of a covariance whose directions are few or weak errs by rounding over its least eigenvalue
    tolerance = 1e-6 if dtype == np.float32 or (kind == "whiten" and shrinkage == 0) else 1e-9
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1, float(np.abs(expected).max())))


def test_a_large_offset_loses_no_digits() -> None:
    """float64 rows at 1e4: what float32 or one-pass moments would leave of them is wrong in the first digits."""
    matrix = 1e4 + 1e-6 * np.random.default_rng(0).normal(size=(500, 6))
    for kind in KINDS:
        found, expected = standardized(matrix, Standardization(kind)), oracle(matrix, matrix, Standardization(kind))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_whitened_rows_are_white_and_keep_to_their_axes() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 8)) @ rng.normal(size=(8, 8)) + 5
    found = standardized(matrix, Standardization("whiten", 0.0))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.T @ found / 400, np.eye(8), atol=1e-9)
    cross = found.T @ (matrix - matrix.mean(axis=0))
    np.testing.assert_allclose(cross, cross.T, atol=1e-6)  # the symmetric root, of all the roots


def test_directions_that_are_rounding_are_dropped() -> None:
    """A column that is the sum of two others adds a direction whose variance is rounding, which other rows do have."""
    for seed in range(8):
        matrix = values(300, 6, seed).astype(np.float64) * 1000
        matrix[:, 5] = matrix[:, 0] + matrix[:, 1]
        other = values(300, 6, seed + 100).astype(np.float64) * 1000
        how = Standardization("whiten", 0.0)
        (view,) = Standardizer([memory_view(other)], [memory_view(matrix)]).views(how, [["x"]], 1 << 40)
        assert np.abs(view.read("x")).max() < 10
        assert np.square(standardized(matrix, how)).sum() / 300 == pytest.approx(5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, 1e4])
def test_constant_columns_become_zero(kind: str, dtype: type, value: float) -> None:
    matrix = values(37, 4).astype(dtype)
    matrix[:, 1] = value
    found = standardized(matrix, Standardization(kind))
    assert (found[:, 1] == 0).all()
    assert np.isfinite(found).all()
    assert (standardized(np.full((9, 3), value, dtype), Standardization(kind)) == 0).all()


@pytest.mark.parametrize("shrinkage", [0.0, 0.01])
@pytest.mark.parametrize(("rows", "width"), [(1, 5), (3, 20), (20, 20)])
def test_fewer_rows_than_neurons(rows: int, width: int, shrinkage: float) -> None:
    matrix = values(rows, width)
    found = standardized(matrix, Standardization("whiten", shrinkage))
    assert np.isfinite(found).all()
    expected = oracle(matrix, matrix, Standardization("whiten", shrinkage))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if shrinkage == 0 and rows > 1:
        spread = np.linalg.svd(found.astype(np.float64), compute_uv=False)[: rows - 1] / np.sqrt(rows)
        np.testing.assert_allclose(spread, 1, atol=1e-4)


def test_the_statistics_of_another_store() -> None:
    matrix, larger = values(20, 5), values(400, 5, seed=1) * 3 + 1
    for kind in KINDS:
        how = Standardization(kind)
        (view,) = Standardizer([memory_view(matrix)], [memory_view(larger)]).views(how, [["x"]], 1 << 40)
        np.testing.assert_allclose(view.read("x"), oracle(matrix, larger, how), atol=1e-5)


def test_only_the_rows_of_the_view_count() -> None:
    matrix = values(50, 4)
    matrix[3:7] = np.nan
    kept = np.flatnonzero(np.isfinite(matrix).all(axis=1))[::-1].copy()
    view = View(memory_view(matrix).store, kept)
    (found,) = Standardizer([view]).views(Standardization("zscore"), [["x"]], 1 << 40)
    np.testing.assert_allclose(
        found.read("x"), oracle(matrix[kept], matrix[kept], Standardization("zscore")), atol=1e-5
    )
    some = np.array([4, 0, 9])
    np.testing.assert_array_equal(found.read("x", some), found.read("x")[some])
    assert (found.n_rows, found.store) == (46, view.store)


def test_a_row_does_not_depend_on_how_many_are_transformed_with_it() -> None:
    matrix = values(1000, 40)
    found = Transform(np.ones(40), np.random.default_rng(0).normal(size=(40, 40)))
    np.testing.assert_array_equal(found(matrix)[256:768], found(matrix[256:768]))


def test_none_leaves_the_views_as_they_are() -> None:
    view = memory_view(values(5))
    assert Standardizer([view]).views(Standardization(), [["x"]], 0) == [view]
    assert not Standardization()
    assert not isinstance(view, StandardizedView)


def test_every_layer_is_streamed_once_whatever_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    real = statistics
    monkeypatch.setattr(
        transforms, "statistics", lambda view, layer, covariance: counted.append(layer) or real(view, layer, covariance)
    )
    standardizer = Standardizer([memory_view(values(30, 3), name) for name in "ab"])
    for kind in ("zscore", "whiten", "whiten"):
        standardizer.views(Standardization(kind), [["x"], ["x"]], 1 << 40)
    assert counted == ["x", "x"]


def test_statistics_hold_one_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "row_blocks", lambda layer, n_rows: spans(n_rows, 512))
    view = made.view(tmp_path / "a.h5", {"x": values(40_000, 16)})
    tracemalloc.start()
    statistics(view, "x", covariance=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000 * 16 * 4


# --- what is refused and what is warned of ----------------------------------------------------------------------------


@pytest.fixture
def messages() -> Iterator[list[str]]:
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    transforms.log.addHandler(handler)
    yield heard
    transforms.log.removeHandler(handler)


def test_few_rows_per_neuron_are_warned_of_once_per_store(messages: list[str]) -> None:
    views = [memory_view(values(rows, 4), name) for name, rows in (("a", 39), ("b", 40))]
    standardizer = Standardizer(views)
    for kind in ("zscore", "center", "whiten", "whiten"):
        standardizer.views(Standardization(kind), [["x"], ["x"]], 1 << 40)
    assert messages == [
        "a.h5: layer x: whitened by the statistics of 39 rows of 4 neurons, fewer than 10 rows per neuron; give a larger "
        "store with --standardize-from, or raise --shrinkage"
    ]


def test_squares_beyond_float64_are_refused() -> None:
    matrix = values(20, 3).astype(np.float64)
    matrix[3, 1] = 1e200
    with pytest.raises(InputError) as refused:
        statistics(memory_view(matrix), "x", covariance=True)
    assert str(refused.value) == "a.h5: layer x: squares of the values overflow float64; scale the rows"


def test_maps_that_do_not_fit_are_refused() -> None:
    standardizer = Standardizer([memory_view(values(30, 3))])
    with pytest.raises(InputError) as refused:
        standardizer.views(Standardization("whiten"), [["x"]], 143)
    assert str(refused.value) == (
        "--standardize whiten: covariances and maps of 1 layers take 0.00 GiB, --memory allows 0.00; raise it, select fewer "
        "layers, or give --standardize zscore"
    )
    standardizer.views(Standardization("whiten"), [["x"]], 144)
    standardizer.views(Standardization("zscore"), [["x"]], 0)


def test_sources_that_do_not_fit_are_refused() -> None:
    view, other = memory_view(values(9, 3)), memory_view(values(9, 4), "b")
    lacking = View(Store(Path("c.h5"), "memory", {"y": Layer("y", values(9, 3))}))
    with pytest.raises(UsageError) as refused:
        Standardizer([view, view], [view]).check([["x"], ["x"]])
    assert str(refused.value) == (
        "--standardize-from takes one store for each of the 2 stores, in their order; 1 given"
    )
    for source, message in (
        (other, "b.h5: layer x has width 4, that of a.h5 has 3"),
        (lacking, "c.h5: has no layer x to standardise that of a.h5 by; it has y"),
    ):
        with pytest.raises(MismatchError) as mismatch:
            Standardizer([view], [source]).check([["x"]])
        assert str(mismatch.value) == message
