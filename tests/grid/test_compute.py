"""The grid against pair-by-pair scores, in every form and with any memory, and what it leaves empty."""

import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import made
import numpy as np
import pytest
import torch

from contrasim_cli import scoring
from contrasim_cli.arrays import NUMPY, Device
from contrasim_cli.errors import ContraSimError, InputError
from contrasim_cli.grid import Grid, layer_grids
from contrasim_cli.grid import gram_products as energies
from contrasim_cli.grid import grid as grid_module
from contrasim_cli.grid import row_pairs as kernels
from contrasim_cli.grid.grid import Plan
from contrasim_cli.measures import MEASURES, Options, cca, statistics
from contrasim_cli.measures.load import similarity
from contrasim_cli.measures.matrices import COMPARISONS, RSMS
from contrasim_cli.scoring import Scorer, closed_form
from contrasim_cli.store import View, open_store

CPU = torch.device("cpu")
LARGE = 1 << 40
SMALL = 20_000  # so little that rows are read again in every pass, and passes hold one pair of layers
EVERY = [*MEASURES]
MOMENTS = [scorer.name for scorer in closed_form(EVERY) if scorer.measure.moments is not None]
ENERGIES = [scorer.name for scorer in closed_form(EVERY) if scorer.measure.energy is not None]
WHITENED = [scorer.name for scorer in closed_form(EVERY) if scorer.measure.whiten is not None]
ROWWISE = [scorer.name for scorer in closed_form(EVERY) if scorer.measure.rowwise is not None]
BY_BLOCKS = [s.name for s in closed_form(EVERY) if s.measure.own is not None or s.measure.batches is not None]
BY_PAIRS = [scorer.name for scorer in closed_form(EVERY) if scorer.measure.pairs is not None]
STREAMED = list(dict.fromkeys([*MOMENTS, *ENERGIES, *WHITENED, *ROWWISE, *BY_BLOCKS, *BY_PAIRS]))

Matrix = np.ndarray[Any, Any]
Layers = dict[str, Matrix]


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Warnings that the grid logs."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("contrasim_cli.grid")
    log.addHandler(handler)
    yield heard
    log.removeHandler(handler)


def views(folder: Path, *stores: Layers) -> list[View]:
    return [made.view(folder / f"{'abcdef'[k]}.h5", layers) for k, layers in enumerate(stores)]


def grids(those: list[View], scorers: Sequence[Scorer], budget: int = LARGE, **options: Any) -> dict[Any, Matrix]:
    """The grids of every scorer and every two views, all layers against all layers."""
    layers = [list(view.store.layers) for view in those]
    plan = Plan(those, list(combinations(range(len(those)), 2)), layers, layers)
    return layer_grids(Grid(plan, scorers, CPU, budget, **options))


def scores(both: list[View], names: Sequence[str], budget: int = LARGE, **options: Any) -> dict[str, Matrix]:
    """The grid of every measure for two stores."""
    scorers = closed_form(names, Options(**options))
    found = grids(both, scorers, budget)
    return {scorer.name: found[s, 0, 1] for s, scorer in enumerate(scorers)}


def pair_by_pair(name: str, a: Layers, b: Layers) -> list[list[float]]:
    """What the grid must give."""
    needs_equal = MEASURES[name].needs_equal_widths
    return [
        [np.nan if needs_equal and x.shape[1] != y.shape[1] else similarity(name, x, y) for y in b.values()]
        for x in a.values()
    ]


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 7), (10, 14)])
@pytest.mark.parametrize("budget", [LARGE, SMALL])
def test_the_grid_equals_the_pair_by_pair_result(tmp_path: Path, shape: tuple[int, int], budget: int) -> None:
    n, width = shape
    a, b = made.related(2, 3, n, (width,))
    b = {name: b[name] for name in ("layer_2", "layer_0")}  # another depth, another order
    for name, found in scores(views(tmp_path, a, b), EVERY, budget).items():
        np.testing.assert_allclose(found, pair_by_pair(name, a, b), rtol=1e-6, atol=1e-6, err_msg=name)


