"""Figures: whole files of the kind asked for, with every name on them."""

import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import run
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from contrasim_cli import plots
from contrasim_cli.errors import OutputExistsError, UsageError
from contrasim_cli.names import distinct
from contrasim_cli.plots import accuracy, grids, page
from contrasim_cli.report.heat_maps import HeatMap, limits, of_rows
from contrasim_cli.report.look import Look
from contrasim_cli.report.results import BenchRow, InspectRow, Results, ScoreRow
from contrasim_cli.report.titles import titled

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra plot")


def grid(measures: tuple[str, ...] = ("cka", "dot"), size: int = 6, score: Any = None) -> Results:
    value = score or (lambda i, j: 1 / (1 + abs(i - j)))
    rows = [
        ScoreRow(m, "seed_0", f"block_{i}", "seed_1", f"hidden_{j}", value(i, j))
        for m in measures
        for i in range(size)
        for j in range(size)
    ]
    return Results("baseline", ScoreRow, rows)


MEASURES = ("cka", "dot", "norm", "pwcca", "enc.pt")
LAYERS = tuple(f"hidden_{k}" for k in range(1, 7))


def bench(
    kinds: tuple[str, ...] = ("random", "faiss"),
    missing: bool = False,
    measures: tuple[str, ...] = MEASURES,
    layers: tuple[str, ...] = LAYERS,
    pairs: tuple[str, ...] = (),
) -> Results:
    """Accuracies that rise with the layer and with the measure; those of pairs are lower by 0.1 each."""
    rows = []
    for kind in kinds:
        for m, measure in enumerate(measures):
            for pair, layer in [*(("all", layer) for layer in (*layers, "all")), *((pair, "all") for pair in pairs)]:
                k = layers.index(layer) if layer in layers else len(layers) - 1
                rise = 0.2 + 0.1 * m + 0.02 * k - (0.1 * pairs.index(pair) if pair in pairs else 0.0)
                value = None if missing and measure == "pwcca" else min(1.0, rise)
                whole = () if value is None else (0.05, value - 0.03, value + 0.03)
                spread = whole or (None, None, None)
                rows.append(
                    BenchRow("multilingual", measure, kind, pair, layer, value, *spread, 1 / 11, 100, None, None)
                )
    return Results("bench", BenchRow, rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
@pytest.mark.parametrize("results", [grid(), bench()], ids=["grid", "bench"])
def test_the_suffix_decides_the_kind(tmp_path: Path, results: Results, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"out{suffix}"
    plots.draw(results, path, force=False)
    assert path.read_bytes().startswith(magic)
    with pytest.raises(OutputExistsError):
        plots.draw(results, path, force=False)
    plots.draw(results, path, force=True)


@pytest.mark.parametrize("results", [grid(), bench()], ids=["grid", "bench"])
def test_one_figure_is_written_in_several_formats(tmp_path: Path, results: Results) -> None:
    together, alone = ([tmp_path / f"{name}{suffix}" for suffix in (".png", ".pdf", ".svg")] for name in "ab")
    plots.draw(results, together, force=False)
    for path, same in zip(alone, together, strict=True):
        plots.draw(results, path, force=False)
        assert same.read_bytes() == path.read_bytes()


def svg(tmp_path: Path, results: Results) -> str:
    plots.draw(results, tmp_path / "out.svg", force=True)
    return (tmp_path / "out.svg").read_text()


def test_every_name_is_on_a_heat_map(tmp_path: Path) -> None:
    drawn = svg(tmp_path, grid())
    for name in ["CKA", "dot", "seed_0", "seed_1", *(f"{kind}_{k}" for kind in ("block", "hidden") for k in range(6))]:
        assert f">{name}<" in drawn
    assert drawn.count(">0.17<") == 2 * 2  # 1/6, in the two far corners of both panels
    assert ">framed: the most similar layer of each row<" in drawn


def test_many_names_are_thinned_out(tmp_path: Path) -> None:
    drawn = svg(tmp_path, grid(size=48))
    shown = [k for k in range(48) if f">hidden_{k}<" in drawn]
    assert shown == [*range(0, 48, 3)]
    assert ">0.02<" not in drawn  # 1/48: no values in cells so small


def test_the_direction_is_said_where_lower_is_more_similar(tmp_path: Path) -> None:
    assert svg(tmp_path, grid(("cka", "procrustes", "enc.pt"))).count("lower is more similar<") == 1


def test_bright_is_similar_and_panels_of_a_measure_share_their_scale() -> None:
    rows = [
        ScoreRow(measure, "a", f"x{i}", store, "y", value)
        for measure in ("cka", "procrustes")
        for store, values in (("b", (0.0, 0.5)), ("c", (0.5, 1.0)))
        for i, value in enumerate(values)
    ]
    figure = grids.heat_maps(of_rows(rows))
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in figure.axes if ax.images] == ["CKA", "Procrustes", "CKA", "Procrustes"]
    assert [image.get_clim() for image in images] == [(0.0, 1.0)] * 4
    bright = [sum(image.cmap(image.norm(1.0))[:3]) > sum(image.cmap(image.norm(0.0))[:3]) for image in images]
    assert bright == [True, False, True, False]


def heat_map(values: Any, higher: bool = True) -> HeatMap:
    values = np.array(values, dtype=float)
    names = [[f"{side}{k}" for k in range(size)] for side, size in zip("xy", values.shape, strict=True)]
    return HeatMap("m", ("a", "b"), *names, values, higher)


def test_the_most_similar_layer_of_each_row_is_marked() -> None:
    values = [[1, 2, 3], [3, 1, np.nan], [2, 2, 1], [np.nan, np.nan, 7], [np.nan] * 3]
    best = [(0, 2), (1, 0), (2, 0), (2, 1)]  # a tie is marked twice, the only one of a row is no choice
    assert list(map(tuple, np.argwhere(heat_map(values).best()))) == best
    assert list(map(tuple, np.argwhere(heat_map(values, higher=False).best()))) == [(0, 0), (1, 1), (2, 2)]
    figure = grids.heat_maps([heat_map(values)])
    frames = {(round(p.get_y() + 0.5), round(p.get_x() + 0.5)) for p in figure.axes[0].patches}
    assert frames == set(best)


def test_bars_are_drawn_per_pair_with_their_intervals() -> None:
    results = bench(pairs=("en-ar", "ar-en"), measures=("cka", "enc.pt"), missing=True)
    figure = accuracy.by_pair(results.rows)
    assert [ax.get_title() for ax in figure.axes] == ["en-ar", "ar-en"]
    for k, ax in enumerate(figure.axes):
        heights = [patch.get_height() for patch in ax.patches]
        assert heights == pytest.approx([100 * (0.3 + 0.1 * m - 0.1 * k) for _ in range(2) for m in range(2)])
        hatches = [patch.get_hatch() for patch in ax.patches]
        assert hatches[0] == hatches[1] != hatches[2] == hatches[3]
        colours = [patch.get_facecolor() for patch in ax.patches]
        assert colours[0] == colours[2] != colours[1] == colours[3]
    (legend,) = figure.legends
    names = ["random negatives", "faiss negatives", "chance", "95 % interval"]
    assert [text.get_text() for text in legend.get_texts()] == names


def test_bands_are_intervals_where_there_are_any() -> None:
    results = bench(("",), measures=("cka",))
    (ax,) = accuracy.by_layer(results.rows).axes
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    wanted = [100 * (0.2 + 0.02 * k + side) for k in range(6) for side in (-0.03, 0.03)]
    assert sorted(set(np.round(heights, 6))) == pytest.approx(sorted(set(np.round(wanted, 6))))
    rows = [replace(row, ci_low=None, ci_high=None) for row in results.rows]
    figure = accuracy.by_layer(rows)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cka", "chance", "one std"]
    assert figure.axes[0].collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(15)


def test_data_sets_models_and_trainings_are_told_apart() -> None:
    rows = [
        replace(row, test_data=test, train_data=train, models=models)
        for row in bench(("",), measures=("contrasim",), layers=("a", "b"), pairs=("x-y", "y-x")).rows
        for test in ("digits", "words")
        for train in ("digits", "words")
        for models in ("seen", "unseen")
    ]
    figure = accuracy.by_layer(rows)
    titles = [f"multilingual: {test}, {models}" for test in ("digits", "words") for models in ("seen", "unseen")]
    assert [ax.get_title() for ax in figure.axes] == titles
    names = ["contrasim, trained on digits", "contrasim, trained on words"]
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == names
    bars = accuracy.by_pair(rows)
    assert len(bars.axes) == 8
    assert all(len([p for p in ax.patches if np.isfinite(p.get_height())]) == 2 for ax in bars.axes)


def test_one_layer_is_drawn_as_bars(tmp_path: Path) -> None:
    drawn = svg(tmp_path, bench(layers=("hidden_9",)))
    assert ">random negatives<" in drawn
    assert ">hidden_9<" not in drawn


def figures() -> dict[str, Any]:
    """Every kind of figure, crowded."""
    many = bench(measures=tuple(f"measure_{k}" for k in range(8)), layers=tuple(map(str, range(24))), pairs=("a", "b"))
    losses = [1.0, 0.5]
    return {
        "grid": lambda: grids.heat_maps(of_rows(grid().rows)),
        "small cells": lambda: grids.heat_maps(of_rows(grid(size=24).rows)),
        "accuracy": lambda: accuracy.by_layer(many.rows),
        "pairs": lambda: accuracy.by_pair(many.rows),
        "training": lambda: accuracy.curves({"loss": losses, "validation_accuracy": losses}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", figures())
def test_letters_can_be_read_in_print(tmp_path: Path, name: str) -> None:
    made: list[Any] = []
    page.write(lambda: made.append(figures()[name]()) or made[0], tmp_path / "out.png", force=False)
    assert made[0].get_figwidth() <= page.PAGE + 0.1
    letters = [text for text in made[0].findobj(Text) if text.get_text()]
    assert len(letters) > 8
    assert min(text.get_fontsize() for text in letters) >= 7


def test_lines_and_bars_differ_in_more_than_colour() -> None:
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    styles = [page.style(k) for k in range(10)]
    assert len({(s["marker"], str(s["linestyle"])) for s in styles}) == 10
    assert len({s["marker"] for s in styles}) == 10
    bars = [page.bar_style(k, k) for k in range(6)]
    assert len({s["hatch"] for s in bars}) == 6
    for one, other in itertools.pairwise(bars):
        assert abs(grey(one["facecolor"]) - grey(other["facecolor"])) > 25


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_results_are_the_same_bytes(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for name, time in (("a", "0"), ("b", "86400")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", time)
        plots.draw(bench(), tmp_path / f"{name}{suffix}", force=False)
        drawn.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert drawn[0] == drawn[1]


def test_a_readers_own_settings_change_nothing(tmp_path: Path) -> None:
    import matplotlib as mpl

    plain = svg(tmp_path, bench())
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert svg(tmp_path, bench()) == plain


def test_long_names_keep_what_tells_them_apart() -> None:
    names = [f"transformer.encoder.blocks.{k}.attention.output.dense" for k in (1, 10, 11)]
    assert distinct(names, 22) == ["…blocks.1…", "…blocks.10…", "…blocks.11…"]
    assert distinct(["hidden_1", "hidden_2"], 22) == ["hidden_1", "hidden_2"]
    assert distinct(["x" * 40], 9) == ["xxxx…xxxx"]


@given(st.lists(st.text("ab.", min_size=0, max_size=40), min_size=1, max_size=5), st.integers(6, 20))
def test_shortened_names_are_short_and_whole_where_they_fit(names: list[str], letters: int) -> None:
    found = distinct(names, letters)
    assert all(len(name) <= letters for name in found)
    if max(map(len, names)) <= letters:
        assert found == names


def test_letters_without_a_glyph_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = ScoreRow("cka", "\U00012000", "x", "b", "y", 0.5)
    plots.draw(Results("baseline", ScoreRow, [row]), tmp_path / "out.png", force=False)
    assert "some letters of the names are in no font of matplotlib's; .svg keeps them" in caplog.text


def test_every_name_is_on_a_benchmark(tmp_path: Path) -> None:
    drawn = svg(tmp_path, bench())
    names = ["cka", "dot", "norm", "pwcca", "enc.pt", "accuracy in %", *(f"hidden_{k}" for k in range(1, 7))]
    for name in [*names, "multilingual: random negatives", "multilingual: faiss negatives"]:
        assert f">{name}<" in drawn
    assert "chance" in drawn
    assert ">all<" not in drawn


def test_names_are_no_mathematics(tmp_path: Path) -> None:
    """Matplotlib sets what stands between two dollars in italics, or fails on it."""
    row = ScoreRow("cka", "a$x_$", "$l^$", "b", "$\\bad$", 0.5)
    drawn = svg(tmp_path, Results("baseline", ScoreRow, [row]))
    for name in ("a$x_$", "$l^$", "$\\bad$"):
        assert f">{name}<" in drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    "results",
    [
        grid(score=lambda i, j: None),
        grid(score=lambda i, j: None if i == 2 else 0.5),
        grid(size=1),
        grid(size=40),
        bench(missing=True),
        bench(("",)),
        bench(layers=("x",), missing=True),
        bench(layers=("x",), measures=("pwcca",), missing=True),
        bench(layers=tuple("abcdefghijklmnopqrstuvwxyz0123456789"), measures=("cka",)),
        Results("baseline", ScoreRow, [*grid().rows, ScoreRow("cka", "seed_0", "block_0", "seed_2", "x", 1.0)]),
    ],
    ids=[
        "empty",
        "gaps",
        "one cell",
        "large",
        "gaps in a benchmark",
        "no negatives",
        "one layer",
        "nothing",
        "many layers",
        "panels of different sizes",
    ],
)
def test_odd_results_are_drawn(tmp_path: Path, results: Results) -> None:
    assert svg(tmp_path, results).startswith("<?xml")


def test_there_is_nothing_to_draw_of_other_results(tmp_path: Path) -> None:
    rows = [InspectRow("a.h5", "l", 5, 3, "float16", 0, None, 1, 0.5, None, 2.0)]
    with pytest.raises(UsageError, match="there is nothing to draw"):
        plots.draw(Results("inspect", InspectRow, rows), tmp_path / "out.png", force=False)


def test_a_plot_is_drawn_beside_the_results(tmp_path: Path) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 2, 20, (5,)))]
    done = run("baseline", *stores, "--plot", tmp_path / "out.svg", "--null", "0")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == run("baseline", *stores, "--null", "0").stdout
    assert ">layer_1<" in (tmp_path / "out.svg").read_text()
    again = run("baseline", *stores, "--plot", tmp_path / "new.png", "--plot", tmp_path / "out.svg")
    assert not (tmp_path / "new.png").exists()
    assert (again.code, again.stdout) == (5, "")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 2, 20, (5,)))]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("baseline", *stores, "--plot", tmp_path / "out.png")
    assert (done.code, done.stdout) == (6, "")
    assert done.stderr == "contrasim: error: --plot needs the extra plot: pip install 'contrasim[plot]'\n"
    assert not (tmp_path / "out.png").exists()


