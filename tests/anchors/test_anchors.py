"""Anchored rows, against the definition in float64 from whole matrices; what they do not depend on, and what they do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import values

from contrasim_cli.anchors import FEATURES, Anchored, Anchoring, Anchors, draw, locate, width_of
from contrasim_cli.anchors.features import NEAR, NEAREST, OF_LAYERS, QUANTILES, RIDGES, SHARP, UNIT, Geometry
from contrasim_cli.encoder import Config
from contrasim_cli.errors import InputError, MismatchError, UsageError
from contrasim_cli.store import Ids, Layer, Store, View
from contrasim_cli.store.beside import side_by_side
from contrasim_cli.training.data import Data, anchored

Matrix = npt.NDArray[Any]


def rows_and_anchors(n: int, count: int, width: int, seed: int, offset: float = 0.0) -> tuple[Matrix, Matrix]:
    """Rows [n, width] and anchors [count, width] whose columns differ in scale."""
    drawn = values(n + count, width, seed).astype(np.float64) * np.linspace(0.2, 3, width) + offset
    return drawn[:n], drawn[n:]


def oracle(rows: Matrix, anchors: Matrix, feature: str) -> Matrix:
    """One feature of the rows, with [width, width] matrices and a loop over rows."""
    rows, anchors = rows.astype(np.float64), anchors.astype(np.float64)
    mean = anchors.mean(axis=0)
    c = anchors - mean
    unit = np.sqrt((c**2).sum(axis=1).mean())
    c, x = c / unit, (rows - mean) / unit
    distances = ((x[:, None] - c) ** 2).sum(axis=2)
    if feature == "neighbours":
        ranked = np.sort(distances, axis=1)[:, np.minimum(NEAREST, len(c)) - 1]
        return np.log(ranked / distances.mean(axis=1, keepdims=True) + NEAR)
    if feature == "norms":
        forms = [x, *(x @ root(c, ridge) for ridge in RIDGES)]
        return np.log([[form[r] @ form[r] for form in forms] for r in range(len(x))])
    if feature == "quantiles":
        return ranks(cosines(x, c))
    if feature == "whitened_quantiles":
        return np.concatenate([ranks(cosines(x @ root(c, ridge), c @ root(c, ridge))) for ridge in RIDGES], axis=1)
    white = UNIT * np.concatenate([cosines(x @ root(c, ridge), c @ root(c, ridge)) for ridge in SHARP], axis=1)
    return {"cosines": cosines(x, c), "whitened": white, "peaks": white**2}[feature]


def root(c: Matrix, ridge: float) -> Matrix:
    """[width, width] a root of the inverse of the covariance of centred rows, plus a ridge."""
    w, v = np.linalg.eigh(c.T @ c / len(c) + ridge * np.eye(c.shape[1]))
    return v / np.sqrt(w)


def cosines(x: Matrix, c: Matrix) -> Matrix:
    """Of each row to each anchor."""
    return np.array([[row @ one / np.linalg.norm(row) / np.linalg.norm(one) for one in c] for row in x])


def ranks(values: Matrix) -> Matrix:
    """Some of the values of each row, from the least to the largest."""
    return np.sort(values, axis=1)[:, np.linspace(0, values.shape[1] - 1, QUANTILES).astype(int)]


def projected(rows: Matrix, anchors: Matrix, components: int) -> tuple[Matrix, Matrix]:
    """Both in the anchors' first principal components, if these are fewer than there are."""
    if not 0 < components < min(anchors.shape):
        return rows, anchors
    mean = anchors.mean(axis=0)
    axes = np.linalg.svd(anchors - mean, full_matrices=False)[2][:components]
    return (rows - mean) @ axes.T, (anchors - mean) @ axes.T


