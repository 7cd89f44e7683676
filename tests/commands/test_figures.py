"""Titles, names of stores, and how figures look: what the options do, and what they refuse."""

import importlib.util
import json
from pathlib import Path

import made
import pytest
from helpers import run
from pages import data_of, visible

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra plot")


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    return [
        made.store(tmp_path / f"{name}.h5", x) for name, x in zip("ab", made.related(2, 3, 40, (5, 7)), strict=True)
    ]


def drawn(tmp_path: Path, *arguments: object) -> str:
    done = run(*arguments, "--plot", tmp_path / "p.svg", "--force")
    assert done.code == 0
    assert "trials: each is worth" in done.stderr or not done.stderr
    return (tmp_path / "p.svg").read_text()


def test_labels_name_stores_everywhere(stores: list[Path], tmp_path: Path) -> None:
    labels = ["--label", "a=Llama 3 <8B>", "--label", f"{stores[1]}=base=1"]
    figure = drawn(tmp_path, "baseline", *stores, *labels)
    assert ">Llama 3 &lt;8B&gt;<" in figure
    assert ">base=1<" in figure
    done = run("baseline", *stores, *labels, "--format", "json")
    names = {(row["store_a"], row["store_b"]) for row in json.loads(done.stdout)["results"]}
    assert names == {("Llama 3 <8B>", "base=1")}
    assert "cka: Llama 3 <8B> (rows) against base=1 (columns)" in run(
        "baseline", *stores, *labels, "--format", "table"
    ).stdout  # fmt: skip
    pairs = run("bench", "multilingual", *stores, "--measure", "cka", "--label", "a=en", "--format", "tsv").stdout
    assert {line.split("\t")[3] for line in pairs.splitlines()[1:]} == {"all", "en-b", "b-en"}
    layers = run("bench", "layers", *stores, "--measure", "cka", "--label", "b.h5=B", "--pairs", "all").stdout
    assert "\ta-B\t" in layers