# --- how figures look -------------------------------------------------------------------------------------------------


def images(figure: Any) -> list[Any]:
    return [ax.images[0] for ax in figure.axes if ax.images]


def test_measures_of_one_given_scale_share_its_bar() -> None:
    maps = [replace(heat_map([[0.2, 0.4]]), measure=name) for name in ("cka", "svcca")]
    for scale, labels in (((0.0, 1.0), ["score"]), ("shared", ["CKA", "SVCCA"])):
        figure = grids.heat_maps(maps, Look(scale=scale))  # type: ignore[arg-type]
        assert [ax.get_ylabel() for ax in figure.axes if ax.get_label() == "scale"] == labels


def test_scales_are_shared_own_or_between_two_values() -> None:
    maps = [replace(heat_map([[low, high]]), measure="cka") for low, high in ((0.2, 0.4), (0.6, 0.8))]
    for scale, wanted in (
        ("shared", [(0.0, 0.8)] * 2),
        ("own", [(0.2, 0.4), (0.6, 0.8)]),
        ((-1.0, 1.0), [(-1.0, 1.0)] * 2),
    ):
        figure = grids.heat_maps(maps, Look(scale=scale))  # type: ignore[arg-type]
        assert [image.get_clim() for image in images(figure)] == wanted


@pytest.mark.parametrize(
    ("measure", "values", "wanted"),
    [
        ("cka", [0.2, 0.4], (0.0, 0.4)),
        ("procrustes", [0.2, 0.4], (0.0, 0.4)),
        ("cka_debiased", [0.2, 0.4], (0.0, 0.4)),
        ("cka_debiased", [-0.1, 0.4], (-0.1, 0.4)),
        ("dot", [2.0, 4.0], (2.0, 4.0)),  # no natural zero
        ("enc.pt", [0.2, 0.4], (0.2, 0.4)),
        ("cka", [0.0, 0.0], (0.0, 0.0)),
    ],
)
def test_a_scale_begins_at_the_natural_zero(measure: str, values: list[float], wanted: tuple[float, float]) -> None:
    assert limits([replace(heat_map([values]), measure=measure)]) == wanted


