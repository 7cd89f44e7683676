"""Pages: what is on them, that nothing in a name acts, that nothing is loaded, and that they are small."""

import base64
import gzip
import importlib.util
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import CHROMIUM, asked, bench, data_of, grid, scripts, visible

from contrasim_cli.errors import OutputExistsError
from contrasim_cli.report import html
from contrasim_cli.report.conclusions import RULES
from contrasim_cli.report.heat_maps import HeatMap
from contrasim_cli.report.html import contents
from contrasim_cli.report.results import Results, ScoreRow

pytestmark = pytest.mark.skipif(importlib.util.find_spec("plotly") is None, reason="needs the extra report")
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> <b>'\"&amp;\\\n "
    "%{x} $x^2$ <!-- {{7}} \u2028 "
) + "long" * 60


def page(results: Results, **more: Any) -> str:
    return html.html(results.printable(), **more)


class Tags(HTMLParser):
    """The tags and attributes of a page, outside its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text)
    return parser.tags


def test_a_page_says_what_was_compared() -> None:
    text = visible(page(grid()))
    for words in (
        "How similar are a and b?",
        "contrasim baseline a.h5 b.h5",
        "2026-01-02T03:04:05+00:00",
        "model b",
        "0" * 64,
        "100 rows",
        "contrasim 0.0",
        "6 of 6 by cka",
        *RULES,
    ):
        assert words in text


def test_a_page_says_that_a_program_has_to_wait_for_its_charts() -> None:
    for results in (grid(), bench({"cka": (0.5, 0.4, 0.6)})):
        assert page(results).count("chromium: --virtual-time-budget=10000") == 1


def test_a_page_says_with_which_arguments_a_model_was_made() -> None:
    results = grid()
    assert "model arguments" not in visible(page(results))
    results.about["sources"]["a.h5"]["provenance"] = {"model_arguments": {"depth": 6}}
    shown = visible(page(results))
    assert "model arguments" in shown
    assert '{"depth": 6}' in shown


def test_maps_hold_the_scores_with_best_matches_and_ties() -> None:
    rows = [
        ScoreRow("cka", "a", f"x{i}", "b", f"y{j}", value, calibrated=value, null_z=z)
        for i, line in enumerate([[(0.25, 9.0), (0.5, 2.0), (0, 0.0)], [(1.0, 4.0), (1.0, None), (0, 9.0)]])
        for j, (value, z) in enumerate(line)
    ]
    shown = contents.of(Results("score", ScoreRow, rows, optional=["calibrated", "null_z", "null_p"]))
    (drawn,) = shown.data["maps"]
    values = [[0.25, 0.5, 0.0], [1.0, 1.0, 0.0]]
    assert (drawn["values"], drawn["best"], drawn["tied"]) == (values, [[0, 1]], [[1, 0], [1, 1]])
    assert drawn["unclear"] == [[0, 1], [0, 2]]
    assert drawn["columns"] == {"calibrated": values, "null_z": [[9.0, 2.0, 0.0], [4.0, None, 9.0]]}
    assert shown.data["sides"][drawn["down"]] == {
        "store": "a",
        "layers": ["x0", "x1"],
        "short": ["0", "1"],
        "depths": [0.0, 100.0],
    }
    assert (drawn["measure_limits"], drawn["higher"], drawn["colour"]) == ([0.0, 1.0], True, 0)
    same, best = shown.data["curves"]
    assert same["lines"][0]["y"] == [0.25, 0.0]
    assert best["lines"][0]["y"] == [50.0, None]  # of two that tie there is no depth


def test_measures_of_one_range_share_a_scale_and_encoders_come_first() -> None:
    results = grid(measures=("procrustes", "cka", "enc.pt", "pwcca"), sizes=(2, 2))
    rows = [replace(row, score=2 * row.score if row.measure == "pwcca" else row.score) for row in results.rows]
    data = contents.of(replace(results, rows=rows)).data
    assert [one["measure"] for one in data["maps"][:3]] == ["enc.pt"] * 3  # across, and within both stores
    limits = {one["measure"]: (one["measure_limits"], one["shared_limits"]) for one in data["maps"]}
    assert limits["cka"] == ([0.0, 1.0], [0.0, 2.0])
    assert limits["pwcca"] == ([0.0, 2.0], [0.0, 2.0])
    assert limits["procrustes"] == ([0.0, 1.0], [0.0, 1.0])
    assert limits["enc.pt"][0][0] == pytest.approx(2 / 3, abs=1e-5)  # no natural zero


def test_depths_are_those_in_the_whole_store() -> None:
    results = grid(sizes=(5, 5))
    chosen = [row for row in results.rows if isinstance(row, ScoreRow) and row.layer_a in ("layer_1", "layer_4")]
    data = contents.of(replace(results, rows=chosen, within=[])).data
    assert data["sides"][data["maps"][0]["down"]]["depths"] == [25.0, 100.0]


def test_a_measure_without_a_best_match_has_no_line_of_their_depths() -> None:
    results = grid(measures=("cka", "rsa"))
    flat = [replace(row, score=0.5) for row in results.rows]
    some = [old if old.measure == "rsa" else new for old, new in zip(results.rows, flat, strict=True)]
    curves = contents.of(replace(results, rows=some)).data["curves"]
    assert [line["name"] for line in curves[-1]["lines"]] == ["rsa"]
    titles = [one["title"] for one in contents.of(replace(results, rows=flat)).data["curves"]]
    assert titles == ["Score at the same depth: CKA", "Score at the same depth: RSA"]


def test_a_measure_has_one_colour_on_maps_curves_and_bars() -> None:
    data = contents.of(grid(measures=("cka", "enc.pt", "procrustes"))).data
    colours = {one["measure"]: one["colour"] for one in data["maps"]}
    assert colours == {"enc.pt": 0, "cka": 1, "procrustes": 2}
    assert {line["name"]: line["colour"] for curve in data["curves"] for line in curve["lines"]} == colours
    results = bench({"cka": (0.5, 0.4, 0.6), "enc.pt": (0.9, 0.8, 1.0)})
    rows = [replace(row, train_data="ptb") if row.measure == "enc.pt" else row for row in results.rows]
    names = ("cka", "enc.pt", "enc.pt, trained on ptb")
    grids = [HeatMap(name, ("first", "second"), ["a", "b"], ["a", "b"], np.eye(2)) for name in names]
    data = contents.of(replace(results, rows=rows), grids).data
    assert {one["measure"]: one["colour"] for one in data["maps"]} == dict(zip(names, (1, 0, 0), strict=True))
    assert [(line["name"], line["colour"]) for line in data["curves"][0]["lines"]] == [
        ("enc.pt (trained on ptb)", 0),
        ("cka", 1),
    ]


def test_curves_hold_intervals_where_there_are_any() -> None:
    results = grid(sizes=(3, 3), optional=["ci_low", "ci_high"])
    rows = [replace(row, ci_low=row.score - 0.1, ci_high=row.score + 0.1) for row in results.rows]
    line = contents.of(replace(results, rows=rows)).data["curves"][0]["lines"][0]
    assert (line["y"], line["low"], line["high"]) == ([1.0] * 3, [0.9] * 3, [1.1] * 3)


def test_a_benchmark_has_bars_curves_and_mean_grids() -> None:
    results = bench({"cka": (0.5, 0.4, 0.6), "enc.pt": (0.9, 0.8, 1.0), "dot": (None, None, None)})  # type: ignore[dict-item]
    mean = HeatMap("cka", ("first", "second"), ["a", "b"], ["a", "b"], np.eye(2))
    text = page(results, grids=[mean])
    data = data_of(text)
    bars, curve = data["curves"]
    assert [(one["name"], one["y"], one["low"]) for one in bars["lines"]] == [
        ("enc.pt", 90.0, 80.0),
        ("cka", 50.0, 40.0),
        ("dot", None, None),
    ]
    assert (bars["chance"], curve["ticks"]) == (25.0, ["l0", "l1", "l2", "l3"])
    assert len(data["rows"]) == len(results.rows)
    assert data["maps"][0]["values"] == [[1.0, 0.0], [0.0, 1.0]]
    assert "enc.pt has 90.0 %" in visible(text)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page(grid())
    for tag, attributes in tags(text):
        assert tag not in ("iframe", "object", "embed", "img", "base", "form")
        assert "src" not in attributes
        assert re.match(r"#|data:,", attributes.get("href") or "#")
    policy = next(a["content"] for tag, a in tags(text) if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline';")
    assert "http" not in policy


def test_no_name_leaves_its_place() -> None:
    results = grid(sizes=(2, 2), stores=(HOSTILE, HOSTILE + "2"), name=HOSTILE + "{}", measures=(HOSTILE + "m",))
    plain = grid(sizes=(2, 2), measures=("enc.pt",))
    hostile = page(replace(results, about={**results.about, HOSTILE: HOSTILE}, title=HOSTILE))
    extra = [("tr", {}), ("th", {}), ("td", {}), ("code", {})]  # of the one more line of settings
    assert sorted(map(str, tags(hostile))) == sorted(map(str, tags(page(plain)) + extra))
    assert "\u2028" not in hostile
    data = data_of(hostile)
    assert data["sides"][0]["store"].startswith("</script><script>document.title='taken'")
    assert "<" not in scripts(hostile)["results"]


def test_the_library_is_whole_and_its_notice_is_kept() -> None:
    text = page(grid(sizes=(1, 1)))
    code = gzip.decompress(base64.b64decode(scripts(text)["plotly"]))
    assert code.startswith(b"/**\n* plotly.js v")
    assert re.search(r"<!-- plotly.js [\d.]+\S*, copyright Plotly, Inc., MIT License", text)


@pytest.mark.parametrize(
    ("sizes", "stores", "measures"),
    [((24, 24), 2, 4), ((60, 60), 2, 4), ((60, 60), 6, 4), ((13, 13), 30, 1)],
)
def test_pages_are_small_and_say_what_they_leave_out(sizes: tuple[int, int], stores: int, measures: int) -> None:
    names = tuple(f"encoder.layers.{'x' * 200}.store_{k}" for k in range(stores))
    results = grid(sizes, ("cka", "pwcca", "svcca", "cca")[:measures], names, name=f"{'block' * 40}.{{}}.{'out' * 20}")
    text = page(results)
    assert len(text.encode()) < 6e6
    data = data_of(text)
    pairs = {tuple(data["stores"][k] for k in pair) for pair in data["pairs"]}
    left_out = stores * (stores - 1) // 2 - len(pairs)
    assert (f"{left_out} pairs of stores are left out" in visible(text)) == (left_out > 0)
    shown = {tuple(data["sides"][one[side]]["store"] for side in ("down", "across")) for one in data["maps"]}
    assert pairs == {pair for pair in shown if pair[0] != pair[1]}
    assert {store for pair in pairs for store in pair} == {a for a, b in shown if a == b}


@pytest.mark.parametrize(
    "results",
    [
        grid(sizes=(1, 1)),
        grid(sizes=(1, 3)),
        grid(sizes=(6, 24)),
        replace(grid(), rows=[replace(row, score=None) for row in grid().rows], within=[]),
        replace(grid(), rows=[], within=[], layers={}),
        bench({"cka": (None, None, None)}),  # type: ignore[dict-item]
        Results("baseline", ScoreRow, [ScoreRow("cka", "a", "x", "b", "y", np.inf)]),
    ],
    ids=["one cell", "one row", "unequal", "undefined", "nothing", "no accuracy", "infinite"],
)
def test_odd_results_are_pages_too(results: Results) -> None:
    json.dumps(data_of(page(results)), allow_nan=False)


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    html.write(grid(sizes=(2, 2)), tmp_path / "r.html", force=False)
    with pytest.raises(OutputExistsError):
        html.write(grid(sizes=(2, 2)), tmp_path / "r.html", force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


# --- in a browser -----------------------------------------------------------------------------------------------------

ZOOM = """
const chart = document.querySelector("#maps .chart"), drag = chart.querySelector(".nsewdrag"), box = drag.getBoundingClientRect();
const at = (kind, x, y, place) => place.dispatchEvent(new MouseEvent(kind, { bubbles: true, clientX: box.left + x * box.width,
  clientY: box.top + y * box.height, button: 0, buttons: kind === "mouseup" ? 0 : 1 }));
