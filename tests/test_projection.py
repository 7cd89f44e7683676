"""Rows on a plane: coordinates against the definition, and the figure that `score --plot-rows` draws."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from helpers import run
from matplotlib.lines import Line2D

from contrasim_cli.errors import MissingError
from contrasim_cli.plots.rows import Plane, planes
from contrasim_cli.projection import chosen_kind, principal_components, project

has_umap = pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="needs the extra umap")


def rows_of(n: int = 30, width: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, width)) * np.arange(1, 1 + width)


def test_principal_components_are_those_of_the_covariance() -> None:
    x = rows_of()
    points = principal_components(x)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    centred = x - x.mean(axis=0)
    for k in range(2):
        direction = vectors[:, -1 - k]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        np.testing.assert_allclose(points[:, k], centred @ direction, atol=1e-9)
        assert points[:, k].var() == pytest.approx(values[-1 - k])


@pytest.mark.parametrize("x", [np.ones((4, 3)), np.zeros((1, 1)), np.arange(5.0)[:, None]])
def test_few_directions_leave_zeros(x: Any) -> None:
    points = principal_components(x)
    assert points.shape == (len(x), 2)
    np.testing.assert_array_equal(points[:, 1], 0)


def test_all_views_share_one_plane() -> None:
    a, b = rows_of(), rows_of(seed=1) + 100
    found = project([a, b], "pca", 0)
    np.testing.assert_allclose(np.concatenate(found), principal_components(np.concatenate([a, b])))
    assert found[0][:, 0].max() < found[1][:, 0].min() or found[0][:, 0].min() > found[1][:, 0].max()


@has_umap
def test_umap_keeps_neighbours_and_repeats() -> None:
    a, b = rows_of(), rows_of(seed=1) + 100
    first, again = (project([a, b], "umap", 3) for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    centres = [view.mean(axis=0) for view in first]
    spread = max(np.linalg.norm(view - centre, axis=1).max() for view, centre in zip(first, centres, strict=True))
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    assert project([a[:2], b[:2]], "umap", 0)[0].shape == (2, 2)


def test_umap_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec("umap") is not None
    assert chosen_kind(None) == ("umap" if there else "pca")
    assert chosen_kind("pca") == "pca"
    monkeypatch.setitem(sys.modules, "umap", None)
    assert chosen_kind(None) == "pca"
    with pytest.raises(MissingError, match=r"--projection umap needs the extra umap: pip install 'contrasim\[umap\]'"):
        chosen_kind("umap")


def test_shapes_are_views_and_colours_are_rows() -> None:
    points = [rows_of(8, 2), rows_of(8, 2, seed=1)]
    figure = planes([Plane("before", points), Plane("after", points)], ["en", "ar"], ["x", "y", "z"])
    assert [ax.get_title() for ax in figure.axes] == ["before", "after"]
    for ax in figure.axes:
        shown = [line for line in ax.findobj(Line2D) if line.get_markersize() == 7 and len(line.get_xdata()) == 1]
        assert len(shown) == 6
        for k, line in enumerate(shown):
            row, view = divmod(k, 2)
            assert (line.get_xdata()[0], line.get_ydata()[0]) == tuple(points[view][row])
        assert [line.get_marker() for line in shown] == ["o", "s"] * 3
        colours = [line.get_color() for line in shown]
        assert colours[::2] == colours[1::2]
        assert len(set(colours)) == 3
        assert [text.get_text() for text in ax.texts] == ["1", "1", "2", "2", "3", "3"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["en", "ar", "1 x", "2 y", "3 z"]


# the command


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    layers = made.related(2, 2, 40, (7,))
    stores = [made.store(tmp_path / f"{name}.h5", x) for name, x in zip(["en", "ar"], layers, strict=True)]
    return [*stores, made.encoder_file(tmp_path / "enc.pt", widths=(7,), standardize="center")]


def score(inputs: list[Path], *options: object) -> Any:
    return run("score", *inputs[:-1], "--encoder", inputs[-1], *options)


def test_rows_are_drawn_beside_the_scores(inputs: list[Path], tmp_path: Path) -> None:
    plain = score(inputs)
    done = score(inputs, "--plot-rows", tmp_path / "rows.svg", "--projection", "pca", "--plot-rows-count", "3")
    assert (done.code, done.stdout, done.stderr) == (0, plain.stdout, plain.stderr)
    drawn = (tmp_path / "rows.svg").read_text()
    assert ">layer_1 as stored (PCA of 40 rows)<" in drawn
    assert ">after enc.pt (PCA of 40 rows)<" in drawn
    assert ">en<" in drawn
    assert ">ar<" in drawn
    order = np.random.default_rng([0, 7]).permutation(40)
    for r in range(3):
        assert f">{r + 1} r{order[r]}<" in drawn
    assert ">4 " not in drawn
    again = tmp_path / "again.svg"
    score(inputs, "--plot-rows", again, "--projection", "pca", "--plot-rows-count", "3")
    assert again.read_text() == drawn
    other = score(inputs, "--plot-rows", again, "--projection", "pca", "--seed", "1", "--force", "--layers", "0")
    assert other.code == 0
    assert ">layer_0 as stored" in again.read_text()


def test_different_widths_are_drawn_after_the_encoder_alone(tmp_path: Path) -> None:
    stores = [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(2, 1, 20, (7, 5)))]
    encoder = made.encoder_file(tmp_path / "enc.pt", widths=(5, 7))
    done = score([*stores, encoder], "--plot-rows", tmp_path / "out.svg", "--projection", "pca")
    assert done.code == 0
    assert "--plot-rows: layers of different widths share no space before the encoder" in done.stderr
    assert "as stored" not in (tmp_path / "out.svg").read_text()


def test_what_cannot_be_drawn_is_refused_before_any_work(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.png"
    there.touch()
    monkeypatch.setitem(sys.modules, "umap", None)
    for options, code, line in [
        (["--plot-rows", "x.doc"], 2, "--plot-rows x.doc: the format follows the suffix, which is one of .png, .svg, .pdf"),
        (["--plot-rows", there], 5, f"{there}: already exists; give --force to replace it"),
        (["--projection", "pca"], 2, "--plot-rows-count and --projection go with --plot-rows"),
        (["--plot-rows-count", 3], 2, "--plot-rows-count and --projection go with --plot-rows"),
        (
            ["--plot-rows", "x.png", "--projection", "umap"], 6,
            "--projection umap needs the extra umap: pip install 'contrasim[umap]'",
        ),
    ]:  # fmt: skip
        assert score(inputs, *options) == (code, "", f"contrasim: error: {line}\n")