PER_ROW = [name for name in FEATURES if name not in OF_LAYERS]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    feature=st.sampled_from(PER_ROW),
    n=st.integers(1, 20),
    count=st.integers(4, 90),
    width=st.integers(2, 12),
    offset=st.sampled_from([0.0, 5.0, 1e3]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    components=st.sampled_from([0, 3, 7]),
    seed=st.integers(0, 3),
)
def test_features_equal_the_definition(
    feature: str, n: int, count: int, width: int, offset: float, scale: float, components: int, seed: int
) -> None:
    rows, anchors = rows_and_anchors(n, count, width, seed, offset)
    found = Anchored(Geometry.of(anchors * scale, components), [feature])(rows * scale)
    assert found.dtype == np.float32
    wanted = oracle(*projected(rows * scale, anchors * scale, components), feature)
    # squares and logarithms make more of what float32 loses
    np.testing.assert_allclose(found, wanted, atol=5e-3, rtol=1e-3)


def test_components_leave_out_what_weaker_directions_say() -> None:
    rows, anchors = rows_and_anchors(20, 40, 9, 0)
    scales = np.array([9, 9, 9, 9, 9, 9, 0.1, 0.1, 0.1])
    rng = np.random.default_rng(0)
    x, a = rows * scales, anchors * scales
    other = [np.concatenate([matrix[:, :6], rng.normal(size=(len(matrix), 30)) / 3], axis=1) for matrix in (x, a)]
    for components, alike in ((6, True), (0, False)):
        mine, theirs = (Anchored(Geometry.of(anchors, components), FEATURES)(rows) for rows, anchors in ((x, a), other))
        assert (np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.99) == alike
    several = np.repeat(anchors[:5], 8, axis=0)  # of which four components vary
    found = Anchored(Geometry.of(several, 6), FEATURES)(rows)
    assert np.isfinite(found).all()


def test_every_feature_has_an_oracle_and_they_stand_side_by_side() -> None:
    rows, anchors = rows_and_anchors(9, 30, 6, 0)
    geometry = Geometry.of(anchors)
    together = Anchored(geometry, FEATURES)(rows)
    parts = [Anchored(geometry, [name])(rows) for name in FEATURES]
    np.testing.assert_array_equal(together, np.concatenate(parts, axis=1))
    assert together.shape[1] == width_of(FEATURES, 30)
    assert [oracle(rows, anchors, name).shape for name in PER_ROW] == [
        part.shape for name, part in zip(FEATURES, parts, strict=True) if name in PER_ROW
    ]


def test_the_spectrum_is_that_of_the_anchors_covariance_and_the_same_for_all_rows() -> None:
    rows, anchors = rows_and_anchors(5, 40, 6, 0, offset=2.0)
    found = Anchored(Geometry.of(anchors), ["spectrum"])(rows)
    assert (found == found[0]).all()
    centred = anchors - anchors.mean(axis=0)
    shares = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    shares /= shares.sum()
    np.testing.assert_allclose(np.exp(3 * found[0, :6]) - 1e-5, shares, atol=1e-5)
    np.testing.assert_allclose(found[0, 24:27], np.cumsum(shares)[:3], atol=1e-5)
    mean = np.square(anchors.mean(axis=0)).sum() / np.square(centred).sum(axis=1).mean()
    np.testing.assert_allclose(found[0, -1], np.log(mean) / 2, atol=1e-5)


def test_the_profile_is_of_each_anchor_among_the_others() -> None:
    rows, anchors = rows_and_anchors(5, 40, 6, 0, offset=2.0)
    found = Anchored(Geometry.of(anchors), ["profile"])(rows)
    assert (found == found[0]).all()
    c = anchors - anchors.mean(axis=0)
    c /= np.sqrt((c**2).sum(axis=1).mean())
    for ridge, part in zip(SHARP, np.split(found[0], len(SHARP)), strict=True):
        white = c @ root(c, ridge)
        np.testing.assert_allclose(part[:40], np.log(np.linalg.norm(white, axis=1)), atol=1e-4)
        among = cosines(white, white)
        moments = [np.mean(np.delete(row, i) ** 4) for i, row in enumerate(among)]
        np.testing.assert_allclose(part[40:], np.log(np.array(moments) + 1e-6) / 4 + 2, atol=1e-4)