def test_three_stores_are_compared_two_by_two(tmp_path: Path) -> None:
    stores = made.related(3, 2, 30, (7, 5, 7))
    names = ["cka", "pwcca", "procrustes", "dot", "rsa"]
    scorers = closed_form(names)
    for budget in (LARGE, SMALL):
        found = grids(views(tmp_path, *stores), scorers, budget)
        assert set(found) == {(s, a, b) for s in range(len(names)) for a, b in ((0, 1), (0, 2), (1, 2))}
        for (s, a, b), values in found.items():
            np.testing.assert_allclose(values, pair_by_pair(names[s], stores[a], stores[b]), rtol=1e-6)


@pytest.mark.torch_only
@pytest.mark.parametrize(("objective", "how", "measure"), [
    ("contrasim", "dot", "dot"), ("supcon", "norm", "norm"), ("deepdot", "dot", "dot"), ("deepcka", "dot", "cka")
])  # fmt: skip
@pytest.mark.parametrize("budget", [LARGE, SMALL])
def test_the_grid_of_an_encoder_is_that_of_the_encoded_rows(
    tmp_path: Path, objective: str, how: str, measure: str, budget: int
) -> None:
    a, b = made.related(2, 3, 30, (7, 9))
    path = made.encoder_file(tmp_path / "e.pt", widths=(7, 9), objective=objective, similarity=how)
    (scorer,) = scoring.learned([path])
    (found,) = grids(views(tmp_path, a, b), [scorer], budget).values()
    encoder = scorer.checkpoint.encoder  # type: ignore[union-attr]
    with torch.no_grad():
        z, w = ([encoder(torch.from_numpy(x)) for x in side.values()] for side in (a, b))
    np.testing.assert_allclose(found, [[similarity(measure, x, y) for y in w] for x in z], rtol=1e-5)
    assert scorer.name == "e.pt"