answer.before = chart.layout.xaxis.range.slice();
at("mousedown", 0.1, 0.1, drag);
for (const place of [0.3, 0.6]) at("mousemove", place, place, document);
at("mouseup", 0.6, 0.6, document);
await new Promise((done) => setTimeout(done, 300));
answer.after = chart.layout.xaxis.range.slice();
"""
NUMBERS = """
const chart = document.querySelector("#maps .chart");
const frame = () => chart.data[3].marker.size, template = () => chart.data[0].texttemplate, crosses = () => chart.data[1].y;
answer.frames = [frame()]; answer.templates = [template()]; answer.crosses = [crosses()];
answer.text = chart.data[0].text[0][1]; answer.hover = chart.data[0].hovertext[0][1];
answer.swatch = document.querySelector("#maps .swatch").style.background;
await Plotly.relayout(chart, { "xaxis.range": [-0.5, 2.5], "yaxis.range": [-0.5, 2.5] });
await new Promise((done) => setTimeout(done, 300));
answer.frames.push(frame()); answer.templates.push(template()); answer.crosses.push(crosses());
answer.ticks = chart.layout.xaxis.ticktext.slice(0, 2);
"""
DOUBLE_CLICK = """
const chart = document.querySelector("#curves .chart"), drag = chart.querySelector(".nsewdrag");
const at = (kind, x, y, place) => {
  const box = drag.getBoundingClientRect();
  place.dispatchEvent(new MouseEvent(kind, { bubbles: true, clientX: box.left + x * box.width,
    clientY: box.top + y * box.height, button: 0, buttons: kind === "mouseup" ? 0 : 1 }));
};
const range = () => chart.layout.yaxis.range.slice();
const twice = async () => {
  for (let k = 0; k < 2; k++) { at("mousedown", 0.5, 0.5, drag); at("mouseup", 0.5, 0.5, document); }
  await new Promise((done) => setTimeout(done, 800));
  return range();
};
answer.ranges = [range(), await twice(), await twice(), await twice()];
at("mousedown", 0.2, 0.1, drag);
for (const place of [0.3, 0.6]) at("mousemove", place, place, document);
at("mouseup", 0.6, 0.6, document);
await new Promise((done) => setTimeout(done, 800));
answer.zoomed = range();
answer.back = await twice();
"""
WHISKERS = """
const charts = [...document.querySelectorAll("#curves .chart")];
const traces = [charts[0].data[0], ...charts[1].data];
answer.arms = traces.map((trace) => trace.error_y ? [trace.error_y.array, trace.error_y.arrayminus] : null);
answer.places = charts[1].data.map((trace) => trace.x);
"""
BEST = """
const only = document.getElementById("best");
answer.only = only.checked; answer.rows = document.querySelectorAll("#table tbody tr").length;
"""
SORT = """
const scores = () => [...document.querySelectorAll("#table tbody tr")].map((line) => line.cells[7].textContent);
const head = [...document.querySelectorAll("#table th")].find((cell) => cell.textContent === "score");
const everything = document.getElementById("best"); everything.checked = false; everything.dispatchEvent(new Event("change"));
answer.rows = scores().length;
head.querySelector("button").click(); answer.down = scores(); answer.told = head.getAttribute("aria-sort");
head.querySelector("button").click(); answer.up = scores();
const words = document.getElementById("filter"); words.value = "LAYER_5"; words.dispatchEvent(new Event("input"));
answer.filtered = scores().length;
"""
CHOOSE = """
const drawn = () => [...document.querySelectorAll("#maps h3")].map((head) => head.textContent);
answer.first = drawn();
document.getElementById("pair").value = 2; document.getElementById("pair").dispatchEvent(new Event("change"));
answer.third = drawn();
document.getElementById("scale").value = "panel"; document.getElementById("scale").dispatchEvent(new Event("change"));
document.getElementById("labels").value = "depth"; document.getElementById("labels").dispatchEvent(new Event("change"));
while (!document.querySelector("#maps .chart").data) await new Promise((done) => setTimeout(done, 50));
const trace = document.querySelector("#maps .chart").data[0], axis = document.querySelector("#maps .chart").layout.xaxis;
answer.limits = [trace.zmin, trace.zmax]; answer.ticks = axis.ticktext;
"""
VALUES = """
const trace = () => document.querySelector("#maps .chart").data[0];
const told = async () => {
  const charts = ["#maps .chart", "#curves .chart"].map((place) => document.querySelector(place));
  while (charts.some((chart) => !chart.data)) await new Promise((done) => setTimeout(done, 50));
  const heads = [...document.querySelectorAll("#maps h3, #curves h3")].map((head) => head.textContent);
  const lines = [...document.querySelectorAll("#maps .panels")].map((line) => line.children.length);
  return { heads, lines, z: trace().z[0][0], limits: [trace().zmin, trace().zmax], y: charts[1].data[0].y[0] };
};
const choose = (name, value) => {
  document.getElementById(name).value = value;
  document.getElementById(name).dispatchEvent(new Event("change"));
};
answer.first = await told();
choose("values", "score"); choose("lines", "stores");
answer.then = await told();
"""
COUNT = """
answer.titles = [...document.querySelectorAll("h3")].map((head) => head.textContent);
answer.charts = document.querySelectorAll(".chart .main-svg").length / 3; answer.title = document.title;
answer.elements = document.querySelectorAll("img, iframe, b").length; answer.wide = document.documentElement.scrollWidth;
"""


def clean(answer: dict[str, Any]) -> bool:
    return (answer["drawn"], answer["errors"], answer["blocked"], answer["loaded"]) == ("yes", [], [], [])


@browser
@pytest.mark.slow
def test_a_browser_zooms_into_a_map(tmp_path: Path) -> None:
    answer = asked(page(grid()), tmp_path, ZOOM)
    assert clean(answer), answer
    assert answer["before"] == [-0.5, 5.5]
    low, high = answer["after"]
    assert (low, high) == (pytest.approx(0.1, abs=0.2), pytest.approx(3.1, abs=0.2))


@browser
@pytest.mark.slow
def test_a_browser_writes_numbers_into_cells_where_they_fit(tmp_path: Path) -> None:
    results = grid(name="blocks.{}.attention.output")
    rows = [replace(row, null=0.01, null_z=0.0 if row.score < 0.6 else 9.0) for row in results.rows]
    few = asked(page(replace(results, rows=rows)), tmp_path, NUMBERS)
    assert clean(few), few
    assert few["templates"] == ["%{text}", "%{text}"]
    assert (few["text"], few["swatch"]) == ("0.86", "rgb(0, 0, 0)")
    assert few["hover"].startswith("<b>cka 0.8571</b>")
    assert few["ticks"] == ["0", "1"]  # long names without what all have in common
    assert few["crosses"][0][0] == 0.33  # above the number
    assert 15 < few["frames"][0] < few["frames"][1]
    many = asked(page(grid(sizes=(24, 24))), tmp_path, NUMBERS)
    assert clean(many), many
    assert many["templates"] == ["", "%{text}"]  # when zoomed into three cells
    assert many["frames"][0] < 15 < many["frames"][1]


@browser
@pytest.mark.slow
def test_a_double_click_toggles_between_the_whole_range_and_that_of_the_lines(tmp_path: Path) -> None:
    results = grid(sizes=(6, 5))
    rows = [replace(row, null=0.1, null_z=9.0) for row in results.rows]
    answer = asked(page(replace(results, rows=rows)), tmp_path, DOUBLE_CLICK)
    assert clean(answer), answer
    whole, own, again, once_more = answer["ranges"]
    assert whole[0] < 0.1
    assert 0.7 < own[0] < 1 < own[1] < 1.1
    assert (again, once_more) == (pytest.approx(whole), pytest.approx(own))
    assert answer["zoomed"] != pytest.approx(own)
    assert answer["back"] == pytest.approx(whole)


@browser
@pytest.mark.slow
def test_a_browser_shows_the_whole_table_where_no_row_has_a_best_match(tmp_path: Path) -> None:
    results = grid()
    flat = [replace(row, score=0.9 + 1e-4 * row.score) for row in results.rows]
    answer = asked(page(replace(results, rows=flat)), tmp_path, BEST)
    assert clean(answer), answer
    assert (answer["only"], answer["rows"]) == (False, 36)
    answer = asked(page(results), tmp_path, BEST)
    assert (answer["only"], answer["rows"]) == (True, 6)


@browser
def test_a_browser_sorts_and_filters_the_table(tmp_path: Path) -> None:
    answer = asked(page(grid()), tmp_path, SORT)
    assert clean(answer), answer
    assert (answer["rows"], answer["told"]) == (36, "descending")
    assert list(map(float, answer["down"])) == sorted(map(float, answer["up"]), reverse=True)
    assert float(answer["up"][0]) == pytest.approx(0.5455)
    assert answer["filtered"] == 11


@browser
@pytest.mark.slow
def test_a_browser_shows_the_pair_and_scale_that_are_chosen(tmp_path: Path) -> None:
    answer = asked(page(grid(stores=("a", "b", "c"), sizes=(3, 3))), tmp_path, CHOOSE)
    assert clean(answer), answer
    assert answer["first"] == ["CKA", "CKA within a", "CKA within b"]
    assert answer["third"] == ["CKA", "CKA within b", "CKA within c"]
    assert answer["limits"] == [pytest.approx(0.6), pytest.approx(1.0)]
    assert answer["ticks"] == ["0 %", "50 %", "100 %"]


@browser
@pytest.mark.slow
def test_a_browser_shows_calibrated_scores_first_and_self_similarity_beside(tmp_path: Path) -> None:
    results = grid(measures=("universal", "cka"))
    rows = [replace(row, calibrated=0.25) if row.measure == "universal" else row for row in results.rows]
    answer = asked(page(replace(results, rows=rows)), tmp_path, VALUES)
    assert clean(answer), answer
    first, then = answer["first"], answer["then"]
    own = ["CKA", "CKA within a", "CKA within b"]
    assert first["heads"][:6] == ["universal, calibrated", "universal within a, raw", "universal within b, raw", *own]
    assert first["heads"][6] == "Score at the same depth: universal, calibrated"
    assert (first["lines"], first["z"], first["limits"], first["y"]) == ([3, 3], 0.25, [0, 1], 0.25)
    assert then["heads"][:2] == ["universal, raw", "CKA"]
    assert then["heads"][6] == "Score at the same depth: universal, raw"
    assert (then["lines"], then["z"], then["y"]) == ([2, 2, 2], 1, 1)


def test_values_and_lines_can_be_chosen_where_there_is_a_choice() -> None:
    assert 'id="values"' not in page(grid())
    assert 'id="lines"' not in page(grid())
    two, four = (page(grid(measures=measures)) for measures in (("cka", "rv"), ("cka", "rv", "dot", "norm")))
    assert two.index("self-similarity beside</option>") < two.index("measures side by side</option>")
    assert four.index("self-similarity beside</option>") > four.index("measures side by side</option>")
    results = grid(measures=("enc.pt",))
    rows = [replace(row, calibrated=0.5) for row in results.rows]
    assert 'id="values"' in page(replace(results, rows=rows))


@browser
@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(24, 24), (60, 60)])
def test_a_browser_draws_hostile_names_and_many_layers(tmp_path: Path, sizes: tuple[int, int]) -> None:
    results = grid(sizes, ("cka", HOSTILE + "m"), (HOSTILE, HOSTILE + "2"), HOSTILE + "{}")
    answer = asked(page(results), tmp_path, COUNT, height=9000)
    assert clean(answer), answer
    assert answer["charts"] == 2 * 3 + 3
    assert answer["elements"] == 0
    assert answer["title"].startswith("How similar are </script>")
    assert answer["wide"] <= 1300


@browser
@pytest.mark.slow
def test_a_browser_draws_a_benchmark(tmp_path: Path) -> None:
    results = bench({"cka": (0.5, 0.4, 0.6), "enc.pt": (0.9, 0.8, 1.0), "dot": (None, None, None)})  # type: ignore[dict-item]
    answer = asked(
        page(results),
        tmp_path,
        COUNT + WHISKERS + DOUBLE_CLICK.replace('("#curves .chart")', '("#curves .panel + .panel .chart")'),
    )
    assert clean(answer), answer
    assert answer["titles"][:2] == ["Overall, layers", "By layer, layers"]
    bars, enc, cka, dot = answer["arms"]
    assert bars == [[10, 10, None], [10, 10, None]]
    assert (enc, cka, dot) == ([[10] * 4] * 2, [[10] * 4] * 2, None)
    assert [places[1] for places in answer["places"]] == pytest.approx([0.88, 1, 1.12])  # beside each other
    whole, own, *_ = answer["ranges"]
    assert whole == [-2, 104]
    assert own == pytest.approx([40 - 0.06 * 60, 100 + 0.06 * 60])


@browser
@pytest.mark.slow
def test_a_browser_would_say_what_is_loaded_and_what_fails(tmp_path: Path) -> None:
    """The control of the tests above."""
    broken = page(grid()).replace("</h1>", '</h1><img src="https://example.org/x.png">', 1)
    answer = asked(broken, tmp_path, "missing()")
    assert answer["blocked"] == ["https://example.org/x.png"]
    assert any("missing is not defined" in error for error in answer["errors"])


def test_noise_ceilings_are_lines_of_the_curves_and_columns_of_the_table() -> None:
    results = grid(sizes=(3, 3), measures=("rsa",))
    rows = [replace(row, ceiling_low=0.5, ceiling_high=0.75) for row in results.rows]
    data = contents.of(replace(results, rows=rows)).data
    assert data["curves"][0]["lines"][0]["ceilings"] == [[0.5] * 3, [0.75] * 3]
    assert data["columns"][-2:] == ["ceiling_low", "ceiling_high"]
    assert "noise ceiling of the second store" in page(replace(results, rows=rows))
    assert "noise ceiling of the second store" not in page(results)
