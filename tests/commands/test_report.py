"""`--report FILE.html`: a page beside the results, from every command that compares."""

import importlib.util
import sys
from pathlib import Path

import made
import pytest
from helpers import run
from pages import data_of, visible

pytestmark = pytest.mark.skipif(importlib.util.find_spec("plotly") is None, reason="needs the extra report")


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    return [made.store(tmp_path / f"{k}.h5", x) for k, x in enumerate(made.related(3, 3, 40, (5, 7)))]


def test_baseline_shows_universal_first_and_every_store_with_itself(stores: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    measures = ["--measure", "cka", "--measure", "procrustes"]
    done = run("baseline", *stores, *measures, "--report", page)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == run("baseline", *stores, *measures).stdout
    data = data_of(page.read_text())
    assert data["pairs"] == [[0, 1], [0, 2], [1, 2]]
    shown = [
        (one["measure"], data["sides"][one["down"]]["store"], data["sides"][one["across"]]["store"])
        for one in data["maps"]
    ]
    assert sorted(shown[:6]) == [
        ("universal", a, b) for a, b in ["00", "01", "02", "11", "12", "22"]
    ]  # across and within
    assert [name for name, *_ in shown] == ["universal"] * 6 + ["cka"] * 6 + ["procrustes"] * 6
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    found = {(name, a, b): one for (name, a, b), one in zip(shown, data["maps"], strict=True)}
    for measure, store_a, layer_a, store_b, layer_b, score, *_ in rows:
        value = found[measure, store_a, store_b]["values"][int(layer_a[-1])][int(layer_b[-1])]
        assert value == pytest.approx(float(score), rel=1e-5)
    assert 0 < found["cka", "0", "1"]["level"] < 0.5  # what shuffled rows score
    assert found["procrustes", "0", "1"]["level"] is None
    assert set(found["universal", "0", "1"]["columns"]) == {"calibrated", "null_z", "null_p"}
    own = found["cka", "1", "1"]["values"]
    assert [own[k][k] for k in range(3)] == pytest.approx([1.0] * 3, rel=1e-6)
    assert own[0][1] == pytest.approx(own[1][0], rel=1e-5)
    assert own[0][1] < 1


def test_a_page_holds_the_command_and_the_digests(stores: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    done = run("score", *stores[:2], "--report", page, "-q")
    assert (done.code, done.stderr) == (0, "")
    text = visible(page.read_text())
    assert f"contrasim score {stores[0]} {stores[1]} --report {page} -q" in text
    assert text.count(str(stores[1])) >= 3  # in the list, the command and the digests; notes may name it too
    assert [one["measure"] for one in data_of(page.read_text())["maps"]] == ["universal"] * 3 + ["cka"] * 3


@pytest.mark.parametrize("options", [["--standardize", "zscore"], ["--bootstrap", "5", "--permutations", "5"]])
def test_measures_beside_those_asked_for_are_as_they_are(
    stores: list[Path], tmp_path: Path, options: list[str]
) -> None:
    done = run("baseline", *stores[:2], *options, "--report", tmp_path / "r.html")
    assert done.code == 0
    first = data_of((tmp_path / "r.html").read_text())["maps"][0]
    plain = run("score", *stores[:2], "--report", tmp_path / "s.html")
    assert plain.code == 0
    assert data_of((tmp_path / "s.html").read_text())["maps"][0]["values"] == first["values"]


def test_an_encoder_of_rows_has_a_page(stores: list[Path], tmp_path: Path) -> None:
    encoder = made.encoder_file(tmp_path / "enc.pt", widths=(5, 7))
    done = run("score", *stores[:2], "--encoder", encoder, "--report", tmp_path / "r.html")
    assert done.code == 0
    maps = data_of((tmp_path / "r.html").read_text())["maps"]
    assert [one["measure"] for one in maps] == ["enc.pt"] * 3 + ["cka"] * 3
    assert [maps[1]["values"][k][k] for k in range(3)] == pytest.approx([1.0] * 3, rel=1e-5)


def test_benchmarks_have_pages_too(stores: list[Path], tmp_path: Path) -> None:
    done = run("bench", "layers", *stores[:2], "--report", tmp_path / "l.html")
    assert (done.code, done.stderr.count("error")) == (0, 0)
    data = data_of((tmp_path / "l.html").read_text())
    assert [one["measure"] for one in data["maps"]] == ["universal", "cka"]
    assert len(data["rows"]) == len(done.stdout.splitlines()) - 1
    done = run("bench", "multilingual", *stores, "--measure", "cka", "--report", tmp_path / "m.html")
    assert done.code == 0
    assert data_of((tmp_path / "m.html").read_text())["maps"] == []


def test_what_cannot_be_written_is_refused_before_any_work(stores: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.touch()
    for options, code, message in (
        (["--report", page], 5, f"{page}: already exists; give --force to replace it"),
        (["--report", "r.pdf"], 2, "--report r.pdf: is a page of HTML; give it the suffix .html"),
        (["--report", tmp_path / "no" / "r.html"], 7, "cannot be written: there is no folder"),
        (
            ["--report", page, "--plot", tmp_path / "x.svg", "-o", tmp_path / "x.svg"],
            2,
            "the format follows the suffix",
        ),
    ):
        done = run("baseline", "missing.h5", "missing.h5", *options)
        assert (done.code, done.stdout) == (code, ""), options
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert page.read_text() == ""
    assert run("baseline", *stores, "--report", page, "--force").code == 0
    assert page.stat().st_size > 1000


def test_two_outputs_cannot_have_one_name(stores: list[Path], tmp_path: Path) -> None:
    same = tmp_path / "x.txt"
    done = run("bench", "layers", *stores[:2], "-o", same, "--trials", same)
    assert done.code == 2
    assert done.stderr == f"contrasim: error: {same}: two outputs have the same name\n"


def test_without_plotly_the_extra_is_named(stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    done = run("baseline", *stores, "--report", tmp_path / "r.html")
    assert (done.code, done.stdout) == (6, "")
    assert done.stderr == "contrasim: error: --report needs the extra report: pip install 'contrasim[report]'\n"


def test_one_layer_is_a_page_too(stores: list[Path], tmp_path: Path) -> None:
    done = run("baseline", *stores[:2], "--layers", "-1", "--report", tmp_path / "r.html", "--format", "value")
    assert (done.code, done.stderr) == (0, "")
    assert "There is one layer on a side" in visible((tmp_path / "r.html").read_text())


def test_sides_may_differ_in_layers(stores: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    done = run("baseline", *stores[:2], "--layers-a", "0", "--layers-b", "1-2", "--report", page)
    assert done.code == 0
    data = data_of(page.read_text())
    sides = [(one["layers"], one["depths"]) for one in data["sides"]]
    assert (["layer_0"], [0.0]) in sides
    assert (["layer_1", "layer_2"], [50.0, 100.0]) in sides
