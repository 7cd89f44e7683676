"""Figures: whole files of the kind asked for, with every name on them."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import made
import pytest
from helpers import run

from contrasim_cli import plots
from contrasim_cli.errors import OutputExistsError, UsageError
from contrasim_cli.results import BenchRow, InspectRow, Results, ScoreRow

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


def bench(kinds: tuple[str, ...] = ("random", "faiss"), missing: bool = False) -> Results:
    rows = []
    for kind in kinds:
        for m, measure in enumerate(["cka", "dot", "norm", "pwcca", "enc.pt"]):
            for k in [*range(1, 7), "all"]:
                accuracy = (
                    None if missing and measure == "pwcca" else min(1, 0.2 + 0.15 * m + 0.02 * (6 if k == "all" else k))
                )
                rows.append(
                    BenchRow("multilingual", measure, kind, "all", f"{'' if k == 'all' else 'hidden_'}{k}",
                             accuracy, None if accuracy is None else 0.05, None, None, 1 / 11, 100, None, None)
                )  # fmt: skip
    return Results("bench", BenchRow, rows)


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


def svg(tmp_path: Path, results: Results) -> str:
    plots.draw(results, tmp_path / "out.svg", force=True)
    return (tmp_path / "out.svg").read_text()


def test_every_name_is_on_a_heat_map(tmp_path: Path) -> None:
    drawn = svg(tmp_path, grid())
    for name in ["cka", "dot", "seed_0", "seed_1", *(f"{kind}_{k}" for kind in ("block", "hidden") for k in range(6))]:
        assert f">{name}<" in drawn
    assert drawn.count(">0.17<") == 2 * 2  # 1/6, in the two far corners of both panels


def test_many_names_are_thinned_out(tmp_path: Path) -> None:
    drawn = svg(tmp_path, grid(size=48))
    shown = [k for k in range(48) if f">hidden_{k}<" in drawn]
    assert shown == [*range(0, 48, 2)]
    assert ">0.02<" not in drawn  # 1/48: no values in cells so small


def test_the_direction_is_said_where_lower_is_more_similar(tmp_path: Path) -> None:
    assert svg(tmp_path, grid(("cka", "procrustes", "enc.pt"))).count(">lower is more similar<") == 1


def test_bright_is_similar_and_panels_of_a_measure_share_their_scale() -> None:
    rows = [
        ScoreRow(measure, "a", f"x{i}", store, "y", value)
        for measure in ("cka", "procrustes")
        for store, values in (("b", (0.0, 0.5)), ("c", (0.5, 1.0)))
        for i, value in enumerate(values)
    ]
    figure = plots._heat_maps(rows)
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in figure.axes if ax.images] == ["cka", "procrustes", "cka", "procrustes"]
    assert [image.get_clim() for image in images] == [(0.0, 1.0)] * 4
    bright = [sum(image.cmap(image.norm(1.0))[:3]) > sum(image.cmap(image.norm(0.0))[:3]) for image in images]
    assert bright == [True, False, True, False]


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


@pytest.mark.parametrize(
    "results",
    [
        grid(score=lambda i, j: None),
        grid(score=lambda i, j: None if i == 2 else 0.5),
        grid(size=1),
        grid(size=40),
        bench(missing=True),
        bench(("",)),
        Results("baseline", ScoreRow, [*grid().rows, ScoreRow("cka", "seed_0", "block_0", "seed_2", "x", 1.0)]),
    ],
    ids=["empty", "gaps", "one cell", "large", "gaps in a benchmark", "no negatives", "panels of different sizes"],
)
def test_odd_results_are_drawn(tmp_path: Path, results: Results) -> None:
    assert svg(tmp_path, results).startswith("<?xml")


def test_there_is_nothing_to_draw_of_other_results(tmp_path: Path) -> None:
    rows = [InspectRow("a.h5", "l", 5, 3, "float16", 0, None, 1, 0.5, None, 2.0)]
    with pytest.raises(UsageError, match="there is nothing to draw"):
        plots.draw(Results("inspect", InspectRow, rows), tmp_path / "out.png", force=False)


def test_a_plot_is_drawn_beside_the_results(tmp_path: Path) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 2, 20, (5,)))]
    done = run("baseline", *stores, "--plot", tmp_path / "out.svg")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == run("baseline", *stores).stdout
    assert ">layer_1<" in (tmp_path / "out.svg").read_text()
    again = run("baseline", *stores, "--plot", tmp_path / "out.svg")
    assert (again.code, again.stdout) == (5, "")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 2, 20, (5,)))]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("baseline", *stores, "--plot", tmp_path / "out.png")
    assert (done.code, done.stdout) == (6, "")
    assert done.stderr == "contrasim: error: --plot needs the extra plot: pip install 'contrasim[plot]'\n"
    assert not (tmp_path / "out.png").exists()