# --- what anchored rows do not depend on --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    width=st.integers(2, 10),
    wider=st.integers(0, 6),
    scale=st.sampled_from([1e-3, 1.0, 40.0]),
    components=st.sampled_from([0, 4]),
    seed=st.integers(0, 5),
)
def test_orthogonal_maps_and_isotropic_scaling_change_nothing(
    width: int, wider: int, scale: float, components: int, seed: int
) -> None:
    rows, anchors = rows_and_anchors(20, 40, width, seed, offset=3.0)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width + wider, width)))[0].T  # into a wider space
    found = [
        Anchored(Geometry.of(a, components), FEATURES)(x)
        for x, a in ((rows, anchors), (scale * rows @ turn, scale * anchors @ turn))
    ]
    np.testing.assert_allclose(found[0], found[1], atol=2e-3, rtol=2e-3)


def test_a_common_translation_changes_the_spectrum_alone() -> None:
    rows, anchors = rows_and_anchors(20, 40, 6, 0)
    for name in FEATURES:
        found = [Anchored(Geometry.of(a), [name])(x) for x, a in ((rows, anchors), (rows + 7, anchors + 7))]
        assert np.allclose(found[0], found[1], atol=1e-3) == (name != "spectrum"), name


@pytest.mark.parametrize("feature", FEATURES)
def test_other_linear_maps_do_change_them(feature: str) -> None:
    """The negative control: what says the same of a stretched store would say the same of everything."""
    rows, anchors = rows_and_anchors(20, 40, 6, 0, offset=1.0)
    stretch = np.diag([1, 1, 1, 1, 1, 9.0])
    found = [Anchored(Geometry.of(a), [feature])(x) for x, a in ((rows, anchors), (rows @ stretch, anchors @ stretch))]
    assert np.abs(found[0] - found[1]).max() > 0.05


def test_how_a_row_is_described_does_not_depend_on_the_rows_beside_it() -> None:
    rows, anchors = rows_and_anchors(600, 40, 6, 0)
    described = Anchored(Geometry.of(anchors), FEATURES)
    whole = described(rows)
    np.testing.assert_array_equal(whole[256:], described(rows[256:]))
    # a product of one row rounds otherwise, which whitening and logarithms of small values make larger
    np.testing.assert_allclose(whole[100:101], described(rows[100:101]), atol=5e-3)


def test_nasty_anchors() -> None:
    rows, anchors = rows_and_anchors(9, 30, 6, 0)
    anchors[1] = anchors[0]
    anchors[2] = anchors.mean(axis=0)
    anchors[:, 3] = 7.0
    found = Anchored(Geometry.of(anchors), FEATURES)(np.concatenate([rows, anchors, anchors.mean(axis=0)[None]]))
    assert np.isfinite(found).all()
    for same in (np.full((5, 3), 1e4), np.zeros((5, 3))):
        with pytest.raises(InputError, match="all anchor rows are equal"):
            Geometry.of(same)


# --- where anchors lie --------------------------------------------------------------------------------------------------


def memory_store(matrix: Matrix, names: list[str] | None, source: str | None = None, name: str = "a") -> Store:
    """A store of one layer `x` that is in memory."""
    ids = Ids(len(names), lambda start, stop: names[start:stop], source is not None, source) if names else None
    return Store(Path(f"{name}.h5"), "memory", {"x": Layer("x", matrix)}, ids)


def test_anchors_are_drawn_by_the_seed_and_found_wherever_they_lie() -> None:
    matrix, names = values(50, 4), [f"r{k}" for k in range(50)]
    view = View(memory_store(matrix, names), np.arange(10, 50))
    anchoring, chosen = draw([view], 8, 0, FEATURES)
    assert anchoring.ids == tuple(names[10 + k] for k in chosen)
    assert draw([view], 8, 0, FEATURES)[0] == anchoring != draw([view], 8, 1, FEATURES)[0]
    order = np.random.default_rng(0).permutation(50)
    other = memory_store(matrix[order], [names[k] for k in order], name="b")
    np.testing.assert_array_equal(
        matrix[order][locate(other, anchoring)], matrix[[names.index(i) for i in anchoring.ids]]
    )