def test_the_score_of_shuffled_rows_is_marked_on_the_scale() -> None:
    rows = [replace(row, null=0.25 + 0.1 * k) for k, row in enumerate(grid(("cka",), 2).rows[:3])]
    figure = grids.heat_maps(of_rows(rows))
    (bar,) = [ax for ax in figure.axes if not ax.images]
    (mark,) = [line for line in bar.lines if line.get_marker() == ">"]
    assert mark.get_ydata() == [pytest.approx(0.35)]
    assert "shuffled rows" in figure.get_supxlabel().replace("\n", " ")
    plain = grids.heat_maps(of_rows(grid(("cka",), 2).rows))
    assert "shuffled rows" not in plain.get_supxlabel().replace("\n", " ")


def test_under_one_scale_for_several_measures_a_note_says_what_shuffled_rows_score() -> None:
    rows = [replace(row, null=0.25 if row.measure == "cka" else -1.5) for row in grid(("cka", "dot"), 3).rows]
    note = grids.heat_maps(of_rows(rows), Look(scale=(0.0, 1.0))).get_supxlabel().replace("\n", " ")
    assert note.endswith("score of shuffled rows (median): CKA 0.25, dot -1.5")
    for look in (Look(), Look(scale="own")):
        note = grids.heat_maps(of_rows(rows), look).get_supxlabel().replace("\n", " ")
        assert note.endswith("▸ on a scale: the score of shuffled rows (median)")


