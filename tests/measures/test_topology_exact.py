"""Distances of shapes against their oracles, on nasty input; barcodes against whole boundary matrices; known shapes."""

import math

import numpy as np
import oracles_topology as oracles
import pytest
from libraries import tensor
from nasty import PAIRS, AnyArray, related
from oracles import Array

from contrasim_cli.arrays import xp
from contrasim_cli.measures import Options, topology
from contrasim_cli.measures.barcodes import rips_loops, witness_loops
from contrasim_cli.measures.load import load, similarity

NAMES = list(oracles.MEASURES)
ROWS = 12  # of every case: oracles reduce matrices of all triangles


def sides(case: str) -> tuple[AnyArray, AnyArray]:
    x, y = PAIRS[case]
    return x[:ROWS], y[:ROWS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", PAIRS)
def test_score_equals_the_oracle(name: str, case: str) -> None:
    x, y = sides(case)
    half = np.float16 in (x.dtype, y.dtype)
    wanted = pytest.approx(oracles.MEASURES[name](x, y), rel=1e-4 if half else 1e-6, abs=1e-12, nan_ok=True)
    assert similarity(name, x, y) == wanted
    assert similarity(name, y, x) == wanted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", PAIRS)
def test_score_is_undefined_only_where_it_is_said(name: str, case: str) -> None:
    x, y = sides(case)
    constant = any((side == side[0]).all() for side in (x, y))
    assert math.isnan(similarity(name, x, y)) == (constant or (name == "imd" and len(x) < 6))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "p"), [(20, 4), (7, 9)])
def test_batches_give_what_single_pairs_give(name: str, n: int, p: int) -> None:
    """[batches, 1, n, p] against [batches, candidates, n, p], constant members included."""
    x, y = (xp.stack([tensor(related(n, p, p, seed)[side]) for seed in range(4)]) for side in (0, 1))
    y[2], x[3] = 0.1, 1e3 * x[3]
    measure = load(name)
    grid = measure.compare(measure.prepare(x[:, None]), measure.prepare(y[None]))
    alone = [[similarity(name, a, b) for b in y] for a in x]
    assert grid.dtype == xp.float64
    np.testing.assert_allclose(grid.numpy(), alone, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_and_the_largest_numbers_raise_nothing(name: str) -> None:
    x, y = related(9, 3, 3)
    scores = [similarity(name, a, b) for a, b in ((x * 1e200, y), (x * 1e-200, y), (x * 1e200, y * 1e-200))]
    np.testing.assert_allclose(scores, similarity(name, x, y), rtol=1e-6)
    assert math.isnan(similarity(name, x[:1], y[:1]))


# --- barcodes -----------------------------------------------------------------------------------------------------------


def points(n: int, p: int, kind: str) -> Array:
    rng = np.random.default_rng(n + p)
    x: Array = rng.normal(size=(n, p))
    return np.round(x) if kind == "ties" else np.repeat(x, 2, axis=0)[:n] if kind == "copies" else x


@pytest.mark.parametrize("kind", ["generic", "ties", "copies"])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (2, 1), (3, 2), (4, 2), (16, 1), (16, 2), (22, 3), (20, 10)])
def test_loops_are_those_of_the_whole_boundary_matrix(n: int, p: int, kind: str) -> None:
    x = points(n, p, kind)
    distances = oracles.distances(x, x)
    np.testing.assert_allclose(sorted(rips_loops(distances).tolist()), oracles.loops_of(oracles.rips(distances)))


@pytest.mark.parametrize("kind", ["generic", "ties", "copies"])
@pytest.mark.parametrize(("n", "landmarks"), [(1, 1), (3, 2), (9, 3), (12, 12), (30, 12), (60, 7)])
@pytest.mark.parametrize("most", [0.0, 0.02, 0.3, 1.0, 100.0])
def test_witnessed_loops_are_those_of_the_whole_boundary_matrix(n: int, landmarks: int, most: float, kind: str) -> None:
    x = points(n, 2, kind)
    distances = oracles.distances(x, x[:landmarks])
    wanted = oracles.loops_of(oracles.witnessed(distances, most), most)
    np.testing.assert_allclose(sorted(witness_loops(distances, most).tolist()), wanted)


