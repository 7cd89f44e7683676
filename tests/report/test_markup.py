"""Tables as Markdown and LaTeX: to the letter, and with no name that acts as markup."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from contrasim_cli.measures import MEASURES
from contrasim_cli.report import markup
from contrasim_cli.report import text as report
from contrasim_cli.report.results import BenchRow, CompareRow, Results, SanityRow, ScoreRow
from contrasim_cli.report.titles import TITLES

GRID = Results(
    "baseline",
    ScoreRow,
    [
        ScoreRow("cka", "a_1", "x|y", "b%", "y", 0.25),
        ScoreRow("cka", "a_1", "x|y", "b%", "z", None),
        ScoreRow("procrustes", "a_1", "x|y", "b%", "y", -0.5),
    ],
)


def text(results: Results, form: str) -> str:
    return report.render(results, form, color=False)


def test_markdown_of_grids() -> None:
    assert text(GRID, "md") == (
        "CKA: a\\_1 (rows) against b% (columns)\n"
        "\n"
        "|  | y | z |\n"
        "| --- | ---: | ---: |\n"
        "| x\\|y | 0.2500 |  |\n"
        "\n"
        "Procrustes: a\\_1 (rows) against b% (columns); lower is more similar\n"
        "\n"
        "|  | y |\n"
        "| --- | ---: |\n"
        "| x\\|y | -0.5000 |\n"
    )


def test_latex_of_grids() -> None:
    assert text(GRID, "tex") == (
        "% needs \\usepackage{booktabs}, and \\usepackage{amssymb} where there are check marks\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{CKA: a\\_1 (rows) against b\\% (columns)}\n"
        "\\label{tab:contrasim-baseline}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        " & y & z \\\\\n"
        "\\midrule\n"
        "x\\textbar{}y & 0.2500 &  \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{Procrustes: a\\_1 (rows) against b\\% (columns); lower is more similar}\n"
        "\\label{tab:contrasim-baseline-2}\n"
        "\\begin{tabular}{lr}\n"
        "\\toprule\n"
        " & y \\\\\n"
        "\\midrule\n"
        "x\\textbar{}y & $-$0.5000 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
    )


def test_a_title_begins_captions_and_names_labels() -> None:
    titled = replace(GRID, title="Säen & ernten_1")
    latex = text(titled, "tex")
    assert (
        "\\caption{Säen \\& ernten\\_1. CKA: a\\_1 (rows) against b\\% (columns)}\n\\label{tab:saen-ernten-1}\n"
        in latex
    )
    assert latex.count("\\label{tab:saen-ernten-1-2}") == latex.count("\\label{tab:saen-ernten-1}") == 1
    assert text(titled, "md").startswith("Säen & ernten\\_1. CKA: a\\_1 (rows)".replace("&", "\\&"))
    assert "\\caption{Which? CKA: " in text(replace(GRID, title="Which?"), "tex")
    assert "\\label{tab:contrasim}" in text(replace(GRID, title="表"), "tex")


def test_a_title_is_the_caption_of_a_table_without_one() -> None:
    table = Table("a")
    table.add_row("1")
    assert "\\caption{Two}\n\\label{tab:two}" in markup.latex(markup.titled([table], "Two"), "Two")
    assert "\\label" not in markup.latex([table], "Two")  # which has nothing to number


def test_the_best_match_of_each_row_is_bold() -> None:
    scores = {("x", "y"): 0.9, ("x", "z"): 0.1, ("w", "y"): -0.5, ("w", "z"): -0.5, ("w", "v"): -0.9, ("x", "v"): 0.2}
    rows = [ScoreRow("cka_debiased", "a", down, "b", across, score) for (down, across), score in scores.items()]
    latex = text(Results("baseline", ScoreRow, rows), "tex")
    assert "\\caption{CKA (debiased): a (rows) against b (columns); bold: the best match of its row}" in latex
    assert "x & \\textbf{0.9000} & 0.1000 & 0.2000 \\\\\n" in latex
    assert "w & \\textbf{$-$0.5000=} & \\textbf{$-$0.5000=} & $-$0.9000 \\\\\n" in latex
    markdown = text(Results("baseline", ScoreRow, rows), "md")
    assert markdown.startswith("CKA (debiased): a (rows) against b (columns); bold: the best match of its row\n")
    assert "| x | **0.9000** | 0.1000 | 0.2000 |\n" in markdown
    assert "| w | **-0.5000=** | **-0.5000=** | -0.9000 |\n" in markdown
    assert "**" not in text(Results("baseline", ScoreRow, rows[:1]), "md")
    assert "\\textbf" not in text(Results("baseline", ScoreRow, rows[:1]), "tex")  # no choice, no best


@pytest.mark.parametrize("form", ["tex", "md"])
def test_bold_scores_beside_calibrated_ones_are_said_to_be_by_the_raw_score(form: str) -> None:
    rows = [
        ScoreRow("universal", "a", x, "b", y, 5.0 * (x == y), calibrated=0.9 if x == y else 0.1)
        for x in "pq"
        for y in "pq"
    ]
    drawn = text(Results("score", ScoreRow, rows), form)
    assert "calibrated; bold: the best match of its row, by raw score" in drawn


@pytest.mark.parametrize("form", ["tex", "md"])
def test_layers_in_tables_are_labelled_as_in_figures(form: str) -> None:
    every = {"a": [f"l{k}" for k in range(5)], "b": [f"m{k}" for k in range(301)]}
    rows = [ScoreRow("cka", "a", a, "b", b, 0.5) for a in ("l1", "l4") for b in ("m0", "m1", "m300")]
    results = replace(GRID, rows=rows, layers=every)
    assert all(name in text(results, form) for name in ("l1", "m300"))
    depth = text(replace(results, layer_labels="depth"), form).replace("\\%", "%")
    assert all(label in depth for label in ("25 %", "100 %", "0.00 %", "0.33 %", "100.00 %"))
    index = text(replace(results, layer_labels="index"), form)
    assert ("& 0 & 1 & 300" if form == "tex" else "| 0 | 1 | 300 |") in index
    assert "m1" in text(replace(results, layer_labels="index"), "tsv")


def test_layers_of_benchmarks_are_labelled_too() -> None:
    rows = [
        BenchRow("layers", "cka", "", "all", layer, 0.5, None, None, None, 0.25, 9, None, None)
        for layer in ("first", "second", "third", "all")
    ]
    results = Results("bench layers", BenchRow, rows, layer_labels="depth")
    shown = text(results, "md")
    assert "first" not in shown
    assert all(label in shown for label in ("| 0 % |", "| 50 % |", "| 100 % |", "| all |"))


def test_titles_are_of_measures_and_differ() -> None:
    assert set(TITLES) <= set(MEASURES)
    assert len(set(TITLES.values()) | set(MEASURES)) == len(TITLES) + len(MEASURES)


def test_rules_stand_where_sections_end() -> None:
    row = CompareRow("layers", "", "all", "", "", "l1", "cka", "dot", 0.5, 0.25, 0.25, -0.1, 0.6, 0.2, 0.4, 40, 80, "x")
    rows = [row, CompareRow("layers", "", "all", "", "", "all", "cka", "dot", *[None] * 7, 0, 0, "undefined")]
    lines = text(Results("bench compare", CompareRow, rows), "tex").splitlines()
    assert lines[lines.index("\\toprule") :] == [
        "\\toprule",
        "layer & cka & dot & difference & 95 \\% interval & p & verdict \\\\",
        "\\midrule",
        "l1 & 50.0 & 25.0 & +25.0 & [$-$10.0, +60.0] & 0.4 & x \\\\",
        "\\midrule",
        "all &  &  &  &  &  & undefined \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def test_lines_of_a_cell_stay_in_it() -> None:
    table = Table("head\nof two", "b")
    table.add_row("70 ± 2\n60–80", "→ ✓")
    assert "| head<br>of two | b |" in markup.markdown([table])
    assert "| 70 ± 2<br>60–80 | → ✓ |" in markup.markdown([table])
    latex = markup.latex([table])
    assert r"\shortstack[r]{70 $\pm$ 2 \\ 60\textendash{}80} & $\rightarrow$ $\checkmark$ \\" in latex


def test_text_is_the_caption_of_the_table_beneath_it_alone() -> None:
    tables = [Table("a"), Table("b")]
    latex = markup.latex(["one", tables[0], "note 5%", "two", tables[1], "end"])
    found = re.findall(r"\\caption\{(.*)\}|^(a|b) |^(% (?:note|end).*)$", latex, re.M)
    assert ["".join(words) for words in found] == ["one", "a", "% note 5%", "two", "b", "% end"]


def test_checks_are_tables_too() -> None:
    rows = [SanityRow("cka", "l", "symmetric", None, "same", 1.0, 1.0, "ok")]
    assert "$\\checkmark$" in text(Results("bench", SanityRow, rows), "tex")


@pytest.mark.parametrize("form", ["md", "tex"])
def test_no_rows_are_no_tables(form: str) -> None:
    assert re.search(r"tabular|---|cka:", text(Results("baseline", ScoreRow, []), form)) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="ab\\|*_`<>[]#~$&!%{}^-–\n ", min_size=1, max_size=12))
def test_no_name_is_markup(name: str) -> None:
    table = Table(name, "b")
    table.add_row(name, "0.5")
    lines = markup.markdown([table]).splitlines()
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines if line] == [3, 3, 3]  # cells
    assert not re.search(r"(?<!\\)(?:\\\\)*[*_`#~$]", "".join(lines))
    latex = markup.latex([table])
    (row,) = [line for line in latex.splitlines() if line.endswith(r"& 0.5 \\")]
    bare = re.sub(r"\\shortstack\[r\]|\\(?:text\w+|dots)\{\}|\\[&%$#_{}]|\{\}|\$[-\\a-z]*\$|\\\\", "", row)
    assert not re.search(r"[%$#_\\^~<>|]", bare)
    assert bare.count("&") == 1
    assert "--" not in row


@given(st.text(alphabet="-+=1.) ab", min_size=1, max_size=6))
def test_no_line_begins_a_list(name: str) -> None:
    assert not re.match(r"\s*([-+=]|\d[.)](\s|$))", markup.markdown([name]))