@pytest.mark.parametrize(
    ("scale", "ends"), [((0.0, 1.0), "neither"), ((0.3, 1.0), "min"), ((0.0, 0.4), "max"), ((0.3, 0.4), "both")]
)
def test_the_bar_shows_at_which_ends_scores_lie_outside_the_scale(scale: tuple[float, float], ends: str) -> None:
    figure = grids.heat_maps(of_rows(grid(("cka",), 4).rows), Look(scale=scale))
    assert images(figure)[0].colorbar.extend == ends


def test_colours_are_turned_where_lower_is_more_similar() -> None:
    figure = grids.heat_maps([heat_map([[1, 2]]), heat_map([[1, 2]], higher=False)], Look(cmap="magma"))
    first, second = [image.cmap for image in images(figure)]
    assert first(0.1) == second(0.9)
    assert first.name == "magma"


@pytest.mark.parametrize("layers", [24, 60])
def test_four_measures_of_many_layers_have_the_shape_of_a_page(layers: int) -> None:
    results = grid(("cka", "dot", "norm", "pwcca"), layers)
    figure = grids.heat_maps(of_rows(results.rows))
    width, height = figure.get_size_inches()
    assert width <= page.PAGE + 0.1
    assert 0.5 < height / width < 1.5


def test_a_store_against_itself_stands_beside_its_pair() -> None:
    rows = grid(("cka", "dot"), 3).rows
    within = [replace(row, store_b="seed_0") for row in rows]
    figure = grids.heat_maps(of_rows([*rows, *within]))
    titles = [ax.get_title() for ax in figure.axes if ax.images]
    assert titles == ["CKA", "CKA, within", "dot", "dot, within"]