def test_integers_are_compared_like_their_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-100, 100, size=(150, 6)), rng.integers(-9, 9, size=(150, 6)).astype(np.int8)
    for name, matrix in (("a", a), ("b", b)):
        np.savez(tmp_path / f"{name}.npz", layer=matrix)
    both = [View(open_store(tmp_path / f"{name}.npz")) for name in "ab"]
    for budget in (LARGE, SMALL):
        for name, found in scores(both, STREAMED, budget).items():
            np.testing.assert_allclose(found, [[similarity(name, a, b)]], rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.torch_only
def test_rows_that_an_encoder_narrows_need_not_fit_raw(tmp_path: Path) -> None:
    a, b = made.related(2, 1, 2000, (100,))
    path = made.encoder_file(tmp_path / "e.pt", widths=(100,), objective="deepcka")
    (scorer,) = scoring.learned([path])
    budget = 400_000  # an eighth of a layer's 800 kB is encoded
    (small,), (whole,) = (grids(views(tmp_path, a, b), [scorer], size).values() for size in (budget, LARGE))
    np.testing.assert_allclose(small, whole, rtol=1e-5)


@pytest.mark.torch_only
@pytest.mark.parametrize("budget", [8_000, 50_000])
def test_little_memory_gives_the_same_numbers(tmp_path: Path, budget: int) -> None:
    """Room for none, or some, of the layers."""
    both = views(tmp_path, *made.related(2, 3, 30, (7,)))
    scorers = [*closed_form(EVERY), *scoring.learned([made.encoder_file(tmp_path / "e.pt", widths=(7,))])]
    small, whole = grids(both, scorers, budget), grids(both, scorers)
    for key, found in whole.items():
        np.testing.assert_allclose(small[key], found, rtol=1e-6, atol=1e-6, err_msg=scorers[key[0]].name)


def nasty() -> dict[str, tuple[Matrix, float]]:
    """Layers [150, 6] with the accuracy that their type allows."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(150, 6)) * np.geomspace(1, 0.05, 6) + 0.5).astype(np.float32)
    low = (rng.normal(size=(150, 3)) @ rng.normal(size=(3, 6))).astype(np.float32)
    constant = x.copy()
    constant[:, 1:3] = (0.1, 1e5 / 3)
    return {
        "generic": (x, 1e-6),
        "rank-deficient": (low, 1e-6),
        "rank-deficient, float64": (rng.normal(size=(150, 2)) @ rng.normal(size=(2, 6)), 1e-6),
        "constant columns": (constant, 1e-6),
        "duplicate rows": (np.repeat(x[:75], 2, axis=0), 1e-6),
        "offset 1e4": (x + np.float32(1e4), 1e-6),
        "scale 1e+6": (x * np.float32(1e6), 1e-6),
        "scale 1e-6": (x * np.float32(1e-6), 1e-6),
        "scale 1e+30": (x * np.float32(1e30), 1e-6),
        "scale 1e-30": (x * np.float32(1e-30), 1e-6),
        "scale 1e+160, float64": (x.astype(np.float64) * 1e160, 1e-6),
        "scale 1e-170, float64": (x.astype(np.float64) * 1e-170, 1e-6),
        "one dominant column": (x * np.array([1, 1, 1e4, 1, 1, 1], dtype=np.float32), 1e-6),
        "first row far away": (np.concatenate([np.full((1, 6), 1e3, dtype=np.float32), x[1:]]), 1e-6),
        "all rows but one equal": (np.where(np.arange(150)[:, None] == 90, x, x[0]), 1e-6),
        "float16": (x.astype(np.float16), 1e-4),
        "constant": (np.full((150, 6), 0.1, dtype=np.float32), 1e-6),
    }


def matrices_before_float64_is_left(name: str, case: str) -> bool:
    """Cells in which squares of the values leave float64, where the measure says that it is then undefined."""
    return "float64" in case and "scale" in case and name in MOMENTS and name not in WHITENED


@pytest.mark.slow
@pytest.mark.parametrize("case", nasty())
@pytest.mark.parametrize("form", ["in memory", "streamed", "features", "gram"])
def test_every_form_agrees_with_whole_layers(
    tmp_path: Path, case: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, tolerance = nasty()[case]
    other = made.related(1, 1, 150, (6,))[0]["layer_0"]
    a, b = {"nasty": matrix, "other": other}, {"plain": other[::-1].copy(), "itself": matrix}
    names = STREAMED
    if form in ("features", "gram"):
        names = ENERGIES
        monkeypatch.setattr(energies, "gram_is_cheaper", lambda grid: form == "gram")
    if form == "streamed" and matrices_before_float64_is_left("procrustes", case):
        names = [name for name in names if name != "rsm_norm_difference"]  # needs whole layers then
    found = scores(views(tmp_path, a, b), names, SMALL if form == "streamed" else LARGE)
    for name, values in found.items():
        if not matrices_before_float64_is_left(name, case):
            expected = pair_by_pair(name, a, b)
            np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", ENERGIES)
def test_cka_through_features_equals_cka_through_gram_matrices(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = views(tmp_path, *made.related(2, 3, 200, (7, 9)))
    monkeypatch.setattr(energies, "TILE_BYTES", 1 << 15)  # several tiles
    found = []
    for gram in (True, False):
        monkeypatch.setattr(energies, "gram_is_cheaper", lambda grid, gram=gram: gram)
        found.append(scores(both, [name])[name])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-7)
    assert not np.array_equal(found[0], found[1])  # which would be one way taken twice


@pytest.mark.parametrize("n_rows", [200, 7, 3])
def test_gram_tiles_of_rows_on_disk_equal_those_in_memory(
    tmp_path: Path, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More neurons than rows, too."""
    both = views(tmp_path, *made.related(2, 3, n_rows, (7, 90)))
    whole = scores(both, ENERGIES)
    monkeypatch.setattr(energies, "gram_is_cheaper", lambda grid: True)
    for name, found in scores(both, ENERGIES, SMALL // 8).items():
        # debiased scores near 0 are differences of float32 products whose ratios are near 1
        np.testing.assert_allclose(found, whole[name], rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("n_rows", [1, 2, 5, 64, 65, 300, 1000])
@pytest.mark.parametrize("side", [100, 64, 1280])
def test_tiles_cover_the_upper_half_once(n_rows: int, side: int) -> None:
    seen = np.zeros((n_rows, n_rows), dtype=int)
    for top, bottom, left, right in energies._upper_half(0, n_rows, side, 64):
        assert bottom - top <= side
        assert right - left <= side
        seen[top:bottom, left:right] += 1
        if top != left:
            seen[left:right, top:bottom] += 1
    assert (seen == 1).all()


def test_reading_again_is_counted(tmp_path: Path) -> None:
    """Gram tiles of rows on disk read them again and again: what pays in memory need not pay from disk."""
    those = views(tmp_path, *made.related(2, 8, 300, (50,)))
    layers = [list(view.store.layers) for view in those]
    plan = Plan(those, [(0, 1)], layers, layers)
    assert [energies.gram_is_cheaper(Grid(plan, closed_form(["cka"]), CPU, size)) for size in (LARGE, SMALL)] == [
        True,
        False,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BY_PAIRS, "uniformity_difference"])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 90])