@pytest.mark.parametrize(
    ("names", "source", "message"),
    [
        (["x", "r1", "y"], None, "b.h5: 2 of the encoder's 3 anchor rows are missing: r0, r2; extract"),
        (None, None, "b.h5: has no ids, which identify the encoder's 3 anchor rows; extract"),
        (["r0", "r1", "r2"], "digest", "b.h5: its ids are positions in a file, not names, which do not identify"),
    ],
)
def test_anchors_that_are_not_there_are_told(names: list[str] | None, source: str | None, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        locate(memory_store(values(3), names, source, "b"), Anchoring(("r0", "r1", "r2")))


def test_positions_are_known_in_the_same_file_alone() -> None:
    anchoring = Anchoring(("0", "2"), ("one", "two"))
    for source in ("one", "two"):
        np.testing.assert_array_equal(locate(memory_store(values(3), ["0", "1", "2"], source), anchoring), [0, 2])
    with pytest.raises(MismatchError, match="its ids are positions in another file"):
        locate(memory_store(values(3), ["0", "1", "2"], "three"), anchoring)


def test_too_many_anchors_and_stores_without_ids_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"--anchors 9: a\.h5 has 10 rows, of which at least 2 are trained on and no anchors"
    ):
        draw([View(memory_store(values(10), [str(k) for k in range(10)]))], 9, 0, FEATURES)
    with pytest.raises(MismatchError, match=r"a\.h5: has no ids, which identify anchor rows in other stores"):
        draw([View(memory_store(values(10), None))], 4, 0, FEATURES)


def test_an_anchor_is_no_row_whose_id_others_have() -> None:
    """Which are allowed where rows are matched by position: other stores would take the first of them for it."""
    ids = [str(k % 10) for k in range(20)]
    with pytest.raises(MismatchError, match="of an anchor row belongs to other rows too"):
        draw([View(memory_store(values(20), ids))], 16, 0, FEATURES)
    alike = memory_store(values(20), [*map(str, range(18)), "x", "x"])
    anchoring, chosen = draw([View(alike)], 4, 0, FEATURES)
    np.testing.assert_array_equal(locate(alike, anchoring), chosen)


def test_an_id_that_is_asked_for_twice_is_found_twice() -> None:
    store = memory_store(values(4), ["a", "b", "a", "c"])
    np.testing.assert_array_equal(locate(store, Anchoring(("c", "a", "c"))), [3, 0, 3])


def test_a_view_reads_what_the_whole_matrix_gives(tmp_path: Path) -> None:
    matrix = values(700, 5).astype(np.float16)
    view = made.view(tmp_path / "a.h5", {"x": matrix})
    anchoring, chosen = draw([view], 20, 0, FEATURES)
    (found,) = Anchors([view]).anchored_views(anchoring, [["x"]], 1 << 30)
    whole = Anchored(Geometry.of(matrix[chosen].astype(np.float32)), FEATURES)(matrix.astype(np.float32))
    assert found.store.layer("x").width == whole.shape[1] == width_of(FEATURES, 20)
    np.testing.assert_allclose(found.read("x"), whole, atol=1e-5)
    some = np.array([600, 3, 3, 257])
    np.testing.assert_allclose(found.read("x", some), whole[some], atol=1e-5)
    with pytest.raises(InputError, match=r"--memory allows 0\.00"):
        Anchors([view]).anchored_views(anchoring, [["x"]], 100)


def test_bad_values_are_told_where_they_are_stored(tmp_path: Path) -> None:
    matrix = values(60, 5)
    view = made.view(tmp_path / "a.h5", {"x": matrix})
    anchoring, chosen = draw([view], 8, 0, FEATURES)
    row = next(k for k in range(60) if k not in chosen)
    matrix[row, 2] = np.nan
    broken = made.view(tmp_path / "b.h5", {"x": matrix})
    (found,) = Anchors([broken]).anchored_views(anchoring, [["x"]], 1 << 30)
    with pytest.raises(InputError, match=rf"b\.h5: layer x: row {row} \(id r{row}\) holds nan in column 2"):
        found.read("x")