def within(size: int, measures: tuple[str, ...] = ("cka",)) -> list[ScoreRow]:
    """A pair of stores, and each of the two against itself."""
    rows = grid(measures, size).rows
    sides = [(("store_b", "seed_0"), ("layer_b", "block")), (("store_a", "seed_1"), ("layer_a", "hidden"))]
    own = [
        replace(
            row,
            **{store[0]: store[1], layer[0]: f"{layer[1]}_{k % size if layer[0] == 'layer_b' else k // size % size}"},
        )
        for store, layer in sides
        for k, row in enumerate(rows)
    ]
    return [*rows, *own]


def places(figure: Any) -> tuple[list[Any], list[Any]]:
    """Where maps and bars stand, in inches."""
    size = figure.get_size_inches()
    boxes = {ax: ax.get_position().transformed(Affine2D().scale(*size)) for ax in figure.axes}
    return [box for ax, box in boxes.items() if ax.images], [box for ax, box in boxes.items() if not ax.images]


def test_a_map_stands_in_the_middle_of_a_figure_of_given_size() -> None:
    figure = grids.heat_maps(of_rows(grid(("cka",), 6).rows), Look(size=(6.0, 3.0)))
    (place,), (bar,) = places(figure)
    outer = figure.axes[0].get_tightbbox(figure.canvas.get_renderer())
    left, right = (
        outer.x0 / figure.dpi,
        6.0 - figure.axes[1].get_tightbbox(figure.canvas.get_renderer()).x1 / figure.dpi,
    )
    assert left == pytest.approx(right, abs=0.15)
    assert (bar.y0, bar.y1) == pytest.approx((place.y0, place.y1))
    assert place.width == pytest.approx(place.height)
    assert place.height > 1.4