def test_tiles_of_pairs_equal_whole_matrices(
    tmp_path: Path, name: str, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "TILE_SIDE", 16)
    monkeypatch.setattr(kernels, "FEWEST_ROWS", 16)
    monkeypatch.setattr(statistics, "BLOCK", 16)
    a, b = made.related(2, 2, n_rows, (7, 9))
    a["layer_0"][n_rows // 2 :: 3] = a["layer_0"][0]  # duplicates
    both = views(tmp_path, a, b)
    for budget in (LARGE, SMALL):
        np.testing.assert_allclose(scores(both, [name], budget)[name], pair_by_pair(name, a, b), rtol=1e-9, atol=1e-12)


RSA = [(rsm, how) for rsm in RSMS for how in COMPARISONS]


@pytest.mark.slow
@pytest.mark.parametrize(("rsm", "how"), RSA)
def test_every_kind_of_rsa_in_tiles(tmp_path: Path, rsm: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "TILE_SIDE", 16)
    monkeypatch.setattr(kernels, "FEWEST_ROWS", 16)
    a, b = made.related(2, 1, 50, (7,))
    a["constant"] = np.full((50, 3), 0.3)
    found = scores(views(tmp_path, a, b), ["rsa"], rsm=rsm, rsm_compare=how)["rsa"]
    expected = [[similarity("rsa", x, y, Options(rsm=rsm, rsm_compare=how)) for y in b.values()] for x in a.values()]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_layers_that_do_not_fit_together_are_prepared_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for some of six first layers, every second one is prepared once per run of them, not once per cell."""
    both = views(tmp_path, *made.related(2, 6, 40, (50,)))
    scorers = closed_form(["procrustes"])
    measure = scorers[0].measure
    made_of: list[int] = []

    def counted(x: torch.Tensor) -> Any:
        made_of.append(1)
        return measure.prepare(x)

    counting = replace(scorers[0], measure=replace(measure, prepare=counted))
    (whole,) = grids(both, scorers).values()
    (found,) = grids(both, [counting], 150_000).values()
    np.testing.assert_allclose(found, whole)
    assert len(made_of) <= 6 + 3 * 6 < 6 * 6


def test_the_cheaper_way_is_chosen(tmp_path: Path) -> None:
    """Many layers want Gram matrices, many rows want features."""
    for n_layers, n_rows, gram in ((6, 30, True), (1, 2000, False)):
        those = views(tmp_path, *made.related(2, n_layers, n_rows, (20,)))
        layers = [list(view.store.layers) for view in those]
        whole = Grid(Plan(those, [(0, 1)], layers, layers), closed_form(["cka"]), CPU, LARGE)
        assert energies.gram_is_cheaper(whole) == gram


@pytest.mark.slow
@pytest.mark.parametrize("budget", [LARGE, SMALL])
def test_many_small_blocks_equal_one_block(tmp_path: Path, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    both = views(tmp_path, *made.related(2, 2, 1000, (7, 9)))
    whole = scores(both, STREAMED)
    monkeypatch.setattr(grid_module, "BLOCK_BYTES", 1)
    for name, found in scores(both, STREAMED, budget).items():
        np.testing.assert_allclose(found, whole[name], rtol=1e-6, err_msg=name)


def drifting(n: int, width: int) -> Layers:
    """Sorted rows whose mean moves over the file by a thousand times their spread, after a block of equal rows."""
    rng = np.random.default_rng(1)
    drift = np.linspace(0, 1e3, n)[:, None] * rng.normal(size=(1, width))
    layers = {"drift": (rng.normal(size=(n, width)) + drift).astype(np.float32)}
    layers["offset"] = layers["drift"][::-1] + np.float32(1e4)
    for matrix in layers.values():
        matrix[: n // 10] = matrix[0]
    return layers


@pytest.mark.slow
@pytest.mark.parametrize("budget", [LARGE, SMALL])
@pytest.mark.parametrize("block_bytes", [1, 1 << 28])
def test_rows_whose_mean_drifts_lose_nothing(
    tmp_path: Path, budget: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "BLOCK_BYTES", block_bytes)
    a, b = drifting(1000, 5), made.related(1, 2, 1000, (5,))[0]
    for name, found in scores(views(tmp_path, a, b), STREAMED, budget).items():
        np.testing.assert_allclose(found, pair_by_pair(name, a, b), rtol=1e-6, atol=1e-7, err_msg=name)


def test_products_are_float64_where_numpy_has_little_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = views(tmp_path, *made.related(2, 2, 30, (7, 9)))
    layers = [list(view.store.layers) for view in both]
    plan = Plan(both, [(0, 1)], layers, layers)

    def precision(device: Device, most: float) -> str:
        monkeypatch.setattr("contrasim_cli.device.LITTLE", most)
        return Grid(plan, closed_form(["cka"]), device, LARGE).precision

    assert [precision(NUMPY, most) for most in (1e300, 0.0)] == ["float64", "float32"]
    assert precision(torch.device("cpu"), 1e300) == "float32"


def test_the_cut_of_rows_does_not_follow_from_memory(tmp_path: Path) -> None:
    both = views(tmp_path, *made.related(2, 2, 1500, (7, 9)))
    layers = [list(view.store.layers) for view in both]
    plan = Plan(both, [(0, 1)], layers, layers)
    cuts = [Grid(plan, closed_form(["cka"]), CPU, budget).reader.blocks for budget in (1, SMALL, LARGE)]
    assert cuts == [[(start, min(start + 94, 1500)) for start in range(0, 1500, 94)]] * 3
    names = [*MOMENTS, *ENERGIES, *ROWWISE]
    little, more = (scores(both, names, budget) for budget in (150_000, 190_000))  # neither holds the rows
    for name, found in little.items():
        np.testing.assert_array_equal(found, more[name], err_msg=name)


@pytest.mark.parametrize("budget", [LARGE, SMALL])
def test_a_tolerance_finer_than_moments_resolve_is_honoured(tmp_path: Path, budget: int) -> None:
    rng = np.random.default_rng(2)
    fine = rng.normal(size=(200, 4)) * np.array([1, 1e-2, 1e-8, 1e-9])
    other = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + fine / np.array([1, 1e-2, 1e-8, 1e-9])
    both = views(tmp_path, {"x": fine}, {"y": other})
    names = [*WHITENED, "eigenspace_overlap"]
    for rank_tol in (1e-10, 1e-6, 0.1):
        for name, found in scores(both, names, budget, rank_tol=rank_tol).items():
            expected = similarity(name, fine, other, Options(rank_tol=rank_tol))
            assert found == pytest.approx(np.array([[expected]]), rel=1e-6), (name, rank_tol)


def test_rank_tol_reaches_the_measure(tmp_path: Path) -> None:
    a, b = made.related(2, 1, 40, (7,))
    both = views(tmp_path, a, b)
    strict, loose = (scores(both, ["cca"], rank_tol=tol)["cca"] for tol in (0.5, 1e-6))
    assert strict != pytest.approx(loose)
    assert loose == pytest.approx(similarity("cca", a["layer_0"], b["layer_0"]))


@pytest.mark.parametrize("budget", [LARGE, 40_000])
def test_moments_that_whiten_badly_give_way_to_factors(
    tmp_path: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance finer than moments resolve, and no refusal of it: XᵀX of rank 4 has more directions, of rounding."""
    monkeypatch.setattr(cca, "RESOLVED", 0.0)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 12))
    y = made.related(1, 1, 200, (6,))[0]["layer_0"]
    found = scores(views(tmp_path, {"x": x}, {"y": y}), ["cca", "pwcca", "linear_regression"], budget, rank_tol=3e-10)
    for name, values in found.items():
        assert values == pytest.approx(similarity(name, x, y, Options(rank_tol=3e-10)), rel=1e-6), name