def test_loops_of_ripser_and_gudhi() -> None:
    gudhi, ripser = pytest.importorskip("gudhi"), pytest.importorskip("ripser")
    x = np.random.default_rng(0).normal(size=(60, 3))
    distances = oracles.distances(x, x)
    theirs = ripser.ripser(distances, distance_matrix=True)["dgms"][1]
    np.testing.assert_allclose(sorted(rips_loops(distances).tolist()), sorted(theirs.tolist()), rtol=1e-6)
    near = np.argsort(distances[:, :30], axis=1)
    table = np.dstack([near, np.take_along_axis(distances, near, axis=1)])
    tree = gudhi.WitnessComplex(table).create_simplex_tree(max_alpha_square=0.3, limit_dimension=2)
    tree.persistence(homology_coeff_field=2)
    theirs = np.minimum(tree.persistence_intervals_in_dimension(1), 0.3)
    np.testing.assert_allclose(sorted(witness_loops(distances[:, :30], 0.3).tolist()), sorted(theirs.tolist()))


def circle(n: int) -> Array:
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_a_circle_is_one_loop_until_an_inscribed_triangle_fills_it() -> None:
    x = circle(60)
    loops = rips_loops(oracles.distances(x, x))
    np.testing.assert_allclose(loops, [[2 * math.sin(math.pi / 60), math.sqrt(3)]])


# --- what they see ------------------------------------------------------------------------------------------------------


def test_rtd_sees_a_loop_that_is_cut() -> None:
    """And no difference of a circle and its picture in other units and another basis."""
    x = circle(40)
    cut = x.copy()
    cut[20:] = np.stack([x[20:, 0], -x[20:, 1] + 0.01], axis=1)  # the lower half folded onto the upper one
    assert similarity("rtd", x, 3 * x[:, ::-1] + 1) == pytest.approx(0, abs=1e-9)
    assert similarity("rtd", x, cut) > 0.3


def test_the_geometry_score_counts_loops() -> None:
    """A circle has one all the time, a disc none: (1 - 0)² + (0 - 1)²."""
    rng = np.random.default_rng(0)
    disc = np.sqrt(rng.uniform(size=(1500, 1))) * circle(1500)[rng.permutation(1500)]
    ring = circle(1500)
    found = similarity("geometry_score", ring, disc, Options(topology_trials=3))
    assert topology.living_preparer(3, 0)(tensor(ring)).times[1] == pytest.approx(1)
    assert 1 < found <= 2
    assert similarity("geometry_score", ring, 5 * ring[::-1] - 1, Options(topology_trials=3)) == pytest.approx(
        0, abs=1e-3
    )


def test_imd_sees_dimensions_whatever_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    line, plane = rng.uniform(size=(200, 1)), rng.uniform(size=(200, 2))
    other = np.random.default_rng(1).uniform(size=(200, 2))
    assert similarity("imd", plane, plane[::-1]) == pytest.approx(0, abs=1e-12)
    assert similarity("imd", line, plane) > 5 * similarity("imd", other, plane)


def test_more_rows_than_are_drawn() -> None:
    x, y = related(30, 3, 4)
    options = Options(topology_rows=9, topology_trials=3, seed=5)
    assert similarity("rtd", x, y, options) == pytest.approx(oracles.rtd(x, y, 9, 3, 5), rel=1e-9)
    assert similarity("rtd", x, y, options) != similarity("rtd", x, y, Options(topology_rows=9, topology_trials=3))


def test_more_rows_than_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "LANDMARKS", 10)
    monkeypatch.setattr(topology, "REACH", 1 / 5000)
    x, y = related(40, 3, 4)
    topology.living_preparer.cache_clear()
    found = similarity("geometry_score", x, y, Options(topology_trials=4, seed=5))
    topology.living_preparer.cache_clear()
    monkeypatch.setattr(oracles, "REACH", 1 / 5000)
    assert found == pytest.approx(oracles.geometry_score(x, y, 4, 5, landmarks=10), rel=1e-9, abs=1e-12)
    assert found > 0