def test_self_similarity_of_given_size_stands_in_one_line_with_one_bar() -> None:
    figure = grids.heat_maps(of_rows(within(6)), Look(size=(6.0, 3.0)))
    maps, bars = places(figure)
    assert (len(maps), len(bars)) == (3, 1)
    assert len({round(place.y0, 6) for place in maps}) == 1
    assert maps[2].x1 < bars[0].x0 < maps[2].x1 + 0.3
    several = grids.heat_maps(of_rows(within(6, ("cka", "dot"))))
    assert len(places(several)[1]) == 2
    own = grids.heat_maps(
        of_rows([replace(r, score=r.score * (1 + (r.store_b == "seed_0"))) for r in within(3)]), Look(scale="own")
    )
    assert len(places(own)[1]) > 1


def test_cells_have_one_size_and_panels_do_not_overlap() -> None:
    rows = [row for row in within(12) if row.store_a == row.store_b or int(row.layer_a.split("_")[1]) % 2]
    figure = grids.heat_maps(of_rows(rows))
    maps, _ = places(figure)
    sides = [ax.images[0].get_array().shape for ax in figure.axes if ax.images]
    cells = {round(place.height / rows, 6) for place, (rows, _) in zip(maps, sides, strict=True)}
    cells |= {round(place.width / columns, 6) for place, (_, columns) in zip(maps, sides, strict=True)}
    assert len(cells) == 1
    drawn = [ax.get_tightbbox(figure.canvas.get_renderer()) for ax in figure.axes if ax.images]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(drawn, 2))


def test_values_are_written_where_they_fit() -> None:
    maps = of_rows(grid(("cka",), 6).rows)
    assert len(grids.heat_maps(maps, Look(size=(5.0, 5.0))).axes[0].texts) == 36
    assert not grids.heat_maps(maps, Look(size=(2.0, 2.0))).axes[0].texts
    wide = [replace(maps[0], values=maps[0].values + 1e7)]
    assert not grids.heat_maps(wide, Look(size=(3.0, 3.0))).axes[0].texts


def test_a_size_without_room_for_cells_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plots.draw(grid(), tmp_path / "out.png", force=False, look=Look(size=(0.5, 0.5)))
    assert "labels do not fit into the size asked for; give a larger --size" in caplog.text


@pytest.mark.parametrize("measures", [("cka",), ("cka", "permutation_procrustes")])
@pytest.mark.parametrize("pairs", [lambda measures: grid(measures, 12).rows, lambda measures: within(8, measures)])
@pytest.mark.parametrize("labels", ["name", "index"])
def test_a_width_alone_has_a_height_that_suits_and_cuts_nothing_off(measures: Any, pairs: Any, labels: Any) -> None:
    maps = of_rows(pairs(measures))
    narrow = [*maps, replace(maps[0], across=maps[0].across[:1], values=maps[0].values[:, :1])]
    for drawn in (maps, narrow):
        figure = grids.heat_maps(drawn, Look(size=(3.3, None), labels=labels))
        width, height = figure.get_size_inches()
        assert width == 3.3
        places_of_maps, _ = places(figure)
        assert len(places_of_maps) == len(drawn)
        assert max(place.y1 for place in places_of_maps) > height - 0.6  # no empty space above, below a title
        renderer = figure.canvas.get_renderer()
        for box in (ax.get_tightbbox(renderer) for ax in figure.axes):
            assert -0.01 < box.x0 / figure.dpi < box.x1 / figure.dpi < 3.31
            assert -0.01 < box.y0 / figure.dpi < box.y1 / figure.dpi < height + 0.01


def test_long_names_stay_within_their_panel() -> None:
    maps = of_rows(grid(("permutation_procrustes",), 2).rows)
    long = [replace(maps[0], stores=("a network of a very long name, 1024", "another network of a very long name"))]
    for size in ((1.7, None), (1.7, 2.0)):
        figure = grids.heat_maps(long, Look(size=size, labels="index", legend=False))
        renderer = figure.canvas.get_renderer()
        ax = figure.axes[0]
        assert "…" in ax.get_xlabel()
        box = ax.get_tightbbox(renderer)
        assert -0.02 < box.x0 / figure.dpi < box.x1 / figure.dpi < 1.72  # letters stand on whole dots