# --- what is left empty -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [LARGE, SMALL])
def test_unequal_widths_are_left_empty_with_a_warning(tmp_path: Path, messages: list[str], budget: int) -> None:
    a, b = made.related(2, 2, 30, (7, 9))
    b["layer_1"] = b["layer_1"][:, :7]
    for name, found in scores(views(tmp_path, a, b), ["dot", "norm"], budget).items():
        assert np.isnan(found[:, 0]).all()
        np.testing.assert_allclose(found[:, 1], [similarity(name, x, b["layer_1"]) for x in a.values()])
    assert messages == [
        f"dot is undefined (the widths differ) for layer_0 of {tmp_path}/a.h5 and layer_0 of {tmp_path}/b.h5 and 1 more "
        "pairs of layers; left empty",
        "norm is undefined (a row is zero or the widths differ) for layer_0 of "
        f"{tmp_path}/a.h5 and layer_0 of {tmp_path}/b.h5 and 1 more pairs of layers; left empty",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STREAMED if "no variance" in MEASURES[name].undefined])
@pytest.mark.parametrize("budget", [LARGE, SMALL])
def test_a_constant_layer_is_left_empty_with_a_warning(
    tmp_path: Path, name: str, budget: int, messages: list[str]
) -> None:
    a, b = made.related(2, 2, 30, (7,))
    b["layer_1"][:] = 0.1
    found = scores(views(tmp_path, a, b), [name], budget)[name]
    if name == "linear_regression":  # nothing of X is explained by a constant
        assert found[:, 1] == pytest.approx(0)
        return
    assert np.isnan(found).tolist() == [[False, True], [False, True]]
    (message,) = messages
    assert message.startswith(f"{name} is undefined ({MEASURES[name].undefined}) for ")
    assert f"layer_1 of {tmp_path}/b.h5" in message