# --- blends -----------------------------------------------------------------------------------------------------------


def two_models(folder: Path, scales: tuple[float, float]) -> tuple[list[View], list[Matrix]]:
    """Views of two models of the same 30 examples, 6 and 9 wide, whose layers have other names; and their rows."""
    base = values(30, 5, 1).astype(np.float64)
    rows = [
        s * (base @ values(5, width, width) + 3 + 0.3 * values(30, width, 9))
        for s, width in zip(scales, (6, 9), strict=True)
    ]
    names = [{"one": rows[0], "two": np.tanh(rows[0])}, {"first": rows[1], "second": np.tanh(rows[1])}]
    return [made.view(folder / f"{k}.h5", layers) for k, layers in enumerate(names)], rows


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e6, 1e-6), (1e-160, 1e160)])
@pytest.mark.parametrize("feature", ["cosines", "whitened", "norms", "neighbours"])
def test_a_blend_has_the_mixed_kernel(feature: str, scales: tuple[float, float], tmp_path: Path) -> None:
    views, rows = two_models(tmp_path, scales)
    drawn, places = draw(views, 12, 0, (feature,))
    share = 0.3
    found = Anchors(views).blended((0, "one"), (1, "first"), share, drawn)
    blend = side_by_side(views, {"one": ("one", "first"), "two": ("two", "second")})
    kernel = np.zeros((30, 30))
    for one, part in zip(rows, (share, 1 - share), strict=True):
        unit = one / np.abs(one).max()
        centred = unit - unit[places].mean(axis=0)
        inner = centred @ centred.T
        kernel += part * inner / np.trace(inner[np.ix_(places, places)])
    w, v = np.linalg.eigh(kernel)
    as_rows = v[:, -15:] * np.sqrt(w[-15:].clip(0))  # rows that have this kernel
    np.testing.assert_allclose(
        found(blend.read("one")), oracle(as_rows, as_rows[places], feature), rtol=2e-3, atol=2e-4
    )


def test_layers_lie_beside_layers_of_their_depth(tmp_path: Path) -> None:
    views, rows = two_models(tmp_path, (1.0, 1.0))
    blend = side_by_side(views, {"one": ("one", "first"), "two": ("two", "second")})
    some = np.array([2, 3, 7])
    assert (blend.n_rows, blend.store.layer("two").width) == (30, 15)
    np.testing.assert_allclose(blend.read("two", some), np.tanh(np.concatenate(rows, axis=1))[some])


def test_copies_are_blends_of_two_models_drawn_by_the_seed(tmp_path: Path) -> None:
    views, _ = two_models(tmp_path, (1.0, 1.0))
    data = Data(views, [["one", "two"], ["first", "second"]])
    drawn, _ = draw(views, 12, 0, FEATURES)
    config = Config(
        "layers", "supcon", (1,), inputs="anchors", anchors=drawn.ids, anchor_sources=drawn.sources, features=FEATURES
    )

    def described(copies: int, seed: int) -> list[Matrix]:
        made_of = anchored(data, replace(config, copies=copies, seed=seed))
        assert (len(made_of.views), made_of.n_stores) == (2 * (1 + copies), 2)
        items = [(v, names[0]) for v, names in enumerate(made_of.layers)]
        return [np.asarray(made_of.transforms[item](made_of.views[item[0]].read(item[1]))) for item in items]

    none, one, two, again, other = described(0, 0), described(1, 0), described(2, 0), described(2, 0), described(2, 1)
    for k, rows in enumerate(none):
        np.testing.assert_array_equal(one[k], rows)
    for k, rows in enumerate(one):
        np.testing.assert_array_equal(two[k], rows)
    np.testing.assert_array_equal(two, again)
    distinct = [*two, *other[2:]]
    assert all(np.abs(a - b).max() > 0.05 for i, a in enumerate(distinct) for b in distinct[:i])