@pytest.mark.parametrize("size", [(3.4, 3.0), (7.0, 3.0)])
@pytest.mark.parametrize(
    "measures", [("cka",), ("cka", "permutation_procrustes"), ("cka", "dot", "svcca", "universal")]
)
def test_notes_and_names_have_room_in_small_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: tuple[float, float], measures: tuple[str, ...]
) -> None:
    rows = [
        replace(
            row,
            store_a="bert_base_uncased_seed_0",
            store_b="roberta_large_pretrained_seed_1",
            layer_a=f"encoder.layer.{row.layer_a[-1]}.output",
            layer_b=f"encoder.layer.{row.layer_b[-1]}.output",
            null=0.1,
        )
        for row in grid(measures).rows
    ]
    look, drawn = Look(size=size), []
    page.write(
        lambda: drawn.append(grids.heat_maps(of_rows(rows), look)) or drawn[0], tmp_path / "out.png", False, look
    )
    (figure,) = drawn
    renderer = figure.canvas.get_renderer()
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    (note,) = [text for text in figure.texts if text.get_text() == figure.get_supxlabel()]
    below = note.get_window_extent(renderer)
    for box in (*boxes, below):
        assert min(box.x0, box.y0) >= -1
        assert box.x1 <= size[0] * figure.dpi + 1
        assert box.y1 <= size[1] * figure.dpi + 1
    assert not any(box.overlaps(below) for box in boxes)
    maps = [box for ax, box in zip(figure.axes, boxes, strict=True) if ax.images]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(maps, 2))
    for title, whole in zip((ax.get_title() for ax in figure.axes if ax.images), map(titled, measures), strict=True):
        start, cut, end = title.partition("…")  # how wide letters are depends on the version of matplotlib
        assert title == whole or (cut and len(whole) > 12 and len(title) > len(whole) - 5)
        assert whole.startswith(start)
        assert whole.endswith(end)
    assert not caplog.text  # no size is too small for the cells


def test_notes_shrink_where_the_figure_is_low() -> None:
    figure = grids.heat_maps(of_rows(calibrated()), Look(size=(2.0, 2.0)))
    (note,) = figure.texts
    assert page.points(page.small()) > note.get_fontsize() >= grids.NOTE_POINTS
    assert note.get_window_extent(figure.canvas.get_renderer()).width <= 2.0 * figure.dpi


@pytest.mark.parametrize("several", [False, True])
def test_a_width_alone_of_a_benchmark(several: bool) -> None:
    rows = bench(pairs=tuple("abcdef")).rows
    make = accuracy.by_layer if several else accuracy.by_pair
    figure = make(rows, Look(size=(3.3, None)))
    wide = make(rows)
    assert figure.get_size_inches()[0] == 3.3
    assert figure.get_size_inches()[1] > wide.get_size_inches()[1]  # panels or legend stand beneath each other


def test_a_legend_can_be_left_out(tmp_path: Path) -> None:
    for results, words in ((grid(), ">framed: "), (bench(), "chance")):
        assert words in svg(tmp_path, results)
        plots.draw(results, tmp_path / "out.svg", force=True, look=Look(legend=False))
        assert words not in (tmp_path / "out.svg").read_text()


def test_rows_of_nearly_identical_scores_have_no_frame() -> None:
    figure = grids.heat_maps([replace(heat_map([[0.99, 0.985], [0.9, 0.5]]), measure="cka")])
    assert [(p.get_y() + 0.5, p.get_x() + 0.5) for p in figure.axes[0].patches] == [(1, 0)] * 2
    assert "no frame: nearly identical scores" in figure.get_supxlabel().replace("\n", " ")


def test_rows_whose_raw_scores_do_not_decide_have_no_frame() -> None:
    close = replace(heat_map([[3.0, 2.9], [0.0, 2.9]]), measure="universal", calibrated=np.eye(2))
    note = grids.heat_maps([close]).get_supxlabel().replace("\n", " ")
    assert "no frame: best two raw scores within 0.2" in note


@pytest.mark.parametrize(("scale", "outside"), [((0.2, 0.6), 2), ((0.1, 0.7 - 1e-9), 0)])
def test_scores_beyond_a_given_scale_are_counted(
    scale: tuple[float, float], outside: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="contrasim_cli"):
        grids.heat_maps([heat_map([[0.1, 0.7], [0.3, np.nan]])], Look(scale=scale))
    text = "--scale 0.2,0.6: 2 of 3 scores lie outside and have the colour of its nearer end"
    assert [record.getMessage() for record in caplog.records] == [text] * (outside > 0)