def test_a_title_is_on_figures_and_pages(stores: list[Path], tmp_path: Path) -> None:
    title = ["--title", "Two $seeds$ <b>"]
    assert ">Two $seeds$ &lt;b&gt;<" in drawn(tmp_path, "baseline", *stores, *title)
    assert ">Two $seeds$ &lt;b&gt;<" in drawn(tmp_path, "bench", "layers", *stores, "--measure", "cka", *title)
    if importlib.util.find_spec("plotly"):
        run("baseline", *stores, *title, "--label", "a=one", "--report", tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text()
        assert "Two $seeds$ <b>" in visible(page)
        assert data_of(page)["stores"] == ["one", "b"]


def test_layers_are_called_by_depth_or_index_in_their_store(stores: list[Path], tmp_path: Path) -> None:
    chosen = ["baseline", *stores, "--layers", "1-2"]
    assert ">layer_2<" in drawn(tmp_path, *chosen)
    depth = drawn(tmp_path, *chosen, "--layer-labels", "depth")
    assert ">layer_2<" not in depth
    assert ">50 %<" in depth
    assert ">100 %<" in depth
    index = drawn(tmp_path, *chosen, "--layer-labels", "index")
    assert ">2<" in index
    assert ">0<" not in index


def test_each_store_is_drawn_against_itself(stores: list[Path], tmp_path: Path) -> None:
    plain = drawn(tmp_path, "baseline", *stores)
    figure = drawn(tmp_path, "baseline", *stores, "--self")
    assert (plain.count(">CKA, within<"), figure.count(">CKA, within<")) == (0, 2)
    assert figure.count(">1.00<") >= plain.count(">1.00<") + 6
    assert run("baseline", *stores, "--self", "--plot", tmp_path / "q.svg").stdout == run("baseline", *stores).stdout


def test_the_size_is_that_asked_for(stores: list[Path], tmp_path: Path) -> None:
    from PIL import Image

    for size in ("6,4.5", "6x4.5"):
        done = run("baseline", *stores, "--size", size, "--dpi", "50", "--plot", tmp_path / "p.png", "--force")
        assert (done.code, done.stderr) == (0, "")
        with Image.open(tmp_path / "p.png") as image:
            assert image.size == (300, 225)


def test_heat_maps_stand_beside_each_other_as_asked(stores: list[Path], tmp_path: Path) -> None:
    from PIL import Image

    asked = [
        "baseline",
        *stores,
        "--measure",
        "cka",
        "--measure",
        "rsa",
        "--size",
        "3.4",
        "--plot",
        tmp_path / "p.png",
        "--force",
    ]
    shapes = []
    for columns in (1, 2):
        assert run(*asked, "--columns", columns).code == 0
        with Image.open(tmp_path / "p.png") as image:
            shapes.append(image.size)
    (one, tall), (two, flat) = shapes
    assert one == two
    assert tall > 1.5 * flat
    small = run(*asked, "--columns", 2, "--size", "2.4")
    assert "--layer-labels index, a larger --size, or fewer --columns leave them more\n" in small.stderr


def test_styles_of_the_reader_are_honoured_where_they_are_named(
    stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.mplstyle").write_text("axes.facecolor: 123456\nbackend: template\nxtick.labelsize: 5\n")
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: abcdef\naxes.facecolor: 654321\n")
    bench = ["bench", "layers", *stores, "--measure", "cka"]
    plain = drawn(tmp_path, *bench)
    assert "fill: #123456" not in plain
    assert "fill: #123456" in drawn(tmp_path, *bench, "--style", tmp_path / "own.mplstyle")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    named = drawn(tmp_path, *bench)
    assert "fill: #abcdef" in named
    assert "fill: #654321" in named
    both = drawn(tmp_path, *bench, "--style", tmp_path / "own.mplstyle")
    assert "fill: #abcdef" in both
    assert "fill: #123456" in both


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--cmap", "virids"], 2, "--cmap virids: matplotlib has no such colormap; did you mean viridis"),
        (["--scale", "0;1"], 2, "--scale 0;1: expected LOW,HIGH as 0,1, shared or own"),
        (["--scale", "1,0"], 2, "--scale 1,0: the first value is the lower one"),
        (["--scale", "nan,1"], 2, "--scale nan,1: expected LOW,HIGH"),
        (["--size", "7,"], 2, "--size 7,: expected WIDTH or WIDTH,HEIGHT in inches as 3.3 or 7,4.5"),
        (["--size", "7,4,1"], 2, "--size 7,4,1: expected WIDTH or WIDTH,HEIGHT in inches as 3.3 or 7,4.5"),
        (["--size", "0.4"], 2, "--size 0.4: inches are from 0.5 to 100"),
        (["--scale", "1"], 2, "--scale 1: expected LOW,HIGH as 0,1, shared or own"),
        (["--size", "7,1e9"], 2, "--size 7,1e9: inches are from 0.5 to 100"),
        (["--style", "none.mplstyle"], 3, "--style none.mplstyle: cannot be read: No such file or directory"),
        (["--style", "bad.mplstyle"], 3, "--style bad.mplstyle: is not a style sheet of matplotlib"),
        (["--style", "bytes.mplstyle"], 3, "--style bytes.mplstyle: is not a style sheet of matplotlib"),
        (["--label", "c=x"], 2, "--label c=x: c is not one of the stores; they are a.h5 and b.h5"),
        (["--label", "a"], 2, "--label a: write it as STORE=NAME"),
        (["--label", "a= "], 2, "--label a= : write it as STORE=NAME"),
        (["--label", "a=b"], 2, "--label: two stores would be called b"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(
    stores: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.mplstyle").write_text("font.size: huge\n")
    Path("bytes.mplstyle").write_bytes(bytes(range(256)))
    done = run("baseline", "a.h5", "b.h5", *options, "--plot", "p.svg")
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr.startswith(f"contrasim: error: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("p.svg").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--cmap", "magma"],
        ["--dpi", "90"],
        ["--self"],
        ["--layer-labels", "index"],
        ["--scale", "own"],
        ["--no-legend"],
    ],
)
def test_options_of_figures_go_with_a_figure(stores: list[Path], options: list[str]) -> None:
    done = run("baseline", *stores, *options)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"contrasim: error: {options[0]} is an option of figures; give --plot FILE with it\n"


def test_a_title_goes_with_what_has_one(stores: list[Path], tmp_path: Path) -> None:
    done = run("baseline", *stores, "--title", "x", "-o", tmp_path / "x.tsv")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "contrasim: error: --title is that of a figure, a page, or a table for papers; give --plot FILE, --report FILE, or "
        "-o FILE.tex or .md with it\n"
    )
    assert run("baseline", *stores, "--title", "x", "-o", tmp_path / "x.tex").code == 0
    assert "\\caption{x. CKA: a (rows)" in (tmp_path / "x.tex").read_text()
    assert run("baseline", *stores, "--title", "x", "--format", "md").stdout.startswith("x. CKA: a (rows)")