@pytest.mark.parametrize(("budget", "told"), [(LARGE, 2), (1, 1)])
def test_bad_values_of_all_layers_are_reported_together_where_rows_fit(tmp_path: Path, budget: int, told: int) -> None:
    a, b = made.related(2, 2, 30, (7,))
    a["layer_0"][3, 2], b["layer_1"][5, 1] = np.nan, np.inf
    with pytest.raises(ContraSimError) as refused:
        scores(views(tmp_path, a, b), ["cka"], budget)
    assert "a.h5: layer layer_0: row 3 (id r3) holds nan in column 2" in str(refused.value)
    assert str(refused.value).count(" holds ") == told


def test_a_layer_that_is_needed_whole_says_what_it_needs(tmp_path: Path) -> None:
    both = views(tmp_path, *made.related(2, 1, 3000, (7,)))
    with pytest.raises(InputError, match=r"a\.h5: layer layer_0 needs about .* at once for cknna, --memory allows"):
        scores(both, ["cknna"], 1000)


@pytest.mark.parametrize(("name", "options", "least"), [("mmd", {}, 0.12), ("rsa", {"rsm_compare": "tau-a"}, 0.4)])
def test_what_all_pairs_of_rows_take_is_counted(
    tmp_path: Path, name: str, options: dict[str, str], least: float
) -> None:
    """Within a tenth of a GiB, which is how it is told, of what their comparison was measured to take."""
    both = views(tmp_path, *made.related(2, 1, 3000, (7,)))
    with pytest.raises(InputError, match=rf"needs about .* at once for {name}, --memory allows") as refused:
        scores(both, [name], 1 << 20, **options)
    told = float(str(refused.value).split("needs about ")[1].split(" GiB")[0])
    assert least - 0.1 < told < least + 0.1