def test_missing_bars_are_explained() -> None:
    figure = accuracy.by_pair(bench(pairs=("en-ar",), missing=True).rows)
    assert accuracy.NOTHING in [text.get_text() for text in figure.legends[0].get_texts()]
    marks = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in marks] == [[pytest.approx(2.8)], [pytest.approx(3.2)]]
    whole = accuracy.by_pair(bench(pairs=("en-ar",)).rows)
    assert accuracy.NOTHING not in [text.get_text() for text in whole.legends[0].get_texts()]


def calibrated(share: float = 0.1, measures: tuple[str, ...] = ("universal",)) -> list[ScoreRow]:
    """Raw scores from -5 to 3 with calibrated ones from -share to 0.7 - share."""
    rows = grid(measures, 3, lambda i, j: 3.0 - 4 * abs(i - j)).rows
    return [replace(row, calibrated=0.7 - 0.35 * abs(i // 3 - i % 3) - share) for i, row in enumerate(rows)]


def test_calibrated_scores_are_drawn_where_each_pair_has_one() -> None:
    rows = calibrated()
    figure = grids.heat_maps(of_rows(rows))
    (image,), (_, bar) = images(figure), figure.axes
    assert image.get_array().ravel().tolist() == [row.calibrated for row in rows]
    assert image.get_clim() == pytest.approx((-0.1, 1.0))  # below 0, where a score is; to a layer with itself
    assert images(grids.heat_maps(of_rows(calibrated(0.0))))[0].get_clim() == pytest.approx((0.0, 1.0))
    assert bar.get_ylabel() == "universal, calibrated"
    assert len(figure.axes[0].patches) == 2 * 3
    note = figure.get_supxlabel().replace("\n", " ")
    assert note.startswith(
        "calibrated: 0 for unrelated rows, 1 for a layer with itself; framed: the most similar layer"
    )
    assert "each row, by raw score" in note


def test_raw_scores_are_drawn_where_they_are_asked_for_or_some_are_not_calibrated() -> None:
    rows = calibrated()
    for drawn, look in ((rows, Look(values="raw")), ([replace(rows[0], calibrated=None), *rows[1:]], Look())):
        figure = grids.heat_maps(of_rows(drawn), look)
        assert images(figure)[0].get_array().ravel().tolist() == [row.score for row in rows]
        assert "calibrated" not in figure.get_supxlabel()
    assert grids.heat_maps(of_rows(rows), Look(values="raw")).axes[1].get_ylabel() == "universal, raw score"
    closed = grids.heat_maps(of_rows(calibrated(measures=("cka",))))
    assert images(closed)[0].get_array().ravel().tolist() == [row.score for row in rows]
    assert closed.axes[1].get_ylabel() == "CKA"


def test_scores_of_a_store_with_itself_that_are_not_calibrated_have_a_scale_of_their_own() -> None:
    own = [
        replace(row, store_b="seed_0", layer_b=row.layer_a[:5] + row.layer_b[6:], calibrated=None)
        for row in calibrated()
    ]
    figure = grids.heat_maps(of_rows([*calibrated(), *own]))
    bars = [ax for ax in figure.axes if not ax.images]
    assert [bar.get_ylabel() for bar in bars] == ["universal, calibrated", "universal, raw score"]
    assert [image.get_clim() for image in images(figure)] == [pytest.approx((-0.1, 1.0)), (-5.0, 3.0)]


def test_noise_ceilings_stand_along_the_scale() -> None:
    rows = [
        replace(r, measure="rsa", score=0.4, ceiling_low=0.5 + 0.1 * (k % 2), ceiling_high=0.9)
        for k, r in enumerate(grid(("rsa",), 2).rows)
    ]
    figure = grids.heat_maps(of_rows(rows))
    _, bar = figure.axes
    (line,) = [line for line in bar.lines if line.get_label() == "ceiling"]
    assert line.get_ydata() == pytest.approx([0.55, 0.9])
    assert images(figure)[0].get_clim() == (0.0, 0.9)
    assert "the noise ceiling, from lower to upper" in figure.get_supxlabel().replace("\n", " ")
    assert "ceiling" not in grids.heat_maps(of_rows(grid(("rsa",), 2).rows)).get_supxlabel()