# --- memory -----------------------------------------------------------------------------------------------------------

PEAK = """
import re, sys, torch
from pathlib import Path
from contrasim_cli.grid import Grid, layer_grids
from contrasim_cli.grid.grid import Plan
from contrasim_cli.scoring import closed_form
from contrasim_cli.store import View, open_store
torch.set_num_threads(1)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def compare(*paths):
    views = [View(open_store(Path(path))) for path in paths]
    layers = [list(view.store.layers) for view in views]
    plan = Plan(views, [(0, 1)], layers, layers)
    layer_grids(Grid(plan, closed_form(sys.argv[1].split()), torch.device("cpu"), 4 << 20))

compare(*sys.argv[2:4])  # what code and libraries take at their first use is no matter of rows
before = peak()
compare(*sys.argv[4:6])
print(before, peak())
"""


def peak(folder: Path, n_rows: int) -> tuple[int, int]:
    """KiB of memory before and at the peak of a grid with 4 MiB to work in, of two stores, after one of two small ones."""
    rng = np.random.default_rng(0)
    for name, rows in {"few_a": 400, "few_b": 400, "a": n_rows, "b": n_rows}.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.attrs.update({"format": "contrasim-activations", "format_version": 1, "complete": True})
            for index in range(2):
                data = rng.normal(size=(rows, 64)).astype(np.float16)
                chunks = (min(rows, 1024), 64)
                file.create_dataset(f"layers/{index}", data=data, chunks=chunks).attrs["index"] = index
    # SciPy has a size of its own, and n² distances of 100,000 rows take their time
    names = [name for name in STREAMED if not MEASURES[name].extra and not MEASURES[name].quadratic]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, " ".join(names), *(str(folder / f"{name}.h5") for name in ("few_a", "few_b", "a", "b"))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    before, at_peak = map(int, done.stdout.split())
    return before, at_peak


@pytest.mark.slow
def test_memory_does_not_depend_on_the_number_of_rows(tmp_path: Path) -> None:
    """Four layers of 100,000 rows are 100 MB in float32, what they are read into."""
    (_, few), (before, many) = peak(tmp_path, 20_000), peak(tmp_path, 100_000)
    assert many - few < 40_000  # HDF5's own caches grow up to a bound
    assert many - before < 70_000


@pytest.mark.parametrize(
    ("names", "rows", "budget", "times"),
    [
        (EVERY, 200, LARGE, 1),
        (["cka"], 2000, 100_000, 1),
        (["procrustes", "gulp"], 2000, 100_000, 1),
        (["cca"], 2000, 100_000, 2),
        (["dot"], 2000, 1, 1),
    ],
)
def test_rows_are_read_no_more_often_than_needed(
    tmp_path: Path, names: list[str], rows: int, budget: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once where they or the moments fit, twice for whitening; besides them the first row, from which others are counted."""
    read: list[int] = []
    both = views(tmp_path, *made.related(2, 2, rows, (7,)))
    original = View.read

    def counted(view: View, layer: str, rows: Any = None) -> Any:
        found = original(view, layer, rows)
        read.append(len(found))
        return found

    monkeypatch.setattr(View, "read", counted)
    grids(both, closed_form(names), budget)
    assert sum(count for count in read if count > 1) == times * 4 * rows
